//! devenv

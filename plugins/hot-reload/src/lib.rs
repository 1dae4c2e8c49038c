//! hot-reload

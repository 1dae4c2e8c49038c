//! The environment, read once: where to listen, what to serve, how to behave.

use std::{env, error::Error, path::PathBuf};

use crate::config::Config;

/// All that the service is told from outside.
#[derive(Debug)]
pub(crate) struct Settings {
    /// Address to listen on, `SHOP_LISTEN`.
    pub(crate) listen: String,
    /// Directory of the static files, `SHOP_STATIC`.
    pub(crate) static_root: PathBuf,
    /// Read from the file that `SHOP_CONFIG` names, or the defaults without it.
    pub(crate) config: Config,
}

impl Settings {
    pub(crate) fn from_environment() -> Result<Self, Box<dyn Error>> {
        let config = match env::var_os("SHOP_CONFIG") {
            Some(path) => Config::load(&PathBuf::from(path))?,
            None => Config::default(),
        };
        Ok(Self {
            listen: env::var("SHOP_LISTEN").unwrap_or_else(|_| "0.0.0.0:8080".to_owned()),
            static_root: env::var_os("SHOP_STATIC").map_or_else(|| PathBuf::from("/srv/static"), PathBuf::from),
            config,
        })
    }
}

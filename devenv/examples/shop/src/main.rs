//! A small shop: static pages, a JSON API, structured logs and a graceful stop.

mod catalog;
mod config;
mod files;
mod greeting;
mod log;
mod reply;
mod routes;
mod server;
mod settings;
mod timestamp;

use std::process::ExitCode;

fn main() -> ExitCode {
    match settings::Settings::from_environment().and_then(server::run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log::failure("failed", &*error);
            ExitCode::FAILURE
        }
    }
}

//! Clocks and waits.

use devloop_tests::environment::{Engine, Environment};
use devloop_tests::toolbox;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

pub(crate) fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

/// Asks until the answer holds `wanted`; answers how long that took.
pub(crate) fn until_served(address: &str, path: &str, wanted: &str, since: Instant) -> Duration {
    loop {
        if get(address, path).is_ok_and(|answer| answer.contains(wanted)) {
            return since.elapsed();
        }
        assert!(since.elapsed() < Duration::from_secs(120), "{address}{path} never answered {wanted:?}");
        std::thread::sleep(Duration::from_micros(500));
    }
}

fn get(address: &str, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address.parse().map_err(std::io::Error::other)?, Duration::from_millis(500))?;
    stream.set_read_timeout(Some(Duration::from_millis(500)))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// What a benchmark's cluster is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum On {
    /// The embedded one.
    #[default]
    Embedded,
    /// kind, one node.
    Kind,
}

/// A fresh environment.
pub(crate) fn environment(on: On) -> Environment {
    let environment = match on {
        On::Embedded => Environment::new("bench", "bench"),
        On::Kind => Environment::new("bench", "bench-kind").on(Engine::Kind { workers: 0 }),
    };
    environment.clear();
    environment
}

pub(crate) fn load_toolbox(environment: &Environment) {
    let archive = toolbox::archive(&environment.scratch("toolbox"));
    environment.devenv(["load".as_ref(), archive.as_os_str()]).run().ok();
}

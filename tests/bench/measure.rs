//! Clocks and waits.

use devloop_tests::environment::{Engine, Environment};
use devloop_tests::example::Example;
use devloop_tests::toolbox;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// Between two questions.
const PAUSE: Duration = Duration::from_micros(500);
/// How long a pod may take to answer.
const LIMIT: Duration = Duration::from_millis(500);

pub(crate) fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

/// Asks until the answer holds `wanted`; answers how long that took.
pub(crate) fn until_served(address: &str, path: &str, wanted: &str, since: Instant) -> Duration {
    loop {
        if serves(address, path, wanted) {
            return since.elapsed();
        }
        assert!(since.elapsed() < Duration::from_secs(120), "{address}{path} never answered {wanted:?}");
        std::thread::sleep(PAUSE);
    }
}

/// Whether the answer holds `wanted`.
pub(crate) fn serves(address: &str, path: &str, wanted: &str) -> bool {
    get(address, path).is_ok_and(|answer| answer.contains(wanted))
}

fn get(address: &str, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address.parse().map_err(std::io::Error::other)?, LIMIT)?;
    stream.set_read_timeout(Some(LIMIT))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// A pod that is asked again and again, over one connection: so that of the time
/// until many pods serve something little is the asking.
pub(crate) struct Asked {
    address: String,
    stream: Option<BufReader<TcpStream>>,
}

impl Asked {
    pub(crate) fn new(address: String) -> Self {
        Self { address, stream: None }
    }

    /// Asks once; again where the connection was ended after the answer before.
    pub(crate) fn ask(&mut self, path: &str) -> std::io::Result<String> {
        let is_used = self.stream.is_some();
        match self.send(path).and_then(|()| self.receive()) {
            Err(_) if is_used => {
                self.stream = None;
                self.send(path)?;
                self.receive()
            }
            answered => answered,
        }
    }

    fn send(&mut self, path: &str) -> std::io::Result<()> {
        let stream = match self.stream.take() {
            Some(stream) => stream,
            None => {
                let stream = TcpStream::connect_timeout(&self.address.parse().map_err(std::io::Error::other)?, LIMIT)?;
                stream.set_read_timeout(Some(LIMIT))?;
                stream.set_nodelay(true)?;
                BufReader::new(stream)
            }
        };
        write!(stream.get_ref(), "GET {path} HTTP/1.1\r\nHost: shop\r\n\r\n")?;
        self.stream = Some(stream);
        Ok(())
    }

    fn receive(&mut self) -> std::io::Result<String> {
        let mut stream = self.stream.take().ok_or(std::io::ErrorKind::NotConnected)?;
        let (mut length, mut line) = (None, String::new());
        while stream.read_line(&mut line)? > 2 {
            if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.trim().parse::<usize>().ok();
            }
            line.clear();
        }
        let mut body = vec![0; length.ok_or(std::io::ErrorKind::InvalidData)?];
        stream.read_exact(&mut body)?;
        self.stream = Some(stream);
        Ok(String::from_utf8_lossy(&body).into_owned())
    }
}

/// Asks until the answers of all pods hold `wanted`; answers how long that took.
/// The first one is asked until it serves it, and only then the others: asking
/// takes processor time from what it waits for.
pub(crate) fn until_all_serve(pods: &mut [Asked], path: &str, wanted: &str, since: Instant) -> Duration {
    let (first, others) = pods.split_at_mut(1);
    for group in [first, others] {
        let mut waiting: Vec<&mut Asked> = group.iter_mut().collect();
        while !waiting.is_empty() {
            // One that does not take the question is asked again.
            waiting.iter_mut().for_each(|pod| drop(pod.send(path)));
            waiting.retain_mut(|pod| !pod.receive().is_ok_and(|answer| answer.contains(wanted)));
            assert!(since.elapsed() < Duration::from_secs(120), "{path} was never {wanted:?} at {} pods", waiting.len());
            if !waiting.is_empty() {
                std::thread::sleep(PAUSE);
            }
        }
    }
    since.elapsed()
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

/// Gives a run a pod that no debugger was in, and ephemeral containers stay in one; the
/// kubelet has come to rest with it.
pub(crate) fn renew(example: &Example) {
    let pod = example.pod();
    example.kubectl(&["delete", "pod", &pod.name, "--grace-period=1"]).run().ok();
    example.rolled_out();
    std::thread::sleep(Duration::from_secs(3));
}

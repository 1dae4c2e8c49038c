//! A debugger on a running process: command -> its port accepts, which ours does once it
//! is attached; and command -> it answers, which the peer's does no sooner, though its port
//! accepts before.

use crate::figures::Figures;
use crate::measure::{On, environment, ms, renew};
use crate::route::Route;
use devloop_tests::environment::Environment;
use devloop_tests::example::Example;
use devloop_tests::session::Session;
use nix::sys::signal::Signal;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// The port that the peer's debugger listens on, in the pod.
const PORT: u16 = 4040;

/// From the node; `kubectl debug` with the same debugger's image in turn.
pub(crate) fn node(runs: usize, on: On) -> Figures {
    attach(runs, on, "node")
}

/// In an ephemeral container, a new one each time.
pub(crate) fn api(runs: usize, on: On) -> Figures {
    attach(runs, on, "api")
}

struct Bench {
    environment: Environment,
    example: Example,
    _route: Option<Route>,
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.environment.clear();
    }
}

fn attach(runs: usize, on: On, via: &str) -> Figures {
    let environment = environment(on);
    environment.up();
    let route = (on == On::Kind).then(|| Route::to_pods(&environment));
    let example = Example::copy(&environment, "go-web", "bench");
    example.deploy(&environment);
    let bench = Bench { environment, example, _route: route };
    // Builds the debugger, and leaves the image that the peer takes.
    let image = image(&bench);
    let (mut figures, mut peer) = (Figures::default(), Vec::new());
    for run in 0..=runs {
        let (session, took, answered, attached) = measured(&bench.example, via);
        session.end(Signal::SIGINT);
        renew(&bench.example);
        let other = peers(&bench.example, &image);
        // The first one meets cold caches on both sides.
        if run > 0 {
            figures.samples.push(ms(took));
            figures.phase("answers", ms(answered));
            figures.phase("stopped", attached["stoppedMs"].as_f64().unwrap_or(f64::NAN));
            for (name, value) in attached["phasesMs"].as_object().into_iter().flatten() {
                figures.phase(name, value.as_f64().unwrap_or(f64::NAN));
            }
            peer.push(ms(other));
        }
    }
    figures.peer = Some(("kubectl debug", peer));
    figures
}

/// Starts the command, and connects to the port as soon as it is told; answers when that
/// accepted, and when the debugger answered.
fn measured(example: &Example, via: &str) -> (Session, Duration, Duration, serde_json::Value) {
    let context = example.environment.context();
    let words = ["deploy/go-web", "--context", &context, "-n", &example.namespace, "--via", via, "-o", "json", "--editor", "none"];
    let started = Instant::now();
    let mut session = Session::launch(example.environment.plugin("kubectl-debug_attach", words));
    let attached = session.wait_for("attached");
    let stream = TcpStream::connect(("127.0.0.1", u16::try_from(attached["port"].as_u64().unwrap()).unwrap())).unwrap();
    let accepted = started.elapsed();
    ask(stream);
    (session, accepted, started.elapsed(), attached)
}

/// Asks Delve for its version, in the JSON-RPC of its own.
fn ask(mut stream: TcpStream) {
    stream.write_all(b"{\"method\":\"RPCServer.GetVersion\",\"params\":[{}],\"id\":1}\n").unwrap();
    stream.read_exact(&mut [0]).unwrap();
}

/// The image of the ephemeral container that our own command starts.
fn image(bench: &Bench) -> String {
    let (session, _, _, attached) = measured(&bench.example, "api");
    session.end(Signal::SIGINT);
    let pod = bench.example.pod();
    let path = format!("jsonpath={{.spec.ephemeralContainers[?(@.name==\"{}\")].image}}", attached["ephemeral"].as_str().unwrap());
    let image = bench.example.kubectl(&["get", "pod", &pod.name, "-o", &path]).run().ok();
    renew(&bench.example);
    image
}

fn peers(example: &Example, image: &str) -> Duration {
    let pod = example.pod();
    let address = format!("{}:{PORT}", pod.address.split(':').next().unwrap());
    let listen = format!("--listen=:{PORT}");
    let image = format!("--image={image}");
    let words = ["debug", &pod.name, &image, "--target=web", "--profile=general", "--", "/dlv", "attach", "1", "--headless"];
    let more = ["--accept-multiclient", "--continue", "--api-version=2", "--only-same-user=false", &listen];
    let started = Instant::now();
    example.kubectl(&[&words[..], &more[..]].concat()).run().ok();
    let stream = loop {
        if let Ok(stream) = TcpStream::connect_timeout(&address.parse().unwrap(), Duration::from_millis(200)) {
            break stream;
        }
        assert!(started.elapsed() < Duration::from_secs(60), "the peer's debugger never listened");
        std::thread::sleep(Duration::from_millis(1));
    };
    ask(stream);
    let took = started.elapsed();
    renew(example);
    took
}

//! The listener, the workers, and how they stop.

use std::{
    error::Error,
    io,
    net::TcpListener,
    process,
    sync::{
        Arc,
        mpsc::{self, Receiver, Sender},
    },
    thread,
    time::{Duration, Instant},
};

use serde_json::json;
use signal_hook::{
    consts::{SIGINT, SIGTERM},
    iterator::Signals,
    low_level::signal_name,
};
use socket2::SockRef;
use tiny_http::{Header, Request, Response, Server};

use crate::{
    log::{self, Level},
    reply::Reply,
    routes,
    settings::Settings,
};

const WORKERS: usize = 8;

/// From the signal to the end, at most: how long requests in flight may take.
const STOP_TIMEOUT: Duration = Duration::from_millis(900);

/// How long requests are still taken after the signal. Those on their way get an answer:
/// Kubernetes signals a pod while it is still taking it out of its Services.
const LINGER: Duration = Duration::from_millis(100);

/// What can happen to the service as a whole.
enum Event {
    Signal(i32),
    /// With the reason, if it ended for another one than being told to.
    WorkerEnded(Option<io::Error>),
}

/// Serves until SIGTERM or SIGINT.
pub(crate) fn run(settings: Settings) -> Result<(), Box<dyn Error>> {
    let (event_tx, event_rx) = mpsc::channel();
    // Before the port is open: from the first request on, a stop is a graceful one.
    forward_signals(event_tx.clone())?;

    let listener = listen(&settings.listen).map_err(|error| format!("cannot listen on {}: {error}", settings.listen))?;
    let address = listener.local_addr()?;
    let server = Arc::new(Server::from_listener(listener, None).map_err(|error| error as Box<dyn Error>)?);
    log::write(
        Level::Info,
        "started",
        json!({
            "address": address.to_string(),
            "pid": process::id(),
            "version": env!("CARGO_PKG_VERSION"),
            "static": settings.static_root.display().to_string(),
        }),
    );

    let settings = Arc::new(settings);
    for number in 0..WORKERS {
        let (server, settings, event_tx) = (Arc::clone(&server), Arc::clone(&settings), event_tx.clone());
        thread::Builder::new().name(format!("worker-{number}")).spawn(move || work(&server, &settings, event_tx))?;
    }

    match event_rx.recv()? {
        Event::Signal(signal) => stop(&server, &event_rx, signal),
        Event::WorkerEnded(reason) => return Err(reason.unwrap_or_else(|| io::Error::other("a worker ended")).into()),
    }
    Ok(())
}

/// Binds with SO_REUSEADDR, as the standard library does: a successor gets the port at once.
fn listen(address: &str) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(address)?;
    // Connections inherit it. tiny_http writes head and body apart, and the body would wait
    // 40 ms for the client's delayed acknowledgement of the head.
    SockRef::from(&listener).set_tcp_nodelay(true)?;
    Ok(listener)
}

fn forward_signals(event_tx: Sender<Event>) -> io::Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        for signal in signals.forever() {
            if event_tx.send(Event::Signal(signal)).is_err() {
                return;
            }
        }
    })?;
    Ok(())
}

/// Lets each worker finish what it has, for as long as `STOP_TIMEOUT` or until a second signal.
fn stop(server: &Server, event_rx: &Receiver<Event>, signal: i32) {
    log::write(Level::Info, "stopping", json!({"signal": signal_name(signal)}));
    let deadline = Instant::now() + STOP_TIMEOUT;
    thread::sleep(LINGER);
    for _ in 0..WORKERS {
        // Queued behind the requests that are already there, which are served first.
        server.unblock();
    }
    let mut busy = WORKERS;
    while busy > 0 {
        match event_rx.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(Event::WorkerEnded(_)) => busy -= 1,
            Ok(Event::Signal(_)) | Err(_) => break,
        }
    }
    let level = if busy == 0 { Level::Info } else { Level::Warn };
    log::write(level, "stopped", json!({"abandoned_requests": busy}));
}

/// Tells that a worker is gone however it went, a panic included.
struct EndedGuard {
    event_tx: Sender<Event>,
    reason: Option<io::Error>,
}

impl Drop for EndedGuard {
    fn drop(&mut self) {
        // Nobody listens any more once the service has stopped.
        let _ = self.event_tx.send(Event::WorkerEnded(self.reason.take()));
    }
}

fn work(server: &Server, settings: &Settings, event_tx: Sender<Event>) {
    let mut ended = EndedGuard { event_tx, reason: Some(io::Error::other("a worker panicked")) };
    ended.reason = serve(server, settings).err();
}

/// Takes requests until it is unblocked, or until the listener fails.
fn serve(server: &Server, settings: &Settings) -> io::Result<()> {
    loop {
        match server.recv() {
            Ok(request) => respond(request, settings),
            // What `Server::unblock` makes of `recv`; the listener's own errors carry a number.
            Err(error) if error.raw_os_error().is_none() => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

fn respond(request: Request, settings: &Settings) {
    let start = Instant::now();
    let method = request.method().as_str().to_owned();
    let path = request.url().split(['?', '#']).next().unwrap_or_default().to_owned();

    let mut reply = routes::answer(settings, &method, &path);
    let (status, mut error) = (reply.status, reply.error.take());
    if let Err(write_error) = request.respond(into_response(reply)) {
        error = error.or_else(|| Some(write_error.to_string()));
    }

    let level = match status {
        500.. => Level::Error,
        400.. => Level::Warn,
        _ => Level::Info,
    };
    let mut fields = json!({
        "method": method,
        "path": path,
        "status": status,
        "duration_us": u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX),
    });
    if let Some(error) = error {
        fields["error"] = error.into();
    }
    log::write(level, "request", fields);
}

fn into_response(reply: Reply) -> Response<io::Cursor<Vec<u8>>> {
    let mut headers = vec![
        ("Content-Type", reply.content_type),
        // A synced file has to show at the next reload.
        ("Cache-Control", "no-store"),
        ("X-Content-Type-Options", "nosniff"),
    ];
    if reply.status == 405 {
        headers.push(("Allow", "GET, HEAD"));
    }
    // Always with a length: large bodies would be chunked otherwise.
    let response = Response::from_data(reply.body).with_status_code(reply.status).with_chunked_threshold(usize::MAX);
    headers.into_iter().filter_map(|(name, value)| Header::from_bytes(name, value).ok()).fold(response, Response::with_header)
}

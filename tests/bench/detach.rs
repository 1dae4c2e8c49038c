//! What is left of a debugger once it is gone: how long 1,000 requests take before one
//! came and after it left, from clients that do nothing but ask.

use crate::figures::Figures;
use crate::measure::{Asked, On, environment, renew, serves};
use crate::route::Route;
use devloop_tests::dap::Dap;
use devloop_tests::example::Example;
use devloop_tests::session::Session;
use nix::sys::signal::Signal;
use serde_json::json;
use std::thread;
use std::time::{Duration, Instant};

/// So many ask at once.
const CLIENTS: usize = 4;
const WARMING: Duration = Duration::from_secs(2);
const LASTING: Duration = Duration::from_secs(5);
const PATH: &str = "/version";

/// An example, and a statement that runs for each request.
struct App {
    name: &'static str,
    file: &'static str,
    statement: &'static str,
}

/// Go, by Delve.
pub(crate) fn go(runs: usize, on: On) -> Figures {
    detach(runs, on, &App { name: "go-web", file: "cmd/web/main.go", statement: "fmt.Fprintln(answer, greeting)" })
}

/// Python, by debugpy, a thread of which stays.
pub(crate) fn python(runs: usize, on: On) -> Figures {
    detach(runs, on, &App { name: "python-web", file: "src/app.py", statement: "self.send_response(200)" })
}

fn detach(runs: usize, on: On, app: &App) -> Figures {
    let environment = environment(on);
    environment.up();
    let _route = (on == On::Kind).then(|| Route::to_pods(&environment));
    let example = Example::copy(&environment, app.name, "bench");
    example.deploy(&environment);
    let (mut figures, mut before) = (Figures::default(), Vec::new());
    for run in 0..=runs {
        let address = example.pod().address;
        load(&address, WARMING);
        // Twice: what two measurements differ by without any debugger.
        let [first, second] = [(); 2].map(|()| load(&address, LASTING));
        debug(&example, app, &address);
        let after = load(&address, LASTING);
        // The first one fetches the debugger.
        if run > 0 {
            figures.phase("before that", first);
            figures.samples.push(after);
            before.push(second);
        }
        // The next one begins with a process that knew no debugger.
        renew(&example);
    }
    figures.peer = Some(("before", before));
    environment.clear();
    figures
}

/// Asks for that long; answers milliseconds per 1,000 requests.
fn load(address: &str, lasting: Duration) -> f64 {
    let started = Instant::now();
    let ask = || {
        let (mut asked, mut count) = (Asked::new(address.to_owned()), 0_u32);
        while started.elapsed() < lasting {
            asked.ask(PATH).unwrap();
            count += 1;
        }
        count
    };
    let count: u32 = thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(ask)).collect();
        clients.into_iter().map(|client| client.join().unwrap()).sum()
    });
    started.elapsed().as_secs_f64() * 1e6 / f64::from(count)
}

/// Attaches, stops at a breakpoint under a request, runs on, and detaches.
fn debug(example: &Example, app: &App, address: &str) {
    let (target, context, folder) = (format!("deploy/{}", app.name), example.environment.context(), example.folder.display().to_string());
    let words = [&target, "--context", &context, "-n", &example.namespace, "--sources", &folder, "-o", "json", "--editor", "none"];
    let mut session = Session::launch(example.environment.plugin("kubectl-debug_attach", words));
    let attached = session.wait_for("attached");
    let port = u16::try_from(attached["port"].as_u64().unwrap()).unwrap();
    let file = example.folder.join(app.file);
    let text = std::fs::read_to_string(&file).unwrap();
    let line = 1 + text.lines().position(|line| line.contains(app.statement)).unwrap();
    let asking = address.to_owned();
    let (mut editor, thread, _, request) = Dap::stop(port, &file, line, || thread::spawn(move || serves(&asking, PATH, "hello")));
    editor.ask("continue", json!({"threadId": thread}));
    // Its client may have given up meanwhile.
    let _ = request.join();
    // Not all of them answer that.
    editor.send("disconnect", json!({"terminateDebuggee": false}));
    drop(editor);
    assert!(session.end(Signal::SIGINT).success());
}

//! A small client of the Debug Adapter Protocol, as an editor is one
//! (<https://microsoft.github.io/debug-adapter-protocol/specification>).

use serde_json::{Value, json};
use std::fmt;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpStream};
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(90);

/// An editor's side of a debug session.
pub struct Dap {
    writer: Box<dyn Write + Send>,
    messages_rx: Receiver<Value>,
    /// Those that were not waited for yet.
    kept: Vec<Value>,
    seen: Vec<String>,
    next: u64,
    /// Closed when dropped: the thread that reads has it open, too.
    connection: Option<TcpStream>,
}

impl Drop for Dap {
    fn drop(&mut self) {
        if let Some(connection) = &self.connection {
            // The other side may have done so.
            let _ = connection.shutdown(Shutdown::Both);
        }
    }
}

impl fmt::Debug for Dap {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Dap").field("seen", &self.seen).finish_non_exhaustive()
    }
}

impl Dap {
    /// Connects to a port of this machine.
    ///
    /// # Panics
    /// When nobody listens there.
    pub fn connect(port: u16) -> Self {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        let mut client = Self::over(stream.try_clone().unwrap(), stream.try_clone().unwrap());
        client.connection = Some(stream);
        client
    }

    /// Speaks over any two streams.
    pub fn over(reader: impl Read + Send + 'static, writer: impl Write + Send + 'static) -> Self {
        let (messages_tx, messages_rx) = channel();
        std::thread::spawn(move || {
            let mut reader = BufReader::new(reader);
            while let Some(message) = read(&mut reader) {
                if messages_tx.send(message).is_err() {
                    return;
                }
            }
        });
        Self { writer: Box::new(writer), messages_rx, kept: Vec::new(), seen: Vec::new(), next: 0, connection: None }
    }

    /// Sends a request; answers its number.
    ///
    /// # Panics
    /// When the connection is gone.
    pub fn send(&mut self, command: &str, arguments: Value) -> u64 {
        self.next += 1;
        let message = json!({"seq": self.next, "type": "request", "command": command, "arguments": arguments}).to_string();
        write!(self.writer, "Content-Length: {}\r\n\r\n{message}", message.len()).unwrap();
        self.writer.flush().unwrap();
        self.next
    }

    /// Sends a request and answers the body of its response.
    ///
    /// # Panics
    /// When it fails, or no answer comes.
    #[track_caller]
    pub fn ask(&mut self, command: &str, arguments: Value) -> Value {
        let number = self.send(command, arguments);
        let answer = self.wait(command, |message| message["type"] == "response" && message["request_seq"] == number);
        assert_eq!(answer["success"], true, "{command}: {answer}; messages so far: {:#?}", self.seen);
        answer["body"].clone()
    }

    /// The next event of a kind; answers its body.
    ///
    /// # Panics
    /// When none comes.
    #[track_caller]
    pub fn event(&mut self, kind: &str) -> Value {
        self.wait(kind, |message| message["type"] == "event" && message["event"] == kind)["body"].clone()
    }

    #[track_caller]
    fn wait(&mut self, what: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        if let Some(index) = self.kept.iter().position(&is_it) {
            return self.kept.remove(index);
        }
        let started = Instant::now();
        loop {
            match self.messages_rx.recv_timeout(PATIENCE.saturating_sub(started.elapsed())) {
                Ok(message) => {
                    self.seen.push(message.to_string());
                    if is_it(&message) {
                        return message;
                    }
                    self.kept.push(message);
                }
                Err(error) => panic!("no {what} ({error}); messages so far: {:#?}", self.seen),
            }
        }
    }

    /// Attaches as an editor does that knows nothing but the port, with one
    /// breakpoint, which has to bind; lets the process run.
    ///
    /// # Panics
    /// When that fails.
    #[track_caller]
    pub fn attach(&mut self, file: &Path, line: usize) {
        self.ask("initialize", json!({"adapterID": "go", "pathFormat": "path", "linesStartAt1": true, "columnsStartAt1": true}));
        self.ask("attach", json!({"request": "attach"}));
        self.event("initialized");
        let set = self.ask("setBreakpoints", json!({"source": {"path": file}, "breakpoints": [{"line": line}]}));
        assert_eq!(set["breakpoints"][0]["verified"], true, "{set}");
        self.ask("configurationDone", json!({}));
    }

    /// Attaches to a port with a breakpoint, and asks the app for what leads there; answers
    /// the thread that stops and its innermost frame, and the request.
    ///
    /// # Panics
    /// When it does not stop there.
    #[track_caller]
    pub fn stop<R>(port: u16, file: &Path, line: usize, ask: impl FnOnce() -> R) -> (Self, u64, Value, R) {
        let mut editor = Self::connect(port);
        editor.attach(file, line);
        let request = ask();
        let (thread, frame) = editor.stopped("breakpoint");
        (editor, thread, frame, request)
    }

    /// Waits until the process stops; answers the thread and its innermost frame.
    ///
    /// # Panics
    /// When it does not.
    #[track_caller]
    pub fn stopped(&mut self, reason: &str) -> (u64, Value) {
        let stopped = self.event("stopped");
        assert_eq!(stopped["reason"], reason, "{stopped}");
        let thread = stopped["threadId"].as_u64().unwrap();
        let stack = self.ask("stackTrace", json!({"threadId": thread, "startFrame": 0, "levels": 5}));
        (thread, stack["stackFrames"][0].clone())
    }

    /// Steps until the thread is at another line; answers that frame. A line may have
    /// several places in the code, each with its breakpoint.
    ///
    /// # Panics
    /// When it does not stop again.
    #[track_caller]
    pub fn next_line(&mut self, thread: u64, line: usize) -> Value {
        loop {
            self.ask("next", json!({"threadId": thread}));
            self.event("stopped");
            let stack = self.ask("stackTrace", json!({"threadId": thread, "startFrame": 0, "levels": 1}));
            let frame = stack["stackFrames"][0].clone();
            if frame["line"] != line {
                return frame;
            }
        }
    }

    /// A variable in a frame.
    ///
    /// # Panics
    /// When there is none of that name.
    #[track_caller]
    pub fn variable(&mut self, frame: &Value, name: &str) -> Value {
        let scopes = self.ask("scopes", json!({"frameId": frame["id"]}));
        let mut seen = Vec::new();
        for scope in scopes["scopes"].as_array().unwrap() {
            let variables = self.ask("variables", json!({"variablesReference": scope["variablesReference"]}));
            let variables = variables["variables"].as_array().unwrap().clone();
            if let Some(found) = variables.iter().find(|variable| variable["name"] == name) {
                return found.clone();
            }
            seen.extend(variables);
        }
        panic!("no variable {name:?}: {seen:#?}");
    }
}

fn read(reader: &mut impl BufRead) -> Option<Value> {
    let mut length = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        match line.trim_end().split_once(": ") {
            Some(("Content-Length", value)) => length = value.parse().ok()?,
            Some(_) => {}
            None => break,
        }
    }
    let mut content = vec![0; length];
    reader.read_exact(&mut content).ok()?;
    serde_json::from_slice(&content).ok()
}

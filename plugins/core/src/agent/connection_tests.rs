//! The client against a scripted agent.

use super::*;
use std::path::PathBuf;
use tokio::io::DuplexStream;

const PROCESS: ProcessId = ProcessId { pid: 7, start_time: 70 };

/// The agent's side of a connection.
struct Peer {
    stream: DuplexStream,
    decoder: Decoder,
}

impl Peer {
    async fn receive(&mut self) -> Message<Request> {
        loop {
            if let Some(message) = self.decoder.pop().unwrap() {
                return message;
            }
            let mut buffer = vec![0; 4096];
            let count = self.stream.read(&mut buffer).await.unwrap();
            assert!(count > 0, "the client hung up");
            self.decoder.push(&buffer[..count]);
        }
    }

    async fn answer(&mut self, id: u32, body: Response) {
        let mut frame = Vec::new();
        encode(&Message { id, body }, &mut frame).unwrap();
        self.stream.write_all(&frame).await.unwrap();
    }

    /// Receives a transfer to its end; its bytes, or `None` when aborted.
    async fn receive_file(&mut self) -> (u32, Option<Vec<u8>>) {
        let Message { id, body: Request::PutFile { size, .. } | Request::Swap { size, .. } } = self.receive().await else {
            panic!("no transfer")
        };
        let mut content = Vec::new();
        while (content.len() as u64) < size {
            let message = self.receive().await;
            assert_eq!(message.id, id);
            match message.body {
                Request::Data { bytes } => content.extend(bytes.0),
                Request::AbortFile => return (id, None),
                other => panic!("{other:?}"),
            }
        }
        (id, Some(content))
    }
}

fn connect() -> (Agent, Peer) {
    connect_with(PATIENCE)
}

fn connect_with(patience: Duration) -> (Agent, Peer) {
    let (ours, theirs) = tokio::io::duplex(64 * 1024);
    let (reader, writer) = tokio::io::split(ours);
    (Agent::over(reader, writer, None, None, patience), Peer { stream: theirs, decoder: Decoder::new() })
}

fn file(content: &[u8]) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("source");
    std::fs::write(&path, content).unwrap();
    (folder, path)
}

#[tokio::test]
async fn requests_from_many_tasks_are_answered_out_of_order() {
    let (agent, mut peer) = connect();
    let first = tokio::spawn({
        let agent = agent.clone();
        async move { agent.alive(PROCESS).await.unwrap() }
    });
    let request = peer.receive().await;
    let second = tokio::spawn({
        let agent = agent.clone();
        async move { agent.remove(PROCESS, "/srv/a").await.unwrap() }
    });
    let other = peer.receive().await;
    peer.answer(other.id, Response::Removed { existed: true }).await;
    peer.answer(request.id, Response::Alive { running: false }).await;
    assert!(second.await.unwrap());
    assert!(!first.await.unwrap());
}

#[tokio::test]
async fn a_file_is_sent_in_chunks_and_its_hash_is_compared() {
    let content: Vec<u8> = (0..700_000_u32).map(|number| number as u8).collect();
    let (_folder, path) = file(&content);
    let (agent, mut peer) = connect();
    for (damage, expected) in [(0, true), (1, false)] {
        let put = tokio::spawn({
            let (agent, path) = (agent.clone(), path.clone());
            async move { agent.put_file(PROCESS, &path, "/srv/a").await }
        });
        let (id, received) = peer.receive_file().await;
        assert_eq!(received.unwrap(), content);
        let mut hash = *blake3::hash(&content).as_bytes();
        hash[0] ^= damage;
        peer.answer(id, Response::Written { blake3: hash }).await;
        let outcome = put.await.unwrap();
        assert_eq!(outcome.is_ok(), expected, "{outcome:?}");
        assert!(outcome.is_ok() || matches!(outcome, Err(AgentError::Damaged(_))));
    }
}

#[tokio::test]
async fn an_empty_file_is_a_file() {
    let (_folder, path) = file(b"");
    let (agent, mut peer) = connect();
    let put = tokio::spawn(async move { agent.put_file(PROCESS, &path, "/srv/a").await });
    let (id, received) = peer.receive_file().await;
    assert_eq!(received.unwrap(), b"");
    peer.answer(id, Response::Written { blake3: *blake3::hash(b"").as_bytes() }).await;
    put.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_source_that_changes_while_it_is_copied_is_taken_back() {
    // Larger than what fits on the way, so that the end is not read yet.
    let (_folder, path) = file(&vec![b'x'; 2 << 20]);
    let (agent, mut peer) = connect();
    let put = tokio::spawn({
        let path = path.clone();
        async move { agent.put_file(PROCESS, &path, "/srv/a").await }
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(1 << 20).unwrap();
    let (id, received) = peer.receive_file().await;
    assert_eq!(received, None, "half a file is never announced as whole");
    peer.answer(id, Response::Aborted).await;
    assert!(matches!(put.await.unwrap(), Err(AgentError::SourceChanged(_))));
}

#[tokio::test]
async fn a_source_that_is_gone_reaches_nobody() {
    let (agent, _peer) = connect();
    let outcome = agent.put_file(PROCESS, Path::new("/nowhere/at/all"), "/srv/a").await;
    assert!(matches!(outcome, Err(AgentError::SourceChanged(_))));
}

#[tokio::test]
async fn a_refusal_keeps_its_kind_and_the_connection() {
    let (agent, mut peer) = connect();
    let alive = tokio::spawn({
        let agent = agent.clone();
        async move { agent.rollback(PROCESS).await }
    });
    let request = peer.receive().await;
    let kind = devloop_agent::protocol::ErrorKind::NotFound;
    peer.answer(request.id, Response::Error { kind, message: "nothing to roll back to".to_owned() }).await;
    let error = alive.await.unwrap().unwrap_err();
    assert_eq!(error.to_string(), "nothing to roll back to");
    assert!(error.is_vanished() && !error.is_fatal());
}

#[tokio::test]
async fn an_agent_that_ends_fails_who_waits_and_who_comes_later() {
    let (agent, mut peer) = connect();
    let alive = tokio::spawn({
        let agent = agent.clone();
        async move { agent.alive(PROCESS).await }
    });
    peer.receive().await;
    drop(peer);
    assert!(alive.await.unwrap().unwrap_err().is_fatal());
    assert!(agent.alive(PROCESS).await.unwrap_err().is_fatal());
    agent.ended().await;
}

#[tokio::test]
async fn what_an_engine_says_in_place_of_the_agent_is_the_reason() {
    let (agent, mut peer) = connect();
    peer.stream.write_all(b"OCI runtime exec failed: permission denied\r\n").await.unwrap();
    assert_eq!(agent.ended().await, "OCI runtime exec failed: permission denied");
}

#[tokio::test]
async fn an_agent_that_is_silent_is_given_up() {
    let (agent, _peer) = connect_with(Duration::from_millis(50));
    assert!(matches!(agent.alive(PROCESS).await, Err(AgentError::TimedOut(_))));
}

#[tokio::test]
async fn another_version_of_the_agent_is_refused() {
    let (agent, mut peer) = connect();
    let greeting = tokio::spawn(async move { agent.greet().await });
    let request = peer.receive().await;
    assert_eq!(request.body, Request::Hello { version: VERSION });
    peer.answer(request.id, Response::Hello { version: VERSION + 1, build: "9".to_owned(), arch: "x86_64".to_owned() }).await;
    assert!(matches!(greeting.await.unwrap(), Err(AgentError::Version { .. })));
}

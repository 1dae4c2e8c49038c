//! The client against a scripted agent.

use super::*;
use crate::agent::ProcessId;
use std::path::{Path, PathBuf};
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
    connect_by(Habits { patience, compress: false })
}

fn connect_by(habits: Habits) -> (Agent, Peer) {
    let (ours, theirs) = tokio::io::duplex(64 * 1024);
    let (reader, writer) = tokio::io::split(ours);
    (Agent::over(reader, writer, None, None, habits), Peer { stream: theirs, decoder: Decoder::new() })
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
        async move { agent.remove(&[PROCESS], "/srv/a", 0).await.unwrap() }
    });
    let other = peer.receive().await;
    peer.answer(other.id, Response::Done { failed: Vec::new() }).await;
    peer.answer(request.id, Response::Alive { running: false }).await;
    assert!(second.await.unwrap().is_empty());
    assert!(!first.await.unwrap());
}

#[tokio::test]
async fn a_file_is_sent_in_chunks_and_its_hash_is_compared() {
    let content: Vec<u8> = (0..700_000_u32).map(|number| number as u8).collect();
    let (_folder, path) = file(&content);
    let (agent, mut peer) = connect();
    for (damage, expected) in [(1, false), (0, true)] {
        let put = tokio::spawn({
            let (agent, path) = (agent.clone(), path.clone());
            async move { agent.put_file(&[PROCESS], &path, "/srv/a").await }
        });
        let (id, received) = peer.receive_file().await;
        assert_eq!(received.unwrap(), content);
        let mut hash = *blake3::hash(&content).as_bytes();
        hash[0] ^= damage;
        peer.answer(id, Response::Written { blake3: Some(hash), failed: Vec::new() }).await;
        let outcome = put.await.unwrap();
        assert_eq!(outcome.is_ok(), expected, "{outcome:?}");
        assert!(outcome.is_ok() || matches!(outcome, Err(AgentError::Damaged(_))));
    }
}

fn noise(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    bytes
}

#[tokio::test]
async fn of_a_large_file_that_was_sent_only_what_is_new_is_sent_again() {
    let old = noise(2 << 20);
    let (_folder, path) = file(&old);
    let (agent, mut peer) = connect();
    let put = |agent: &Agent| {
        let (agent, path) = (agent.clone(), path.clone());
        tokio::spawn(async move { agent.put_file(&[PROCESS], &path, "/srv/a").await })
    };
    let first = put(&agent);
    let (id, received) = peer.receive_file().await;
    assert!(received.unwrap() == old);
    peer.answer(id, written(&old)).await;
    first.await.unwrap().unwrap();

    let mut new = old.clone();
    new[1_000_000..1_001_000].fill(1);
    std::fs::write(&path, &new).unwrap();
    let second = put(&agent);
    let announced = peer.receive().await;
    let Request::PutFile { size, base, .. } = announced.body else { panic!("no transfer") };
    assert_eq!((size, base), (new.len() as u64, Some(*blake3::hash(&old).as_bytes())));
    let (mut content, mut bytes_sent) = (Vec::new(), 0);
    while content.len() < new.len() {
        match peer.receive().await.body {
            Request::Copy { offset, length } => content.extend_from_slice(&old[offset as usize..][..length as usize]),
            Request::Data { bytes } => {
                bytes_sent += bytes.0.len();
                content.extend(bytes.0);
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(content == new && bytes_sent < 200_000, "{bytes_sent}");
    // The agent has something else: all of it follows.
    let kind = devloop_agent::protocol::ErrorKind::BaseChanged;
    peer.answer(announced.id, Response::Error { kind, message: "not the base".to_owned() }).await;
    let (id, received) = peer.receive_file().await;
    assert!(received.unwrap() == new);
    peer.answer(id, written(&new)).await;
    assert_eq!(second.await.unwrap().unwrap().blake3, blake3::hash(&new));
}

fn written(content: &[u8]) -> Response {
    Response::Written { blake3: Some(*blake3::hash(content).as_bytes()), failed: Vec::new() }
}

#[tokio::test]
async fn over_a_slow_connection_what_can_be_is_compressed() {
    let content = "line\n".repeat(10_000).into_bytes();
    let (_folder, path) = file(&content);
    let (agent, mut peer) = connect_by(Habits { patience: PATIENCE, compress: true });
    let put = tokio::spawn(async move { agent.put_file(&[PROCESS], &path, "/srv/a").await });
    let id = peer.receive().await.id;
    let Request::Packed { length, bytes } = peer.receive().await.body else { panic!("not compressed") };
    assert!(bytes.0.len() < 1000);
    assert!(devloop_agent::protocol::unpack(&bytes.0, length).unwrap() == content);
    peer.answer(id, written(&content)).await;
    put.await.unwrap().unwrap();
}

#[tokio::test]
async fn processes_that_fail_are_told_one_by_one() {
    let (_folder, path) = file(b"text");
    let (agent, mut peer) = connect();
    let other = ProcessId { pid: 8, start_time: 80 };
    for blake3 in [Some(*blake3::hash(b"text").as_bytes()), None] {
        let put = tokio::spawn({
            let (agent, path) = (agent.clone(), path.clone());
            async move { agent.put_file(&[PROCESS, other], &path, "/srv/a").await.unwrap() }
        });
        let (id, _) = peer.receive_file().await;
        let kind = devloop_agent::protocol::ErrorKind::Vanished;
        let failed = devloop_agent::protocol::Failed { process: other, kind, message: "process 8 is gone".to_owned() };
        peer.answer(id, Response::Written { blake3, failed: vec![failed] }).await;
        let written = put.await.unwrap();
        assert_eq!(written.blake3, blake3::hash(b"text"));
        let [(process, error)] = written.failed.as_slice() else { panic!("{written:?}") };
        assert!(*process == other && error.is_vanished());
    }
}

#[tokio::test]
async fn a_long_check_is_asked_in_parts() {
    let (agent, mut peer) = connect();
    let path = format!("/srv/{}", "x".repeat(1000));
    let entry = super::super::CheckEntry { path, size: 1, blake3: None, mode: None, link: None };
    let check = tokio::spawn(async move { agent.check(PROCESS, &vec![entry; 1000]).await.unwrap() });
    let (mut seen, mut expected) = (0, Vec::new());
    while seen < 1000 {
        let message = peer.receive().await;
        let Request::Check { entries, .. } = message.body else { panic!("no check") };
        expected.push(seen);
        seen += entries.len();
        peer.answer(message.id, Response::Differing { indices: vec![0] }).await;
    }
    assert!(expected.len() > 1);
    assert_eq!(check.await.unwrap(), expected);
}

#[tokio::test]
async fn an_empty_file_is_a_file() {
    let (_folder, path) = file(b"");
    let (agent, mut peer) = connect();
    let put = tokio::spawn(async move { agent.put_file(&[PROCESS], &path, "/srv/a").await });
    let (id, received) = peer.receive_file().await;
    assert_eq!(received.unwrap(), b"");
    peer.answer(id, Response::Written { blake3: Some(*blake3::hash(b"").as_bytes()), failed: Vec::new() }).await;
    put.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_source_that_changes_while_it_is_copied_is_taken_back() {
    // Larger than what fits on the way, so that the end is not read yet.
    let (_folder, path) = file(&vec![b'x'; 2 << 20]);
    let (agent, mut peer) = connect();
    let put = tokio::spawn({
        let path = path.clone();
        async move { agent.put_file(&[PROCESS], &path, "/srv/a").await }
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
    let outcome = agent.put_file(&[PROCESS], Path::new("/nowhere/at/all"), "/srv/a").await;
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

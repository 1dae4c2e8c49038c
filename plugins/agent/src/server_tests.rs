//! The loop against clients that break, cut or garble what they send. No
//! process is named that exists: the procfs is an empty folder.

use std::io::Cursor;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::protocol::{Request, VERSION, samples};

/// What the agent said, and how it ended.
fn exchange(input: &[u8]) -> (Vec<Message<Response>>, Result<(), ServeError>) {
    let folder = tempfile::tempdir().unwrap();
    let session = Session::new(Proc::at(folder.path()), View::Node, Stores::at(folder.path().join("undo")));
    let mut output = Vec::new();
    let ended = serve_session(session, || Programs::RunAgain, Cursor::new(input), &mut output);
    let mut decoder = Decoder::new();
    decoder.push(&output);
    let mut said = Vec::new();
    while let Some(message) = decoder.pop().unwrap() {
        said.push(message);
    }
    assert_eq!(decoder.pending(), 0, "the agent said half a message");
    (said, ended)
}

/// The rules: every answer but the last is to a request, and the agent ends by
/// itself only after it has told why.
fn check(input: &[u8]) {
    let (said, ended) = exchange(input);
    let complaint = said.iter().position(|message| matches!(message.body, Response::Error { kind: ErrorKind::Protocol, .. }));
    match ended {
        Ok(()) => assert_eq!(complaint, None),
        Err(ServeError::Protocol(_)) => assert_eq!(complaint, Some(said.len() - 1)),
        Err(error) => panic!("{error}"),
    }
}

fn hello() -> Vec<u8> {
    let mut stream = Vec::new();
    encode(&Message { id: 1, body: Request::Hello { version: VERSION } }, &mut stream).unwrap();
    stream
}

proptest! {
    #[test]
    fn garbage_has_a_defined_end(input in vec(any::<u8>(), 0..600)) {
        check(&input);
        check(&[hello(), input].concat());
    }

    #[test]
    fn a_damaged_conversation_has_a_defined_end(input in samples::damaged(samples::request())) {
        check(&input);
        check(&[hello(), input].concat());
    }

    // Every request but those of transfers is answered once, under its id.
    #[test]
    fn requests_about_what_is_not_there_are_refused_one_by_one(
        requests in vec(samples::request().prop_filter("a plain request", |message| matches!(
            message.body,
            Request::Locate { .. }
                | Request::Remove { .. }
                | Request::PutLink { .. }
                | Request::Check { .. }
                | Request::Signal { .. }
                | Request::Restart { .. }
                | Request::Rollback { .. }
                | Request::Alive { .. }
        )), 0..8)
    ) {
        let mut input = hello();
        for request in &requests {
            encode(request, &mut input).unwrap();
        }
        let (said, ended) = exchange(&input);
        prop_assert!(ended.is_ok());
        let answered: Vec<u32> = said.iter().skip(1).map(|message| message.id).collect();
        prop_assert_eq!(answered, requests.iter().map(|request| request.id).collect::<Vec<_>>());
        for (message, request) in said.into_iter().skip(1).zip(requests) {
            let refused = match (&message.body, request.body) {
                (Response::Error { .. } | Response::Alive { running: false }, _) => true,
                (Response::Done { failed }, Request::Remove { processes, .. } | Request::PutLink { processes, .. }) => {
                    failed.iter().map(|failed| failed.process).eq(processes)
                }
                _ => false,
            };
            prop_assert!(refused, "{message:?}");
        }
    }
}

#[test]
fn a_frame_that_is_too_long_ends_the_agent_before_its_body_comes() {
    let input = [hello(), (crate::protocol::MAX_FRAME as u32 + 1).to_le_bytes().to_vec()].concat();
    let (said, ended) = exchange(&input);
    assert_eq!(said.len(), 2);
    assert!(matches!(ended, Err(ServeError::Protocol(_))));
}

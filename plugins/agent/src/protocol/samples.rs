//! Arbitrary messages, and streams of them that something happened to.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use serde::Serialize;

use super::{ByteString, ErrorKind, Located, Message, Phases, ProcessId, Request, Response, Swapped, encode};

fn bytes() -> impl Strategy<Value = ByteString> {
    vec(any::<u8>(), 0..300).prop_map(ByteString)
}

fn process() -> impl Strategy<Value = ProcessId> {
    any::<(u32, u64)>().prop_map(|(pid, start_time)| ProcessId { pid, start_time })
}

pub(crate) fn request() -> impl Strategy<Value = Message<Request>> {
    let body =
        prop_oneof![
            any::<u32>().prop_map(|version| Request::Hello { version }),
            ".{0,80}".prop_map(|container_id| Request::Locate { container_id }),
            (process(), bytes(), any::<(Option<u32>, u64, Option<(i64, u32)>)>())
                .prop_map(|(process, path, (mode, size, modified))| Request::PutFile { process, path, mode, size, modified }),
            bytes().prop_map(|bytes| Request::Data { bytes }),
            Just(Request::AbortFile),
            (process(), bytes()).prop_map(|(process, path)| Request::Remove { process, path }),
            (process(), bytes(), option::of(vec(bytes(), 0..4)), any::<u64>())
                .prop_map(|(process, executable, argv, size)| Request::Swap { process, executable, argv, size }),
            process().prop_map(|process| Request::Rollback { process }),
            process().prop_map(|process| Request::Alive { process }),
        ];
    (any::<u32>(), body).prop_map(|(id, body)| Message { id, body })
}

pub(crate) fn response() -> impl Strategy<Value = Message<Response>> {
    let located = (process(), vec(bytes(), 0..4), bytes(), any::<(u32, u32, u32, bool, Option<[u8; 32]>)>()).prop_map(
        |(process, argv, executable, (main_pid, uid, gid, in_memory, blake3))| {
            let machine = "x86_64".into();
            Response::Located(Located { process, main_pid, argv, executable, in_memory, uid, gid, machine, blake3 })
        },
    );
    let swapped = (process(), any::<([u64; 4], bool, bool)>()).prop_map(|(process, (phases, in_memory, previous_kept))| {
        Response::Swapped(Swapped {
            process,
            phases: Phases { received_us: phases[0], written_us: phases[1], stopped_us: phases[2], executed_us: phases[3] },
            in_memory,
            previous_kept,
        })
    });
    let body = prop_oneof![
        (any::<u32>(), ".{0,9}", ".{0,9}").prop_map(|(version, build, arch)| { Response::Hello { version, build, arch } }),
        located,
        any::<[u8; 32]>().prop_map(|blake3| Response::Written { blake3 }),
        Just(Response::Aborted),
        any::<bool>().prop_map(|existed| Response::Removed { existed }),
        swapped,
        any::<bool>().prop_map(|running| Response::Alive { running }),
        ".{0,80}".prop_map(|message| Response::Error { kind: ErrorKind::Seccomp, message }),
    ];
    (any::<u32>(), body).prop_map(|(id, body)| Message { id, body })
}

/// What can happen to a stream.
#[derive(Clone, Debug)]
enum Damage {
    Change(prop::sample::Index, u8),
    Insert(prop::sample::Index, Vec<u8>),
    Remove(prop::sample::Index, usize),
    Cut(prop::sample::Index),
}

fn damage() -> impl Strategy<Value = Damage> {
    let at = any::<prop::sample::Index>;
    prop_oneof![
        (at(), any::<u8>()).prop_map(|(at, byte)| Damage::Change(at, byte)),
        (at(), vec(any::<u8>(), 1..9)).prop_map(|(at, bytes)| Damage::Insert(at, bytes)),
        (at(), 1_usize..9).prop_map(|(at, count)| Damage::Remove(at, count)),
        at().prop_map(Damage::Cut),
    ]
}

/// A few valid messages, of which bytes are changed, added, lost or cut off.
pub(crate) fn damaged<T: Serialize + std::fmt::Debug>(message: impl Strategy<Value = T>) -> impl Strategy<Value = Vec<u8>> {
    (vec(message, 1..6), vec(damage(), 0..4)).prop_map(|(messages, damages)| {
        let mut stream = Vec::new();
        for message in &messages {
            // All of these are far below the limit.
            let _ = encode(message, &mut stream);
        }
        for damage in damages {
            if stream.is_empty() {
                break;
            }
            let length = stream.len();
            match damage {
                Damage::Change(at, byte) => stream[at.index(length)] = byte,
                Damage::Insert(at, bytes) => drop(stream.splice(at.index(length)..at.index(length), bytes)),
                Damage::Remove(at, count) => {
                    let at = at.index(length);
                    stream.drain(at..(at + count).min(length));
                }
                Damage::Cut(at) => stream.truncate(at.index(length)),
            }
        }
        stream
    })
}

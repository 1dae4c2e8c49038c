//! Arbitrary messages, and streams of them that something happened to.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use serde::Serialize;

use super::{ByteString, ErrorKind, Expected, Failed, Located, Message, Phases, ProcessId, Request, Response, Swapped, Undone, encode};

fn bytes() -> impl Strategy<Value = ByteString> {
    vec(any::<u8>(), 0..300).prop_map(ByteString)
}

fn process() -> impl Strategy<Value = ProcessId> {
    any::<(u32, u64)>().prop_map(|(pid, start_time)| ProcessId { pid, start_time })
}

fn processes() -> impl Strategy<Value = Vec<ProcessId>> {
    vec(process(), 0..4)
}

fn expected() -> impl Strategy<Value = Expected> {
    (bytes(), option::of(bytes()), any::<(u64, Option<[u8; 32]>, Option<u32>)>()).prop_map(|(path, link, (size, blake3, mode))| Expected {
        path,
        size,
        blake3,
        mode,
        link,
    })
}

fn failed() -> impl Strategy<Value = Vec<Failed>> {
    vec((process(), ".{0,80}").prop_map(|(process, message)| Failed { process, kind: ErrorKind::Vanished, message }), 0..4)
}

/// Of files that are received.
fn transfers() -> impl Strategy<Value = Request> {
    prop_oneof![
        (processes(), bytes(), any::<(Option<u32>, u64, Option<(i64, u32)>, Option<[u8; 32]>)>())
            .prop_map(|(processes, path, (mode, size, modified, base))| Request::PutFile { processes, path, mode, size, modified, base }),
        bytes().prop_map(|bytes| Request::Data { bytes }),
        (any::<u32>(), bytes()).prop_map(|(length, bytes)| Request::Packed { length, bytes }),
        any::<(u64, u64)>().prop_map(|(offset, length)| Request::Copy { offset, length }),
        Just(Request::AbortFile),
        (process(), bytes(), option::of(vec(bytes(), 0..4)), any::<(u64, Option<[u8; 32]>)>())
            .prop_map(|(process, executable, argv, (size, base))| Request::Swap { process, executable, argv, size, base }),
    ]
}

pub(crate) fn request() -> impl Strategy<Value = Message<Request>> {
    let body = prop_oneof![
        any::<u32>().prop_map(|version| Request::Hello { version }),
        ".{0,80}".prop_map(|container_id| Request::Locate { container_id }),
        transfers(),
        (processes(), bytes(), any::<u32>()).prop_map(|(processes, path, empty_parents)| Request::Remove {
            processes,
            path,
            empty_parents
        }),
        (processes(), bytes(), bytes()).prop_map(|(processes, target, path)| Request::PutLink { processes, target, path }),
        (process(), vec(expected(), 0..4)).prop_map(|(process, entries)| Request::Check { process, entries }),
        (process(), any::<i32>()).prop_map(|(process, signal)| Request::Signal { process, signal }),
        (process(), vec(bytes(), 0..4)).prop_map(|(process, changed)| Request::Restart { process, changed }),
        process().prop_map(|process| Request::Rollback { process }),
        process().prop_map(|process| Request::Alive { process }),
        process().prop_map(|process| Request::Undo { process }),
        process().prop_map(|process| Request::Keep { process }),
    ];
    (any::<u32>(), body).prop_map(|(id, body)| Message { id, body })
}

pub(crate) fn response() -> impl Strategy<Value = Message<Response>> {
    let located = ((process(), process()), vec(bytes(), 0..4), (bytes(), bytes()), any::<(u32, u32, u32, bool, bool, Option<[u8; 32]>)>())
        .prop_map(|((process, main), argv, (executable, cwd), (seccomp, uid, gid, in_memory, changed, blake3))| {
            let (machine, main_argv, volumes) = ("x86_64".into(), argv.clone(), argv.clone());
            Response::Located(Located {
                process,
                argv,
                cwd,
                main,
                main_argv,
                executable,
                in_memory,
                uid,
                gid,
                machine,
                blake3,
                seccomp,
                volumes,
                changed,
            })
        });
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
        (any::<Option<[u8; 32]>>(), failed()).prop_map(|(blake3, failed)| Response::Written { blake3, failed }),
        Just(Response::Aborted),
        failed().prop_map(|failed| Response::Done { failed }),
        vec(any::<u32>(), 0..9).prop_map(|indices| Response::Differing { indices }),
        (any::<(u32, bool)>(), process()).prop_map(|((restored, restarted), process)| Response::Undone(Undone {
            restored,
            restarted,
            process
        })),
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

//! Threads, or goroutines, grouped by where they are. Pure.

use super::symbolize::{Frame, Names};
use crate::runtimes::delve::goroutines::Goroutine;
use devloop_core::agent::tools::Stack;
use serde::Serialize;
use std::collections::BTreeMap;

/// Those that are at the same place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Group {
    members: Vec<Member>,
    /// The innermost first.
    frames: Vec<Call>,
    /// Whether the outermost is where they began.
    is_whole: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Member {
    id: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    state: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
struct Call {
    function: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<String>,
    #[serde(skip_serializing_if = "is_zero")]
    line: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_zero(line: &u32) -> bool {
    *line == 0
}

/// Of threads.
pub(super) fn of_threads(stacks: &[Stack], names: &Names) -> Vec<Group> {
    grouped(stacks.iter().map(|stack| {
        let call = |Frame { function, file, line }| Call { function, file, line };
        let frames = stack.addresses.iter().flat_map(|address| names.at(*address)).map(call).collect();
        (frames, stack.is_whole, Member { id: stack.thread, name: Some(stack.name.clone()), state: state(stack.state) })
    }))
}

/// Of goroutines.
pub(super) fn of_goroutines(goroutines: Vec<Goroutine>) -> Vec<Group> {
    grouped(goroutines.into_iter().map(|Goroutine { id, state, calls }| {
        let is_whole = !calls.is_empty();
        let frames = calls.into_iter().map(|call| Call {
            function: call.function,
            file: Some(call.file).filter(|file| !file.is_empty()),
            line: call.line,
        });
        (frames.collect(), is_whole, Member { id, name: None, state })
    }))
}

/// The largest group first.
fn grouped(all: impl Iterator<Item = (Vec<Call>, bool, Member)>) -> Vec<Group> {
    let mut by_place: BTreeMap<(Vec<Call>, bool), Vec<Member>> = BTreeMap::new();
    for (frames, is_whole, member) in all {
        by_place.entry((frames, is_whole)).or_default().push(member);
    }
    let mut groups: Vec<Group> = by_place.into_iter().map(|((frames, is_whole), members)| Group { members, frames, is_whole }).collect();
    groups.sort_by_key(|group| (usize::MAX - group.members.len(), group.members.first().map(|member| member.id)));
    groups
}

/// See proc_pid_stat(5).
fn state(letter: char) -> &'static str {
    match letter {
        'R' => "running",
        'S' => "sleeping",
        'D' => "waiting for a disk or the kernel",
        'T' => "stopped",
        't' => "stopped by a debugger",
        'I' => "idle",
        'Z' | 'X' => "ended",
        _ => "unknown",
    }
}

/// For people; `noun` is what one of them is called.
pub(super) fn text_of(groups: &[Group], noun: &str) -> String {
    groups.iter().map(|group| group_text(group, noun)).collect::<Vec<_>>().join("\n\n")
}

fn group_text(group: &Group, noun: &str) -> String {
    /// More of them are counted only.
    const NAMED: usize = 8;
    let name = |member: &Member| match &member.name {
        Some(name) => format!("{} {name} ({})", member.id, member.state),
        None => format!("{} ({})", member.id, member.state),
    };
    let count = group.members.len();
    let mut named: Vec<String> = group.members.iter().take(NAMED).map(name).collect();
    if count > NAMED {
        named.push(format!("and {} more", count - NAMED));
    }
    let mut lines = vec![format!("{count} {noun}{}: {}", if count == 1 { "" } else { "s" }, named.join(", "))];
    for Call { function, file, line } in &group.frames {
        lines.push(match file {
            Some(file) if *line > 0 => format!("    {function}  {file}:{line}"),
            Some(file) => format!("    {function}  {file}"),
            None => format!("    {function}"),
        });
    }
    if !group.is_whole {
        lines.push("    ... (its callers could not be found)".to_owned());
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtimes::delve::goroutines;
    use crate::tools::flame::tests::names;

    #[test]
    fn equal_stacks_are_one_group() {
        let stack = |thread: u32, addresses: &[u64], is_whole| Stack {
            thread,
            name: format!("worker-{thread}"),
            state: if thread == 1 { 'R' } else { 'S' },
            addresses: addresses.to_vec(),
            is_whole,
            count: 1,
        };
        let mut stacks = vec![stack(1, &[3, 1], true), stack(12, &[9], false)];
        stacks.extend((2..12).map(|thread| stack(thread, &[2, 1], true)));
        let groups = of_threads(&stacks, &names());
        insta::assert_snapshot!(text_of(&groups, "thread"));
        insta::assert_json_snapshot!(groups[1..]);
    }

    #[test]
    fn goroutines_are_grouped_as_threads_are() {
        let one = |id| Goroutine {
            id,
            state: "waiting",
            calls: vec![goroutines::Call { function: "main.work".to_owned(), file: "/src/main.go".to_owned(), line: 7 }],
        };
        insta::assert_snapshot!(text_of(&of_goroutines(vec![one(1), one(18)]), "goroutine"), @r"
        2 goroutines: 1 (waiting), 18 (waiting)
            main.work  /src/main.go:7
        ");
    }
}

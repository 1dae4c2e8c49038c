//! Stacks, as the agent takes them.

use super::{Subject, cut, silent};
use devloop_core::Result;
use devloop_core::agent::tools::{CodeFile, Stack, StackAnswer, Way};
use std::collections::BTreeSet;
use std::time::Duration;

/// How long nothing may come, beside what the work itself takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// All that was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Taken {
    pub(super) way: Way,
    pub(super) stacks: Vec<Stack>,
    pub(super) files: Vec<CodeFile>,
    pub(super) stopped: Duration,
    pub(super) duration: Duration,
    pub(super) lost: u64,
}

impl Taken {
    /// All addresses, each once.
    pub(super) fn addresses(&self) -> BTreeSet<u64> {
        self.stacks.iter().flat_map(|stack| stack.addresses.iter().copied()).collect()
    }
}

/// Asks for them. `began` is called once it goes on.
///
/// # Errors
/// `what` says what failed.
pub(super) async fn take(subject: &Subject<'_>, what: &str, arguments: &[&str], work: Duration, began: impl FnOnce(&Way)) -> Result<Taken> {
    let limit = work + PATIENCE;
    // Its end is the end of the work.
    let (_stdin, mut messages) = subject.place.runner.start(arguments).await?.split();
    let mut began = Some(began);
    let mut taken =
        Taken { way: Way::Frozen, stacks: Vec::new(), files: Vec::new(), stopped: Duration::ZERO, duration: Duration::ZERO, lost: 0 };
    loop {
        let answer = tokio::time::timeout(limit, messages.next::<StackAnswer>()).await.map_err(|_| silent(what, limit))??;
        match answer {
            Some(StackAnswer::Began { way }) => {
                if let Some(began) = began.take() {
                    began(&way);
                }
                taken.way = way;
            }
            Some(StackAnswer::Stacks(stacks)) => taken.stacks.extend(stacks),
            Some(StackAnswer::CodeFiles(files)) => taken.files.extend(files),
            Some(StackAnswer::Ended { stopped_micros, duration_micros, lost }) => {
                taken.stopped = Duration::from_micros(stopped_micros);
                taken.duration = Duration::from_micros(duration_micros);
                taken.lost = lost;
                return Ok(taken);
            }
            Some(StackAnswer::Failed(refusal)) => return Err(subject.explain(what, refusal)),
            None => return Err(cut(what, messages.complaint().await)),
        }
    }
}

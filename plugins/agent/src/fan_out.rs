//! The same work for several containers at once.

/// Half of a small node's processors at most; containers are at work on it.
const THREADS: usize = 2;
/// For fewer, a thread costs more than it saves.
const WORTH_A_THREAD: usize = 3;

/// What comes of the work for each, in their order.
pub(crate) fn map<T: Send, R: Send>(mut items: Vec<T>, work: impl Fn(T) -> R + Sync) -> Vec<R> {
    if items.len() < WORTH_A_THREAD {
        return items.into_iter().map(work).collect();
    }
    let rest = items.split_off(items.len().div_ceil(THREADS));
    std::thread::scope(|scope| {
        let others = scope.spawn(|| rest.into_iter().map(&work).collect::<Vec<_>>());
        let mut done: Vec<R> = items.into_iter().map(&work).collect();
        match others.join() {
            Ok(others) => done.extend(others),
            Err(panic) => std::panic::resume_unwind(panic),
        }
        done
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_done_once_and_in_order() {
        for count in 0..12 {
            let items: Vec<usize> = (0..count).collect();
            assert_eq!(map(items.clone(), |item| item * 2), items.iter().map(|item| item * 2).collect::<Vec<_>>());
        }
    }
}

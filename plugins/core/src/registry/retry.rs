//! Which failures are worth another attempt, and when.

use std::time::Duration;

/// How often something is tried.
pub(super) const ATTEMPTS: usize = 6;

/// The pause after an attempt, the first of which is 1; `None` after the last.
/// A registry that is being restarted is back within these three seconds.
pub(super) fn pause_after(attempt: usize) -> Option<Duration> {
    let doublings = u32::try_from(attempt.saturating_sub(1)).unwrap_or(u32::MAX);
    (attempt < ATTEMPTS).then(|| Duration::from_millis(100).saturating_mul(2_u32.saturating_pow(doublings)))
}

/// Whether a status says that the same request may succeed later.
pub(super) fn is_passing(status: u16) -> bool {
    status >= 500 && status != 501 || matches!(status, 408 | 429)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_and_end() {
        let pauses: Vec<u128> = (1..).map_while(pause_after).map(|pause| pause.as_millis()).collect();
        assert_eq!(pauses, [100, 200, 400, 800, 1600]);
        assert_eq!(pauses.len() + 1, ATTEMPTS);
    }

    #[test]
    fn what_the_client_did_wrong_does_not_pass() {
        assert!([500, 502, 503, 429, 408].into_iter().all(is_passing));
        assert!(![400, 401, 404, 405, 501].into_iter().any(is_passing));
    }
}

//! Which failures are worth another attempt, and when.

use std::time::Duration;

/// How often something is tried.
pub(super) const ATTEMPTS: usize = 6;
/// All pauses together take no longer, whatever a registry asks for.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// Pauses between the attempts at one thing.
#[derive(Debug, Default)]
pub(super) struct Pauses {
    attempts: usize,
    waited: Duration,
}

impl Pauses {
    /// The pause before the next attempt; `None` when there is none. Without a
    /// word from the registry, they double: one that is being restarted is back
    /// within these three seconds. `told` is what it asked for (`Retry-After`).
    pub(super) fn next(&mut self, told: Option<Duration>) -> Option<Duration> {
        self.attempts += 1;
        if self.attempts >= ATTEMPTS {
            return None;
        }
        let doublings = u32::try_from(self.attempts - 1).unwrap_or(u32::MAX);
        let own = Duration::from_millis(100).saturating_mul(2_u32.saturating_pow(doublings));
        let pause = told.map_or(own, |told| told.max(own));
        self.waited = self.waited.saturating_add(pause);
        (self.waited <= LONGEST_WAIT).then_some(pause)
    }

    /// There was progress: what fails from here on has all attempts again.
    pub(super) fn reset(&mut self) {
        self.attempts = 0;
    }
}

/// Whether a status says that the same request may succeed later.
pub(super) fn is_passing(status: u16) -> bool {
    status >= 500 && status != 501 || matches!(status, 408 | 429)
}

/// Seconds, or a date (RFC 9110, section 10.2.3), seen from `now` (seconds since
/// 1970).
pub(super) fn read_retry_after(text: &str, now: i64) -> Option<Duration> {
    let seconds = match text.trim().parse::<u64>() {
        Ok(seconds) => seconds,
        Err(_) => {
            let date = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text.trim()).ok()?;
            u64::try_from(date.as_second().saturating_sub(now)).unwrap_or(0)
        }
    };
    Some(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_and_end() {
        let mut pauses = Pauses::default();
        let all: Vec<u128> = std::iter::from_fn(|| pauses.next(None)).map(|pause| pause.as_millis()).collect();
        assert_eq!(all, [100, 200, 400, 800, 1600]);
        assert_eq!(all.len() + 1, ATTEMPTS);
    }

    #[test]
    fn a_registry_is_left_alone_as_long_as_it_asks_within_reason() {
        let mut pauses = Pauses::default();
        assert_eq!(pauses.next(Some(Duration::from_secs(25))), Some(Duration::from_secs(25)));
        assert_eq!(pauses.next(Some(Duration::ZERO)), Some(Duration::from_millis(200)));
        assert_eq!(pauses.next(Some(Duration::from_secs(35))), None);
        assert_eq!(Pauses::default().next(Some(Duration::from_secs(u64::MAX))), None);
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        assert_eq!(read_retry_after("7", 0), Some(Duration::from_secs(7)));
        assert_eq!(read_retry_after("Fri, 31 Dec 1999 23:59:59 GMT", 946_684_796), Some(Duration::from_secs(3)));
        assert_eq!(read_retry_after("Fri, 31 Dec 1999 23:59:59 GMT", 946_684_999), Some(Duration::ZERO));
        assert_eq!(read_retry_after("soon", 0), None);
    }

    #[test]
    fn what_the_client_did_wrong_does_not_pass() {
        assert!([500, 502, 503, 429, 408].into_iter().all(is_passing));
        assert!(![400, 401, 404, 405, 501].into_iter().any(is_passing));
    }
}

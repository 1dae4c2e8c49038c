//! Whether the machine slept: its connections are dead afterwards, and nobody may
//! ever say so.

use std::time::{Duration, Instant, SystemTime};

/// How often the clocks are compared.
const LOOK: Duration = Duration::from_secs(10);
/// Less than that connections survive.
const SHORT: Duration = Duration::from_secs(5);

/// Resolves some seconds after the machine woke up, or its clock was set forward.
pub(super) async fn machine_slept() {
    loop {
        let (wall, steady) = (SystemTime::now(), Instant::now());
        tokio::time::sleep(LOOK).await;
        if slept(wall.elapsed().unwrap_or_default(), steady.elapsed()) {
            return;
        }
    }
}

/// The steady clock stands still while the machine sleeps.
fn slept(wall: Duration, steady: Duration) -> bool {
    wall > steady + SHORT
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_wall_clock_goes_on_in_a_sleep() {
        let seconds = Duration::from_secs;
        assert!(slept(seconds(3600), seconds(10)));
        assert!(!slept(seconds(11), seconds(10)) && !slept(seconds(60), seconds(60)) && !slept(Duration::ZERO, seconds(10)));
    }
}

//! Has the keeper make and destroy keys as days begin and end, while the relay runs.

use std::convert::Infallible;
use std::future::pending;
use std::time::Duration;

use conclave_protocol::time::UnixMillis;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::StampKeys;
use super::day::Day;
use super::keeper::Keeper;
use crate::clock::system_time;

/// Longest time between two looks: the clock may be set, and another relay may have made a key of its own for a day that
/// has begun there and not here.
const LOOK: Duration = Duration::from_secs(3_600);
/// Pause after a failure, such as a disk that is full. Until it is over the keys stay as they are.
const RETRY: Duration = Duration::from_secs(60);

/// Looks after the keys for ever. Files are read on a thread for blocking work.
pub(crate) async fn run(keeper: Option<Keeper>, mut bring: impl FnMut(StampKeys)) -> Infallible {
    let Some(mut keeper) = keeper else { return pending().await };
    let mut pause = until_next(system_time());
    loop {
        sleep(pause).await;
        let look = spawn_blocking(move || {
            let keys = keeper.keys(Day::from(system_time()));
            (keeper, keys)
        });
        let Ok((back, keys)) = look.await else {
            tracing::error!("the keeper of stamp keys has failed: the relay goes on with the keys of today");
            return pending().await;
        };
        keeper = back;
        pause = match keys {
            Ok(keys) => {
                bring(keys);
                until_next(system_time())
            }
            Err(error) => {
                tracing::warn!(%error, "no new stamp key");
                RETRY
            }
        };
    }
}

/// Until the next day begins, or the next look is due.
fn until_next(now: UnixMillis) -> Duration {
    let midnight = Day::from(now).next().start();
    Duration::from_millis(midnight.0.saturating_sub(now.0)).min(LOOK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_look_is_at_midnight_or_within_the_hour() {
        let midnight = Day(20_783).start();
        assert_eq!(until_next(midnight), LOOK);
        assert_eq!(until_next(midnight.plus(Duration::from_secs(12 * 3_600))), LOOK);
        assert_eq!(until_next(midnight.minus(Duration::from_secs(90))), Duration::from_secs(90));
        assert_eq!(until_next(midnight.minus(Duration::from_millis(1))), Duration::from_millis(1));
    }
}

//! The one place where the relay reads the wall clock, for those who build a hub.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use conclave_protocol::time::{UnixMillis, WallClock};

/// The system's wall clock, from now on following the monotonic one.
#[must_use]
pub fn system_clock() -> WallClock {
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    WallClock::new(Instant::now(), UnixMillis(u64::try_from(unix.as_millis()).unwrap_or(u64::MAX)))
}

//! The one place where the relay reads the wall clock, for those who build a hub or keep stamp keys.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use conclave_protocol::time::{UnixMillis, WallClock};

/// The system's wall clock, read now.
#[must_use]
pub fn system_time() -> UnixMillis {
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMillis(u64::try_from(unix.as_millis()).unwrap_or(u64::MAX))
}

/// The system's wall clock, from now on following the monotonic one.
#[must_use]
pub fn system_clock() -> WallClock {
    WallClock::new(Instant::now(), system_time())
}

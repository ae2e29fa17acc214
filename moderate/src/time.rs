//! Times as people write them, in UTC.

use std::str::FromStr;
use std::time::SystemTime;

use conclave_protocol::stamp::Minute;
use conclave_protocol::time::UnixMillis;
use conclave_relay::stamps::day::{Day, NoDay};

/// The last moment of a day that is written YYYY-MM-DD.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Until(pub UnixMillis);

impl FromStr for Until {
    type Err = NoDay;
    fn from_str(text: &str) -> Result<Self, NoDay> {
        let day: Day = text.parse()?;
        Ok(Self(UnixMillis(day.next().start().0 - 1)))
    }
}

/// YYYY-MM-DD.
#[must_use]
pub fn date(time: UnixMillis) -> String {
    Day::from(time).to_string()
}

/// YYYY-MM-DDTHH:MMZ, cut to the minute.
#[must_use]
pub fn minute(time: UnixMillis) -> String {
    let minutes = time.0 / 60_000;
    format!("{}T{:02}:{:02}Z", date(time), minutes / 60 % 24, minutes % 60)
}

/// When a stamp's minute begins.
#[must_use]
pub fn begin(minute: Minute) -> UnixMillis {
    UnixMillis(u64::from(minute.0) * 60_000)
}

/// This moment, by this machine's clock.
pub(crate) fn now() -> UnixMillis {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    UnixMillis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_written_and_read() {
        for (text, begins) in [
            ("1970-01-01", 0),
            ("2000-02-29", 951_782_400_000),
            ("2026-01-01", 1_767_225_600_000),
            ("2026-12-31", 1_798_675_200_000),
        ] {
            assert_eq!(date(UnixMillis(begins)), text);
            assert_eq!(text.parse(), Ok(Until(UnixMillis(begins + 86_400_000 - 1))));
        }
        for bad in ["", "2026", "2026-1-1", "2026-02-29", "2026-13-01", "1969-12-31", "2026-01-01T00", "+2026-01-01"] {
            assert!(bad.parse::<Until>().is_err(), "{bad}");
        }
        assert_eq!(minute(UnixMillis(1_767_225_600_000 + 3_723_000)), "2026-01-01T01:02Z");
    }
}

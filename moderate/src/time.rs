//! Times as people write them, in UTC.

use std::str::FromStr;
use std::time::SystemTime;

use conclave_protocol::stamp::Minute;
use conclave_protocol::time::UnixMillis;

const DAY_MS: u64 = 86_400_000;
/// Days from 0000-03-01 to 1970-01-01. Years that begin in March have their leap day at the end.
const TO_1970: u64 = 719_468;
/// Days of 400 years, after which the calendar begins anew.
const ERA: u64 = 146_097;

/// The last moment of a day that is written YYYY-MM-DD.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Until(pub UnixMillis);

impl FromStr for Until {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const WRONG: &str = "a day is written YYYY-MM-DD, from 1970-01-01 on";
        let mut parts = text.splitn(3, '-').map(|part| part.parse::<u32>().ok());
        let (Some(Some(year)), Some(Some(month)), Some(Some(day))) = (parts.next(), parts.next(), parts.next()) else {
            return Err(WRONG);
        };
        let days = days_of(u64::from(year), u64::from(month), u64::from(day)).ok_or(WRONG)?;
        let last = UnixMillis((days + 1).checked_mul(DAY_MS).ok_or(WRONG)? - 1);
        // Only one text stands for a day: so a month of 31 days or a year of 366 is checked by writing it again.
        if text == date(last) { Ok(Self(last)) } else { Err(WRONG) }
    }
}

/// YYYY-MM-DD.
#[must_use]
pub fn date(time: UnixMillis) -> String {
    // After H. Hinnant, "chrono-Compatible Low-Level Date Algorithms", civil_from_days.
    let days = time.0 / DAY_MS + TO_1970;
    let (era, day_of_era) = (days / ERA, days % ERA);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
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

fn days_of(year: u64, month: u64, day: u64) -> Option<u64> {
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || year > 9_999 {
        return None;
    }
    let year = year.checked_sub(u64::from(month <= 2))?;
    let (era, year_of_era) = (year / 400, year % 400);
    let from_march = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * from_march + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    (era * ERA + day_of_era).checked_sub(TO_1970)
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
            assert_eq!(text.parse(), Ok(Until(UnixMillis(begins + DAY_MS - 1))));
        }
        for bad in ["", "2026", "2026-1-1", "2026-02-29", "2026-13-01", "1969-12-31", "2026-01-01T00", "+2026-01-01"] {
            assert!(bad.parse::<Until>().is_err(), "{bad}");
        }
        assert_eq!(minute(UnixMillis(1_767_225_600_000 + 3_723_000)), "2026-01-01T01:02Z");
    }
}

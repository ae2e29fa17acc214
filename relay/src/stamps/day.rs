//! Days in UTC, and their dates in the calendar of ISO 8601.

use std::fmt;
use std::str::FromStr;

use conclave_protocol::time::UnixMillis;
use thiserror::Error;

/// Milliseconds of a day.
const MILLIS: u64 = 86_400_000;
/// Days from 0000-03-01 to 1970-01-01. Years that begin in March have their leap day at the end.
const TO_1970: u64 = 719_468;
/// Days of 400 years, after which the calendar begins anew.
const ERA: u64 = 146_097;

/// Days since 1970-01-01.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Day(pub u32);

/// A text that is no date.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("a day is written YYYY-MM-DD, from 1970-01-01 on")]
pub struct NoDay;

impl Day {
    /// When it begins.
    #[must_use]
    pub fn start(self) -> UnixMillis {
        UnixMillis(u64::from(self.0) * MILLIS)
    }

    /// The day after.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// Year, month from 1, day from 1.
    fn civil(self) -> (u64, u64, u64) {
        // After H. Hinnant, "chrono-Compatible Low-Level Date Algorithms", civil_from_days.
        let days = u64::from(self.0) + TO_1970;
        let (era, day_of_era) = (days / ERA, days % ERA);
        let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let from_march = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * from_march + 2) / 5 + 1;
        let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
        (year_of_era + era * 400 + u64::from(month <= 2), month, day)
    }

    /// The same text for every day, and no other text for it; so a date is checked by writing it again.
    fn from_civil(year: u64, month: u64, day: u64) -> Option<Self> {
        let year = year.checked_sub(u64::from(month <= 2))?;
        let (era, year_of_era) = (year / 400, year % 400);
        let from_march = if month > 2 { month - 3 } else { month + 9 };
        let day_of_year = (153 * from_march + 2) / 5 + day.checked_sub(1)?;
        let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
        let days = (era * ERA + day_of_era).checked_sub(TO_1970)?;
        u32::try_from(days).ok().map(Self)
    }
}

impl From<UnixMillis> for Day {
    fn from(time: UnixMillis) -> Self {
        Self(u32::try_from(time.0 / MILLIS).unwrap_or(u32::MAX))
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = self.civil();
        write!(f, "{year:04}-{month:02}-{day:02}")
    }
}

impl FromStr for Day {
    type Err = NoDay;

    fn from_str(text: &str) -> Result<Self, NoDay> {
        let mut parts = text.splitn(3, '-').map(|part| part.parse::<u32>().map(u64::from));
        let (Some(Ok(year)), Some(Ok(month)), Some(Ok(day))) = (parts.next(), parts.next(), parts.next()) else {
            return Err(NoDay);
        };
        if !(1..=12).contains(&month) || !(1..=31).contains(&day) || year > 9_999 {
            return Err(NoDay);
        }
        Self::from_civil(year, month, day).filter(|found| found.to_string() == text).ok_or(NoDay)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_have_the_dates_of_the_calendar() {
        for (day, date) in [
            (0, "1970-01-01"),
            (58, "1970-02-28"),
            (59, "1970-03-01"),
            (11_016, "2000-02-29"),
            (11_017, "2000-03-01"),
            (20_783, "2026-11-26"),
            (47_540, "2100-02-28"),
            (47_541, "2100-03-01"),
        ] {
            assert_eq!(Day(day).to_string(), date);
            assert_eq!(date.parse(), Ok(Day(day)));
        }
    }

    #[test]
    fn every_day_of_a_century_is_read_back() {
        for day in (0..40_000).map(Day) {
            assert_eq!(day.to_string().parse(), Ok(day));
            assert_eq!(Day::from(day.start()), day);
            assert_eq!(Day::from(UnixMillis(day.next().start().0 - 1)), day);
        }
    }

    #[test]
    fn what_is_no_date_is_none() {
        for text in
            ["", "2026", "2026-11", "2026-11-31", "2025-02-29", "2026-1-01", "2026-13-01", "1969-12-31", "+026-11-26"]
        {
            assert_eq!(text.parse::<Day>(), Err(NoDay), "{text}");
        }
    }
}

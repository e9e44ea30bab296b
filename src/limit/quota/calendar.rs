//! The calendar's hours, days and months, as a time zone has them.
//!
//! A period is known by the minute in which it begins: since 1972 every time zone differs from UTC by whole minutes. It is reckoned once, not
//! for each request.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use jiff::{Timestamp, Zoned, tz::TimeZone};

use super::Unit;

/// Minute 0: the start of 2020 in UTC, in Unix seconds. A clock that shows less was never set.
const ORIGIN: u64 = 1_577_836_800;

/// Bits of a period's first minute: until the year 2147.
pub(super) const START_BITS: u32 = 26;

/// Latest minute that can be counted.
const MINUTE_MAX: u64 = (1 << START_BITS) - 1;

/// How far a clock may be set back, in minutes, without the period before being counted anew: what was used of it is not known any more.
const SETBACK: u32 = 5;

/// One hour, day or month.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Period {
    /// Its first minute, from [`ORIGIN`].
    pub(super) start: u32,
    /// Minutes.
    length: u32,
}

impl Period {
    fn holds(self, minute: u32) -> bool {
        minute.checked_sub(self.start).is_some_and(|since| since < self.length)
    }

    /// When the next one begins, in Unix seconds.
    pub fn end(self) -> u64 {
        ORIGIN + (u64::from(self.start) + u64::from(self.length)) * 60
    }

    /// Its first second, in Unix seconds.
    pub fn start(self) -> u64 {
        second(self.start)
    }

    const fn packed(self) -> u64 {
        (self.start as u64) << 32 | self.length as u64
    }

    const fn of(packed: u64) -> Self {
        Self { start: (packed >> 32) as u32, length: packed as u32 }
    }
}

/// The minute of a Unix time, from [`ORIGIN`].
pub(super) fn minute(second: u64) -> u32 {
    (second.saturating_sub(ORIGIN) / 60).min(MINUTE_MAX) as u32
}

/// The first second of a minute, in Unix time.
pub(super) fn second(minute: u32) -> u64 {
    ORIGIN + u64::from(minute) * 60
}

/// The periods of one kind in one time zone.
#[derive(Debug)]
pub struct Calendar {
    unit: Unit,
    zone: TimeZone,
    /// The period that was reckoned last, packed.
    current: AtomicU64,
}

/// There is no such time zone, neither in the system's database nor in ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no time zone `{0}`")]
pub struct UnknownZone(pub String);

/// The names of all time zones.
pub fn zones() -> Vec<String> {
    jiff::tz::db().available().map(|name| name.to_string()).collect()
}

impl Calendar {
    /// `zone` is an IANA name: `Europe/Berlin`. Taken from the system's database, or from the one that is built in where it has none.
    ///
    /// # Errors
    /// There is no such zone.
    pub fn new(unit: Unit, zone: &str) -> Result<Self, UnknownZone> {
        let known = TimeZone::get(zone).map_err(|_| UnknownZone(zone.to_owned()))?;
        Ok(Self { unit, zone: known, current: AtomicU64::new(0) })
    }

    pub const fn unit(&self) -> Unit {
        self.unit
    }

    /// The name of its time zone.
    pub fn zone(&self) -> &str {
        self.zone.iana_name().unwrap_or("UTC")
    }

    /// The period of a Unix time.
    pub fn at(&self, now: u64) -> Period {
        let (minute, known) = (minute(now), Period::of(self.current.load(Relaxed)));
        if known.holds(minute) { known } else { self.turn(minute, known) }
    }

    /// A time in Unix seconds as people of the zone write it, by RFC 3339.
    pub fn shown(&self, second: u64) -> String {
        let zoned = timestamp(second).to_zoned(self.zone.clone());
        zoned.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string()
    }

    #[cold]
    fn turn(&self, minute: u32, known: Period) -> Period {
        if known.length > 0 && known.start.checked_sub(minute).is_some_and(|back| back <= SETBACK) {
            return known;
        }
        let period = self.reckoned(minute);
        self.current.store(period.packed(), Relaxed);
        period
    }

    fn reckoned(&self, now: u32) -> Period {
        let zoned = timestamp(second(now)).to_zoned(self.zone.clone());
        let bounds = match self.unit {
            Unit::Hour => Ok(hour(&zoned)),
            Unit::Day => day(&zoned),
            Unit::Month => month(&zoned),
        };
        // Only at the ends of jiff's years, of which ours are in the middle.
        let (start, end) = bounds.unwrap_or_else(|_| (second(now), second(now) + 60));
        let start = minute(start).min(now);
        Period { start, length: minute(end).saturating_sub(start).max(1) }
    }
}

fn timestamp(second: u64) -> Timestamp {
    i64::try_from(second).ok().and_then(|second| Timestamp::from_second(second).ok()).unwrap_or_default()
}

fn unix(zoned: &Zoned) -> u64 {
    u64::try_from(zoned.timestamp().as_second()).unwrap_or(0)
}

/// By the offset of the moment: an hour that a clock shows twice is two hours.
fn hour(now: &Zoned) -> (u64, u64) {
    let local = now.timestamp().as_second() + i64::from(now.offset().seconds());
    let start = unix(now).saturating_sub(local.rem_euclid(3_600).unsigned_abs());
    (start, start + 3_600)
}

fn day(now: &Zoned) -> Result<(u64, u64), jiff::Error> {
    Ok((unix(&now.start_of_day()?), unix(&now.tomorrow()?.start_of_day()?)))
}

fn month(now: &Zoned) -> Result<(u64, u64), jiff::Error> {
    Ok((unix(&now.first_of_month()?.start_of_day()?), unix(&now.last_of_month()?.tomorrow()?.start_of_day()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The period of a moment, as the zone writes its ends.
    fn check(unit: Unit, zone: &str, now: &str, start: &str, end: &str) {
        let calendar = Calendar::new(unit, zone).unwrap();
        let now = now.parse::<Timestamp>().unwrap().as_second() as u64;
        let period = calendar.at(now);
        assert_eq!(
            (calendar.shown(period.start()), calendar.shown(period.end())),
            (start.to_owned(), end.to_owned()),
            "{zone} {now}"
        );
        assert_eq!(calendar.at(now), period, "the one that is remembered");
    }

    #[test]
    fn periods_are_those_of_the_time_zone() {
        check(Unit::Hour, "UTC", "2026-03-01T10:59:59Z", "2026-03-01T10:00:00+00:00", "2026-03-01T11:00:00+00:00");
        check(Unit::Hour, "Asia/Kathmandu", "2026-03-01T10:00:00Z", "2026-03-01T15:00:00+05:45", "2026-03-01T16:00:00+05:45");
        check(Unit::Day, "UTC", "2026-12-31T23:59:59Z", "2026-12-31T00:00:00+00:00", "2027-01-01T00:00:00+00:00");
        check(Unit::Day, "Asia/Tokyo", "2026-12-31T15:00:00Z", "2027-01-01T00:00:00+09:00", "2027-01-02T00:00:00+09:00");
        check(Unit::Month, "UTC", "2028-02-29T12:00:00Z", "2028-02-01T00:00:00+00:00", "2028-03-01T00:00:00+00:00");
        check(Unit::Month, "Europe/Berlin", "2026-03-31T22:00:00Z", "2026-04-01T00:00:00+02:00", "2026-05-01T00:00:00+02:00");
    }

    #[test]
    fn days_on_which_the_clocks_change_are_whole_days() {
        check(Unit::Day, "Europe/Berlin", "2026-03-29T12:00:00Z", "2026-03-29T00:00:00+01:00", "2026-03-30T00:00:00+02:00");
        check(Unit::Day, "Europe/Berlin", "2026-10-25T12:00:00Z", "2026-10-25T00:00:00+02:00", "2026-10-26T00:00:00+01:00");
        // There midnight itself is left out.
        check(Unit::Day, "Africa/Cairo", "2026-04-24T12:00:00Z", "2026-04-24T01:00:00+03:00", "2026-04-25T00:00:00+03:00");
    }

    #[test]
    fn an_hour_that_comes_twice_is_two() {
        let calendar = Calendar::new(Unit::Hour, "Europe/Berlin").unwrap();
        let before = "2026-10-25T00:30:00Z".parse::<Timestamp>().unwrap().as_second() as u64;
        let (first, second) = (calendar.at(before), calendar.at(before + 3_600));
        assert_eq!(first.end(), second.start());
        let shown = [first, second].map(|hour| calendar.shown(hour.start()));
        assert_eq!(shown, ["2026-10-25T02:00:00+02:00", "2026-10-25T02:00:00+01:00"]);
    }

    #[test]
    fn each_period_begins_where_the_last_one_ended() {
        for zone in ["UTC", "Europe/Berlin", "America/New_York", "Asia/Kathmandu", "America/St_Johns", "Pacific/Apia"] {
            for unit in [Unit::Hour, Unit::Day, Unit::Month] {
                let calendar = Calendar::new(unit, zone).unwrap();
                let mut period = calendar.at(ORIGIN + 86_400 * 2_000);
                for _ in 0..500 {
                    let next = calendar.at(period.end());
                    assert_eq!((next.start(), calendar.at(next.end() - 1)), (period.end(), next), "{zone} {unit:?}");
                    period = next;
                }
            }
        }
    }

    #[test]
    fn a_clock_that_is_set_back_a_little_stays_in_the_new_period() {
        let calendar = Calendar::new(Unit::Day, "UTC").unwrap();
        let midnight = ORIGIN + 86_400 * 2_400;
        let today = calendar.at(midnight);
        assert_eq!(calendar.at(midnight - 1), today);
        assert_eq!(calendar.at(midnight - 3_600).end(), midnight, "but one that was wrong is put right");
    }

    #[test]
    fn a_clock_that_was_never_set_or_is_far_ahead_gives_some_period() {
        for unit in [Unit::Hour, Unit::Day, Unit::Month] {
            let calendar = Calendar::new(unit, "America/New_York").unwrap();
            for now in [0, ORIGIN, u64::from(u32::MAX), u64::MAX] {
                assert!(calendar.at(now).end() > calendar.at(now).start());
            }
        }
    }

    #[test]
    fn a_zone_that_is_not_there_is_told() {
        assert_eq!(Calendar::new(Unit::Day, "Europe/Berlino").unwrap_err(), UnknownZone("Europe/Berlino".to_owned()));
    }
}

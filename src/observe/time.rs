//! Points in time as logs write them, always in UTC.

use std::time::SystemTime;

use jiff::{Timestamp, civil::DateTime, tz::Offset};

const MONTHS: [&[u8]; 12] = [b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"];

/// RFC 3339 with milliseconds: `2026-01-31T23:59:59.042Z`.
pub fn rfc3339(time: SystemTime) -> String {
    let mut out = Vec::with_capacity(24);
    write_rfc3339(time, &mut out);
    String::from_utf8_lossy(&out).into_owned()
}

/// Appends what [`rfc3339`] gives.
pub(super) fn write_rfc3339(time: SystemTime, out: &mut Vec<u8>) {
    let at = utc(time);
    digits(at.year(), 4, out);
    out.push(b'-');
    digits(at.month(), 2, out);
    out.push(b'-');
    digits(at.day(), 2, out);
    out.push(b'T');
    write_clock(at, out);
    out.push(b'.');
    digits(at.millisecond(), 3, out);
    out.push(b'Z');
}

/// Appends the Common Log Format's time: `31/Jan/2026:23:59:59 +0000`.
pub(super) fn write_clf(time: SystemTime, out: &mut Vec<u8>) {
    let at = utc(time);
    digits(at.day(), 2, out);
    out.push(b'/');
    out.extend_from_slice(usize::try_from(at.month() - 1).ok().and_then(|month| MONTHS.get(month)).unwrap_or(&b"---".as_slice()));
    out.push(b'/');
    digits(at.year(), 4, out);
    out.push(b':');
    write_clock(at, out);
    out.extend_from_slice(b" +0000");
}

fn write_clock(at: DateTime, out: &mut Vec<u8>) {
    digits(at.hour(), 2, out);
    out.push(b':');
    digits(at.minute(), 2, out);
    out.push(b':');
    digits(at.second(), 2, out);
}

/// A clock set outside of jiff's years (-9999 to 9999) shows as the epoch.
fn utc(time: SystemTime) -> DateTime {
    Offset::UTC.to_datetime(Timestamp::try_from(time).unwrap_or(Timestamp::UNIX_EPOCH))
}

/// The number with leading zeros. Time fields are never negative; years before 0 show as 0.
fn digits(number: impl Into<i64>, width: u32, out: &mut Vec<u8>) {
    let number = number.into().max(0);
    for power in (0..width).rev() {
        out.push(b'0' + (number / 10_i64.pow(power) % 10) as u8);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, UNIX_EPOCH};

    fn check(millis: u64, rfc: &str, clf: &str) {
        let time = UNIX_EPOCH + Duration::from_millis(millis);
        assert_eq!(rfc3339(time), rfc);
        let mut out = Vec::new();
        write_clf(time, &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), clf);
    }

    #[test]
    fn times_are_utc() {
        check(0, "1970-01-01T00:00:00.000Z", "01/Jan/1970:00:00:00 +0000");
        check(1_709_251_199_999, "2024-02-29T23:59:59.999Z", "29/Feb/2024:23:59:59 +0000");
        check(1_798_761_600_007, "2027-01-01T00:00:00.007Z", "01/Jan/2027:00:00:00 +0000");
    }

    #[test]
    fn a_clock_out_of_range_shows_as_the_epoch() {
        let far = UNIX_EPOCH.checked_add(Duration::from_secs(1 << 60)).unwrap();
        assert_eq!(rfc3339(far), "1970-01-01T00:00:00.000Z");
    }
}

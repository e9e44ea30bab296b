//! gRPC's deadlines: `grpc-timeout` of the gRPC protocol over HTTP/2.
//!
//! A client says how long its whole call may last. We end the call then, and tell the service what is left, so that a second try has
//! no more time than the first.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use pingora_http::RequestHeader;

use crate::{exchange::Stop, reply::is_grpc};

static GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// Longest time for a call that is kept; more is no less than for ever to a clock. The largest that can be written is 11,415 years.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

/// Most digits, by the protocol.
const DIGITS_MAX: usize = 8;

/// The time that a gRPC client gives its call; `None` if it gives none, or if the request is no gRPC.
///
/// # Errors
/// It cannot be read. grpc-go refuses such a call too; to pass it over would leave a call without the end that its client counts on.
pub fn timeout(headers: &HeaderMap) -> Result<Option<Duration>, Stop> {
    let Some(value) = headers.get(&GRPC_TIMEOUT).filter(|_| is_grpc(headers)) else { return Ok(None) };
    let alone = headers.get_all(&GRPC_TIMEOUT).iter().nth(1).is_none();
    let read = value.to_str().ok().filter(|_| alone).and_then(parse);
    read.map(Some).ok_or(Stop::Malformed("The grpc-timeout is not one to eight digits and a unit."))
}

/// Tells the service how much time is left.
pub fn tell(head: &mut RequestHeader, left: Duration) -> pingora_core::Result<()> {
    let value = HeaderValue::from_str(&written(left)).unwrap_or(HeaderValue::from_static("0n"));
    head.insert_header(&GRPC_TIMEOUT, value)
}

/// One to eight digits and a unit: hours, minutes, seconds, milli-, micro- or nanoseconds.
fn parse(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > DIGITS_MAX || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    let time = match unit {
        "H" => Duration::from_secs(count * 3600),
        "M" => Duration::from_secs(count * 60),
        "S" => Duration::from_secs(count),
        "m" => Duration::from_millis(count),
        "u" => Duration::from_micros(count),
        "n" => Duration::from_nanos(count),
        _ => return None,
    };
    Some(time.min(LONGEST))
}

/// In the finest unit that eight digits hold, cut off, so that the service gets no more than there is.
fn written(left: Duration) -> String {
    const LIMIT: u128 = 10_u128.pow(DIGITS_MAX as u32);
    let units = [(left.as_nanos(), 'n'), (left.as_micros(), 'u'), (left.as_millis(), 'm')];
    let fits = units.into_iter().find(|(count, _)| *count < LIMIT);
    let (count, unit) = fits.unwrap_or((u128::from(left.as_secs()).min(LIMIT - 1), 'S'));
    format!("{count}{unit}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::testing;

    #[test]
    fn a_timeout_is_digits_and_a_unit() {
        let millis = |text| parse(text).map(|time| time.as_millis());
        assert_eq!(millis("1H"), Some(3_600_000));
        assert_eq!(millis("2M"), Some(120_000));
        assert_eq!(millis("00000003S"), Some(3000));
        assert_eq!((millis("4m"), millis("5000u"), millis("6000000n")), (Some(4), Some(5), Some(6)));
        assert_eq!(parse("0S"), Some(Duration::ZERO));
        assert_eq!(parse("99999999H"), Some(LONGEST));
        for odd in ["", "S", "1", "1s", "1 S", "+1S", "-1S", "1.5S", "123456789S", "1SS", "1h", "1µ", "٣S"] {
            assert_eq!(parse(odd), None, "{odd}");
        }
    }

    #[test]
    fn what_is_left_is_told_as_finely_as_eight_digits_can() {
        for (left, text) in [
            (Duration::ZERO, "0n"),
            (Duration::from_nanos(99_999_999), "99999999n"),
            (Duration::from_nanos(1_234_567_891), "1234567u"),
            (Duration::from_secs(100), "100000m"),
            (Duration::from_micros(100_000_999_999), "100000S"),
            (LONGEST, "31536000S"),
        ] {
            assert_eq!(written(left), text);
            assert!(parse(text).unwrap() <= left);
        }
    }

    #[test]
    fn only_a_grpc_calls_timeout_is_read() {
        let read = |headers: &[(&'static str, &str)]| timeout(&testing::head("POST", "/", headers).headers).ok();
        let grpc = ("content-type", "application/grpc+proto");
        assert_eq!(read(&[grpc, ("grpc-timeout", "1S")]), Some(Some(Duration::from_secs(1))));
        assert_eq!(read(&[grpc]), Some(None));
        assert_eq!(read(&[("grpc-timeout", "rubbish")]), Some(None));
        assert_eq!(read(&[grpc, ("grpc-timeout", "rubbish")]), None);
        assert_eq!(read(&[grpc, ("grpc-timeout", "1S"), ("grpc-timeout", "2S")]), None);
    }
}

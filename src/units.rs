//! Quantities that the configuration writes with their unit.
//!
//! A bare number where a unit is due is an error, so a value never changes meaning by a guess.

use std::{borrow::Cow, fmt, ops::RangeInclusive, str::FromStr};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

pub use self::{percent::Percent, rate::Rate};

mod percent;
mod rate;

/// A length of time: `500ms`, `10s`, `5m`, `1h`, `1d`. Decimals are allowed: `0.5ms`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Duration(std::time::Duration);

/// Whole seconds, and no less than the time.
pub fn seconds_up(time: std::time::Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}

/// A number of bytes: `512B`, `64KiB`, `10MiB`, `1GiB`, or decimal `10KB`, `5MB`, `1GB`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Bytes(u64);

/// A text is not a quantity of the kind that is due here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected}, found `{found}`")]
pub struct UnitError {
    expected: &'static str,
    found: String,
}

/// Unit suffixes with their size in nanoseconds.
const DURATION_UNITS: [(&str, f64); 7] =
    [("ns", 1.0), ("us", 1e3), ("ms", 1e6), ("s", 1e9), ("m", 60e9), ("h", 3_600e9), ("d", 86_400e9)];

/// Unit suffixes with their size in bytes.
const BYTE_UNITS: [(&str, f64); 7] =
    [("B", 1.0), ("KB", 1e3), ("MB", 1e6), ("GB", 1e9), ("KiB", 1_024.0), ("MiB", 1_048_576.0), ("GiB", 1_073_741_824.0)];

/// Longest duration we accept: 10 years. Longer is a slip of the pen, and would overflow timers.
const DURATION_MAX_NANOS: f64 = 3_650.0 * 86_400e9;

/// Most bytes we accept: 1 PiB. Every size here is a limit in memory or on the wire.
const BYTES_MAX: f64 = 1_125_899_906_842_624.0;

impl Duration {
    pub const fn from_millis(millis: u64) -> Self {
        Self(std::time::Duration::from_millis(millis))
    }

    pub const fn from_secs(secs: u64) -> Self {
        Self(std::time::Duration::from_secs(secs))
    }

    pub const fn as_std(self) -> std::time::Duration {
        self.0
    }

    pub const fn is_zero(self) -> bool {
        self.0.is_zero()
    }
}

impl Bytes {
    pub const fn new(bytes: u64) -> Self {
        Self(bytes)
    }

    pub const fn get(self) -> u64 {
        self.0
    }
}

impl FromStr for Duration {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        quantity(text, &DURATION_UNITS)
            .filter(|nanos| *nanos <= DURATION_MAX_NANOS)
            .map(|nanos| Self(std::time::Duration::from_nanos(nanos.round() as u64)))
            .ok_or_else(|| UnitError::new("a duration with its unit such as `500ms`, `10s`, `5m` or `1h`", text))
    }
}

impl FromStr for Bytes {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        quantity(text, &BYTE_UNITS)
            .filter(|bytes| *bytes <= BYTES_MAX && bytes.fract() == 0.0)
            .map(|bytes| Self(bytes as u64))
            .ok_or_else(|| UnitError::new("a size with its unit such as `512B`, `64KiB` or `10MiB`", text))
    }
}

/// Reads `<number><unit>`; the number has digits and at most one point, no sign, no exponent.
fn quantity(text: &str, units: &[(&str, f64)]) -> Option<f64> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, unit) = text.split_at(digits);
    let size = units.iter().find(|(name, _)| *name == unit)?.1;
    if number.starts_with('.') || number.ends_with('.') {
        return None;
    }
    number.parse::<f64>().ok().map(|n| n * size)
}

impl UnitError {
    fn new(expected: &'static str, found: &str) -> Self {
        Self { expected, found: found.to_owned() }
    }
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_zero() {
            return f.write_str("0s");
        }
        write_exact(
            f,
            self.0.as_nanos(),
            &[
                ("d", 86_400_000_000_000),
                ("h", 3_600_000_000_000),
                ("m", 60_000_000_000),
                ("s", 1_000_000_000),
                ("ms", 1_000_000),
                ("us", 1_000),
                ("ns", 1),
            ],
        )
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_exact(f, u128::from(self.0), &[("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)])
    }
}

/// Writes in the largest unit that loses nothing, so what is shown parses back to the same value.
fn write_exact(f: &mut fmt::Formatter<'_>, value: u128, units: &[(&str, u128)]) -> fmt::Result {
    let smallest = units.last().map_or("", |(name, _)| name);
    match units.iter().find(|(_, size)| value != 0 && value.is_multiple_of(*size)) {
        Some((name, size)) => write!(f, "{}{name}", value / size),
        None => write!(f, "0{smallest}"),
    }
}

/// Reads a value that is written as text. `expected` tells the user what is due.
pub fn from_text<'de, D: Deserializer<'de>, T>(
    deserializer: D,
    expected: &'static str,
    parse: impl Fn(&str) -> Option<T>,
) -> Result<T, D::Error> {
    struct Text<P>(&'static str, P);
    impl<T, P: Fn(&str) -> Option<T>> de::Visitor<'_> for Text<P> {
        type Value = T;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }
        fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
            (self.1)(text).ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self.0))
        }
    }
    deserializer.deserialize_str(Text(expected, parse))
}

/// Reads a duration that is more than nothing: a wait or an interval of zero is never meant.
pub fn positive<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    from_text(deserializer, "a duration of more than zero with its unit such as `500ms` or `10s`", |text| {
        text.parse().ok().filter(|duration: &Duration| !duration.is_zero())
    })
}

/// Reads an optional [`positive`] duration.
pub fn some_positive<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    positive(deserializer).map(Some)
}

/// Reads a whole number within bounds. `expected` tells the user what is due.
pub fn within<'de, D: Deserializer<'de>>(
    deserializer: D,
    expected: &'static str,
    bounds: RangeInclusive<u64>,
) -> Result<u64, D::Error> {
    struct Bounded(&'static str, RangeInclusive<u64>);
    impl de::Visitor<'_> for Bounded {
        type Value = u64;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }
        fn visit_u64<E: de::Error>(self, number: u64) -> Result<u64, E> {
            let found = de::Unexpected::Unsigned(number);
            self.1.contains(&number).then_some(number).ok_or_else(|| E::invalid_value(found, &self.0))
        }
    }
    deserializer.deserialize_u64(Bounded(expected, bounds))
}

/// Gives a type that reads from text its serde and schema halves.
macro_rules! text_unit {
    ($type:ident, $expected:literal, $description:literal, $pattern:literal) => {
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                from_text(deserializer, $expected, |text| text.parse().ok())
            }
        }

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                stringify!($type).into()
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "description": $description, "pattern": $pattern })
            }
        }
    };
}

text_unit!(
    Duration,
    "a duration with its unit such as `500ms`, `10s`, `5m` or `1h`",
    "A length of time with its unit: `500ms`, `10s`, `5m`, `1h`, `1d`.",
    "^[0-9]+(\\.[0-9]+)?(ns|us|ms|s|m|h|d)$"
);
text_unit!(
    Bytes,
    "a size with its unit such as `512B`, `64KiB` or `10MiB`",
    "A number of bytes with its unit: `512B`, `64KiB`, `10MiB`.",
    "^[0-9]+(\\.[0-9]+)?(B|KB|MB|GB|KiB|MiB|GiB)$"
);

#[cfg(test)]
mod tests {
    use super::*;

    fn duration(text: &str, expected: Option<std::time::Duration>) {
        assert_eq!(text.parse::<Duration>().ok().map(Duration::as_std), expected, "{text}");
    }

    fn bytes(text: &str, expected: Option<u64>) {
        assert_eq!(text.parse::<Bytes>().ok().map(Bytes::get), expected, "{text}");
    }

    #[test]
    fn durations_need_their_unit() {
        let millis = |n| Some(std::time::Duration::from_millis(n));
        duration("500ms", millis(500));
        duration("0.5s", millis(500));
        duration("1d", millis(86_400_000));
        for bad in ["500", "", "ms", "-1s", "1e3s", "1 s", "1.s", ".5s", "1S", "99999d", "1s1"] {
            duration(bad, None);
        }
    }

    #[test]
    fn sizes_need_their_unit() {
        bytes("512B", Some(512));
        bytes("64KiB", Some(65_536));
        bytes("1.5KiB", Some(1_536));
        bytes("10MB", Some(10_000_000));
        for bad in ["512", "1.5B", "10mib", "-1B", "9999999999GiB"] {
            bytes(bad, None);
        }
    }

    #[test]
    fn what_is_shown_parses_back() {
        for text in ["0s", "500ms", "90s", "2h", "1500us", "1d"] {
            let parsed: Duration = text.parse().unwrap();
            assert_eq!(parsed.to_string().parse::<Duration>().unwrap(), parsed);
        }
        for text in ["0B", "1536B", "64KiB", "10MiB"] {
            assert_eq!(text.parse::<Bytes>().unwrap().to_string(), text);
        }
    }
}

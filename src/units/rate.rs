//! How often something may happen: `100/1m`.

use std::{borrow::Cow, fmt, str::FromStr};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Duration, UnitError, from_text};

/// So many in so long: `10/1s`, `100/1m`. Neither is zero.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rate {
    count: u64,
    per: Duration,
}

const EXPECTED: &str = "a rate of more than zero with its time such as `10/1s` or `100/1m`";

impl Rate {
    /// `None` if one of them is zero.
    pub fn new(count: u64, per: std::time::Duration) -> Option<Self> {
        (count > 0 && !per.is_zero()).then_some(Self { count, per: Duration(per) })
    }

    pub const fn count(self) -> u64 {
        self.count
    }

    pub const fn per(self) -> Duration {
        self.per
    }

    /// The time in nanoseconds. The longest duration of a configuration has far less than there is room for.
    pub fn nanos(self) -> u64 {
        u64::try_from(self.per.as_std().as_nanos()).unwrap_or(u64::MAX)
    }
}

impl FromStr for Rate {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let digits = |count: &&str| !count.is_empty() && count.bytes().all(|byte| byte.is_ascii_digit());
        let rate = || {
            let (count, per) = text.split_once('/')?;
            Self::new(Some(count).filter(digits)?.parse().ok()?, per.parse::<Duration>().ok()?.as_std())
        };
        rate().ok_or_else(|| UnitError::new(EXPECTED, text))
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.count, self.per)
    }
}

impl<'de> Deserialize<'de> for Rate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        from_text(deserializer, EXPECTED, |text| text.parse().ok())
    }
}

impl Serialize for Rate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl JsonSchema for Rate {
    fn schema_name() -> Cow<'static, str> {
        "Rate".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "So many in so long, with the time's unit: `10/1s`, `100/1m`.",
            "pattern": "^[0-9]+/[0-9]+(\\.[0-9]+)?(ns|us|ms|s|m|h|d)$"
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Option<&str>) {
        let rate = text.parse::<Rate>().map(|rate| rate.to_string());
        assert_eq!(rate.ok().as_deref(), expected, "{text}");
    }

    #[test]
    fn a_rate_is_a_number_in_a_time_with_its_unit() {
        check("100/1m", Some("100/1m"));
        check("5/0.5s", Some("5/500ms"));
        check("120/60s", Some("120/1m"));
        for no_rate in [
            "0/1s",
            "10/0s",
            "10",
            "10/s",
            "10/1",
            "/1s",
            "-1/1s",
            "+1/1s",
            "1.5/1s",
            "10 / 1s",
            "18446744073709551616/1s",
            "1/1s/1s",
        ] {
            check(no_rate, None);
        }
    }
}

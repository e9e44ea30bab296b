//! `plans`: what consumers may use.

use std::{borrow::Cow, fmt, ops::RangeInclusive};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::policy::limit::some_count;
use crate::units::{Rate, from_text};

/// What a consumer of the plan may use, where a route's `rate_limit` says `limit: plan`.
#[derive(Clone, PartialEq, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// How often it may call: `100/1m`.
    pub limit: Rate,
    /// Most that may come at once. Default: as many as `limit` allows in its time.
    #[serde(default, deserialize_with = "some_count", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 4_294_967_295_u32))]
    pub burst: Option<u32>,
    /// How often it may call in an hour, a day or a month of the calendar, on all routes together: `100/1h`, `10000/1d`, `5000000/1mo`. Each
    /// consumer of the plan has it for itself. Absent: as often as `limit` allows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota: Option<Quota>,
    /// The time zone in which the quota's hours, days and months begin, by its IANA name: `Europe/Berlin`. Default `UTC`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timezone: Option<String>,
}

/// So many requests in each hour, day or month.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Quota {
    pub amount: u64,
    pub unit: Unit,
}

/// What a quota is counted by: the calendar's hours, days or months.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Unit {
    Hour,
    Day,
    Month,
}

/// What a quota may be.
const AMOUNTS: RangeInclusive<u64> = 1..=100_000_000_000;

const QUOTA: &str = "a quota from 1 to 100000000000 with its period, which is `1h`, `1d` or `1mo`, such as `10000/1d`";

impl Unit {
    /// As the file writes it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Hour => "1h",
            Self::Day => "1d",
            Self::Month => "1mo",
        }
    }

    pub fn of_word(word: &str) -> Option<Self> {
        [Self::Hour, Self::Day, Self::Month].into_iter().find(|unit| unit.word() == word)
    }
}

impl Quota {
    fn parse(text: &str) -> Option<Self> {
        let (amount, unit) = text.split_once('/')?;
        let digits = !amount.is_empty() && amount.bytes().all(|byte| byte.is_ascii_digit());
        let amount = amount.parse().ok().filter(|amount| digits && AMOUNTS.contains(amount))?;
        Some(Self { amount, unit: Unit::of_word(unit)? })
    }
}

impl fmt::Display for Quota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.amount, self.unit.word())
    }
}

impl<'de> Deserialize<'de> for Quota {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        from_text(deserializer, QUOTA, Self::parse)
    }
}

impl Serialize for Quota {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl JsonSchema for Quota {
    fn schema_name() -> Cow<'static, str> {
        "Quota".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^[0-9]+/1(h|d|mo)$", "description": "Requests in each hour, day or month of the calendar: `10000/1d`." })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quota_has_an_amount_and_a_period_of_the_calendar() {
        for (text, amount, unit) in
            [("1/1h", 1, Unit::Hour), ("10000/1d", 10_000, Unit::Day), ("100000000000/1mo", 100_000_000_000, Unit::Month)]
        {
            let quota = Quota { amount, unit };
            assert_eq!((Quota::parse(text), quota.to_string()), (Some(quota), text.to_owned()));
        }
        for bad in
            ["", "10", "10/", "/1d", "0/1d", "10/2d", "10/1m", "10/1y", "+1/1d", "1.5/1d", "-1/1d", "100000000001/1d", "10/1d/1d"]
        {
            assert_eq!(Quota::parse(bad), None, "{bad}");
        }
    }
}

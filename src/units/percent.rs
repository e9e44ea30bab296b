//! A share of a whole.

use std::{borrow::Cow, fmt, str::FromStr};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::from_text;

/// What is due where a share is.
const EXPECTED: &str = "a share with its unit such as `50%` or `0.5%`, from `0%` to `100%`";

/// Parts of a whole.
const WHOLE: u32 = 1_000_000;

/// A share from `0%` to `100%`: `50%`, `0.5%`. Exact to a ten-thousandth of a per cent.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Percent(u32);

impl Percent {
    pub const NONE: Self = Self(0);
    pub const ALL: Self = Self(WHOLE);

    /// Whole per cents; more than 100 are 100.
    pub const fn of(percent: u8) -> Self {
        Self(if percent < 100 { percent as u32 * (WHOLE / 100) } else { WHOLE })
    }

    /// From 0 to 1.
    pub fn fraction(self) -> f64 {
        f64::from(self.0) / f64::from(WHOLE)
    }

    /// So much of a count, rounded down.
    pub const fn of_count(self, count: u64) -> u64 {
        (count as u128 * self.0 as u128 / WHOLE as u128) as u64
    }

    /// Whether `part` of `whole` is this share or more. Nothing of nothing is no share.
    pub const fn is_reached(self, part: u64, whole: u64) -> bool {
        whole > 0 && part as u128 * WHOLE as u128 >= whole as u128 * self.0 as u128
    }

    /// Whether a draw from 0 (included) to 1 falls within this share.
    pub fn takes(self, draw: f64) -> bool {
        draw * f64::from(WHOLE) < f64::from(self.0)
    }
}

impl FromStr for Percent {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text).ok_or(EXPECTED)
    }
}

fn parse(text: &str) -> Option<Percent> {
    let number = text.strip_suffix('%')?;
    let (whole, decimals) = number.split_once('.').unwrap_or((number, "0"));
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(decimals) || decimals.len() > 4 {
        return None;
    }
    let parts = whole.parse::<u32>().ok()?.checked_mul(WHOLE / 100)?;
    let decimals = format!("{decimals:0<4}").parse::<u32>().ok()?;
    parts.checked_add(decimals).filter(|parts| *parts <= WHOLE).map(Percent)
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", f64::from(self.0) / f64::from(WHOLE / 100))
    }
}

impl<'de> Deserialize<'de> for Percent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        from_text(deserializer, EXPECTED, parse)
    }
}

impl Serialize for Percent {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl JsonSchema for Percent {
    fn schema_name() -> Cow<'static, str> {
        "Percent".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "A share from `0%` to `100%`: `50%`, `0.5%`.",
            "pattern": "^[0-9]+(\\.[0-9]{1,4})?%$"
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_have_their_unit_and_bounds() {
        for (text, parts) in [("0%", 0), ("50%", 500_000), ("0.5%", 5_000), ("33.3333%", 333_333), ("100%", WHOLE)] {
            assert_eq!(parse(text), Some(Percent(parts)), "{text}");
            assert_eq!(parse(&Percent(parts).to_string()), Some(Percent(parts)));
        }
        for text in ["", "%", "50", "50 %", "-1%", "100.0001%", "101%", ".5%", "5.%", "0.00001%", "1e1%", "99999999999%"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_share_is_reached_not_only_exceeded() {
        assert!(Percent::of(50).is_reached(10, 20) && !Percent::of(50).is_reached(9, 20));
        assert!(!Percent::NONE.is_reached(0, 0) && Percent::NONE.is_reached(0, 1));
        assert_eq!(Percent::of(20).of_count(14), 2);
    }

    #[test]
    fn a_share_takes_its_part_of_draws() {
        assert!(!Percent::NONE.takes(0.0) && Percent::ALL.takes(0.999_999_999));
        assert!(Percent::of(10).takes(0.099_999) && !Percent::of(10).takes(0.1));
    }
}

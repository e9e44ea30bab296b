//! `routes.*.faults`: failures made on purpose, for game days.

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, de};

use crate::units::{Duration, Percent, within};

/// Failures made on purpose. At least one of `delay` and `abort`.
#[derive(Clone, PartialEq, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(try_from = "FaultsKeys", into = "FaultsKeys")]
#[schemars(with = "FaultsKeys")]
pub struct Faults {
    pub delay: Option<Delay>,
    pub abort: Option<Abort>,
    pub only_with: Option<Trigger>,
}

#[derive(Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct FaultsKeys {
    /// Hold requests back before they go on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    delay: Option<Delay>,
    /// Answer requests without asking the service; those that are also held back, after that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    abort: Option<Abort>,
    /// Only requests that ask for it. Absent: all of the route. Clients can ask for it too, so name a header that they do not know or that
    /// a proxy before takes away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    only_with: Option<Trigger>,
}

impl TryFrom<FaultsKeys> for Faults {
    type Error = String;

    fn try_from(FaultsKeys { delay, abort, only_with }: FaultsKeys) -> Result<Self, String> {
        match (&delay, &abort) {
            (None, None) => Err("expected at least one of `delay`, `abort`".to_owned()),
            _ => Ok(Self { delay, abort, only_with }),
        }
    }
}

impl From<Faults> for FaultsKeys {
    fn from(Faults { delay, abort, only_with }: Faults) -> Self {
        Self { delay, abort, only_with }
    }
}

/// How long requests are held back: `{ fixed: 2s, share: 10% }`, or `{ uniform: [100ms, 2s], share: 10% }`.
#[derive(Clone, Copy, PartialEq, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(try_from = "DelayKeys", into = "DelayKeys")]
#[schemars(with = "DelayKeys")]
pub struct Delay {
    /// The two are the same if it is fixed.
    pub least: Duration,
    pub most: Duration,
    pub share: Percent,
}

/// Longest delay. What waits is held in memory.
pub const DELAY_MAX: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct DelayKeys {
    /// Always so long. At most 1m.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    fixed: Option<Duration>,
    /// A random time between the two. At most 1m.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    uniform: Option<[Duration; 2]>,
    /// Share of the requests. Default 100%.
    #[serde(default = "all")]
    share: Percent,
}

impl TryFrom<DelayKeys> for Delay {
    type Error = String;

    fn try_from(keys: DelayKeys) -> Result<Self, String> {
        let (least, most) = match (keys.fixed, keys.uniform) {
            (Some(fixed), None) => (fixed, fixed),
            (None, Some([least, most])) => (least, most),
            _ => return Err("expected exactly one of `fixed`, `uniform`".to_owned()),
        };
        match (least <= most, most <= DELAY_MAX) {
            (false, _) => Err(format!("expected the shorter time first, found `{least}` before `{most}`")),
            (_, false) => Err(format!("expected a delay of at most `{DELAY_MAX}`, found `{most}`")),
            _ => Ok(Self { least, most, share: keys.share }),
        }
    }
}

impl From<Delay> for DelayKeys {
    fn from(Delay { least, most, share }: Delay) -> Self {
        match least == most {
            true => Self { fixed: Some(least), uniform: None, share },
            false => Self { fixed: None, uniform: Some([least, most]), share },
        }
    }
}

/// How requests are answered without asking the service.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Abort {
    /// Status from 400 to 599.
    #[serde(deserialize_with = "status")]
    #[schemars(range(min = 400, max = 599))]
    pub status: u16,
    /// Share of the requests. Default 100%.
    #[serde(default = "all")]
    pub share: Percent,
}

/// A header by which a request asks for it.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Trigger {
    /// Its name.
    #[serde(deserialize_with = "name")]
    pub header: String,
    /// Its value. Absent: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
}

fn name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let name = String::deserialize(deserializer)?;
    let due = || de::Error::invalid_value(de::Unexpected::Str(&name), &"the name of a header");
    http::HeaderName::try_from(&name).map_err(|_| due())?;
    Ok(name)
}

fn status<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u16, D::Error> {
    within(deserializer, "a status from 400 to 599", 400..=599).map(|status| status as u16)
}

const fn all() -> Percent {
    Percent::ALL
}

//! `upstreams.*.retries`: which requests are tried again.

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, de};

use super::Condition;
use crate::units::{Duration, Percent, positive, some_positive, within};

/// Which requests are tried again, how often and at what pace. Nothing is tried again once the client has been sent a part of an answer, nor a
/// request whose body is longer than 64 KiB.
#[derive(Clone, PartialEq, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Retries {
    /// Most tries after the first, 0 to 10. Default 2.
    #[serde(deserialize_with = "attempts")]
    #[schemars(range(min = 0, max = 10))]
    pub attempts: u8,
    /// After which ends of a try. Default `[connect, reset, refused_stream]`.
    pub retry_on: Vec<Condition>,
    /// Try again also requests that may have been acted upon, with methods such as POST that may not be repeated. Those that certainly were not
    /// (`connect`, `refused_stream`) are tried again whatever their method.
    pub non_idempotent: bool,
    /// Longest wait for the response head in each try. Absent: `timeouts.response`. What took longer is tried again if `retry_on` has
    /// `timeout`.
    #[serde(deserialize_with = "some_positive", skip_serializing_if = "Option::is_none")]
    pub per_try: Option<Duration>,
    /// How long to wait between tries.
    pub backoff: Backoff,
    /// Most tries after the first of all requests together, as a share of those requests. Default 20%. To go past an endpoint to which no
    /// connection could be opened costs nothing of it.
    pub budget: Budget,
}

/// Most tries after the first. Pingora counts them too, for all upstreams, and gives up after 16.
pub const ATTEMPTS_MAX: u8 = 10;

impl Default for Retries {
    fn default() -> Self {
        Self {
            attempts: 2,
            retry_on: vec![Condition::Connect, Condition::Reset, Condition::RefusedStream],
            non_idempotent: false,
            per_try: None,
            backoff: Backoff::default(),
            budget: Budget::default(),
        }
    }
}

/// A wait before each try after the first: a random time up to `base`, doubled with each try, but never more than `max`. There is none before
/// the first of them if it goes to another endpoint, because the one before did not take the request.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Backoff {
    /// Longest wait before the first of them. Default 25ms.
    #[serde(deserialize_with = "positive")]
    pub base: Duration,
    /// Longest wait at all. Default 250ms.
    #[serde(deserialize_with = "positive")]
    pub max: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { base: Duration::from_millis(25), max: Duration::from_millis(250) }
    }
}

/// How many tries after the first all requests together may take: `20%`, or `{ share: 20%, floor: 10 }`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, JsonSchema)]
#[schemars(with = "BudgetForm")]
pub struct Budget {
    /// Share of the requests.
    pub share: Percent,
    /// So many a second are allowed however few requests there are.
    pub floor: u32,
    /// Time over which requests and tries are counted. Longer lets more be tried again at once.
    pub window: Duration,
}

impl Default for Budget {
    fn default() -> Self {
        Self { share: Percent::of(20), floor: 10, window: Duration::from_secs(1) }
    }
}

#[derive(JsonSchema)]
#[serde(untagged)]
#[allow(dead_code, reason = "the schema of the two ways to write a budget")]
enum BudgetForm {
    /// Share of the requests: `20%`.
    Share(Percent),
    /// With more said.
    Body(BudgetBody),
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct BudgetBody {
    /// Share of the requests. Default 20%.
    share: Percent,
    /// So many a second are allowed however few requests there are. Default 10.
    floor: u32,
    /// Time over which requests and tries are counted, 100ms to 1m. Longer lets more be tried again at once. Default 1s.
    #[serde(deserialize_with = "window")]
    window: Duration,
}

impl Default for BudgetBody {
    fn default() -> Self {
        let Budget { share, floor, window } = Budget::default();
        Self { share, floor, window }
    }
}

impl<'de> Deserialize<'de> for Budget {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Form;
        impl<'de> de::Visitor<'de> for Form {
            type Value = Budget;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a share with its unit such as `20%`, or `{ share: 20%, floor: 10, window: 1s }`")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Budget, E> {
                let share = text.parse().map_err(|_| E::invalid_value(de::Unexpected::Str(text), &self))?;
                Ok(Budget { share, ..Budget::default() })
            }
            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<Budget, A::Error> {
                let body = BudgetBody::deserialize(de::value::MapAccessDeserializer::new(map))?;
                Ok(Budget { share: body.share, floor: body.floor, window: body.window })
            }
        }
        deserializer.deserialize_any(Form)
    }
}

fn attempts<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u8, D::Error> {
    within(deserializer, "a number of tries after the first from 0 to 10", 0..=u64::from(ATTEMPTS_MAX)).map(|count| count as u8)
}

fn window<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let window = Duration::deserialize(deserializer)?;
    let within = (Duration::from_millis(100)..=Duration::from_secs(60)).contains(&window);
    let due = || de::Error::invalid_value(de::Unexpected::Str(&window.to_string()), &"a duration from `100ms` to `1m`");
    within.then_some(window).ok_or_else(due)
}

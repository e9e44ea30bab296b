//! Failures made on purpose, for game days: what befalls a request is drawn, and done elsewhere.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use crate::config::{
    problem::{Path, Problem},
    route::{Abort, Delay, Faults as Config},
};

/// Compiled `faults` of a route.
#[derive(Clone, Debug)]
pub struct Faults {
    delay: Option<Delay>,
    abort: Option<(Abort, StatusCode)>,
    only_with: Option<(HeaderName, Option<HeaderValue>)>,
}

/// What befalls a request: first it is held back, then it is answered with the status.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Mishap {
    pub delay: Option<Duration>,
    pub abort: Option<StatusCode>,
}

impl Mishap {
    pub const fn is_none(self) -> bool {
        self.delay.is_none() && self.abort.is_none()
    }
}

impl Faults {
    /// # Errors
    /// The header that asks for it can never be there.
    pub fn compile(config: &Config, at: &Path) -> Result<Self, Problem> {
        let at = at.key("only_with");
        let only_with = config.only_with.as_ref().map(|trigger| {
            let cannot = |key: &str, text: &str| {
                let problem = Problem::error(at.key(key), format!("`{}` cannot be in a header", text.escape_debug()));
                problem.help("write a text of one line")
            };
            let name = HeaderName::try_from(&trigger.header).map_err(|_| cannot("header", &trigger.header))?;
            let value = |text: &String| HeaderValue::try_from(text).map_err(|_| cannot("value", text));
            Ok((name, trigger.value.as_ref().map(value).transpose()?))
        });
        let status = |abort: Abort| Some((abort, StatusCode::from_u16(abort.status).ok()?));
        Ok(Self { delay: config.delay, abort: config.abort.and_then(status), only_with: only_with.transpose()? })
    }

    /// Draws what befalls a request. `draw` gives numbers from 0 (included) to 1; a request that is meant takes three of them whatever comes of
    /// it, so that a seed tells the same story under other shares.
    pub fn draw(&self, headers: &HeaderMap, mut draw: impl FnMut() -> f64) -> Mishap {
        if !self.is_meant(headers) {
            return Mishap::default();
        }
        let (delayed, length, aborted) = (draw(), draw(), draw());
        let delay = self.delay.filter(|delay| delay.share.takes(delayed)).map(|delay| between(&delay, length));
        let abort = self.abort.filter(|(abort, _)| abort.share.takes(aborted)).map(|(_, status)| status);
        Mishap { delay, abort }
    }

    fn is_meant(&self, headers: &HeaderMap) -> bool {
        let Some((name, value)) = &self.only_with else { return true };
        match value {
            Some(value) => headers.get_all(name).iter().any(|found| found == value),
            None => headers.contains_key(name),
        }
    }
}

fn between(delay: &Delay, draw: f64) -> Duration {
    let (least, most) = (delay.least.as_std(), delay.most.as_std());
    least + most.saturating_sub(least).mul_f64(draw.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(text: &str) -> Faults {
        Faults::compile(&serde_yaml::from_str(text).unwrap(), &Path::root()).unwrap()
    }

    /// Of ten thousand requests: how many were held back, how many answered, and the shortest and longest delay.
    fn befalls(faults: &Faults) -> (usize, usize, Duration, Duration) {
        let mut dice = fastrand::Rng::with_seed(8);
        let all: Vec<_> = (0..10_000).map(|_| faults.draw(&HeaderMap::new(), || dice.f64())).collect();
        let delays = || all.iter().filter_map(|mishap| mishap.delay);
        let aborts = all.iter().filter(|mishap| mishap.abort.is_some()).count();
        (delays().count(), aborts, delays().min().unwrap_or_default(), delays().max().unwrap_or_default())
    }

    #[test]
    fn shares_and_delays_are_those_of_the_file() {
        let (delays, aborts, least, most) =
            befalls(&faults("{ delay: { uniform: [100ms, 2s], share: 10% }, abort: { status: 503, share: 5% } }"));
        assert!((900..1_100).contains(&delays) && (430..570).contains(&aborts), "{delays} {aborts}");
        assert!(least >= Duration::from_millis(100) && most <= Duration::from_secs(2) && most > 15 * least, "{least:?} {most:?}");
        let second = Duration::from_secs(1);
        assert_eq!(befalls(&faults("{ delay: { fixed: 1s } }")), (10_000, 0, second, second));
        assert_eq!(befalls(&faults("{ abort: { status: 503, share: 0% } }")).1, 0);
    }

    #[test]
    fn a_seed_tells_the_same_story() {
        let faults = faults("{ delay: { uniform: [0s, 1s], share: 50% }, abort: { status: 500, share: 50% } }");
        let story = |seed| {
            let mut dice = fastrand::Rng::with_seed(seed);
            (0..100).map(|_| faults.draw(&HeaderMap::new(), || dice.f64())).collect::<Vec<_>>()
        };
        assert_eq!(story(1), story(1));
        assert_ne!(story(1), story(2));
    }

    #[test]
    fn only_requests_that_ask_for_it_are_meant() {
        let headers = |fields: &[(&'static str, &'static str)]| -> HeaderMap {
            let field =
                |(name, value): &(&'static str, &'static str)| (HeaderName::from_static(name), HeaderValue::from_static(value));
            fields.iter().map(field).collect()
        };
        let any = faults("{ abort: { status: 503 }, only_with: { header: X-Game-Day } }");
        let one = faults("{ abort: { status: 503 }, only_with: { header: x-game-day, value: orders } }");
        for (fields, by_any, by_one) in [
            (&[][..], false, false),
            (&[("x-game-day", "stock")], true, false),
            (&[("x-game-day", "stock"), ("x-game-day", "orders")], true, true),
        ] {
            let befalls = |faults: &Faults| !faults.draw(&headers(fields), || 0.0).is_none();
            assert_eq!((befalls(&any), befalls(&one)), (by_any, by_one), "{fields:?}");
        }
    }

    #[test]
    fn mistakes_are_told() {
        for (text, told) in [
            ("{}", "at least one of"),
            ("{ delay: {} }", "exactly one of `fixed`, `uniform`"),
            ("{ delay: { uniform: [2s, 1s] } }", "the shorter time first"),
            ("{ delay: { fixed: 2m } }", "at most `1m`"),
            ("{ abort: { status: 200 } }", "from 400 to 599"),
            ("{ abort: { status: 503 }, only_with: { header: 'a b' } }", "the name of a header"),
        ] {
            let error = serde_yaml::from_str::<Config>(text).unwrap_err().to_string();
            assert!(error.contains(told), "{text}: {error}");
        }
        let odd = serde_yaml::from_str("{ abort: { status: 503 }, only_with: { header: a, value: \"a\\nb\" } }").unwrap();
        assert!(Faults::compile(&odd, &Path::root()).unwrap_err().message.contains(r"`a\nb`"));
    }
}

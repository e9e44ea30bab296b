//! How a limit of the file counts, and what of it cannot be counted.

use std::time::Duration;

use crate::{
    config::{
        policy::limit::{Algorithm as Word, Cost, Limit},
        problem::{Path, Problem},
    },
    limit::{Algorithm, Terms, Unfit},
    units::{self, Rate},
};

/// Longest that a request waits for its turn, if the file does not say.
const MAX_DELAY: Duration = Duration::from_secs(1);

/// Where the quantities of a limit stand in the file.
pub struct Places {
    pub rate: Path,
    pub burst: Path,
}

/// How a limit counts at this rate. Without a burst a bucket takes at once what comes in the rate's time, a queue sends on one by one.
pub fn of(config: &Limit, rate: Rate, burst: Option<u32>, keys: Option<usize>) -> Terms {
    let (algorithm, usual) = match config.algorithm {
        Word::TokenBucket => (Algorithm::TokenBucket, rate.count()),
        Word::LeakyBucket => {
            (Algorithm::LeakyBucket { max_delay: config.max_delay.map_or(MAX_DELAY, units::Duration::as_std) }, 1)
        }
        Word::SlidingWindow => (Algorithm::SlidingWindow, rate.count()),
        Word::FixedWindow => (Algorithm::FixedWindow, rate.count()),
    };
    Terms { algorithm, rate, burst: burst.map_or(usual, u64::from), keys }
}

/// Settings that the algorithm does not have.
pub fn refuse_idle(config: &Limit, path: &Path, problems: &mut Vec<Problem>) {
    let word = config.algorithm.word();
    if config.burst.is_some() && matches!(config.algorithm, Word::SlidingWindow | Word::FixedWindow) {
        let problem = Problem::error(path.key("burst"), format!("a `{word}` has no burst: what `limit` says may come at once"));
        problems.push(problem.help("remove it, or use `token_bucket`"));
    }
    if config.max_delay.is_some() && config.algorithm != Word::LeakyBucket {
        let problem = Problem::error(path.key("max_delay"), format!("nothing waits with a `{word}`"));
        problems.push(problem.help("remove it, or use `leaky_bucket`"));
    }
}

/// A cost that no request could ever pay.
pub fn refuse_cost(config: &Limit, terms: &Terms, path: &Path) -> Option<Problem> {
    let Cost::Fixed(cost) = config.cost else { return None };
    // Some of a queue wait: they may be more than what is sent on at once.
    let delayed = match terms.algorithm {
        Algorithm::LeakyBucket { max_delay } => {
            max_delay.as_nanos() * u128::from(terms.rate.count()) / u128::from(terms.rate.nanos())
        }
        _ => 0,
    };
    let most = u128::from(terms.burst) + delayed;
    let message = || format!("a request that takes {cost} never passes: at most {most} may come at once");
    (u128::from(cost) > most).then(|| Problem::error(path.key("cost"), message()))
}

/// What cannot be counted exactly, with what could be.
pub fn refuse_unfit(terms: &Terms, places: &Places, path: &Path) -> Option<Problem> {
    let (rate, burst) = (places.rate.clone(), places.burst.clone());
    let days = |longest: Duration| format!("at most {} days can be counted", longest.as_secs() / 86_400);
    let (at, message) = match terms.fit().err()? {
        Unfit::Rate { most } => (rate, format!("at most {most} in {} can be counted so", terms.rate.per())),
        Unfit::Burst { most } => (burst, format!("at most {most} at once can be counted at this rate")),
        Unfit::Window { longest } => (rate, days(longest)),
        Unfit::Delay { longest } => (path.key("max_delay"), days(longest)),
        // Said of the burst itself.
        Unfit::NoBurst => return None,
    };
    Some(Problem::error(at, message))
}

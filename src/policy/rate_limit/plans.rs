//! Limits that are what the caller's plan says.

use crate::{
    caller::Caller,
    config::{
        Config,
        load::Loaded,
        policy::limit::{Limit, Part, Word},
        problem::{Path, Problem},
        suggest::suggest,
    },
    name::PlanName,
    policy::chain::Ground,
};

/// Whose plan decides, by the index of plans.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Choice {
    /// Nobody's: the limit has a rate of its own.
    Own,
    /// The caller's; this one for callers who have none.
    Plan { default: Option<usize> },
}

impl Choice {
    pub fn by_plan(default: Option<&PlanName>, config: &Config) -> Self {
        Self::Plan { default: default.and_then(|name| config.plans.keys().position(|plan| plan == name)) }
    }

    /// The place of what a caller may use. `None`: it has no plan.
    pub fn of(self, caller: &Caller) -> Option<usize> {
        match self {
            Self::Own => Some(0),
            Self::Plan { default } => {
                let plan = caller.consumer.as_ref().and_then(|consumer| consumer.plan.as_ref());
                plan.map(|plan| plan.index).or(default)
            }
        }
    }
}

/// What does not go with `limit: plan`.
pub fn refuse(config: &Limit, path: &Path, ground: &Ground<'_>, problems: &mut Vec<Problem>) {
    let loaded = ground.loaded;
    if loaded.config.plans.is_empty() && !loaded.may_declare("plans", "") {
        let problem = Problem::error(path.key("limit"), "there is no plan");
        problems.push(problem.help("declare it under `plans`, or write a rate such as `100/1m`"));
    }
    let tells_consumers = |part: &Part| matches!(part, Part::Word(Word::Consumer | Word::Credential));
    if !config.key.0.iter().any(tells_consumers) {
        let problem = Problem::error(
            path.key("key"),
            "with `limit: plan` each consumer counts for itself, and this key does not tell them apart",
        );
        problems.push(problem.also(path.key("limit"), "the plan of the consumer").help("count `consumer`, or a list with it"));
    }
    if config.burst.is_some() {
        problems.push(Problem::error(path.key("burst"), "with `limit: plan` the plan says how many may come at once"));
    }
    if let Some(name) = &config.default_plan
        && !loaded.may_declare("plans", name.as_str())
    {
        problems.push(unknown(loaded, name, &path.key("default_plan")));
    }
    problems.extend(without(config, path, loaded));
}

/// Consumers that would be refused whatever they ask.
fn without(config: &Limit, path: &Path, loaded: &Loaded) -> Option<Problem> {
    let mut without = loaded.config.consumers.iter().filter(|(_, consumer)| consumer.plan.is_none());
    let (name, _) = without.next().filter(|_| config.default_plan.is_none())?;
    let others = match without.count() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let message = format!("consumer `{name}`{others} without a plan will be refused here");
    Some(Problem::warning(path.key("limit"), message).help("give it a `plan`, or the limit a `default_plan`"))
}

/// A name that no plan has.
pub fn unknown(loaded: &Loaded, name: &PlanName, at: &Path) -> Problem {
    let problem = Problem::error(at.clone(), format!("there is no plan `{name}`"));
    match suggest(name.as_str(), loaded.declared("plans")) {
        Some(near) => problem.help(format!("did you mean `{near}`?")),
        None => problem.help("declare it under `plans`"),
    }
}

/// Consumers of plans that are not there, and plans of nobody.
pub fn problems(loaded: &Loaded) -> Vec<Problem> {
    let (consumers, plans) = (&loaded.config.consumers, &loaded.config.plans);
    let named = consumers.iter().filter_map(|(name, consumer)| Some((name, consumer.plan.as_ref()?)));
    let unknown = named
        .filter(|(_, plan)| !loaded.may_declare("plans", plan.as_str()))
        .map(|(name, plan)| unknown(loaded, plan, &Path::root().key("consumers").key(name.as_str()).key("plan")));
    let defaults: Vec<_> = limits(&loaded.config).filter_map(|limit| limit.default_plan.as_ref()).collect();
    let is_used =
        |name: &PlanName| defaults.contains(&name) || consumers.values().any(|consumer| consumer.plan.as_ref() == Some(name));
    let idle = plans.keys().filter(|name| !is_used(name)).map(|name| {
        Problem::warning(Path::root().key("plans").key(name.as_str()), "no consumer has this plan")
            .help("give it to a consumer, or remove it")
    });
    unknown.chain(idle).collect()
}

fn limits(config: &Config) -> impl Iterator<Item = &Limit> {
    let around = std::iter::once(&config.policies).chain(config.routes.values().map(|route| &route.policies));
    let on = around.filter_map(|policies| policies.rate_limit.or(&policies.rate_limit));
    on.flat_map(|limits| limits.0.values())
}

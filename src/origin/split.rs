//! One of several upstreams, drawn by weight for each request.

use std::sync::Arc;

use crate::{
    config::problem::{Path, Problem},
    upstream::Upstream,
};

/// Upstreams with their shares.
#[derive(Clone, Debug)]
pub struct Split {
    /// Each with the sum of the weights up to and with its own; those without weight are left out.
    shares: Box<[(u32, Arc<Upstream>)]>,
    total: u32,
}

impl Split {
    /// # Errors
    /// If no share has weight. `at` is the list's key.
    pub fn compile(shares: impl IntoIterator<Item = (Arc<Upstream>, u32)>, at: &Path) -> Result<Self, Problem> {
        let mut total = 0_u32;
        let mut known = 0_usize;
        let shares = shares.into_iter().inspect(|_| known += 1).filter(|(_, weight)| *weight > 0).map(|(upstream, weight)| {
            total = total.saturating_add(weight);
            (total, upstream)
        });
        let shares: Box<[_]> = shares.collect();
        match (known, total) {
            (0, _) => Err(Problem::error(at.clone(), "the split has no shares").help("name at least one upstream")),
            (_, 0) => {
                Err(Problem::error(at.clone(), "all weights are 0, so no upstream takes requests")
                    .help("give at least one a weight"))
            }
            _ => Ok(Self { shares, total }),
        }
    }

    /// Draws an upstream.
    pub fn draw(&self) -> &Arc<Upstream> {
        self.drawn(fastrand::u32(..self.total))
    }

    /// The upstreams that can be drawn.
    pub fn upstreams(&self) -> impl Iterator<Item = &Arc<Upstream>> {
        self.shares.iter().map(|(_, upstream)| upstream)
    }

    /// The upstream for a number below the total.
    fn drawn(&self, number: u32) -> &Arc<Upstream> {
        let position = self.shares.partition_point(|(up_to, _)| *up_to <= number);
        let (_, upstream) = self.shares.get(position).or(self.shares.last()).expect("compile refuses a split without shares");
        upstream
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::origin::example::upstream;

    fn check(weights: &[(&str, u32)], expected: &[&str]) {
        let shares = weights.iter().map(|(name, weight)| (upstream(name), *weight));
        let split = Split::compile(shares, &Path::root()).unwrap();
        let drawn: Vec<&str> = (0..split.total).map(|number| split.drawn(number).name().as_str()).collect();
        assert_eq!(drawn, expected);
        assert!(expected.contains(&split.draw().name().as_str()));
    }

    #[test]
    fn each_has_as_many_numbers_as_its_weight() {
        check(&[("a", 3), ("b", 0), ("c", 1)], &["a", "a", "a", "c"]);
        check(&[("a", 1)], &["a"]);
        check(&[("a", 0), ("b", 2)], &["b", "b"]);
    }

    #[test]
    fn no_weight_is_refused() {
        let refuse = |shares: Vec<(Arc<Upstream>, u32)>| Split::compile(shares, &Path::root()).unwrap_err().message;
        assert!(refuse(vec![]).contains("no shares"));
        assert!(refuse(vec![(upstream("a"), 0)]).contains("all weights are 0"));
    }
}

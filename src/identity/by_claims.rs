//! Consumers that are known by what their tokens say.

use std::{
    collections::HashMap,
    hash::{BuildHasher, Hash, Hasher},
    sync::Arc,
};

use serde_json::{Map, Value};

use crate::{caller::ClaimPath, caller::Consumer, config::consumer::ClaimValue};

/// The consumers of one identity. One probe for each set of claims that consumers are known by: there is seldom more than one.
#[derive(Debug, Default)]
pub struct ByClaims {
    /// Those of most claims first.
    shapes: Vec<Shape>,
    hasher: ahash::RandomState,
}

/// Consumers that are known by the same claims.
#[derive(Debug)]
struct Shape {
    names: Box<[Box<str>]>,
    claims: Box<[ClaimPath]>,
    /// By the hash of the claims' values, so that nothing is copied to look.
    consumers: HashMap<u64, Vec<Known>>,
}

#[derive(Debug)]
struct Known {
    values: Box<[ClaimValue]>,
    consumer: Arc<Consumer>,
}

impl ByClaims {
    /// Adds a consumer that has tokens with these claims, none of which another has.
    pub fn add<'c>(&mut self, claims: impl IntoIterator<Item = (&'c String, &'c ClaimValue)>, consumer: Arc<Consumer>) {
        let (names, values): (Vec<Box<str>>, Vec<ClaimValue>) =
            claims.into_iter().map(|(name, value)| (name.as_str().into(), value.clone())).unzip();
        let mut state = self.hasher.build_hasher();
        values.iter().for_each(|value| value.hash_as_json(&mut state));
        let known = Known { values: values.into(), consumer };
        self.shape(names.into()).consumers.entry(state.finish()).or_default().push(known);
    }

    fn shape(&mut self, names: Box<[Box<str>]>) -> &mut Shape {
        let at = self.shapes.iter().position(|shape| shape.names == names).unwrap_or_else(|| {
            let at = self.shapes.iter().take_while(|shape| shape.names.len() >= names.len()).count();
            let claims = names.iter().map(|name| ClaimPath::new(name)).collect();
            self.shapes.insert(at, Shape { names, claims, consumers: HashMap::new() });
            at
        });
        self.shapes.get_mut(at).expect("found or inserted above")
    }

    /// The consumer whose token says this.
    pub fn find(&self, claims: &Map<String, Value>) -> Option<&Arc<Consumer>> {
        self.shapes.iter().find_map(|shape| shape.find(claims, self.hasher.build_hasher()))
    }
}

impl Shape {
    fn find(&self, claims: &Map<String, Value>, mut state: impl Hasher) -> Option<&Arc<Consumer>> {
        for claim in &self.claims {
            hash(claim.find(claims)?, &mut state)?;
        }
        let known = self.consumers.get(&state.finish())?.iter();
        let says = |known: &&Known| {
            let both = self.claims.iter().zip(&known.values);
            both.into_iter().all(|(claim, value)| claim.find(claims).is_some_and(|said| value.is(said)))
        };
        known.into_iter().find(says).map(|known| &known.consumer)
    }
}

impl ClaimValue {
    fn is(&self, said: &Value) -> bool {
        match self {
            Self::Bool(value) => said.as_bool() == Some(*value),
            Self::Number(value) => said.as_i64() == Some(*value),
            Self::Text(value) => said.as_str() == Some(value),
        }
    }

    /// As [`hash`] does it of the same value.
    fn hash_as_json(&self, state: &mut impl Hasher) {
        match self {
            Self::Bool(value) => (0_u8, value).hash(state),
            Self::Number(value) => (1_u8, value).hash(state),
            Self::Text(value) => (2_u8, value.as_str()).hash(state),
        }
    }
}

/// `None`: no consumer is known by such a value.
fn hash(value: &Value, state: &mut impl Hasher) -> Option<()> {
    match value {
        Value::Bool(value) => (0_u8, value).hash(state),
        Value::Number(value) => (1_u8, value.as_i64()?).hash(state),
        Value::String(value) => (2_u8, value.as_str()).hash(state),
        _ => return None,
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::*;
    use crate::name::ConsumerName;

    fn table(consumers: &[(&str, &[(&str, ClaimValue)])]) -> ByClaims {
        let mut table = ByClaims::default();
        for (name, claims) in consumers {
            let claims: BTreeMap<String, ClaimValue> =
                claims.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
            table
                .add(&claims, Arc::new(Consumer { name: ConsumerName::new(name), index: 0, groups: Arc::default(), plan: None }));
        }
        table
    }

    fn text(text: &str) -> ClaimValue {
        ClaimValue::Text(text.to_owned())
    }

    #[test]
    fn a_token_is_of_the_consumer_that_most_of_its_claims_name() {
        let table = table(&[
            ("acme", &[("azp", text("acme"))]),
            ("other", &[("azp", text("other"))]),
            ("acme-gold", &[("azp", text("acme")), ("plan.tier", ClaimValue::Number(2))]),
            ("robots", &[("robot", ClaimValue::Bool(true))]),
        ]);
        let check = |claims: Value, expected: Option<&str>| {
            let found = table.find(claims.as_object().unwrap()).map(|consumer| consumer.name.as_str());
            assert_eq!(found, expected, "{claims}");
        };
        check(json!({ "azp": "acme", "sub": "x" }), Some("acme"));
        check(json!({ "azp": "acme", "plan": { "tier": 2 } }), Some("acme-gold"));
        check(json!({ "azp": "acme", "plan": { "tier": "2" } }), Some("acme"));
        check(json!({ "azp": "other", "robot": true }), Some("other"));
        check(json!({ "robot": true }), Some("robots"));
        for nobody in
            [json!({}), json!({ "azp": "ACME" }), json!({ "azp": ["acme"] }), json!({ "azp": null }), json!({ "robot": "true" })]
        {
            check(nobody, None);
        }
    }
}

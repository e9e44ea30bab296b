//! Where in a token's claims something stands.

use serde_json::{Map, Value};

/// The way to a claim: `sub`, `realm_access.roles`. A claim of exactly this name goes first, so that names with points in them can be
/// written, such as `https://shop.example/roles`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClaimPath {
    whole: Box<str>,
    steps: Box<[Box<str>]>,
}

impl ClaimPath {
    pub fn new(path: &str) -> Self {
        Self { whole: path.into(), steps: path.split('.').map(Box::from).collect() }
    }

    pub fn find<'c>(&self, claims: &'c Map<String, Value>) -> Option<&'c Value> {
        claims.get(&*self.whole).or_else(|| {
            let (first, rest) = self.steps.split_first()?;
            rest.iter().try_fold(claims.get(&**first)?, |value, step| value.as_object()?.get(&**step))
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_claim_is_found_by_its_name_or_its_way() {
        let claims = json!({ "sub": "ada", "realm": { "roles": ["clerk"] }, "https://shop.example/tier": 2, "realm.id": 7 });
        let check = |path: &str, expected: Value| {
            let found = ClaimPath::new(path).find(claims.as_object().unwrap()).cloned();
            assert_eq!(found.unwrap_or_default(), expected, "{path}");
        };
        check("sub", json!("ada"));
        check("realm.roles", json!(["clerk"]));
        check("https://shop.example/tier", json!(2));
        check("realm.id", json!(7));
        for path in ["", ".", "realm.none", "sub.none", "realm.roles.0"] {
            check(path, Value::Null);
        }
    }
}

//! The JSON Schema of the language, for editors and for the reference.

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value as Json, json};

use super::Config;

/// What the schema calls itself. It need not be found there.
const ID: &str = "urn:banyan:configuration";

/// What may stand in the place of any value that is not a map or a list.
const PLACEHOLDER: &str = r"^\$\{(env|file):[^}]+\}$";

/// The schema of a configuration file: it takes what the loader takes, as far as a schema can say it.
pub fn schema() -> Json {
    let mut schema = language();
    allow_placeholders(&mut schema);
    if let Some(types) = schema.get_mut("$defs").and_then(Json::as_object_mut) {
        let description = "A value that stands elsewhere: in a variable of the environment, or in a file.";
        types.insert("Placeholder".to_owned(), json!({ "type": "string", "pattern": PLACEHOLDER, "description": description }));
    }
    schema
}

/// The schema of the language without placeholders.
pub(super) fn language() -> Json {
    let mut schema = SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<Config>();
    schema.insert("$id".to_owned(), ID.into());
    schema.insert("title".to_owned(), "Configuration of Banyan".into());
    let mut schema = schema.to_value();
    without_null(&mut schema);
    schema
}

/// Takes out the null that an optional field gets: an absent key is not a key without a value. Formats that only Rust knows go too.
fn without_null(schema: &mut Json) {
    match schema {
        Json::Array(items) => items.iter_mut().for_each(without_null),
        Json::Object(object) => {
            object.values_mut().for_each(without_null);
            if object.get("format").is_some_and(Json::is_string) {
                object.remove("format");
            }
            if let Some(Json::Array(types)) = object.get("type").cloned() {
                let named = types.into_iter().find(|name| name != "null").unwrap_or_default();
                object.insert("type".to_owned(), named);
            }
            let choices = object.get_mut("anyOf").and_then(Json::as_array_mut);
            if let Some([Json::Object(_)]) = choices.map(|choices| {
                choices.retain(|choice| *choice != json!({ "type": "null" }));
                choices.as_slice()
            }) {
                unwrap_only_choice(object);
            }
        }
        _ => {}
    }
}

fn unwrap_only_choice(object: &mut Map<String, Json>) {
    if let Some(Json::Array(choices)) = object.remove("anyOf") {
        let keys = choices.into_iter().filter_map(|choice| if let Json::Object(keys) = choice { Some(keys) } else { None });
        object.extend(keys.flatten());
    }
}

/// Lets a placeholder stand for every scalar that a plain text does not match.
fn allow_placeholders(schema: &mut Json) {
    match schema {
        Json::Array(items) => items.iter_mut().for_each(allow_placeholders),
        Json::Object(object) if is_scalar(object) => {
            let around: Map<String, Json> =
                ["description", "default"].into_iter().filter_map(|key| object.remove_entry(key)).collect();
            let scalar = std::mem::take(object);
            *object = around;
            object.insert("anyOf".to_owned(), json!([scalar, { "$ref": "#/$defs/Placeholder" }]));
        }
        Json::Object(object) => object.values_mut().for_each(allow_placeholders),
        _ => {}
    }
}

fn is_scalar(object: &Map<String, Json>) -> bool {
    let kind = object.get("type").and_then(Json::as_str);
    matches!(kind, Some("integer" | "number" | "boolean"))
        || ["pattern", "enum", "oneOf"].iter().any(|key| object.contains_key(*key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_may_be_null() {
        assert!(!schema().to_string().contains("null"));
    }

    #[test]
    fn a_placeholder_may_stand_for_a_number() {
        let schema = schema();
        let weight = &schema["$defs"]["Share"]["properties"]["weight"]["anyOf"];
        assert_eq!(weight[0]["maximum"], 1000);
        assert_eq!(weight[1]["$ref"], "#/$defs/Placeholder");
    }
}

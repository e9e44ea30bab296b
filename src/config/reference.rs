//! The reference of every key, written from the schema so that it cannot drift from it.

use std::fmt::Write as _;

use serde_json::{Map, Value as Json};

use super::schema;

/// The sections in the order in which a newcomer should read them.
const SECTIONS: [&str; 14] = [
    "listeners",
    "upstreams",
    "routes",
    "policies",
    "identity",
    "plans",
    "consumers",
    "overload",
    "stores",
    "admin",
    "observe",
    "trusted_proxies",
    "paths",
    "process",
];

/// Type names whose whole story is told in the introduction, and what they are called.
const QUANTITIES: [(&str, &str); 3] =
    [("Duration", "[duration](#units)"), ("Bytes", "[size](#units)"), ("Percent", "[share](#units)")];

/// The generated part of `docs/configuration.md`.
pub fn reference() -> String {
    let language = schema::language();
    let mut writer = Writer { language: &language, text: String::new(), told: Vec::new() };
    writer.sections();
    writer.text
}

struct Writer<'s> {
    language: &'s Json,
    text: String,
    /// Types that have their table, or get it, with its heading.
    told: Vec<(&'s str, String)>,
}

/// A map's type and where it stands.
struct Body<'s> {
    name: &'s str,
    heading: String,
}

impl<'s> Writer<'s> {
    fn sections(&mut self) {
        let language = self.language;
        self.told.push(("Policies", "policies".to_owned()));
        for name in SECTIONS {
            let Some(section) = language.get("properties").and_then(|sections| sections.get(name)) else { continue };
            _ = writeln!(self.text, "\n## `{name}`\n\n{}", description(section));
            if name == "policies" {
                self.told.clear();
            }
            let mut bodies = Vec::new();
            self.bodies(section, name.to_owned(), &mut bodies);
            if bodies.is_empty() {
                _ = writeln!(self.text, "\nType: {}. Default: {}.", self.kind(section), default(section));
            }
            for body in bodies {
                if self.claim(&body) {
                    self.body(&body, name, &description(section));
                }
            }
        }
    }

    /// Whether a type has no table yet: it gets one under the heading where it is named first, to which all link.
    fn claim(&mut self, body: &Body<'s>) -> bool {
        let is_free = self.told.iter().all(|(name, _)| *name != body.name);
        if is_free {
            self.told.push((body.name, body.heading.clone()));
        }
        is_free
    }

    /// The table of a map's keys, and of the maps in it.
    fn body(&mut self, body: &Body<'s>, section: &str, above: &str) {
        let Some(object) = self.named(body.name) else { return };
        if body.heading != section {
            _ = writeln!(self.text, "\n### `{}`", body.heading);
        }
        let said = description(object);
        if !said.is_empty() && said != above {
            _ = writeln!(self.text, "\n{said}");
        }
        if object.get("maxProperties").is_some() {
            self.text.push_str("\nExactly one of these keys:\n");
        }
        let mut inner = Vec::new();
        self.text.push_str("\n| key | type | default | |\n|---|---|---|---|\n");
        for (key, property) in keys(object) {
            let path = format!("{}.{key}", body.heading);
            let mut found = Vec::new();
            self.bodies(property, path.clone(), &mut found);
            inner.extend(found.into_iter().filter(|body| self.claim(body)));
            let type_ = self.linked(property, &path);
            let default = if is_required(object, key) { "required".to_owned() } else { default(property) };
            _ = writeln!(self.text, "| `{key}` | {type_} | {default} | {} |", self.explanation(property));
        }
        for body in inner {
            self.body(&body, section, "");
        }
    }

    /// The maps with keys of their own that a value may be or hold.
    fn bodies(&self, schema: &'s Json, heading: String, found: &mut Vec<Body<'s>>) {
        if let Some(name) = reference_name(schema) {
            let Some(object) = self.named(name) else { return };
            if object.get("properties").is_some() {
                found.push(Body { name, heading });
            } else {
                self.bodies(object, heading, found);
            }
            return;
        }
        for choice in schema.get("anyOf").and_then(Json::as_array).into_iter().flatten() {
            self.bodies(choice, heading.clone(), found);
        }
        if let Some(items) = schema.get("items") {
            self.bodies(items, format!("{heading}[]"), found);
        }
        for value in values(schema) {
            self.bodies(value, format!("{heading}.<name>"), found);
        }
    }

    /// The type in words, with a link to the table of its keys if it has some.
    fn linked(&self, schema: &'s Json, heading: &str) -> String {
        let mut bodies = Vec::new();
        self.bodies(schema, heading.to_owned(), &mut bodies);
        let kind = self.kind(schema);
        let (Some(body), Some(at)) = (bodies.first(), kind.rfind("map")) else { return kind };
        let told = self.told.iter().find(|(name, _)| *name == body.name);
        let link = format!("[map](#{})", anchor(told.map_or(&body.heading, |(_, heading)| heading)));
        let (before, after) = (kind.get(..at).unwrap_or_default(), kind.get(at + "map".len()..).unwrap_or_default());
        format!("{before}{link}{after}")
    }

    /// What a key is for, with what its words mean.
    fn explanation(&self, property: &'s Json) -> String {
        let mut text = description(property);
        if let Some(default) = property.get("default").map(bare) {
            text = text.replace(&format!(" Default {default}."), "").replace(&format!(" Default `{default}`."), "");
        }
        let words = reference_name(property).and_then(|name| self.named(name)?.get("oneOf")?.as_array());
        for word in words.into_iter().flatten() {
            if let Some(name) = word.get("const").map(bare) {
                text.push_str(&format!(" `{name}`: {}", description(word)));
            }
        }
        text.replace('|', "\\|")
    }

    fn kind(&self, schema: &'s Json) -> String {
        if let Some(name) = reference_name(schema) {
            if let Some((_, called)) = QUANTITIES.iter().find(|(quantity, _)| *quantity == name) {
                return (*called).to_owned();
            }
            return match name {
                "UpstreamName" => "name of an upstream".to_owned(),
                "IdentityName" => "name of an identity".to_owned(),
                "Secret" => "secret text".to_owned(),
                _ => self.named(name).map_or_else(String::new, |object| self.kind(object)),
            };
        }
        if let Some(words) = words(schema) {
            return words;
        }
        if let Some(choices) = schema.get("anyOf").and_then(Json::as_array) {
            return choices.iter().map(|choice| self.kind(choice)).collect::<Vec<_>>().join(" or ");
        }
        match schema.get("type").and_then(Json::as_str) {
            Some("string") => "text".to_owned(),
            Some("boolean") => "`true` or `false`".to_owned(),
            Some("integer" | "number") => range(schema),
            Some("array") => schema.get("items").map_or_else(String::new, |items| format!("list of {}", self.kind(items))),
            _ => values(schema).next().map_or_else(|| "map".to_owned(), |value| format!("map from name to {}", self.kind(value))),
        }
    }

    fn named(&self, name: &str) -> Option<&'s Json> {
        self.language.get("$defs")?.get(name)
    }
}

fn reference_name(schema: &Json) -> Option<&str> {
    schema.get("$ref")?.as_str()?.strip_prefix("#/$defs/")
}

/// The keys of a map, those that must be there first.
fn keys(object: &Json) -> Vec<(&str, &Json)> {
    let keys = object.get("properties").and_then(Json::as_object).into_iter().flatten();
    let mut keys: Vec<(&str, &Json)> = keys.map(|(key, property)| (key.as_str(), property)).collect();
    keys.sort_by_key(|(key, _)| !is_required(object, key));
    keys
}

fn is_required(object: &Json, key: &str) -> bool {
    object.get("required").and_then(Json::as_array).is_some_and(|required| required.iter().any(|name| name == key))
}

/// What stands behind the names of a map by name.
fn values(schema: &Json) -> impl Iterator<Item = &Json> {
    let patterns = schema.get("patternProperties").and_then(Json::as_object).into_iter().flat_map(Map::values);
    patterns.chain(schema.get("additionalProperties").filter(|value| value.is_object()))
}

/// The words of an enum.
fn words(schema: &Json) -> Option<String> {
    let listed = schema.get("enum").and_then(Json::as_array).map(|words| words.iter().collect::<Vec<_>>());
    let told = || Some(schema.get("oneOf")?.as_array()?.iter().filter_map(|choice| choice.get("const")).collect::<Vec<_>>());
    let words: Vec<String> = listed.or_else(told)?.into_iter().map(|word| format!("`{}`", bare(word))).collect();
    Some(words.join(", "))
}

fn range(schema: &Json) -> String {
    match (schema.get("minimum"), schema.get("maximum")) {
        (Some(min), Some(max)) => format!("number from {min} to {max}"),
        (Some(min), None) => format!("number from {min}"),
        _ => "number".to_owned(),
    }
}

/// The default; of a map none, as its keys have their own.
fn default(property: &Json) -> String {
    match property.get("default") {
        None | Some(Json::Object(_)) => String::new(),
        Some(Json::Array(items)) if items.is_empty() => "none".to_owned(),
        Some(Json::Array(items)) => items.iter().map(|item| format!("`{}`", bare(item))).collect::<Vec<_>>().join(", "),
        Some(Json::String(text)) if text.is_empty() => "empty".to_owned(),
        Some(value) => format!("`{}`", bare(value)),
    }
}

fn bare(value: &Json) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// The words that the source has for it, on one line.
fn description(schema: &Json) -> String {
    schema.get("description").and_then(Json::as_str).unwrap_or_default().replace('\n', " ")
}

/// The anchor that a heading gets in the rendered page.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | ' '));
    kept.map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_section_has_its_part() {
        let language = schema::language();
        let mut written = SECTIONS;
        written.sort_unstable();
        let known: Vec<&str> = language["properties"].as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(known, written);
    }

    #[test]
    fn every_link_leads_to_a_heading() {
        let text = reference();
        let headings: Vec<String> =
            text.lines().filter(|line| line.starts_with('#')).map(|line| anchor(line.trim_matches(['#', ' ']))).collect();
        let links = text.split("[map](#").skip(1).filter_map(|rest| rest.split_once(')')).map(|(link, _)| link.to_owned());
        let dead: Vec<String> = links.filter(|link| !headings.contains(link)).collect();
        assert_eq!(dead, [""; 0]);
    }

    #[test]
    fn every_key_has_a_description() {
        let language = schema::language();
        for (name, object) in language["$defs"].as_object().unwrap() {
            for (key, property) in keys(object) {
                assert!(!description(property).is_empty(), "{name}.{key}");
            }
        }
    }
}

//! The values that an expression names, borrowed from the request where they can be.

use std::{borrow::Cow, collections::HashMap};

use cel::{
    Context, ExecutionError,
    common::{
        types::{CelBool, CelDouble, CelInt, CelList, CelMap, CelMapKey, CelNull, CelString, CelUInt},
        value::Val,
    },
};
use http::{HeaderMap, HeaderName};
use serde_json::{Map, Value as Json};

use super::{
    ELEMENTS_MAX, Failed, Scene,
    check::{Keys, Names},
};

type Entries<'v> = HashMap<CelMapKey<'v>, Box<dyn Val + 'v>>;

/// Gives the context what the expression names.
///
/// # Errors
/// Something that it names cannot be given.
pub fn bind<'v>(context: &mut Context<'_, 'v>, names: &Names, scene: &Scene<'v>) -> Result<(), Failed> {
    let texts = [
        (names.method, "request.method", scene.method),
        (names.path, "request.path", scene.path),
        (names.host, "request.host", scene.host),
        (names.consumer, "consumer.name", scene.consumer),
    ];
    for (_, name, value) in texts.into_iter().filter(|(named, ..)| *named) {
        context.add_variable_as_val(name, text(value));
    }
    if names.client_ip {
        context.add_variable_as_val("request.client_ip", text(scene.client.to_string()));
    }
    if !names.query.is_empty() {
        context.add_variable_as_val("request.query", map(query(&names.query, scene.query.unwrap_or_default())?));
    }
    if !names.headers.is_empty() {
        context.add_variable_as_val("request.headers", map(headers(&names.headers, scene.headers)?));
    }
    if names.groups {
        bounded("consumer.groups", scene.groups.len())?;
        let groups: Vec<Box<dyn Val + 'v>> = scene.groups.iter().map(|group| text(group.as_str())).collect();
        context.add_variable_as_val("consumer.groups", Box::new(CelList::from(groups)));
    }
    if !names.claims.is_empty() {
        context.add_variable_as_val("claims", map(claims(&names.claims, scene.claims)?));
    }
    Ok(())
}

fn text<'v>(text: impl Into<Cow<'v, str>>) -> Box<dyn Val + 'v> {
    match text.into() {
        Cow::Borrowed(text) => Box::new(CelString::from(text)),
        Cow::Owned(text) => Box::new(CelString::from(text)),
    }
}

fn map<'v>(entries: Entries<'v>) -> Box<dyn Val + 'v> {
    Box::new(CelMap::from(entries))
}

fn key<'v>(name: impl Into<Cow<'v, str>>) -> CelMapKey<'v> {
    CelMapKey::String(match name.into() {
        Cow::Borrowed(name) => CelString::from(name),
        Cow::Owned(name) => CelString::from(name),
    })
}

fn bounded(name: &'static str, elements: usize) -> Result<(), Failed> {
    if elements > ELEMENTS_MAX { Err(Failed::TooLong(name)) } else { Ok(()) }
}

/// Query keys and values, decoded. Of a key without a value the value is empty.
fn query<'v>(keys: &Keys, query: &'v str) -> Result<Entries<'v>, Failed> {
    let mut entries = Entries::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let name = decoded(name)?;
        if matches!(keys, Keys::These(keys) if !keys.contains(&*name)) {
            continue;
        }
        if entries.insert(key(name), text(decoded(value)?)).is_some() {
            return Err(Failed::Twice);
        }
        bounded("request.query", entries.len())?;
    }
    Ok(entries)
}

/// Text as forms encode it: `+` is a space, `%XX` a byte; a `%` that encodes nothing stands for itself.
fn decoded(text: &str) -> Result<Cow<'_, str>, Failed> {
    if !text.bytes().any(|b| b == b'+' || b == b'%') {
        return Ok(text.into());
    }
    let hex = |digit: u8| char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
    let (mut rest, mut out) = (text.as_bytes(), Vec::with_capacity(text.len()));
    while let [byte, tail @ ..] = rest {
        rest = tail;
        let encoded = match (byte, tail) {
            (b'%', [high, low, after @ ..]) => hex(*high).zip(hex(*low)).map(|(high, low)| (high << 4 | low, after)),
            _ => None,
        };
        match encoded {
            Some((byte, after)) => {
                out.push(byte);
                rest = after;
            }
            None => out.push(if *byte == b'+' { b' ' } else { *byte }),
        }
    }
    String::from_utf8(out).map(Cow::Owned).map_err(|_| Failed::NotText("request.query"))
}

/// Header fields by their names in lower case, several lines joined by a comma.
fn headers<'v>(keys: &Keys, headers: &'v HeaderMap) -> Result<Entries<'v>, Failed> {
    let mut entries = Entries::new();
    bounded("request.headers", headers.keys_len())?;
    match keys {
        Keys::All => {
            for name in headers.keys() {
                entries.extend(joined(headers, name)?.map(|value| (key(name.as_str()), value)));
            }
        }
        Keys::These(names) => {
            for name in names.iter().filter_map(|name| HeaderName::from_bytes(name.as_bytes()).ok()) {
                entries.extend(joined(headers, &name)?.map(|value| (key(name.as_str().to_owned()), value)));
            }
        }
    }
    Ok(entries)
}

fn joined<'v>(headers: &'v HeaderMap, name: &HeaderName) -> Result<Option<Box<dyn Val + 'v>>, Failed> {
    let mut lines = headers.get_all(name).iter().map(|line| std::str::from_utf8(line.as_bytes()));
    let Some(first) = lines.next() else { return Ok(None) };
    let mut all = Cow::Borrowed(first.map_err(|_| Failed::NotText("request.headers"))?);
    for line in lines {
        all = Cow::Owned(format!("{all}, {}", line.map_err(|_| Failed::NotText("request.headers"))?));
    }
    Ok(Some(text(all)))
}

fn claims<'v>(keys: &Keys, claims: Option<&'v Map<String, Json>>) -> Result<Entries<'v>, Failed> {
    let mut entries = Entries::new();
    let Some(claims) = claims else { return Ok(entries) };
    match keys {
        Keys::All => return object(claims),
        Keys::These(names) => {
            for (name, value) in names.iter().filter_map(|name| claims.get_key_value(name)) {
                entries.insert(key(name.as_str()), json(value)?);
            }
        }
    }
    Ok(entries)
}

fn object<'v>(object: &'v Map<String, Json>) -> Result<Entries<'v>, Failed> {
    bounded("claims", object.len())?;
    object.iter().map(|(name, value)| Ok((key(name.as_str()), json(value)?))).collect()
}

/// A claim. Its depth is bounded by the reader of JSON, 128.
fn json<'v>(value: &'v Json) -> Result<Box<dyn Val + 'v>, Failed> {
    Ok(match value {
        Json::Null => Box::new(CelNull),
        Json::Bool(bool) => Box::new(CelBool::from(*bool)),
        Json::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(int), _) => Box::new(CelInt::from(int)),
            (None, Some(uint)) => Box::new(CelUInt::from(uint)),
            (None, None) => Box::new(CelDouble::from(number.as_f64().unwrap_or(f64::NAN))),
        },
        Json::String(string) => text(string.as_str()),
        Json::Array(elements) => {
            bounded("claims", elements.len())?;
            let elements: Result<Vec<_>, Failed> = elements.iter().map(json).collect();
            Box::new(CelList::from(elements?))
        }
        Json::Object(fields) => map(object(fields)?),
    })
}

/// What is said of an error in logs: never a value of the request, which may be a secret.
pub fn told(error: &ExecutionError) -> String {
    match error {
        ExecutionError::NoSuchKey(name) => format!("there is no `{name}`"),
        ExecutionError::NoSuchOverload(misfit) => format!("types do not fit: {misfit}"),
        ExecutionError::UnexpectedType { got, want } => format!("{got} where {want} is due"),
        ExecutionError::IndexOutOfBounds(_) => "a list has no such element".to_owned(),
        ExecutionError::DivisionByZero(_) | ExecutionError::RemainderByZero(_) => "division by zero".to_owned(),
        ExecutionError::Overflow(..) => "a number is too large".to_owned(),
        _ => "types do not fit".to_owned(),
    }
}

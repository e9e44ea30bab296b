//! One member of `Signature-Input`: what a signature covers, and its parameters (RFC 9421 §2.3).

use sfv::{BareItem, InnerList, ListEntry};

use super::{Refusal, component::Component};

/// Most components that one signature may cover.
const COMPONENTS_MAX: usize = 64;

/// Longest `nonce`, `keyid` or `tag`, in bytes.
const TEXT_MAX: usize = 512;

/// What one signature says of itself.
#[derive(Debug)]
pub struct Input<'a> {
    /// As it came, in its order: the signature covers it in its canonical form.
    pub list: &'a InnerList,
    /// The components of `list`, understood.
    pub components: Vec<Component>,
    /// Seconds of Unix time.
    pub created: Option<u64>,
    pub expires: Option<u64>,
    pub nonce: Option<&'a str>,
    pub algorithm: Option<&'a str>,
    pub key_id: Option<&'a str>,
    pub tag: Option<&'a str>,
}

impl<'a> Input<'a> {
    /// # Errors
    /// It covers something twice or something unknown, or a parameter is of the wrong type.
    pub fn read(entry: &'a ListEntry) -> Result<Self, Refusal> {
        let ListEntry::InnerList(list) = entry else { return Err(Refusal::Malformed("no list of components")) };
        if list.items.len() > COMPONENTS_MAX {
            return Err(Refusal::Malformed("too many components"));
        }
        Ok(Self {
            list,
            components: components(list)?,
            created: seconds(list, "created")?,
            expires: seconds(list, "expires")?,
            nonce: text(list, "nonce")?,
            algorithm: text(list, "alg")?,
            key_id: text(list, "keyid")?,
            tag: text(list, "tag")?,
        })
    }
}

fn components(list: &InnerList) -> Result<Vec<Component>, Refusal> {
    let mut components = Vec::with_capacity(list.items.len());
    for item in &list.items {
        let component = Component::of(item)?;
        if components.contains(&component) {
            return Err(Refusal::Component("one component twice"));
        }
        components.push(component);
    }
    Ok(components)
}

fn seconds(list: &InnerList, name: &'static str) -> Result<Option<u64>, Refusal> {
    match list.params.get(name) {
        None => Ok(None),
        Some(BareItem::Integer(seconds)) => {
            u64::try_from(i64::from(*seconds)).map(Some).map_err(|_| Refusal::Malformed("a time before 1970"))
        }
        Some(_) => Err(Refusal::Malformed("a time that is no integer")),
    }
}

fn text<'a>(list: &'a InnerList, name: &'static str) -> Result<Option<&'a str>, Refusal> {
    match list.params.get(name) {
        None => Ok(None),
        Some(BareItem::String(text)) if text.as_str().len() <= TEXT_MAX => Ok(Some(text.as_str())),
        Some(_) => Err(Refusal::Malformed("a parameter that is no short text")),
    }
}

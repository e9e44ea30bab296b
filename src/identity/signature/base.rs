//! The signature base: the text that is signed (RFC 9421 §2.5).

use sfv::{FieldType, ListSerializer};

use super::{Message, Refusal, input::Input};

/// # Errors
/// A component that the request does not have, or that is not to be read in one way only.
pub fn of(input: &Input<'_>, message: &Message<'_>) -> Result<String, Refusal> {
    let mut base = String::with_capacity(512);
    for (item, component) in input.list.items.iter().zip(&input.components) {
        let value = component.value(message)?;
        // A line break would be a line of the base that nobody covered.
        if !value.bytes().all(|b| b == b'\t' || (b' '..=b'~').contains(&b)) {
            return Err(Refusal::Component("a value that is not ASCII text"));
        }
        base.push_str(&item.serialize());
        base.push_str(": ");
        base.push_str(&value);
        base.push('\n');
    }
    base.push_str("\"@signature-params\": ");
    base.push_str(&params(input));
    Ok(base)
}

/// What was covered and how, in its canonical form.
fn params(input: &Input<'_>) -> String {
    let mut list = ListSerializer::new();
    let mut inner = list.inner_list();
    inner.items(&input.list.items);
    let _ = inner.finish().parameters(&input.list.params);
    list.finish().unwrap_or_default()
}

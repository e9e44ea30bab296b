//! What a scalar without quotes means, by the core rules of YAML 1.2.

/// A scalar as a value.
#[derive(Debug, PartialEq)]
pub enum Meaning<'t> {
    Nothing,
    Bool(bool),
    Whole(i128),
    Decimal(f64),
    Text(&'t str),
}

/// The meaning of a plain scalar. Whole numbers beyond 64 bits are text, as no key takes them; so are numbers with a leading zero,
/// which others read as octal.
pub fn meaning(text: &str) -> Meaning<'_> {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Meaning::Nothing,
        "true" | "True" | "TRUE" => Meaning::Bool(true),
        "false" | "False" | "FALSE" => Meaning::Bool(false),
        ".nan" | ".NaN" | ".NAN" => Meaning::Decimal(f64::NAN),
        _ => whole(text).map(Meaning::Whole).or_else(|| decimal(text).map(Meaning::Decimal)).unwrap_or(Meaning::Text(text)),
    }
}

/// Whether a plain scalar is text and nothing else.
pub fn is_text(text: &str) -> bool {
    matches!(meaning(text), Meaning::Text(_))
}

fn whole(text: &str) -> Option<i128> {
    let (negative, digits) = sign(text);
    let number = match digits.get(..2) {
        Some("0x") => radix(digits, 16)?,
        Some("0o") => radix(digits, 8)?,
        Some(start) if start.starts_with('0') => return None,
        _ if digits.bytes().all(|b| b.is_ascii_digit()) => digits.parse().ok()?,
        _ => return None,
    };
    let number = if negative { -i128::from(number) } else { i128::from(number) };
    (number >= i128::from(i64::MIN)).then_some(number)
}

fn radix(digits: &str, radix: u32) -> Option<u64> {
    let digits = digits.get(2..).filter(|digits| !digits.starts_with(['+', '-']))?;
    u64::from_str_radix(digits, radix).ok()
}

fn decimal(text: &str) -> Option<f64> {
    let (negative, rest) = sign(text);
    let value = match rest {
        ".inf" | ".Inf" | ".INF" => f64::INFINITY,
        _ if is_decimal(rest) => rest.parse().ok()?,
        _ => return None,
    };
    Some(if negative { -value } else { value })
}

/// `1.5`, `.5`, `1.`, `1e3`: digits with a point or an exponent, without a leading zero before other digits.
fn is_decimal(text: &str) -> bool {
    let (number, exponent) = text.split_once(['e', 'E']).map_or((text, None), |(number, exponent)| (number, Some(exponent)));
    let (before, after) = number.split_once('.').unwrap_or((number, ""));
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    let leading = before.len() > 1 && before.starts_with('0');
    let marked = number.contains('.') || exponent.is_some();
    let exponent = exponent.is_none_or(|exponent| !sign(exponent).1.is_empty() && digits(sign(exponent).1));
    marked && !leading && digits(before) && digits(after) && before.len() + after.len() > 0 && exponent
}

fn sign(text: &str) -> (bool, &str) {
    match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_scalars_have_the_meaning_of_the_core_rules() {
        for (text, expected) in [
            ("", Meaning::Nothing),
            ("~", Meaning::Nothing),
            ("True", Meaning::Bool(true)),
            ("5", Meaning::Whole(5)),
            ("-5", Meaning::Whole(-5)),
            ("+5", Meaning::Whole(5)),
            ("0", Meaning::Whole(0)),
            ("0x1F", Meaning::Whole(31)),
            ("0o17", Meaning::Whole(15)),
            ("18446744073709551615", Meaning::Whole(u64::MAX.into())),
            ("1.5", Meaning::Decimal(1.5)),
            (".5", Meaning::Decimal(0.5)),
            ("1e3", Meaning::Decimal(1000.0)),
            ("-.inf", Meaning::Decimal(f64::NEG_INFINITY)),
        ] {
            assert_eq!(meaning(text), expected, "{text}");
        }
    }

    #[test]
    fn everything_else_is_text() {
        for text in [
            "yes", "off", "012", "0755", "1s", "-", "+", ".", "e5", "1e", "1_000", "0x", "0x-1", "1.2.3", "--1", "010.5", "inf",
            "nan",
        ] {
            assert!(is_text(text), "{text}");
        }
    }
}

//! Lists of keys and words in a sentence.

/// "one of `a`, `b`".
pub fn one_of(words: &[&str]) -> String {
    match words {
        [only] => format!("`{only}`"),
        _ => format!("one of {}", list(words.iter().copied())),
    }
}

/// "`a`, `b`".
pub fn list<'a>(words: impl Iterator<Item = &'a str>) -> String {
    words.map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}

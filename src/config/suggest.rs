//! Did you mean: the known name that a wrong one was probably meant to be.

/// How alike two names must be, from 0 (nothing) to 1 (equal). Below this a suggestion confuses more than it helps.
const LIKENESS_MIN: f64 = 0.75;

/// Longest name that is compared, in bytes; the comparison is quadratic.
const COMPARED_MAX: usize = 128;

/// The known name most like the wrong one, if any is like enough.
pub fn suggest<'a>(wrong: &str, known: impl Iterator<Item = &'a str>) -> Option<String> {
    if wrong.len() > COMPARED_MAX {
        return None;
    }
    let wrong = wrong.to_lowercase();
    known
        .filter(|name| name.len() <= COMPARED_MAX && !is_sibling(&wrong, &name.to_lowercase()))
        .map(|name| (likeness(&wrong, &name.to_lowercase()), name))
        .filter(|(likeness, _)| *likeness >= LIKENESS_MIN)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, name)| name.to_owned())
}

/// Whether the names differ in their digits only: `http2` is not a slip for `http1`.
fn is_sibling(wrong: &str, known: &str) -> bool {
    let letters = |name: &'_ str| name.chars().filter(|c| !c.is_ascii_digit()).collect::<String>();
    let digits = |name: &str| name.chars().filter(char::is_ascii_digit).count();
    wrong != known && digits(wrong) > 0 && digits(wrong) == digits(known) && letters(wrong) == letters(known)
}

/// By edits; one edit and a name that begins the other count as alike however short they are.
fn likeness(wrong: &str, known: &str) -> f64 {
    let edits = strsim::normalized_damerau_levenshtein(wrong, known);
    let near = strsim::damerau_levenshtein(wrong, known) <= 1 && known.len() > 2;
    let start = wrong.len() >= 3 && (known.starts_with(wrong) || wrong.starts_with(known));
    if near || start { edits.max(LIKENESS_MIN) } else { edits }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(wrong: &str, expected: Option<&str>) {
        let known = ["address", "upstream", "upstreams", "match", "to", "tls", "path_regex", "policies"];
        assert_eq!(suggest(wrong, known.into_iter()).as_deref(), expected, "{wrong}");
    }

    #[test]
    fn slips_of_the_pen_are_recognised() {
        check("adress", Some("address"));
        check("upstrem", Some("upstream"));
        check("Match", Some("match"));
        check("mathc", Some("match"));
        check("tsl", Some("tls"));
        check("policy", None);
        check("regex", None);
        check("addr", Some("address"));
        assert_eq!(suggest("http2", ["http1"].into_iter()), None);
        check(&"x".repeat(4096), None);
    }
}

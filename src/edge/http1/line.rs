//! The lines of a head: where they end, and what may stand in them.

use super::{head::Version, refusal::Refusal};

const ONES: u64 = u64::from_ne_bytes([1; 8]);
const HIGHS: u64 = ONES << 7;

/// Where the first control character is: below 0x20, or 0x7f.
pub(super) fn control(bytes: &[u8]) -> Option<usize> {
    first(bytes, 0)
}

/// Where the first byte is that is not printable ASCII.
pub(super) fn unprintable(bytes: &[u8]) -> Option<usize> {
    first(bytes, HIGHS)
}

/// Where the first control character is, or the first byte that has a bit of `beyond`. Eight bytes a step.
fn first(bytes: &[u8], beyond: u64) -> Option<usize> {
    let mut rest = bytes;
    while let Some((eight, after)) = rest.split_first_chunk() {
        let found = found(u64::from_le_bytes(*eight), beyond);
        if found != 0 {
            let within = found.trailing_zeros() as usize / 8;
            return Some(bytes.len() - rest.len() + within);
        }
        rest = after;
    }
    let is_found = |byte: &u8| found(u64::from(*byte) | (ONES * 0x20) << 8, beyond) != 0;
    rest.iter().position(is_found).map(|within| bytes.len() - rest.len() + within)
}

/// The lowest bit set is in the first byte looked for. Above it others may be set, by the borrow of the subtraction.
const fn found(eight: u64, beyond: u64) -> u64 {
    let below_space = eight.wrapping_sub(ONES * 0x20) & !eight;
    let other_than_del = eight ^ (ONES * 0x7f);
    let del = other_than_del.wrapping_sub(ONES) & !other_than_del;
    ((below_space | del) & HIGHS) | (eight & beyond)
}

/// What is wrong with a byte that does not stand where it may.
pub(super) fn misplaced(byte: u8) -> Refusal {
    match byte {
        b'\r' => Refusal::BareCr,
        b'\n' => Refusal::BareLf,
        0x80.. => Refusal::Target,
        _ => Refusal::Control,
    }
}

/// Whether a byte may stand in a token, RFC 9110 §5.6.2.
pub(super) fn is_tchar(byte: u8) -> bool {
    TCHARS.get(usize::from(byte)).copied().unwrap_or_default()
}

/// By the byte: a look costs less than the comparisons.
static TCHARS: [bool; 256] = {
    let mut all = [false; 256];
    let mut rest: &mut [bool] = &mut all;
    let mut byte = 0_u8;
    while let [place, after @ ..] = rest {
        *place = byte.is_ascii_alphanumeric()
            || matches!(byte, b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'^'..=b'`' | b'|' | b'~');
        byte = byte.wrapping_add(1);
        rest = after;
    }
    all
};

/// The version of a request line, which is printable ASCII, without its end.
///
/// # Errors
/// It is not `METHOD SP target SP HTTP/1.x`, or not of our versions.
pub(super) fn request(line: &[u8]) -> Result<Version, Refusal> {
    if line.is_empty() {
        return Err(Refusal::EmptyLines);
    }
    let (method, rest) = at_space(line).ok_or(Refusal::RequestLine)?;
    if method.is_empty() || !method.iter().copied().all(is_tchar) {
        return Err(Refusal::Method);
    }
    match at_space(rest) {
        Some(([], _)) => Err(Refusal::RequestLine),
        Some((_target, version)) => self::version(version),
        None if rest.is_empty() => Err(Refusal::RequestLine),
        None => Err(Refusal::SimpleRequest),
    }
}

fn at_space(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = line.iter().position(|byte| *byte == b' ')?;
    Some((line.get(..at)?, line.get(at + 1..)?))
}

/// RFC 9112 §2.3. A minor version above 1 is not read as 1.1, as RFC 9110 §2.5 would have it: Pingora does not read it.
fn version(text: &[u8]) -> Result<Version, Refusal> {
    match text {
        b"HTTP/1.1" => Ok(Version::Http11),
        b"HTTP/1.0" => Ok(Version::Http10),
        [b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9'] => Err(Refusal::VersionNotSupported),
        text if text.contains(&b' ') => Err(Refusal::RequestLine),
        _ => Err(Refusal::Version),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_is_found_at_every_place() {
        for byte in 0..=255 {
            for (length, at) in (1..20).flat_map(|length| (0..length).map(move |at| (length, at))) {
                let mut bytes = vec![b'~'; length];
                bytes[at] = byte;
                let is_control = byte < 0x20 || byte == 0x7f;
                assert_eq!(control(&bytes), is_control.then_some(at), "{byte}");
                assert_eq!(unprintable(&bytes), (is_control || byte > 0x7f).then_some(at), "{byte}");
            }
        }
    }

    #[test]
    fn tokens_are_made_of_the_characters_of_the_rfc() {
        let tchars = b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
        for byte in 0..=255 {
            assert_eq!(is_tchar(byte), tchars.contains(&byte), "{byte}");
        }
    }

    #[test]
    fn the_first_of_two_is_found() {
        for (first, second) in [(b'\t', b'\n'), (0x7f, 0), (0, 0x7f), (0x1f, 0x20), (0x7f, 0x80), (0, 1)] {
            let bytes = [b' ', b'~', first, second, b' ', first, 0x80, b'~', b'~'];
            assert_eq!((control(&bytes), unprintable(&bytes)), (Some(2), Some(2)), "{first} {second}");
        }
    }
}

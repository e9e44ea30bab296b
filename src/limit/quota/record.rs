//! One line of the journal: what a consumer has used in a period, in all.
//!
//! A record is no increment: the last one of a consumer counts, whatever became of those before. So a file may be read twice, cut off anywhere or
//! be rewritten, and never says too little of what was safely written.

use super::{Unit, account::Used, calendar};

/// Whose use it is: of a consumer, by hours, days or months.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Key {
    pub consumer: Box<str>,
    pub unit: Unit,
}

/// The first word of a line, for later versions of it.
const MARK: &str = "q1";

/// `q1 <sum> <start of the period, Unix seconds> <period> <used> <consumer>`, with a line feed.
pub fn write(line: &mut Vec<u8>, key: &Key, used: Used) {
    let content = format!("{} {} {} {}", calendar::second(used.start), key.unit.word(), used.amount, key.consumer);
    line.extend_from_slice(format!("{MARK} {:016x} {content}\n", sum(content.as_bytes())).as_bytes());
}

/// What a line says, without its line feed. None: it is none of ours, or was torn.
pub fn read(line: &[u8]) -> Option<(Key, Used)> {
    let rest = std::str::from_utf8(line).ok()?.strip_prefix(MARK)?.strip_prefix(' ')?;
    let (stated, content) = rest.split_once(' ')?;
    if u64::from_str_radix(stated, 16).ok()? != sum(content.as_bytes()) {
        return None;
    }
    let mut words = content.splitn(4, ' ');
    let (start, unit, amount, consumer) = (words.next()?, words.next()?, words.next()?, words.next()?);
    let used = Used { start: calendar::minute(start.parse().ok()?), amount: amount.parse().ok()? };
    Some((Key { consumer: consumer.into(), unit: Unit::of_word(unit)? }, used))
}

/// FNV-1a of 64 bits: it finds what was torn or rotten, not what was forged. Who can write the file can write what they like.
fn sum(content: &[u8]) -> u64 {
    content.iter().fold(0xcbf2_9ce4_8422_2325, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(key: &Key, used: Used) -> Vec<u8> {
        let mut line = Vec::new();
        write(&mut line, key, used);
        line
    }

    fn acme() -> Key {
        Key { consumer: "acme".into(), unit: Unit::Month }
    }

    #[test]
    fn a_line_is_for_people_too() {
        let line = written(&acme(), Used { start: calendar::minute(1_793_491_200), amount: 1_234 });
        assert_eq!(String::from_utf8(line).unwrap(), "q1 609ebf67512e51c8 1793491200 1mo 1234 acme\n");
    }

    #[test]
    fn a_line_that_was_torn_or_changed_says_nothing() {
        let line = written(&acme(), Used { start: 3_000_000, amount: 987_654 });
        let whole = &line[..line.len() - 1];
        for cut in 0..whole.len() {
            assert_eq!(read(&whole[..cut]), None, "{cut}");
        }
        for at in 0..whole.len() {
            let mut changed = whole.to_vec();
            changed[at] ^= 1;
            assert!(read(&changed).is_none_or(|read| Some(read) == self::read(whole)), "{at}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(start in 0u32..1 << 26, amount in 0u64..1 << 38, consumer in "[A-Za-z0-9_][A-Za-z0-9._-]{0,63}") {
            let key = Key { consumer: consumer.into(), unit: Unit::Day };
            let used = Used { start, amount };
            let line = written(&key, used);
            prop_assert_eq!(read(&line[..line.len() - 1]), Some((key, used)));
        }

        #[test]
        fn no_line_makes_it_fall(line in proptest::collection::vec(any::<u8>(), 0..200)) {
            read(&line);
        }
    }
}

//! Neighbouring DATA frames of one stream are made one. What a DATA frame ends at means nothing (RFC 9113 §8.1), but each costs a turn of
//! every part that it goes through, up to a write to the service: a body in single bytes costs as much as that many requests.

use super::watch::FRAME_MAX;

const HEAD: usize = 9;

const DATA: u8 = 0x0;
const END_STREAM: u8 = 0x1;

/// A frame's head, as it was sent.
#[derive(Clone, Copy)]
struct Head {
    length: usize,
    kind: u8,
    flags: u8,
    stream: [u8; 4],
}

impl Head {
    fn of(bytes: &[u8]) -> Option<Self> {
        let [a, b, c, kind, flags, stream @ ..] = *bytes.first_chunk::<HEAD>()?;
        Some(Self { length: u32::from_be_bytes([0, a, b, c]) as usize, kind, flags, stream })
    }

    fn bytes(self) -> [u8; HEAD] {
        let [_, a, b, c] = (self.length as u32).to_be_bytes();
        let [d, e, f, g] = self.stream;
        [a, b, c, self.kind, self.flags, d, e, f, g]
    }

    /// DATA without padding.
    const fn is_plain(self) -> bool {
        self.kind == DATA && self.flags & !END_STREAM == 0
    }

    /// Both in one, if they may be.
    fn with(self, next: Self) -> Option<Self> {
        let length = self.length + next.length;
        let fits = self.is_plain() && next.is_plain() && self.stream == next.stream && length <= FRAME_MAX as usize;
        (fits && self.flags & END_STREAM == 0).then_some(Self { length, flags: next.flags, ..self })
    }
}

/// Coalesces the whole frames that these bytes begin with; what follows them stays as it is. Gives how many bytes are left.
pub fn coalesce(bytes: &mut [u8]) -> usize {
    let (mut read, mut written) = (0, 0);
    let mut last: Option<(usize, Head)> = None;
    while let Some(head) = bytes.get(read..).and_then(Head::of) {
        let end = read + HEAD + head.length;
        if end > bytes.len() {
            break;
        }
        let joined = last.and_then(|(at, before)| Some((at, before.with(head)?)));
        let from = if joined.is_some() { read + HEAD } else { read };
        let (at, whole) = joined.unwrap_or((written, head));
        if from != written {
            bytes.copy_within(from..end, written);
        }
        written += end - from;
        if let Some(place) = bytes.get_mut(at..).and_then(<[u8]>::first_chunk_mut) {
            *place = whole.bytes();
        }
        last = Some((at, whole));
        read = end;
    }
    if read != written {
        bytes.copy_within(read.., written);
    }
    written + bytes.len() - read
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
        let head = Head { length: payload.len(), kind, flags, stream: [0, 0, 0, stream] };
        [&head.bytes(), payload].concat()
    }

    fn check(frames: &[Vec<u8>], expected: &[Vec<u8>]) {
        let mut bytes = frames.concat();
        let left = coalesce(&mut bytes);
        assert_eq!(bytes[..left].escape_ascii().to_string(), expected.concat().escape_ascii().to_string());
    }

    fn data(stream: u8, text: &[u8]) -> Vec<u8> {
        frame(DATA, 0, stream, text)
    }

    #[test]
    fn neighbours_of_one_stream_become_one_and_the_last_may_end_it() {
        check(&[data(1, b"a"), data(1, b"bc"), frame(DATA, END_STREAM, 1, b"d")], &[frame(DATA, END_STREAM, 1, b"abcd")]);
        check(&[data(1, b"a"), frame(DATA, END_STREAM, 1, b"")], &[frame(DATA, END_STREAM, 1, b"a")]);
    }

    #[test]
    fn what_ends_a_stream_is_not_added_to() {
        let ended = [frame(DATA, END_STREAM, 1, b"a"), data(1, b"b")];
        check(&ended, &ended);
    }

    #[test]
    fn other_streams_other_kinds_and_padding_stand_between() {
        let kept = [
            data(1, b"a"),
            data(3, b"b"),
            data(1, b"c"),
            frame(6, 0, 0, b"12345678"),
            data(1, b"d"),
            frame(DATA, 8, 1, b"\0e"),
            data(1, b"f"),
        ];
        check(&kept, &kept);
    }

    #[test]
    fn no_frame_becomes_longer_than_one_may_be() {
        let half = vec![b'x'; FRAME_MAX as usize / 2];
        check(&[data(1, &half), data(1, &half), data(1, b"y")], &[data(1, &half.repeat(2)), data(1, b"y")]);
    }

    #[test]
    fn a_frame_that_is_not_whole_stays_as_it_is() {
        let begun = data(1, b"more to come")[..12].to_vec();
        check(&[data(1, b"a"), data(1, b"b"), begun.clone()], &[data(1, b"ab"), begun]);
        let head = data(1, b"x")[..5].to_vec();
        check(&[data(1, b"a"), data(1, b"b"), head.clone()], &[data(1, b"ab"), head]);
    }

    /// Data and last flags of each stream.
    type Streams = std::collections::BTreeMap<[u8; 4], (Vec<u8>, u8)>;

    /// What each stream was sent, and the order of all else.
    fn told(mut bytes: &[u8]) -> (Streams, Vec<Vec<u8>>) {
        let (mut streams, mut others) = (Streams::new(), Vec::new());
        while let Some(head) = Head::of(bytes).filter(|head| bytes.len() >= HEAD + head.length) {
            let (whole, rest) = bytes.split_at(HEAD + head.length);
            match head.is_plain() {
                true => {
                    let stream: &mut (Vec<u8>, u8) = streams.entry(head.stream).or_default();
                    stream.0.extend_from_slice(&whole[HEAD..]);
                    stream.1 = head.flags;
                }
                false => others.push(whole.to_vec()),
            }
            bytes = rest;
        }
        others.push(bytes.to_vec());
        (streams, others)
    }

    proptest! {
        #[test]
        fn nothing_is_lost_nor_moved_to_another_stream(
            parts in prop::collection::vec((0u8..3, 0u8..2, 1u8..4, prop::collection::vec(any::<u8>(), 0..9)), 0..30),
            cut in 0usize..12,
        ) {
            let mut bytes = parts.iter().flat_map(|(kind, flags, stream, payload)| frame(*kind, *flags, *stream, payload)).collect::<Vec<_>>();
            bytes.truncate(bytes.len().saturating_sub(cut));
            let before = told(&bytes);
            let left = coalesce(&mut bytes);
            prop_assert_eq!(told(&bytes[..left]), before);
        }

        #[test]
        fn any_bytes_are_taken(mut bytes: Vec<u8>) {
            prop_assert!(coalesce(&mut bytes) <= bytes.len());
        }
    }
}

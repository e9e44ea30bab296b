//! Numbers, ids and addresses as text, written to the end of a line. What `fmt` does with these costs most of a log line's time.

use std::{
    io::Write,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

/// The longest `u64`, in digits.
const DIGITS_MAX: usize = 20;

/// In decimal.
pub fn number(value: u64, out: &mut Vec<u8>) {
    let mut digits = [b'0'; DIGITS_MAX];
    let (mut left, mut length) = (value, 0);
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (left % 10) as u8;
        (left, length) = (left / 10, length + 1);
        if left == 0 {
            break;
        }
    }
    out.extend_from_slice(digits.get(DIGITS_MAX - length..).unwrap_or_default());
}

/// Milliseconds with three decimals.
pub fn millis(value: Duration, out: &mut Vec<u8>) {
    let micros = u64::try_from(value.as_micros()).unwrap_or(u64::MAX);
    number(micros / 1000, out);
    let below = micros % 1000;
    out.extend_from_slice(&[b'.', b'0' + (below / 100) as u8, b'0' + (below / 10 % 10) as u8, b'0' + (below % 10) as u8]);
}

/// The longest IPv4 address, in characters.
const V4_MAX: usize = 15;

/// An IP address.
pub fn address(value: IpAddr, out: &mut Vec<u8>) {
    let IpAddr::V4(v4) = value else { return display(value, out) };
    let mut text = [0; V4_MAX];
    let mut start = V4_MAX;
    let mut put = |byte: u8| {
        start -= 1;
        if let Some(place) = text.get_mut(start) {
            *place = byte;
        }
    };
    // From its end, so that no digit is put that is not wanted.
    for (at, octet) in v4.octets().into_iter().enumerate().rev() {
        put(b'0' + octet % 10);
        if octet > 9 {
            put(b'0' + octet / 10 % 10);
        }
        if octet > 99 {
            put(b'0' + octet / 100);
        }
        if at > 0 {
            put(b'.');
        }
    }
    out.extend_from_slice(text.get(start..).unwrap_or_default());
}

/// An IP address with its port.
pub fn end(value: SocketAddr, out: &mut Vec<u8>) {
    if value.is_ipv6() {
        return display(value, out);
    }
    address(value.ip(), out);
    out.push(b':');
    number(value.port().into(), out);
}

fn display(value: impl std::fmt::Display, out: &mut Vec<u8>) {
    // Writing to a vector cannot fail.
    let _ = write!(out, "{value}");
}

/// The last `N` hex digits of a number, in lower case.
pub fn hex<const N: usize>(value: u128) -> [u8; N] {
    let bytes = value.to_be_bytes();
    let mut text = [0; 2 * size_of::<u128>()];
    for (pair, byte) in text.chunks_exact_mut(2).zip(bytes) {
        pair.copy_from_slice(&[nibble(byte >> 4), nibble(byte & 0xf)]);
    }
    text.last_chunk().copied().unwrap_or([b'0'; N])
}

/// Without a branch, so that many are done at once.
const fn nibble(value: u8) -> u8 {
    value + b'0' + (value > 9) as u8 * (b'a' - b'0' - 10)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    proptest! {
        #[test]
        fn all_is_as_fmt_writes_it(value: u128, shift in 0..64_u32, ip: IpAddr, port: u16) {
            let small = value as u64 >> shift;
            prop_assert_eq!(written(|out| number(small, out)), small.to_string());
            let duration = Duration::from_micros(small);
            prop_assert_eq!(written(|out| millis(duration, out)), format!("{}.{:03}", small / 1000, small % 1000));
            prop_assert_eq!(written(|out| address(ip, out)), ip.to_string());
            prop_assert_eq!(written(|out| end((ip, port).into(), out)), SocketAddr::from((ip, port)).to_string());
            prop_assert_eq!(hex::<32>(value).to_vec(), format!("{value:032x}").into_bytes());
            prop_assert_eq!(hex::<16>(small.into()).to_vec(), format!("{small:016x}").into_bytes());
        }
    }

    #[test]
    fn the_ends_of_the_range_are_written() {
        assert_eq!(written(|out| number(0, out)), "0");
        assert_eq!(written(|out| number(u64::MAX, out)), u64::MAX.to_string());
        assert_eq!(written(|out| millis(Duration::from_nanos(999), out)), "0.000");
    }
}

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

/// An IP address.
pub fn address(value: IpAddr, out: &mut Vec<u8>) {
    let IpAddr::V4(v4) = value else { return display(value, out) };
    let [first, rest @ ..] = v4.octets();
    octet(first, out);
    for byte in rest {
        out.push(b'.');
        octet(byte, out);
    }
}

fn octet(value: u8, out: &mut Vec<u8>) {
    let digits = [b'0' + value / 100, b'0' + value / 10 % 10, b'0' + value % 10];
    let zeros = usize::from(value < 100) + usize::from(value < 10);
    out.extend_from_slice(digits.get(zeros..).unwrap_or_default());
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
    std::array::from_fn(|at| {
        let nibble = (value >> (4 * (N - 1 - at)) & 0xf) as u8;
        nibble + if nibble < 10 { b'0' } else { b'a' - 10 }
    })
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

use proptest::prelude::*;

use super::*;

/// What the bytes are, in words: `28 192.0.2.1:56324 > 198.51.100.1:443`, `15 own`, `partial`, or why they are bad.
fn shown(bytes: &[u8]) -> String {
    match parse(bytes) {
        Parsed::Partial => "partial".to_owned(),
        Parsed::Done { length, source: None } => format!("{length} own"),
        Parsed::Done { length, source: Some(Addresses { source, destination }) } => format!("{length} {source} > {destination}"),
        Parsed::Bad(reason) => reason.to_owned(),
    }
}

#[track_caller]
fn check(bytes: impl AsRef<[u8]>, expected: &str) {
    let bytes = bytes.as_ref();
    assert_eq!(shown(bytes), expected, "{}", bytes.escape_ascii());
}

const NONE: &str = "the connection does not begin with a PROXY header";
const FAMILY: &str = "the PROXY line names no family that is known";
const EXACT: &str = "the PROXY line does not have two addresses and two ports";
const ADDRESS: &str = "the PROXY line has an address that is not one of its family";
const PORT: &str = "the PROXY line has a port that is not one";
const LONG: &str = "the PROXY line is longer than 107 bytes";
const LINE: &str = "the PROXY line holds what does not belong there, or does not end with CR and LF";

#[test]
fn lines_are_read() {
    check("PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\nGET /", "45 192.0.2.1:56324 > 198.51.100.1:443");
    check("PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n", "56 255.255.255.255:65535 > 255.255.255.255:65535");
    check("PROXY TCP6 2001:db8::1 2001:DB8::2 0 443\r\n", "42 [2001:db8::1]:0 > [2001:db8::2]:443");
    check("PROXY TCP6 2001:0db8:0:0:0:0:0:0001 ::1 1 2\r\n", "45 [2001:db8::1]:1 > [::1]:2");
    check("PROXY UNKNOWN\r\nGET /", "15 own");
    check(b"PROXY UNKNOWN what\0 ever\xff\r\n", "27 own");
}

#[test]
fn mapped_addresses_are_read_as_ipv4() {
    check("PROXY TCP6 ::ffff:192.0.2.1 ::ffff:c633:6401 1 2\r\n", "50 192.0.2.1:1 > 198.51.100.1:2");
}

#[test]
fn lines_that_are_not_exact_are_bad() {
    for line in [
        "PROXY TCP4 192.0.2.1 198.51.100.1 56324\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.1 56324 443 \r\n",
        "PROXY TCP4  192.0.2.1 198.51.100.1 56324 443\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.1 56324 443 7\r\n",
        "PROXY TCP4 \r\n",
    ] {
        check(line, EXACT);
    }
    for line in [
        "PROXY TCP4 192.0.2.1\t198.51.100.1 56324 443\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\n",
        "PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\rG",
        "PROXY TCP4 192.0.2.1 198.51.100.1 56324 +443\r\n",
        "PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n",
        "PROXY UNKNOWN a\nb\r\n",
        "PROXY UNKNOWN a\rb\r\n",
    ] {
        check(line, LINE);
    }
    for line in
        ["PROXY TCP5 ", "PROXY tcp4 ", "PROXY  TCP4 ", "PROXY UDP4 ", "PROXY \r\n", "PROXY UNKNOWNS\r\n", "PROXY UNKNOWN\n"]
    {
        check(line, FAMILY);
    }
}

#[test]
fn addresses_and_ports_are_of_one_spelling() {
    for source in ["192.0.2.01", "192.0.2", "192.0.2.256", "192.0.513", "c0.0.2.1", "::ffff:192.0.2.1", "2001:db8::1"] {
        check(format!("PROXY TCP4 {source} 198.51.100.1 1 443\r\n"), ADDRESS);
    }
    for source in ["192.0.2.1", "1:2:3:4:5:6:7", "1:2:3:4:5:6:7:8:9", "1::2::3", "00001::", ":::"] {
        check(format!("PROXY TCP6 {source} ::1 1 443\r\n"), ADDRESS);
    }
    for port in ["01", "65536", "000443", "", "a", "00"] {
        check(format!("PROXY TCP4 192.0.2.1 198.51.100.1 {port} 443\r\n"), PORT);
    }
}

#[test]
fn no_line_is_longer_than_the_worst_case() {
    let of = |length: usize| format!("PROXY UNKNOWN {}\r\n", "f".repeat(length - 16));
    check(of(107), "107 own");
    check(of(108), LONG);
    check(&of(107).as_bytes()[..106], "partial");
    check(&of(108).as_bytes()[..106], "partial");
    check(&of(108).as_bytes()[..107], LONG);
    check(format!("PROXY TCP4 {}", "1".repeat(96)), LONG);
}

#[test]
fn what_begins_otherwise_is_bad_at_once() {
    check("", "partial");
    for start in
        ["P", "PROXY", "PROXY ", "PROXY T", "PROXY TCP6 ", "PROXY UNKNOWN", "PROXY UNKNOWN\r", "\r", "\r\n\r\n\0\r\nQUIT\n"]
    {
        check(start, "partial");
    }
    for start in
        ["G", "\x16\x03\x01", "POST / HTTP/1.1", "PRI * HTTP/2.0", "PROXYv", "proxy", "\n", "\r\nG", "\r\n\r\n\0\r\nQUIT\r"]
    {
        check(start, NONE);
    }
}

/// A header of version 2: command, family and transport, what follows.
fn v2(command: u8, kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len()).unwrap().to_be_bytes();
    [b"\r\n\r\n\0\r\nQUIT\n", &[command, kind][..], &length, body].concat()
}

const INET: [u8; 12] = [192, 0, 2, 1, 198, 51, 100, 1, 0xdc, 0x04, 0x01, 0xbb];

fn inet6(source: &str) -> Vec<u8> {
    let octets = |text: &str| text.parse::<std::net::Ipv6Addr>().unwrap().octets();
    [&octets(source)[..], &octets("2001:db8::2"), &[0, 1, 0, 2]].concat()
}

#[test]
fn binary_headers_are_read() {
    check([&v2(0x21, 0x11, &INET)[..], b"GET /"].concat(), "28 192.0.2.1:56324 > 198.51.100.1:443");
    check(v2(0x21, 0x21, &inet6("2001:db8::1")), "52 [2001:db8::1]:1 > [2001:db8::2]:2");
    check(v2(0x21, 0x21, &inet6("::ffff:192.0.2.1")), "52 192.0.2.1:1 > [2001:db8::2]:2");
    check(v2(0x20, 0x00, b""), "16 own");
    check(v2(0x20, 0xff, b"passed over"), "27 own");
    check(v2(0x21, 0x00, b"passed over"), "27 own");
    check(v2(0x21, 0x31, &[b'/'; 216]), "232 own");
}

#[test]
fn binary_headers_that_are_not_exact_are_bad() {
    for version in [0x00, 0x11, 0x31, 0xff] {
        check(v2(version, 0x11, &INET), "the PROXY header is not of version 2");
    }
    for command in [0x22, 0x2f] {
        check(v2(command, 0x11, &INET), "the PROXY header has a command that is not known");
    }
    for kind in [0x01, 0x02, 0x10, 0x12, 0x13, 0x20, 0x22, 0x30, 0x32, 0x41, 0xff] {
        let expected = "the PROXY header has a family and transport that do not belong together, or not to a stream";
        check(v2(0x21, kind, &[0; 216]), expected);
    }
    for (kind, size) in [(0x11, 12), (0x21, 36), (0x31, 216)] {
        check(v2(0x21, kind, &vec![0; size - 1]), "the PROXY header is shorter than its addresses");
    }
}

#[test]
fn length_of_a_binary_header_is_bounded_before_it_is_waited_for() {
    check(&v2(0x20, 0, &[0; 4080])[..], "4096 own");
    check(&v2(0x20, 0, &[0; 4080])[..4095], "partial");
    check(&v2(0x20, 0, &[0; 4081])[..16], "the PROXY header is longer than 4096 bytes");
    check(&v2(0x21, 0x21, &INET)[..16], "the PROXY header is shorter than its addresses");
}

#[test]
fn vectors_are_passed_over_if_they_fill_the_header() {
    let with = |vectors: &[u8]| v2(0x21, 0x11, &[&INET[..], vectors].concat());
    check(with(b"\x02\0\x0cshop.example\x04\0\0\xea\0\x02ab"), "51 192.0.2.1:56324 > 198.51.100.1:443");
    for uneven in [&b"\x04"[..], b"\x04\0", b"\x04\0\x01", b"\x04\0\0\0", b"\x04\xff\xffab"] {
        check(with(uneven), "the vectors of the PROXY header do not fill it");
    }
}

#[test]
fn checksum_is_verified() {
    let with = |sum: &[u8]| v2(0x21, 0x11, &[&INET[..], b"\x03\0", &[sum.len() as u8], sum, b"\x04\0\x01x"].concat());
    check(with(&CHECKSUM), "39 192.0.2.1:56324 > 198.51.100.1:443");
    let twice = [&INET[..], b"\x03\0\x04", &CHECKSUM, b"\x03\0\x04", &CHECKSUM].concat();
    let wrong = [CHECKSUM[0] ^ 1, CHECKSUM[1], CHECKSUM[2], CHECKSUM[3]];
    for bad in [with(&wrong), with(&[]), with(&[0; 5]), v2(0x21, 0x11, &twice)] {
        check(bad, "the checksum of the PROXY header is wrong");
    }
}

/// Of the header with one checksum and one byte of padding, computed apart from the code, with a table.
const CHECKSUM: [u8; 4] = [0xe2, 0x78, 0x30, 0xf9];

fn addresses(source: &str, destination: &str) -> Addresses {
    Addresses { source: source.parse().unwrap(), destination: destination.parse().unwrap() }
}

#[test]
fn what_is_written_is_as_the_specification_has_it() {
    let v4 = addresses("192.0.2.1:56324", "198.51.100.1:443");
    assert_eq!(write_v1(Some(v4)), b"PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n");
    assert_eq!(write_v2(Some(v4)), v2(0x21, 0x11, &INET));
    let v6 = addresses("[2001:db8::1]:1", "[2001:db8::2]:2");
    assert_eq!(write_v1(Some(v6)), b"PROXY TCP6 2001:db8::1 2001:db8::2 1 2\r\n");
    assert_eq!(write_v2(Some(v6)), v2(0x21, 0x21, &inet6("2001:db8::1")));
    assert_eq!(write_v1(None), b"PROXY UNKNOWN\r\n");
    assert_eq!(write_v2(None), v2(0x20, 0x00, b""));
}

#[test]
fn addresses_of_two_families_go_out_in_that_of_the_source() {
    let line = |source, destination| String::from_utf8(write_v1(Some(addresses(source, destination)))).unwrap();
    assert_eq!(line("[2001:db8::1]:1", "192.0.2.1:2"), "PROXY TCP6 2001:db8::1 ::ffff:c000:201 1 2\r\n");
    assert_eq!(line("[2001:db8::1]:1", "0.0.0.0:0"), "PROXY TCP6 2001:db8::1 :: 1 0\r\n");
    assert_eq!(line("192.0.2.1:1", "[2001:db8::1]:2"), "PROXY TCP4 192.0.2.1 0.0.0.0 1 2\r\n");
    assert_eq!(line("[::ffff:192.0.2.1]:1", "[::ffff:192.0.2.2]:2"), "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n");
    let mixed = addresses("[2001:db8::1]:1", "192.0.2.1:2");
    assert_eq!(parse(&write_v2(Some(mixed))), Parsed::Done { length: 52, source: Some(mixed) });
}

/// Bytes that are often nearly a header.
fn nearly() -> impl Strategy<Value = Vec<u8>> {
    const PIECES: &[&[u8]] = &[
        b"PROXY ",
        b"TCP4 ",
        b"TCP6 ",
        b"UNKNOWN",
        b"192.0.2.1 ",
        b"::1 ",
        b"80 443",
        b"\r\n",
        b"\r\n\r\n\0\r\nQUIT\n",
        b"\x21\x11\0\x0c",
        b"\x21\x21\0\x24",
        b"\x20\0\0\0",
        b"\0\0\0\x01",
    ];
    let pieces = prop::collection::vec(prop::sample::select(PIECES), 0..12).prop_map(|pieces| pieces.concat());
    let noise = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3);
    let nearly = (pieces, noise).prop_map(|(mut bytes, noise)| {
        noise.into_iter().filter(|_| !bytes.is_empty()).collect::<Vec<_>>().into_iter().for_each(|(at, byte)| {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        });
        bytes
    });
    prop_oneof![nearly, prop::collection::vec(any::<u8>(), 0..64)]
}

fn any_addresses() -> impl Strategy<Value = Addresses> {
    let address = (any::<std::net::IpAddr>(), any::<u16>()).prop_map(SocketAddr::from);
    (address.clone(), address).prop_map(|(source, destination)| Addresses { source, destination })
}

proptest! {
    #[test]
    fn a_verdict_stands_whatever_follows(bytes in nearly(), more in prop::collection::vec(any::<u8>(), 0..20)) {
        let verdicts: Vec<Parsed> = (0..=bytes.len()).map(|end| parse(&bytes[..end])).collect();
        let first = verdicts.iter().position(|verdict| *verdict != Parsed::Partial).unwrap_or(bytes.len());
        prop_assert!(verdicts[first..].iter().all(|verdict| *verdict == verdicts[first]), "{verdicts:?}");
        if let Parsed::Done { length, .. } = verdicts[first] {
            prop_assert_eq!(length, first);
        }
        if verdicts[first] != Parsed::Partial {
            prop_assert_eq!(parse(&[bytes, more].concat()), verdicts[first]);
        }
    }

    #[test]
    fn what_is_written_is_read_back(given in any_addresses(), more in prop::collection::vec(any::<u8>(), 0..20)) {
        let expected = given.alike().canonical();
        for header in [write_v1(Some(given)), write_v2(Some(given))] {
            let parsed = parse(&[&header[..], &more].concat());
            prop_assert_eq!(parsed, Parsed::Done { length: header.len(), source: Some(expected) });
            for end in 0..header.len() {
                prop_assert_eq!(parse(&header[..end]), Parsed::Partial);
            }
        }
    }
}

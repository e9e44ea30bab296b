//! The PROXY protocol, received: who the client is by the word of a trusted proxy, and what becomes of connections that do not begin so.

use std::{
    io::Write,
    net::{IpAddr, Shutdown, TcpStream},
};

use rustls::{ClientConnection, StreamOwned, pki_types::ServerName};

use crate::harness::{
    Connection, Gateway, Origin, PATIENCE,
    cert::Authority,
    eventually,
    frames::{END_HEADERS, END_STREAM, GET, HEADERS, PREFACE, Raw, SETTINGS, block, frame},
    gateway::Start,
    wire::Wire,
};

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

const CLIENT: &str = "192.0.2.7";

fn v1(client: &str) -> Vec<u8> {
    match client.parse().unwrap() {
        IpAddr::V4(_) => format!("PROXY TCP4 {client} 192.0.2.1 4321 80\r\n"),
        IpAddr::V6(_) => format!("PROXY TCP6 {client} 2001:db8::1 4321 80\r\n"),
    }
    .into_bytes()
}

/// A header of version 2 with this behind its addresses.
fn v2(client: &str, vectors: &[u8]) -> Vec<u8> {
    let (family, addresses) = match client.parse().unwrap() {
        IpAddr::V4(client) => (0x11, [client.octets(), [192, 0, 2, 1]].concat()),
        IpAddr::V6(client) => (0x21, [client.octets(), [0x20; 16]].concat()),
    };
    binary(0x21, family, &[&addresses[..], &[0x10, 0xe1, 0, 80], vectors].concat())
}

fn binary(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
    [SIGNATURE, &[command, family], &length, rest].concat()
}

struct Setting {
    origin: Origin,
    gateway: Gateway,
    authority: Authority,
}

impl Setting {
    fn new() -> Self {
        let origin = Origin::text("x");
        let authority = Authority::new();
        let dir = tempfile::tempdir().unwrap();
        authority.leaf(&["a"]).write(dir.path(), "a");
        let gateway = Start::on(&format!(
            "listeners:
  web: {{ address: 127.0.0.1:<web>, proxy_protocol: required }}
  secure: {{ address: 127.0.0.1:<secure>, proxy_protocol: required, tls: {{ certificates: [{{ cert: a.pem, key: a.key }}] }} }}
  plain: {{ address: 127.0.0.1:<plain> }}
trusted_proxies: [127.0.0.1, 198.51.100.0/24]
upstreams: {{ one: {{ endpoints: [\"{origin}\"] }} }}
routes: {{ all: {{ to: {{ upstream: one }} }} }}"
        ))
        .dir(dir)
        .ready();
        Self { origin, gateway, authority }
    }

    /// A connection that began with this header, TLS if it is to be, in pieces of so many bytes.
    fn begun(&self, header: &[u8], tls: bool, piece: usize) -> Connection {
        let name = if tls { "secure" } else { "web" };
        let mut stream = TcpStream::connect(self.gateway.address(name)).unwrap();
        stream.set_nodelay(true).unwrap();
        let client = tls.then(|| ClientConnection::new(self.authority.client(&[]), ServerName::try_from("a").unwrap()).unwrap());
        let Some(mut client) = client else {
            header.chunks(piece).for_each(|bytes| stream.write_all(bytes).unwrap());
            return Connection(Wire::over(stream));
        };
        let mut bytes = header.to_vec();
        client.write_tls(&mut bytes).unwrap();
        bytes.chunks(piece).for_each(|bytes| stream.write_all(bytes).unwrap());
        Connection(Wire::over(StreamOwned::new(client, stream)))
    }

    /// Who the service and the log say that the client is, with this field in its request.
    #[track_caller]
    fn client(&self, connection: &mut Connection, field: &str) -> (String, String) {
        let path = format!("/{}", self.origin.count());
        assert_eq!(connection.ask(&format!("GET {path} HTTP/1.1\nHost: a{field}")).status, 200);
        let told = self.origin.last().field("x-forwarded-for").expect("it is told").to_owned();
        (told, self.gateway.logged_path(&path)["client"].as_str().unwrap().to_owned())
    }

    #[track_caller]
    fn assert_counted(&self, listener: &str, reason: &str, count: u32) {
        let sample = format!("banyan_connections_refused_total{{listener=\"{listener}\",reason=\"{reason}\"}}");
        eventually(&format!("{sample} is {count}"), || self.gateway.metric(&sample).filter(|&found| found == f64::from(count)));
    }
}

#[test]
fn the_client_is_who_the_header_names() {
    let setting = Setting::new();
    let noop = [4, 0, 3, 0, 0, 0];
    let cases = [
        (v1(CLIENT), CLIENT),
        (v1("2001:db8::7"), "2001:db8::7"),
        (v2(CLIENT, &[]), CLIENT),
        (v2(CLIENT, &noop), CLIENT),
        (v2("2001:db8::7", &[]), "2001:db8::7"),
        (v2("::ffff:192.0.2.7", &[]), CLIENT),
    ];
    for (header, client) in cases {
        for (tls, piece) in [(false, usize::MAX), (false, 1), (true, usize::MAX), (true, 1)] {
            let mut connection = setting.begun(&header, tls, piece);
            let found = [setting.client(&mut connection, ""), setting.client(&mut connection, "")];
            let expected = (client.to_owned(), client.to_owned());
            assert_eq!(found, [expected.clone(), expected], "{} tls: {tls}", header.escape_ascii());
        }
    }
    assert_eq!(setting.gateway.logged_path("/0")["peer"], "192.0.2.7:4321");
}

#[test]
fn a_header_and_a_request_may_come_in_one_write() {
    let setting = Setting::new();
    for header in [v1(CLIENT), v2(CLIENT, &[])] {
        let request = b"GET /one HTTP/1.1\r\nHost: a\r\n\r\nPOST /two HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi";
        let mut connection = setting.begun(&[&header[..], request].concat(), false, usize::MAX);
        assert_eq!([connection.response("GET").status, connection.response("POST").status], [200, 200]);
        let seen = setting.origin.requests();
        let last: Vec<_> =
            seen.iter().rev().take(2).map(|request| (request.target(), request.field("x-forwarded-for"))).collect();
        assert_eq!(last, [("/two", Some(CLIENT)), ("/one", Some(CLIENT))]);
    }
}

#[test]
fn http2_may_follow_a_header() {
    let setting = Setting::new();
    let mut raw = Raw::unspoken(&setting.gateway);
    let request = frame(HEADERS, END_STREAM | END_HEADERS, 1, &block(&GET));
    raw.send(&[&v2(CLIENT, &[])[..], PREFACE, &frame(SETTINGS, 0, 0, &[]), &request].concat());
    assert_eq!(raw.until(|frame| (frame.kind, frame.stream) == (HEADERS, 1)).expect("an answer").status(), "200");
    assert_eq!(setting.origin.last().field("x-forwarded-for"), Some(CLIENT));
}

#[test]
fn a_proxy_that_speaks_for_itself_is_the_client() {
    let setting = Setting::new();
    let itself = [
        b"PROXY UNKNOWN\r\n".to_vec(),
        b"PROXY UNKNOWN 192.0.2.7 192.0.2.1 4321 80\r\n".to_vec(),
        binary(0x20, 0, &[]),
        binary(0x20, 0x11, &[192, 0, 2, 7, 192, 0, 2, 1, 0, 1, 0, 2]),
        binary(0x21, 0, &[]),
    ];
    for header in itself {
        for tls in [false, true] {
            let found = setting.client(&mut setting.begun(&header, tls, usize::MAX), "");
            assert_eq!(found, ("127.0.0.1".to_owned(), "127.0.0.1".to_owned()), "{}", header.escape_ascii());
        }
    }
}

/// That its connection is told of by a trusted proxy does not make the client one.
#[test]
fn what_the_client_itself_says_of_its_way_is_believed_only_if_it_is_trusted() {
    let setting = Setting::new();
    let says = "\nX-Forwarded-For: 203.0.113.9\nForwarded: for=203.0.113.9";
    for tls in [false, true] {
        let found = setting.client(&mut setting.begun(&v1(CLIENT), tls, usize::MAX), says);
        assert_eq!(found, (CLIENT.to_owned(), CLIENT.to_owned()));
        assert!(!setting.origin.last().head.text().contains("203.0.113.9"), "{}", setting.origin.last().head.text());
        let found = setting.client(&mut setting.begun(&v1("198.51.100.4"), tls, usize::MAX), says);
        assert_eq!(found, ("203.0.113.9, 198.51.100.4".to_owned(), "203.0.113.9".to_owned()));
    }
}

#[test]
fn a_connection_without_a_header_is_closed_in_silence() {
    let setting = Setting::new();
    let mut hello = Vec::new();
    let mut client = ClientConnection::new(setting.authority.client(&[]), ServerName::try_from("a").unwrap()).unwrap();
    client.write_tls(&mut hello).unwrap();
    let request = b"GET /bare HTTP/1.1\r\nHost: a\r\n\r\n".to_vec();
    let mut bad_checksum = v2(CLIENT, &[3, 0, 4, 1, 2, 3, 4]);
    bad_checksum.extend(&request);
    let cases = [
        request.clone(),
        PREFACE.to_vec(),
        hello,
        b"\0\0\0\0".to_vec(),
        [b" ".to_vec(), v1(CLIENT), request.clone()].concat(),
        [b"proxy TCP4 192.0.2.7 192.0.2.1 1 2\r\n".to_vec(), request.clone()].concat(),
        [b"PROXY TCP4 192.0.2.7 192.0.2.1 1 2\n".to_vec(), request.clone()].concat(),
        [b"PROXY TCP4 192.0.2.777 192.0.2.1 1 2\r\n".to_vec(), request.clone()].concat(),
        [b"PROXY TCP4 2001:db8::7 2001:db8::1 1 2\r\n".to_vec(), request.clone()].concat(),
        [b"PROXY TCP4 192.0.2.7 192.0.2.1 1 65536\r\n".to_vec(), request.clone()].concat(),
        [b"PROXY TCP4 ".to_vec(), vec![b'1'; 200]].concat(),
        [binary(0x11, 0x11, &[0; 12]), request.clone()].concat(),
        [binary(0x22, 0x11, &[0; 12]), request.clone()].concat(),
        [binary(0x21, 0x11, &[0; 11]), request.clone()].concat(),
        bad_checksum,
    ];
    for listener in ["web", "secure"] {
        for (n, sent) in (1..).zip(&cases) {
            let mut connection = Connection::open(setting.gateway.address(listener));
            connection.send(sent);
            assert!(connection.0.closes_within(PATIENCE), "{}", sent.escape_ascii());
            setting.assert_counted(listener, "proxy_protocol", n);
        }
    }
    assert_eq!(setting.origin.connections(), 0);
    assert_eq!(setting.gateway.stdout.all(), [""; 0], "there was no request");
}

#[test]
fn a_header_that_breaks_off_is_no_header() {
    let setting = Setting::new();
    for header in [v1(CLIENT), v2(CLIENT, &[])] {
        for length in [0, 1, 14, header.len() - 1] {
            let mut connection = setting.begun(&header[..length], false, usize::MAX);
            connection.0.socket().shutdown(Shutdown::Write).unwrap();
            assert!(connection.0.closes_within(PATIENCE), "{length}");
        }
    }
    assert_eq!(setting.origin.connections(), 0);
}

#[test]
fn nobody_else_may_say_who_the_client_is() {
    let setting = Setting::new();
    for (n, header) in (1..).zip([v1(CLIENT), v2(CLIENT, &[]), b"PROXY UNKNOWN\r\n".to_vec(), vec![]]) {
        for listener in ["web", "secure"] {
            let mut connection = Connection::open_from([127, 0, 0, 2], setting.gateway.address(listener));
            let _ = connection.0.send([&header[..], b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"].concat());
            assert!(connection.0.closes_within(PATIENCE), "{}", header.escape_ascii());
            setting.assert_counted(listener, "untrusted_proxy", n);
        }
    }
    assert_eq!(setting.origin.connections(), 0);
}

#[test]
fn a_header_where_none_is_due_is_a_bad_request() {
    let setting = Setting::new();
    let request = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    for header in [v1(CLIENT), v2(CLIENT, &[])] {
        let mut connection = Connection::open(setting.gateway.address("plain"));
        connection.send([&header[..], request].concat());
        let reply = connection.response("GET");
        assert_eq!((reply.status, reply.field("connection")), (400, Some("close")));
        assert!(connection.0.closes_within(PATIENCE));
        let mut connection = setting.begun(&[&header[..], &header, request].concat(), false, usize::MAX);
        assert_eq!(connection.response("GET").status, 400, "a second header is none");
    }
    assert_eq!(setting.origin.connections(), 0);
}

//! Whole requests over loopback: through the gateway, and through the smallest Pingora proxy.

use std::{
    fmt::Write as _,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    thread,
    time::{Duration, Instant},
};

use super::callgrind::Counted;

/// Routes of the gateway: a hundred hosts with ten each.
const ROUTES: usize = 1000;
const HOSTS: usize = 100;

/// Connections, each of which has a request under way at a time.
const CONNECTIONS: usize = 16;

/// Requests before the count begins: pools are filled then, and memory is touched.
const WARM_UP: usize = 320;
const REQUESTS: usize = 1600;

/// Under callgrind a program takes its time to start.
const PATIENCE: Duration = Duration::from_secs(120);

const BODY: &[u8] = &[b'x'; 100];

/// Instructions per request.
pub struct Hop {
    pub banyan: u64,
    pub floor: u64,
}

pub fn count(banyan: &Path, floor: &Path) -> Hop {
    let dir = tempfile::tempdir().unwrap();
    let origin = origin().to_string();
    let [gateway, plain, tls] = free();
    let config = dir.path().join("banyan.yaml");
    std::fs::create_dir(dir.path().join("log")).unwrap();
    std::fs::write(&config, configuration(gateway, &origin)).unwrap();
    let banyan = measure(banyan, &["run", "-c", config.to_str().unwrap()], &dir.path().join("banyan.out"), gateway);
    let lines = std::fs::read_to_string(dir.path().join("log/access.log")).unwrap().lines().count();
    assert_eq!(lines, WARM_UP + REQUESTS, "every request has its line in the access log");
    let [cert, key] = certificate(dir.path());
    let args = ["1", &origin, &plain.to_string(), &tls.to_string(), &cert, &key];
    Hop { banyan, floor: measure(floor, &args, &dir.path().join("floor.out"), plain) }
}

fn measure(program: &Path, args: &[&str], out: &Path, at: SocketAddr) -> u64 {
    let counted = Counted::start(program, args, out);
    let mut clients = clients(at);
    ask(&mut clients, WARM_UP);
    let total = counted.during(|| ask(&mut clients, REQUESTS));
    // The access log is written soon after the answer.
    thread::sleep(Duration::from_secs(1));
    total / REQUESTS as u64
}

/// Six exact paths a host, two with a capture, two that are open to the right.
fn configuration(gateway: SocketAddr, origin: &str) -> String {
    let mut text = format!(
        "listeners: {{ web: {{ address: \"{gateway}\" }} }}\nprocess: {{ threads: 1 }}\n\
         observe: {{ access_log: {{ path: log/access.log, format: json }} }}\n\
         upstreams: {{ one: {{ endpoints: [\"{origin}\"] }} }}\nroutes:\n"
    );
    for n in 0..ROUTES {
        let (host, kind) = (n % HOSTS, n / HOSTS);
        let path = match kind {
            0..=5 => format!("/service/{kind}/item"),
            6 | 7 => format!("/service/{kind}/{{id}}/part"),
            _ => format!("/service/{kind}/**"),
        };
        writeln!(text, "  r{n}: {{ match: {{ hosts: [h{host}.example], path: \"{path}\" }}, to: {{ upstream: one }} }}").unwrap();
    }
    text
}

/// The request of this number: one for each route, as a browser writes it.
fn request(number: usize) -> String {
    let n = number * 7 % ROUTES;
    let (host, kind) = (n % HOSTS, n / HOSTS);
    let path = match kind {
        0..=5 => format!("/service/{kind}/item"),
        6 | 7 => format!("/service/{kind}/{}/part", 1000 + n),
        _ => format!("/service/{kind}/a/b/c?page={n}"),
    };
    format!(
        "GET {path} HTTP/1.1\r\nHost: h{host}.example\r\n\
         User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n\
         Accept: text/html,application/json;q=0.9,*/*;q=0.8\r\nAccept-Language: en-GB,en;q=0.5\r\n\
         Accept-Encoding: gzip, deflate, br\r\nCookie: session=0123456789abcdef0123456789abcdef\r\n\r\n"
    )
}

/// Ports of loopback that nobody has.
fn free<const N: usize>() -> [SocketAddr; N] {
    let held: [TcpListener; N] = std::array::from_fn(|_| TcpListener::bind("127.0.0.1:0").unwrap());
    held.map(|listener| listener.local_addr().unwrap())
}

fn certificate(dir: &Path) -> [String; 2] {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let write = |name: &str, text: String| {
        let path = dir.join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    [write("a.pem", made.cert.pem()), write("a.key", made.signing_key.serialize_pem())]
}

/// A service, a thread for each connection.
fn origin() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            thread::spawn(move || serve(stream.unwrap()));
        }
    });
    address
}

fn serve(mut stream: TcpStream) {
    let head =
        format!("HTTP/1.1 200 OK\r\nServer: origin\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n", BODY.len());
    let answer = [head.as_bytes(), BODY].concat();
    stream.set_nodelay(true).unwrap();
    while read_head(&mut stream).is_some() {
        stream.write_all(&answer).unwrap();
    }
}

/// Everything up to an empty line, and what of the body came with it. None: the end.
fn read_head(stream: &mut TcpStream) -> Option<(String, usize)> {
    let (mut read, mut space) = (Vec::new(), [0; 4096]);
    loop {
        let length = stream.read(&mut space).ok().filter(|length| *length > 0)?;
        read.extend_from_slice(space.get(..length)?);
        if let Some(end) = read.windows(4).position(|four| four == b"\r\n\r\n") {
            let body = read.len() - end - 4;
            return Some((String::from_utf8_lossy(&read).into_owned(), body));
        }
    }
}

fn clients(at: SocketAddr) -> Vec<TcpStream> {
    let begun = Instant::now();
    while TcpStream::connect(at).is_err() {
        assert!(begun.elapsed() < PATIENCE, "nobody listens on {at}");
        thread::sleep(Duration::from_millis(50));
    }
    (0..CONNECTIONS).map(|_| TcpStream::connect(at).unwrap()).collect()
}

/// A request on each connection, then all answers, until so many were asked.
fn ask(clients: &mut [TcpStream], requests: usize) {
    for round in 0..requests / clients.len() {
        for (index, client) in clients.iter_mut().enumerate() {
            client.write_all(request(round * CONNECTIONS + index).as_bytes()).unwrap();
        }
        clients.iter_mut().for_each(answered);
    }
}

fn answered(client: &mut TcpStream) {
    let (head, body) = read_head(client).expect("an answer comes");
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    let mut rest = vec![0; BODY.len() - body];
    client.read_exact(&mut rest).unwrap();
}

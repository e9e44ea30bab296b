//! Where the gateway listens: IPv4 and IPv6, Unix sockets, shared ports, sockets that it inherits.

use std::{
    fs,
    io::{self, Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    os::unix::{
        fs::{FileTypeExt, PermissionsExt},
        net::{UnixListener, UnixStream},
    },
    path::Path,
};

use crate::harness::{
    Gateway, PATIENCE, eventually,
    gateway::{Ports, Start},
    h2,
};

const HERE: &str = "routes: { all: { to: { respond: { body: here } } } }";

const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

trait Stream: Read + Write {
    fn with_patience(self) -> Self;
}

impl Stream for TcpStream {
    fn with_patience(self) -> Self {
        self.set_read_timeout(Some(PATIENCE)).unwrap();
        self
    }
}

impl Stream for UnixStream {
    fn with_patience(self) -> Self {
        self.set_read_timeout(Some(PATIENCE)).unwrap();
        self
    }
}

fn send(stream: &mut impl Stream, path: &str) {
    let head = format!("GET {path} HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 192.0.2.7\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
}

#[track_caller]
fn is_answered(stream: impl Stream) {
    let mut answer = String::new();
    stream.with_patience().read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("here"), "{answer}");
}

/// One request on a connection of its own.
#[track_caller]
fn answers(mut stream: impl Stream, path: &str) {
    send(&mut stream, path);
    is_answered(stream);
}

fn tcp(gateway: &Gateway, ip: IpAddr) -> io::Result<TcpStream> {
    TcpStream::connect(SocketAddr::new(ip, gateway.web().port()))
}

fn on(listeners: &str) -> Start {
    Start::on(&format!("listeners: {{ {listeners} }}\n{HERE}"))
}

fn has_ipv6() -> bool {
    TcpListener::bind("[::1]:0").is_ok()
}

fn accepted(gateway: &Gateway, listener: &str) -> f64 {
    gateway.metric(&format!("banyan_connections_total{{listener=\"{listener}\"}}")).unwrap_or_default()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn an_ipv6_address_is_served() {
    if !has_ipv6() {
        return;
    }
    let gateway = on("web: { address: \"[::1]:<web>\" }").ready();
    answers(tcp(&gateway, V6).unwrap(), "/six");
    assert_eq!(gateway.logged_path("/six")["client"], "::1");
    assert!(tcp(&gateway, V4).is_err());
}

#[test]
fn both_kinds_of_addresses_are_served_on_one_port() {
    if !has_ipv6() {
        return;
    }
    let gateway = on("web: { address: \"[::]:<web>\" }").ready();
    answers(tcp(&gateway, V6).unwrap(), "/six");
    answers(tcp(&gateway, V4).unwrap(), "/four");
    assert_eq!(gateway.logged_path("/six")["client"], "::1");
    assert_eq!(gateway.logged_path("/four")["client"], "127.0.0.1", "not `::ffff:127.0.0.1`");
    assert_eq!(accepted(&gateway, "web"), 2.0);
}

#[test]
fn an_ipv4_client_of_both_kinds_is_trusted_by_its_ipv4_address() {
    if !has_ipv6() {
        return;
    }
    let yaml = format!("listeners: {{ web: {{ address: \"[::]:<web>\" }} }}\ntrusted_proxies: [127.0.0.0/8]\n{HERE}");
    let gateway = Start::on(&yaml).ready();
    answers(tcp(&gateway, V4).unwrap(), "/four");
    assert_eq!(gateway.logged_path("/four")["client"], "192.0.2.7");
}

#[test]
fn ipv6_only_refuses_ipv4() {
    if !has_ipv6() {
        return;
    }
    let gateway = on("web: { address: \"[::]:<web>\", ipv6_only: true }").ready();
    answers(tcp(&gateway, V6).unwrap(), "/six");
    assert_eq!(tcp(&gateway, V4).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
}

#[test]
fn each_kind_of_address_may_have_its_own_listener_on_one_port() {
    if !has_ipv6() {
        return;
    }
    let gateway = on("six: { address: \"[::]:<web>\", ipv6_only: true }, four: { address: 0.0.0.0:<web> }").ready();
    answers(tcp(&gateway, V6).unwrap(), "/six");
    answers(tcp(&gateway, V4).unwrap(), "/four");
    answers(tcp(&gateway, V4).unwrap(), "/four");
    assert_eq!((accepted(&gateway, "six"), accepted(&gateway, "four")), (1.0, 2.0));
}

#[test]
fn a_unix_socket_is_served_and_removed_at_the_end() {
    let mut gateway = on("web: { address: \"unix:run/web.sock\" }").file("run/empty", "").ready();
    let file = gateway.dir().join("run/web.sock");
    assert_eq!(mode(&file), 0o660);
    answers(UnixStream::connect(&file).unwrap(), "/one");
    let entry = gateway.logged_path("/one");
    assert_eq!(entry["client"], "127.0.0.1");
    let second = h2::play(async {
        let mut sender = h2::client(tokio::net::UnixStream::connect(&file).await.unwrap()).await;
        sender.send_request(http::Request::get("http://a.example/two").body(h2::full("")).unwrap()).await.unwrap()
    });
    assert_eq!(second.status(), 200);
    assert_eq!(gateway.logged_path("/two")["protocol"], "HTTP/2");
    assert_eq!(accepted(&gateway, "web"), 2.0);
    gateway.signal("TERM");
    assert!(gateway.exit().success());
    assert!(!file.exists());
}

#[test]
fn who_comes_by_a_unix_socket_is_trusted_like_127_0_0_1() {
    let yaml = format!("listeners: {{ web: {{ address: \"unix:web.sock\" }} }}\ntrusted_proxies: [127.0.0.1]\n{HERE}");
    let gateway = Start::on(&yaml).ready();
    answers(UnixStream::connect(gateway.dir().join("web.sock")).unwrap(), "/a");
    assert_eq!(gateway.logged_path("/a")["client"], "192.0.2.7");
}

#[test]
fn a_unix_socket_has_the_mode_that_is_written() {
    let gateway = on("web: { address: \"unix:<dir>/web.sock\", mode: \"0606\" }").ready();
    assert_eq!(mode(&gateway.dir().join("web.sock")), 0o606);
}

#[test]
fn a_unix_socket_that_nobody_listens_on_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("web.sock");
    drop(UnixListener::bind(&file).unwrap());
    assert!(UnixStream::connect(&file).is_err());
    let _gateway = on("web: { address: \"unix:web.sock\" }").dir(dir).ready();
    answers(UnixStream::connect(&file).unwrap(), "/a");
}

#[test]
fn a_unix_socket_that_another_process_listens_on_is_left_alone() {
    let elsewhere = tempfile::tempdir().unwrap();
    let file = elsewhere.path().join("web.sock");
    let other = UnixListener::bind(&file).unwrap();
    let (status, said) = on(&format!("web: {{ address: \"unix:{}\" }}", file.display())).fails();
    assert_eq!(status.code(), Some(69));
    let expected = format!("cannot listen on unix:{} (listeners.web.address)", file.display());
    assert!(said.contains(&expected) && said.contains("another process listens on it"), "{said}");
    other.set_nonblocking(true).unwrap();
    drop(other.accept().expect("it was asked"));
    UnixStream::connect(&file).expect("it is still there");
}

#[test]
fn a_file_that_is_no_socket_is_never_removed() {
    let elsewhere = tempfile::tempdir().unwrap();
    let (file, link) = (elsewhere.path().join("file"), elsewhere.path().join("link"));
    fs::write(&file, "precious").unwrap();
    std::os::unix::fs::symlink("nowhere", &link).unwrap();
    for path in [&file, &link] {
        let (status, said) = on(&format!("web: {{ address: \"unix:{}\" }}", path.display())).fails();
        assert_eq!(status.code(), Some(73));
        assert!(said.contains("there is a file of this name already, which is no socket"), "{said}");
    }
    assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
    assert!(link.is_symlink());
}

#[test]
fn a_socket_that_has_taken_the_place_of_ours_is_not_removed() {
    let mut gateway = on("web: { address: \"unix:web.sock\" }").ready();
    let file = gateway.dir().join("web.sock");
    // Both exist at once, so that the number of the first is not given again.
    let successor = gateway.dir().join("next.sock");
    let _successor = UnixListener::bind(&successor).unwrap();
    fs::rename(&successor, &file).unwrap();
    gateway.signal("TERM");
    assert!(gateway.exit().success());
    assert!(fs::symlink_metadata(&file).unwrap().file_type().is_socket());
}

#[test]
fn a_failure_on_one_listener_leaves_no_socket_of_another() {
    let elsewhere = tempfile::tempdir().unwrap();
    let file = elsewhere.path().join("a.sock");
    let listeners = format!("a: {{ address: \"unix:{}\" }}, b: {{ address: \"unix:no-folder/b.sock\" }}", file.display());
    let (_, said) = on(&listeners).fails();
    assert!(said.contains("(listeners.b.address)") && said.contains("No such file or directory"), "{said}");
    assert!(!file.exists());
}

#[test]
fn the_admin_listener_may_be_a_unix_socket() {
    let yaml = format!("admin: {{ address: \"unix:admin.sock\" }}\n{HERE}");
    let gateway = Start::on(&yaml).launched();
    let file = gateway.dir().join("admin.sock");
    let mut admin = eventually("the admin listener", || UnixStream::connect(&file).ok()).with_patience();
    admin.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    admin.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert_eq!(mode(&file), 0o660);
}

fn sharing(ports: &Ports, reuse: bool) -> Start {
    on(&format!("web: {{ address: 127.0.0.1:<web>, reuse_port: {reuse} }}")).ports(ports.clone())
}

/// Chosen while they are free; the admin port is each gateway's own.
fn one_port() -> Ports {
    let mut ports = Ports::default();
    ports.add("<web>");
    ports
}

#[test]
fn two_processes_share_a_port() {
    let ports = one_port();
    let one = sharing(&ports, true).ready();
    let two = sharing(&ports, true).ready();
    assert_eq!(one.web(), two.web());
    eventually("both are asked", || {
        answers(tcp(&one, V4).unwrap(), "/");
        (accepted(&one, "web") > 0.0 && accepted(&two, "web") > 0.0).then_some(())
    });
    drop(one);
    answers(tcp(&two, V4).unwrap(), "/after");
    two.logged_path("/after");
}

#[test]
fn a_port_is_shared_only_by_those_who_say_so() {
    let ports = one_port();
    let one = sharing(&ports, true).ready();
    let (status, said) = sharing(&ports, false).fails();
    assert_eq!(status.code(), Some(69));
    let expected = format!("cannot listen on {} (listeners.web.address)", one.web());
    assert!(said.contains(&expected) && said.contains("Address already in use"), "{said}");
}

/// A port that is bound, as `<web>`.
fn bound() -> (TcpListener, Ports) {
    let listener = TcpListener::bind((V4, 0)).unwrap();
    let mut ports = Ports::default();
    ports.set("web", listener.local_addr().unwrap().port());
    (listener, ports)
}

const WEB: &str = "web: { address: 127.0.0.1:<web> }";

#[test]
fn who_connects_before_an_activated_gateway_runs_is_answered() {
    let (listener, ports) = bound();
    let mut early = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    send(&mut early, "/early");
    let gateway = on(WEB).ports(ports).inherits(listener).ready();
    is_answered(early);
    gateway.said("listening on an inherited socket at 127.0.0.1:");
    gateway.said("no stream socket");
    answers(tcp(&gateway, V4).unwrap(), "/late");
    assert_eq!(accepted(&gateway, "web"), 2.0);
}

#[test]
fn an_inherited_unix_socket_is_served_and_stays() {
    let elsewhere = tempfile::tempdir().unwrap();
    let file = elsewhere.path().join("web.sock");
    let listener = UnixListener::bind(&file).unwrap();
    let mut early = UnixStream::connect(&file).unwrap();
    send(&mut early, "/early");
    let start = on(&format!("web: {{ address: \"unix:{}\", mode: \"0600\" }}", file.display()));
    let mut gateway = start.inherits(listener).ready();
    is_answered(early);
    assert_eq!(mode(&file), 0o600);
    assert_eq!(accepted(&gateway, "web"), 1.0);
    gateway.signal("TERM");
    assert!(gateway.exit().success());
    assert!(file.exists(), "it is removed by whoever made it");
}

#[test]
fn an_inherited_socket_that_no_listener_names_is_told() {
    let (listener, _) = bound();
    let address = listener.local_addr().unwrap();
    let gateway = on(WEB).inherits(listener).ready();
    gateway.said(&format!("an inherited socket is left alone: no listener has the address `{address}`"));
    answers(tcp(&gateway, V4).unwrap(), "/a");
}

#[test]
fn sockets_that_are_meant_for_another_process_are_not_taken() {
    let (listener, ports) = bound();
    let (status, said) = on(WEB).ports(ports).inherits(listener).env("LISTEN_PID", "1").fails();
    assert_eq!(status.code(), Some(69));
    assert!(said.contains("Address already in use"), "{said}");
}

#[test]
fn an_inherited_socket_must_be_what_the_configuration_says() {
    if !has_ipv6() {
        return;
    }
    let listener = TcpListener::bind("[::]:0").unwrap();
    let mut ports = Ports::default();
    ports.set("web", listener.local_addr().unwrap().port());
    let start = on("web: { address: \"[::]:<web>\", ipv6_only: true }").ports(ports);
    let (_, said) = start.inherits(listener).fails();
    assert!(said.contains("`ipv6_only` is true, but the inherited socket was opened otherwise (BindIPv6Only=)"), "{said}");
    let (listener, ports) = bound();
    let (_, said) = on("web: { address: 127.0.0.1:<web>, reuse_port: true }").ports(ports).inherits(listener).fails();
    assert!(said.contains("`reuse_port` is true, but the inherited socket was opened otherwise (ReusePort=)"), "{said}");
}

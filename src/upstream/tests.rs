//! Upstreams against real sockets, and over reloads.

use std::{
    future::Future,
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Empty;
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use pingora_core::{connectors::http::Connector, upstreams::peer::Peer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    sync::mpsc,
    time,
};
use tokio_rustls::TlsAcceptor;

use super::*;

fn config(yaml: &str) -> config::Upstream {
    serde_yaml::from_str(yaml).unwrap()
}

fn name() -> UpstreamName {
    UpstreamName::new("shop")
}

fn compile(yaml: &str, states: &States) -> Arc<Upstream> {
    Upstream::compile(&name(), &config(yaml), states).unwrap()
}

fn address(port: u16) -> SocketAddr {
    ([127, 0, 0, 1], port).into()
}

/// The ports that as many requests in a row go to.
fn ports(upstream: &Upstream, count: usize, tried: &Tried) -> Vec<u16> {
    (0..count).map(|_| upstream.pick(tried, &Wish::default()).unwrap().address().port()).collect()
}

const WEIGHTED: &str = "endpoints: [{ address: 127.0.0.1:1, weight: 5 }, 127.0.0.1:2, 127.0.0.1:3]";

#[test]
fn requests_follow_the_weights_smoothly() {
    let upstream = compile(WEIGHTED, &States::default());
    assert_eq!(ports(&upstream, 8, &Tried::default()), [1, 1, 2, 1, 3, 1, 1, 1]);
}

#[test]
fn proportions_of_the_healthy_stay_exact_when_one_is_down() {
    let weighted = "endpoints: [{ address: 127.0.0.1:1, weight: 5 }, { address: 127.0.0.1:2, weight: 3 }, 127.0.0.1:3]";
    let upstream = compile(weighted, &States::default());
    upstream.pool.endpoints[0].health.force(false);
    upstream.pool.lay_out();
    let ports = ports(&upstream, 400, &Tried::default());
    let of = |port| ports.iter().filter(|p| **p == port).count();
    assert_eq!((of(1), of(2), of(3)), (0, 300, 100));
}

#[test]
fn what_was_tried_is_not_picked_again() {
    let upstream = compile(WEIGHTED, &States::default());
    let mut tried = Tried::default();
    for left in [3, 2, 1] {
        let lease = upstream.pick(&tried, &Wish::default()).unwrap();
        assert!(!tried.contains(&lease.address()), "{left}");
        tried.push(lease.address());
    }
    assert!(upstream.pick(&tried, &Wish::default()).is_ok(), "there is no other");
}

#[test]
fn unhealthy_and_weightless_endpoints_are_never_picked() {
    let upstream = compile("endpoints: [127.0.0.1:1, { address: 127.0.0.1:2, weight: 0 }]", &States::default());
    assert_eq!(ports(&upstream, 3, &Tried::default()), [1, 1, 1]);
    upstream.pool.endpoints[0].health.force(false);
    upstream.pool.lay_out();
    assert_eq!(upstream.pick(&Tried::default(), &Wish::default()).unwrap_err(), UpstreamFault::NoEndpoint);
}

#[test]
fn leases_are_counted_until_they_are_dropped() {
    let upstream = compile("endpoints: [127.0.0.1:1]", &States::default());
    let view = || upstream.endpoints().map(|e| (e.in_flight, e.faults)).collect::<Vec<_>>();
    let (one, mut other) = (
        upstream.pick(&Tried::default(), &Wish::default()).unwrap(),
        upstream.pick(&Tried::default(), &Wish::default()).unwrap(),
    );
    other.report(Ended::NoConnection);
    assert_eq!(view(), [(2, 1)]);
    drop((one, other));
    assert_eq!(view(), [(0, 1)]);
}

#[test]
fn reload_that_changes_nothing_keeps_the_running_upstream() {
    let states = States::default();
    let running = compile(WEIGHTED, &states);
    running.start(&states);
    assert!(Arc::ptr_eq(&running, &compile(WEIGHTED, &states)));
    assert!(states.running(&name()).is_some());
    drop(running);
    assert!(states.running(&name()).is_none());
}

#[test]
fn candidate_that_is_not_started_changes_nothing() {
    let states = States::default();
    let running = compile(WEIGHTED, &states);
    running.start(&states);
    let candidate = compile("endpoints: [127.0.0.1:1]", &states);
    assert!(!Arc::ptr_eq(&running, &candidate));
    assert!(Arc::ptr_eq(&running, &compile(WEIGHTED, &states)));
}

#[tokio::test]
async fn endpoints_keep_their_state_over_a_reload() {
    let states = States::default();
    let checked =
        |rest: &str| format!("{{ endpoints: [127.0.0.1:1, 127.0.0.1:2], health: {{ tcp: {{ interval: 1h }} }}{rest} }}");
    let running = compile(&checked(""), &states);
    running.start(&states);
    running.pool.endpoints[0].health.force(false);
    running.pool.lay_out();
    let lease = running.pick(&Tried::default(), &Wish::default()).unwrap();
    assert_eq!(lease.address(), address(2));
    let next = compile(&checked(", timeouts: { connect: 3s }"), &states);
    next.start(&states);
    let views: Vec<_> = next.endpoints().map(|e| (e.healthy, e.in_flight)).collect();
    assert_eq!(views, [(false, 0), (true, 1)], "health and load are those of before");
    assert_eq!(ports(&next, 2, &Tried::default()), [2, 2]);
    let other_check = compile("{ endpoints: [127.0.0.1:1, 127.0.0.1:2], health: { tcp: { interval: 2h } } }", &states);
    let views: Vec<_> = other_check.endpoints().map(|e| (e.healthy, e.in_flight)).collect();
    assert_eq!(views, [(true, 0), (true, 1)], "another check knows nothing yet, the load is there all the same");
}

#[test]
fn mistakes_are_found_at_their_keys() {
    let check = |yaml: &str, key: &str, expected: &str| {
        let problems = Upstream::compile(&name(), &config(yaml), &States::default()).unwrap_err();
        let found =
            problems.iter().any(|p| p.path.to_string() == format!("upstreams.shop.{key}") && p.message.contains(expected));
        assert!(found, "{yaml}: {problems:?}");
    };
    let on = |rest: &str| format!("{{ endpoints: [127.0.0.1:1], {rest} }}");
    check("endpoints: []", "endpoints", "empty");
    check("endpoints: [{ address: 127.0.0.1:1, weight: 0 }]", "endpoints", "all weights are 0");
    check("endpoints: [127.0.0.1:1, 127.0.0.1:2, 127.0.0.1:1]", "endpoints[2]", "listed twice");
    check("endpoints: [127.0.0.1:0]", "endpoints[0]", "nothing can be reached");
    check(&on("protocol: h2"), "protocol", "no `tls`");
    check(&on("protocol: h2c, tls: { server_name: a }"), "protocol", "plain text");
    check(&on("tls: { server_name: '' }"), "tls.server_name", "nothing could be verified");
    check(&on("tls: { server_name: 'a b' }"), "tls.server_name", "not a DNS name");
    check(&on("tls: { server_name: a, ca: /nowhere/ca.pem }"), "tls.ca", "/nowhere/ca.pem`: No such file");
    check(&on("tls: { server_name: a, ca: Cargo.toml }"), "tls.ca", "no certificate");
    check(&on("health: { http: { path: healthz } }"), "health.http.path", "not a path");
    check(&on("health: { http: { path: '/a b' } }"), "health.http.path", "not a path");
    check(&on("health: { http: { path: /, host: 'a b' } }"), "health.http.host", "not a host");
}

#[test]
fn all_mistakes_are_found_at_once() {
    let config = config("{ endpoints: [], protocol: h2, health: { http: { path: x } } }");
    assert_eq!(Upstream::compile(&name(), &config, &States::default()).unwrap_err().len(), 3);
}

#[test]
fn timeouts_of_a_route_go_before_its_upstreams() {
    let route = config::route::RouteTimeouts { response: Some(crate::units::Duration::from_secs(90)), ..Default::default() };
    let secs = Duration::from_secs;
    let timeouts = EffectiveTimeouts::of(&route, &config::upstream::Timeouts::default());
    assert_eq!((timeouts.response, timeouts.request, timeouts.idle), (secs(90), secs(60), secs(60)));
    assert_eq!((timeouts.silence(), timeouts.upgraded().silence()), (secs(90), secs(3600)));
    assert_eq!(timeouts.within(secs(0)).connect, secs(0));
    let lease = compile("endpoints: [127.0.0.1:1]", &States::default()).pick(&Tried::default(), &Wish::default()).unwrap();
    let peer = lease.peer(&timeouts, || unreachable!());
    assert_eq!((peer.options.connection_timeout, peer.options.read_timeout), (Some(secs(1)), None));
    assert_eq!((peer.options.idle_timeout, peer.options.write_timeout), (Some(secs(50)), Some(secs(90))));
}

#[test]
fn connections_of_other_protocol_or_identity_are_not_shared() {
    install_provider();
    let (files, other) = (Files::new("shop.internal"), Files::new("shop.internal"));
    let tls = |files: &Files, name: &str| format!("tls: {{ server_name: {name}, ca: {} }}", files.ca.display());
    let pair = |shown: &Files| format!("{{ cert: {}, key: {} }}", shown.ca.display(), shown.key.display());
    let own = |shown| tls(&files, &format!("shop.internal, client_certificate: {}", pair(shown)));
    let configs = [
        "protocol: http1".to_owned(),
        "protocol: h2c".to_owned(),
        tls(&files, "shop.internal"),
        tls(&files, "other.internal"),
        tls(&other, "shop.internal"),
        format!("protocol: h2, {}", tls(&files, "shop.internal")),
        own(&files),
        own(&other),
    ];
    let timeouts = EffectiveTimeouts::of(&Default::default(), &Default::default());
    let hashes = configs.iter().map(|rest| {
        let upstream = compile(&format!("{{ endpoints: [127.0.0.1:1], {rest} }}"), &States::default());
        upstream.pick(&Tried::default(), &Wish::default()).unwrap().peer(&timeouts, || unreachable!()).reuse_hash()
    });
    let distinct: std::collections::HashSet<u64> = hashes.collect();
    assert_eq!(distinct.len(), configs.len());
}

#[test]
fn another_content_of_the_ca_file_is_another_upstream() {
    install_provider();
    let (files, other) = (Files::new("shop.internal"), Files::new("shop.internal"));
    let yaml = format!("{{ endpoints: [127.0.0.1:1], tls: {{ server_name: shop.internal, ca: {} }} }}", files.ca.display());
    let states = States::default();
    let running = compile(&yaml, &states);
    running.start(&states);
    assert!(Arc::ptr_eq(&running, &compile(&yaml, &states)));
    std::fs::copy(&other.ca, &files.ca).unwrap();
    assert!(!Arc::ptr_eq(&running, &compile(&yaml, &states)));
}

#[test]
fn host_is_the_server_name_or_the_address() {
    install_provider();
    let files = Files::new("shop.internal");
    let host = |rest: &str| {
        let upstream = compile(&format!("{{ endpoints: [127.0.0.1:1], {rest} }}"), &States::default());
        upstream.pick(&Tried::default(), &Wish::default()).unwrap().host().to_str().unwrap().to_owned()
    };
    assert_eq!(host("protocol: http1"), "127.0.0.1:1");
    assert_eq!(host(&format!("tls: {{ server_name: shop.internal, ca: {} }}", files.ca.display())), "shop.internal");
}

#[tokio::test]
async fn endpoint_that_fails_its_checks_gets_no_traffic_until_it_is_back() {
    let service = Service::plain(Speaks::Http1).await;
    let address = service.address;
    let upstream = watched(&format!(
        "{{ endpoints: ['{address}'], health: {{ http: {{ path: /healthz, interval: 5ms, healthy_after: 2, unhealthy_after: 3 }} }} }}"
    ));
    within(upstream.first_round()).await;
    assert!(upstream.first_round_done());
    assert!(upstream.pick(&Tried::default(), &Wish::default()).is_ok());
    service.up.store(false, Ordering::Relaxed);
    within(until(&upstream, |view| !view.healthy)).await;
    within(async {
        while upstream.pick(&Tried::default(), &Wish::default()).is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    service.up.store(true, Ordering::Relaxed);
    within(until(&upstream, |view| view.healthy)).await;
}

#[tokio::test]
async fn http_check_says_who_asks_for_what() {
    let mut service = Service::plain(Speaks::Http1).await;
    let (address, on) = (service.address, |rest: &str, address| {
        watched(&format!("{{ endpoints: ['{address}'], health: {{ http: {{ path: '/healthz?deep=1', interval: 1h{rest} }} }} }}"))
    });
    let _unnamed = on("", address);
    let (target, host, agent) = within(service.asked.recv()).await.unwrap();
    assert_eq!((target.as_str(), host), ("/healthz?deep=1", address.to_string()));
    assert!(agent.starts_with("banyan/"), "{agent}");
    let _named = on(", host: shop.internal", address);
    assert_eq!(within(service.asked.recv()).await.unwrap().1, "shop.internal");
}

#[tokio::test]
async fn refused_connection_is_unhealthy_and_an_open_port_is_not() {
    let open = TcpListener::bind(address(0)).await.unwrap();
    let closed = TcpListener::bind(address(0)).await.unwrap().local_addr().unwrap();
    let upstream = watched(&format!(
        "{{ endpoints: ['{}', '{closed}'], health: {{ tcp: {{ interval: 5ms, unhealthy_after: 1 }} }} }}",
        open.local_addr().unwrap()
    ));
    within(upstream.first_round()).await;
    let healthy: Vec<bool> = upstream.endpoints().map(|e| e.healthy).collect();
    assert_eq!(healthy, [true, false]);
}

#[tokio::test]
async fn service_that_never_answers_is_unhealthy_after_the_timeout() {
    let silent = TcpListener::bind(address(0)).await.unwrap();
    let upstream = watched(&format!(
        "{{ endpoints: ['{}'], health: {{ http: {{ path: /, interval: 5ms, timeout: 20ms, unhealthy_after: 1 }} }} }}",
        silent.local_addr().unwrap()
    ));
    within(upstream.first_round()).await;
    assert!(upstream.endpoints().all(|e| !e.healthy));
}

#[tokio::test]
async fn checks_end_with_their_upstream() {
    let states = States::default();
    let upstream = compile("{ endpoints: [127.0.0.1:1], health: { tcp: { interval: 1h } } }", &states);
    upstream.start(&states);
    let pool = Arc::downgrade(&upstream.pool);
    drop(upstream);
    within(async {
        while pool.strong_count() > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn checks_end_when_another_takes_the_upstreams_place() {
    let states = States::default();
    let old = compile("{ endpoints: [127.0.0.1:1], health: { tcp: { interval: 1h } } }", &states);
    old.start(&states);
    let next = compile("{ endpoints: [127.0.0.1:1, 127.0.0.1:2], health: { tcp: { interval: 1h } } }", &states);
    next.start(&states);
    within(async {
        while Arc::strong_count(&old.pool) > 1 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(next.watches.get().unwrap().iter().all(|watch| !watch.0.is_finished()));
}

#[tokio::test]
async fn each_protocol_is_checked_as_it_is_spoken() {
    install_provider();
    let files = Files::new("shop.internal");
    let tls = format!("tls: {{ server_name: shop.internal, ca: {} }}", files.ca.display());
    let cases = [
        (Service::plain(Speaks::Http1).await, "protocol: http1".to_owned()),
        (Service::plain(Speaks::Http2).await, "protocol: h2c".to_owned()),
        (Service::tls(Speaks::Http1, &files).await, tls.clone()),
        (Service::tls(Speaks::Http2, &files).await, format!("protocol: h2, {tls}")),
    ];
    for (service, rest) in &cases {
        for check in ["http: { path: /healthz, unhealthy_after: 1, interval: 1h }", "tcp: { unhealthy_after: 1, interval: 1h }"] {
            let upstream = watched(&format!("{{ endpoints: ['{}'], {rest}, health: {{ {check} }} }}", service.address));
            within(upstream.first_round()).await;
            assert!(upstream.endpoints().all(|e| e.healthy), "{rest} {check}");
        }
    }
}

#[tokio::test]
async fn service_is_verified_by_authority_and_name() {
    install_provider();
    let (files, other) = (Files::new("shop.internal"), Files::new("shop.internal"));
    let service = Service::tls(Speaks::Http1, &files).await;
    let check = async |ca: &PathBuf, name: &str, expected: Option<UpstreamFault>| {
        let tls = format!("tls: {{ server_name: {name}, ca: {} }}", ca.display());
        let upstream = compile(&format!("{{ endpoints: ['{}'], {tls} }}", service.address), &States::default());
        let timeouts = EffectiveTimeouts::of(&Default::default(), upstream.timeouts());
        let peer = upstream.pick(&Tried::default(), &Wish::default()).unwrap().peer(&timeouts, || unreachable!());
        let outcome = within(Connector::new(None).get_http_session(&*peer)).await;
        assert_eq!(outcome.err().and_then(|e| client::fault(&e)), expected, "{name}");
    };
    check(&files.ca, "shop.internal", None).await;
    check(&files.ca, "other.internal", Some(UpstreamFault::Tls)).await;
    check(&other.ca, "shop.internal", Some(UpstreamFault::Tls)).await;
}

#[tokio::test]
async fn refused_connection_is_a_connect_fault() {
    let closed = TcpListener::bind(address(0)).await.unwrap().local_addr().unwrap();
    let upstream = compile(&format!("endpoints: ['{closed}']"), &States::default());
    let timeouts = EffectiveTimeouts::of(&Default::default(), upstream.timeouts());
    let peer = upstream.pick(&Tried::default(), &Wish::default()).unwrap().peer(&timeouts, || unreachable!());
    let error = within(Connector::new(None).get_http_session(&*peer)).await.err().unwrap();
    assert_eq!(client::fault(&error), Some(UpstreamFault::Connect));
}

/// Compiles and starts an upstream of its own.
fn watched(yaml: &str) -> Arc<Upstream> {
    install_provider();
    let states = States::default();
    let upstream = compile(yaml, &states);
    upstream.start(&states);
    upstream
}

/// Waits for the only endpoint to look so.
async fn until(upstream: &Upstream, as_expected: impl Fn(EndpointView) -> bool) {
    while !upstream.endpoints().all(&as_expected) {
        upstream.pool.endpoints[0].health.next_check().await;
    }
}

/// Waits, for as long as a test may take at most.
async fn within<T>(future: impl Future<Output = T>) -> T {
    time::timeout(Duration::from_secs(20), future).await.expect("it happens in time")
}

fn install_provider() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

/// A certificate that vouches for itself, and its key.
struct Files {
    ca: PathBuf,
    key: PathBuf,
    _dir: tempfile::TempDir,
}

impl Files {
    fn new(name: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        let (ca, key) = (dir.path().join("ca.pem"), dir.path().join("key.pem"));
        std::fs::write(&ca, made.cert.pem()).unwrap();
        std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        Self { ca, key, _dir: dir }
    }
    fn acceptor(&self, alpn: &[u8]) -> TlsAcceptor {
        let certified = crate::certs::certified_key(&self.ca, &self.key).unwrap();
        let resolver = Arc::new(rustls::sign::SingleCertAndKey::from(certified.key));
        let mut config = rustls::ServerConfig::builder().with_no_client_auth().with_cert_resolver(resolver);
        config.alpn_protocols = vec![alpn.to_vec()];
        TlsAcceptor::from(Arc::new(config))
    }
}

#[derive(Clone, Copy)]
enum Speaks {
    Http1,
    Http2,
}

/// A service that answers 200 while it is up, else 503, and tells target, host and agent of each request.
struct Service {
    address: SocketAddr,
    up: Arc<AtomicBool>,
    asked: mpsc::UnboundedReceiver<(String, String, String)>,
}

impl Service {
    async fn plain(speaks: Speaks) -> Self {
        Self::start(speaks, None).await
    }
    async fn tls(speaks: Speaks, files: &Files) -> Self {
        let alpn: &[u8] = match speaks {
            Speaks::Http1 => b"http/1.1",
            Speaks::Http2 => b"h2",
        };
        Self::start(speaks, Some(files.acceptor(alpn))).await
    }

    async fn start(speaks: Speaks, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind(address(0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let up = Arc::new(AtomicBool::new(true));
        let (tell, asked) = mpsc::unbounded_channel();
        let state = up.clone();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (state, tell, tls) = (state.clone(), tell.clone(), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => serve(speaks, socket, state, tell).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(socket).await {
                                serve(speaks, stream, state, tell).await;
                            }
                        }
                    }
                });
            }
        });
        Self { address, up, asked }
    }
}

async fn serve<S>(speaks: Speaks, stream: S, up: Arc<AtomicBool>, tell: mpsc::UnboundedSender<(String, String, String)>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let answer = service_fn(move |request: Request<Incoming>| {
        let host = request.uri().authority().map(ToString::to_string);
        let header = |name| request.headers().get(name).map(|v| v.to_str().unwrap().to_owned()).unwrap_or_default();
        let target = request.uri().path_and_query().unwrap().to_string();
        let _ = tell.send((target, host.unwrap_or_else(|| header("host")), header("user-agent")));
        let status = if up.load(Ordering::Relaxed) { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        let response = Response::builder().status(status).body(Empty::<Bytes>::new());
        async move { response }
    });
    let stream = TokioIo::new(stream);
    let _ = match speaks {
        Speaks::Http1 => http1::Builder::new().serve_connection(stream, answer).await,
        Speaks::Http2 => http2::Builder::new(TokioExecutor::new()).serve_connection(stream, answer).await,
    };
}

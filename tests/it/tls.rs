//! TLS of listeners, from outside: what is shown to whom, who is let in, and what a session remembers.

use std::{
    fs,
    net::{SocketAddr, TcpStream},
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use banyan::certs::Staple;
use rustls::{
    ClientConfig, NamedGroup, ProtocolVersion, RootCertStore, SignatureScheme, SupportedProtocolVersion,
    crypto::{CryptoProvider, aws_lc_rs::kx_group},
    version::{TLS12, TLS13},
};

use crate::harness::{
    Connection, Gateway,
    cert::{Authority, Leaf},
    eventually,
    gateway::Start,
    h2::{self, ask, full, play},
    meet::{Witness, client_as, der, meet},
    ocsp::{self, Says},
};

const ECDSA: &[SignatureScheme] = &[SignatureScheme::ECDSA_NISTP256_SHA256];
const RSA: &[SignatureScheme] = &[SignatureScheme::RSA_PSS_SHA256, SignatureScheme::RSA_PKCS1_SHA256];
const ANY: &[SignatureScheme] = &[SignatureScheme::ECDSA_NISTP256_SHA256, SignatureScheme::RSA_PSS_SHA256];

/// A gateway that says `x` over TLS, with these keys in `tls` and these files.
fn gateway(tls: &str, files: &[(&str, &Leaf)], others: &[(&str, &[u8])]) -> Gateway {
    let dir = tempfile::tempdir().unwrap();
    files.iter().for_each(|(name, leaf)| leaf.write(dir.path(), name));
    others.iter().for_each(|(name, bytes)| fs::write(dir.path().join(name), bytes).unwrap());
    Start::on(&yaml(tls)).dir(dir).ready()
}

fn yaml(tls: &str) -> String {
    format!(
        "listeners: {{ secure: {{ address: 127.0.0.1:<secure>, tls: {{ {tls} }} }} }}
routes: {{ all: {{ to: {{ respond: {{ body: x }} }} }} }}"
    )
}

const ONE: &str = "certificates: [{ cert: a.pem, key: a.key }]";

fn now() -> i64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() as i64
}

#[test]
fn the_certificate_is_chosen_by_name_star_and_default() {
    let authority = Authority::new();
    let leaves = [&["first.example"][..], &["*.wild.example"], &["a.wild.example"]].map(|names| authority.leaf(names));
    let files = [("a", &leaves[0]), ("b", &leaves[1]), ("c", &leaves[2])];
    let pairs = "certificates: [{ cert: a.pem, key: a.key }, { cert: b.pem, key: b.key }, { cert: c.pem, key: c.key }]";
    let gateway = gateway(pairs, &files, &[]);
    let check = |name: &str, expected: &Leaf| {
        let witness = Witness::of(&authority, ANY);
        let _ = meet(gateway.address("secure"), name, &witness.client(rustls::DEFAULT_VERSIONS));
        assert!(witness.last().0 == der(expected), "{name}");
    };
    check("first.example", &leaves[0]);
    check("b.wild.example", &leaves[1]);
    check("a.wild.example", &leaves[2]);
    check("a.b.wild.example", &leaves[0]);
    check("unknown.example", &leaves[0]);
    check("127.0.0.1", &leaves[0]);
}

#[test]
fn rsa_and_ecdsa_stand_side_by_side_for_a_name_and_as_the_default() {
    let authority = Authority::new();
    let (rsa, ecdsa) = (authority.rsa_leaf(&["a.example", "127.0.0.1"]), authority.leaf(&["127.0.0.1", "a.example"]));
    let pairs = "certificates: [{ cert: rsa.pem, key: rsa.key }, { cert: ec.pem, key: ec.key }]";
    let gateway = gateway(pairs, &[("rsa", &rsa), ("ec", &ecdsa)], &[]);
    for name in ["a.example", "127.0.0.1"] {
        for versions in [&[&TLS12][..], &[&TLS13]] {
            for (schemes, expected) in [(RSA, &rsa), (ECDSA, &ecdsa), (ANY, &rsa)] {
                // The authority signs with ECDSA; only the server's own signature is of the client's schemes.
                let witness = Witness::of(&authority, schemes);
                let met = meet(gateway.address("secure"), name, &witness.client(versions)).unwrap();
                assert_eq!((met.status, witness.last().0 == der(expected)), (200, true), "{name} {schemes:?} {versions:?}");
            }
        }
    }
}

#[test]
fn min_version_changes_at_reload() {
    let authority = Authority::new();
    let leaf = authority.leaf(&["a"]);
    let mut gateway = gateway(ONE, &[("a", &leaf)], &[]);
    let address = gateway.address("secure");
    let (old, new) = (authority.client_of(&[&TLS12]), authority.client_of(&[&TLS13]));
    assert_eq!(meet(address, "a", &old).unwrap().version, ProtocolVersion::TLSv1_2);
    gateway.reload(&yaml(&format!("{ONE}, min_version: \"1.3\"")));
    let error = meet(address, "a", &old).unwrap_err().to_string();
    assert!(error.contains("ProtocolVersion"), "{error}");
    assert_eq!(meet(address, "a", &new).unwrap().version, ProtocolVersion::TLSv1_3);
    assert!(gateway.admin("/config").json()["waits_for_restart"].as_array().is_none_or(Vec::is_empty));
    gateway.assert_sound();
}

#[test]
fn post_quantum_key_exchange_is_taken_and_preferred() {
    let authority = Authority::new();
    let gateway = gateway(ONE, &[("a", &authority.leaf(&["a"]))], &[]);
    let check = |groups: &[&'static dyn rustls::crypto::SupportedKxGroup], expected: NamedGroup| {
        let offered = CryptoProvider { kx_groups: groups.to_vec(), ..rustls::crypto::aws_lc_rs::default_provider() };
        let builder = ClientConfig::builder_with_provider(Arc::new(offered)).with_protocol_versions(&[&TLS13]).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(authority.der().clone()).unwrap();
        let client = Arc::new(builder.with_root_certificates(roots).with_no_client_auth());
        assert_eq!(meet(gateway.address("secure"), "a", &client).unwrap().group, Some(expected));
    };
    check(&[kx_group::X25519MLKEM768], NamedGroup::X25519MLKEM768);
    check(&[kx_group::X25519MLKEM768, kx_group::X25519], NamedGroup::X25519MLKEM768);
    check(&[kx_group::X25519], NamedGroup::X25519);
    check(&[kx_group::SECP256R1], NamedGroup::secp256r1);
}

#[test]
fn a_client_without_a_shared_protocol_is_refused_and_no_error_is_logged() {
    let authority = Authority::new();
    let mut gateway = gateway(ONE, &[("a", &authority.leaf(&["a"]))], &[]);
    let address = gateway.address("secure");
    for (alpn, expected) in [(&["http/1.1"][..], Some("http/1.1")), (&["spdy/3", "http/1.1"], Some("http/1.1")), (&[], None)] {
        assert_eq!(meet(address, "a", &authority.client(alpn)).unwrap().alpn.as_deref(), expected.map(str::as_bytes));
    }
    let error = meet(address, "a", &authority.client(&["spdy/3"])).unwrap_err().to_string();
    assert!(error.contains("NoApplicationProtocol"), "{error}");
    assert!(Connection::open(address).send_head("GET / HTTP/1.1\nHost: a").try_response("GET").is_err());
    drop(TcpStream::connect(address).unwrap());
    assert!(meet(address, "a", &Authority::new().client(&[])).is_err(), "a client that does not trust us");
    assert_eq!(meet(address, "a", &authority.client(&[])).unwrap().status, 200);
    assert!(!gateway.stderr.text().contains("ERROR"), "{}", gateway.stderr.text());
    play(async {
        let mut client = h2::h2(address, "a", authority.client(&["http/1.1", "h2"])).await;
        let answer = ask(&mut client, http::Request::get("https://a/").body(full("")).unwrap()).await;
        assert_eq!(answer.head.status, 200, "of the two, HTTP/2 is ours to prefer");
    });
    gateway.assert_sound();
}

fn mutual(mode: &str) -> String {
    format!("{ONE}, client_auth: {{ mode: {mode}, ca: ca.pem }}")
}

#[test]
fn client_certificates_are_required_or_optional() {
    let (authority, ours, strange) = (Authority::new(), Authority::new(), Authority::new());
    let leaf = authority.leaf(&["a"]);
    let (alice, mallory) = (ours.leaf(&["alice"]), strange.leaf(&["alice"]));
    for (mode, nameless) in [("required", false), ("optional", true)] {
        let gateway = gateway(&mutual(mode), &[("a", &leaf)], &[("ca.pem", ours.pem().as_bytes())]);
        let address = gateway.address("secure");
        for versions in [&[&TLS12][..], &[&TLS13]] {
            let passes = |client: Arc<ClientConfig>| meet(address, "a", &client).is_ok_and(|met| met.status == 200);
            assert!(passes(client_as(&authority, &alice, versions)), "{mode} {versions:?}");
            assert!(!passes(client_as(&authority, &mallory, versions)), "{mode} {versions:?}");
            assert_eq!(passes(authority.client_of(versions)), nameless, "{mode} {versions:?}");
        }
    }
}

#[test]
fn a_session_of_before_a_change_of_authorities_does_not_pass() {
    let (authority, old, new) = (Authority::new(), Authority::new(), Authority::new());
    let leaf = authority.leaf(&["a"]);
    let gateway = gateway(&mutual("required"), &[("a", &leaf)], &[("ca.pem", old.pem().as_bytes())]);
    let address = gateway.address("secure");
    let (of_old, of_new) = (old.leaf(&["alice"]), new.leaf(&["bob"]));
    let versions = [&[&TLS12][..], &[&TLS13]];
    let sessions = versions.map(|versions| client_as(&authority, &of_old, versions));
    for client in &sessions {
        assert!(!meet(address, "a", client).unwrap().resumed());
        assert!(meet(address, "a", client).unwrap().resumed());
    }
    let before = gateway.generation();
    gateway.replace("ca.pem", &format!("{}{}", old.pem(), new.pem()));
    gateway.wait_past(before);
    for (client, versions) in sessions.iter().zip(versions) {
        assert!(!meet(address, "a", client).unwrap().resumed(), "other clients pass: everyone shows the certificate again");
        assert_eq!(meet(address, "a", &client_as(&authority, &of_new, versions)).unwrap().status, 200);
    }
    let before = gateway.generation();
    gateway.replace("ca.pem", &new.pem());
    gateway.wait_past(before);
    for (client, versions) in sessions.iter().zip(versions) {
        assert!(meet(address, "a", client).is_err(), "a ticket does not stand for a certificate that passes no more");
        assert_eq!(meet(address, "a", &client_as(&authority, &of_new, versions)).unwrap().status, 200);
    }
}

#[test]
fn a_session_does_not_outlive_its_certificate() {
    let (authority, ours) = (Authority::new(), Authority::new());
    let alice = ours.leaf_until(&["alice"], now() as u64 + 6);
    let dir = tempfile::tempdir().unwrap();
    authority.leaf(&["a"]).write(dir.path(), "a");
    fs::write(dir.path().join("ca.pem"), ours.pem()).unwrap();
    let gateway = Start::on(&yaml(&mutual("required"))).dir(dir).env("BANYAN_LOG", "banyan=debug").ready();
    let address = gateway.address("secure");
    let clients = [&TLS12, &TLS13].map(|version| client_as(&authority, &alice, &[version]));
    clients.iter().for_each(|client| assert!(!meet(address, "a", client).unwrap().resumed()));
    clients.iter().for_each(|client| assert!(meet(address, "a", client).unwrap().resumed()));
    for client in &clients {
        eventually("the certificate expires", || meet(address, "a", client).is_err().then_some(()));
    }
    gateway.said("the certificate of the resumed session has expired");
}

#[test]
fn a_broken_bundle_of_authorities_is_refused_and_the_old_one_stays() {
    let (authority, ours) = (Authority::new(), Authority::new());
    let gateway = gateway(&mutual("required"), &[("a", &authority.leaf(&["a"]))], &[("ca.pem", ours.pem().as_bytes())]);
    gateway.replace("ca.pem", "junk");
    gateway.said("`<dir>/ca.pem` holds no certificate".replace("<dir>", &gateway.dir().display().to_string()).as_str());
    let alice = client_as(&authority, &ours.leaf(&["alice"]), rustls::DEFAULT_VERSIONS);
    assert_eq!(meet(gateway.address("secure"), "a", &alice).unwrap().status, 200);
    assert!(meet(gateway.address("secure"), "a", &authority.client(&[])).is_err());
}

#[test]
fn sessions_resume_over_a_reload_and_not_where_tickets_are_off() {
    let authority = Authority::new();
    let mut gateway = gateway(ONE, &[("a", &authority.leaf(&["a"]))], &[]);
    let address = gateway.address("secure");
    let clients = [&TLS12, &TLS13].map(|version| authority.client_of(&[version]));
    clients.iter().for_each(|client| assert!(!meet(address, "a", client).unwrap().resumed()));
    clients.iter().for_each(|client| assert!(meet(address, "a", client).unwrap().resumed()));
    let before = gateway.generation();
    authority.leaf(&["a"]).write(gateway.dir(), "a");
    gateway.signal("HUP");
    gateway.wait_past(before);
    clients.iter().for_each(|client| assert!(meet(address, "a", client).unwrap().resumed(), "another certificate"));
    gateway.reload(&yaml(&format!("{ONE}, tickets: off")));
    for _ in 0..2 {
        clients.iter().for_each(|client| assert!(!meet(address, "a", client).unwrap().resumed(), "off"));
    }
    gateway.assert_sound();
}

#[test]
fn tickets_outlive_one_rotation_of_their_keys_and_not_two() {
    const ROTATE: Duration = Duration::from_secs(4);
    let authority = Authority::new();
    let gateway = gateway(&format!("{ONE}, tickets: {{ rotate: 4s }}"), &[("a", &authority.leaf(&["a"]))], &[]);
    let address = gateway.address("secure");
    let clients = || [&TLS12, &TLS13].map(|version| authority.client_of(&[version]));
    let (once, twice) = (clients(), clients());
    once.iter().chain(&twice).for_each(|client| assert!(!meet(address, "a", client).unwrap().resumed()));
    let sealed = Instant::now();
    let wait = |time: Duration| eventually("the rotation", || (sealed.elapsed() >= time).then_some(()));
    wait(ROTATE);
    once.iter().for_each(|client| assert!(meet(address, "a", client).unwrap().resumed(), "after one rotation"));
    wait(ROTATE * 2);
    for client in &twice {
        let met = meet(address, "a", client).unwrap();
        assert_eq!((met.resumed(), met.status), (false, 200), "after two rotations");
    }
}

#[test]
fn an_ocsp_response_is_stapled_until_its_time_has_passed() {
    let authority = Authority::new();
    let leaf = authority.leaf(&["a"]);
    let fresh = ocsp::response(&leaf.cert, Says::Good, now() - 60, Some(now() + 3600));
    let with = "certificates: [{ cert: a.pem, key: a.key, ocsp: a.der }]";
    let gateway = gateway(with, &[("a", &leaf)], &[("a.der", &fresh)]);
    let stapled = |version: &'static SupportedProtocolVersion| {
        let witness = Witness::of(&authority, ANY);
        meet(gateway.address("secure"), "a", &witness.client(&[version])).unwrap();
        witness.last().1
    };
    for version in [&TLS12, &TLS13] {
        assert!(stapled(version) == fresh, "{version:?}");
    }
    let put = |response: &[u8]| {
        let before = gateway.generation();
        fs::write(gateway.dir().join("next"), response).unwrap();
        fs::rename(gateway.dir().join("next"), gateway.dir().join("a.der")).unwrap();
        gateway.wait_past(before);
    };
    let short = ocsp::response(&leaf.cert, Says::Good, now() - 60, Some(now() + 6));
    put(&short);
    assert!(stapled(&TLS13) == short, "the file is read again");
    eventually("the staple falls off", || stapled(&TLS13).is_empty().then_some(()));
    put(&ocsp::response(&leaf.cert, Says::Good, now() - 7200, Some(now() - 3600)));
    gateway.said("a.der` has expired");
    assert!(stapled(&TLS13).is_empty() && stapled(&TLS12).is_empty());
    put(&ocsp::response(&leaf.cert, Says::Revoked, now() - 60, Some(now() + 3600)));
    gateway.said("a.der` says that the certificate was revoked");
    assert!(stapled(&TLS13).is_empty());
    fs::write(gateway.dir().join("a.der"), ocsp::try_later()).unwrap();
    gateway.said("the authority gave an error instead of an answer");
}

/// What is read of a response for the serial number 5.
#[track_caller]
fn check_staple(dir: &Path, response: &[u8], expected: &str) {
    fs::write(dir.join("a.der"), response).unwrap();
    let read = match Staple::read(&dir.join("a.der"), &[5]) {
        Ok(staple) => format!("{:?} {} {:?}", staple.verdict, staple.span.from, staple.span.until),
        Err(error) => error.to_string(),
    };
    assert!(read.ends_with(expected), "{read}");
}

#[test]
fn ocsp_responses_are_read_whole_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let check = |response: &[u8], expected: &str| check_staple(dir.path(), response, expected);
    let good = ocsp::for_serial(&[5], Says::Good, 1_000_000_000, Some(2_000_000_000));
    check(&good, "Good 1000000000 Some(2000000000)");
    check(&ocsp::for_serial(&[5], Says::Revoked, 1_000_000_000, None), "Revoked 1000000000 None");
    check(&ocsp::for_serial(&[5], Says::Unknown, 1_000_000_000, None), "Unknown 1000000000 None");
    check(&ocsp::for_serial(&[6], Says::Good, 1_000_000_000, None), "it is for another certificate");
    check(&ocsp::try_later(), "the authority gave an error instead of an answer");
    check(&[good.as_slice(), &[0]].concat(), "it is no OCSP response in DER");
    check(&[0; 20_000], "it is larger than 16 KiB");
    for length in 0..good.len() {
        check(&good[..length], "it is no OCSP response in DER");
    }
    for (at, bit) in (0..good.len()).flat_map(|at| (0..8).map(move |bit| (at, bit))) {
        let mut bent = good.clone();
        bent[at] ^= 1 << bit;
        fs::write(dir.path().join("a.der"), bent).unwrap();
        // Whatever a bent bit makes of it, it is read or refused, and nothing is taken from behind its end.
        if let Ok(staple) = Staple::read(&dir.path().join("a.der"), &[5]) {
            assert_eq!(staple.response.len(), good.len());
        }
    }
}

#[test]
fn a_host_that_the_certificate_does_not_cover_is_misdirected() {
    let authority = Authority::new();
    let leaf = authority.leaf(&["a.example", "*.wild.example", "127.0.0.1"]);
    let mut gateway = gateway(ONE, &[("a", &leaf)], &[]);
    let address = gateway.address("secure");
    let mut client = Connection::tls(address, "a.example", authority.client(&[])).unwrap();
    for (host, status) in [
        ("a.example", 200),
        ("b.example", 421),
        ("x.wild.example:8443", 200),
        ("x.y.wild.example", 421),
        ("127.0.0.1", 200),
        ("127.0.0.2", 421),
        ("[::1]:8443", 421),
        ("A.EXAMPLE.", 200),
    ] {
        let answer = client.ask(&format!("GET / HTTP/1.1\nHost: {host}"));
        assert_eq!(answer.status, status, "{host}");
        if status == 421 {
            assert_eq!(answer.json()["code"], "misdirected_request");
            assert_ne!(answer.field("connection"), Some("close"), "the connection stays");
        }
    }
    let mut by_address = Connection::tls(address, "127.0.0.1", authority.client(&[])).unwrap();
    assert_eq!(by_address.ask("GET / HTTP/1.1\nHost: 127.0.0.1").status, 200);
    assert_eq!(by_address.ask("GET / HTTP/1.1\nHost: b.example").status, 421);
    assert_eq!(by_address.send_head("GET / HTTP/1.0").head().status().unwrap(), 200, "no host, none that is not covered");
    play(async {
        let mut client = h2::h2(address, "a.example", authority.client(&["h2"])).await;
        for (uri, status) in [("https://a.example/", 200), ("https://b.example/", 421), ("https://a.example/", 200)] {
            let answer = ask(&mut client, http::Request::get(uri).body(full("")).unwrap()).await;
            assert_eq!(answer.head.status, status, "{uri}");
        }
        let call = http::Request::post("https://b.example/s/m").header("content-type", "application/grpc");
        let answer = ask(&mut client, call.body(full("")).unwrap()).await;
        assert_eq!((answer.head.status.as_u16(), answer.field("grpc-status")), (200, Some("14")));
    });
    assert_eq!(gateway.logged(|entry| entry["status"] == 421)["flag"], "DPE");
    gateway.reload(&yaml(&format!("{ONE}, misdirected: serve")));
    let mut client = Connection::tls(address, "a.example", authority.client(&[])).unwrap();
    assert_eq!(client.ask("GET / HTTP/1.1\nHost: b.example").status, 200);
    gateway.assert_sound();
}

#[test]
fn the_session_of_a_resumed_connection_has_its_certificate_too() {
    let authority = Authority::new();
    let gateway = gateway(ONE, &[("a", &authority.leaf(&["a.example"]))], &[]);
    let client = authority.client(&[]);
    let ask = || {
        let mut connection = Connection::tls(gateway.address("secure"), "a.example", client.clone()).unwrap();
        ["a.example", "b.example"].map(|host| connection.ask(&format!("GET / HTTP/1.1\nHost: {host}")).status)
    };
    assert_eq!([ask(), ask()], [[200, 421]; 2]);
    assert!(meet(gateway.address("secure"), "a.example", &client).unwrap().resumed());
}

/// Clients as they meet a gateway, again and again.
struct Traffic {
    server: Authority,
    /// The certificate that clients show; who holds it is in a handshake.
    identity: Mutex<Arc<Identity>>,
    over: AtomicBool,
    whole: AtomicUsize,
    resumed: AtomicUsize,
    failed: Mutex<Vec<String>>,
}

struct Identity {
    leaf: Leaf,
    /// Remember their sessions.
    remembering: [Arc<ClientConfig>; 2],
}

impl Identity {
    fn of(server: &Authority, ours: &Authority) -> Arc<Self> {
        let leaf = ours.leaf(&["alice"]);
        let remembering = [&TLS12, &TLS13].map(|version| client_as(server, &leaf, &[version]));
        Arc::new(Self { leaf, remembering })
    }
}

impl Traffic {
    fn drive(&self, address: SocketAddr) {
        while !self.over.load(Ordering::SeqCst) {
            let identity = self.identity.lock().unwrap().clone();
            let fresh = client_as(&self.server, &identity.leaf, rustls::DEFAULT_VERSIONS);
            for client in identity.remembering.iter().chain([&fresh]) {
                match meet(address, "a", client) {
                    Ok(met) if met.status == 200 => self.count(met.resumed()),
                    other => self.failed.lock().unwrap().push(format!("{other:?}")),
                }
            }
        }
    }

    fn count(&self, resumed: bool) {
        let count = if resumed { &self.resumed } else { &self.whole };
        count.fetch_add(1, Ordering::SeqCst);
    }

    /// Clients show another certificate from now on; returns when no one shows the old one any more.
    fn switch(&self, next: Arc<Identity>) {
        let old = std::mem::replace(&mut *self.identity.lock().unwrap(), next);
        eventually("no one shows the old certificate", || (Arc::strong_count(&old) == 1).then_some(()));
    }
}

#[test]
fn rotation_under_load_fails_no_handshake() {
    const TIME: Duration = Duration::from_secs(5);
    let server = Authority::new();
    let mut ours = Authority::new();
    let tls = format!("{}, tickets: {{ rotate: 1s }}", mutual("required"));
    let mut gateway = gateway(&tls, &[("a", &server.leaf(&["a"]))], &[("ca.pem", ours.pem().as_bytes())]);
    let traffic = Traffic {
        identity: Mutex::new(Identity::of(&server, &ours)),
        server,
        over: AtomicBool::new(false),
        whole: AtomicUsize::new(0),
        resumed: AtomicUsize::new(0),
        failed: Mutex::default(),
    };
    let address = gateway.address("secure");
    let mut rotations = 0;
    std::thread::scope(|scope| {
        (0..2).for_each(|_| drop(scope.spawn(|| traffic.drive(address))));
        let began = Instant::now();
        let reloaded = |change: &dyn Fn()| {
            let before = gateway.generation();
            change();
            gateway.wait_past(before);
        };
        while began.elapsed() < TIME || rotations < 3 {
            // As an operator does it: both authorities, then the clients' certificates, then the new authority alone.
            let next = Authority::new();
            reloaded(&|| gateway.replace("ca.pem", &format!("{}{}", ours.pem(), next.pem())));
            traffic.switch(Identity::of(&traffic.server, &next));
            reloaded(&|| gateway.replace("ca.pem", &next.pem()));
            ours = next;
            reloaded(&|| {
                traffic.server.leaf(&["a"]).write(gateway.dir(), "a");
                gateway.signal("HUP");
            });
            rotations += 1;
        }
        traffic.over.store(true, Ordering::SeqCst);
    });
    let failed = traffic.failed.lock().unwrap();
    assert!(failed.is_empty(), "{} of them: {:#?}", failed.len(), &failed[..failed.len().min(5)]);
    let (whole, resumed) = (traffic.whole.load(Ordering::SeqCst), traffic.resumed.load(Ordering::SeqCst));
    assert!(rotations >= 3 && whole > 20 && resumed > 20, "{rotations} rotations, {whole} whole handshakes, {resumed} resumed");
    gateway.assert_sound();
}

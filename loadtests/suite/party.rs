//! The contestants: each started with its configuration from `loadtests/peers`, on ports of its own.

use std::{
    fmt::Write as _,
    fs,
    io::{Read, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, atomic::AtomicUsize},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use sha2::{Digest, Sha256};

use super::{
    identity::{HOST, Identity},
    machine,
    process::Process,
};

/// Who takes part.
#[derive(Clone, Debug)]
pub struct Contestant {
    /// As it stands in the results.
    pub name: String,
    pub kind: Kind,
    pub program: PathBuf,
    /// Worker threads.
    pub threads: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Banyan,
    /// Banyan without what the scenario asks of callers: what its plain hop costs.
    Open,
    Floor,
    Nginx {
        is_logging: bool,
    },
    Haproxy,
    /// No proxy at all: the service itself.
    Direct,
}

/// What a scenario wants of everyone.
#[derive(Clone, Debug, Default)]
pub struct Setup {
    /// How many routes there are, `/r0/**` and so on, all others being answered with 404. With none, one takes everything.
    pub routes: usize,
    /// Consumers who each have an API key, which is then asked for. Of HAProxy: a map of the keys' digests.
    pub consumers: usize,
    /// The services are looked after: who does not answer gets nothing.
    pub is_watching: bool,
    /// Public key, in PEM, of the issuer of the tokens without which nothing is to be had. Absent: everybody may ask.
    pub issuer: Option<String>,
    /// The service is asked about each token, at `/introspect` (RFC 7662). Of Banyan alone.
    pub is_introspecting: bool,
}

/// A contestant that runs.
pub struct Party {
    pub name: String,
    pub kind: Kind,
    pub plain: SocketAddr,
    pub tls: SocketAddr,
    /// Which request of the load is next.
    pub next: Arc<AtomicUsize>,
    process: Option<Process>,
    folder: PathBuf,
    config: String,
}

const PATIENCE: Duration = Duration::from_secs(20);

const BANYAN: &str = include_str!("../peers/banyan.yaml");
const NGINX: &str = include_str!("../peers/nginx.conf");
const HAPROXY: &str = include_str!("../peers/haproxy.cfg");

/// Banyan's part about tokens.
const CALLERS: &str = r#"identity:
  idp:
    jwt:
      issuer: https://idp.example/
      audience: [api]
      algorithms: [RS256]
      keys: { file: issuer.pem }
      forward: { sub: X-User-Id }
policies: { auth: { jwt: idp } }"#;

/// The same about tokens of which the issuer is asked.
const ASKED: &str = r#"identity:
  idp:
    introspection:
      url: "http://<origin>/introspect"
      client_id: banyan
      client_secret: a-secret-of-the-load-tests
      cache: 5m
policies: { auth: { introspection: idp } }"#;

/// HAProxy's: the same rules.
const TOKENS: &str = r#"    http-request set-var(txn.bearer) http_auth_bearer
    http-request set-var(txn.alg) var(txn.bearer),jwt_header_query('$.alg')
    http-request deny deny_status 401 unless { var(txn.alg) -m str RS256 }
    http-request deny deny_status 401 unless { var(txn.bearer),jwt_verify(txn.alg,"<dir>/issuer.pem") -m int 1 }
    http-request deny deny_status 401 unless { var(txn.bearer),jwt_payload_query('$.iss') -m str https://idp.example/ }
    http-request deny deny_status 401 unless { var(txn.bearer),jwt_payload_query('$.aud') -m str api }
    http-request set-var(txn.now) date()
    http-request set-var(txn.exp) var(txn.bearer),jwt_payload_query('$.exp','int'),sub(txn.now)
    http-request deny deny_status 401 if { var(txn.exp) -m int lt 0 }
    http-request set-header X-User-Id %[var(txn.bearer),jwt_payload_query('$.sub')]
    http-request del-header Authorization"#;

impl Contestant {
    /// The same build of Banyan, asking nobody who calls.
    pub fn open(&self) -> Self {
        Self { name: format!("{}-open", self.name), kind: Kind::Open, ..self.clone() }
    }
}

impl Setup {
    /// The same with everybody let in.
    fn open(&self) -> Self {
        Self { consumers: 0, issuer: None, is_introspecting: false, ..self.clone() }
    }
}

impl Party {
    /// No proxy: the service as it is. TLS it has none.
    pub fn direct(origin: SocketAddr) -> Self {
        let (name, kind) = ("direct".to_owned(), Kind::Direct);
        let next = Arc::default();
        Self { name, kind, plain: origin, tls: origin, next, process: None, folder: PathBuf::new(), config: String::new() }
    }

    /// Starts it before these services, with its files in a folder below this one.
    ///
    /// # Errors
    /// It does not start, or does not listen within 20 s.
    pub fn start(
        who: &Contestant,
        setup: &Setup,
        origins: &[SocketAddr],
        identity: &Identity,
        below: &Path,
        is_pinned: bool,
    ) -> anyhow::Result<Self> {
        let [plain, tls, admin] = free()?;
        let folder = below.join(format!("{}-{}", who.name, plain.port()));
        fs::create_dir_all(&folder)?;
        identity.write(&folder)?;
        if let Some(key) = &setup.issuer {
            fs::write(folder.join("issuer.pem"), key)?;
        }
        let setup = if who.kind == Kind::Open { &setup.open() } else { setup };
        let config = Filling { who, setup, origins, plain, tls, admin, folder: &folder }.config();
        let words = launch(who, origins, plain, tls, &folder, &config)?;
        let place = is_pinned.then(|| machine::place(who.threads)).flatten();
        let process = Process::start(&who.program, &words, &folder, place.as_deref())?;
        let (name, next) = (who.name.clone(), Arc::default());
        let mut party = Self { name, kind: who.kind, plain, tls, next, process: Some(process), folder, config };
        party.wait_for(&[plain, tls])?;
        Ok(party)
    }

    fn wait_for(&mut self, addresses: &[SocketAddr]) -> anyhow::Result<()> {
        let begun = Instant::now();
        while addresses.iter().any(|address| TcpStream::connect(address).is_err()) {
            let is_running = self.process.as_mut().is_some_and(Process::is_running);
            if !is_running || begun.elapsed() > PATIENCE {
                let said = self.process.as_ref().map(Process::said).unwrap_or_default();
                bail!("{} did not start:\n{said}", self.name);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Processor time of its process so far.
    pub fn cpu(&self) -> Duration {
        self.process.as_ref().map_or(Duration::ZERO, Process::cpu)
    }

    /// Resident memory in KiB, `VmRSS` or `VmHWM`.
    pub fn memory(&self, which: &str) -> f64 {
        self.process.as_ref().map_or(0.0, |process| process.memory(which))
    }

    /// What its process said.
    pub fn said(&self) -> String {
        self.process.as_ref().map(Process::said).unwrap_or_default()
    }

    /// The last line of Banyan's access log that says this, waited for.
    ///
    /// # Errors
    /// There was none in time.
    pub fn logged(&self, words: &str) -> anyhow::Result<String> {
        let begun = Instant::now();
        loop {
            let log = fs::read_to_string(self.folder.join("access.log")).unwrap_or_default();
            if let Some(line) = log.lines().rev().find(|line| line.contains(words)) {
                return Ok(line.to_owned());
            }
            anyhow::ensure!(begun.elapsed() < PATIENCE, "{} logged nothing with {words}", self.name);
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Puts another configuration of Banyan in force: with a route more, whose name has this number.
    pub fn reload(&self, number: usize) -> std::io::Result<()> {
        let next = self.folder.join("next");
        let route = format!("  only-{number}: {{ match: {{ path: /only/{number} }}, to: {{ respond: {{ body: only }} }} }}\n");
        fs::write(&next, format!("{}\n{route}", self.config))?;
        fs::rename(next, self.folder.join("banyan.yaml"))
    }

    /// How many configurations Banyan has put in force, by what it says, since asking the admin listener costs it something.
    pub fn generation(&self) -> usize {
        self.said().matches("configuration in force").count()
    }

    /// One request, and the status of its answer.
    pub fn status(&self, path: &str) -> anyhow::Result<u16> {
        self.status_bearing(path, None)
    }

    /// The same with a token.
    pub fn status_bearing(&self, path: &str, token: Option<&str>) -> anyhow::Result<u16> {
        let field = token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
        let mut stream = TcpStream::connect(self.plain)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {HOST}\r\n{field}Connection: close\r\n\r\n")?;
        let mut read = Vec::new();
        stream.read_to_end(&mut read)?;
        let text = String::from_utf8_lossy(&read);
        text.split(' ').nth(1).and_then(|status| status.parse().ok()).context("no status")
    }
}

/// Writes what it is started with into its folder; gives its arguments.
fn launch(
    who: &Contestant,
    origins: &[SocketAddr],
    plain: SocketAddr,
    tls: SocketAddr,
    folder: &Path,
    config: &str,
) -> anyhow::Result<Vec<String>> {
    let file = |name: &str| folder.join(name).display().to_string();
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    Ok(match who.kind {
        Kind::Banyan | Kind::Open => {
            fs::write(folder.join("banyan.yaml"), config)?;
            words(&["run", "-c", "banyan.yaml"])
        }
        Kind::Nginx { .. } => {
            fs::write(folder.join("nginx.conf"), config)?;
            words(&["-p", &folder.display().to_string(), "-e", &file("error.log"), "-c", &file("nginx.conf")])
        }
        Kind::Haproxy => {
            fs::write(folder.join("haproxy.cfg"), config)?;
            words(&["-db", "-f", "haproxy.cfg"])
        }
        Kind::Floor | Kind::Direct => {
            let origin = origins.first().context("a service")?.to_string();
            words(&[&who.threads.to_string(), &origin, &plain.to_string(), &tls.to_string(), "a.pem", "a.key"])
        }
    })
}

/// What stands in the places of the names in angle brackets.
struct Filling<'a> {
    who: &'a Contestant,
    setup: &'a Setup,
    origins: &'a [SocketAddr],
    plain: SocketAddr,
    tls: SocketAddr,
    admin: SocketAddr,
    folder: &'a Path,
}

impl Filling<'_> {
    fn config(&self) -> String {
        let (template, own) = match self.who.kind {
            Kind::Banyan | Kind::Open => (BANYAN, self.banyan()),
            Kind::Nginx { is_logging } => (NGINX, self.nginx(is_logging)),
            Kind::Haproxy => (HAPROXY, self.haproxy()),
            Kind::Floor | Kind::Direct => return String::new(),
        };
        let common = [
            ("plain", self.plain.port().to_string()),
            ("tls", self.tls.port().to_string()),
            ("admin", self.admin.port().to_string()),
            ("threads", self.who.threads.to_string()),
            ("dir", self.folder.display().to_string()),
        ];
        let fill = |text: String, (name, value): &(&str, String)| text.replace(&format!("<{name}>"), value);
        let text = own.iter().fold(template.to_owned(), fill);
        common.iter().fold(text, fill)
    }

    fn lines(&self, line: impl Fn(usize) -> String) -> String {
        (0..self.setup.routes).map(line).collect::<Vec<_>>().join("\n")
    }

    fn banyan(&self) -> Vec<(&'static str, String)> {
        let endpoints: Vec<String> = self.origins.iter().map(|origin| format!("\"{origin}\"")).collect();
        let health = ", health: { tcp: { interval: 1s, timeout: 500ms, healthy_after: 1 } }";
        let routes = match self.setup.routes {
            0 => "  all: { to: { upstream: origin } }".to_owned(),
            _ => self.lines(|n| format!("  r{n}: {{ match: {{ path: \"/r{n}/**\" }}, to: {{ upstream: origin }} }}")),
        };
        let callers = match (&self.setup.issuer, self.setup.is_introspecting) {
            (Some(_), _) => CALLERS,
            (None, true) => ASKED,
            (None, false) => "",
        };
        vec![
            ("endpoints", endpoints.join(", ")),
            ("callers", callers.to_owned()),
            ("origin", self.origins.first().map(SocketAddr::to_string).unwrap_or_default()),
            ("health", if self.setup.is_watching { health } else { "" }.to_owned()),
            ("routes", routes),
            ("consumers", self.consumers()),
        ]
    }

    fn consumers(&self) -> String {
        if self.setup.consumers == 0 {
            return String::new();
        }
        let mut text = "policies: { auth: { api_key: { header: X-Api-Key } } }\nconsumers:\n".to_owned();
        for number in 0..self.setup.consumers {
            let digest = Sha256::digest(api_key(number));
            let _ = writeln!(
                text,
                "  c{number}: {{ groups: [g{}], credentials: [{{ api_key: {{ sha256: \"{digest:x}\" }} }}] }}",
                number % 10
            );
        }
        text
    }

    fn nginx(&self, is_logging: bool) -> Vec<(&'static str, String)> {
        let watch = if self.setup.is_watching { " max_fails=1 fail_timeout=1s" } else { " max_fails=0" };
        let servers = self.origins.iter().map(|origin| format!("        server {origin}{watch};")).collect::<Vec<_>>().join("\n");
        let log = if is_logging { "<dir>/access.log json buffer=64k flush=1s" } else { "off" };
        let routes = match self.setup.routes {
            0 => "        location / { proxy_pass http://origin; }".to_owned(),
            _ => {
                let routes = self.lines(|n| format!("        location /r{n}/ {{ proxy_pass http://origin; }}"));
                format!("{routes}\n        location / {{ return 404; }}")
            }
        };
        vec![("servers", servers), ("access_log", log.to_owned()), ("routes", routes)]
    }

    fn haproxy(&self) -> Vec<(&'static str, String)> {
        let watch = if self.setup.is_watching { " check inter 1s fall 2 rise 1" } else { "" };
        let mut servers = String::new();
        for (number, origin) in self.origins.iter().enumerate() {
            let _ = writeln!(servers, "    server s{number} {origin} pool-max-conn 128{watch}");
        }
        let mut routes = String::new();
        if self.setup.routes > 0 {
            let map = self.folder.join("routes.map");
            let _ = fs::write(&map, self.lines(|n| format!("/r{n}/ origin")));
            let map = map.display();
            let _ = write!(
                routes,
                "    http-request return status 404 unless {{ path,map_beg({map}) -m found }}\n    use_backend %[path,map_beg({map})]"
            );
        }
        if self.setup.consumers > 0 {
            let map = self.folder.join("keys.map");
            let keys = (0..self.setup.consumers).map(|number| format!("{:X} c{number}", Sha256::digest(api_key(number))));
            let _ = fs::write(&map, keys.collect::<Vec<_>>().join("\n"));
            let found = format!("req.hdr(X-Api-Key),sha2(256),hex,map_str({})", map.display());
            let _ = write!(
                routes,
                "    http-request return status 401 unless {{ {found} -m found }}\n    http-request set-header X-Consumer %[{found}]\n    http-request del-header X-Api-Key"
            );
        }
        let tokens = if self.setup.issuer.is_some() { TOKENS } else { "" }.to_owned();
        vec![("servers", servers), ("tokens", tokens), ("routes", routes)]
    }
}

/// The API key of a consumer of this number, as long as `banyan key new` makes them.
pub fn api_key(number: usize) -> String {
    format!("banyan_{number:049}")
}

/// Ports of loopback that nobody has.
fn free<const N: usize>() -> std::io::Result<[SocketAddr; N]> {
    let mut held = Vec::new();
    for _ in 0..N {
        held.push(TcpListener::bind("127.0.0.1:0")?);
    }
    let addresses: Vec<SocketAddr> = held.iter().map(TcpListener::local_addr).collect::<Result<_, _>>()?;
    addresses.try_into().map_err(|_| std::io::Error::other("as many as were asked for"))
}

/// What a program says of its version.
pub fn version(who: &Contestant) -> String {
    let flag = match who.kind {
        Kind::Banyan | Kind::Open => "version",
        _ => "-v",
    };
    if who.kind == Kind::Floor {
        return "of this build".to_owned();
    }
    let output = Command::new(&who.program).arg(flag).output();
    let text = output.map(|out| [out.stdout, out.stderr].concat()).unwrap_or_default();
    String::from_utf8_lossy(&text).lines().next().unwrap_or_default().trim().to_owned()
}

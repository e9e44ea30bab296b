//! Floods against the gateway, while a client of good faith is served and timed. See loadtests/README.md.
//!
//! `edge-floods BANYAN floods [NAME…]`: each attack, in turns with windows of peace.
//! `edge-floods BANYAN memory`: what idle connections cost.
//! `edge-floods BANYAN speed`: answers a second, small and large, plain and over TLS.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a measurement fails by panicking")]

mod frames;
mod attack;
mod client;
mod origin;
mod gateway;
mod memory;
mod speed;
mod tls;

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use tokio::runtime::{Builder, Runtime};

use self::{
    attack::{Attack, Plan, Sent},
    client::{Speech, Taken, quantile},
    gateway::{Gateway, Usage},
    tls::Identity,
};

/// Windows of peace and of attack, each.
const PAIRS: usize = 2;

const WINDOW: Duration = Duration::from_secs(6);

/// Longest wait for an attack to stand, and for its connections to go.
const PATIENCE: Duration = Duration::from_secs(20);

fn main() {
    let mut words = std::env::args().skip(1);
    let (Some(banyan), Some(mode)) = (words.next(), words.next()) else {
        eprintln!("usage: edge-floods BANYAN floods|memory|speed [NAME…]");
        std::process::exit(2);
    };
    let names: Vec<String> = words.collect();
    let ground = Ground { banyan: banyan.into(), identity: Identity::new(), origin: serve() };
    match mode.as_str() {
        "floods" => floods(&ground, &names),
        "memory" => memory::tell(&ground),
        "speed" => speed::tell(&ground),
        other => panic!("no such mode: {other}"),
    }
}

/// What every measurement stands on.
pub struct Ground {
    banyan: PathBuf,
    identity: Identity,
    origin: SocketAddr,
}

impl Ground {
    fn gateway(&self, limits: &str) -> Gateway {
        Gateway::start(&self.banyan, self.origin, limits, &self.identity.cert, &self.identity.key)
    }
}

/// A thread of its own for each party, so that none waits for another one's work.
fn party() -> Runtime {
    Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

/// Starts the service for the rest of the process's life.
fn serve() -> SocketAddr {
    let runtime = party();
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap();
    runtime.spawn(origin::serve(listener));
    std::mem::forget(runtime);
    address
}

/// Each attack with its name, and how much of it: connections, and frames (or connections) a second on each.
const ATTACKS: [(&str, Attack, usize, u32); 15] = [
    ("slowloris", Attack::Slowloris, 5_000, 1),
    ("idle", Attack::Idle, 10_000, 1),
    ("connect", Attack::Connect, 50, 20),
    ("handshake", Attack::Handshake, 50, 10),
    ("reset", Attack::Reset, 20, 50),
    ("made-you-reset", Attack::MadeYouReset, 20, 50),
    ("continuation", Attack::Continuation, 20, 500),
    ("settings", Attack::Settings, 20, 500),
    ("ping", Attack::Ping, 20, 500),
    ("window-update", Attack::WindowUpdate, 20, 500),
    ("priority", Attack::Priority, 20, 500),
    ("empty-data", Attack::EmptyData, 20, 500),
    ("small-data", Attack::SmallData, 20, 500),
    ("hpack", Attack::Hpack, 20, 20),
    ("slow-read", Attack::SlowRead, 20, 500),
];

fn floods(ground: &Ground, names: &[String]) {
    println!(
        "| attack | p99 HTTP/1.1, ms | ratio | p99 HTTP/2 TLS, ms | ratio | memory, MiB: before, peak, after | CPU before, under | sent |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    for (name, attack, connections, rate) in ATTACKS {
        if names.is_empty() || names.iter().any(|wanted| wanted == name) {
            println!("| {name} | {} |", measure(ground, attack, connections, rate));
        }
    }
}

/// The windows of one kind: what the clients saw, what the gateway used.
#[derive(Default)]
struct Windows {
    http1: Times,
    http2: Times,
    cpu: Duration,
    peak: u64,
    failed: Vec<String>,
}

#[derive(Default)]
struct Times {
    all: Vec<Duration>,
    /// Of each window.
    p99: Vec<Duration>,
}

impl Times {
    fn add(&mut self, taken: &Taken) {
        let mut times = std::mem::take(&mut *taken.times.lock().unwrap());
        self.p99.push(quantile(&mut times, 0.99));
        self.all.extend(times);
    }
}

fn measure(ground: &Ground, attack: Attack, connections: usize, rate: u32) -> String {
    let gateway = ground.gateway("connections_per_ip: 16384");
    let (taken1, taken2) = (Arc::new(Taken::default()), Arc::new(Taken::default()));
    let clients = party();
    clients.spawn(client::run(gateway.plain, Speech::Http1, taken1.clone()));
    clients.spawn(client::run(gateway.tls, Speech::Http2(ground.identity.client()), taken2.clone()));
    std::thread::sleep(Duration::from_secs(1));
    let before = gateway.usage();
    let (mut peace, mut war) = (Windows::default(), Windows::default());
    let sent = Arc::new(Sent::default());
    for _ in 0..PAIRS {
        window(&gateway, &mut peace, &taken1, &taken2);
        let attackers = party();
        let target = if attack == Attack::Handshake { gateway.tls } else { gateway.plain };
        let plan = Plan { attack, target, connections, rate, hello: ground.identity.hello() };
        attackers.spawn(attack::run(plan, sent.clone()));
        stand(&sent, connections);
        window(&gateway, &mut war, &taken1, &taken2);
        attackers.shutdown_background();
        settle(&gateway);
    }
    clients.shutdown_background();
    std::thread::sleep(Duration::from_secs(1));
    told(&before, &gateway.usage(), &mut peace, &mut war, &sent)
}

/// Lets one window pass.
fn window(gateway: &Gateway, windows: &mut Windows, http1: &Taken, http2: &Taken) {
    for taken in [http1, http2] {
        taken.times.lock().unwrap().clear();
        taken.failed.lock().unwrap().clear();
    }
    let (begun, cpu) = (Instant::now(), gateway.usage().cpu);
    while begun.elapsed() < WINDOW {
        std::thread::sleep(Duration::from_millis(100));
        windows.peak = windows.peak.max(gateway.usage().memory);
    }
    windows.cpu += gateway.usage().cpu - cpu;
    windows.http1.add(http1);
    windows.http2.add(http2);
    for taken in [http1, http2] {
        windows.failed.append(&mut taken.failed.lock().unwrap());
    }
}

/// Waits until nearly all connections of the attack stand, or have stood.
fn stand(sent: &Sent, connections: usize) {
    let (begun, opened) = (Instant::now(), sent.opened.load(Relaxed));
    let enough = connections - connections / 100;
    while sent.standing.load(Relaxed) < enough && begun.elapsed() < PATIENCE {
        if sent.opened.load(Relaxed) - opened > 2 * connections {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Waits until the gateway has let go of the attack's connections.
fn settle(gateway: &Gateway) {
    let begun = Instant::now();
    while gateway.open() > 200 && begun.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_millis(100));
    }
    std::thread::sleep(Duration::from_secs(1));
}

fn told(before: &Usage, after: &Usage, peace: &mut Windows, war: &mut Windows, sent: &Sent) -> String {
    let time = (WINDOW * PAIRS as u32).as_secs_f64();
    let share = |cpu: Duration| format!("{:.0} %", cpu.as_secs_f64() / time * 100.0);
    let mebibytes = |bytes: u64| format!("{:.0}", bytes as f64 / f64::from(1 << 20));
    let failed = match (peace.failed.len(), war.failed.len()) {
        (0, 0) => String::new(),
        (peaceful, under) => format!("; failed {peaceful}, {under}: {:?}", war.failed.first().or(peace.failed.first())),
    };
    format!(
        "{} | {} | {}, {}, {} | {}, {} | {} connections, {} frames, {} not taken{failed}",
        compared(&mut peace.http1, &mut war.http1),
        compared(&mut peace.http2, &mut war.http2),
        mebibytes(before.memory),
        mebibytes(war.peak),
        mebibytes(after.memory),
        share(peace.cpu),
        share(war.cpu),
        sent.opened.load(Relaxed),
        sent.frames.load(Relaxed),
        sent.failed.load(Relaxed),
    )
}

/// Both figures, over all windows and, in brackets, of each; and how they stand to each other.
fn compared(peace: &mut Times, war: &mut Times) -> String {
    let millis = |time: Duration| time.as_secs_f64() * 1e3;
    let figure = |times: &mut Times| {
        let each: Vec<String> = times.p99.iter().map(|time| format!("{:.1}", millis(*time))).collect();
        (quantile(&mut times.all, 0.99), format!("({})", each.join(" ")))
    };
    let (calm, calm_each) = figure(peace);
    let (hot, hot_each) = figure(war);
    let mut ratios: Vec<f64> = peace.p99.iter().zip(&war.p99).map(|(calm, hot)| millis(*hot) / millis(*calm)).collect();
    ratios.sort_unstable_by(f64::total_cmp);
    let (p50, p50_hot) = (quantile(&mut peace.all, 0.5), quantile(&mut war.all, 0.5));
    format!(
        "{:.2} {calm_each} → {:.2} {hot_each}; p50 {:.2} → {:.2} | {:.2} ({:.2})",
        millis(calm),
        millis(hot),
        millis(p50),
        millis(p50_hot),
        millis(hot) / millis(calm),
        ratios[ratios.len() / 2],
    )
}

//! Floods against the gateway, while a client of good faith is served and timed. See loadtests/README.md.
//!
//! `edge-floods BANYAN floods [NAME…]`: each attack, in turns with windows of peace.
//! `edge-floods BANYAN memory`: what idle connections cost.
//! `edge-floods BANYAN speed`: answers a second, small and large, plain and over TLS.
//! `edge-floods attack NAME ADDRESS`: the attackers' own process, started by the first.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a measurement fails by panicking")]

mod frames;
mod attack;
mod attackers;
mod client;
mod origin;
mod gateway;
mod memory;
mod speed;
mod tls;

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::runtime::{Builder, Runtime};

use self::{
    attack::Attack,
    attackers::{ATTACKS, Attackers, Kind, Sent},
    client::{Speech, Taken, quantile},
    gateway::{Gateway, Usage},
    tls::Identity,
};

/// Windows of peace and of attack, each.
const PAIRS: usize = 7;

const WINDOW: Duration = Duration::from_secs(3);

/// Longest wait for an attack to stand, and for its connections to go.
const PATIENCE: Duration = Duration::from_secs(20);

fn main() {
    let mut words = std::env::args().skip(1);
    let (Some(banyan), Some(mode)) = (words.next(), words.next()) else {
        eprintln!("usage: edge-floods BANYAN floods|memory|speed [NAME…]");
        std::process::exit(2);
    };
    let names: Vec<String> = words.collect();
    if banyan == "attack" {
        return attackers::run(&mode, names[0].parse().unwrap());
    }
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

fn floods(ground: &Ground, names: &[String]) {
    println!(
        "| attack | p99 HTTP/1.1, ms | ratio | p99 HTTP/2 TLS, ms | ratio | memory, MiB: before, peak, after | CPU before, under | sent |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    for kind in ATTACKS {
        if names.is_empty() || names.iter().any(|wanted| wanted == kind.0) {
            println!("| {} | {} |", kind.0, measure(ground, kind));
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

fn measure(ground: &Ground, (name, attack, connections, _): Kind) -> String {
    let gateway = ground.gateway("connections_per_ip: 16384");
    let (taken1, taken2) = (Arc::new(Taken::default()), Arc::new(Taken::default()));
    let clients = party();
    clients.spawn(client::run(gateway.plain, Speech::Http1, taken1.clone()));
    clients.spawn(client::run(gateway.tls, Speech::Http2(ground.identity.client()), taken2.clone()));
    std::thread::sleep(Duration::from_secs(1));
    let before = gateway.usage();
    let (mut peace, mut war) = (Windows::default(), Windows::default());
    let target = if attack == Attack::Handshake { gateway.tls } else { gateway.plain };
    let mut sent = Sent::default();
    for _ in 0..PAIRS {
        window(&gateway, &mut peace, &taken1, &taken2);
        let attackers = Attackers::start(name, target);
        attackers.stand(connections, PATIENCE);
        window(&gateway, &mut war, &taken1, &taken2);
        sent = sent.and(attackers.end());
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
        sent.opened,
        sent.frames,
        sent.failed,
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

//! A simulator of gateways and a service: the real balancer, clocks and chances of our own.
//!
//! Time moves from event to event, so minutes of traffic take a second and a seed always gives the same. An endpoint has workers and a queue; a request that
//! nobody waits for any more still takes its worker, as it does in life. There are no health checks, no ejection, no breaker and no budget here: what is
//! shown is what the choice alone does.

#![allow(dead_code, reason = "the tests use a part")]

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use crate::upstream::{
    balance::{Ask, Layout, Method, Tuning, latency::Answer, sticky::Sticky},
    member::{Member, Out, Tally, Vitals},
};

pub const MILLI: u64 = 1_000_000;
pub const SECOND: u64 = 1_000 * MILLI;

/// Service time of a fast endpoint, on average: 2 ms and an exponential rest.
const SERVICE: u64 = 10 * MILLI;
const SERVICE_LEAST: u64 = 2 * MILLI;
const WORKERS: usize = 4;
/// There and back.
const NETWORK: u64 = MILLI / 5;
/// Longest wait for an answer, in each try.
const PATIENCE: u64 = SECOND;
const KEYS: usize = 2_000;

/// How an endpoint behaves.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Kind {
    Fast,
    /// Takes so many times as long.
    Slow(u64),
    /// Slow by this much in every second period of this length.
    Faltering(u64, u64),
    /// Slow by this much until then.
    Recovering(u64, u64),
    /// Refuses connections in every second period of this length.
    Flapping(u64),
    /// Refuses connections.
    Dead,
    /// Takes requests and never answers: a stopped process, a half-open socket.
    Silent,
    /// The same from this time on.
    Stopping(u64),
    /// One answer in so many says that it failed.
    Failing(u64),
    /// Is taken in at this time, and refuses before.
    Joining(u64),
    /// Is asked all along, and refuses until this time.
    Returning(u64),
}

/// Who chooses.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Chooser {
    Ours(Method),
    /// `Hash` with a bound of 1.25.
    Bounded,
    /// For comparison: the best of all by what the gateway knows, by requests in flight and latency.
    Greedy,
}

#[derive(Clone, Debug)]
pub struct Scenario {
    pub endpoints: Vec<Kind>,
    pub gateways: usize,
    /// Requests a second, of all gateways together.
    pub rate: u64,
    pub length: u64,
    /// What begins before is not counted.
    pub warm_up: u64,
    pub slow_start: Duration,
    /// Tries of a request in all.
    pub tries: usize,
    pub seed: u64,
}

impl Scenario {
    /// Ten endpoints at half of what they can do, of which the last is so.
    pub fn ten(last: Kind) -> Self {
        let mut endpoints = vec![Kind::Fast; 10];
        endpoints[9] = last;
        Self {
            endpoints,
            gateways: 1,
            rate: 2_000,
            length: 30 * SECOND,
            warm_up: 5 * SECOND,
            slow_start: Duration::ZERO,
            tries: 1,
            seed: 1,
        }
    }
}

/// What came of it.
#[derive(Debug)]
pub struct Outcome {
    /// Nanoseconds of good answers, sorted.
    latencies: Vec<u64>,
    failed: u64,
    /// Tries that each endpoint got after the warm-up.
    pub tries: Vec<u64>,
    /// The most that each endpoint had at once, waiting and in work.
    pub longest: Vec<usize>,
}

impl Outcome {
    pub fn quantile(&self, share: f64) -> f64 {
        let at = ((self.latencies.len() as f64 * share) as usize).min(self.latencies.len().saturating_sub(1));
        self.latencies.get(at).map_or(f64::NAN, |nanos| *nanos as f64 / MILLI as f64)
    }

    /// Share of requests that failed.
    pub fn errors(&self) -> f64 {
        self.failed as f64 / (self.failed as f64 + self.latencies.len() as f64)
    }

    pub fn share(&self, endpoint: usize) -> f64 {
        self.tries[endpoint] as f64 / self.tries.iter().sum::<u64>() as f64
    }
}

pub fn address(endpoint: usize) -> SocketAddr {
    ([10, 0, (endpoint >> 8) as u8, endpoint as u8], 80).into()
}

struct Gateway {
    vitals: Vec<Arc<Vitals>>,
    tally: Tally,
    layout: Layout,
}

impl Gateway {
    fn lay_out(&mut self) {
        self.layout = Layout::of(self.layout.members().into(), *self.layout.tuning(), Some(&self.layout));
    }
}

struct Endpoint {
    kind: Kind,
    busy: usize,
    queue: VecDeque<Job>,
    tries: u64,
    longest: usize,
}

#[derive(Clone, Copy)]
struct Job {
    request: usize,
    attempt: u32,
}

#[derive(Clone)]
struct Request {
    gateway: usize,
    key: u64,
    began: u64,
    tried: Vec<SocketAddr>,
    /// Where its try is now.
    endpoint: usize,
    asked: u64,
    attempt: u32,
    waiting: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Arrive,
    /// A worker is done: endpoint, request, attempt, whether the answer is good.
    Done(usize, usize, u32, bool),
    /// The gateway sees the end of a try.
    Seen(usize, u32, bool),
    Impatient(usize, u32),
    Join(usize),
}

pub struct Simulation {
    scenario: Scenario,
    chooser: Chooser,
    gateways: Vec<Gateway>,
    endpoints: Vec<Endpoint>,
    requests: Vec<Request>,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    sequence: u64,
    chance: Chance,
    zipf: Vec<f64>,
    latencies: Vec<u64>,
    failed: u64,
}

/// splitmix64.
pub struct Chance(pub u64);

impl Chance {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let n = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        n ^ (n >> 31)
    }

    pub fn share(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Exponential.
    fn around(&mut self, mean: f64) -> u64 {
        (-(1.0 - self.share()).ln() * mean) as u64
    }
}

pub fn run(chooser: Chooser, scenario: &Scenario) -> Outcome {
    let mut simulation = Simulation::new(chooser, scenario.clone());
    simulation.run();
    simulation.outcome()
}

impl Simulation {
    fn new(chooser: Chooser, scenario: Scenario) -> Self {
        let endpoints =
            scenario.endpoints.iter().map(|kind| Endpoint { kind: *kind, busy: 0, queue: VecDeque::new(), tries: 0, longest: 0 });
        let mut simulation = Self {
            gateways: (0..scenario.gateways).map(|_| gateway(chooser, &scenario)).collect(),
            endpoints: endpoints.collect(),
            requests: Vec::new(),
            events: BinaryHeap::new(),
            sequence: 0,
            chance: Chance(scenario.seed),
            zipf: zipf(),
            latencies: Vec::new(),
            failed: 0,
            scenario,
            chooser,
        };
        simulation.at(SECOND, Event::Arrive);
        for (endpoint, kind) in simulation.scenario.endpoints.clone().into_iter().enumerate() {
            if let Kind::Joining(time) = kind {
                simulation.at(SECOND + time, Event::Join(endpoint));
            }
        }
        simulation
    }

    fn at(&mut self, time: u64, event: Event) {
        self.sequence += 1;
        self.events.push(Reverse((time, self.sequence, event)));
    }

    fn run(&mut self) {
        while let Some(Reverse((now, _, event))) = self.events.pop() {
            match event {
                Event::Arrive => self.arrive(now),
                Event::Done(endpoint, request, attempt, good) => self.done(endpoint, request, attempt, good, now),
                Event::Seen(request, attempt, good) => self.seen(request, attempt, good, now),
                Event::Impatient(request, attempt) => self.seen(request, attempt, false, now),
                Event::Join(endpoint) => self.join(endpoint, now),
            }
        }
    }

    fn arrive(&mut self, now: u64) {
        if now - SECOND < self.scenario.length {
            let gap = self.chance.around(SECOND as f64 / self.scenario.rate as f64);
            self.at(now + gap.max(1), Event::Arrive);
        }
        let gateway = (self.chance.next() % self.scenario.gateways as u64) as usize;
        let draw = self.chance.share();
        let key = self.zipf.partition_point(|upto| *upto < draw) as u64;
        let request =
            Request { gateway, key, began: now, tried: Vec::new(), endpoint: 0, asked: now, attempt: 0, waiting: false };
        self.requests.push(request);
        self.attempt(self.requests.len() - 1, now);
    }

    fn attempt(&mut self, id: usize, now: u64) {
        let random = self.chance.next();
        let request = &self.requests[id];
        let gateway = &self.gateways[request.gateway];
        let Some(endpoint) = choose(self.chooser, gateway, request, random, now) else { return self.fail(id) };
        gateway.vitals[endpoint].begin(&gateway.tally, now);
        let request = &mut self.requests[id];
        request.tried.push(address(endpoint));
        (request.endpoint, request.asked, request.waiting) = (endpoint, now, true);
        request.attempt += 1;
        let attempt = request.attempt;
        self.endpoints[endpoint].tries += u64::from(now - SECOND >= self.scenario.warm_up);
        if self.refuses(endpoint, now) {
            return self.at(now + NETWORK, Event::Seen(id, attempt, false));
        }
        self.at(now + PATIENCE, Event::Impatient(id, attempt));
        self.take(endpoint, Job { request: id, attempt }, now);
    }

    fn refuses(&self, endpoint: usize, now: u64) -> bool {
        match self.endpoints[endpoint].kind {
            Kind::Dead => true,
            Kind::Flapping(period) => now / period % 2 == 1,
            Kind::Joining(time) | Kind::Returning(time) => now < SECOND + time,
            _ => false,
        }
    }

    fn take(&mut self, at: usize, job: Job, now: u64) {
        let endpoint = &mut self.endpoints[at];
        if now - SECOND >= self.scenario.warm_up {
            endpoint.longest = endpoint.longest.max(endpoint.busy + endpoint.queue.len() + 1);
        }
        if endpoint.kind == Kind::Silent || matches!(endpoint.kind, Kind::Stopping(then) if now >= SECOND + then) {
            return;
        }
        if endpoint.busy < WORKERS {
            endpoint.busy += 1;
            self.work(at, job, now);
        } else {
            endpoint.queue.push_back(job);
        }
    }

    fn work(&mut self, at: usize, job: Job, now: u64) {
        let kind = self.endpoints[at].kind;
        let times = match kind {
            Kind::Slow(times) => times,
            Kind::Recovering(times, then) if now < SECOND + then => times,
            Kind::Faltering(times, period) if now / period % 2 == 1 => times,
            _ => 1,
        };
        let good = !matches!(kind, Kind::Failing(of) if self.chance.next().is_multiple_of(of));
        let takes = times * (SERVICE_LEAST + self.chance.around((SERVICE - SERVICE_LEAST) as f64));
        self.at(now + takes, Event::Done(at, job.request, job.attempt, good));
    }

    fn done(&mut self, at: usize, request: usize, attempt: u32, good: bool, now: u64) {
        self.at(now + NETWORK, Event::Seen(request, attempt, good));
        match self.endpoints[at].queue.pop_front() {
            Some(job) => self.work(at, job, now),
            None => self.endpoints[at].busy -= 1,
        }
    }

    fn seen(&mut self, id: usize, attempt: u32, good: bool, now: u64) {
        let request = &mut self.requests[id];
        if !request.waiting || request.attempt != attempt {
            return;
        }
        request.waiting = false;
        let gateway = &self.gateways[request.gateway];
        let vitals = &gateway.vitals[request.endpoint];
        let answer = if good { Answer::Good } else { Answer::Fault };
        vitals.answered(answer, Duration::from_nanos(now - request.asked), now, gateway.layout.tuning().decay);
        vitals.end(&gateway.tally);
        match good {
            true if request.began - SECOND >= self.scenario.warm_up => self.latencies.push(now - request.began),
            true => {}
            false if request.tried.len() < self.scenario.tries => self.attempt(id, now),
            false => self.fail(id),
        }
    }

    fn fail(&mut self, id: usize) {
        self.failed += u64::from(self.requests[id].began - SECOND >= self.scenario.warm_up);
    }

    /// All gateways learn at the same moment that it is there: the worst case for a herd.
    fn join(&mut self, endpoint: usize, now: u64) {
        for gateway in &mut self.gateways {
            assert!(gateway.vitals[endpoint].let_in(Out::Unhealthy, now));
            gateway.lay_out();
        }
    }

    fn outcome(mut self) -> Outcome {
        self.latencies.sort_unstable();
        Outcome {
            latencies: self.latencies,
            failed: self.failed,
            tries: self.endpoints.iter().map(|endpoint| endpoint.tries).collect(),
            longest: self.endpoints.iter().map(|endpoint| endpoint.longest).collect(),
        }
    }
}

fn gateway(chooser: Chooser, scenario: &Scenario) -> Gateway {
    let sticky = Sticky::new([1; 32]);
    let members: Box<[Member]> = scenario.endpoints.iter().enumerate().map(|(n, kind)| member(n, *kind, &sticky)).collect();
    let (method, bound) = match chooser {
        Chooser::Ours(method) => (method, None),
        Chooser::Bounded => (Method::Hash, Some(1.25)),
        Chooser::Greedy => (Method::PeakEwma, None),
    };
    let tuning = Tuning { bound, ..Tuning::of(method).starting_slowly(scenario.slow_start) };
    let vitals = members.iter().map(|member| member.vitals.clone()).collect();
    Gateway { vitals, tally: Tally::default(), layout: Layout::of(members, tuning, None) }
}

fn member(n: usize, kind: Kind, sticky: &Sticky) -> Member {
    let vitals = Arc::<Vitals>::default();
    if matches!(kind, Kind::Joining(_)) {
        vitals.take_out(Out::Unhealthy);
    }
    Member { address: address(n), weight: 1, priority: 0, token: sticky.token(address(n)), vitals }
}

fn choose(chooser: Chooser, gateway: &Gateway, request: &Request, random: u64, now: u64) -> Option<usize> {
    let key = request.key.to_le_bytes();
    if chooser == Chooser::Greedy {
        return greedy(gateway, now);
    }
    let ask = Ask { key: Some(&key), tried: &request.tried, random, now, session: None };
    gateway.layout.pick(&gateway.tally, &ask).map(|pick| pick.position)
}

fn greedy(gateway: &Gateway, now: u64) -> Option<usize> {
    let decay = gateway.layout.tuning().decay;
    let cost = |vitals: &Vitals| {
        vitals.latency(now, decay).unwrap_or_default().as_nanos() as u64 * (1 + u64::from(vitals.in_flight()))
            + u64::from(vitals.in_flight())
    };
    let open = gateway.vitals.iter().enumerate().filter(|(_, vitals)| vitals.is_available());
    open.min_by_key(|(_, vitals)| cost(vitals)).map(|(n, _)| n)
}

/// Keys as they are asked for: the first most, the tenth a tenth as often or so (s = 0.9).
fn zipf() -> Vec<f64> {
    let weights: Vec<f64> = (1..=KEYS).map(|rank| (rank as f64).powf(-0.9)).collect();
    let total: f64 = weights.iter().sum();
    let mut upto = 0.0;
    weights
        .iter()
        .map(|weight| {
            upto += weight / total;
            upto
        })
        .collect()
}

//! Stores of limits, against real servers: what the script decides, what nodes may admit together, what holds while the server is
//! gone. Each store here is what a node has.

use std::{
    hash::{BuildHasher, RandomState},
    sync::{
        Arc, LazyLock,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use banyan::limit::{
    Verdict,
    fleet::{Address, Ask, Asked, Exact, Law, Leased, Place, Settings, Store, Tls, Unanswered, take_all},
};

use crate::harness::{
    PATIENCE, eventually,
    redis::{self, Redis},
};

/// Longer than a store's timeout by what two busy cores may take to wake a task.
const SLACK: Duration = Duration::from_millis(150);

const TIMEOUT: Duration = Duration::from_millis(20);

fn now() -> u64 {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    START.elapsed().as_nanos() as u64 + 1_000_000_000
}

fn asked(text: &str) -> Asked<'_> {
    static SECRET: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    Asked { hash: SECRET.hash_one(text), text }
}

fn address(redis: &Redis) -> Address {
    Address { host: "127.0.0.1".to_owned(), port: redis.port() }
}

fn settings(place: Place) -> Settings {
    let (username, password, tls) = (None, None, None);
    Settings { place, username, password, tls, database: 0, timeout: PATIENCE, prefix: "banyan".to_owned(), connections: 2 }
}

/// A store whose server has answered.
async fn node(settings: Settings) -> Arc<Store> {
    let store = Store::new(settings).unwrap();
    store.start();
    answering(&store, "nobody").await;
    store
}

async fn node_of(redis: &Redis) -> Arc<Store> {
    node(settings(Place::Server(address(redis)))).await
}

async fn answering(store: &Arc<Store>, key: &str) {
    let deadline = Instant::now() + PATIENCE;
    while !(store.answers(key) && store.open_share() == 0.0) {
        assert!(Instant::now() < deadline, "the store answers");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn bucket(count: u64, burst: u64) -> Law {
    Law::TokenBucket { count, period: Duration::from_secs(1), burst }
}

/// So slow that nothing comes back while a test runs.
fn still(burst: u64) -> Law {
    Law::TokenBucket { count: 1, period: Duration::from_secs(86_400), burst }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

async fn take(limit: &Exact, key: &str, cost: u32) -> Verdict {
    try_take(limit, key, cost).await.expect("an answer")
}

async fn try_take(limit: &Exact, key: &str, cost: u32) -> Result<Verdict, Unanswered> {
    limit.take(asked(key), cost, now(), deadline(limit.store())).await
}

/// Until when a request waits that comes now.
fn deadline(store: &Store) -> tokio::time::Instant {
    tokio::time::Instant::now() + store.settings().timeout
}

#[test]
fn a_bucket_admits_its_burst_then_its_rate() {
    let Some(redis) = Redis::start(&[]) else { return };
    runtime().block_on(async {
        let limit = Exact::new(node_of(&redis).await, "rate", bucket(20, 5));
        for rest in (0..5).rev() {
            let verdict = take(&limit, "a", 1).await;
            assert!(verdict.admitted && verdict.limit == 5, "{verdict:?}");
            assert!(verdict.remaining >= rest, "{verdict:?}");
        }
        let refused = take(&limit, "a", 2).await;
        assert!(!refused.admitted && refused.remaining <= 1, "{refused:?}");
        assert!(refused.retry_after <= Duration::from_millis(100) && !refused.retry_after.is_zero(), "{refused:?}");
        tokio::time::sleep(refused.retry_after).await;
        assert!(take(&limit, "a", 2).await.admitted, "when it was told to ask again");
        assert!(take(&limit, "b", 5).await.admitted, "another key has its own");
    });
}

#[test]
fn a_refused_request_takes_nothing_and_is_remembered() {
    let Some(redis) = Redis::start(&[]) else { return };
    runtime().block_on(async {
        let store = node_of(&redis).await;
        let limit = Exact::new(store.clone(), "rate", still(5));
        assert!(take(&limit, "a", 4).await.admitted);
        assert!(!take(&limit, "a", 2).await.admitted);
        assert_eq!(limit.try_take(asked("a").hash, now()), None, "one of cost 1 may still pass");
        assert!(take(&limit, "a", 1).await.admitted, "the refused one took nothing");
        let refused = take(&limit, "a", 1).await;
        assert!(!refused.admitted);
        let remembered = limit.try_take(asked("a").hash, now()).expect("remembered");
        assert!(!remembered.admitted && remembered.retry_after > Duration::from_secs(3_600), "{remembered:?}");
        assert_eq!(store.figures.remembered.load(Relaxed), 1);
        assert_eq!(limit.try_take(asked("a").hash, now() + 1_000_000_000), None, "for a second at most");
        limit.settle(asked("a"), -2);
        eventually_async("what was given back is there", async || take(&limit, "a", 2).await.admitted).await;
    });
}

async fn eventually_async(what: &str, mut look: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !look().await {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[test]
fn windows_count_to_their_limit() {
    let Some(redis) = Redis::start(&[]) else { return };
    runtime().block_on(async {
        let store = node_of(&redis).await;
        let period = Duration::from_secs(86_400 * 365);
        for law in [Law::FixedWindow { count: 5, period }, Law::SlidingWindow { count: 5, period }] {
            let limit = Exact::new(store.clone(), &format!("{law:?}").replace([' ', '{', '}'], ""), law);
            assert!(take(&limit, "a", 3).await.admitted);
            assert!(!take(&limit, "a", 3).await.admitted);
            let last = take(&limit, "a", 2).await;
            assert!(last.admitted && last.remaining == 0, "{law:?} {last:?}");
            let refused = take(&limit, "a", 1).await;
            assert!(
                !refused.admitted && refused.retry_after <= 2 * period && refused.reset >= refused.retry_after,
                "{refused:?}"
            );
        }
    });
}

#[test]
fn a_window_starts_afresh() {
    let Some(redis) = Redis::start(&[]) else { return };
    runtime().block_on(async {
        let period = Duration::from_millis(300);
        let store = node_of(&redis).await;
        for (name, law) in [("f", Law::FixedWindow { count: 5, period }), ("s", Law::SlidingWindow { count: 5, period })] {
            let limit = Exact::new(store.clone(), name, law);
            let mut refused = None;
            for _ in 0..20 {
                refused = Some(take(&limit, "a", 1).await).filter(|verdict| !verdict.admitted).or(refused);
            }
            let refused = refused.expect("twenty are too many");
            assert!(refused.retry_after <= 2 * period, "{refused:?}");
            tokio::time::sleep(refused.retry_after).await;
            assert!(take(&limit, "a", 1).await.admitted, "{law:?} when it was told to ask again");
            assert!(!redis.ask(&["KEYS", "*"]).is_empty());
            tokio::time::sleep(2 * period + Duration::from_millis(10)).await;
            assert_eq!(redis.ask(&["EXISTS", &format!("{{banyan:{name}:a}}")]), "0", "what is fresh is not kept");
        }
    });
}

#[test]
fn a_leaky_bucket_says_how_long_to_wait() {
    let Some(redis) = Redis::start(&[]) else { return };
    runtime().block_on(async {
        let law = Law::LeakyBucket { count: 10, period: Duration::from_secs(10), burst: 2, max_delay: Duration::from_secs(2) };
        let limit = Exact::new(node_of(&redis).await, "leaky", law);
        let mut waits = Vec::new();
        for _ in 0..4 {
            let verdict = take(&limit, "a", 1).await;
            assert!(verdict.admitted && verdict.limit == 4);
            waits.push(verdict.wait.as_secs_f64().round());
        }
        assert_eq!(waits, [0.0, 0.0, 1.0, 2.0]);
        assert!(!take(&limit, "a", 1).await.admitted, "it would wait for longer than it may");
    });
}

#[test]
fn limits_of_one_request_take_all_or_nothing_in_one_hop() {
    let Some(redis) = Redis::start(&[]) else { return };
    runtime().block_on(async {
        let store = node_of(&redis).await;
        let (wide, narrow) = (Exact::new(store.clone(), "wide", still(5)), Exact::new(store.clone(), "narrow", still(1)));
        let both = [Ask { limit: &wide, key: asked("a"), cost: 1 }, Ask { limit: &narrow, key: asked("b"), cost: 1 }];
        let verdicts = take_all(&both, now(), deadline(&store)).await.unwrap();
        assert_eq!(verdicts.iter().map(|v| (v.admitted, v.remaining)).collect::<Vec<_>>(), [(true, 4), (true, 0)]);
        let verdicts = take_all(&both, now(), deadline(&store)).await.unwrap();
        assert_eq!(verdicts.iter().map(|v| (v.admitted, v.remaining)).collect::<Vec<_>>(), [(true, 4), (false, 0)]);
    });
}

#[test]
fn nodes_never_admit_more_than_the_limit_together() {
    let Some(redis) = Redis::start(&[]) else { return };
    runtime().block_on(async {
        let admitted = Arc::new(AtomicU64::new(0));
        let mut tasks = Vec::new();
        for _ in 0..3 {
            let limit = Arc::new(Exact::new(node_of(&redis).await, "rate", still(500)));
            for _ in 0..8 {
                let (limit, admitted) = (limit.clone(), admitted.clone());
                tasks.push(tokio::spawn(async move {
                    for _ in 0..100 {
                        let verdict = try_take(&limit, "a", 1).await;
                        admitted.fetch_add(u64::from(verdict.is_ok_and(|verdict| verdict.admitted)), Relaxed);
                    }
                }));
            }
        }
        for task in tasks {
            task.await.unwrap();
        }
        let admitted = admitted.load(Relaxed);
        assert_eq!(admitted, 500);
    });
}

#[test]
fn the_script_is_sent_again_when_the_server_forgot_it() {
    let Some(redis) = Redis::start(&[]) else { return };
    runtime().block_on(async {
        let limit = Exact::new(node_of(&redis).await, "rate", still(5));
        assert!(take(&limit, "a", 1).await.admitted);
        assert_eq!(redis.ask(&["SCRIPT", "FLUSH"]), "OK");
        assert_eq!(take(&limit, "a", 1).await.remaining, 3);
    });
}

#[test]
fn keys_are_legible_or_digests_and_vanish_when_fresh() {
    let Some(redis) = Redis::start(&[]) else { return };
    runtime().block_on(async {
        let limit = Exact::new(node_of(&redis).await, "rate", bucket(10, 5));
        let long = "x".repeat(65);
        for key in ["192.0.2.1", "a b", "}{", "#0123", &long] {
            assert!(take(&limit, key, 5).await.admitted, "{key}: none is another's");
        }
        let keys = redis.ask(&["KEYS", "{banyan:rate:*"]);
        assert!(keys.lines().any(|key| key == "{banyan:rate:192.0.2.1}"), "{keys}");
        assert_eq!(keys.lines().filter(|key| key.starts_with("{banyan:rate:#") && key.len() == 47).count(), 4, "{keys}");
        eventually("they vanish", || redis.ask(&["KEYS", "{banyan:rate:*"]).is_empty().then_some(()));
    });
}

/// Load on some nodes for a while: what they admitted together, of how many.
struct Load {
    admitted: u64,
    asked: u64,
}

async fn load(limits: &[Arc<Leased>], clients: usize, time: Duration) -> Load {
    let (until, total) = (Instant::now() + time, Arc::new([const { AtomicU64::new(0) }; 2]));
    let mut tasks = Vec::new();
    for (limit, client) in limits.iter().flat_map(|limit| (0..clients).map(move |client| (limit.clone(), client))) {
        let total = total.clone();
        tasks.push(tokio::spawn(async move {
            while Instant::now() < until {
                let key = asked("a");
                let verdict = match limit.try_take(key.hash, || key.text.to_owned(), 1, now()) {
                    Some(verdict) => Ok(verdict),
                    None => limit.take(key, 1, now(), deadline(limit.store())).await,
                };
                total[0].fetch_add(1, Relaxed);
                total[1].fetch_add(u64::from(verdict.is_ok_and(|verdict| verdict.admitted)), Relaxed);
                tokio::time::sleep(Duration::from_millis(2 + client as u64 % 3)).await;
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    Load { admitted: total[1].load(Relaxed), asked: total[0].load(Relaxed) }
}

async fn leased(redis: &Redis, law: Law, nodes: usize) -> (Vec<Arc<Leased>>, Vec<Arc<Store>>) {
    let mut limits = Vec::new();
    let mut stores = Vec::new();
    for _ in 0..nodes {
        let store = node_of(redis).await;
        limits.push(Arc::new(Leased::new(Exact::new(store.clone(), "leased", law), 10_000)));
        stores.push(store);
    }
    (limits, stores)
}

#[test]
fn leases_keep_to_the_bound_and_serve_nearly_all_of_it() {
    let Some(redis) = Redis::start(&[]) else { return };
    runtime().block_on(async {
        for law in [bucket(200, 200), bucket(500, 50), bucket(50, 5), bucket(5, 1)] {
            let (limits, _stores) = leased(&redis, law, 3).await;
            let (begun, time) = (Instant::now(), Duration::from_secs(4));
            let load = load(&limits, 10, time).await;
            let Law::TokenBucket { count, burst, .. } = law else { unreachable!() };
            let exact = burst as f64 + count as f64 * begun.elapsed().as_secs_f64();
            let over = 3 * limits[0].bound().per_node;
            assert!(load.admitted as f64 <= exact + over as f64, "{law:?}: {} of {exact}", load.admitted);
            // What a smaller burst cannot keep is lost while a busy machine stands still.
            let is_kept = burst >= count;
            assert!(!is_kept || load.admitted as f64 >= exact * 0.95 - over as f64, "{law:?}: {} of {exact}", load.admitted);
            assert_eq!(redis.ask(&["FLUSHALL"]), "OK");
        }
    });
}

#[test]
fn leased_windows_keep_to_the_bound() {
    let Some(redis) = Redis::start(&[]) else { return };
    runtime().block_on(async {
        let period = Duration::from_secs(86_400 * 365);
        for law in [Law::FixedWindow { count: 1000, period }, Law::SlidingWindow { count: 1000, period }] {
            let (limits, _stores) = leased(&redis, law, 3).await;
            let load = load(&limits, 10, Duration::from_secs(3)).await;
            assert!(load.admitted <= 1000 + 3, "none was held when it began: {}", load.admitted);
            assert!(load.admitted >= 1000 - 3 * 100, "{}", load.admitted);
            assert_eq!(redis.ask(&["FLUSHALL"]), "OK");
        }
    });
}

#[test]
fn leases_ask_seldom_and_the_first_request_of_a_key_does_not_wait() {
    let Some(redis) = Redis::start(&[]) else { return };
    runtime().block_on(async {
        let (limits, stores) = leased(&redis, bucket(1_000_000, 1_000_000), 1).await;
        redis.pause();
        let first = limits[0].try_take(asked("cold").hash, || "cold".to_owned(), 1, now()).expect("no hop");
        assert!(first.admitted);
        redis.resume();
        answering(&stores[0], "cold").await;
        let load = load(&limits, 10, Duration::from_secs(2)).await;
        let hops = stores[0].figures.latency.cumulative().last().unwrap().1;
        assert_eq!(load.admitted, load.asked);
        assert!(hops * 5 < load.asked, "{hops} hops for {} requests", load.asked);
    });
}

#[test]
fn what_a_node_does_not_use_comes_back() {
    let Some(redis) = Redis::start(&[]) else { return };
    runtime().block_on(async {
        let (limits, stores) = leased(&redis, still(1000), 1).await;
        let load = load(&limits, 10, Duration::from_millis(250)).await;
        assert!(load.admitted > 50, "{}", load.admitted);
        let exact = Exact::new(stores[0].clone(), "leased", still(1000));
        eventually_async("all that was not used is there", async || {
            let probe = try_take(&exact, "a", 1).await;
            exact.settle(asked("a"), -1);
            probe.is_ok_and(|verdict| verdict.remaining + 1 + load.admitted >= 999)
        })
        .await;
    });
}

/// Asks without pause until told to stop: every request has its answer in time, or none, in time.
fn under_load(limit: Arc<Exact>, stop: Arc<AtomicBool>) -> tokio::task::JoinHandle<(u64, u64, Duration)> {
    tokio::spawn(async move {
        let (mut answered, mut unanswered, mut longest) = (0, 0, Duration::ZERO);
        while !stop.load(Relaxed) {
            let begun = Instant::now();
            match try_take(&limit, "a", 1).await {
                Ok(_) => answered += 1,
                Err(_) => unanswered += 1,
            }
            longest = longest.max(begun.elapsed());
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        (answered, unanswered, longest)
    })
}

async fn survives(redis: &mut Redis, break_it: impl FnOnce(&mut Redis), mend_it: impl FnOnce(&mut Redis)) {
    let store = node(Settings { timeout: TIMEOUT, ..settings(Place::Server(address(redis))) }).await;
    let limit = Arc::new(Exact::new(store.clone(), "rate", bucket(1_000_000, 1_000_000)));
    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..16).map(|_| under_load(limit.clone(), stop.clone())).collect();
    tokio::time::sleep(Duration::from_millis(200)).await;
    break_it(redis);
    eventually_async("nobody asks any more", async || store.open_share() == 1.0).await;
    let (slow, begun) = (store.figures.slow.load(Relaxed), Instant::now());
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(store.figures.slow.load(Relaxed) - slow <= 64, "requests wait no more: {:?}", begun.elapsed());
    let refused = try_take(&limit, "a", 1).await;
    assert_eq!(refused, Err(Unanswered::NotAsked));
    mend_it(redis);
    answering(&store, "a").await;
    eventually_async("limits resume", async || try_take(&limit, "a", 1).await.is_ok()).await;
    stop.store(true, Relaxed);
    for client in clients {
        let (answered, unanswered, longest) = client.await.unwrap();
        assert!(answered > 0 && unanswered > 0);
        assert!(longest <= TIMEOUT + SLACK, "{longest:?}");
    }
}

#[test]
fn no_request_waits_longer_than_the_timeout_when_the_server_is_killed() {
    let Some(mut redis) = Redis::start(&[]) else { return };
    runtime().block_on(survives(&mut redis, Redis::kill, Redis::restart));
}

#[test]
fn no_request_waits_longer_than_the_timeout_when_the_server_hangs() {
    let Some(mut redis) = Redis::start(&[]) else { return };
    runtime().block_on(survives(&mut redis, |redis| redis.pause(), |redis| redis.resume()));
}

#[test]
fn a_server_that_was_not_there_at_the_start_is_found() {
    let Some(mut redis) = Redis::start(&[]) else { return };
    redis.kill();
    runtime().block_on(async {
        let store = Store::new(settings(Place::Server(address(&redis)))).unwrap();
        store.start();
        let limit = Exact::new(store.clone(), "rate", still(5));
        assert_eq!(try_take(&limit, "a", 1).await, Err(Unanswered::NotAsked));
        redis.restart();
        answering(&store, "a").await;
        assert!(take(&limit, "a", 1).await.admitted);
    });
}

#[test]
fn a_password_is_asked_for() {
    let Some(redis) = Redis::with_files(&["--requirepass", "s3cret"], &[], &["-a", "s3cret", "--no-auth-warning"]) else {
        return;
    };
    runtime().block_on(async {
        let place = settings(Place::Server(address(&redis)));
        let wrong = Store::new(Settings { password: Some("wrong".to_owned()), ..place.clone() }).unwrap();
        wrong.start();
        let right = node(Settings { password: Some("s3cret".to_owned()), ..place }).await;
        assert!(take(&Exact::new(right, "rate", still(5)), "a", 1).await.admitted);
        assert_eq!(wrong.open_share(), 1.0);
    });
}

#[test]
fn a_user_needs_no_more_rights_than_is_said() {
    let Some(redis) = Redis::start(&[]) else { return };
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/operations/stores.md")).unwrap();
    let line = page.lines().find(|line| line.starts_with("ACL SETUSER")).expect("the page says them");
    let words: Vec<_> = line.split(' ').map(|word| if word == ">PASSWORD" { ">s3cret" } else { word }).collect();
    assert_eq!(redis.ask(&words), "OK");
    runtime().block_on(async {
        let (username, password) = (Some("banyan".to_owned()), Some("s3cret".to_owned()));
        let store = node(Settings { username, password, ..settings(Place::Server(address(&redis))) }).await;
        assert!(take(&Exact::new(store, "rate", still(5)), "a", 1).await.admitted);
    });
}

#[test]
fn tls_is_spoken_with_the_servers_authority() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let own = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (cert, key) = (own.cert.pem(), own.signing_key.serialize_pem());
    let arguments =
        ["--tls-port", "<bus>", "--tls-cert-file", "<dir>/cert", "--tls-key-file", "<dir>/key", "--tls-auth-clients", "no"];
    let arguments = [&arguments[..], &["--tls-ca-cert-file", "<dir>/cert"]].concat();
    let Some(redis) = Redis::with_files(&arguments, &[("cert", &cert), ("key", &key)], &[]) else { return };
    runtime().block_on(async {
        let port = redis.ask(&["CONFIG", "GET", "tls-port"]).lines().last().unwrap().parse().unwrap();
        let place = Place::Server(Address { host: "localhost".to_owned(), port });
        let tls = Some(Tls { ca: Some(cert.into_bytes()), client: None });
        let store = node(Settings { tls, ..settings(place.clone()) }).await;
        assert!(take(&Exact::new(store, "rate", still(5)), "a", 1).await.admitted);
        let stranger = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap().cert.pem();
        let tls = Some(Tls { ca: Some(stranger.into_bytes()), client: None });
        let wary = Store::new(Settings { tls, ..settings(place) }).unwrap();
        wary.start();
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(wary.open_share(), 1.0, "another's authority does not vouch for it");
    });
}

#[test]
fn a_cluster_counts_each_key_where_it_belongs() {
    let Some(nodes) = redis::cluster() else { return };
    runtime().block_on(async {
        let place = Place::Cluster(nodes.iter().take(1).map(address).collect());
        let store = node(settings(place)).await;
        let limit = Exact::new(store.clone(), "rate", still(2));
        for key in 0..30 {
            let key = key.to_string();
            let admitted = [take(&limit, &key, 1).await, take(&limit, &key, 1).await, take(&limit, &key, 1).await];
            assert_eq!(admitted.map(|verdict| verdict.admitted), [true, true, false], "{key}");
        }
        assert!(nodes.iter().all(|node| node.ask(&["DBSIZE"]).parse::<u64>().unwrap() > 1), "each has some");
        let narrow = Exact::new(store.clone(), "narrow", still(1));
        let both = |key| [Ask { limit: &limit, key: asked(key), cost: 1 }, Ask { limit: &narrow, key: asked("one"), cost: 1 }];
        assert!(take_all(&both("x"), now(), deadline(&store)).await.unwrap().iter().all(|verdict| verdict.admitted));
        assert!(!take_all(&both("y"), now(), deadline(&store)).await.unwrap().iter().all(|verdict| verdict.admitted));
        eventually_async("what the second refused is given back to the first", async || take(&limit, "y", 2).await.admitted)
            .await;
    });
}

#[test]
fn of_a_cluster_only_the_part_that_is_gone_is_not_asked() {
    let Some(nodes) = redis::cluster() else { return };
    runtime().block_on(async {
        let place = Place::Cluster(nodes.iter().map(address).collect());
        let store = node(Settings { timeout: Duration::from_millis(100), ..settings(place) }).await;
        for node in &nodes {
            node.ask(&["CONFIG", "SET", "cluster-require-full-coverage", "no"]);
        }
        let limit = Exact::new(store.clone(), "rate", still(1_000_000));
        nodes[0].pause();
        let keys: Vec<_> = (0..64).map(|key| key.to_string()).collect();
        // One of 64 may lie in two servers' slots, so that it is asked again and again.
        eventually_async("a part is not asked", async || {
            let mut not_asked = 0;
            for key in &keys {
                not_asked += usize::from(try_take(&limit, key, 1).await == Err(Unanswered::NotAsked));
            }
            not_asked >= 10 && store.open_share() < 0.5
        })
        .await;
        let mut answered = 0;
        for key in &keys {
            answered += usize::from(try_take(&limit, key, 1).await.is_ok());
        }
        assert!(answered > 30, "{answered} of 64, about two thirds");
        nodes[0].resume();
        answering(&store, "0").await;
    });
}

#[test]
fn sentinels_say_who_is_the_master_now() {
    let Some(mut master) = Redis::start(&[]) else { return };
    let Some(replica) = Redis::start(&["--replicaof", "127.0.0.1", &master.port().to_string()]) else { return };
    eventually("the replica follows", || replica.ask(&["INFO", "replication"]).contains("master_link_status:up").then_some(()));
    let Some(sentinel) = redis::sentinel(&master) else { return };
    eventually("the sentinel knows the replica", || {
        sentinel.ask(&["SENTINEL", "REPLICAS", "limits"]).contains("slave").then_some(())
    });
    runtime().block_on(async {
        let addresses = vec![Address { host: "127.0.0.1".to_owned(), port: 1 }, address(&sentinel)];
        let place = Place::Sentinels { addresses, master: "limits".to_owned(), username: None, password: None };
        let store = node(Settings { timeout: Duration::from_millis(200), ..settings(place) }).await;
        let limit = Exact::new(store.clone(), "rate", still(5));
        assert_eq!(take(&limit, "a", 2).await.remaining, 3);
        eventually("the replica has it", || (replica.ask(&["EXISTS", "{banyan:rate:a}"]) == "1").then_some(()));
        master.kill();
        eventually_async("the replica is the master, and counts on", async || {
            try_take(&limit, "a", 1).await.is_ok_and(|verdict| verdict.admitted && verdict.remaining <= 2)
        })
        .await;
        assert!(replica.ask(&["ROLE"]).starts_with("master"));
    });
}

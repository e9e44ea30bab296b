use std::{
    num::NonZeroU32,
    sync::atomic::{AtomicU64, AtomicUsize},
};

use tokio::{sync::mpsc, task::JoinSet};

use super::*;

const S: Duration = Duration::from_secs(1);

fn limits(connections: u32, pending: u32) -> Config {
    Config { connections: NonZeroU32::new(connections).unwrap(), pending }
}

fn seen(caps: &Caps) -> (u32, u32, u32) {
    let View { taken, of, waiting } = caps.view();
    (taken, of, waiting)
}

/// Lets every task do what it can do now.
async fn settle() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn so_many_are_in_and_so_many_wait() {
    let caps = Caps::new(&limits(2, 1));
    let _in = (caps.enter(S).await.unwrap(), caps.try_enter().unwrap());
    assert!(caps.try_enter().is_none());
    let waits = tokio::spawn({
        let caps = caps.clone();
        async move { caps.enter(S).await.map(drop) }
    });
    settle().await;
    assert_eq!(seen(&caps), (2, 2, 1));
    assert_eq!(caps.enter(S).await.map(drop), Err(Refused::Full));
    assert_eq!(waits.await.unwrap(), Err(Refused::Late));
    assert_eq!(seen(&caps), (2, 2, 0));
    assert_eq!(caps.enter(Duration::ZERO).await.map(drop), Err(Refused::Late));
}

#[tokio::test(start_paused = true)]
async fn first_come_is_first_served_and_who_gave_up_leaves_no_hole() {
    let caps = Caps::new(&limits(1, 10));
    let place = caps.try_enter().unwrap();
    let (served, mut order) = mpsc::unbounded_channel();
    let mut tasks = Vec::new();
    for number in 0..6 {
        let (caps, served) = (caps.clone(), served.clone());
        let left = if number == 3 { S } else { 10 * S };
        tasks.push(tokio::spawn(async move {
            let place = caps.enter(left).await?;
            served.send(number).unwrap();
            Ok::<_, Refused>(place)
        }));
        settle().await;
    }
    tasks[1].abort();
    time::sleep(2 * S).await;
    assert_eq!(seen(&caps), (1, 1, 4), "one was dropped, one was late");
    drop(place);
    settle().await;
    assert_eq!((order.try_recv(), order.try_recv().is_err()), (Ok(0), true), "one place serves one");
    for (number, task) in [0, 2, 4, 5].into_iter().zip([0, 2, 4, 5]) {
        drop((&mut tasks[task]).await.unwrap().unwrap());
        settle().await;
        if number != 5 {
            assert_eq!(order.try_recv(), Ok([2, 4, 5][[0, 2, 4].iter().position(|before| *before == number).unwrap()]));
        }
    }
    assert_eq!((&mut tasks[3]).await.unwrap().map(drop), Err(Refused::Late));
    assert_eq!(seen(&caps), (0, 1, 0));
}

#[tokio::test(start_paused = true)]
async fn who_is_dropped_with_a_place_in_hand_hands_it_on() {
    let caps = Caps::new(&limits(1, 10));
    let place = caps.try_enter().unwrap();
    let wait = |caps: Arc<Caps>| tokio::spawn(async move { caps.enter(S).await.map(drop) });
    let (first, second) = (wait(caps.clone()), wait(caps.clone()));
    settle().await;
    // Handed to the first, which is dropped before it runs.
    drop(place);
    first.abort();
    assert_eq!(second.await.unwrap(), Ok(()));
    assert_eq!(seen(&caps), (0, 1, 0));
}

#[tokio::test(start_paused = true)]
async fn nobody_is_overtaken() {
    let caps = Caps::new(&limits(1, 10));
    let place = caps.try_enter().unwrap();
    let waits = tokio::spawn({
        let caps = caps.clone();
        async move { caps.enter(S).await }
    });
    settle().await;
    drop(place);
    assert!(caps.try_enter().is_none(), "it belongs to the one that waited");
    assert!(waits.await.unwrap().is_ok());
}

#[tokio::test(start_paused = true)]
async fn only_the_one_that_is_served_is_woken() {
    let caps = Caps::new(&limits(1, 100));
    let place = caps.try_enter().unwrap();
    let polls = Arc::new(AtomicUsize::new(0));
    let mut tasks = JoinSet::new();
    for _ in 0..100 {
        let (caps, polls) = (caps.clone(), polls.clone());
        tasks.spawn(async move {
            let mut wait = std::pin::pin!(caps.enter(100 * S));
            let place = std::future::poll_fn(|cx| {
                polls.fetch_add(1, Relaxed);
                wait.as_mut().poll(cx)
            });
            drop(place.await);
        });
    }
    settle().await;
    drop(place);
    while tasks.join_next().await.is_some() {}
    assert_eq!(polls.load(Relaxed), 200, "each was asked once when it came and once when it was served");
}

#[tokio::test(start_paused = true)]
async fn a_reload_changes_how_many_there_are() {
    let caps = Caps::new(&limits(3, 5));
    let mut places: Vec<_> = (0..3).map(|_| caps.try_enter().unwrap()).collect();
    caps.resize(&limits(1, 5));
    assert_eq!(seen(&caps), (3, 1, 0));
    places.pop();
    places.pop();
    assert!(caps.try_enter().is_none() && seen(&caps) == (1, 1, 0));
    caps.resize(&limits(4, 5));
    places.extend((0..3).map(|_| caps.try_enter().unwrap()));
    assert!(caps.try_enter().is_none());
    caps.resize(&limits(1, 0));
    caps.resize(&limits(2, 0));
    places.clear();
    assert_eq!((caps.places.available_permits(), seen(&caps)), (2, (0, 2, 0)));
}

/// More than may be are never in, whatever is dropped, late or refused, and at the end all places are back.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn threads_never_get_more_places_than_there_are() {
    let caps = Caps::new(&limits(8, 32));
    let (inside, most) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let mut tasks = JoinSet::new();
    for seed in 0..64 {
        let (caps, inside, most) = (caps.clone(), inside.clone(), most.clone());
        tasks.spawn(async move {
            let mut dice = fastrand::Rng::with_seed(seed);
            for _ in 0..300 {
                let left = Duration::from_micros(dice.u64(0..3_000));
                let enter = caps.enter(Duration::from_millis(dice.u64(0..5)));
                // Some are dropped while they wait.
                let Ok(Ok(place)) = time::timeout(left, enter).await else { continue };
                most.fetch_max(inside.fetch_add(1, Relaxed) + 1, Relaxed);
                (0..dice.u32(0..3)).for_each(|_| std::hint::spin_loop());
                tokio::task::yield_now().await;
                inside.fetch_sub(1, Relaxed);
                drop(place);
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    assert!(most.load(Relaxed) <= 8);
    assert_eq!((caps.places.available_permits(), seen(&caps)), (8, (0, 8, 0)));
}

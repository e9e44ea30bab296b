//! The guard against overload: before latency or memory run away, requests are refused, those of the lowest priority first.
//!
//! Three signs tell of it: how long a task waits for its turn on the threads that carry traffic (`lag`), how much memory there is (`memory`), and how
//! many requests are in flight. From the first two a `controller` makes a pressure, ten times a second, and from that the share of each priority
//! that is shed. A request counts itself and reads one word. The third is looked at as a request comes, where a maximum is configured: a tenth of a second is too long for a burst.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use self::{
    controller::{Controller, Reading},
    gate::Gate,
    lag::Lag,
};

mod gate;
mod lag;
mod memory;
mod controller;

pub use self::{controller::Settings, memory::Memory};
pub use crate::config::route::Priority;

/// What there is too little of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reason {
    /// Tasks wait too long for their turn.
    Lag,
    Memory,
    /// As many requests as are configured are in flight.
    InFlight,
}

impl Reason {
    pub const ALL: [Self; 3] = [Self::Lag, Self::Memory, Self::InFlight];

    pub const fn word(self) -> &'static str {
        match self {
            Self::Lag => "lag",
            Self::Memory => "memory",
            Self::InFlight => "in_flight",
        }
    }
}

/// A request is refused, so that others can be carried.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shed {
    pub reason: Reason,
    /// When it may be tried again: spread, so that not all come back at once.
    pub retry_after: Duration,
}

/// Held by a request while it is carried.
#[derive(Debug, Default)]
pub struct Ticket(Option<Arc<Guard>>);

impl Drop for Ticket {
    fn drop(&mut self) {
        if let Some(guard) = &self.0 {
            guard.carried.fetch_sub(1, Relaxed);
        }
    }
}

/// The guard of a gateway. Outlives reloads.
#[derive(Debug)]
pub struct Guard {
    gate: Gate,
    /// Most requests in flight, by priority; `usize::MAX` without a maximum.
    most: [AtomicUsize; Priority::ALL.len()],
    /// Requests with a ticket. Counted only where there is a maximum.
    carried: AtomicUsize,
    counts: Counts,
    lag: Lag,
    settings: Mutex<Settings>,
    /// For who looks: pressures by [`Reason`], in millionths.
    shown: [AtomicU64; Reason::ALL.len()],
}

/// What became of requests: those that came, and those that were shed.
#[derive(Debug, Default)]
struct Counts {
    came: [AtomicU64; Priority::ALL.len()],
    shed: [[AtomicU64; Reason::ALL.len()]; Priority::ALL.len()],
}

/// How it stands, for metrics.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Status {
    /// From 0 (none) to 1 (nothing is carried any more), by [`Reason`].
    pub pressure: [f64; Reason::ALL.len()],
    /// Requests refused since the start, by [`Priority`] and [`Reason`].
    pub shed: [[u64; Reason::ALL.len()]; Priority::ALL.len()],
}

/// How often the pressure is reckoned.
const TICK: Duration = Duration::from_millis(100);

/// Seconds after which a client may come back: from one to so many, drawn.
const RETRY_MAX: u64 = 4;

/// Share of the maximum of requests in flight that a priority may fill, in tenths.
const FILLS: [usize; Priority::ALL.len()] = [8, 9, 10];

impl Guard {
    pub fn new(settings: Settings) -> Self {
        let guard = Self {
            gate: Gate::default(),
            most: [const { AtomicUsize::new(usize::MAX) }; Priority::ALL.len()],
            carried: AtomicUsize::new(0),
            counts: Counts::default(),
            lag: Lag::default(),
            settings: Mutex::new(settings.clone()),
            shown: Default::default(),
        };
        guard.set(settings);
        guard
    }

    /// Puts settings in force.
    pub fn set(&self, settings: Settings) {
        for (most, fills) in self.most.iter().zip(FILLS) {
            let share = |maximum: usize| (maximum.saturating_mul(fills) / 10).max(1);
            most.store(settings.in_flight.map_or(usize::MAX, share), Relaxed);
        }
        self.gate.count(settings.in_flight.is_some());
        *self.settings() = settings;
    }

    /// Whether a request of this priority may go on, and what it holds while it does.
    ///
    /// # Errors
    /// It is shed.
    pub fn admit(self: &Arc<Self>, priority: Priority) -> Result<Ticket, Shed> {
        add_one(self.counts.came.get(priority as usize));
        match self.gate.is_open() {
            true => Ok(Ticket::default()),
            false => self.weigh(priority),
        }
    }

    fn weigh(self: &Arc<Self>, priority: Priority) -> Result<Ticket, Shed> {
        let shed = match self.gate.draw(priority) {
            Some(reason) => reason,
            None if !self.gate.counts() => return Ok(Ticket::default()),
            None => match self.enter(priority) {
                Some(ticket) => return Ok(ticket),
                None => Reason::InFlight,
            },
        };
        add_one(self.counts.of(priority, shed));
        Err(Shed { reason: shed, retry_after: Duration::from_secs(fastrand::u64(1..=RETRY_MAX)) })
    }

    fn enter(self: &Arc<Self>, priority: Priority) -> Option<Ticket> {
        let most = self.most.get(priority as usize).map_or(usize::MAX, |most| most.load(Relaxed));
        // Exact: whoever counts beyond it takes it back at once, and nobody is carried beyond it.
        let before = self.carried.fetch_add(1, Relaxed);
        let ticket = Ticket(Some(self.clone()));
        (before < most).then_some(ticket)
    }

    /// Reckons the pressure anew: to be called every [`TICK`], with the requests in flight as of now.
    fn tick(&self, controller: &mut Controller, in_flight: usize) {
        let settings = self.settings().clone();
        let memory = settings.memory.and_then(Memory::share);
        let reading =
            Reading { lag: self.lag.take(), in_flight, memory, came: self.counts.came(), crowded: self.counts.crowded() };
        let (pressure, told) = controller.tick(&reading, &settings);
        let filled = settings.in_flight.map_or(0.0, |most| self.carried.load(Relaxed) as f64 / most.max(1) as f64);
        for (shown, pressure) in self.shown.iter().zip([pressure.lag, pressure.memory, filled.min(1.0)]) {
            shown.store((pressure * 1e6) as u64, Relaxed);
        }
        self.gate.set(pressure);
        if let Some(event) = told {
            event.tell(&reading);
        }
    }

    /// Measures, on the runtime that this is polled on, how long tasks wait there for their turn; for ever.
    pub async fn measure(&self) {
        self.lag.measure().await;
    }

    /// Reckons the pressure for ever. Not to be polled on the threads that carry traffic.
    pub async fn watch(&self, in_flight: impl Fn() -> usize) {
        let (mut controller, mut ticks) = (Controller::default(), tokio::time::interval(TICK));
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.tick(&mut controller, in_flight());
        }
    }

    pub fn status(&self) -> Status {
        Status {
            pressure: self.shown.each_ref().map(|pressure| pressure.load(Relaxed) as f64 / 1e6),
            shed: self.counts.shed.each_ref().map(|reasons| reasons.each_ref().map(|count| count.load(Relaxed))),
        }
    }

    fn settings(&self) -> MutexGuard<'_, Settings> {
        self.settings.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn add_one(count: Option<&AtomicU64>) {
    if let Some(count) = count {
        count.fetch_add(1, Relaxed);
    }
}

impl Counts {
    fn of(&self, priority: Priority, reason: Reason) -> Option<&AtomicU64> {
        self.shed.get(priority as usize)?.get(reason as usize)
    }

    fn came(&self) -> [u64; Priority::ALL.len()] {
        self.came.each_ref().map(|count| count.load(Relaxed))
    }

    /// Requests refused because too many were in flight.
    fn crowded(&self) -> u64 {
        Priority::ALL.iter().filter_map(|priority| self.of(*priority, Reason::InFlight)).map(|count| count.load(Relaxed)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::{controller::Pressure, *};

    const fn settings(in_flight: Option<usize>) -> Settings {
        Settings { in_flight, lag: None, memory: None, threads: 1 }
    }

    fn guard(in_flight: Option<usize>) -> Arc<Guard> {
        Arc::new(Guard::new(settings(in_flight)))
    }

    fn admitted(guard: &Arc<Guard>, priority: Priority) -> Vec<Ticket> {
        std::iter::from_fn(|| guard.admit(priority).ok()).take(1_000).collect()
    }

    #[test]
    fn without_a_maximum_and_without_pressure_all_are_admitted() {
        assert_eq!(admitted(&guard(None), Priority::Low).len(), 1_000);
    }

    #[test]
    fn what_is_left_of_the_maximum_is_for_higher_priorities() {
        let guard = guard(Some(10));
        let low = admitted(&guard, Priority::Low);
        let normal = admitted(&guard, Priority::Normal);
        let high = admitted(&guard, Priority::High);
        assert_eq!([low.len(), normal.len(), high.len()], [8, 1, 1]);
        drop(high);
        assert!(guard.admit(Priority::Normal).is_err() && guard.admit(Priority::High).is_ok());
        drop((low, normal));
        assert_eq!(guard.carried.load(Relaxed), 0);
        assert_eq!(guard.status().shed, [[0, 0, 1], [0, 0, 2], [0, 0, 1]]);
    }

    #[test]
    fn a_maximum_of_one_is_one_for_all() {
        for priority in Priority::ALL {
            assert_eq!(admitted(&guard(Some(1)), priority).len(), 1, "{priority:?}");
        }
    }

    #[test]
    fn threads_carry_no_more_than_the_maximum() {
        let (guard, most) = (guard(Some(50)), AtomicUsize::new(0));
        let together = AtomicUsize::new(0);
        let run = || {
            for _ in 0..20_000 {
                if let Ok(_ticket) = guard.admit(Priority::High) {
                    most.fetch_max(together.fetch_add(1, Relaxed) + 1, Relaxed);
                    together.fetch_sub(1, Relaxed);
                }
            }
        };
        std::thread::scope(|scope| (0..4).for_each(|_| drop(scope.spawn(run))));
        assert!(most.into_inner() <= 50);
        assert_eq!(guard.carried.load(Relaxed), 0);
    }

    #[test]
    fn a_maximum_that_a_reload_removes_or_lowers_holds_from_then_on() {
        let guard = guard(Some(1));
        let one = guard.admit(Priority::High).unwrap();
        guard.set(settings(None));
        assert_eq!(admitted(&guard, Priority::Low).len(), 1_000);
        guard.set(settings(Some(2)));
        assert_eq!(admitted(&guard, Priority::High).len(), 1, "who was counted before is counted still");
        drop(one);
    }

    #[test]
    fn low_is_shed_before_normal_and_high() {
        let guard = guard(None);
        let shares = |pressure: f64| {
            guard.gate.set(Pressure { lag: pressure, memory: 0.0 });
            Priority::ALL.map(|priority| (0..10_000).filter(|_| guard.admit(priority).is_err()).count())
        };
        let [low, normal, high] = shares(0.2);
        assert!((5_500..6_500).contains(&low) && (normal, high) == (0, 0), "{low} {normal} {high}");
        let [low, normal, high] = shares(0.5);
        assert!(low == 10_000 && (4_500..5_500).contains(&normal) && high == 0, "{low} {normal} {high}");
        assert_eq!(shares(1.0), [10_000; 3]);
        assert_eq!(shares(0.0), [0; 3]);
    }

    #[test]
    fn who_is_shed_may_come_back_in_a_moment_that_is_drawn() {
        let guard = guard(None);
        guard.gate.set(Pressure { lag: 0.0, memory: 1.0 });
        let shed: Vec<_> = (0..200).map(|_| guard.admit(Priority::High).unwrap_err()).collect();
        assert!(shed.iter().all(|shed| shed.reason == Reason::Memory && (1..=4).contains(&shed.retry_after.as_secs())));
        assert!(shed.iter().any(|one| one.retry_after != shed[0].retry_after));
    }
}

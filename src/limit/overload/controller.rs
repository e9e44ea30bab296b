//! From what is measured to a pressure: quick to rise, slow to fall, and still in between.
//!
//! For lag the pressure is a sum: as long as tasks wait too long it grows, so the share that is shed finds by itself what the threads can carry. For
//! memory it follows how near the limit is.

use std::time::Duration;

use super::{Memory, Priority, Reason};
use crate::config::{Overload, policy::Switch, process::Threads};

/// What the guard goes by.
#[derive(Clone, PartialEq, Debug)]
pub struct Settings {
    /// Most requests in flight. None: as many as come.
    pub in_flight: Option<usize>,
    /// Longest wait of tasks for their turn that is still no overload. None: it is not looked at.
    pub lag: Option<Duration>,
    /// Memory that the process may have. None: it is not looked at.
    pub memory: Option<Memory>,
    /// Threads that carry traffic.
    pub threads: usize,
}

/// Requests for each thread, in flight or come in a moment, from which on lag may be their doing. Where there are fewer, something else has the
/// processors, and to shed requests would help nobody.
const BUSY_IN_FLIGHT: usize = 8;
const BUSY_COME: usize = 50;

impl Settings {
    /// What the file says, for so many threads; where it says nothing of memory, what this system says.
    pub fn of(config: &Switch<Overload>, threads: Threads) -> Self {
        let defaults = Overload::default();
        let config = match config {
            Switch::Off => return Self { in_flight: None, lag: None, memory: None, threads: 1 },
            Switch::Inherited => &defaults,
            Switch::On(config) => config,
        };
        Self {
            in_flight: config.in_flight.map(|most| most as usize),
            lag: Some(config.lag.as_std()),
            memory: config.memory.map(|bytes| Memory { limit: bytes.get() }).or_else(Memory::of_system),
            threads: threads.count(),
        }
    }
}

/// What is measured, as of a moment.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Reading {
    /// The least wait since the last moment.
    pub lag: Option<Duration>,
    pub in_flight: usize,
    /// The share of memory in use.
    pub memory: Option<f64>,
    /// Requests that came since the start, by priority.
    pub came: [u64; Priority::ALL.len()],
    /// Requests refused because too many were in flight, since the start.
    pub crowded: u64,
}

/// From 0, where nothing is shed, to 1, where all is.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Pressure {
    pub lag: f64,
    pub memory: f64,
}

/// Moments whose least lag counts: a fifth of a second and more.
const WINDOW: usize = 3;

/// What the pressure of lag gains in a moment at most: full in a second.
const GAIN_MAX: f64 = 0.1;

/// What a pressure loses in a moment: a share of itself, and so much at least. Halved in three seconds, gone in fifteen: only by giving way does it find
/// out whether there is room again, so the nearer it comes the smaller are its steps.
const LOSS: f64 = 0.02;
const LOSS_MIN: f64 = 0.004;

/// Lag so many times what is allowed makes it grow fastest.
const STEEPEST: f64 = 4.0;

/// Shares of memory at which the first request is shed, and the last.
const MEMORY_FROM: f64 = 0.85;
const MEMORY_TO: f64 = 0.97;

/// Share of the requests that a priority must have before shedding it is of use.
const WORTH: f64 = 0.1;

/// Moments without a refusal after which an overload is over: 3 s.
const CALM: u32 = 30;

/// Reckons the pressure, moment by moment.
#[derive(Debug, Default)]
pub struct Controller {
    pressure: Pressure,
    /// The last lags, as a ring.
    lags: [Option<Duration>; WINDOW],
    at: usize,
    /// The least lag that was reckoned with last.
    before: Option<Duration>,
    came: [u64; Priority::ALL.len()],
    crowded: u64,
    state: State,
}

/// Whether something is shed, as the log tells it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum State {
    #[default]
    Calm,
    Shedding {
        /// The highest priority that is shed.
        deepest: Priority,
        /// Moments since the last was shed.
        quiet: u32,
    },
}

/// Something that the log tells once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// Requests of this priority and below are shed.
    Shedding(Priority, Reason),
    /// Nothing is shed any more.
    Calm,
}

impl Controller {
    /// The pressure from now on, and what is to be told.
    pub fn tick(&mut self, reading: &Reading, settings: &Settings) -> (Pressure, Option<Event>) {
        let came = self.came_since(reading);
        self.pressure.lag = self.of_lag(reading, settings, came);
        self.pressure.memory = self.of_memory(reading, settings);
        let crowded = reading.crowded > self.crowded;
        self.crowded = reading.crowded;
        (self.pressure, self.told(crowded))
    }

    fn of_lag(&mut self, reading: &Reading, settings: &Settings, came: [u64; 3]) -> f64 {
        let least = self.least(reading.lag);
        let (Some(target), Some(lag)) = (settings.lag, least) else { return 0.0 };
        let falls = self.before.replace(lag).is_some_and(|before| lag < before);
        let excess = lag.as_secs_f64() / target.as_secs_f64();
        let now = self.pressure.lag;
        let busy = reading.in_flight >= BUSY_IN_FLIGHT * settings.threads
            || came.iter().sum::<u64>() >= (BUSY_COME * settings.threads) as u64;
        if !busy || excess < 0.5 {
            lessened(now)
        } else if excess < 1.0 || falls {
            now
        } else {
            let gain = GAIN_MAX * (excess - 1.0).min(STEEPEST - 1.0) / (STEEPEST - 1.0);
            // What turns out to be shed for nothing is given up slowly, too: what comes changes from moment to moment.
            (now + gain).min(worth(came).max(lessened(now)))
        }
    }

    /// The least lag of the window. A window that is not full yet has none.
    fn least(&mut self, lag: Option<Duration>) -> Option<Duration> {
        if let Some(place) = self.lags.get_mut(self.at) {
            *place = lag;
        }
        self.at = (self.at + 1) % WINDOW;
        self.lags.iter().copied().min().flatten()
    }

    fn came_since(&mut self, reading: &Reading) -> [u64; Priority::ALL.len()] {
        let mut came = reading.came;
        came.iter_mut().zip(self.came).for_each(|(now, before)| *now = now.saturating_sub(before));
        self.came = reading.came;
        came
    }

    fn of_memory(&self, reading: &Reading, settings: &Settings) -> f64 {
        let (Some(_), Some(share)) = (settings.memory, reading.memory) else { return 0.0 };
        let wanted = ((share - MEMORY_FROM) / (MEMORY_TO - MEMORY_FROM)).clamp(0.0, 1.0);
        wanted.max(lessened(self.pressure.memory))
    }

    fn told(&mut self, crowded: bool) -> Option<Event> {
        let Pressure { lag, memory } = self.pressure;
        let most = lag.max(memory);
        let (deepest, reason) = match () {
            () if most > 2.0 / 3.0 => (Priority::High, if memory > lag { Reason::Memory } else { Reason::Lag }),
            () if most > 1.0 / 3.0 => (Priority::Normal, if memory > lag { Reason::Memory } else { Reason::Lag }),
            () if most > 0.0 => (Priority::Low, if memory > lag { Reason::Memory } else { Reason::Lag }),
            () if crowded => (Priority::Low, Reason::InFlight),
            () => return self.quiet(),
        };
        match &mut self.state {
            State::Shedding { deepest: before, quiet } if *before >= deepest => {
                *quiet = 0;
                None
            }
            state => {
                *state = State::Shedding { deepest, quiet: 0 };
                Some(Event::Shedding(deepest, reason))
            }
        }
    }

    fn quiet(&mut self) -> Option<Event> {
        match &mut self.state {
            State::Shedding { quiet, .. } if *quiet >= CALM => {
                self.state = State::Calm;
                Some(Event::Calm)
            }
            State::Shedding { quiet, .. } => {
                *quiet += 1;
                None
            }
            State::Calm => None,
        }
    }
}

/// How far pressure is of use: where next to nothing comes of a priority, shedding that too would hurt those few and help nobody.
fn worth(came: [u64; Priority::ALL.len()]) -> f64 {
    let [low, normal, high] = came.map(|count| count as f64);
    let enough = (low + normal + high) * WORTH;
    match () {
        () if high >= enough => 1.0,
        () if normal >= enough => 2.0 / 3.0,
        () => 1.0 / 3.0,
    }
}

fn lessened(pressure: f64) -> f64 {
    (pressure - (pressure * LOSS).max(LOSS_MIN)).max(0.0)
}

impl Event {
    /// Writes it to the log.
    pub fn tell(self, reading: &Reading) {
        let Reading { lag, memory, in_flight, .. } = reading;
        match self {
            Self::Shedding(priority, reason) => tracing::warn!(
                reason = reason.word(),
                lag = ?lag.unwrap_or_default(),
                memory = memory.map(|share| format!("{:.0}%", share * 100.0)),
                in_flight,
                "overload: requests of priority `{}` are shed{}",
                priority.word(),
                if priority == Priority::Low { "" } else { ", and all below" },
            ),
            Self::Calm => tracing::info!("the overload is over: nothing is shed any more"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGET: Duration = Duration::from_millis(50);

    const SETTINGS: Settings =
        Settings { in_flight: None, lag: Some(TARGET), memory: Some(Memory { limit: 1 << 30 }), threads: 2 };

    fn reading(lag: Duration) -> Reading {
        Reading { lag: Some(lag), in_flight: 100, ..Reading::default() }
    }

    /// The pressures of lag over so many moments.
    fn after(controller: &mut Controller, moments: usize, reading: &Reading) -> f64 {
        (0..moments).map(|_| controller.tick(reading, &SETTINGS).0.lag).last().unwrap()
    }

    #[test]
    fn lag_below_the_target_is_no_pressure() {
        assert_eq!(after(&mut Controller::default(), 1_000, &reading(TARGET)), 0.0);
    }

    #[test]
    fn a_burst_that_passes_is_no_pressure() {
        let mut controller = Controller::default();
        for _ in 0..100 {
            assert_eq!(after(&mut controller, WINDOW - 1, &reading(TARGET * 10)), 0.0);
            assert_eq!(after(&mut controller, 1, &reading(Duration::ZERO)), 0.0);
        }
    }

    #[test]
    fn lag_that_stays_sheds_all_in_a_second_and_passes_in_fifteen() {
        let mut controller = Controller::default();
        assert_eq!(after(&mut controller, WINDOW + 10, &reading(TARGET * 10)), 1.0);
        let half = after(&mut controller, 35, &reading(Duration::ZERO));
        assert!((0.45..0.55).contains(&half), "{half}");
        assert!(after(&mut controller, 50, &reading(Duration::ZERO)) > 0.1);
        assert_eq!(after(&mut controller, 65, &reading(Duration::ZERO)), 0.0);
    }

    #[test]
    fn between_half_the_target_and_the_target_it_stays() {
        let mut controller = Controller::default();
        let before = after(&mut controller, WINDOW + 3, &reading(TARGET * 10));
        assert!(before > 0.1);
        after(&mut controller, WINDOW, &reading(TARGET * 8 / 10));
        let held = controller.pressure.lag;
        assert_eq!(after(&mut controller, 100, &reading(TARGET * 8 / 10)), held);
    }

    #[test]
    fn who_carries_next_to_nothing_is_not_the_cause_of_its_lag() {
        let mut late = Reading { in_flight: 15, ..reading(TARGET * 10) };
        let mut run = |come: u64| {
            let mut controller = Controller::default();
            let mut moment = || {
                late.came[1] += come;
                after(&mut controller, 1, &late)
            };
            (0..100).map(|_| moment()).last().unwrap()
        };
        assert_eq!((run(0), run(99)), (0.0, 0.0));
        assert!(run(100) > 0.5, "who answers all by itself has next to none in flight");
    }

    #[test]
    fn what_is_not_measured_or_not_wanted_is_no_pressure() {
        let mut controller = Controller::default();
        assert_eq!(after(&mut controller, 100, &Reading { lag: None, ..reading(TARGET) }), 0.0);
        let off = Settings { lag: None, memory: None, ..SETTINGS };
        let full = Reading { memory: Some(1.0), ..reading(TARGET * 10) };
        assert!((0..100).all(|_| controller.tick(&full, &off).0 == Pressure::default()));
    }

    #[test]
    fn priorities_of_which_next_to_nothing_comes_are_not_shed() {
        let mut controller = Controller::default();
        let mut late = reading(TARGET * 10);
        let mut pressure = 0.0;
        for _ in 0..100 {
            late.came = [late.came[0] + 95, late.came[1], late.came[2] + 5];
            pressure = after(&mut controller, 1, &late);
        }
        assert!(pressure <= 1.0 / 3.0, "{pressure}");
        for _ in 0..100 {
            late.came = [late.came[0] + 50, late.came[1], late.came[2] + 50];
            pressure = after(&mut controller, 1, &late);
        }
        assert_eq!(pressure, 1.0);
    }

    #[test]
    fn memory_near_its_limit_sheds_at_once_and_lets_go_slowly() {
        let (mut controller, settings) = (Controller::default(), SETTINGS);
        let mut at = |share: f64| controller.tick(&Reading { memory: Some(share), ..Reading::default() }, &settings).0.memory;
        assert_eq!((at(0.5), at(0.85)), (0.0, 0.0));
        assert!((0.49..0.51).contains(&at(0.91)));
        assert_eq!(at(0.97), 1.0);
        assert!((0.97..0.99).contains(&at(0.5)));
        assert_eq!((0..150).map(|_| at(0.5)).last(), Some(0.0));
    }

    #[test]
    fn each_change_of_state_is_told_once() {
        let mut controller = Controller::default();
        let settings = SETTINGS;
        let mut told = |moments: usize, reading: &Reading| -> Vec<Event> {
            (0..moments).filter_map(|_| controller.tick(reading, &settings).1).collect()
        };
        assert_eq!(
            told(100, &reading(TARGET * 10)),
            [Priority::Low, Priority::Normal, Priority::High].map(|priority| Event::Shedding(priority, Reason::Lag))
        );
        assert_eq!(told(300, &reading(Duration::ZERO)), [Event::Calm]);
        // Refusals that come every two seconds are one overload.
        let mut crowded = Reading::default();
        let mut events = Vec::new();
        for _ in 0..10 {
            crowded.crowded += 1;
            events.extend(told(20, &crowded));
        }
        assert_eq!(events, [Event::Shedding(Priority::Low, Reason::InFlight)]);
        assert_eq!(told(100, &crowded), [Event::Calm]);
    }

    /// A gateway that can do so much work in a moment, to which more comes, from clients who do not wait.
    struct Plant {
        /// Work in a moment of 100 ms.
        capacity: f64,
        /// Requests in a moment, by priority.
        comes: [f64; 3],
        /// Work of a request that is carried, and of one that is shed.
        costs: (f64, f64),
        queue: f64,
    }

    /// Shares that were carried of each priority and the longest lag, over so many moments.
    fn run(plant: &mut Plant, controller: &mut Controller, moments: usize) -> ([f64; 3], Duration, Vec<f64>) {
        let (mut carried, mut came, mut longest, mut pressures) = ([0.0; 3], [0.0; 3], Duration::ZERO, Vec::new());
        let mut reading = Reading { in_flight: 100, ..Reading::default() };
        for _ in 0..moments {
            let lag = Duration::from_secs_f64(plant.queue / plant.capacity / 10.0);
            longest = longest.max(lag);
            reading.lag = Some(lag);
            let pressure = controller.tick(&reading, &SETTINGS).0.lag;
            pressures.push(pressure);
            let mut work = 0.0;
            for (priority, comes) in plant.comes.iter().enumerate() {
                let shed = (pressure * 3.0 - priority as f64).clamp(0.0, 1.0);
                work += comes * ((1.0 - shed) * plant.costs.0 + shed * plant.costs.1);
                carried[priority] += comes * (1.0 - shed);
                came[priority] += comes;
                reading.came[priority] += *comes as u64;
            }
            plant.queue = (plant.queue + work - plant.capacity).max(0.0);
        }
        let shares = [0, 1, 2].map(|priority| carried[priority] / came[priority].max(1.0));
        (shares, longest, pressures)
    }

    fn plant(comes: [f64; 3]) -> Plant {
        Plant { capacity: 1_000.0, comes, costs: (1.0, 0.2), queue: 0.0 }
    }

    #[test]
    fn what_can_be_carried_is_carried_and_lag_stays_bounded() {
        let (mut plant, mut controller) = (plant([1_200.0, 200.0, 200.0]), Controller::default());
        let (_, longest, _) = run(&mut plant, &mut controller, 100);
        assert!(longest < Duration::from_millis(600), "{longest:?}");
        let ([low, normal, high], longest, pressures) = run(&mut plant, &mut controller, 600);
        assert!(longest < TARGET * 4, "{longest:?}");
        assert!(normal == 1.0 && high == 1.0 && (0.05..0.5).contains(&low), "{low} {normal} {high}");
        let (least, most) = pressures.iter().fold((1.0f64, 0.0f64), |(least, most), now| (least.min(*now), most.max(*now)));
        assert!(most - least < 0.15, "it does not flap: {least} to {most}");
    }

    #[test]
    fn all_priorities_are_carried_again_when_less_comes() {
        let (mut plant, mut controller) = (plant([3_000.0, 400.0, 400.0]), Controller::default());
        run(&mut plant, &mut controller, 100);
        plant.comes = [300.0; 3];
        run(&mut plant, &mut controller, 150);
        let (carried, longest, pressures) = run(&mut plant, &mut controller, 10);
        assert_eq!((carried, pressures[9]), ([1.0; 3], 0.0));
        assert!(longest < TARGET);
    }

    #[test]
    fn a_flood_that_cannot_be_answered_costs_no_other_priority() {
        let (mut plant, mut controller) = (plant([20_000.0, 100.0, 100.0]), Controller::default());
        let ([low, normal, high], _, _) = run(&mut plant, &mut controller, 600);
        assert!(low < 0.05 && normal > 0.9 && high == 1.0, "{low} {normal} {high}");
    }
}

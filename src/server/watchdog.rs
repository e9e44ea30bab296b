//! Whether the data path lives: a question over a socket that a task on the threads which carry traffic must answer.
//!
//! The question takes the way of a request: the runtime's own driver must see the socket, a thread must be free to run the task, and a
//! fresh task must get its turn. No file descriptor is needed for it, nor a listener, so what a flood uses up does not end the process.

use std::{io, os::unix::net::UnixStream as Blocking, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    time::{Instant, MissedTickBehavior, interval, timeout_at},
};

/// Set by the service manager: how often it wants a sign of life, and from whom.
const PERIOD: &str = "WATCHDOG_USEC";
const PID: &str = "WATCHDOG_PID";

/// Sits on the data path and answers.
pub struct Canary(Blocking);

/// Asks the canary.
pub struct Probe {
    line: UnixStream,
    /// The last question. It is one byte, so none is ever half read.
    asked: u8,
}

/// A probe that has no runtime yet.
pub struct Asleep(Blocking);

/// A canary and who may ask it.
///
/// # Errors
/// The system has no socket for us.
pub fn pair() -> io::Result<(Canary, Asleep)> {
    let (one, other) = Blocking::pair()?;
    one.set_nonblocking(true)?;
    other.set_nonblocking(true)?;
    Ok((Canary(one), Asleep(other)))
}

/// How often the service manager wants a sign of life of this process; none if it does not.
pub fn period_of_environment() -> Option<Duration> {
    let number = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
    let ours = number(PID).is_none_or(|pid| pid == u64::from(std::process::id()));
    number(PERIOD).filter(|period| ours && *period > 0).map(Duration::from_micros)
}

impl Canary {
    /// Answers, on the runtime that this is polled on, until nobody can ask any more.
    pub async fn sing(self) {
        let answered = async {
            let (mut questions, answers) = UnixStream::from_std(self.0)?.into_split();
            let mut answers = Some(answers);
            while let (Ok(question), Some(mut line)) = (questions.read_u8().await, answers.take()) {
                // A task of its own, as each connection has: it must find its turn.
                let answer = tokio::spawn(async move { line.write_u8(question).await.map(|()| line) });
                answers = answer.await.ok().and_then(io::Result::ok);
            }
            io::Result::Ok(())
        };
        if let Err(error) = answered.await {
            tracing::error!(%error, "the watchdog has nobody to ask");
        }
    }
}

impl Asleep {
    /// To be called on the runtime that asks.
    pub fn wake(self) -> io::Result<Probe> {
        Ok(Probe { line: UnixStream::from_std(self.0)?, asked: 0 })
    }
}

impl Probe {
    /// Whether there is an answer by then. A late answer to an earlier question is none to this one.
    async fn is_answered(&mut self, by: Instant) -> bool {
        self.asked = self.asked.wrapping_add(1);
        let (asked, line) = (self.asked, &mut self.line);
        let answer = timeout_at(by, async move {
            line.write_u8(asked).await?;
            while line.read_u8().await? != asked {}
            io::Result::Ok(())
        });
        matches!(answer.await, Ok(Ok(())))
    }

    /// Gives a sign of life twice a period, as long as there are answers.
    pub async fn watch(mut self, period: Duration, alive: impl Fn()) {
        let half = period / 2;
        let mut ticks = interval(half);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let asked = ticks.tick().await;
            match self.is_answered(asked + half).await {
                true => alive(),
                false => tracing::error!("the threads that carry traffic did not answer within {half:?}"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// Longest wait for an answer that must come.
    const PATIENCE: Duration = Duration::from_secs(20);

    /// Longest wait for one that must not.
    const MOMENT: Duration = Duration::from_millis(20);

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
    }

    async fn is_answered(probe: &mut Probe, within: Duration) -> bool {
        probe.is_answered(Instant::now() + within).await
    }

    #[test]
    fn a_data_path_that_is_stuck_does_not_answer_until_it_goes_on() {
        let (carrying, asking) = (runtime(), runtime());
        let (canary, probe) = pair().unwrap();
        carrying.spawn(canary.sing());
        let (stick, stuck) = mpsc::channel::<()>();
        let (tell, told) = mpsc::channel();
        asking.block_on(async {
            let mut probe = probe.wake().unwrap();
            assert!(is_answered(&mut probe, PATIENCE).await);
            carrying.spawn(async move {
                tell.send(()).unwrap();
                stuck.recv().unwrap();
            });
            told.recv().unwrap();
            assert!(!is_answered(&mut probe, MOMENT).await);
            assert!(!is_answered(&mut probe, MOMENT).await);
            stick.send(()).unwrap();
            assert!(is_answered(&mut probe, PATIENCE).await);
        });
    }

    #[test]
    fn a_late_answer_is_none_to_the_next_question() {
        let asking = runtime();
        let (canary, probe) = pair().unwrap();
        asking.block_on(async {
            let mut probe = probe.wake().unwrap();
            assert!(!is_answered(&mut probe, MOMENT).await);
            let mut line = UnixStream::from_std(canary.0).unwrap();
            let first = line.read_u8().await.unwrap();
            line.write_u8(first).await.unwrap();
            assert!(!is_answered(&mut probe, MOMENT).await);
        });
    }

    #[test]
    fn no_canary_means_no_sign_of_life() {
        let (canary, probe) = pair().unwrap();
        drop(canary);
        runtime().block_on(async {
            let mut probe = probe.wake().unwrap();
            assert!(!is_answered(&mut probe, PATIENCE).await);
        });
    }
}

//! A deadline that moves often and is waited for seldom.

use std::{
    pin::Pin,
    task::{Context, Poll, Waker},
    time::Instant,
};

use tokio::time::{Sleep, sleep_until};

/// Wakes its task at a deadline. A deadline that moves on is looked at when the timer fires, so moving it costs nothing.
#[derive(Debug, Default)]
pub struct Timer {
    sleep: Option<Pin<Box<Sleep>>>,
    /// Whom the sleep wakes.
    sleeper: Option<Waker>,
}

impl Timer {
    /// Ready once the deadline has passed.
    pub fn poll(&mut self, due: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep_until(due.into())));
        let is_later = sleep.deadline() > due.into();
        if is_later {
            sleep.as_mut().reset(due.into());
        }
        let sleeps = self.sleeper.as_ref().is_some_and(|sleeper| sleeper.will_wake(cx.waker()));
        if sleeps && !is_later && !sleep.is_elapsed() {
            return Poll::Pending;
        }
        if !sleeps {
            self.sleeper = Some(cx.waker().clone());
        }
        while sleep.as_mut().poll(cx).is_ready() {
            if sleep.deadline() >= due.into() {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(due.into());
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, time::Duration};

    use super::*;

    async fn waits(timer: &mut Timer, millis: u64) -> Duration {
        let begun = Instant::now();
        let due = begun + Duration::from_millis(millis);
        poll_fn(|cx| timer.poll(due, cx)).await;
        begun.elapsed()
    }

    #[tokio::test]
    async fn a_deadline_may_move_to_later_and_to_sooner() {
        let mut timer = Timer::default();
        let far = Instant::now() + Duration::from_secs(60);
        poll_fn(|cx| Poll::Ready(timer.poll(far, cx).is_pending())).await;
        assert!(waits(&mut timer, 20).await < Duration::from_secs(30));
        assert!(waits(&mut timer, 30).await >= Duration::from_millis(30));
    }
}

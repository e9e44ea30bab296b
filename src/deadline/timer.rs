//! A deadline that moves often and is waited for seldom.

use std::{
    pin::Pin,
    task::{Context, Poll, Waker},
    time::Instant,
};

use tokio::{
    task::unconstrained,
    time::{Sleep, sleep_until},
};

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
        // Without regard to the budget of the task's turn: with none left it would not be registered, and we would believe that it is.
        while Pin::new(&mut unconstrained(sleep.as_mut())).poll(cx).is_ready() {
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

    /// Uses the budget of this turn up, and then some: the task is to be polled again.
    fn exhaust(cx: &mut Context<'_>) {
        while std::pin::pin!(tokio::task::coop::consume_budget()).poll(cx).is_ready() {}
    }

    #[tokio::test]
    async fn a_deadline_is_kept_that_was_first_waited_for_at_the_end_of_a_turn() {
        let mut timer = Timer::default();
        let due = Instant::now() + Duration::from_millis(20);
        let wait = poll_fn(|cx| {
            exhaust(cx);
            timer.poll(due, cx)
        });
        tokio::time::timeout(Duration::from_secs(10), wait).await.expect("it wakes");
    }

    #[tokio::test]
    async fn a_deadline_that_moved_on_is_kept_though_it_was_looked_at_at_the_end_of_a_turn() {
        let mut timer = Timer::default();
        let (near, far) = (Instant::now() + Duration::from_millis(10), Instant::now() + Duration::from_millis(40));
        poll_fn(|cx| Poll::Ready(timer.poll(near, cx).is_pending())).await;
        let wait = poll_fn(|cx| {
            exhaust(cx);
            timer.poll(far, cx)
        });
        tokio::time::timeout(Duration::from_secs(10), wait).await.expect("it wakes");
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

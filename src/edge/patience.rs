//! How long a client is waited for to take what is written to it.

use std::{
    io,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use crate::deadline::{Clock, Timer};

/// Longest wait for a client to take what is written to it.
const TAKEN_MAX: Duration = Duration::from_secs(60);

/// The wait for one client. Pingora itself bounds the writing of a body, but not its last flush, nor the end of a connection.
#[derive(Debug, Default)]
pub struct Patience {
    /// By when what waits must be taken. None: nothing waits.
    by: Option<Instant>,
    timer: Timer,
}

impl Patience {
    /// Looks at how a write went: one that waits too long fails. While the client takes nothing, the service cannot be heard.
    pub fn with<T>(&mut self, written: Poll<io::Result<T>>, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            if self.by.take().is_some() {
                Clock::hold(false);
            }
            return written;
        }
        let by = *self.by.get_or_insert_with(|| {
            Clock::hold(true);
            Instant::now() + TAKEN_MAX
        });
        ready!(self.timer.poll(by, cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_not_taken_in_time_fails() {
        let mut patience = Patience::default();
        let failed = poll_fn(|cx| patience.with::<usize>(Poll::Pending, cx)).await;
        assert_eq!(failed.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn each_wait_has_its_own_time() {
        let mut patience = Patience::default();
        poll_fn(|cx| {
            assert!(patience.with::<()>(Poll::Pending, cx).is_pending());
            assert!(patience.by.is_some());
            patience.with(Poll::Ready(Ok(())), cx)
        })
        .await
        .unwrap();
        assert!(patience.by.is_none());
    }
}

//! How far the process is on its way to its end.

use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

use tokio::sync::watch;

/// What is done for clients, from all to nothing. It only ever goes on.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
#[repr(u8)]
pub enum Stage {
    #[default]
    Serving,
    /// Readiness fails, so that load balancers look elsewhere; all is carried as before.
    Leaving,
    /// What has begun may finish, and every client is to open its next connection elsewhere.
    Closing,
    /// What would go on for ever is told to end: WebSockets.
    Parting,
    /// What is left ends now.
    Cut,
}

/// The stage now. A request looks at it often, so the look is one load; who waits for it subscribes.
#[derive(Debug, Default)]
pub struct Progress {
    now: AtomicU8,
    told: watch::Sender<Stage>,
}

impl Progress {
    pub fn enter(&self, stage: Stage) {
        self.now.fetch_max(stage as u8, Relaxed);
        self.told.send_if_modified(|told| {
            let later = stage > *told;
            *told = stage.max(*told);
            later
        });
    }

    pub fn is(&self, stage: Stage) -> bool {
        self.now.load(Relaxed) >= stage as u8
    }

    pub fn follow(&self) -> watch::Receiver<Stage> {
        self.told.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_is_never_taken_back() {
        let progress = Progress::default();
        assert!(progress.is(Stage::Serving) && !progress.is(Stage::Leaving));
        progress.enter(Stage::Closing);
        let mut follower = progress.follow();
        progress.enter(Stage::Leaving);
        assert!(progress.is(Stage::Closing) && !progress.is(Stage::Cut));
        assert!(!follower.has_changed().unwrap(), "nothing is told twice");
        progress.enter(Stage::Cut);
        assert_eq!(*follower.borrow_and_update(), Stage::Cut);
    }
}

//! How much is asked of a service at once, and who waits for it: first come, first served, as long as each has time.
//!
//! Tokio's semaphore is the queue: a place that becomes free is handed to the one that waits longest, who alone is woken; one that gives up,
//! or whose time is over, leaves the queue or hands on what it was handed. Without a queue an entry is one exchange.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{sync::Semaphore, time};

use crate::config::upstream::Limits as Config;

#[cfg(test)]
mod tests;

/// Compiled `limits`. Kept over reloads, which only [`resize`](Self::resize) it.
#[derive(Debug)]
pub struct Caps {
    places: Semaphore,
    /// Places there should be.
    size: Mutex<u32>,
    /// Places that are still taken though there should be fewer: each goes when it is given back.
    excess: AtomicU32,
    pending: AtomicU32,
    waiting: AtomicU32,
}

/// A place at the service, given back when it is dropped.
#[derive(Debug)]
#[must_use = "what is dropped is given back"]
pub struct Place(Arc<Caps>);

/// Why there is none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refused {
    /// As many wait as may.
    Full,
    /// The request's time was over before there was one.
    Late,
}

/// What is to be seen from outside.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct View {
    pub taken: u32,
    pub of: u32,
    pub waiting: u32,
}

impl Caps {
    pub fn new(config: &Config) -> Arc<Self> {
        Arc::new(Self {
            places: Semaphore::new(config.connections.get() as usize),
            size: Mutex::new(config.connections.get()),
            excess: AtomicU32::new(0),
            pending: AtomicU32::new(config.pending),
            waiting: AtomicU32::new(0),
        })
    }

    /// A place if there is one now. Nobody is overtaken: a place that others wait for is never free.
    pub fn try_enter(self: &Arc<Self>) -> Option<Place> {
        let taken = self.places.try_acquire().ok()?;
        taken.forget();
        Some(Place(self.clone()))
    }

    /// A place now, or within this time.
    ///
    /// # Errors
    /// Too many wait already, or the time passed.
    pub async fn enter(self: &Arc<Self>, left: Duration) -> Result<Place, Refused> {
        if let Some(place) = self.try_enter() {
            return Ok(place);
        }
        if left.is_zero() {
            return Err(Refused::Late);
        }
        let _waits = Waiting::begin(self).ok_or(Refused::Full)?;
        let taken = time::timeout(left, self.places.acquire()).await.map_err(|_| Refused::Late)?;
        // It is never closed.
        taken.map_err(|_| Refused::Full)?.forget();
        Ok(Place(self.clone()))
    }

    /// After a reload. Who is in stays in, who waits goes on waiting.
    pub fn resize(&self, config: &Config) {
        self.pending.store(config.pending, Relaxed);
        let mut size = self.size.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = config.connections.get();
        if wanted < *size {
            let fewer = *size - wanted;
            // No more are forgotten than were asked for.
            let forgotten = self.places.forget_permits(fewer as usize) as u32;
            self.excess.fetch_add(fewer - forgotten, Relaxed);
        } else {
            let more = wanted - *size;
            let kept = (0..more).take_while(|_| self.lessen_excess()).count();
            self.places.add_permits(more as usize - kept);
        }
        *size = wanted;
    }

    pub fn view(&self) -> View {
        let of = *self.size.lock().unwrap_or_else(PoisonError::into_inner);
        let there = of + self.excess.load(Relaxed);
        let free = u32::try_from(self.places.available_permits()).unwrap_or(u32::MAX);
        View { taken: there.saturating_sub(free), of, waiting: self.waiting.load(Relaxed) }
    }

    /// Whether there was one place too many, which there now is not.
    fn lessen_excess(&self) -> bool {
        self.excess.load(Relaxed) > 0 && self.excess.fetch_update(Relaxed, Relaxed, |excess| excess.checked_sub(1)).is_ok()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.0.lessen_excess() {
            self.0.places.add_permits(1);
        }
    }
}

/// One that waits, counted until it waits no more for whatever reason.
struct Waiting<'a>(&'a Caps);

impl<'a> Waiting<'a> {
    fn begin(caps: &'a Caps) -> Option<Self> {
        let pending = caps.pending.load(Relaxed);
        let one_more = |waiting: u32| (waiting < pending).then_some(waiting + 1);
        caps.waiting.fetch_update(Relaxed, Relaxed, one_more).ok()?;
        Some(Self(caps))
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Relaxed);
    }
}

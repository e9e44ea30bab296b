//! Where a service stops until the test lets it go on.

use std::sync::{Arc, Condvar, Mutex};

use super::PATIENCE;

/// Open or not. Clones are the same barrier.
#[derive(Clone, Default)]
pub struct Barrier(Arc<(Mutex<bool>, Condvar)>);

impl Barrier {
    pub fn open(&self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_all();
    }

    pub fn pass(&self) {
        let (open, opened) = &*self.0;
        drop(opened.wait_timeout_while(open.lock().unwrap(), PATIENCE * 3, |open| !*open).unwrap());
    }
}

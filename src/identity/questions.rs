//! Questions under way: however many requests have the same one, it is asked once, and goes on though whoever asked first goes away.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use tokio::sync::watch;

use super::token::TokenHash;

/// Questions of one kind, by what is asked.
pub struct Questions<A> {
    under_way: Mutex<HashMap<TokenHash, Told<A>>>,
    most: usize,
}

/// `None` until it is answered.
type Told<A> = watch::Receiver<Option<A>>;

impl<A: Clone + Send + Sync + 'static> Questions<A> {
    /// At most so many are under way at once.
    pub fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { under_way: Mutex::default(), most })
    }

    /// The answer to a question that is under way, else to `ask`. `None`: too many are under way, or it came to nothing.
    pub async fn answer<F>(self: &Arc<Self>, about: TokenHash, ask: impl FnOnce() -> F) -> Option<A>
    where
        F: Future<Output = A> + Send + 'static,
    {
        let mut told = self.join(about, ask)?;
        told.wait_for(Option::is_some).await.ok()?.clone()
    }

    fn join<F>(self: &Arc<Self>, about: TokenHash, ask: impl FnOnce() -> F) -> Option<Told<A>>
    where
        F: Future<Output = A> + Send + 'static,
    {
        let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        let count = under_way.len();
        match under_way.entry(about) {
            Entry::Occupied(same) => Some(same.get().clone()),
            Entry::Vacant(_) if count >= self.most => None,
            Entry::Vacant(free) => {
                let (teller, told) = watch::channel(None);
                free.insert(told.clone());
                let (asked, answer) = (Asked { of: self.clone(), about }, ask());
                tokio::spawn(async move {
                    let _asked = asked;
                    teller.send_replace(Some(answer.await));
                });
                Some(told)
            }
        }
    }

    #[cfg(test)]
    pub fn count(&self) -> usize {
        self.under_way.lock().unwrap().len()
    }
}

/// A question under way. However it ends, it is under way no longer.
struct Asked<A> {
    of: Arc<Questions<A>>,
    about: TokenHash,
}

impl<A> Drop for Asked<A> {
    fn drop(&mut self) {
        self.of.under_way.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.about);
    }
}

/// How questions ended.
#[derive(Default)]
pub struct Outcomes {
    answered: AtomicU64,
    failed: AtomicU64,
}

impl Outcomes {
    /// It was answered, whatever the answer said.
    pub fn answered(&self) {
        self.answered.fetch_add(1, Relaxed);
    }

    pub fn failed(&self) {
        self.failed.fetch_add(1, Relaxed);
    }

    /// How many were answered, and how many failed.
    pub fn counts(&self) -> (u64, u64) {
        (self.answered.load(Relaxed), self.failed.load(Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    fn about(n: u8) -> TokenHash {
        TokenHash::of(&[n])
    }

    #[tokio::test]
    async fn the_same_question_is_asked_once_and_outlives_who_asked_first() {
        let questions = Questions::<u8>::new(10);
        let (answer, answered) = oneshot::channel::<u8>();
        let first = tokio::spawn({
            let questions = questions.clone();
            async move { questions.answer(about(1), || async { answered.await.unwrap() }).await }
        });
        while questions.count() == 0 {
            tokio::task::yield_now().await;
        }
        first.abort();
        assert!(first.await.unwrap_err().is_cancelled());
        let second = questions.join(about(1), || async { panic!("it is under way") }).unwrap();
        answer.send(7).unwrap();
        let mut second = second;
        assert_eq!(*second.wait_for(Option::is_some).await.unwrap(), Some(7));
        while questions.count() > 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(questions.answer(about(1), || async { 8 }).await, Some(8), "an answer is not kept");
    }

    #[tokio::test]
    async fn questions_under_way_are_bounded() {
        let questions = Questions::<u8>::new(2);
        let _waiting = [1, 2].map(|n| questions.join(about(n), std::future::pending).unwrap());
        assert_eq!(questions.answer(about(3), || async { 3 }).await, None);
        assert!(questions.join(about(1), std::future::pending).is_some(), "one more who asks the same");
    }

    #[tokio::test]
    async fn a_question_that_comes_to_nothing_leaves_nobody_waiting() {
        let questions = Questions::<u8>::new(2);
        assert_eq!(questions.answer(about(1), || async { panic!("on purpose") }).await, None);
        assert_eq!(questions.count(), 0);
    }
}

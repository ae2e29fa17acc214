//! Takes changes to the file on a thread of its own, so that no disk holds up a meeting.
//!
//! What changed is in memory at once and in the file soon after: the first change without delay, those that follow at
//! most once a second. A change that cannot be written stays and is tried again; the last try is when the ledger is
//! closed.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result};
use conclave_protocol::sign::PublicKey;

use super::file::PeopleFile;
use super::people::{Change, Changes, People};

/// Least time between two writes.
const PAUSE: Duration = Duration::from_secs(1);
/// Time between two tries when writing fails.
const RETRY: Duration = Duration::from_secs(10);

/// People in memory, with the thread that writes them down if they are to last.
pub(super) struct Ledger {
    shared: Arc<Shared>,
    writer: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// Something changed, or the ledger is being closed.
    news: Condvar,
}

#[derive(Default)]
struct State {
    people: People,
    unsaved: Changes,
    closing: bool,
    /// Why the last write failed.
    trouble: Option<String>,
    /// It was told.
    told: bool,
}

impl Ledger {
    /// One that ends with the run.
    pub(super) fn in_memory() -> Self {
        Self { shared: Arc::default(), writer: None }
    }

    /// One that is kept in a file.
    ///
    /// # Errors
    /// As [`PeopleFile::load`], and when there is no thread to be had.
    pub(super) fn open(file: PeopleFile) -> Result<Self> {
        let state = Mutex::new(State { people: file.load()?, ..State::default() });
        let shared = Arc::new(Shared { state, news: Condvar::new() });
        let theirs = Arc::clone(&shared);
        let writer = thread::Builder::new().name("people".to_owned()).spawn(move || theirs.keep(&file));
        Ok(Self { shared, writer: Some(writer.context("cannot start a thread")?) })
    }

    /// Looks something up.
    pub(super) fn look<T>(&self, question: impl FnOnce(&People) -> T) -> T {
        question(&self.shared.lock().people)
    }

    /// Makes a change, and has it written if this ledger lasts.
    pub(super) fn change(&self, identity: &PublicKey, change: Change) {
        let mut state = self.shared.lock();
        state.people.apply(identity, &change);
        if self.writer.is_some() {
            state.unsaved.add(*identity, change);
            self.shared.news.notify_all();
        }
    }

    /// Why changes are not written, once for each time that writing begins to fail.
    pub(super) fn take_trouble(&self) -> Option<String> {
        let mut state = self.shared.lock();
        if std::mem::replace(&mut state.told, true) { None } else { state.trouble.clone() }
    }

    /// Writes what is left.
    ///
    /// # Errors
    /// When that fails, in words.
    pub(super) fn close(&mut self) -> Result<()> {
        self.shared.lock().closing = true;
        self.shared.news.notify_all();
        let ended = self.writer.take().map(JoinHandle::join);
        let state = self.shared.lock();
        match (&state.trouble, ended) {
            (Some(trouble), _) if !state.unsaved.is_empty() => Err(anyhow::anyhow!("{trouble}")),
            (_, Some(Err(_))) => Err(anyhow::anyhow!("what is remembered of other people was not written")),
            _ => Ok(()),
        }
    }
}

impl Drop for Ledger {
    /// Nothing is lost of a ledger that nobody closed.
    fn drop(&mut self) {
        // There is nobody to tell.
        let _ = self.close();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Each change is made in one go, so the state is whole whoever panicked.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The writing thread, until the ledger is closed.
    fn keep(&self, file: &PeopleFile) {
        loop {
            let nothing = |state: &mut State| state.unsaved.is_empty() && !state.closing;
            let mut state = self.news.wait_while(self.lock(), nothing).unwrap_or_else(PoisonError::into_inner);
            let changes = std::mem::take(&mut state.unsaved);
            drop(state);
            if changes.is_empty() {
                return;
            }
            let result = file.commit(&changes);
            let state = self.settle(changes, result);
            let last = state.closing && state.trouble.is_some();
            if last {
                return;
            }
            let pause = if state.trouble.is_some() { RETRY } else { PAUSE };
            // Whether the time passed or the ledger is being closed, the next round tells.
            let _ = self.news.wait_timeout_while(state, pause, |state| !state.closing);
        }
    }

    /// Takes up what became of changes that were to be written.
    fn settle(&self, mut changes: Changes, result: Result<People>) -> MutexGuard<'_, State> {
        let mut state = self.lock();
        match result {
            Ok(mut people) => {
                people.apply_all(&state.unsaved);
                std::mem::swap(&mut state.people, &mut people);
                state.trouble = None;
                // What was there before is dropped without making anybody wait.
                drop(state);
                drop(people);
                self.lock()
            }
            Err(error) => {
                changes.extend(std::mem::take(&mut state.unsaved));
                state.unsaved = changes;
                if state.trouble.is_none() {
                    state.told = false;
                }
                state.trouble = Some(format!("{error:#}"));
                state
            }
        }
    }
}

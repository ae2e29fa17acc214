//! What the roster must be, from the acts alone: plain maps and no protocol.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use conclave_protocol::conference::LeftWhy;

/// How people get in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Entry {
    /// By an act of the host, in the order of the acts.
    ByAct,
    /// Whoever shakes hands.
    Open,
}

/// The reference model of one meeting.
pub struct Model {
    entry: Entry,
    /// Where others than the host lead, the acts are not seen from one place.
    is_off: bool,
    roster: BTreeMap<u16, String>,
    next_index: u16,
    admitted: VecDeque<String>,
    removed: BTreeSet<u16>,
    leaving: BTreeSet<String>,
    may_be_lost: BTreeSet<String>,
}

impl Model {
    /// A meeting with its host alone.
    pub fn new(entry: Entry, host: &str) -> Self {
        Self {
            entry,
            is_off: false,
            roster: BTreeMap::from([(0, host.to_owned())]),
            next_index: 1,
            admitted: VecDeque::new(),
            removed: BTreeSet::new(),
            leaving: BTreeSet::new(),
            may_be_lost: BTreeSet::new(),
        }
    }

    /// Predicts nothing any more.
    pub fn switch_off(&mut self) {
        self.is_off = true;
    }

    /// The host lets somebody in.
    pub fn admit(&mut self, name: &str) {
        self.admitted.push_back(name.to_owned());
    }

    /// The host puts somebody out.
    pub fn remove(&mut self, index: u16) {
        self.removed.insert(index);
    }

    /// Somebody says good-bye.
    pub fn leave(&mut self, name: &str) {
        self.leaving.insert(name.to_owned());
    }

    /// Somebody is away, or seems to be: it may be taken out as lost.
    pub fn may_be_lost(&mut self, name: &str) {
        self.may_be_lost.insert(name.to_owned());
    }

    /// The host says that somebody came.
    pub fn joined(&mut self, index: u16, name: &str) {
        if self.is_off {
            return;
        }
        assert_eq!(index, self.next_index, "an index was skipped or used again");
        self.next_index += 1;
        if self.entry == Entry::ByAct {
            assert_eq!(self.admitted.pop_front().as_deref(), Some(name), "somebody came whom the host did not let in");
        }
        self.roster.insert(index, name.to_owned());
    }

    /// The host says that somebody is gone.
    pub fn left(&mut self, index: u16, name: &str, why: LeftWhy) {
        if self.is_off {
            return;
        }
        assert_eq!(self.roster.remove(&index).as_deref(), Some(name), "somebody is gone who was not there");
        let is_explained = match why {
            LeftWhy::Removed => self.removed.remove(&index),
            LeftWhy::Left => self.leaving.contains(name),
            LeftWhy::Lost => self.may_be_lost.contains(name),
        };
        assert!(is_explained, "{index} is gone ({why:?}) and nobody did that");
    }

    /// The host's roster after a change.
    pub fn compare(&self, roster: &BTreeMap<u16, String>) {
        if self.is_off {
            return;
        }
        assert_eq!(&self.roster, roster, "the roster is not what the acts have made it");
        assert!(self.removed.is_empty(), "a removal was delayed");
    }

    /// Everything that was done has taken effect.
    pub fn settled(&self) {
        if self.is_off {
            return;
        }
        assert!(self.admitted.is_empty(), "somebody was let in and never came");
        let still = self.roster.values().filter(|name| self.leaving.contains(*name)).count();
        assert_eq!(still, 0, "somebody has left and is still in the roster");
    }

    /// The roster.
    pub fn roster(&self) -> &BTreeMap<u16, String> {
        &self.roster
    }
}

//! Who is remembered, and how that changes.
//!
//! Changes are values of their own: they are applied to what is in memory at once, and again to what is in the file by
//! then when it is written, so that two processes lose nothing of each other's.

use std::collections::{BTreeMap, BTreeSet};

use conclave_protocol::sign::PublicKey;
use conclave_protocol::time::UnixMillis;

use crate::names::{Look, Looks};

/// Most people that are remembered: more than anybody meets, and a file of about 2 MB.
pub(super) const MAX_PEOPLE: usize = 10_000;

/// One person.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Known {
    /// The last name shown.
    pub name: String,
    pub first_seen: UnixMillis,
    pub last_seen: UnixMillis,
    /// The safety number was compared.
    pub verified: bool,
    /// Is not to be let in.
    pub blocked: bool,
    look: Look,
}

impl Known {
    /// Somebody of whom no more is known than this.
    pub(super) fn new(name: &str, first_seen: UnixMillis, last_seen: UnixMillis) -> Self {
        Self { name: name.to_owned(), first_seen, last_seen, verified: false, blocked: false, look: Look::of(name) }
    }

    /// The same person with these marks.
    pub(super) fn marked(self, verified: bool, blocked: bool) -> Self {
        Self { verified, blocked, ..self }
    }

    /// How the name looks.
    pub(super) fn look(&self) -> &Look {
        &self.look
    }

    /// What the user said of somebody is kept longer than what was only seen.
    fn is_marked(&self) -> bool {
        self.verified || self.blocked
    }
}

/// Everybody who is remembered.
#[derive(Clone, Default, Debug)]
pub(super) struct People {
    known: BTreeMap<PublicKey, Known>,
    /// Those who are not blocked.
    looks: Looks<PublicKey>,
    /// In the order in which they are forgotten.
    ages: BTreeSet<(bool, UnixMillis, PublicKey)>,
}

impl People {
    /// Somebody, if remembered.
    pub(super) fn get(&self, identity: &PublicKey) -> Option<&Known> {
        self.known.get(identity)
    }

    /// Everybody, in order of identity.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&PublicKey, &Known)> {
        self.known.iter()
    }

    /// Whether somebody else who is not blocked has a name of this look.
    pub(super) fn has_another(&self, look: &Look, identity: &PublicKey) -> bool {
        self.looks.first_like(look, Some(*identity)).is_some()
    }

    /// Puts somebody in, instead of what was there, and forgets whom there is no place for.
    pub(super) fn insert(&mut self, identity: PublicKey, known: Known) {
        self.remove(&identity);
        self.ages.insert((known.is_marked(), known.last_seen, identity));
        if !known.blocked {
            self.looks.insert(identity, &known.look);
        }
        self.known.insert(identity, known);
        while self.known.len() > MAX_PEOPLE {
            let Some((_, _, oldest)) = self.ages.first().copied() else { return };
            self.remove(&oldest);
        }
    }

    /// Forgets somebody.
    pub(super) fn remove(&mut self, identity: &PublicKey) -> Option<Known> {
        let known = self.known.remove(identity)?;
        self.ages.remove(&(known.is_marked(), known.last_seen, *identity));
        if !known.blocked {
            self.looks.remove(*identity, &known.look);
        }
        Some(known)
    }

    /// Makes a change to one person.
    pub(super) fn apply(&mut self, identity: &PublicKey, change: &Change) {
        let known = if change.forget { None } else { self.known.get(identity).cloned() };
        if change.forget {
            self.remove(identity);
        }
        let known = match (&change.seen, known) {
            (Some(seen), known) => seen.on(known),
            (None, Some(known)) => known,
            // A mark on somebody who is not remembered any more.
            (None, None) => return,
        };
        let verified = change.verified.unwrap_or(known.verified);
        let blocked = change.blocked.unwrap_or(known.blocked);
        self.insert(*identity, known.marked(verified, blocked));
    }

    /// Makes all changes.
    pub(super) fn apply_all(&mut self, changes: &Changes) {
        for (identity, change) in &changes.0 {
            self.apply(identity, change);
        }
    }
}

/// Somebody was there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Seen {
    name: String,
    first: UnixMillis,
    last: UnixMillis,
}

impl Seen {
    pub(super) fn once(name: &str, at: UnixMillis) -> Self {
        Self { name: name.to_owned(), first: at, last: at }
    }

    fn and(self, later: Self) -> Self {
        let (first, last) = (self.first.min(later.first), self.last.max(later.last));
        Self { first, last, name: if later.last < self.last { self.name } else { later.name } }
    }

    /// What is known after this. The name is that of the latest time, in whatever order the times are told.
    fn on(&self, known: Option<Known>) -> Known {
        let Some(known) = known else { return Known::new(&self.name, self.first, self.last) };
        let (first_seen, last_seen) = (known.first_seen.min(self.first), known.last_seen.max(self.last));
        if self.last < known.last_seen || self.name == known.name {
            return Known { first_seen, last_seen, ..known };
        }
        Known::new(&self.name, first_seen, last_seen).marked(known.verified, known.blocked)
    }
}

/// What changes of one person; what is `None` stays.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub(super) struct Change {
    /// All that was known before is to be forgotten first.
    pub forget: bool,
    pub seen: Option<Seen>,
    pub verified: Option<bool>,
    pub blocked: Option<bool>,
}

impl Change {
    /// This change and a later one as one.
    fn then(self, later: Self) -> Self {
        if later.forget {
            return later;
        }
        if self.forget && self.seen.is_none() && later.seen.is_none() {
            // A mark on somebody who is forgotten.
            return self;
        }
        let seen = match (self.seen, later.seen) {
            (Some(a), Some(b)) => Some(a.and(b)),
            (a, b) => b.or(a),
        };
        let verified = later.verified.or(self.verified);
        Self { forget: self.forget, seen, verified, blocked: later.blocked.or(self.blocked) }
    }
}

/// Changes that are not in the file yet, one for each person.
#[derive(Clone, Default, Debug)]
pub(super) struct Changes(BTreeMap<PublicKey, Change>);

impl Changes {
    /// Adds one that comes after all that are in it.
    pub(super) fn add(&mut self, identity: PublicKey, change: Change) {
        let earlier = self.0.remove(&identity).unwrap_or_default();
        self.0.insert(identity, earlier.then(change));
    }

    /// Adds all of `later`, which come after those that are in it.
    pub(super) fn extend(&mut self, later: Self) {
        for (identity, change) in later.0 {
            self.add(identity, change);
        }
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: usize) -> PublicKey {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&number.to_be_bytes());
        PublicKey(bytes)
    }

    fn seen(name: &str, at: u64) -> Change {
        Change { seen: Some(Seen::once(name, UnixMillis(at))), ..Change::default() }
    }

    fn whole(people: &People) -> Vec<(PublicKey, Known)> {
        people.iter().map(|(identity, known)| (*identity, known.clone())).collect()
    }

    #[test]
    fn of_ten_thousand_the_oldest_go_first_who_are_neither_verified_nor_blocked() {
        let mut people = People::default();
        for number in 0..MAX_PEOPLE {
            people.apply(&key(number), &seen(&format!("Person {number}"), number as u64));
        }
        people.apply(&key(0), &Change { verified: Some(true), ..Change::default() });
        people.apply(&key(1), &Change { blocked: Some(true), ..Change::default() });
        for number in MAX_PEOPLE..MAX_PEOPLE + 3 {
            people.apply(&key(number), &seen("Late", number as u64));
        }
        assert_eq!(people.iter().count(), MAX_PEOPLE);
        assert!(people.get(&key(0)).is_some_and(|k| k.verified) && people.get(&key(1)).is_some_and(|k| k.blocked));
        let gone: Vec<usize> = (0..MAX_PEOPLE + 3).filter(|n| people.get(&key(*n)).is_none()).collect();
        assert_eq!(gone, [2, 3, 4]);
        assert_eq!(people.ages.len(), MAX_PEOPLE);
        assert!(!people.has_another(&Look::of("Person 3"), &key(0)));
    }

    #[test]
    fn changes_made_one_by_one_or_as_one_have_the_same_effect() {
        let mark = |verified, blocked| Change { verified, blocked, ..Change::default() };
        let forget = Change { forget: true, ..Change::default() };
        let steps = [
            seen("Bob", 5),
            mark(Some(true), None),
            seen("Robert", 9),
            seen("Bo", 7),
            mark(None, Some(true)),
            forget,
            mark(Some(true), None),
            seen("Bob", 12),
            mark(None, Some(false)),
        ];
        for start in 0..steps.len() {
            for end in start..=steps.len() {
                let (mut single, mut joined, mut changes) = (People::default(), People::default(), Changes::default());
                for people in [&mut single, &mut joined] {
                    people.insert(key(1), Known::new("Bobby", UnixMillis(1), UnixMillis(2)));
                }
                for step in &steps[start..end] {
                    single.apply(&key(1), step);
                    changes.add(key(1), step.clone());
                }
                joined.apply_all(&changes);
                assert_eq!(changes.is_empty(), start == end);
                assert_eq!(whole(&single), whole(&joined), "{start}..{end}");
            }
        }
    }

    #[test]
    fn the_latest_name_stays_in_whatever_order_times_are_told() {
        let mut people = People::default();
        for (name, at) in [("Bob", 5), ("Robert", 9), ("Bobby", 2)] {
            people.apply(&key(1), &seen(name, at));
        }
        let known = people.get(&key(1)).expect("remembered");
        assert_eq!((known.name.as_str(), known.first_seen, known.last_seen), ("Robert", UnixMillis(2), UnixMillis(9)));
        assert!(people.has_another(&Look::of("robert"), &key(2)) && !people.has_another(&Look::of("Bob"), &key(2)));
    }

    #[test]
    fn a_mark_on_somebody_who_is_forgotten_makes_nobody() {
        let mut people = People::default();
        people.apply(&key(1), &Change { verified: Some(true), ..Change::default() });
        assert_eq!(people.iter().count(), 0);
    }
}

//! Pins: what this client remembers of other identities, so that it can tell who was met before and under which key.
//!
//! People who keep their identity (`--home`) are remembered by those who keep theirs, in `people.json` beside it. Their
//! names decide nothing, but a name that comes back with another key is what an impostor looks like, and is told. Of
//! guests nothing lasts: they bring a new key each time. What the user says of a guest holds until the run ends.
//!
//! What is asked and said here costs no disk access; a thread does the writing.

mod file;
mod ledger;
mod people;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use conclave_protocol::identity::IdentityKind;
use conclave_protocol::sign::PublicKey;
use conclave_protocol::time::UnixMillis;

pub use file::{PeopleKey, PeopleTag};

use crate::names::Look;
use crate::private::Lock;
use crate::report::Standing;
use file::PeopleFile;
use ledger::Ledger;
use people::{Change, People, Seen};

/// How old the time of the last meeting may get before it is written again: a meeting has an epoch at least every two
/// minutes, and each would rewrite the file.
const SEEN_AGAIN: Duration = Duration::from_secs(10 * 60);

/// What this client remembers of others.
pub struct Pins {
    own: Option<PublicKey>,
    ledger: Ledger,
    /// Guests of whom the user said something in this run.
    guests: People,
    /// The last name and the standing of everybody seen in this run: somebody who was met a minute ago is not known for
    /// that. No more than a meeting has indices.
    seen: BTreeMap<PublicKey, (String, Standing)>,
}

impl Pins {
    /// Pins that begin with nobody and end with this run.
    pub fn none() -> Self {
        Self { own: None, ledger: Ledger::in_memory(), guests: People::default(), seen: BTreeMap::new() }
    }

    /// The pins that `own`, the identity kept in `home`, has made so far. `key` seals them where a passphrase protects
    /// the identity.
    ///
    /// # Errors
    /// When the file is damaged, does not belong to the identity, or cannot be read. The error says what to do.
    pub fn open(home: &Path, own: PublicKey, key: Option<PeopleKey>) -> Result<Self> {
        let ledger = Ledger::open(PeopleFile::new(home, own, key))?;
        Ok(Self { own: Some(own), ledger, ..Self::none() })
    }

    /// Seals by `key` what `own` remembers in the clear, if it does. The caller holds the directory's lock.
    ///
    /// # Errors
    /// As [`Pins::open`], and when the file cannot be written; it is then as it was.
    pub(crate) fn protect(lock: &Lock, home: &Path, own: PublicKey, key: PeopleKey) -> Result<()> {
        PeopleFile::new(home, own, Some(key)).protect(lock)
    }

    /// What is known of somebody who shows this name now.
    pub fn standing(&self, identity: &PublicKey, kind: IdentityKind, name: &str) -> Standing {
        if self.own.as_ref() == Some(identity) {
            return Standing::Oneself;
        }
        if self.is_verified(identity) {
            return Standing::Verified;
        }
        self.unverified_standing(identity, kind, name)
    }

    /// Notes that somebody is in a meeting with this client. Only who keeps an identity is remembered.
    pub fn saw(&mut self, identity: &PublicKey, kind: IdentityKind, name: &str, now: UnixMillis) {
        if self.own.as_ref() == Some(identity) {
            return;
        }
        let standing = self.unverified_standing(identity, kind, name);
        self.seen.insert(*identity, (name.to_owned(), standing));
        let is_news = |people: &People| {
            people.get(identity).is_none_or(|known| known.name != name || now >= known.last_seen.plus(SEEN_AGAIN))
        };
        if kind == IdentityKind::Kept && self.ledger.look(is_news) {
            self.ledger.change(identity, Change { seen: Some(Seen::once(name, now)), ..Change::default() });
        }
    }

    /// The user has compared the safety number, and it is right.
    pub fn verify(&mut self, identity: &PublicKey, kind: IdentityKind, name: &str, now: UnixMillis) {
        let seen = Some(Seen::once(name, now));
        self.note(identity, kind, Change { seen, verified: Some(true), ..Change::default() });
    }

    /// The user has compared the safety number, and it is wrong.
    pub fn unverify(&mut self, identity: &PublicKey) {
        self.unmark(identity, Change { verified: Some(false), ..Change::default() });
    }

    /// Whether the user has compared the safety number of this identity.
    pub fn is_verified(&self, identity: &PublicKey) -> bool {
        self.guests.get(identity).is_some_and(|k| k.verified)
            || self.ledger.look(|people| people.get(identity).is_some_and(|k| k.verified))
    }

    /// Somebody is not to be let in any more.
    pub fn block(&mut self, identity: &PublicKey, kind: IdentityKind, name: &str, now: UnixMillis) {
        let seen = Some(Seen::once(name, now));
        self.note(identity, kind, Change { seen, blocked: Some(true), ..Change::default() });
    }

    /// Somebody may be let in again.
    pub fn unblock(&mut self, identity: &PublicKey) {
        self.unmark(identity, Change { blocked: Some(false), ..Change::default() });
    }

    /// Whether somebody is not to be let in.
    pub fn is_blocked(&self, identity: &PublicKey) -> bool {
        self.guests.get(identity).is_some_and(|k| k.blocked)
            || self.ledger.look(|people| people.get(identity).is_some_and(|k| k.blocked))
    }

    /// Everybody who is blocked and had this name last.
    pub fn blocked_as(&self, name: &str) -> Vec<PublicKey> {
        let found = |people: &People| -> Vec<PublicKey> {
            let known = people.iter().filter(|(_, known)| known.blocked && known.name == name);
            known.map(|(identity, _)| *identity).collect()
        };
        let guests = found(&self.guests);
        guests.into_iter().chain(self.ledger.look(found)).collect()
    }

    /// Forgets all of somebody.
    pub fn forget(&mut self, identity: &PublicKey) {
        self.seen.remove(identity);
        self.guests.remove(identity);
        if self.is_remembered(identity) {
            self.ledger.change(identity, Change { forget: true, ..Change::default() });
        }
    }

    /// Why what is remembered is not being written, told once. The meeting can go on.
    pub fn take_trouble(&mut self) -> Option<String> {
        self.ledger.take_trouble()
    }

    /// Writes what is left to write, which can take as long as the disk does. Dropping does the same without a word.
    ///
    /// # Errors
    /// When it cannot be written, in words.
    pub fn close(mut self) -> Result<()> {
        self.ledger.close()
    }

    fn is_remembered(&self, identity: &PublicKey) -> bool {
        self.ledger.look(|people| people.get(identity).is_some())
    }

    fn note(&mut self, identity: &PublicKey, kind: IdentityKind, change: Change) {
        if kind == IdentityKind::Kept || self.is_remembered(identity) {
            self.ledger.change(identity, change);
        } else {
            self.guests.apply(identity, &change);
        }
    }

    fn unmark(&mut self, identity: &PublicKey, change: Change) {
        self.guests.apply(identity, &change);
        if self.guests.get(identity).is_some_and(|known| !known.verified && !known.blocked) {
            self.guests.remove(identity);
        }
        if self.is_remembered(identity) {
            self.ledger.change(identity, change);
        }
    }

    /// What is known of somebody but for a comparison: what was known when this run first saw them, unless they have
    /// taken on the name of somebody else since.
    fn unverified_standing(&self, identity: &PublicKey, kind: IdentityKind, name: &str) -> Standing {
        let now = || self.standing_by_people(identity, kind, name);
        match self.seen.get(identity) {
            Some((last, standing)) if last == name => *standing,
            Some((_, standing)) => {
                if now() == Standing::KeyChanged {
                    Standing::KeyChanged
                } else {
                    *standing
                }
            }
            None => now(),
        }
    }

    fn standing_by_people(&self, identity: &PublicKey, kind: IdentityKind, name: &str) -> Standing {
        let look = Look::of(name);
        let (known, has_own_name, is_anothers_name) = self.ledger.look(|people| {
            let known = people.get(identity);
            let has_own_name = known.is_some_and(|k| k.name == name || k.look().is_like(&look));
            (known.is_some(), has_own_name, people.has_another(&look, identity))
        });
        // Somebody known who takes on the name of somebody else is no better than a stranger who does.
        if !has_own_name && (is_anothers_name || self.guests.has_another(&look, identity)) {
            return Standing::KeyChanged;
        }
        match kind {
            IdentityKind::Guest if !known => Standing::Guest,
            IdentityKind::Kept if !known => Standing::New,
            _ => Standing::Known,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use IdentityKind::{Guest, Kept};
    use std::fs;
    use std::path::PathBuf;

    const ME: PublicKey = PublicKey([9; 32]);
    const BOB: PublicKey = PublicKey([1; 32]);
    const EVE: PublicKey = PublicKey([2; 32]);
    const CARL: PublicKey = PublicKey([3; 32]);
    const NOW: UnixMillis = UnixMillis(1_800_000_000_000);

    fn later(seconds: u64) -> UnixMillis {
        NOW.plus(Duration::from_secs(seconds))
    }

    fn open(home: &Path) -> Pins {
        Pins::open(home, ME, Some(PeopleKey::new([5; 32]))).expect("opened")
    }

    /// A home whose owner has been in a meeting with Bob.
    fn after_meeting_bob() -> tempfile::TempDir {
        let home = tempfile::tempdir().expect("a directory");
        let mut pins = open(home.path());
        pins.saw(&BOB, Kept, "Bob", NOW);
        pins.close().expect("written");
        home
    }

    #[test]
    fn who_was_never_met_is_new_or_a_guest_and_known_in_the_next_run() {
        let home = tempfile::tempdir().expect("a directory");
        let mut pins = open(home.path());
        assert_eq!(pins.standing(&BOB, Kept, "Bob"), Standing::New);
        assert_eq!(pins.standing(&CARL, Guest, "Carl"), Standing::Guest);
        pins.saw(&BOB, Kept, "Bob", NOW);
        pins.saw(&CARL, Guest, "Carl", NOW);
        for name in ["Bob", "Robert"] {
            assert_eq!(pins.standing(&BOB, Kept, name), Standing::New, "not known for having been met just now");
            pins.saw(&BOB, Kept, name, later(1));
        }
        pins.close().expect("written");
        let pins = open(home.path());
        assert_eq!(pins.standing(&BOB, Kept, "Bob"), Standing::Known);
        assert_eq!(pins.standing(&BOB, Kept, "Robert"), Standing::Known);
        assert_eq!(pins.standing(&CARL, Guest, "Carl"), Standing::Guest);
        assert_eq!(pins.standing(&ME, Kept, "Bob"), Standing::Oneself);
    }

    #[test]
    fn a_known_name_with_another_key_is_told_for_guests_too_and_for_names_that_look_like_it() {
        let home = after_meeting_bob();
        let mut pins = open(home.path());
        for name in ["Bob", "BOB", "B0b", "Вob"] {
            assert_eq!(pins.standing(&EVE, Kept, name), Standing::KeyChanged, "{name}");
            assert_eq!(pins.standing(&EVE, Guest, name), Standing::KeyChanged, "{name}");
        }
        pins.saw(&EVE, Kept, "Bob", NOW);
        assert_eq!(pins.standing(&EVE, Kept, "Bob"), Standing::KeyChanged, "for the whole run");
        assert_eq!(pins.standing(&BOB, Kept, "Bob"), Standing::Known);
        pins.verify(&EVE, Kept, "Bob", NOW);
        assert_eq!(pins.standing(&EVE, Kept, "Bob"), Standing::Verified);
    }

    #[test]
    fn somebody_known_who_takes_on_anothers_name_is_told_unless_verified() {
        let home = after_meeting_bob();
        let mut pins = open(home.path());
        pins.saw(&EVE, Kept, "Eve", NOW);
        assert_eq!(pins.standing(&EVE, Kept, "Bob"), Standing::KeyChanged);
        pins.saw(&EVE, Kept, "Bob", later(1));
        assert_eq!(pins.standing(&EVE, Kept, "Bob"), Standing::KeyChanged);
        pins.verify(&EVE, Kept, "Bob", later(2));
        for name in ["Eve", "Bob", "Bob Bobson"] {
            assert_eq!(pins.standing(&EVE, Kept, name), Standing::Verified, "{name}");
        }
    }

    #[test]
    fn the_name_of_somebody_blocked_is_free_for_others() {
        let home = after_meeting_bob();
        let mut pins = open(home.path());
        pins.block(&BOB, Kept, "Bob", NOW);
        assert!(pins.is_blocked(&BOB) && !pins.is_blocked(&EVE));
        assert_eq!(pins.standing(&EVE, Kept, "Bob"), Standing::New);
        pins.unblock(&BOB);
        assert!(!pins.is_blocked(&BOB));
        assert_eq!(pins.standing(&EVE, Kept, "Bob"), Standing::KeyChanged);
    }

    #[test]
    fn a_comparison_that_fails_takes_back_one_that_did_not() {
        let home = after_meeting_bob();
        let mut pins = open(home.path());
        pins.verify(&BOB, Kept, "Bob", NOW);
        assert_eq!(pins.standing(&BOB, Kept, "Bob"), Standing::Verified);
        pins.close().expect("written");
        let mut pins = open(home.path());
        assert!(pins.is_verified(&BOB));
        pins.unverify(&BOB);
        assert_eq!(pins.standing(&BOB, Kept, "Bob"), Standing::Known);
        pins.close().expect("written");
        assert!(!open(home.path()).is_verified(&BOB));
    }

    #[test]
    fn who_is_forgotten_was_never_met() {
        let home = after_meeting_bob();
        let mut pins = open(home.path());
        pins.block(&BOB, Kept, "Bob", NOW);
        pins.forget(&BOB);
        assert_eq!(pins.standing(&BOB, Kept, "Bob"), Standing::New);
        pins.close().expect("written");
        let pins = open(home.path());
        assert!(!pins.is_blocked(&BOB));
        assert_eq!(pins.standing(&EVE, Kept, "Bob"), Standing::New);
    }

    #[test]
    fn what_is_said_of_guests_holds_in_this_run_and_never_reaches_the_disk() {
        let home = tempfile::tempdir().expect("a directory");
        for mut pins in [open(home.path()), Pins::none()] {
            pins.verify(&BOB, Guest, "Bob", NOW);
            pins.block(&EVE, Guest, "Eve", NOW);
            assert_eq!(pins.standing(&BOB, Guest, "Bob"), Standing::Verified);
            assert_eq!(pins.standing(&EVE, Guest, "Bob"), Standing::KeyChanged);
            assert!(pins.is_blocked(&EVE));
            pins.unverify(&BOB);
            pins.unblock(&EVE);
            assert_eq!(pins.standing(&BOB, Guest, "Bob"), Standing::Guest);
            assert_eq!(pins.standing(&EVE, Guest, "Bob"), Standing::Guest);
            assert!(!pins.is_blocked(&EVE));
            pins.close().expect("nothing to write");
        }
        assert!(!home.path().join("people.json").exists());
    }

    #[test]
    fn without_a_home_what_is_said_holds_in_this_run() {
        let mut pins = Pins::none();
        pins.saw(&BOB, Kept, "Bob", NOW);
        assert_eq!(pins.standing(&BOB, Kept, "Bob"), Standing::New);
        pins.verify(&BOB, Kept, "Bob", NOW);
        pins.block(&EVE, Kept, "Eve", NOW);
        assert_eq!(pins.standing(&BOB, Kept, "Bob"), Standing::Verified);
        assert!(pins.is_blocked(&EVE));
    }

    #[test]
    fn who_is_blocked_is_found_by_name_whether_remembered_or_a_guest() {
        let home = after_meeting_bob();
        let mut pins = open(home.path());
        pins.block(&EVE, Kept, "Eve", NOW);
        pins.block(&CARL, Guest, "Eve", NOW);
        assert_eq!(pins.blocked_as("Bob"), []);
        assert_eq!(pins.blocked_as("Eve"), [CARL, EVE]);
        pins.unblock(&CARL);
        assert_eq!(pins.blocked_as("Eve"), [EVE]);
        pins.unblock(&EVE);
        assert_eq!(pins.blocked_as("Eve"), []);
    }

    #[test]
    fn two_runs_at_once_lose_nothing_of_each_other() {
        let home = after_meeting_bob();
        let (mut one, mut other) = (open(home.path()), open(home.path()));
        one.verify(&BOB, Kept, "Bob", NOW);
        other.block(&EVE, Kept, "Eve", NOW);
        other.saw(&BOB, Kept, "Robert", later(60));
        one.saw(&CARL, Kept, "Carl", NOW);
        other.close().expect("written");
        one.close().expect("written");
        let pins = open(home.path());
        assert!(pins.is_verified(&BOB) && pins.is_blocked(&EVE));
        assert_eq!(pins.standing(&CARL, Kept, "Carl"), Standing::Known);
        assert_eq!(pins.standing(&PublicKey([4; 32]), Kept, "Robert"), Standing::KeyChanged);
    }

    #[test]
    fn many_writers_at_once_lose_nobody() {
        let home = tempfile::tempdir().expect("a directory");
        let write = |number: u8| {
            let path: PathBuf = home.path().to_owned();
            std::thread::spawn(move || {
                let mut pins = open(&path);
                for at in 0..20 {
                    pins.saw(&PublicKey([100 + number * 20 + at; 32]), Kept, "Somebody", NOW);
                }
                pins.close().expect("written");
            })
        };
        let writers: Vec<_> = (0..5).map(write).collect();
        for writer in writers {
            writer.join().expect("no panic");
        }
        let pins = open(home.path());
        assert!((100..200).all(|byte| pins.is_remembered(&PublicKey([byte; 32]))));
    }

    #[test]
    fn pins_that_are_dropped_are_written_all_the_same() {
        let home = tempfile::tempdir().expect("a directory");
        open(home.path()).saw(&BOB, Kept, "Bob", NOW);
        assert_eq!(open(home.path()).standing(&BOB, Kept, "Bob"), Standing::Known);
    }

    #[test]
    fn a_file_that_is_damaged_while_it_is_in_use_is_left_alone_and_the_trouble_is_told_once() {
        let home = after_meeting_bob();
        let mut pins = open(home.path());
        let path = home.path().join("people.json");
        fs::write(&path, "damaged").expect("written");
        pins.verify(&BOB, Kept, "Bob", NOW);
        let trouble = std::iter::repeat_with(|| {
            std::thread::sleep(Duration::from_millis(5));
            pins.take_trouble()
        })
        .flatten()
        .next();
        assert!(trouble.is_some_and(|t| t.contains("damaged")));
        assert_eq!(pins.take_trouble(), None);
        assert!(pins.is_verified(&BOB), "the meeting goes on");
        assert!(pins.close().is_err());
        assert_eq!(fs::read_to_string(&path).expect("there"), "damaged");
        assert!(Pins::open(home.path(), ME, Some(PeopleKey::new([5; 32]))).is_err());
    }

    #[test]
    fn a_file_that_could_not_be_written_for_a_while_gets_all_in_the_end() {
        let home = after_meeting_bob();
        let mut pins = open(home.path());
        let path = home.path().join("people.json");
        let whole = fs::read(&path).expect("there");
        fs::write(&path, "damaged").expect("written");
        pins.verify(&BOB, Kept, "Bob", NOW);
        while pins.take_trouble().is_none() {
            std::thread::sleep(Duration::from_millis(5));
        }
        fs::write(&path, whole).expect("restored");
        pins.saw(&CARL, Kept, "Carl", NOW);
        pins.close().expect("written");
        let pins = open(home.path());
        assert!(pins.is_verified(&BOB) && pins.is_remembered(&CARL));
    }
}

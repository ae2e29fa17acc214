//! The file in which people are remembered, `people.json`.
//!
//! Where a passphrase protects the identity, the list is sealed by XChaCha20-Poly1305 under a key of its own that comes
//! from the same passphrase, bound to that identity; a list in the clear is refused then, for anybody could have put it
//! there. Without a passphrase the list is plain: whoever can write the file can change it.
//!
//! Either way, whoever can write in the directory can put an older file in this one's place or take it away.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use chacha20poly1305::XChaCha20Poly1305;
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use conclave_protocol::secret::Secret;
use conclave_protocol::sign::PublicKey;
use conclave_protocol::time::UnixMillis;
use data_encoding::BASE64;
use rand_core::Rng;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::people::{Changes, Known, People};
use crate::private::{self, Lock};
use crate::session::system_rng;

const FILE: &str = "people.json";
/// What is in it, for messages.
const WHAT: &str = "what is remembered of other people";
/// Largest file that is read: several times what [`MAX_PEOPLE`](super::people::MAX_PEOPLE) of the longest names need,
/// sealed.
const MAX_FILE: u64 = 16 * 1024 * 1024;
/// Bound to the ciphertext, so that a file of another kind cannot be passed off as this one.
const CONTEXT: &[u8] = b"conclave/1 people";

/// Purpose tag of the key that seals the list.
pub enum PeopleTag {}

/// The key that seals the list.
pub type PeopleKey = Secret<PeopleTag>;

/// The list of one identity.
pub(super) struct PeopleFile {
    home: PathBuf,
    owner: PublicKey,
    key: Option<PeopleKey>,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    version: u32,
    #[serde(flatten)]
    list: StoredList,
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "protection", rename_all = "snake_case")]
enum StoredList {
    None { people: Vec<StoredPerson> },
    Passphrase { nonce: String, sealed: String },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredPerson {
    identity: String,
    name: String,
    first_seen: u64,
    last_seen: u64,
    verified: bool,
    blocked: bool,
}

impl PeopleFile {
    pub(super) fn new(home: &Path, owner: PublicKey, key: Option<PeopleKey>) -> Self {
        Self { home: home.to_owned(), owner, key }
    }

    /// Everybody in the file; nobody when there is none.
    ///
    /// # Errors
    /// When it cannot be read or is not as it was written, with words that say what to do.
    pub(super) fn load(&self) -> Result<People> {
        match private::read(&self.path(), WHAT, MAX_FILE)? {
            None => Ok(People::default()),
            Some(text) => self.parse(&text),
        }
    }

    /// Makes changes to what is in the file by now, and gives that.
    ///
    /// # Errors
    /// As [`PeopleFile::load`], and when it cannot be written; the file is then as it was.
    pub(super) fn commit(&self, changes: &Changes) -> Result<People> {
        let lock = private::lock(&self.home)?;
        let mut people = self.load()?;
        people.apply_all(changes);
        private::write(&lock, &self.path(), WHAT, &self.format(&people)?)?;
        Ok(people)
    }

    /// Seals a list that is in the clear. Only for an identity that was in the clear itself until now.
    ///
    /// # Errors
    /// As [`PeopleFile::commit`].
    pub(super) fn protect(&self, lock: &Lock) -> Result<()> {
        let Some(text) = private::read(&self.path(), WHAT, MAX_FILE)? else { return Ok(()) };
        if self.parse(&text).is_ok() {
            return Ok(());
        }
        let people = Self::new(&self.home, self.owner, None).parse(&text)?;
        private::write(lock, &self.path(), WHAT, &self.format(&people)?)
    }

    fn path(&self) -> PathBuf {
        self.home.join(FILE)
    }

    fn damaged(&self) -> String {
        format!(
            "{WHAT} in {} is damaged: restore it from a copy, or move it away to begin anew; then nobody is known, \
             verified or blocked any more",
            self.path().display()
        )
    }

    fn parse(&self, text: &str) -> Result<People> {
        let stored: Stored = serde_json::from_str(text).ok().with_context(|| self.damaged())?;
        if stored.version != 1 {
            bail!("{WHAT} in {} was written by another version of Conclave: use that one", self.path().display());
        }
        let list = match (stored.list, &self.key) {
            (StoredList::None { people }, None) => people,
            (StoredList::Passphrase { nonce, sealed }, Some(key)) => self.open(key, &nonce, &sealed)?,
            (StoredList::None { .. }, Some(_)) => bail!(
                "{WHAT} in {} is not protected by the identity's passphrase, so somebody else may have written it: \
                 restore it from a copy, or move it away to begin anew",
                self.path().display()
            ),
            (StoredList::Passphrase { .. }, None) => bail!(
                "{WHAT} in {} is protected by a passphrase, but the identity beside it has none: restore the two \
                 files that belong together, or move this one away to begin anew",
                self.path().display()
            ),
        };
        let mut people = People::default();
        for person in list {
            let (identity, known) = person.read().with_context(|| self.damaged())?;
            people.insert(identity, known);
        }
        Ok(people)
    }

    fn open(&self, key: &PeopleKey, nonce: &str, sealed: &str) -> Result<Vec<StoredPerson>> {
        let decode = |text: &str| BASE64.decode(text.as_bytes()).ok().with_context(|| self.damaged());
        let nonce: [u8; 24] = decode(nonce)?.try_into().ok().with_context(|| self.damaged())?;
        let sealed = decode(sealed)?;
        let payload = Payload { msg: &sealed, aad: &self.context() };
        let opened = XChaCha20Poly1305::new(key.as_bytes().into()).decrypt(&nonce.into(), payload);
        let opened = Zeroizing::new(opened.ok().with_context(|| {
            format!(
                "{WHAT} in {} does not open: it is damaged, or belongs to another identity; restore the two files \
                 that belong together, or move this one away to begin anew",
                self.path().display()
            )
        })?);
        serde_json::from_slice(&opened).ok().with_context(|| self.damaged())
    }

    fn format(&self, people: &People) -> Result<Zeroizing<String>> {
        let list: Vec<StoredPerson> =
            people.iter().map(|(identity, known)| StoredPerson::of(identity, known)).collect();
        let list = match &self.key {
            None => StoredList::None { people: list },
            Some(key) => self.seal(key, &list)?,
        };
        Ok(Zeroizing::new(serde_json::to_string(&Stored { version: 1, list })?))
    }

    fn seal(&self, key: &PeopleKey, list: &[StoredPerson]) -> Result<StoredList> {
        let text = Zeroizing::new(serde_json::to_vec(list)?);
        // Random nonces of 24 bytes do not repeat, however often the file is written.
        let mut nonce = [0; 24];
        system_rng().fill_bytes(&mut nonce);
        let payload = Payload { msg: &text, aad: &self.context() };
        let sealed = XChaCha20Poly1305::new(key.as_bytes().into()).encrypt(&nonce.into(), payload);
        let sealed = sealed.ok().context("sealing failed")?;
        Ok(StoredList::Passphrase { nonce: BASE64.encode(&nonce), sealed: BASE64.encode(&sealed) })
    }

    fn context(&self) -> Vec<u8> {
        [CONTEXT, &self.owner.0].concat()
    }
}

impl StoredPerson {
    fn of(identity: &PublicKey, known: &Known) -> Self {
        Self {
            identity: BASE64.encode(&identity.0),
            name: known.name.clone(),
            first_seen: known.first_seen.0,
            last_seen: known.last_seen.0,
            verified: known.verified,
            blocked: known.blocked,
        }
    }

    fn read(self) -> Option<(PublicKey, Known)> {
        let identity = BASE64.decode(self.identity.as_bytes()).ok()?.try_into().ok()?;
        let known = Known::new(&self.name, UnixMillis(self.first_seen), UnixMillis(self.last_seen));
        Some((PublicKey(identity), known.marked(self.verified, self.blocked)))
    }
}

#[cfg(test)]
mod tests {
    use super::super::people::{Change, Seen};
    use super::*;
    use std::fs;

    const OWNER: PublicKey = PublicKey([7; 32]);
    const BOB: PublicKey = PublicKey([1; 32]);
    const EVE: PublicKey = PublicKey([2; 32]);

    fn file(home: &Path, key: Option<u8>) -> PeopleFile {
        PeopleFile::new(home, OWNER, key.map(|byte| PeopleKey::new([byte; 32])))
    }

    fn changes(identity: PublicKey, name: &str) -> Changes {
        let mut changes = Changes::default();
        let seen = Some(Seen::once(name, UnixMillis(5)));
        changes.add(identity, Change { seen, verified: Some(true), ..Change::default() });
        changes
    }

    fn names(people: &People) -> Vec<(&str, bool)> {
        people.iter().map(|(_, known)| (known.name.as_str(), known.verified)).collect()
    }

    #[test]
    fn what_is_written_is_read_back_in_the_clear_or_sealed() {
        for key in [None, Some(1)] {
            let home = tempfile::tempdir().expect("a directory");
            assert_eq!(names(&file(home.path(), key).load().expect("no file")), []);
            file(home.path(), key).commit(&changes(BOB, "Bób \"B\"")).expect("written");
            assert_eq!(names(&file(home.path(), key).load().expect("read")), [("Bób \"B\"", true)]);
            let text = fs::read_to_string(home.path().join(FILE)).expect("there");
            assert_eq!(text.contains("Bób"), key.is_none());
            assert_eq!(text.contains(&BASE64.encode(&BOB.0)), key.is_none());
        }
    }

    #[test]
    fn a_sealed_list_opens_with_its_key_for_its_owner_only_and_no_other_list_is_taken_for_it() {
        let home = tempfile::tempdir().expect("a directory");
        file(home.path(), Some(1)).commit(&changes(BOB, "Bob")).expect("written");
        assert!(file(home.path(), Some(2)).load().is_err());
        assert!(file(home.path(), None).load().is_err());
        let others = PeopleFile { owner: EVE, ..file(home.path(), Some(1)) };
        assert!(others.load().is_err());
        let plain = tempfile::tempdir().expect("a directory");
        file(plain.path(), None).commit(&changes(EVE, "Eve")).expect("written");
        fs::copy(plain.path().join(FILE), home.path().join(FILE)).expect("copied");
        let error = file(home.path(), Some(1)).load().expect_err("anybody could have written it").to_string();
        assert!(error.contains("passphrase"), "{error}");
    }

    #[test]
    fn a_damaged_list_is_refused_left_as_it_is_and_the_error_says_what_to_do() {
        for key in [None, Some(1)] {
            let home = tempfile::tempdir().expect("a directory");
            let file = file(home.path(), key);
            file.commit(&changes(BOB, "Bob")).expect("written");
            let path = home.path().join(FILE);
            let whole = fs::read_to_string(&path).expect("there");
            let cut = whole.get(..whole.len() - 9).expect("long enough");
            let version = whole.replacen("\"version\":1", "\"version\":2", 1);
            let last = whole.rfind(if key.is_some() { "=\"" } else { "true" }).unwrap_or(whole.len() - 20);
            let flipped = format!("{}#{}", &whole[..last - 1], &whole[last..]);
            for bad in ["", "{}", "[]", cut, &version, &flipped] {
                fs::write(&path, bad).expect("written");
                let error = file.load().expect_err("damaged").to_string();
                assert!(error.contains("people.json") && error.contains(": "), "{error}");
                assert!(file.commit(&changes(EVE, "Eve")).is_err());
                assert_eq!(fs::read_to_string(&path).expect("there"), bad);
            }
        }
    }

    #[test]
    fn ten_thousand_people_of_long_names_fit_the_file() {
        let home = tempfile::tempdir().expect("a directory");
        let file = file(home.path(), Some(1));
        let mut all = Changes::default();
        for number in 0..super::super::people::MAX_PEOPLE as u64 {
            let mut identity = [0; 32];
            identity[..8].copy_from_slice(&number.to_be_bytes());
            // Each of these takes two bytes in JSON.
            let seen = Some(Seen::once(&"\"".repeat(64), UnixMillis(1_800_000_000_000)));
            all.add(PublicKey(identity), Change { seen, ..Change::default() });
        }
        file.commit(&all).expect("written");
        assert_eq!(file.load().expect("read").iter().count(), super::super::people::MAX_PEOPLE);
    }
}

//! The identity that is kept between meetings: one file, readable by its owner only.
//!
//! With a passphrase the file holds the Ed25519 seed sealed by XChaCha20-Poly1305 under an Argon2id key; without
//! one, the seed itself. The same passphrase protects what is [remembered of others](crate::pins).

use std::path::Path;

use anyhow::{Context, Result, bail};
use conclave_protocol::identity::Identity;
use conclave_protocol::secret::Secret;
use data_encoding::BASE64;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::passphrase::{self, Sealed, Wrapping};
use crate::pins::{PeopleKey, Pins};
use crate::private::{self, Lock};

const FILE: &str = "identity.json";
/// What is in it, for messages.
const WHAT: &str = "the identity";
/// Largest file that is read: ten times what is ever written.
const MAX_FILE: u64 = 4_096;
/// Bound to the ciphertext, so that a file of another kind cannot be passed off as this one.
const CONTEXT: &[u8] = b"conclave/1 keystore";
/// The same while what is remembered of others may still be in the clear.
const CONTEXT_PEOPLE_FOLLOW: &[u8] = b"conclave/1 keystore, people follow";
/// Label of the key that seals what is remembered of others.
const PEOPLE_KEY: &str = "conclave/1 people key";

/// Purpose tag of Argon2id's output.
enum PassphraseTag {}

#[derive(Serialize, Deserialize)]
struct Stored {
    version: u32,
    #[serde(flatten)]
    key: StoredKey,
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "protection", rename_all = "snake_case")]
enum StoredKey {
    None {
        seed: String,
    },
    Argon2id {
        #[serde(flatten)]
        sealed: Sealed,
        /// The identity was in the clear until now, and what it remembers of others may be so still.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        people_follow: bool,
    },
}

/// Who this client is from meeting to meeting, and what it remembers of others.
pub struct Kept {
    /// The identity.
    pub identity: Identity,
    /// The others.
    pub pins: Pins,
    /// Both were in the clear until now, and are sealed by the passphrase from now on.
    pub newly_sealed: bool,
}

/// The identity kept in `home`, made there if there is none yet, and what it remembers of others. Asks for the
/// passphrase at most once, and derives both keys from it in one go. Where the environment holds a passphrase and the
/// identity has none, both are sealed by it.
///
/// # Errors
/// When the directory or a file cannot be used, is readable by others, or the passphrase does not open it.
pub fn open_or_create(home: &Path, rng: &mut impl rand_core::CryptoRng) -> Result<Kept> {
    keep(home, passphrase::from_environment(), rng)
}

fn keep(home: &Path, given: Option<Zeroizing<String>>, rng: &mut impl rand_core::CryptoRng) -> Result<Kept> {
    let path = home.join(FILE);
    let existing = || given.clone().map_or_else(|| existing_passphrase(&path), Ok);
    let text = match private::read(&path, WHAT, MAX_FILE)? {
        Some(text) => Some(text),
        None => create(home, &path, || given.clone().map_or_else(new_passphrase, |p| Ok(Some(p))), rng)?,
    };
    let text = text.with_context(|| format!("the identity in {} has just been taken away", path.display()))?;
    let found = open(&path, &text, existing)?;
    let is_plain = found.wrapping.is_none();
    let secrets = match given {
        Some(passphrase) if is_plain => protect(home, &path, &passphrase, rng)?,
        _ if found.people_follow => finish_protecting(&private::lock(home)?, home, &path, found, rng)?,
        _ => found,
    };
    let newly_sealed = is_plain && secrets.wrapping.is_some();
    let identity = Identity::kept(&secrets.seed);
    let pins = Pins::open(home, identity.public(), secrets.people())?;
    Ok(Kept { identity, pins, newly_sealed })
}

/// What the file holds, and what its passphrase gives.
struct Secrets {
    seed: Zeroizing<[u8; 32]>,
    /// Seals the seed, if there is a passphrase.
    wrapping: Option<Wrapping>,
    people_follow: bool,
}

impl Secrets {
    /// Seals what is remembered of others, if there is a passphrase.
    fn people(&self) -> Option<PeopleKey> {
        self.wrapping.as_ref().map(|wrapping| people_key(wrapping.key()))
    }
}

/// Makes an identity and gives the file's text; that of another process if one was faster.
fn create(
    home: &Path,
    path: &Path,
    passphrase: impl FnOnce() -> Result<Option<Zeroizing<String>>>,
    rng: &mut impl rand_core::CryptoRng,
) -> Result<Option<Zeroizing<String>>> {
    private::make_directory(home)?;
    let mut seed = Zeroizing::new([0; 32]);
    rng.fill_bytes(seed.as_mut());
    let key = match passphrase()? {
        Some(passphrase) => seal(&Wrapping::new(&passphrase, rng)?, &seed, false, rng)?,
        None => StoredKey::None { seed: BASE64.encode(seed.as_ref()) },
    };
    let lock = private::lock(home)?;
    // While the passphrase was typed, another process may have made one, and be somebody under it by now.
    if path.exists() {
        return private::read(path, WHAT, MAX_FILE);
    }
    write(&lock, path, key).map(Some)
}

fn write(lock: &Lock, path: &Path, key: StoredKey) -> Result<Zeroizing<String>> {
    let text = Zeroizing::new(serde_json::to_string_pretty(&Stored { version: 1, key })?);
    private::write(lock, path, WHAT, &text)?;
    Ok(text)
}

/// Seals an identity that has been in the clear, and what it remembers. The identity goes first and says that the
/// others follow, so that wherever this is cut short, the next start can go on.
fn protect(home: &Path, path: &Path, passphrase: &str, rng: &mut impl rand_core::CryptoRng) -> Result<Secrets> {
    let lock = private::lock(home)?;
    let text = private::read(path, WHAT, MAX_FILE)?.with_context(|| format!("{} is gone", path.display()))?;
    // Another process may have done the same.
    let mut secrets = open(path, &text, || Ok(Zeroizing::new(passphrase.to_owned())))?;
    if secrets.wrapping.is_none() {
        let wrapping = Wrapping::new(passphrase, rng)?;
        write(&lock, path, seal(&wrapping, &secrets.seed, true, rng)?)?;
        secrets = Secrets { wrapping: Some(wrapping), people_follow: true, ..secrets };
    }
    finish_protecting(&lock, home, path, secrets, rng)
}

fn finish_protecting(
    lock: &Lock,
    home: &Path,
    path: &Path,
    secrets: Secrets,
    rng: &mut impl rand_core::CryptoRng,
) -> Result<Secrets> {
    if let (Some(wrapping), true) = (&secrets.wrapping, secrets.people_follow) {
        Pins::protect(lock, home, Identity::kept(&secrets.seed).public(), people_key(wrapping.key()))?;
        write(lock, path, seal(wrapping, &secrets.seed, false, rng)?)?;
    }
    Ok(Secrets { people_follow: false, ..secrets })
}

fn open(path: &Path, text: &str, passphrase: impl FnOnce() -> Result<Zeroizing<String>>) -> Result<Secrets> {
    let shown = path.display();
    let damaged = || format!("{WHAT} in {shown} is damaged: restore it, or use another --home for a new one");
    let stored: Stored = serde_json::from_str(text).with_context(damaged)?;
    if stored.version != 1 {
        bail!("{WHAT} in {shown} was made by another version");
    }
    let decode = |text: &str| BASE64.decode(text.as_bytes()).with_context(damaged);
    let (seed, wrapping, people_follow) = match stored.key {
        StoredKey::None { seed } => {
            let seed = Zeroizing::new(seed);
            (Zeroizing::new(decode(&seed)?), None, false)
        }
        StoredKey::Argon2id { sealed, people_follow } => {
            if !sealed.is_plausible() {
                bail!(damaged());
            }
            let opened = sealed.open(&passphrase()?, context(people_follow)).with_context(damaged)?;
            let (seed, wrapping) = opened.with_context(|| format!("the passphrase does not open {WHAT} in {shown}"))?;
            (seed, Some(wrapping), people_follow)
        }
    };
    let seed: [u8; 32] = seed.as_slice().try_into().ok().with_context(damaged)?;
    Ok(Secrets { seed: Zeroizing::new(seed), wrapping, people_follow })
}

fn seal(
    wrapping: &Wrapping,
    seed: &[u8; 32],
    people_follow: bool,
    rng: &mut impl rand_core::CryptoRng,
) -> Result<StoredKey> {
    Ok(StoredKey::Argon2id { sealed: wrapping.seal(seed, context(people_follow), rng)?, people_follow })
}

/// Nobody but who knows the passphrase can say that a list in the clear belongs to a sealed identity.
fn context(people_follow: bool) -> &'static [u8] {
    if people_follow { CONTEXT_PEOPLE_FOLLOW } else { CONTEXT }
}

/// `HKDF-Expand(Argon2id output, "conclave/1 people key")`. The output itself seals the identity, and is used for
/// nothing else but this: HMAC in the one place and XChaCha20 in the other keep the two apart.
fn people_key(key: &[u8; 32]) -> PeopleKey {
    Secret::<PassphraseTag>::new(*key).expand(PEOPLE_KEY, &[])
}

fn new_passphrase() -> Result<Option<Zeroizing<String>>> {
    if !passphrase::can_ask() {
        return Ok(None);
    }
    passphrase::ask_new("the new identity")
}

fn existing_passphrase(path: &Path) -> Result<Zeroizing<String>> {
    passphrase::ask("the identity", path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use conclave_protocol::identity::IdentityKind;
    use conclave_protocol::sign::PublicKey;
    use conclave_protocol::time::UnixMillis;
    use rand_core::UnwrapErr;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    const BOB: PublicKey = PublicKey([1; 32]);

    fn rng() -> UnwrapErr<getrandom::SysRng> {
        UnwrapErr(getrandom::SysRng)
    }

    fn typed(text: &str) -> Result<Zeroizing<String>> {
        Ok(Zeroizing::new(text.to_owned()))
    }

    #[test]
    fn a_kept_identity_is_the_same_next_time_and_private_to_its_owner() {
        let dir = tempfile::tempdir().expect("a directory");
        let home = dir.path().join("home");
        let first = open_or_create(&home, &mut rng()).expect("made").identity.public();
        assert_eq!(open_or_create(&home, &mut rng()).expect("opened").identity.public(), first);
        let path = home.join(FILE);
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
        fs::set_permissions(&path, Permissions::from_mode(0o644)).expect("set");
        assert!(open_or_create(&home, &mut rng()).is_err());
    }

    #[test]
    fn a_passphrase_opens_the_identity_and_what_it_remembers_and_no_other_does() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join(FILE);
        let text = create(dir.path(), &path, || typed("correct horse").map(Some), &mut rng()).expect("made");
        let text = text.expect("there");
        assert_eq!(*text, fs::read_to_string(&path).expect("there"));
        let made = open(&path, &text, || typed("correct horse")).expect("opens");
        let own = Identity::kept(&made.seed).public();
        let mut pins = Pins::open(dir.path(), own, made.people()).expect("nobody yet");
        pins.verify(&BOB, IdentityKind::Kept, "Bob", UnixMillis(1));
        pins.close().expect("written");
        assert!(!text.contains(&BASE64.encode(made.seed.as_ref())));
        let opened = open(&path, &text, || typed("correct horse")).expect("opens");
        assert_eq!(opened.seed, made.seed);
        assert!(Pins::open(dir.path(), own, opened.people()).expect("opens").is_verified(&BOB));
        assert!(open(&path, &text, || typed("wrong horse")).is_err());
        assert!(Pins::open(dir.path(), own, None).is_err());
    }

    #[test]
    fn one_passphrase_gives_two_keys() {
        let wrapping = Wrapping::new("correct horse", &mut rng()).expect("derived");
        assert_ne!(people_key(wrapping.key()).as_bytes(), wrapping.key());
        let again = wrapping.again("correct horse").expect("derived");
        assert_eq!(people_key(again.key()).as_bytes(), people_key(wrapping.key()).as_bytes());
    }

    #[test]
    fn an_identity_is_not_made_over_one_that_is_there() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join(FILE);
        let mut first = None;
        let meanwhile = || {
            first = create(dir.path(), &path, || Ok(None), &mut rng())?;
            Ok(None)
        };
        let second = create(dir.path(), &path, meanwhile, &mut rng()).expect("the first one's");
        assert!(second.is_some());
        assert_eq!(second, first);
    }

    #[test]
    fn all_who_start_first_at_once_have_one_identity() {
        let dir = tempfile::tempdir().expect("a directory");
        let home = dir.path().join("home");
        let start = std::sync::Barrier::new(8);
        let one = || {
            start.wait();
            keep(&home, None, &mut rng()).map(|kept| kept.identity.public()).expect("made or found")
        };
        let all: Vec<PublicKey> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(one)).collect();
            threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
        });
        assert!(all.iter().all(|identity| *identity == all[0]));
    }

    /// A home in the clear, and who it belongs to, who has verified Bob.
    fn home_in_the_clear() -> (tempfile::TempDir, PublicKey) {
        let dir = tempfile::tempdir().expect("a directory");
        let mut kept = keep(dir.path(), None, &mut rng()).expect("made");
        kept.pins.verify(&BOB, IdentityKind::Kept, "Bob", UnixMillis(1));
        kept.pins.close().expect("written");
        (dir, kept.identity.public())
    }

    fn passphrase() -> Option<Zeroizing<String>> {
        typed("correct horse").ok()
    }

    #[test]
    fn a_passphrase_for_an_identity_in_the_clear_seals_it_and_what_it_remembers() {
        let (dir, own) = home_in_the_clear();
        for newly_sealed in [true, false] {
            let kept = keep(dir.path(), passphrase(), &mut rng()).expect("opens");
            assert_eq!(kept.newly_sealed, newly_sealed);
            assert_eq!(kept.identity.public(), own);
            assert!(kept.pins.is_verified(&BOB));
        }
        for file in [FILE, "people.json"] {
            let text = fs::read_to_string(dir.path().join(file)).expect("there");
            // Three letters alone are in one of 2,000 ciphertexts, too.
            assert!(text.contains("sealed") && !text.contains("\"Bob\"") && !text.contains("follow"), "{text}");
        }
        assert!(keep(dir.path(), typed("wrong horse").ok(), &mut rng()).is_err());
    }

    #[test]
    fn sealing_that_was_cut_short_goes_on_at_the_next_start() {
        for people_are_sealed in [false, true] {
            let (dir, own) = home_in_the_clear();
            let path = dir.path().join(FILE);
            let text = fs::read_to_string(&path).expect("there");
            let seed = open(&path, &text, || typed("")).expect("in the clear").seed;
            let wrapping = Wrapping::new("correct horse", &mut rng()).expect("derived");
            {
                let lock = private::lock(dir.path()).expect("free");
                write(&lock, &path, seal(&wrapping, &seed, true, &mut rng()).expect("sealed")).expect("written");
                if people_are_sealed {
                    Pins::protect(&lock, dir.path(), own, people_key(wrapping.key())).expect("sealed");
                }
            }
            let kept = keep(dir.path(), passphrase(), &mut rng()).expect("opens");
            assert_eq!(kept.identity.public(), own);
            assert!(kept.pins.is_verified(&BOB));
            assert!(!fs::read_to_string(&path).expect("there").contains("follow"));
        }
    }

    #[test]
    fn nobody_else_can_say_that_a_list_in_the_clear_belongs_to_a_sealed_identity() {
        let (dir, _) = home_in_the_clear();
        let people = dir.path().join("people.json");
        let path = dir.path().join(FILE);
        let plain = fs::read_to_string(&people).expect("there");
        keep(dir.path(), passphrase(), &mut rng()).expect("sealed").pins.close().expect("nothing to write");
        fs::write(&people, plain).expect("written");
        assert!(keep(dir.path(), passphrase(), &mut rng()).is_err());
        let text = fs::read_to_string(&path).expect("there");
        fs::write(&path, text.replacen('{', "{\"people_follow\":true,", 1)).expect("written");
        assert!(keep(dir.path(), passphrase(), &mut rng()).is_err());
    }

    #[test]
    fn a_damaged_list_of_people_keeps_the_client_from_starting() {
        let dir = tempfile::tempdir().expect("a directory");
        open_or_create(dir.path(), &mut rng()).expect("made");
        let people = dir.path().join("people.json");
        fs::write(&people, "{}").expect("written");
        fs::set_permissions(&people, Permissions::from_mode(0o600)).expect("set");
        let error = open_or_create(dir.path(), &mut rng()).err().expect("damaged").to_string();
        assert!(error.contains("move it away"), "{error}");
        assert_eq!(fs::read_to_string(&people).expect("there"), "{}");
    }
}

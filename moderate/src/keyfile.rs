//! The moderator's key file: made once, for its owner alone, and never overwritten.

use std::path::Path;

use anyhow::{Context, Result, bail};
use conclave::passphrase::{self, Sealed, Wrapping};
use conclave::private;
use conclave::session::system_rng;
use conclave_protocol::identity::DisplayName;
use conclave_protocol::moderator::ModeratorKey;
use data_encoding::BASE64;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::args::Keygen;
use crate::{Outcome, say};

/// Largest file that is read: ten times what is ever written.
const MAX_FILE: u64 = 8_192;
/// Bound to the ciphertext, so that a file of another kind cannot be passed off as this one.
const CONTEXT: &[u8] = b"conclave/1 moderator key";
const WHAT: &str = "the moderator's key";

#[derive(Serialize, Deserialize)]
struct Stored {
    version: u32,
    name: String,
    #[serde(flatten)]
    key: StoredKey,
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "protection", rename_all = "snake_case")]
enum StoredKey {
    None { seeds: String },
    Argon2id(Sealed),
}

/// Makes a key in a directory.
pub(crate) fn keygen(options: &Keygen) -> Result<Outcome> {
    let name = DisplayName::parse(&options.name).context("--name")?;
    let (secret, public) = (options.out.join("moderator.key"), options.out.join("moderator.pub"));
    if let Some(there) = [&secret, &public].into_iter().find(|path| path.exists()) {
        bail!(
            "{} is there already: keys are never overwritten, since nothing else opens their reports",
            there.display()
        );
    }
    let passphrase = if options.no_passphrase { None } else { Some(new_passphrase()?) };
    private::make_directory(&options.out)?;
    let key = ModeratorKey::generate(name, &mut system_rng());
    let text = text_of(&key, passphrase.as_deref())?;
    private::write_new(&secret, text.as_bytes()).with_context(|| format!("cannot write {}", secret.display()))?;
    let handed_out = key.public().to_text();
    std::fs::write(&public, handed_out).with_context(|| format!("cannot write {}", public.display()))?;
    say(&format!("{}\n{}", secret.display(), public.display()))?;
    Ok(Outcome::Good)
}

fn new_passphrase() -> Result<Zeroizing<String>> {
    if let Some(passphrase) = passphrase::from_environment() {
        return Ok(passphrase);
    }
    if !passphrase::can_ask() {
        bail!("give a passphrase in {}, or --no-passphrase for a key without one", passphrase::VARIABLE);
    }
    passphrase::ask_new("the moderator's key")?.context("a key without a passphrase needs --no-passphrase")
}

fn text_of(key: &ModeratorKey, passphrase: Option<&String>) -> Result<Zeroizing<String>> {
    let seeds = key.seeds();
    let stored = match passphrase {
        None => StoredKey::None { seeds: BASE64.encode(seeds.as_ref()) },
        Some(passphrase) => {
            let wrapping = Wrapping::new(passphrase, &mut system_rng())?;
            StoredKey::Argon2id(wrapping.seal(seeds.as_ref(), CONTEXT, &mut system_rng())?)
        }
    };
    let name = key.public().name.as_str().to_owned();
    Ok(Zeroizing::new(serde_json::to_string_pretty(&Stored { version: 1, name, key: stored })?))
}

/// Reads a key file; asks for its passphrase where the environment holds none.
pub(crate) fn read(path: &Path) -> Result<ModeratorKey> {
    let text = private::read(path, WHAT, MAX_FILE)?;
    let text = text.with_context(|| format!("there is no key {}: make one with keygen", path.display()))?;
    parse(path, &text, || passphrase::from_environment().map_or_else(|| passphrase::ask(WHAT, path), Ok))
}

fn parse(path: &Path, text: &str, passphrase: impl FnOnce() -> Result<Zeroizing<String>>) -> Result<ModeratorKey> {
    let damaged = || format!("{WHAT} in {} is damaged", path.display());
    let stored: Stored = serde_json::from_str(text).with_context(damaged)?;
    if stored.version != 1 {
        bail!("{WHAT} in {} was made by another version", path.display());
    }
    let name = DisplayName::parse(&stored.name).with_context(damaged)?;
    let seeds = match stored.key {
        StoredKey::None { seeds } => {
            let seeds = Zeroizing::new(seeds);
            Zeroizing::new(BASE64.decode(seeds.as_bytes()).with_context(damaged)?)
        }
        StoredKey::Argon2id(sealed) => {
            let opened = sealed.open(&passphrase()?, CONTEXT).with_context(damaged)?;
            opened.with_context(|| format!("the passphrase does not open {WHAT} in {}", path.display()))?.0
        }
    };
    let seeds: &[u8; ModeratorKey::SEED_LEN] = seeds.as_slice().try_into().ok().with_context(damaged)?;
    Ok(ModeratorKey::from_seeds(name, seeds))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> ModeratorKey {
        ModeratorKey::from_seeds(DisplayName::parse("Mo").expect("a name"), &[7; 64])
    }

    fn typed(text: &str) -> Result<Zeroizing<String>> {
        Ok(Zeroizing::new(text.to_owned()))
    }

    #[test]
    fn a_key_is_read_back_with_its_passphrase_and_with_no_other() {
        let path = Path::new("moderator.key");
        let text = text_of(&key(), Some(&"correct horse".to_owned())).expect("written");
        assert!(!text.contains(&BASE64.encode(key().seeds().as_ref())[..40]));
        let read = parse(path, &text, || typed("correct horse")).expect("opens");
        assert_eq!(read.public(), key().public());
        assert!(parse(path, &text, || typed("wrong horse")).is_err());
        let plain = text_of(&key(), None).expect("written");
        assert_eq!(parse(path, &plain, || bail!("not asked")).expect("opens").public(), key().public());
        assert!(parse(path, &plain[..plain.len() - 3], || bail!("not asked")).is_err());
    }
}

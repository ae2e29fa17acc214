//! Makes stamp keys, keeps them, and destroys the old ones. Reads files and random numbers; the time is an argument.
//!
//! A file holds the key of one day:
//!
//! ```toml
//! relay = "eu-1"
//! day = "2026-11-26"
//! key = "BASE32 of 32 bytes, without padding"
//! ```
//!
//! It is created exclusively, and appears as a whole: of several relays that share a directory one makes the key of a
//! day, and the others take it.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use conclave_protocol::stamp::StampKey;
use data_encoding::BASE32_NOPAD;
use serde::Deserialize;
use thiserror::Error;
use zeroize::{ZeroizeOnDrop, Zeroizing};

use super::StampKeys;
use super::day::Day;
use crate::files;

/// End of the files' names.
const EXTENSION: &str = ".stampkey";

/// Days for which a key is kept unless the operator says otherwise: time for a moderator to look at a report.
pub const DEFAULT_KEEP_DAYS: u16 = 30;

/// Where keys are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Store {
    /// In memory: new ones at every start, and only the relay itself can check its stamps while it runs.
    Memory,
    /// In this directory, for a moderator and for other relays too.
    Directory(PathBuf),
}

/// What the operator decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Where keys are kept.
    pub store: Store,
    /// For how many days after its own a key is kept.
    pub keep_days: u16,
    /// Moderators see it beside what the stamps prove.
    pub relay: RelayName,
}

/// Name of a relay or its cluster: 1 to [`RelayName::MAX_LEN`] of the characters a-z, A-Z, 0-9, dot, hyphen and
/// underscore, so that no format has to escape it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelayName(String);

/// A text that can't be a relay's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a relay's name is 1 to {} of the characters a-z, A-Z, 0-9, dot, hyphen and underscore", RelayName::MAX_LEN)]
pub struct InvalidName;

impl RelayName {
    /// Longest name, in bytes: that of a label in the DNS.
    pub const MAX_LEN: usize = 63;

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for RelayName {
    fn default() -> Self {
        Self("relay".into())
    }
}

impl FromStr for RelayName {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
        let is_name = (1..=Self::MAX_LEN).contains(&text.len()) && text.bytes().all(fits);
        if is_name { Ok(Self(text.into())) } else { Err(InvalidName) }
    }
}

/// Why there are no stamp keys.
#[derive(Debug, Error)]
pub enum KeeperError {
    /// A file or the directory can't be used.
    #[error("cannot {action} {}: {source}", path.display())]
    File {
        /// What was to be done.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file isn't what its name says.
    #[error("{} is no stamp key of its day", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// A file can be read by others.
    #[error("{} can be read by others (mode {mode:03o}): whoever reads it can forge stamps. Take it away from them, \
             with chmod 600", path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// The system gives no random numbers.
    #[error("no random numbers from the system: {0}")]
    Random(getrandom::Error),
}

/// Keeps the keys.
pub struct Keeper {
    settings: Settings,
    /// Those of [`Store::Memory`].
    held: BTreeMap<Day, Arc<StampKey>>,
}

/// What stands in a file.
#[derive(Deserialize, ZeroizeOnDrop)]
#[serde(deny_unknown_fields)]
struct Entry {
    #[serde(rename = "relay")]
    _relay: String,
    day: String,
    key: String,
}

impl Keeper {
    /// Keeps keys as the operator decides.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self { settings, held: BTreeMap::new() }
    }

    /// The keys as they are on that day: its own, made when there is none yet, and those before it that are still kept.
    /// Those that are older are destroyed. Blocks on files.
    ///
    /// # Errors
    /// [`KeeperError`]; the keys handed out before stay good.
    pub fn keys(&mut self, today: Day) -> Result<StampKeys, KeeperError> {
        let oldest = Day(today.0.saturating_sub(u32::from(self.settings.keep_days)));
        let mut keys = match &self.settings.store {
            Store::Memory => {
                self.held.retain(|day, _| *day >= oldest);
                if !self.held.contains_key(&today) {
                    self.held.insert(today, Arc::new(random_key()?));
                }
                self.held.clone()
            }
            Store::Directory(path) => self.read_directory(path, oldest, today)?,
        };
        let Some(current) = keys.remove(&today) else {
            // Both branches have just seen to it.
            return Err(KeeperError::Damaged { path: file_name(today).into() });
        };
        Ok(StampKeys::new(current, keys.into_values()))
    }

    fn read_directory(
        &self,
        directory: &Path,
        oldest: Day,
        today: Day,
    ) -> Result<BTreeMap<Day, Arc<StampKey>>, KeeperError> {
        files::private_directory(directory).map_err(failed("create", directory))?;
        files::remove_abandoned(directory).map_err(failed("clear", directory))?;
        self.create(directory, today)?;
        let mut keys = BTreeMap::new();
        for entry in fs::read_dir(directory).map_err(failed("read", directory))? {
            let path = entry.map_err(failed("read", directory))?.path();
            let Some(day) = day_of(&path) else { continue };
            if day < oldest {
                fs::remove_file(&path).map_err(failed("remove", &path))?;
                continue;
            }
            match read(&path, day) {
                Ok(key) => keys.insert(day, Arc::new(key)),
                Err(error) if day == today => return Err(error),
                Err(error) => {
                    // Stamps of that day can't be checked here; today's seals are stamped all the same.
                    tracing::warn!(%day, %error, "a stamp key is of no use");
                    continue;
                }
            };
        }
        Ok(keys)
    }

    /// Makes the key of a day, unless there is one.
    fn create(&self, directory: &Path, day: Day) -> Result<(), KeeperError> {
        let name = file_name(day);
        let path = directory.join(&name);
        if path.exists() {
            return Ok(());
        }
        let key = random_key()?;
        let encoded = Zeroizing::new(BASE32_NOPAD.encode(key.as_bytes()));
        let relay = self.settings.relay.as_str();
        let text = Zeroizing::new(format!("relay = \"{relay}\"\nday = \"{day}\"\nkey = \"{}\"\n", *encoded));
        match files::create_whole(directory, &name, text.as_bytes()) {
            // Another relay was faster.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            done => done.map_err(failed("write", &path)),
        }
    }
}

fn read(path: &Path, day: Day) -> Result<StampKey, KeeperError> {
    check_private(path)?;
    let damaged = || KeeperError::Damaged { path: path.into() };
    let text = Zeroizing::new(fs::read_to_string(path).map_err(failed("read", path))?);
    let entry: Entry = toml::from_str(&text).map_err(|_| damaged())?;
    if entry.day.parse() != Ok(day) {
        return Err(damaged());
    }
    let bytes = Zeroizing::new(BASE32_NOPAD.decode(entry.key.as_bytes()).map_err(|_| damaged())?);
    let key: Zeroizing<[u8; 32]> = Zeroizing::new(bytes.as_slice().try_into().map_err(|_| damaged())?);
    Ok(StampKey::new(*key))
}

fn random_key() -> Result<StampKey, KeeperError> {
    let mut bytes = Zeroizing::new([0; 32]);
    getrandom::fill(bytes.as_mut_slice()).map_err(KeeperError::Random)?;
    Ok(StampKey::new(*bytes))
}

fn file_name(day: Day) -> String {
    format!("{day}{EXTENSION}")
}

fn day_of(path: &Path) -> Option<Day> {
    path.file_name()?.to_str()?.strip_suffix(EXTENSION)?.parse().ok()
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> KeeperError {
    let path = path.to_path_buf();
    move |source| KeeperError::File { action, path, source }
}

#[cfg(unix)]
fn check_private(path: &Path) -> Result<(), KeeperError> {
    use std::os::unix::fs::PermissionsExt;
    let mode = fs::metadata(path).map_err(failed("read", path))?.permissions().mode() & 0o777;
    if mode & 0o077 == 0 { Ok(()) } else { Err(KeeperError::Exposed { path: path.into(), mode }) }
}

#[cfg(not(unix))]
fn check_private(_: &Path) -> Result<(), KeeperError> {
    // Elsewhere the directory's own access list protects the file.
    Ok(())
}

#[cfg(test)]
#[path = "keeper_tests.rs"]
mod tests;

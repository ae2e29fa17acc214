//! The stamp keys of a relay, from the directory that its operator shares (`docs/protocol.md` §9.3).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use conclave::private;
use conclave_protocol::stamp::{Minute, StampKey, StampKeyId};
use conclave_protocol::time::UnixMillis;
use conclave_protocol::wire::relay::{StampCheck, StampVerdict};
use data_encoding::BASE32_NOPAD;
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::time::{self, Until};

/// Largest file that is read: ten times what is ever written.
const MAX_FILE: u64 = 4_096;
const WHAT: &str = "a stamp key";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    relay: String,
    day: String,
    key: String,
}

/// A key, and what is known of it.
struct Known {
    key: StampKey,
    /// The last moment of its day.
    until: UnixMillis,
    source: Source,
}

/// How far a relay may be behind or ahead with changing its keys.
const SLACK: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(86_400);

impl Known {
    /// A key vouches for its own day only, so that one that gets about gives nobody another day.
    fn is_of_its_day(&self, minute: Minute) -> bool {
        let at = time::begin(minute);
        self.until.minus(DAY + SLACK) <= at && at <= self.until.plus(SLACK)
    }
}

/// Who made a stamp, as far as is known.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Source {
    /// The relay's name.
    pub(crate) relay: String,
    /// The key's day.
    pub(crate) day: Option<String>,
}

/// All keys that are here.
#[derive(Default)]
pub(crate) struct StampKeys(BTreeMap<StampKeyId, Known>);

impl StampKeys {
    /// Reads all files `YYYY-MM-DD.stampkey` of a directory.
    pub(crate) fn read(directory: &Path) -> Result<Self> {
        let shown = directory.display();
        let entries = std::fs::read_dir(directory).with_context(|| format!("cannot list the stamp keys in {shown}"))?;
        let mut paths: Vec<PathBuf> = Vec::new();
        for entry in entries {
            let path = entry.with_context(|| format!("cannot list the stamp keys in {shown}"))?.path();
            if path.extension().is_some_and(|extension| extension == "stampkey") {
                paths.push(path);
            }
        }
        let keys = paths.iter().map(|path| read_key(path)).collect::<Result<_>>()?;
        Ok(Self(keys))
    }

    /// Whether one of the keys made a stamp. One that names another key than it was made with is forged too.
    pub(crate) fn check(&self, check: &StampCheck) -> StampVerdict {
        let StampCheck { origin, public, stamp } = check;
        let made = |known: &Known| known.key.made_all_but_name(stamp, origin, public);
        match self.0.get(&stamp.key) {
            Some(known) if !made(known) => StampVerdict::Forged,
            Some(known) if known.is_of_its_day(stamp.minute) => StampVerdict::Genuine,
            None if self.0.values().any(made) => StampVerdict::Forged,
            Some(_) | None => StampVerdict::UnknownKey,
        }
    }

    /// What is known of a key.
    pub(crate) fn source(&self, id: &StampKeyId) -> Option<&Source> {
        self.0.get(id).map(|known| &known.source)
    }
}

fn read_key(path: &Path) -> Result<(StampKeyId, Known)> {
    let shown = path.display();
    let damaged = || format!("{WHAT} in {shown} is damaged");
    let text = private::read(path, WHAT, MAX_FILE)?.with_context(|| format!("{shown} is gone"))?;
    let Entry { relay, day, key } = toml::from_str(&text).map_err(|_| anyhow::anyhow!(damaged()))?;
    let key = Zeroizing::new(key);
    if path.file_stem().is_none_or(|stem| *stem != *day) {
        bail!("{WHAT} in {shown} is of another day than its name says");
    }
    let bytes = Zeroizing::new(BASE32_NOPAD.decode(key.as_bytes()).map_err(|_| anyhow::anyhow!(damaged()))?);
    let bytes: [u8; 32] = bytes.as_slice().try_into().ok().with_context(damaged)?;
    let until = day.parse::<Until>().map_err(|_| anyhow::anyhow!(damaged()))?.0;
    let key = StampKey::new(bytes);
    Ok((key.id(), Known { key, until, source: Source { relay, day: Some(day) } }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use conclave_protocol::id::{MeetingId, MemberIndex};
    use conclave_protocol::sign::PublicKey;
    use conclave_protocol::stamp::{Origin, SealPublic};

    #[test]
    fn keys_are_read_from_their_files_and_from_no_others() {
        let dir = tempfile::tempdir().expect("a directory");
        let text = format!("relay = \"r1\"\nday = \"2026-01-01\"\nkey = \"{}\"\n", BASE32_NOPAD.encode(&[5; 32]));
        private::write_new(&dir.path().join("2026-01-01.stampkey"), text.as_bytes()).expect("written");
        private::write_new(&dir.path().join("lock"), b"").expect("written");
        let keys = StampKeys::read(dir.path()).expect("read");
        let key = StampKey::new([5; 32]);
        let public = SealPublic { kid: 1 << 63, count: 25, root: [1; 32] };
        // 2026-01-01 begins at this minute.
        let first = 1_767_225_600 / 60;
        let origin = Origin { meeting: MeetingId([2; 20]), slot: MemberIndex(0), rk: PublicKey([3; 32]) };
        let made = |minute| key.stamp(&origin, Minute(minute), &public);
        let stamp = made(first);
        let check = |stamp| StampCheck { origin, public, stamp };
        assert_eq!(keys.check(&check(stamp)), StampVerdict::Genuine);
        assert_eq!(keys.check(&check(made(first + 1_439 + 60))), StampVerdict::Genuine);
        assert_eq!(keys.check(&check(made(first + 1_440 + 60))), StampVerdict::UnknownKey);
        assert_eq!(keys.check(&check(made(first - 61))), StampVerdict::UnknownKey);
        let forged = conclave_protocol::stamp::Stamp { mac: [0; 16], ..stamp };
        assert_eq!(keys.check(&check(forged)), StampVerdict::Forged);
        // Another name than that of the key which made it; and a key that is not here.
        let renamed = conclave_protocol::stamp::Stamp { key: StampKeyId([0; 8]), ..stamp };
        assert_eq!(keys.check(&check(renamed)), StampVerdict::Forged);
        let other = StampKey::new([6; 32]).stamp(&origin, Minute(first), &public);
        assert_eq!(keys.check(&check(other)), StampVerdict::UnknownKey);
        assert_eq!(keys.source(&key.id()).map(|source| source.relay.as_str()), Some("r1"));
        for (name, bad) in [("2026-01-02", text.as_str()), ("2026-01-01", "relay = 1"), ("2026-01-01", "")] {
            let dir = tempfile::tempdir().expect("a directory");
            private::write_new(&dir.path().join(format!("{name}.stampkey")), bad.as_bytes()).expect("written");
            assert!(StampKeys::read(dir.path()).is_err(), "{name} {bad}");
        }
    }
}

//! Files that are their owner's alone: read with a bound, written whole or not at all, by one process at a time.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use zeroize::Zeroizing;

/// Whoever holds it may write in the directory. It is empty, and stays there.
const LOCK: &str = "lock";
/// How long another process may hold the lock: it reads and writes one file of some megabytes.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between two tries.
const TRY_EVERY: Duration = Duration::from_millis(20);

/// The right to write in a directory, until it is dropped.
pub struct Lock {
    _file: File,
}

/// Makes a directory that only its owner may enter; one that is there stays as it is.
///
/// # Errors
/// In words.
pub fn make_directory(path: &Path) -> Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .with_context(|| format!("cannot make the directory {}", path.display()))
}

/// Waits for its turn to write in a directory.
///
/// # Errors
/// In words, also when another process does not let go.
pub fn lock(directory: &Path) -> Result<Lock> {
    let path = directory.join(LOCK);
    let open = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
    let file = open.with_context(|| format!("cannot open {}", path.display()))?;
    let until = Instant::now() + PATIENCE;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(Lock { _file: file }),
            Err(TryLockError::WouldBlock) if Instant::now() < until => thread::sleep(TRY_EVERY),
            Err(TryLockError::WouldBlock) => {
                bail!("another process holds {} and does not let go: end it, then try again", path.display())
            }
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("cannot lock {}", path.display()));
            }
        }
    }
}

/// The text of a file of at most `max` bytes that nobody else can read; `None` when there is no such file. `what` is
/// in it, for messages.
///
/// # Errors
/// In words, and when the file is open to others or too long.
pub fn read(path: &Path, what: &str, max: u64) -> Result<Option<Zeroizing<String>>> {
    let shown = path.display();
    let file = match File::open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        opened => opened.with_context(|| format!("cannot open {what} in {shown}"))?,
    };
    if file.metadata()?.permissions().mode() & 0o077 != 0 {
        bail!("{what} in {shown} can be read by others: run chmod 600 on it");
    }
    let mut text = Zeroizing::new(String::new());
    file.take(max + 1).read_to_string(&mut text).with_context(|| format!("cannot read {what} in {shown}"))?;
    if text.len() as u64 > max {
        bail!("{what} in {shown} is too long to be true: restore it");
    }
    Ok(Some(text))
}

/// Replaces a file or leaves it as it was. The caller holds the directory's lock.
///
/// # Errors
/// In words.
pub fn write(_lock: &Lock, path: &Path, what: &str, text: &str) -> Result<()> {
    replace(path, text.as_bytes()).with_context(|| format!("cannot write {what} to {}", path.display()))
}

/// Writes a file that must not be there yet, for its owner alone.
///
/// # Errors
/// In words.
pub fn write_new(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    Ok(file.sync_all()?)
}

/// Replaces a file, or makes it, for its owner alone. Where several processes may write, [`write()`] is the one to use.
///
/// # Errors
/// Of the system; the file is as it was then.
pub fn replace(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    replace_through(path, &path.with_extension("new"), bytes)
}

/// The same, where it matters under which name in the same directory the file is until it is whole.
///
/// # Errors
/// As [`replace`].
pub fn replace_through(path: &Path, temporary: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(temporary)?;
    // It may have been there with other rights.
    file.set_permissions(Permissions::from_mode(0o600))?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(temporary, path)?;
    // The name is on the disk only when its directory is.
    match path.parent() {
        Some(here) if here == Path::new("") => File::open(".")?.sync_all(),
        Some(directory) => File::open(directory)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back_and_is_the_owners_alone() {
        let dir = tempfile::tempdir().expect("a directory");
        let home = dir.path().join("a/b");
        make_directory(&home).expect("made");
        assert_eq!(fs::metadata(&home).expect("there").permissions().mode() & 0o777, 0o700);
        let path = home.join("x.json");
        assert!(read(&path, "it", 10).expect("no error").is_none());
        fs::write(home.join("x.new"), "left over").expect("written");
        let lock = lock(&home).expect("free");
        write(&lock, &path, "it", "0123456789").expect("written");
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
        assert_eq!(read(&path, "it", 10).expect("read").expect("there").as_str(), "0123456789");
        assert!(read(&path, "it", 9).is_err());
        fs::set_permissions(&path, Permissions::from_mode(0o640)).expect("set");
        assert!(read(&path, "it", 10).is_err());
    }

    #[test]
    fn what_cannot_be_written_leaves_what_was_there() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("x.json");
        let lock = lock(dir.path()).expect("free");
        write(&lock, &path, "it", "old").expect("written");
        // Nothing can be made under this name.
        fs::create_dir(dir.path().join("x.new")).expect("made");
        assert!(write(&lock, &path, "it", "new").is_err());
        assert_eq!(fs::read_to_string(&path).expect("read"), "old");
    }

    #[test]
    fn a_lock_is_free_again_when_it_is_dropped() {
        let dir = tempfile::tempdir().expect("a directory");
        let first = lock(dir.path()).expect("free");
        let path = dir.path().to_owned();
        let second = thread::spawn(move || lock(&path).is_ok());
        thread::sleep(2 * TRY_EVERY);
        assert!(!second.is_finished());
        drop(first);
        assert!(second.join().expect("no panic"));
    }
}

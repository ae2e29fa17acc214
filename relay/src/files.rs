//! Files that only the relay's user may read, and that are whole or not there.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// End of the names of files that are being written.
const UNFINISHED: &str = ".part";

/// Age at which an unfinished file is nobody's any more: whoever writes one needs milliseconds.
const ABANDONED: Duration = Duration::from_secs(3_600);

/// Makes a directory that only its owner may look into; one that is there already stays as it is.
pub(crate) fn private_directory(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

/// Writes a new file, mode 0600, that appears under its name as a whole and is on the disk when this returns. When
/// there is one of that name already, the error is [`io::ErrorKind::AlreadyExists`], and it stays as it is.
pub(crate) fn create_whole(directory: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let unfinished = Unfinished::write(directory, name, bytes)?;
    // A link, unlike a rename, replaces nothing.
    fs::hard_link(&unfinished.0, directory.join(name))?;
    drop(unfinished);
    sync_directory(directory)
}

/// Removes what a relay that was killed has left unfinished. What is younger than an hour may be another relay's.
pub(crate) fn remove_abandoned(directory: &Path) -> io::Result<()> {
    let now = SystemTime::now();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if !name.to_str().is_some_and(|name| name.starts_with('.') && name.ends_with(UNFINISHED)) {
            continue;
        }
        let age = entry.metadata().and_then(|metadata| metadata.modified()).ok();
        if age.and_then(|modified| now.duration_since(modified).ok()).is_some_and(|age| age > ABANDONED) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// A file under a name that nobody looks at; gone when dropped.
struct Unfinished(PathBuf);

impl Unfinished {
    fn write(directory: &Path, name: &str, bytes: &[u8]) -> io::Result<Self> {
        let mut random = [0; 8];
        getrandom::fill(&mut random).map_err(io::Error::other)?;
        let path = directory.join(format!(".{name}.{:016x}{UNFINISHED}", u64::from_be_bytes(random)));
        let mut file = new_private_file(&path)?;
        let unfinished = Self(path);
        file.write_all(bytes)?;
        file.sync_all()?;
        Ok(unfinished)
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // What cannot be removed now is removed as abandoned later.
        let _removed = fs::remove_file(&self.0);
    }
}

fn new_private_file(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// A name is on the disk only when its directory is.
#[cfg(unix)]
fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

#[cfg(not(unix))]
fn sync_directory(_: &Path) -> io::Result<()> {
    // Elsewhere a directory cannot be opened as a file; the file system's journal keeps its names.
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_created_once_and_nothing_else_is_left() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("new");
        private_directory(&path).unwrap();
        create_whole(&path, "a", b"first").unwrap();
        assert_eq!(create_whole(&path, "a", b"second").unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(path.join("a")).unwrap(), b"first");
        assert_eq!(fs::read_dir(&path).unwrap().count(), 1);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
            assert_eq!((mode(&path), mode(&path.join("a"))), (0o700, 0o600));
        }
    }

    #[test]
    fn only_old_unfinished_files_are_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        for name in [".old.part", ".young.part", "kept.part", ".kept"] {
            fs::write(path(name), "x").unwrap();
        }
        let long_ago = SystemTime::now() - 2 * ABANDONED;
        for name in [".old.part", "kept.part", ".kept"] {
            File::options().write(true).open(path(name)).unwrap().set_modified(long_ago).unwrap();
        }
        remove_abandoned(directory.path()).unwrap();
        let there = [".old.part", ".young.part", "kept.part", ".kept"].map(|name| path(name).exists());
        assert_eq!(there, [false, true, true, true]);
    }
}

//! Reports as files: `RECEIPT.conclave-report`, mode 0600, whole or not there, on the disk before they count as taken.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{Deliver, Job, NotDelivered, SinkError};
use crate::files;

/// End of the files' names.
const EXTENSION: &str = ".conclave-report";

/// The directory, and how full it is.
pub(super) struct Directory {
    path: PathBuf,
    max_bytes: u64,
    /// Bytes of reports in it as far as we know: the operator may have moved some away since.
    used: u64,
}

impl Directory {
    /// Makes it if it isn't there.
    pub(super) fn open(path: &Path, max_bytes: u64) -> Result<Self, SinkError> {
        let opened = files::private_directory(path)
            .and_then(|()| files::remove_abandoned(path))
            .and_then(|()| size(path))
            .map_err(|source| SinkError::Directory { path: path.into(), source })?;
        Ok(Self { path: path.into(), max_bytes, used: opened })
    }

    fn store(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        if is_there(&self.path.join(name), bytes)? {
            return Ok(());
        }
        let length = bytes.len() as u64;
        if self.used.saturating_add(length) > self.max_bytes {
            self.used = size(&self.path)?;
        }
        if self.used.saturating_add(length) > self.max_bytes {
            return Err(io::Error::new(io::ErrorKind::StorageFull, "the directory holds as much as it may"));
        }
        match files::create_whole(&self.path, name, bytes) {
            // Another relay of the cluster was faster with the same report.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                if is_there(&self.path.join(name), bytes)? {
                    Ok(())
                } else {
                    Err(error)
                }
            }
            Err(error) => Err(error),
            Ok(()) => {
                self.used += length;
                Ok(())
            }
        }
    }
}

impl Deliver for Directory {
    fn deliver(&mut self, job: &Job) -> Result<(), NotDelivered> {
        let name = format!("{}{EXTENSION}", job.receipt());
        self.store(&name, job.bytes()).map_err(|error| NotDelivered(error.to_string()))
    }
}

/// Whether this very report is there already. Another one under its number, which takes 2^40 tries to make, is an error.
fn is_there(path: &Path, bytes: &[u8]) -> io::Result<bool> {
    match fs::read(path) {
        Ok(there) if there == bytes => Ok(true),
        Ok(_) => Err(io::Error::new(io::ErrorKind::AlreadyExists, "another report has this number")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Bytes of all reports in the directory.
fn size(path: &Path) -> io::Result<u64> {
    let mut sum = 0_u64;
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_name().to_str().is_some_and(|name| name.ends_with(EXTENSION)) {
            // One that has just been moved away counts no more.
            sum = sum.saturating_add(entry.metadata().map_or(0, |metadata| metadata.len()));
        }
    }
    Ok(sum)
}

//! Reading a report and judging it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::Result;
use conclave_protocol::evidence::report::verify::{Findings, Step, verify};
use conclave_protocol::evidence::report::{self, MAX_FILE, Report, Unreadable};
use conclave_protocol::moderator::ModeratorKey;
use conclave_protocol::stamp::StampKeyId;
use conclave_protocol::wire::codec::Wire;
use conclave_protocol::wire::relay::{StampCheck, StampVerdict};

use crate::args::Judging;
use crate::keyfile;
use crate::relay::Asked;
use crate::stampkeys::{Source, StampKeys};

/// A moderator with all that it can check stamps by.
pub(crate) struct Judge {
    pub(crate) key: ModeratorKey,
    stamps: StampKeys,
    asked: Option<Asked>,
}

/// What became of a file.
pub(crate) struct Examined {
    pub(crate) file: PathBuf,
    /// The report and what it proves; else why it cannot be read.
    pub(crate) content: Result<(Report, Findings), Unopened>,
}

/// Why there is nothing to look at.
pub(crate) struct Unopened {
    /// In words.
    pub(crate) why: String,
    /// The step that fails when what was sealed is there, and breaks the format: then it proves nothing.
    pub(crate) step: Option<Step>,
}

impl Judge {
    pub(crate) fn new(options: &Judging) -> Result<Self> {
        let stamps = options.stamp_keys.as_deref().map(StampKeys::read).transpose()?.unwrap_or_default();
        Ok(Self { key: keyfile::read(&options.key)?, stamps, asked: None })
    }

    /// Takes what a relay has said of stamps whose keys are not here.
    pub(crate) fn with_answers(self, asked: Asked) -> Self {
        Self { asked: Some(asked), ..self }
    }

    /// Opens a file and looks at every claim in it.
    pub(crate) fn examine(&self, file: &Path) -> Examined {
        let content = open(file, &self.key).map(|report| {
            let findings = verify(&report, |check| self.check(check));
            (report, findings)
        });
        Examined { file: file.to_owned(), content }
    }

    /// Who made the stamps of a key, if that is known.
    pub(crate) fn source(&self, id: &StampKeyId) -> Option<Source> {
        let by_relay = || self.asked.as_ref().filter(|asked| asked.knows(id)).map(Asked::source);
        self.stamps.source(id).cloned().or_else(by_relay)
    }

    fn check(&self, check: &StampCheck) -> StampVerdict {
        match self.stamps.check(check) {
            StampVerdict::UnknownKey => {
                self.asked.as_ref().map_or(StampVerdict::UnknownKey, |asked| asked.answer(check))
            }
            known => known,
        }
    }

    /// The stamps of these reports that cannot be checked here, each once.
    pub(crate) fn open_questions(&self, files: &[PathBuf]) -> Vec<StampCheck> {
        let mut questions = BTreeMap::new();
        for report in files.iter().filter_map(|file| open(file, &self.key).ok()) {
            verify(&report, |check| {
                let verdict = self.stamps.check(check);
                if verdict == StampVerdict::UnknownKey {
                    questions.insert(check.encode(), *check);
                }
                verdict
            });
        }
        questions.into_values().collect()
    }
}

/// Opens one file.
pub(crate) fn open(file: &Path, key: &ModeratorKey) -> Result<Report, Unopened> {
    let unread = |error: std::io::Error| Unopened { why: format!("cannot read the file: {error}"), step: None };
    let bytes = read(file).map_err(unread)?;
    report::open(&bytes, key).map_err(|error| Unopened {
        why: error.to_string(),
        step: match error {
            Unreadable::BrokenExhibit(step, _) => Some(step),
            _ => None,
        },
    })
}

/// A file, as far as a report can reach; one byte more shows that it is none.
fn read(file: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(file)?.take(MAX_FILE as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

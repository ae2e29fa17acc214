//! Where the results of a report go: beside it or into a directory, and never over what is somebody else's.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::{names, part};

/// Longest record that is read, far above what even a report of single frames with gaps between them comes to.
const MAX_RECORD: u64 = 4 << 20;

/// Places for the results of one run.
pub(crate) struct Places {
    inputs: BTreeSet<PathBuf>,
    taken: BTreeSet<PathBuf>,
}

impl Places {
    /// For a run that reads `inputs`.
    pub(crate) fn new<'a>(inputs: impl IntoIterator<Item = &'a Path>) -> Self {
        Self { inputs: inputs.into_iter().map(resolved).collect(), taken: BTreeSet::new() }
    }

    /// The place for a report's results: that of its own name, else with a number behind. Two of one run never share
    /// it, and nothing lies there that is read in this run or that no earlier run has written.
    pub(crate) fn of(&mut self, report: &Path, out: Option<&Path>) -> Targets {
        let directory = out.or(report.parent()).unwrap_or(Path::new("")).to_owned();
        let stem = names::stem(report);
        let mut targets = Targets { directory, name: stem.clone() };
        let mut number = 1_u32;
        while !self.take(&targets) {
            number += 1;
            targets.name = format!("{stem}-{number}");
        }
        targets
    }

    fn take(&mut self, targets: &Targets) -> bool {
        let files = [targets.wav(), targets.html(), targets.record()];
        let reads =
            |path: &PathBuf| self.inputs.contains(&resolved(path)) || self.inputs.contains(&resolved(&part(path)));
        let place = resolved(&targets.directory).join(&targets.name);
        !files.iter().any(reads) && targets.are_ours() && self.taken.insert(place)
    }
}

/// The files of one report.
pub(crate) struct Targets {
    directory: PathBuf,
    name: String,
}

impl Targets {
    /// Sound.
    pub(crate) fn wav(&self) -> PathBuf {
        self.file("wav")
    }

    /// The page.
    pub(crate) fn html(&self) -> PathBuf {
        self.file("html")
    }

    /// What is printed.
    pub(crate) fn record(&self) -> PathBuf {
        self.file("report.json")
    }

    /// The sound as the page names it.
    pub(crate) fn wav_name(&self) -> String {
        format!("{}.wav", self.name)
    }

    fn file(&self, ending: &str) -> PathBuf {
        self.directory.join(format!("{}.{ending}", self.name))
    }

    /// Whether all that lies there is an earlier run's, by that run's record.
    fn are_ours(&self) -> bool {
        let earlier = Earlier::read(&self.record());
        let names = |file: fn(&Earlier) -> &Option<String>| earlier.as_ref().is_some_and(|it| file(it).is_some());
        (earlier.is_some() || !is_there(&self.record()))
            && (names(|it| &it.wav) || !is_there(&self.wav()))
            && (names(|it| &it.html) || !is_there(&self.html()))
    }
}

/// As much of a record as shows that it is one, and which files were written with it.
#[derive(Deserialize)]
struct Earlier {
    wav: Option<String>,
    html: Option<String>,
    #[serde(rename = "verdict")]
    _verdict: String,
    #[serde(rename = "claims")]
    _claims: IgnoredAny,
}

impl Earlier {
    fn read(path: &Path) -> Option<Self> {
        if !fs::symlink_metadata(path).is_ok_and(|about| about.is_file()) {
            return None;
        }
        let mut text = Vec::new();
        File::open(path).ok()?.take(MAX_RECORD).read_to_end(&mut text).ok()?;
        serde_json::from_slice(&text).ok()
    }
}

fn is_there(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}

/// One name for one file, whatever way leads to it; also for a file that is not there.
fn resolved(path: &Path) -> PathBuf {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    path.canonicalize().unwrap_or_else(|_| match (parent.canonicalize(), path.file_name()) {
        (Ok(parent), Some(name)) => parent.join(name),
        _ => path.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_have_the_reports_name_and_no_two_share_one() {
        let mut places = Places::new([]);
        let mut of =
            |file: &str, out: Option<&str>| places.of(Path::new(file), out.map(Path::new)).wav().display().to_string();
        assert_eq!(of("in/a.report", None), "in/a.wav");
        assert_eq!(of("in/a.conclave-report", None), "in/a-2.wav");
        assert_eq!(of("in/b.bin", None), "in/b.bin.wav");
        assert_eq!(of("in/a.report", Some("out")), "out/a.wav");
        assert_eq!(of("other/a.report", Some("out")), "out/a-2.wav");
        assert_eq!(of(".report", None), ".report.wav");
    }
}

//! `open`: judges reports, and writes record, page and sound of each.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use conclave::audio::said::Sound;
use conclave::private;
use conclave_protocol::evidence::report::opened::Timeline;
use conclave_protocol::evidence::report::verify::{Findings, Verdict};

use crate::args::Open;
use crate::judge::{Examined, Judge};
use crate::page;
use crate::record::Record;
use crate::{Outcome, relay, save, say};

/// Columns of a waveform: as many pixels as the page is wide.
const COLUMNS: usize = 800;

pub(crate) fn run(options: &Open) -> Result<Outcome> {
    let mut judge = Judge::new(&options.judging)?;
    if let Some(address) = &options.relay.relay {
        let questions = judge.open_questions(&options.reports);
        let asked = relay::ask(address, options.relay.pin, &judge.key, &questions)?;
        judge = judge.with_answers(asked);
    }
    if let Some(out) = &options.out {
        private::make_directory(out)?;
    }
    let mut taken = BTreeSet::new();
    let mut outcome = Outcome::Good;
    for file in &options.reports {
        let examined = judge.examine(file);
        let targets = Targets::of(file, options.out.as_deref(), &mut taken);
        let record = write(&examined, &judge, &targets)?;
        say(&serde_json::to_string(&record)?)?;
        if record.verdict != Verdict::Valid.as_str() {
            outcome = Outcome::NotAll;
        }
    }
    Ok(outcome)
}

/// Where the results of one report go.
struct Targets {
    directory: PathBuf,
    name: String,
}

impl Targets {
    /// NAME is the file's without `.report`. Two reports of one run never share it.
    fn of(file: &Path, out: Option<&Path>, taken: &mut BTreeSet<PathBuf>) -> Self {
        let beside = file.parent().unwrap_or(Path::new(""));
        let directory = out.unwrap_or(beside).to_owned();
        let whole = file.file_name().map_or_else(|| "report".to_owned(), |name| name.to_string_lossy().into_owned());
        let name = whole.strip_suffix(".report").filter(|name| !name.is_empty()).unwrap_or(&whole).to_owned();
        let nth = |n: usize| if n == 1 { name.clone() } else { format!("{name}-{n}") };
        let free = (1..).map(nth).find(|name| taken.insert(directory.join(name)));
        Self { name: free.unwrap_or(name), directory }
    }

    fn file(&self, ending: &str) -> (PathBuf, String) {
        let name = format!("{}.{ending}", self.name);
        (self.directory.join(&name), name)
    }
}

/// Writes all there is about one report. Whatever lay there of an earlier run, and is no more, is taken away.
fn write(examined: &Examined, judge: &Judge, targets: &Targets) -> Result<Record> {
    let mut record = Record::of(examined, judge);
    let (wav, wav_name) = targets.file("wav");
    let (html, _) = targets.file("html");
    let sound = match &examined.content {
        Ok((report, findings)) => sound(findings, report.exhibit.descriptor.frame_ms)?,
        Err(_) => None,
    };
    match &sound {
        Some(sound) => {
            save(&wav, &sound.wav()?)?;
            record.wav = Some(wav.display().to_string());
        }
        None => remove(&wav)?,
    }
    if examined.content.is_ok() {
        let peaks = sound.as_ref().map(|sound| sound.peaks(COLUMNS));
        let undecodable = sound.as_ref().map_or(0, |sound| sound.undecodable);
        let source = sound.as_ref().map(|_| wav_name.as_str());
        let page = page::html(&record, &page::Sight { peaks: peaks.as_deref(), undecodable, wav: source });
        save(&html, page.as_bytes())?;
        record.html = Some(html.display().to_string());
    } else {
        remove(&html)?;
    }
    save(&targets.file("report.json").0, serde_json::to_string_pretty(&record)?.as_bytes())?;
    Ok(record)
}

/// The sound of what is proved; none of an invalid report.
fn sound(findings: &Findings, frame_ms: u8) -> Result<Option<Sound>> {
    match findings.verdict {
        Verdict::Invalid(_) => Ok(None),
        Verdict::Valid | Verdict::Unstamped => Sound::of(&Timeline::of(&findings.said, frame_ms)).map(Some),
    }
}

fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_have_the_reports_name_and_no_two_share_one() {
        let mut taken = BTreeSet::new();
        let mut of = |file: &str, out: Option<&str>| {
            let targets = Targets::of(Path::new(file), out.map(Path::new), &mut taken);
            targets.file("wav").0.display().to_string()
        };
        assert_eq!(of("in/a.report", None), "in/a.wav");
        assert_eq!(of("in/b.bin", None), "in/b.bin.wav");
        assert_eq!(of("in/a.report", Some("out")), "out/a.wav");
        assert_eq!(of("other/a.report", Some("out")), "out/a-2.wav");
        assert_eq!(of(".report", None), ".report.wav");
    }
}

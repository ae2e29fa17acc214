//! `open`: judges reports, and writes record, page and sound of each.

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
use crate::targets::{Places, Targets};
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
    let inputs = options.reports.iter().chain([&options.judging.key]);
    let mut places = Places::new(inputs.map(PathBuf::as_path));
    let mut outcome = Outcome::Good;
    for file in &options.reports {
        let examined = judge.examine(file);
        let targets = places.of(file, options.out.as_deref());
        let record = write(&examined, &judge, &targets)?;
        say(&serde_json::to_string(&record)?)?;
        if record.verdict != Verdict::Valid.as_str() {
            outcome = Outcome::NotAll;
        }
    }
    Ok(outcome)
}

/// Writes all there is about one report. What an earlier run left there, and is no more, is taken away.
fn write(examined: &Examined, judge: &Judge, targets: &Targets) -> Result<Record> {
    let mut record = Record::of(examined, judge);
    let (wav, wav_name, html) = (targets.wav(), targets.wav_name(), targets.html());
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
    save(&targets.record(), serde_json::to_string_pretty(&record)?.as_bytes())?;
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

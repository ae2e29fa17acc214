//! `stamp-check`: asks a relay whether it made the stamps in reports.

use anyhow::Result;
use conclave_protocol::evidence::report::verify::{Verdict, verify};
use conclave_protocol::wire::codec::Wire;
use conclave_protocol::wire::relay::StampVerdict;
use data_encoding::HEXLOWER;
use serde_json::json;

use crate::args::StampCheck;
use crate::{Outcome, judge, keyfile, relay, say, time};

pub(crate) fn run(options: &StampCheck) -> Result<Outcome> {
    let key = keyfile::read(&options.key)?;
    let mut outcome = Outcome::Good;
    for file in &options.reports {
        let shown = file.display().to_string();
        let report = match judge::open(file, &key) {
            Ok(report) => report,
            Err(unopened) => {
                let verdict = unopened.step.map_or("unreadable", |step| Verdict::Invalid(step).as_str());
                say(&json!({ "file": shown, "verdict": verdict, "error": unopened.why }).to_string())?;
                outcome = Outcome::NotAll;
                continue;
            }
        };
        let mut questions = Vec::new();
        let verdict = verify(&report, |check| {
            questions.push(*check);
            StampVerdict::UnknownKey
        })
        .verdict;
        let asked = relay::ask(&options.relay, options.pin, &key, &questions)?;
        let stamps: Vec<_> = questions
            .iter()
            .map(|check| {
                let answer = asked.answer(check);
                json!({
                    "key": HEXLOWER.encode(&check.stamp.key.0),
                    "minute": time::minute(time::begin(check.stamp.minute)),
                    "seal": HEXLOWER.encode(&check.public.encode()),
                    "verdict": word(answer),
                })
            })
            .collect();
        let missing = report.exhibit.segments.len() - questions.len().min(report.exhibit.segments.len());
        let is_good = missing == 0 && questions.iter().all(|check| asked.answer(check) == StampVerdict::Genuine);
        if !is_good {
            outcome = Outcome::NotAll;
        }
        let failed = verdict.failed_step().map(conclave_protocol::evidence::report::verify::Step::as_str);
        say(&json!({ "file": shown, "failed_step": failed, "stamps": stamps, "without_stamp": missing }).to_string())?;
    }
    Ok(outcome)
}

fn word(verdict: StampVerdict) -> &'static str {
    match verdict {
        StampVerdict::Genuine => "genuine",
        StampVerdict::Forged => "forged",
        StampVerdict::UnknownKey => "unknown_key",
    }
}

//! `ban`: a signed statement that an identity is to be kept out.

use std::path::Path;

use anyhow::{Context, Result, bail};
use conclave_protocol::evidence::ban::{self, Terms};
use conclave_protocol::evidence::category::Category;
use conclave_protocol::evidence::number::IdentityNumber;
use conclave_protocol::evidence::report::verify::Verdict;
use conclave_protocol::identity::IdentityKind;
use conclave_protocol::sign::PublicKey;
use data_encoding::HEXLOWER_PERMISSIVE;
use serde_json::json;

use crate::args::Ban;
use crate::judge::Judge;
use crate::{Outcome, save, say, time};

pub(crate) fn run(options: &Ban) -> Result<Outcome> {
    let judge = Judge::new(&options.judging)?;
    let (identity, reported) = match identity_of(&options.whom) {
        Some(identity) => (identity, None),
        None => reported(&judge, options)?,
    };
    let category = options.category.or(reported).unwrap_or(Category::Other);
    let until = options.until.map(|until| until.0);
    let issued = time::now();
    if until.is_some_and(|until| until < issued) {
        bail!("--until: that day is over");
    }
    let statement = Terms { identity, issued, category, until }.sign(&judge.key);
    add(&options.out, &statement.to_line())?;
    say(&json!({
        "identity": HEXLOWER_PERMISSIVE.encode(&identity.0),
        "safety_number": IdentityNumber::of(&identity).as_str(),
        "category": category.as_str(),
        "until": until.map(time::date),
        "file": options.out.display().to_string(),
    })
    .to_string())?;
    Ok(Outcome::Good)
}

fn identity_of(text: &str) -> Option<PublicKey> {
    let bytes = HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok()?;
    bytes.try_into().ok().map(PublicKey)
}

/// Whom a report accuses, once it is proved.
fn reported(judge: &Judge, options: &Ban) -> Result<(PublicKey, Option<Category>)> {
    let examined = judge.examine(Path::new(&options.whom));
    let (report, findings) = match examined.content {
        Ok(content) => content,
        Err(unopened) => bail!("{}: {}", options.whom, unopened.why),
    };
    match findings.verdict {
        Verdict::Valid => {}
        Verdict::Unstamped if options.unstamped => {}
        Verdict::Unstamped => {
            bail!("the report is unstamped: give the relay's --stamp-keys, or --unstamped to ban nevertheless")
        }
        Verdict::Invalid(step) => bail!("the report is invalid at the step {step}: nobody is banned for it"),
    }
    let cert = &report.exhibit.accused.cert;
    if cert.kind == IdentityKind::Guest {
        bail!("the accused's identity was made for that meeting alone: a ban would not find anybody");
    }
    Ok((cert.identity, Some(report.category)))
}

/// Adds a line to a file of ban statements, or begins one.
fn add(path: &Path, line: &str) -> Result<()> {
    let shown = path.display();
    let mut text = match std::fs::read_to_string(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        read => read.with_context(|| format!("cannot read {shown}"))?,
    };
    ban::parse(&text).with_context(|| format!("{shown} is no file of ban statements"))?;
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    text.push_str(line);
    ban::parse(&text).with_context(|| format!("cannot add to {shown}"))?;
    save(path, text.as_bytes())
}

//! Results as tables on a terminal.

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};

use crate::args::Scale;
use crate::compare::Row;
use crate::result::{Percentiles, Report};
use crate::search::{Found, Step, Verdict};

const MIB: f64 = 1024.0 * 1024.0;

fn table<const N: usize>(header: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(header);
    table.column_iter_mut().skip(1).for_each(|column| column.set_cell_alignment(CellAlignment::Right));
    table
}

/// A run's result.
pub(crate) fn of_report(report: &Report) -> String {
    let mut times = table(["ms", "p50", "p90", "p99", "p99.9", "max"]);
    let rows = [
        ("latency, one way", report.latency_ms),
        ("join", report.join_ms),
        ("join: the relay's answer", report.join_relay_ms),
        ("removal", report.removal_ms),
        ("recovery", report.recovery_ms),
    ];
    for (name, percentiles) in rows {
        if let Some(percentiles) = percentiles {
            times.add_row(row_of(name, &percentiles));
        }
    }
    let mut figures = table(["", "value"]);
    for (name, value) in figures_of(report) {
        figures.add_row([name.to_owned(), value]);
    }
    let mut text = format!("{times}\n{figures}\n");
    for (what, number) in &report.troubles {
        text.push_str(&format!("{number} × {what}\n"));
    }
    for why in &report.invalid_because {
        text.push_str(&format!("NOT VALID: {why}\n"));
    }
    text
}

fn row_of(name: &str, p: &Percentiles) -> [String; 6] {
    let ms = |value: f64| format!("{value:.2}");
    [name.to_owned(), ms(p.p50), ms(p.p90), ms(p.p99), ms(p.p999), ms(p.max)]
}

/// The figures of a run that are no times, with their names.
pub(crate) fn figures_of(report: &Report) -> Vec<(&'static str, String)> {
    let (shape, relay, harness, frames) = (report.plan.shape, &report.relay, &report.harness, report.frames);
    let load = format!("{} × {} people, {} talk, {} s", shape.rooms, shape.people, shape.talkers, report.plan.seconds);
    let mut all = vec![
        ("load", load),
        ("frames received", format!("{} of {}", frames.received, frames.owed)),
        ("loss", percent(Some(report.loss), 4)),
        ("loss of the worst listener", percent(report.listener_loss.map(|spread| spread.max), 4)),
        ("reordered", frames.reordered.to_string()),
        ("relay: CPU", number(relay.cpu_s, 2, " s")),
        ("relay: waiting for a core", number(relay.waiting_s, 2, " s")),
        ("relay: frames per CPU-second", number(relay.frames_per_cpu_s, 0, "")),
        ("relay: CPU per million frames", number(relay.cpu_s_per_million, 2, " s")),
        ("relay: packets per frame", number(relay.packets_per_frame, 3, "")),
        ("relay: resident", number(relay.rss_bytes.map(|bytes| bytes as f64 / MIB), 1, " MiB")),
        (
            "relay: resident per member",
            number(relay.rss_per_member_bytes.map(|bytes| bytes as f64 / 1024.0), 1, " KiB"),
        ),
        (
            "harness: shard, hosts, guests, pacer",
            shares([harness.shard_cpu, harness.leading_cpu, harness.guests_cpu, harness.pacer_cpu]),
        ),
        (
            "harness: with a core or waiting",
            shares([harness.shard_awake, harness.leading_awake, harness.guests_awake, harness.pacer_awake]),
        ),
    ];
    if let Some(idle) = report.machine.idle {
        let stolen = percent(report.machine.stolen, 1);
        all.push(("machine: idle, taken by its host", format!("{}, {stolen}", percent(Some(idle), 0))));
    }
    if report.frames.dropped_on_purpose > 0 {
        all.push(("dropped on purpose", report.frames.dropped_on_purpose.to_string()));
    }
    let flood = report.flood.iter().map(|(what, times)| format!("{times} {what}"));
    let flood: Vec<_> = flood.collect();
    if !flood.is_empty() {
        all.push(("flood", flood.join(", ")));
    }
    all
}

fn shares(all: [Option<f64>; 4]) -> String {
    all.map(|share| percent(share, 0)).join(", ")
}

/// Two results.
pub(crate) fn of_comparison(rows: &[Row]) -> String {
    let mut table = table(["", "A", "B", "B / A", ""]);
    for row in rows {
        let word = match row.is_better() {
            Some(true) => "better",
            Some(false) => "worse",
            None => "",
        };
        let figure = |value: Option<f64>| number(value, 3, "");
        table.add_row([row.name.to_owned(), figure(row.a), figure(row.b), number(row.ratio(), 2, ""), word.to_owned()]);
    }
    table.to_string()
}

/// A search.
pub(crate) fn of_search(found: &Found) -> String {
    let mut table = table(["size", "frames/s", "p99 ms", "loss", "relay CPU", "verdict"]);
    for step in &found.steps {
        table.add_row(row_of_step(step));
    }
    let why = match found.end() {
        Some(Verdict::Disturbed) => "was too disturbed to say more",
        _ => "could not put more on it",
    };
    let most = match (found.best, found.relay_was_the_limit) {
        (None, true) => "Not even the smallest load was carried.".to_owned(),
        (None, false) => format!("Nothing is known of the relay: this machine {why}."),
        (Some(best), true) => format!("The relay carries {best} {}.", words(found.scale)),
        (Some(best), false) => {
            format!("The relay carries at least {best} {}; this machine {why}.", words(found.scale))
        }
    };
    let errors = found.steps.iter().filter_map(|step| Some(format!("{}: {}\n", step.size, step.error.as_ref()?)));
    format!("{table}\n{}{most}", errors.collect::<String>())
}

/// A step of a search that goes on.
pub(crate) fn in_a_line(step: &Step, scale: Scale) -> String {
    let [size, _, p99, loss, cpu, verdict] = row_of_step(step);
    let why = match (&step.error, step.report.as_deref()) {
        (Some(error), _) => format!(": {error}"),
        (None, Some(report)) => report.invalid_because.iter().map(|why| format!("\n  {why}")).collect(),
        (None, None) => String::new(),
    };
    format!("{size} {}: p99 {p99} ms, loss {loss}, relay {cpu} of a core: {verdict}{why}", words(scale))
}

fn words(scale: Scale) -> &'static str {
    match scale {
        Scale::Rooms => "meetings",
        Scale::People => "people in each meeting",
    }
}

fn row_of_step(step: &Step) -> [String; 6] {
    let report = step.report.as_deref();
    let verdict = match step.verdict {
        Verdict::Carried => "carried",
        Verdict::TooMuch => "too much",
        Verdict::Disturbed => "machine disturbed",
        Verdict::Unknown => "harness saturated, or nobody got in",
    };
    let cpu = report.and_then(|report| Some(report.relay.cpu_s? / f64::from(report.plan.seconds)));
    [
        step.size.to_string(),
        step.frames_per_second.to_string(),
        number(report.and_then(|report| report.latency_ms).map(|latency| latency.p99), 2, ""),
        percent(report.map(|report| report.loss), 4),
        percent(cpu, 0),
        verdict.to_owned(),
    ]
}

fn percent(share: Option<f64>, digits: usize) -> String {
    number(share.map(|share| share * 100.0), digits, " %")
}

/// A number of so many digits behind the point, or a dash.
pub(crate) fn number(value: Option<f64>, digits: usize, unit: &str) -> String {
    value.map_or_else(|| "–".to_owned(), |value| format!("{value:.digits$}{unit}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::tests::report;

    #[test]
    fn a_result_that_is_not_valid_says_why() {
        let mut run = report();
        run.invalid_because.push("the harness is saturated".to_owned());
        assert!(of_report(&run).contains("NOT VALID: the harness is saturated"));
        assert!(!of_report(&report()).contains("NOT VALID"));
    }

    #[test]
    fn a_step_says_how_it_went_and_why() {
        let mut run = report();
        run.invalid_because.push("late".to_owned());
        let (report, error) = (Some(Box::new(run)), None);
        let mut step = Step { size: 4, frames_per_second: 9, verdict: Verdict::Disturbed, report, error };
        let said = "4 meetings: p99 1.50 ms, loss 0.0000 %, relay 5 % of a core: machine disturbed\n  late";
        assert_eq!(in_a_line(&step, Scale::Rooms), said);
        (step.report, step.error) = (None, Some("nobody got in".to_owned()));
        assert!(in_a_line(&step, Scale::People).ends_with(": nobody got in"));
    }

    #[test]
    fn what_could_not_be_measured_is_a_dash_and_no_zero() {
        assert_eq!(number(None, 2, " s"), "–");
        assert_eq!(number(Some(0.0), 2, " s"), "0.00 s");
    }
}

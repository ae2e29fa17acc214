//! A result as a page that needs nothing else: no script, no file, no network.

use std::fmt::Write;

use crate::charts::{Line, chart};
use crate::result::{Percentiles, Report, Second};
use crate::table::{figures_of, number};

const STYLE: &str = "\
:root{color-scheme:light dark;--bg:#fcfcfd;--fg:#1b1f24;--dim:#667080;--rule:#dfe3e8;--card:#fff;\
--c0:#2a6fdb;--c1:#12967a;--c2:#d9822b;--c3:#b93a4a;--bad:#b3261e;--good:#12764a}\
@media(prefers-color-scheme:dark){:root{--bg:#14171b;--fg:#e4e8ee;--dim:#95a0af;--rule:#2c323a;--card:#1b1f25;\
--c0:#6ea8ff;--c1:#4fd1b0;--c2:#f0a95c;--c3:#f07f8c;--bad:#ff8a80;--good:#5fd39a}}\
*{box-sizing:border-box}body{margin:0;background:var(--bg);color:var(--fg);font:15px/1.5 system-ui,sans-serif}\
main{max-width:60rem;margin:0 auto;padding:2rem 1rem 4rem}h1{font-size:1.5rem;margin:0 0 .25rem}\
h2{font-size:1.05rem;margin:2rem 0 .5rem}.dim,small{color:var(--dim)}\
.verdict{font-weight:600}.bad{color:var(--bad)}.good{color:var(--good)}\
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(9.5rem,1fr));gap:.75rem;margin:1.25rem 0}\
.tile,figure{background:var(--card);border:1px solid var(--rule);border-radius:.5rem;padding:.75rem 1rem;margin:0}\
.tile b{display:block;font-size:1.35rem;font-variant-numeric:tabular-nums}figure{margin-bottom:1rem}\
figcaption{font-weight:600;margin-bottom:.25rem}.legend{float:right;font-weight:400}\
.key{margin-left:1rem}.key::before{content:\"\";display:inline-block;width:.75em;height:.2em;margin-right:.4em;\
vertical-align:middle;background:currentColor}.k0{color:var(--c0)}.k1{color:var(--c1)}.k2{color:var(--c2)}\
.k3{color:var(--c3)}svg{width:100%;height:auto;display:block}.grid{stroke:var(--rule)}\
text{fill:var(--dim);font-size:11px;font-variant-numeric:tabular-nums}.y{text-anchor:end}.x{text-anchor:middle}\
path{fill:none;stroke-width:1.75;stroke-linejoin:round}.l0{stroke:var(--c0)}.l1{stroke:var(--c1)}\
.l2{stroke:var(--c2)}.l3{stroke:var(--c3)}.p0{fill:var(--c0)}.p1{fill:var(--c1)}.p2{fill:var(--c2)}.p3{fill:var(--c3)}\
.wide{overflow-x:auto}table{border-collapse:collapse;width:100%}th,td{padding:.3rem .6rem;border-bottom:1px solid \
var(--rule);text-align:right;font-variant-numeric:tabular-nums}th:first-child,td:first-child{text-align:left}";

const MIB: f64 = 1024.0 * 1024.0;

/// The page.
pub(crate) fn page(report: &Report) -> String {
    let shape = report.plan.shape;
    let title = format!("{} × {} people, {} talking", shape.rooms, shape.people, shape.talkers);
    let mut html = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width,initial-scale=1\"><title>conclave-load: {title}</title><style>{STYLE}</style><main>"
    );
    let _ = write!(html, "<h1>{title}</h1><p class=\"dim\">{}</p>", escape(&where_it_ran(report)));
    html.push_str(&verdict(report));
    html.push_str(&tiles(report));
    html.push_str(&charts(&report.series));
    html.push_str(&times(report));
    html.push_str(&figures(report));
    html.push_str("</main></html>\n");
    html
}

fn where_it_ran(report: &Report) -> String {
    let machine = &report.machine;
    let processor = machine.processor.as_deref().unwrap_or("unknown processor");
    let kernel = machine.kernel.as_deref().unwrap_or("unknown");
    let build = if machine.debug_build { ", built without optimisation" } else { "" };
    format!(
        "relay {}, {} s measured, {} cores of {processor}, kernel {kernel}, conclave-load {}{build}",
        machine.relay, report.plan.seconds, machine.cores, machine.version
    )
}

fn verdict(report: &Report) -> String {
    if report.valid {
        return "<p class=\"verdict good\">The result is valid: the harness was a match for the load.</p>".to_owned();
    }
    let why: String = report.invalid_because.iter().map(|why| format!("<li>{}</li>", escape(why))).collect();
    format!("<p class=\"verdict bad\">The result is not valid.</p><ul>{why}</ul>")
}

fn tiles(report: &Report) -> String {
    let latency = |which: fn(&Percentiles) -> f64| number(report.latency_ms.as_ref().map(which), 2, " ms");
    let tiles = [
        ("latency p50", latency(|p| p.p50)),
        ("latency p99", latency(|p| p.p99)),
        ("loss", number(Some(report.loss * 100.0), 3, " %")),
        ("frames per CPU-second", number(report.relay.frames_per_cpu_s, 0, "")),
        ("packets per frame", number(report.relay.packets_per_frame, 2, "")),
        ("memory per member", number(report.relay.rss_per_member_bytes.map(|b| b as f64 / 1024.0), 1, " KiB")),
    ];
    let tiles =
        tiles.iter().map(|(name, value)| format!("<div class=\"tile\"><small>{name}</small><b>{value}</b></div>"));
    format!("<div class=\"tiles\">{}</div>", tiles.collect::<String>())
}

fn charts(series: &[Second]) -> String {
    let line = |name, value: &dyn Fn(&Second) -> Option<f64>| Line { name, values: series.iter().map(value).collect() };
    let latency = |which: fn(&Percentiles) -> f64| move |second: &Second| second.latency_ms.as_ref().map(which);
    let lines = [
        line("p50", &latency(|p| p.p50)),
        line("p90", &latency(|p| p.p90)),
        line("p99", &latency(|p| p.p99)),
        line("p99.9", &latency(|p| p.p999)),
    ];
    [
        chart("Latency, one way", "ms", &lines),
        chart("Loss", "% of the frames owed", &[line("loss", &|second| second.loss.map(|loss| loss * 100.0))]),
        chart("Relay: processor", "% of a core", &[line("relay", &|second| second.relay_cpu.map(|cpu| cpu * 100.0))]),
        chart("Relay: memory", "MiB resident", &[line("relay", &|second| second.rss_bytes.map(|b| b as f64 / MIB))]),
        chart("Packets per frame", "UDP packets", &[line("packets", &|second| second.packets_per_frame)]),
    ]
    .concat()
}

fn times(report: &Report) -> String {
    let rows = [
        ("Latency, one way", report.latency_ms),
        ("Join", report.join_ms),
        ("Join: the relay's answer", report.join_relay_ms),
        ("Removal", report.removal_ms),
        ("Recovery", report.recovery_ms),
        ("Harness: frames sent late", report.harness.pacer_lag_ms),
        ("Harness: read late", report.harness.shard_lag_ms),
    ];
    let mut html = "<h2>Times in ms</h2><div class=\"wide\"><table><tr><th></th><th>p50</th><th>p90</th><th>p99</th>\
                    <th>p99.9</th><th>max</th></tr>"
        .to_owned();
    for (name, percentiles) in rows {
        let Some(p) = percentiles else { continue };
        let _ = write!(
            html,
            "<tr><td>{name}</td><td>{:.2}</td><td>{:.2}</td><td>{:.2}</td><td>{:.2}</td><td>{:.2}</td></tr>",
            p.p50, p.p90, p.p99, p.p999, p.max
        );
    }
    html.push_str("</table></div>");
    html
}

fn figures(report: &Report) -> String {
    let mut html = "<h2>Figures</h2><div class=\"wide\"><table>".to_owned();
    for (name, value) in figures_of(report) {
        let _ = write!(html, "<tr><td>{name}</td><td>{}</td></tr>", escape(&value));
    }
    for (what, times) in &report.troubles {
        let _ = write!(html, "<tr><td class=\"bad\">{}</td><td>{times} ×</td></tr>", escape(what));
    }
    html.push_str("</table></div>");
    html
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::tests::report;

    #[test]
    fn a_page_needs_nothing_else_and_holds_nothing_that_runs() {
        let mut run = report();
        run.troubles.insert("<script>alert(1)</script>".to_owned(), 1);
        let html = page(&run);
        for absent in ["<script", "http://", "https://", "src=", "@import", "url("] {
            assert!(!html.contains(absent), "{absent}");
        }
        assert_eq!(html.matches("<svg").count(), html.matches("</svg>").count());
        assert!(html.contains("Latency, one way") && html.contains("prefers-color-scheme:dark"));
    }

    #[test]
    fn a_result_that_is_not_valid_is_marked() {
        let mut run = report();
        (run.valid, run.invalid_because) = (false, vec!["late & slow".to_owned()]);
        assert!(page(&run).contains("not valid") && page(&run).contains("late &amp; slow"));
    }
}

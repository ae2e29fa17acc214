//! The page that a person reads: who, what, what is proved, and the sound with its gaps. One file with the WAV beside
//! it; it loads nothing else, and everything that comes from a report is escaped.

use std::fmt::Write as _;

use conclave_protocol::evidence::report::verify::Step;
use data_encoding::HEXLOWER;

use crate::record::{Record, SegmentRecord};

/// What the record does not hold.
pub(crate) struct Sight<'a> {
    /// The waveform, 0 to 1, in equal steps of time.
    pub(crate) peaks: Option<&'a [f32]>,
    /// Frames without sound in them.
    pub(crate) undecodable: u32,
    /// Name of the WAV beside the page.
    pub(crate) wav: Option<&'a str>,
}

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:840px;margin:2em auto;padding:0 1em}\
h1{font-size:1.4em}table{border-collapse:collapse;width:100%}td,th{text-align:left;vertical-align:top;\
padding:.25em .75em .25em 0;border-bottom:1px solid #ddd}.valid,.holds{color:#060}.invalid,.fails{color:#a00}\
.unstamped,.unknown{color:#850}.not_reached{color:#777}.note{white-space:pre-wrap;border-left:3px solid #ccc;\
padding-left:1em}svg{width:100%;height:auto;background:#f6f6f6}code{word-break:break-all}";

/// Width and heights of the pictures.
const WIDTH: f64 = 800.0;
const WAVE: f64 = 120.0;
const LINE: f64 = 40.0;

/// The page.
pub(crate) fn html(record: &Record, sight: &Sight<'_>) -> String {
    let mut page = String::from("<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">");
    page.push_str(
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; \
         media-src 'self' file:\"><meta name=\"referrer\" content=\"no-referrer\"><title>Report</title>",
    );
    let _ = write!(page, "<style>{STYLE}</style></head><body>");
    head(&mut page, record);
    if let (Some(peaks), Some(wav)) = (sight.peaks, sight.wav) {
        sound(&mut page, record, sight, peaks, wav);
    }
    claims(&mut page, record);
    details(&mut page, record);
    page.push_str("</body></html>\n");
    page
}

fn head(page: &mut String, record: &Record) {
    let _ = write!(page, "<h1>Report: <span class=\"{0}\">{0}</span></h1>", record.verdict);
    let _ = write!(page, "<p>{}</p>", escape(&meaning(record)));
    page.push_str("<table>");
    if let Some(accused) = &record.accused {
        let said = if record.verdict == "invalid" { "Accused, as the report claims" } else { "Accused" };
        row(page, said, &format!("<bdi>{}</bdi> ({})", escape(&accused.name), accused.role));
        row(page, "Safety number", &format!("<code>{}</code>", escape(&accused.safety_number)));
        let kind = match accused.kind {
            "kept" => "kept from meeting to meeting",
            _ => "made for this meeting alone: a ban will not find this person again",
        };
        row(page, "Identity", &format!("<code>{}</code>, {kind}", escape(&accused.identity)));
    }
    row(page, "Category", record.category.unwrap_or(""));
    row(
        page,
        "Note",
        &format!("<div class=\"note\" dir=\"auto\">{}</div>", escape(record.note.as_deref().unwrap_or(""))),
    );
    row(page, "Reporter", &reporter(record));
    row(page, "Said", &escape(&when(record)));
    row(page, "Reported", &format!("{} by the reporter's clock", escape(record.created.as_deref().unwrap_or(""))));
    page.push_str("</table>");
}

fn meaning(record: &Record) -> String {
    match (record.verdict, record.failed_step) {
        ("valid", _) => {
            "The accused said this in this meeting, in the minutes that the relay's stamps name.".to_owned()
        }
        ("unstamped", _) => "Everything fits, but no stamp that can be checked here says when a relay saw all of it. \
                             Once a meeting is over, those who were in it could make such a report without the accused."
            .to_owned(),
        (_, Some(step)) => format!("This report proves nothing: it fails at the step {step}."),
        _ => String::new(),
    }
}

fn reporter(record: &Record) -> String {
    match &record.reporter {
        None => "not named".to_owned(),
        Some(reporter) => {
            let proved = if reporter.proved { "has signed this report" } else { "<b>has not signed this report</b>" };
            format!("<bdi>{}</bdi> <code>{}</code>, {proved}", escape(&reporter.name), escape(&reporter.safety_number))
        }
    }
}

fn when(record: &Record) -> String {
    match &record.stamped {
        None => "not known: no stamp could be checked".to_owned(),
        Some([first, last]) if first == last => format!("in the minute of {first}, by the relay's clock"),
        Some([first, last]) => format!("{first} to {last}, by the relay's clock"),
    }
}

fn sound(page: &mut String, record: &Record, sight: &Sight<'_>, peaks: &[f32], wav: &str) {
    let seconds = record.segments.last().map_or(0.0, |segment| segment.to).max(0.001);
    let _ = write!(page, "<h2>What was said</h2><audio controls preload=\"none\" src=\"{}\"></audio>", url(wav));
    wave(page, peaks, record, seconds);
    timeline(page, record, seconds);
    let missing = record.frames.as_ref().map_or(0, |frames| frames.missing);
    let gaps = record.frames.as_ref().map_or(0, |frames| frames.gaps.len());
    let _ = write!(
        page,
        "<p>{:.2} s of sound in {} sealed segments over {seconds:.2} s. {missing} frames in {gaps} gaps are not there: \
         lost on the way, left out by the reporter, or not sent. Gaps (striped) are silent in the sound; nothing is \
         filled in.</p>",
        record.seconds.unwrap_or(0.0),
        record.segments.len(),
    );
    if sight.undecodable > 0 {
        let _ = write!(page, "<p>{} frames hold no sound that can be decoded.</p>", sight.undecodable);
    }
    if record.frames.as_ref().is_some_and(|frames| !frames.clock_breaks.is_empty()) {
        page.push_str("<p>The accused's own clock jumps: how long some of the pauses were is not known.</p>");
    }
}

const STRIPES: &str = "<defs><pattern id=\"gap\" width=\"6\" height=\"6\" patternUnits=\"userSpaceOnUse\" \
patternTransform=\"rotate(45)\"><rect width=\"3\" height=\"6\" fill=\"#d99\"/></pattern></defs>";

fn wave(page: &mut String, peaks: &[f32], record: &Record, seconds: f64) {
    let _ = write!(page, "<svg viewBox=\"0 0 {WIDTH} {WAVE}\" role=\"img\" aria-label=\"waveform\">{STRIPES}");
    gaps(page, record, seconds, WAVE);
    page.push_str("<path stroke=\"#246\" d=\"");
    for (column, peak) in peaks.iter().enumerate() {
        let x = (column as f64 + 0.5) * WIDTH / peaks.len() as f64;
        let reach = f64::from(*peak).clamp(0.004, 1.0) * (WAVE / 2.0 - 2.0);
        let _ = write!(page, "M{x:.1} {:.1}V{:.1}", WAVE / 2.0 - reach, WAVE / 2.0 + reach);
    }
    page.push_str("\"/></svg>");
}

fn gaps(page: &mut String, record: &Record, seconds: f64, height: f64) {
    for [from, to] in record.frames.iter().flat_map(|frames| &frames.gaps) {
        let (x, width) = (from / seconds * WIDTH, (to - from) / seconds * WIDTH);
        let _ = write!(
            page,
            "<rect x=\"{x:.1}\" y=\"0\" width=\"{width:.1}\" height=\"{height}\" fill=\"url(#gap)\">\
             <title>{from:.2} s to {to:.2} s: nothing there</title></rect>"
        );
    }
}

fn timeline(page: &mut String, record: &Record, seconds: f64) {
    let _ = write!(page, "<svg viewBox=\"0 0 {WIDTH} {LINE}\" role=\"img\" aria-label=\"sealed segments\">");
    for segment in &record.segments {
        let (x, width) = (segment.from / seconds * WIDTH, (segment.to - segment.from) / seconds * WIDTH);
        let fill = if segment.minute.is_some() { "#8b8" } else { "#cc8" };
        let _ = write!(
            page,
            "<rect x=\"{x:.1}\" y=\"6\" width=\"{:.1}\" height=\"20\" fill=\"{fill}\" stroke=\"#fff\">\
             <title>{}</title></rect>",
            width.max(1.0),
            escape(&segment_title(segment))
        );
    }
    let _ = write!(
        page,
        "<text x=\"0\" y=\"38\" font-size=\"10\">0 s</text><text x=\"{WIDTH}\" y=\"38\" font-size=\"10\" \
         text-anchor=\"end\">{seconds:.2} s</text></svg>"
    );
}

fn segment_title(segment: &SegmentRecord) -> String {
    let stamp = segment.minute.as_ref().map_or("no stamp".to_owned(), |minute| format!("stamp of {minute}"));
    format!(
        "epoch {}, segment {}: {} of {} frames, {stamp}",
        segment.epoch, segment.segment, segment.frames, segment.sent
    )
}

fn claims(page: &mut String, record: &Record) {
    page.push_str("<h2>What was checked</h2><table><tr><th>Step</th><th>Claim</th><th>Result</th></tr>");
    for step in Step::ALL {
        let result = record.claims.get(step.as_str()).copied().unwrap_or("not_reached");
        let shown = result.replace('_', " ");
        let _ = write!(
            page,
            "<tr><td>{}</td><td>{}</td><td class=\"{result}\">{shown}</td></tr>",
            step.as_str(),
            escape(step.claim())
        );
    }
    page.push_str("</table>");
}

fn details(page: &mut String, record: &Record) {
    page.push_str("<h2>Details</h2><table>");
    row(page, "File", &format!("<code>{}</code>", escape(&record.file)));
    row(page, "Meeting", &format!("<code>{}</code>", escape(record.meeting.as_deref().unwrap_or(""))));
    for key in &record.stamp_keys {
        let relay = key.relay.as_deref().unwrap_or("a relay that is not known here");
        let day = key.day.as_deref().map(|day| format!(", key of {day}")).unwrap_or_default();
        let text = format!(
            "<code>{}</code>: {} of {}{}",
            escape(&key.id),
            key.verdict.replace('_', " "),
            escape(relay),
            escape(&day)
        );
        row(page, "Stamps", &text);
    }
    page.push_str("</table>");
}

/// A row; `content` is HTML.
fn row(page: &mut String, title: &str, content: &str) {
    let _ = write!(page, "<tr><th>{title}</th><td>{content}</td></tr>");
}

/// Text for anywhere in HTML, attributes too.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}

/// A file's name as a relative reference (RFC 3986 §4.2): `./`, and all but letters and digits percent-encoded.
fn url(name: &str) -> String {
    let encoded = name.bytes().fold(String::new(), |mut url, byte| {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.') {
            url.push(char::from(byte));
        } else {
            url.push('%');
            url.push_str(&HEXLOWER.encode(&[byte]));
        }
        url
    });
    format!("./{encoded}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_from_a_report_becomes_markup() {
        assert_eq!(escape("<img src=x onerror='a()'>&\""), "&lt;img src=x onerror=&#39;a()&#39;&gt;&amp;&quot;");
        assert_eq!(url("a b\"#?.wav"), "./a%20b%22%23%3f.wav");
        assert_eq!(url("javascript:x"), "./javascript%3ax");
    }
}

//! The page as a scraper reads it, and as the operator's guide describes it.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::*;

/// The guide.
const GUIDE: &str = include_str!("../../../docs/operating.md");
/// Counters of the core that the shell's own say better: those count what was really sent.
const NOT_SHOWN: [&str; 2] = ["datagrams_in", "datagrams_forwarded"];

/// A line of the page.
#[derive(Debug)]
struct Sample {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

/// The page, by families in their order: name, kind, lines.
fn parse(page: &str) -> Vec<(String, String, Vec<Sample>)> {
    let mut families: Vec<(String, String, Vec<Sample>)> = Vec::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        if let Some(about) = line.strip_prefix("# HELP ") {
            let (name, help) = about.split_once(' ').unwrap();
            assert!(help.ends_with('.'), "{line}");
            let kind = lines.next().and_then(|line| line.strip_prefix(&format!("# TYPE {name} "))).unwrap();
            families.push((name.into(), kind.into(), Vec::new()));
        } else {
            let (name, kind, samples) = families.last_mut().unwrap();
            let sample = sample(line);
            let suffix = sample.name.strip_prefix(name.as_str()).unwrap();
            let is_whole =
                if kind == "histogram" { ["_bucket", "_sum", "_count"].contains(&suffix) } else { suffix.is_empty() };
            assert!(is_whole, "{line}");
            samples.push(sample);
        }
    }
    families
}

fn sample(line: &str) -> Sample {
    let (key, value) = line.rsplit_once(' ').unwrap();
    let (name, labels) = key.split_once('{').unwrap_or((key, "}"));
    assert!(name.bytes().all(|byte| byte == b'_' || byte.is_ascii_lowercase() || byte.is_ascii_digit()), "{line}");
    let pairs = labels.strip_suffix('}').unwrap().split(',').filter(|pair| !pair.is_empty());
    let labels = pairs.map(|pair| {
        let (label, quoted) = pair.split_once('=').unwrap();
        let word = quoted.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap();
        (label.to_owned(), word.to_owned())
    });
    Sample { name: name.into(), labels: labels.collect(), value: value.parse().unwrap() }
}

/// Counters that all have another value, from `first` on, by their names.
fn distinct<T: Default + Serialize + DeserializeOwned>(first: u64) -> (T, BTreeMap<String, u64>) {
    let names = serde_json::to_value(T::default()).unwrap();
    let names = names.as_object().unwrap().keys().cloned();
    let values: BTreeMap<_, _> = names.zip(first..).collect();
    (serde_json::from_value(serde_json::to_value(&values).unwrap()).unwrap(), values)
}

/// A page on which everything has something to show.
fn full_page() -> String {
    let residence = Residence::default();
    for micros in [80, 1_900, 2_100, 20_000] {
        residence.record(Duration::from_micros(micros), 1);
    }
    page(distinct(1_000_000).0, &residence, distinct(2_000_000).0).unwrap()
}

#[test]
fn every_counter_is_on_the_page_and_none_twice() {
    let (totals, shell) = distinct(1_000_000);
    let (meetings, mut core) = distinct(2_000_000);
    let page = page(totals, &Residence::default(), meetings).unwrap();
    let shown: Vec<f64> = parse(&page).into_iter().flat_map(|(_, _, samples)| samples).map(|s| s.value).collect();
    for name in NOT_SHOWN {
        assert!(core.remove(name).is_some(), "there is no {name}");
    }
    for (name, value) in shell.iter().chain(&core) {
        let times = shown.iter().filter(|shown| **shown == *value as f64).count();
        assert_eq!(times, 1, "{name} is there {times} times");
    }
}

#[test]
fn page_is_well_formed() {
    let families = parse(&full_page());
    let names: BTreeSet<_> = families.iter().map(|(name, ..)| name).collect();
    assert_eq!(names.len(), families.len(), "a family is there twice");
    for (name, kind, samples) in &families {
        assert_eq!(kind == "counter", name.ends_with("_total"), "{name} {kind}");
        assert!(!samples.is_empty(), "{name} is empty");
        let different: BTreeSet<_> = samples.iter().map(|sample| (&sample.name, &sample.labels)).collect();
        assert_eq!(different.len(), samples.len(), "{name} has a line twice");
    }
}

#[test]
fn labels_are_words_of_the_program() {
    let labels: BTreeSet<String> = parse(&full_page())
        .into_iter()
        .flat_map(|(_, _, samples)| samples)
        .flat_map(|sample| sample.labels.into_keys())
        .collect();
    assert_eq!(labels.iter().map(String::as_str).collect::<Vec<_>>(), ["le", "outcome", "reason", "type", "version"]);
}

#[test]
fn residence_is_a_histogram_in_seconds_with_quantiles() {
    let families = parse(&full_page());
    let family = |name: &str| {
        let whole = format!("conclave_relay_{name}");
        &families.iter().find(|(name, ..)| *name == whole).unwrap().2
    };
    let lines = family("frame_residence_seconds");
    let last = |suffix: &str| lines.iter().rfind(|sample| sample.name.ends_with(suffix)).unwrap();
    let below =
        |bound: &str| lines.iter().find(|sample| sample.labels.get("le").is_some_and(|le| le == bound)).unwrap();
    assert_eq!((below("5e-05").value, below("0.0001").value), (0.0, 1.0));
    assert_eq!((below("0.002").value, below("0.00225").value, below("0.015").value), (2.0, 3.0, 3.0));
    assert_eq!((last("_bucket").labels["le"].as_str(), last("_bucket").value), ("+Inf", 4.0));
    assert_eq!(last("_count").value, 4.0);
    assert!((last("_sum").value - 0.02408).abs() < 1e-9);
    assert_eq!(family("frame_residence_p50_seconds")[0].value, 0.002);
    assert_eq!(family("frame_residence_p999_seconds")[0].value, 0.015);
}

#[test]
fn without_frames_there_are_no_quantiles() {
    let page = page(Snapshot::default(), &Residence::default(), hub::Stats::default()).unwrap();
    assert!(page.contains("conclave_relay_frame_residence_seconds_count 0\n") && !page.contains("_p50_"), "{page}");
}

/// The table's rows name each family, with its labels in braces.
#[test]
fn guide_names_what_the_page_shows_and_nothing_else() {
    let described: BTreeSet<String> = GUIDE
        .lines()
        .filter_map(|line| line.strip_prefix("| `"))
        .filter(|line| line.starts_with("conclave_relay_") || line.starts_with("process_"))
        .map(|line| line.split(['`', '{']).next().unwrap_or_default().to_owned())
        .collect();
    let shown = parse(&full_page()).into_iter().map(|(name, ..)| name).collect();
    assert_eq!(described, shown);
}

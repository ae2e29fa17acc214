//! `conclave devices`.

use std::io::{self, Write};

use anyhow::Result;
use comfy_table::{Cell, CellAlignment, Table, presets};
use conclave_protocol::identity::is_unsafe_to_show;

use super::args::Devices;
use crate::audio::device::{self, Device, Listing};

pub(super) fn show(devices: &Devices) -> Result<()> {
    let listing = device::list()?;
    let mut out = io::stdout().lock();
    if devices.json {
        writeln!(out, "{}", super::words::json_without_escapes(&serde_json::to_string(&listing)?))?;
    } else {
        writeln!(out, "{}", in_words(&listing))?;
    }
    Ok(())
}

fn in_words(listing: &Listing) -> String {
    let part = |heading: &str, none: &str, devices: &[Device]| {
        if devices.is_empty() { format!("{none}\n") } else { format!("{heading}\n{}\n", table(devices)) }
    };
    let inputs = part("Microphones (--input device:NAME):", "There is no microphone.", &listing.inputs);
    let outputs = part("Loudspeakers (--output device:NAME):", "There is no loudspeaker.", &listing.outputs);
    let has_default = listing.inputs.iter().chain(&listing.outputs).any(|device| device.is_default);
    let default = if has_default { "The one with * is used by `device` without a name. " } else { "" };
    format!("{inputs}\n{outputs}\n{default}Asked: {}.", listing.system)
}

fn table(devices: &[Device]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY);
    table.set_header(["", "name", "description", "samples/s", "channels"]);
    for device in devices {
        let figure = |figure: Option<String>| {
            Cell::new(figure.unwrap_or_else(|| "–".to_owned())).set_alignment(CellAlignment::Right)
        };
        table.add_row([
            Cell::new(if device.is_default { "*" } else { "" }),
            Cell::new(plain(&device.name)),
            Cell::new(plain(&device.description)),
            figure(device.rate.map(|rate| rate.to_string())),
            figure(device.channels.map(|channels| channels.to_string())),
        ]);
    }
    table
}

/// A device names itself: nothing of it may run the terminal.
fn plain(text: &str) -> String {
    text.chars().map(|c| if is_unsafe_to_show(c) { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_marked_and_what_is_missing_is_said() {
        let device = |name: &str, is_default| Device {
            name: name.to_owned(),
            description: format!("the \u{1b}{name}"),
            is_default,
            rate: Some(44_100),
            channels: None,
        };
        let outputs = vec![device("desk", false), device("headset", true)];
        let text = in_words(&Listing { system: "PulseAudio".to_owned(), inputs: Vec::new(), outputs });
        assert!(text.starts_with("There is no microphone."), "{text}");
        let line = |name: &str| text.lines().find(|line| line.contains(&format!(" {name} "))).expect("a line");
        assert!(line("headset").contains('*') && line("headset").contains("44100"), "{text}");
        assert!(!line("desk").contains('*') && line("desk").contains("the ?desk"), "{text}");
    }
}

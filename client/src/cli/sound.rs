//! Options about one's own sound.

use clap::{Args, ValueEnum};

use crate::audio::process::Switches;

#[derive(Args)]
pub(super) struct Sound {
    /// Take what your loudspeaker plays out of what your microphone hears. On with a microphone, off with a WAV file
    #[arg(long, value_enum, value_name = "on|off")]
    pub(super) echo_cancellation: Option<Switch>,
    /// Make steady noise around you quieter. On with a microphone, off with a WAV file
    #[arg(long, value_enum, value_name = "on|off")]
    pub(super) noise_suppression: Option<Switch>,
    /// Bring your speech to the usual loudness. On with a microphone, off with a WAV file
    #[arg(long, value_enum, value_name = "on|off")]
    pub(super) auto_gain: Option<Switch>,
    /// Keep the microphone open while you are muted, and tell you if you speak then; nothing of it leaves this program.
    /// Without it mute closes the microphone
    #[arg(long, requires = "input")]
    pub(super) warn_when_muted: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Switch {
    On,
    Off,
}

impl Sound {
    /// What is done to the sound of a microphone, or of something else.
    pub(super) fn switches(&self, is_microphone: bool) -> Switches {
        let is_on = |switch: Option<Switch>| switch.map_or(is_microphone, |switch| switch == Switch::On);
        Switches {
            echo_cancellation: is_on(self.echo_cancellation),
            noise_suppression: is_on(self.noise_suppression),
            auto_gain: is_on(self.auto_gain),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[arg(long)]
        input: Option<String>,
        #[command(flatten)]
        sound: Sound,
    }

    fn switches(line: &str, is_microphone: bool) -> Switches {
        Line::try_parse_from(line.split(' ')).unwrap().sound.switches(is_microphone)
    }

    #[test]
    fn a_microphone_is_processed_and_a_file_is_not_unless_told_otherwise() {
        assert_eq!(switches("conclave", true), Switches::ALL);
        assert_eq!(switches("conclave", false), Switches::default());
        let but_echo = Switches { echo_cancellation: false, ..Switches::ALL };
        assert_eq!(switches("conclave --echo-cancellation off", true), but_echo);
        let gain = Switches { auto_gain: true, ..Switches::default() };
        assert_eq!(switches("conclave --auto-gain on", false), gain);
        assert!(Line::try_parse_from(["conclave", "--noise-suppression", "maybe"]).is_err());
        assert!(Line::try_parse_from(["conclave", "--warn-when-muted"]).is_err(), "there is nothing to listen to");
    }
}

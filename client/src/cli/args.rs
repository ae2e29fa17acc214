//! Arguments, and the help that teaches them.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::builder::{NonEmptyStringValueParser, PossibleValuesParser, TypedValueParser};
use clap::{Args, Parser, Subcommand, ValueEnum};

use super::console::Style;
use super::sound::Sound;
use crate::audio::format::FrameDuration;
use crate::audio::profile::Profile;

/// Longest time that can be given, in seconds: a year. Longer ones could not be added to a clock.
const MAX_SECONDS: u64 = 365 * 24 * 3_600;

/// End-to-end encrypted audio meetings.
///
/// Only the people in a meeting can hear it: the relay that carries it holds no key, and nobody hears anything before
/// the host lets them in.
#[derive(Parser)]
#[command(name = "conclave", version, arg_required_else_help = true)]
pub(super) struct Arguments {
    #[command(subcommand)]
    pub(super) verb: Verb,
}

#[derive(Subcommand)]
pub(super) enum Verb {
    /// Open a meeting and print its link
    #[command(after_help = HOST_HELP)]
    Host(Host),
    /// Join a meeting by its link
    #[command(after_help = JOIN_HELP)]
    Join(Join),
    /// List microphones and loudspeakers
    Devices(Devices),
    /// Speak, see the level, and hear yourself as the others would
    MicTest(MicTest),
    /// Hold a whole meeting on this machine and show who could hear what
    Demo(Demo),
}

const HOST_HELP: &str =
    "While it runs, type: admit NAME, admit all, deny NAME, remove NAME, compare NAME DIGITS, lock, \
promote NAME (to lead when you are gone), say TEXT, mute, unmute, stats, end; help for the rest. \
Give the printed link to your guests over a channel you trust: it holds the meeting's secret.

  conclave host --name Ada --input talk.wav --output heard.wav
  conclave host --name Ada --relay relay.example.org --passcode 'three small words'
  conclave host --name Ada --relay relay.example.org --moderator keys/moderator.pub --bans bans.txt

Report somebody, also after the meeting (--report-for 120): preview Bela threat 20 heard.wav, then report Bela threat 20 \
NOTE. The relay must take reports, which the one inside this program doesn't.";

const JOIN_HELP: &str = "While it runs, type: compare NAME DIGITS, mute, unmute, stats, leave; help for the rest.

  conclave join 'conclave://…#…' --name Bob --input talk.wav --output heard.wav
  conclave join 'conclave://…#…' --name Bob --home ~/.conclave --report-for 120

Report somebody for what was said: preview Ada threat 20 heard.wav shows and plays what is handed over, report Ada threat \
20 NOTE sends it.

Exit status: 0 left or ended, 1 failed on this machine, 2 bad arguments or link, 3 denied, 4 removed, 5 wrong \
passcode, 6 relay unreachable or lost.";

#[derive(Args)]
pub(super) struct Host {
    /// Relay to use, HOST[:PORT]; more than one may be given, in order of preference. Without it a relay is started
    /// inside this program
    #[arg(long, value_name = "ADDR")]
    pub(super) relay: Vec<String>,
    /// Pin of a self-signed relay, as it prints it; one per --relay, in the same order, empty for none
    // One pin in 64 begins with a hyphen.
    #[arg(long, value_name = "PIN", requires = "relay", allow_hyphen_values = true)]
    pub(super) pin: Vec<String>,
    /// Where the relay inside this program listens; the default serves this machine only
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0", conflicts_with = "relay")]
    pub(super) listen: SocketAddr,
    /// Whether each guest waits for your word, or everybody with the link (and passcode) is let in
    #[arg(long, value_enum, default_value_t = Admit::Ask)]
    pub(super) admit: Admit,
    /// Most people at one time, yourself included
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u16).range(2..=65_534))]
    pub(super) max_members: u16,
    /// How long a frame of sound is, for everybody and the whole meeting. With 10 everybody hears everybody at least 10 ms
    /// sooner, and each talker sends 100 packets a second instead of 50: about 150 kbit/s instead of 75. Without it 10 with
    /// --profile low-delay, default or poor-network, and 20 with auto
    #[arg(long, value_name = "10|20", value_parser = frame_ms())]
    pub(super) frame_ms: Option<FrameDuration>,
    /// Public key of somebody who may open reports from this meeting, as conclave-moderate keygen writes it; up to four
    /// may be given. Everybody in the meeting sees the names
    #[arg(long, value_name = "FILE.pub")]
    pub(super) moderator: Vec<PathBuf>,
    /// Ban statements of moderators: whoever they are about is turned down
    #[arg(long, value_name = "FILE")]
    pub(super) bans: Option<PathBuf>,
    /// Public key of somebody else whose ban statements count, besides the meeting's moderators and the relay's
    #[arg(long, value_name = "FILE.pub", requires = "bans")]
    pub(super) ban_issuer: Vec<PathBuf>,
    #[command(flatten)]
    pub(super) common: Common,
}

/// Reads the duration of frames in milliseconds.
fn frame_ms() -> impl TypedValueParser<Value = FrameDuration> {
    let parse = |text: String| text.parse().ok().and_then(FrameDuration::from_millis).ok_or("neither 10 nor 20");
    PossibleValuesParser::new(["10", "20"]).try_map(parse)
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Admit {
    /// Each guest waits
    Ask,
    /// Nobody waits
    All,
}

#[derive(Args)]
pub(super) struct Join {
    /// The meeting's link, as the host's client printed it
    #[arg(value_name = "LINK")]
    pub(super) link: String,
    /// After being removed, stay connected for so long and count what still arrives and can be opened (for auditors)
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(..=MAX_SECONDS))]
    pub(super) linger: Option<u64>,
    #[command(flatten)]
    pub(super) common: Common,
}

#[derive(Args)]
pub(super) struct Common {
    /// Name shown to the others
    #[arg(long)]
    pub(super) name: String,
    /// The meeting's passcode
    #[arg(long, env = "CONCLAVE_PASSCODE", hide_env_values = true, allow_hyphen_values = true)]
    pub(super) passcode: Option<String>,
    /// What to say: a microphone (`device` for the system's, or device:NAME, see `conclave devices`), a WAV file, which
    /// begins when you are in the meeting, `tone` or `silence`. Without it you are muted
    #[arg(long, value_name = "device[:NAME]|WAV|tone|silence", value_parser = NonEmptyStringValueParser::new())]
    pub(super) input: Option<String>,
    /// Say the input again and again
    #[arg(long = "loop", requires = "input")]
    pub(super) looped: bool,
    /// Where what you hear goes: a loudspeaker (`device` for the system's, or device:NAME), a WAV file (48 kHz, mono; one
    /// that is there already is written over), or `null`
    #[arg(long, value_name = "device[:NAME]|WAV|null", default_value = "null", value_parser = NonEmptyStringValueParser::new())]
    pub(super) output: String,
    /// How much later you hear the others for how much repair of what is lost. Only you know it, and it changes nothing
    /// for anybody else
    #[arg(long, value_enum, default_value_t = Profile::Auto)]
    pub(super) profile: Profile,
    /// Start muted
    #[arg(long)]
    pub(super) muted: bool,
    /// Be silent until a key is pressed: by `{"do":"push_to_talk","on":true}` with --jsonl, by `talk on` otherwise
    #[arg(long)]
    pub(super) push_to_talk: bool,
    /// How long you are heard after the key was released
    // People let go before the last syllable is over.
    #[arg(long, value_name = "MS", default_value_t = 200, requires = "push_to_talk", value_parser = clap::value_parser!(u64).range(0..=5_000))]
    pub(super) hold_ms: u64,
    /// Record what you hear and say into a new file, as Ogg Opus. Everybody is told before it begins
    #[arg(long, value_name = "FILE.opus")]
    pub(super) record: Option<PathBuf>,
    #[command(flatten)]
    pub(super) sound: Sound,
    /// Leave after so many seconds in the meeting; a host ends it
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(..=MAX_SECONDS))]
    pub(super) seconds: Option<u64>,
    /// When the connection to the relay is lost, look for a relay of the meeting for so long before giving up; 0 gives
    /// up at once
    // A day is as long as a meeting may last.
    #[arg(long, value_name = "SECONDS", default_value_t = 120, value_parser = clap::value_parser!(u64).range(..=86_400))]
    pub(super) reconnect: u64,
    /// Keep your identity in this directory, and whom you have met, so that others can recognise you and you them;
    /// without it you are a new guest each time. CONCLAVE_PASSPHRASE or a prompt protects both
    #[arg(long, value_name = "DIR")]
    pub(super) home: Option<PathBuf>,
    /// After the end, leaving or a removal, stay at the relay for so long, so that what was said can still be reported
    // As long as what was said is kept (DESIGN §8).
    #[arg(long, value_name = "SECONDS", default_value_t = 0, value_parser = clap::value_parser!(u64).range(..=120))]
    pub(super) report_for: u64,
    /// One JSON object per line: events on standard output, commands on standard input (docs/automation.md)
    #[arg(long)]
    pub(super) jsonl: bool,
}

impl Host {
    /// How long the meeting's frames are.
    pub(super) fn frame_duration(&self) -> FrameDuration {
        self.frame_ms.unwrap_or_else(|| self.common.profile.frame_duration())
    }
}

impl Common {
    pub(super) fn style(&self) -> Style {
        if self.jsonl { Style::Jsonl } else { Style::Words }
    }
}

#[derive(Args)]
pub(super) struct Devices {
    /// As one JSON object
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Args)]
pub(super) struct MicTest {
    /// A microphone (`device` for the system's, or device:NAME, see `conclave devices`), a WAV file, or `tone`
    #[arg(long, value_name = "device[:NAME]|WAV|tone", default_value = "device", value_parser = NonEmptyStringValueParser::new())]
    pub(super) input: String,
    /// A loudspeaker (`device` for the system's, or device:NAME), a WAV file (48 kHz, mono; one that is there already is
    /// written over), or `null`
    #[arg(long, value_name = "device[:NAME]|WAV|null", default_value = "device", value_parser = NonEmptyStringValueParser::new())]
    pub(super) output: String,
    /// How long a frame of sound is, as in a meeting whose host says so
    #[arg(long, value_name = "10|20", default_value = "20", value_parser = frame_ms())]
    pub(super) frame_ms: FrameDuration,
    /// End after so many seconds
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=MAX_SECONDS))]
    pub(super) seconds: Option<u64>,
    /// As JSON objects, one per line, ten a second
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Args)]
pub(super) struct Demo {
    /// People in the meeting, the host included; one more knocks and is denied
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(3..=12))]
    pub(super) people: u16,
    /// Length of the call
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u64).range(4..=600))]
    pub(super) seconds: u64,
    /// Speech for everybody, each from another place in it; without it the spoken clips of alsa-utils
    #[arg(long, value_name = "WAV")]
    pub(super) input: Option<PathBuf>,
    /// Where to write what each listener heard
    #[arg(long, value_name = "DIR", default_value = "demo-out")]
    pub(super) out: PathBuf,
    /// Write the results as JSON, too
    #[arg(long, value_name = "FILE")]
    pub(super) json: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parses(line: &str) -> bool {
        Arguments::try_parse_from(line.split(' ')).is_ok()
    }

    #[test]
    fn what_was_said_is_kept_for_two_minutes_and_so_is_the_connection() {
        for verb in ["host --name A", "join x --name A"] {
            assert!(parses(&format!("conclave {verb} --report-for 120")));
            assert!(!parses(&format!("conclave {verb} --report-for 121")));
        }
        assert!(parses("conclave host --name A --moderator a --moderator b --bans c --ban-issuer d"));
        assert!(!parses("conclave host --name A --ban-issuer d"));
    }

    #[test]
    fn a_hosts_frames_are_as_it_says_or_as_its_profile_wants_them() {
        let frame = |options: &str| {
            let line = format!("conclave host --name A{options}");
            match Arguments::try_parse_from(line.split(' ')).ok()?.verb {
                Verb::Host(host) => Some(host.frame_duration()),
                _ => None,
            }
        };
        assert_eq!(frame(""), Some(FrameDuration::Ms20));
        assert_eq!(frame(" --profile default"), Some(FrameDuration::Ms10));
        assert_eq!(frame(" --profile default --frame-ms 20"), Some(FrameDuration::Ms20));
        assert_eq!(frame(" --frame-ms 10"), Some(FrameDuration::Ms10));
        assert_eq!(frame(" --frame-ms 15"), None);
        assert!(!parses("conclave join x --name A --frame-ms 10"), "guests have no choice");
    }

    #[test]
    fn no_time_is_longer_than_a_clock_can_count() {
        for verb in ["host --name A --seconds", "join x --name A --seconds", "join x --name A --linger"] {
            for good in ["0", "31536000"] {
                assert!(parses(&format!("conclave {verb} {good}")), "{verb} {good}");
            }
            for bad in ["31536001", "18446744073709551615", "18446744073709551616", "-1"] {
                assert!(!parses(&format!("conclave {verb} {bad}")), "{verb} {bad}");
            }
        }
        assert!(!parses("conclave demo --seconds 18446744073709551615"));
    }
}

//! How much delay a listener takes for how much repair (`docs/protocol.md` §8.4). It is a matter of the listener alone:
//! every talker sends the same, and nobody else learns which profile somebody has.

use std::time::Duration;

use super::device::MOST_MARGIN;
use super::format::FrameDuration;
use super::playout::{Config, SLACK};

/// What a listener holds frames for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, clap::ValueEnum)]
pub enum Profile {
    /// Shortest delay: 5 ms for what the network varies by, 4 ms for what this machine is late by, and no time to repair
    LowDelay,
    /// A frame and 2 ms: single lost frames are repaired from the next one
    Default,
    /// Four frames and 5 ms: bursts of loss are bridged, up to four frames
    PoorNetwork,
    /// Begins with two frames and 2 ms, then follows what the network and this machine do, in pauses only
    #[default]
    Auto,
}

impl Profile {
    /// How long a frame of this duration is held at least from its arrival, if it was not queued on its way: for `auto`, at
    /// the beginning.
    pub fn hold(self, frame: FrameDuration) -> Duration {
        match self {
            Self::LowDelay => JITTER,
            // A frame, and what a quiet network varies by.
            Self::Default => frame.duration() + SLACK,
            // What it is at first must do for most networks, until some seconds have shown more.
            Self::Auto => frame.duration() * 2 + SLACK,
            // The least with which speech stays good where 10 to 20 % are lost in bursts of three (`docs/listening.md`).
            Self::PoorNetwork => frame.duration() * 4 + JITTER,
        }
    }

    /// The playout of every talker.
    pub fn config(self, frame: FrameDuration) -> Config {
        Config { hold: self.hold(frame), learn: self == Self::Auto, ..Config::of(frame) }
    }

    /// Most that each device may keep against what this machine is late by. Who asks for a certain delay gets it, and a gap
    /// when something is later: these are what the profile's delay leaves, of 40, 60 and 100 ms (DESIGN §11).
    pub fn most_margin(self) -> Duration {
        match self {
            Self::LowDelay => Duration::from_millis(4),
            // All that a sound server can be let wait for: with more, its delay goes up by a block of 5 ms in mid-meeting.
            Self::Default | Self::PoorNetwork => Duration::from_millis(9),
            Self::Auto => MOST_MARGIN,
        }
    }

    /// How long frames are in a meeting of a host with this profile, if it does not say: short ones cost everybody twice
    /// the packets and the bandwidth, and who asks for a certain delay wants them.
    pub fn frame_duration(self) -> FrameDuration {
        match self {
            Self::LowDelay | Self::Default | Self::PoorNetwork => FrameDuration::Ms10,
            Self::Auto => FrameDuration::Ms20,
        }
    }
}

/// What a network varies by when nothing is known of it.
const JITTER: Duration = Duration::from_millis(5);

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::*;

    #[test]
    fn profiles_have_the_names_of_the_documentation_and_longer_holds_in_turn() {
        let names: Vec<_> = Profile::value_variants().iter().filter_map(|p| p.to_possible_value()).collect();
        let names: Vec<_> = names.iter().map(|name| name.get_name()).collect();
        assert_eq!(names, ["low-delay", "default", "poor-network", "auto"]);
        for frame in FrameDuration::ALL {
            let holds =
                [Profile::LowDelay, Profile::Default, Profile::Auto, Profile::PoorNetwork].map(|p| p.hold(frame));
            assert!(holds.is_sorted(), "{holds:?}");
            let margins = Profile::value_variants().iter().map(|profile| profile.most_margin());
            assert!(margins.is_sorted());
            assert!(Profile::Auto.config(frame).learn && !Profile::PoorNetwork.config(frame).learn);
        }
    }

    #[test]
    fn who_asks_for_a_delay_gets_short_frames_and_who_says_nothing_does_not() {
        let short = Profile::value_variants().iter().filter(|profile| profile.frame_duration() == FrameDuration::Ms10);
        assert_eq!(short.count(), 3);
        assert_eq!(Profile::default().frame_duration(), FrameDuration::Ms20);
    }
}

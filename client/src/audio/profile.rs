//! How much delay a listener takes for how much repair (`docs/protocol.md` §8.4). It is a matter of the listener alone:
//! every talker sends the same, and nobody else learns which profile somebody has.

use std::time::Duration;

use super::playout::Config;

/// What a listener holds frames for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, clap::ValueEnum)]
pub enum Profile {
    /// Shortest delay: 5 ms for what the network varies by, and no time to repair
    LowDelay,
    /// 22 ms: single lost frames are repaired from the next one
    Default,
    /// 85 ms: bursts of loss are bridged, up to four frames
    PoorNetwork,
    /// Begins with 42 ms, then follows what the network does, in pauses only
    #[default]
    Auto,
}

impl Profile {
    /// How long a frame is held at least from its arrival, if it was not queued on its way: for `auto`, at the beginning.
    pub fn hold(self) -> Duration {
        Duration::from_millis(match self {
            Self::LowDelay => 5,
            // A frame, and what a quiet network varies by.
            Self::Default => 22,
            // What it is at first must do for most networks, until some seconds have shown more.
            Self::Auto => 42,
            // Four frames, and 5 ms as in `default`: the least with which speech stays good where 10 to 20 % are lost in
            // bursts of three (`docs/listening.md`).
            Self::PoorNetwork => 85,
        })
    }

    /// The playout of every talker.
    pub fn config(self) -> Config {
        Config { hold: self.hold(), learn: self == Self::Auto, ..Config::default() }
    }
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::*;

    #[test]
    fn profiles_have_the_names_of_the_documentation_and_longer_holds_in_turn() {
        let names: Vec<_> = Profile::value_variants().iter().filter_map(|p| p.to_possible_value()).collect();
        let names: Vec<_> = names.iter().map(|name| name.get_name()).collect();
        assert_eq!(names, ["low-delay", "default", "poor-network", "auto"]);
        assert!(Profile::LowDelay.hold() < Profile::Default.hold());
        assert!(Profile::Default.hold() < Profile::PoorNetwork.hold());
        assert!(Profile::Auto.config().learn && !Profile::PoorNetwork.config().learn);
    }
}

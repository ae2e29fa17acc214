//! What a run does: how many people, for how long, over which network, with which faults. Pure.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// One frame of sound (`docs/protocol.md` §8.4).
pub const FRAME: Duration = Duration::from_millis(20);
/// The longest time that clocks take to follow a shift of half a frame at 1 ms a second, and some for corrections.
pub const LONGEST_WARMUP: Duration = Duration::from_secs(15);

/// From so many meetings on a run is crowded.
const CROWD: u32 = 50;
/// Connections of one meeting that share a socket at most. All its listeners get their packets at the same time, and what a
/// socket may keep unread is a few hundred small packets where the system has its defaults.
const SHARED_BY: u32 = 16;
/// In several meetings so many times as many share one: members are counted across meetings, so no more of each are among
/// them.
const MOST_TIMES: u32 = 4;

/// How many people, in how many meetings.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Shape {
    /// Meetings.
    pub rooms: u32,
    /// Members of each, the host included.
    pub people: u32,
    /// How many of them send; the host is the first.
    pub talkers: u32,
}

impl Shape {
    /// Members of all meetings.
    pub fn members(self) -> u64 {
        u64::from(self.rooms) * u64::from(self.people)
    }

    /// Whether frames of so many meetings are due, one after the other without an end, that to wake up for each would take
    /// more processor time than all else that sending and reading does.
    pub fn is_crowded(self) -> bool {
        self.rooms >= CROWD
    }

    /// Connections that share a socket.
    pub fn sharing(self) -> u32 {
        SHARED_BY * self.rooms.clamp(1, MOST_TIMES)
    }

    /// Frames that a relay without loss forwards in a second.
    pub fn frames_per_second(self) -> u64 {
        let copies = u64::from(self.talkers) * u64::from(self.people.saturating_sub(1));
        u64::from(self.rooms) * copies * 1_000 / u64::try_from(FRAME.as_millis()).unwrap_or(u64::MAX)
    }
}

/// What is done to frames on their way to the relay.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Network {
    /// Share of frames that are dropped before they are sent, 0 to 1. Not part of the loss that is reported.
    pub loss: f64,
    /// By how much each frame is late. Part of the latency that is reported.
    pub delay_ms: f64,
    /// Each frame leaves that much earlier or later at most, evenly drawn. Not part of the latency.
    pub jitter_ms: f64,
}

/// What the frame clocks do.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Clocks {
    /// Whether they follow the relay's phase (`docs/protocol.md` §8.4).
    pub follow_phase: bool,
    /// Whether all begin at the same moment; otherwise anywhere in a frame.
    pub aligned: bool,
}

/// What goes wrong on purpose.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Faults {
    /// The relay is killed that many seconds after the measurement began, and started again.
    pub kill_relay_at: Option<f64>,
    /// Members that stop reading their sockets when the measurement begins.
    pub stall_listeners: u32,
    /// Each member but the hosts leaves after that many seconds on average, and comes again.
    pub churn: Option<f64>,
    /// What outsiders do meanwhile.
    pub flood: Vec<Flood>,
}

/// What outsiders flood the relay with; `datagrams` comes from a member that is none of those measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Flood {
    /// 500 QUIC handshakes a second, from many networks, without a word after them
    Handshakes,
    /// 10,000 packets a second that are no QUIC, half of which begin like it
    Garbage,
    /// 10,000 frames a second from one member of the first meeting
    Datagrams,
    /// 10,000 knocks at the first meeting, spread over the measurement
    Knocks,
}

/// Everything about a run but the relay.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Plan {
    /// How many people.
    #[serde(flatten)]
    pub shape: Shape,
    /// How long is measured.
    pub seconds: u32,
    /// Members that come in a second, all meetings together; as fast as meetings take them when `None`.
    pub ramp: Option<u32>,
    /// How long people talk before anything is measured; until the clocks have settled when `None`.
    pub warmup_s: Option<f64>,
    /// The network.
    pub network: Network,
    /// The frame clocks.
    pub clocks: Clocks,
    /// The faults.
    pub faults: Faults,
    /// Threads that carry connections of listeners, and as many that run their protocol.
    pub threads: usize,
}

impl Plan {
    /// Ticks of a frame clock from the first frame to the last.
    pub fn most_ticks(&self) -> usize {
        let warmup = self.warmup_s.map_or(LONGEST_WARMUP, Duration::from_secs_f64);
        let time = warmup + Duration::from_secs(self.seconds.into()) + Duration::from_secs(20);
        usize::try_from(time.as_millis() / FRAME.as_millis()).unwrap_or(usize::MAX)
    }

    /// Whether who comes and goes is what is measured, in a crowd, and not by how much its frames are late.
    pub fn is_of_joins(&self) -> bool {
        self.shape.is_crowded() && self.faults.churn.is_some()
    }

    /// Which members stall: the last of all who neither host nor talk.
    pub fn stalls(&self, room: u32, person: u32) -> bool {
        let Shape { people, talkers, .. } = self.shape;
        let first = talkers.max(1);
        let quiet = people.saturating_sub(first);
        if person < first {
            return false;
        }
        let after = u64::from(self.shape.rooms - 1 - room) * u64::from(quiet) + u64::from(people - 1 - person);
        after < u64::from(self.faults.stall_listeners)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A run in which nothing goes wrong.
    pub(crate) fn plan(shape: Shape) -> Plan {
        Plan {
            shape,
            seconds: 10,
            ramp: None,
            warmup_s: None,
            network: Network::default(),
            clocks: Clocks { follow_phase: true, aligned: false },
            faults: Faults::default(),
            threads: 1,
        }
    }

    #[test]
    fn only_many_meetings_are_a_crowd_and_only_there_who_comes_and_goes_is_what_is_measured() {
        let shape = |rooms| Shape { rooms, people: 5, talkers: 2 };
        assert_eq!([1, 49, 50, 200].map(|rooms| shape(rooms).is_crowded()), [false, false, true, true]);
        assert_eq!([1, 2, 3, 4, 200].map(|rooms| shape(rooms).sharing()), [16, 32, 48, 64, 64]);
        let joins = [49, 50].map(|rooms| {
            let mut plan = plan(shape(rooms));
            assert!(!plan.is_of_joins());
            plan.faults.churn = Some(30.0);
            plan.is_of_joins()
        });
        assert_eq!(joins, [false, true]);
    }

    #[test]
    fn frames_per_second_count_a_copy_for_everybody_but_the_talker() {
        assert_eq!(Shape { rooms: 1, people: 50, talkers: 5 }.frames_per_second(), 12_250);
        assert_eq!(Shape { rooms: 200, people: 5, talkers: 2 }.frames_per_second(), 80_000);
    }

    #[test]
    fn the_last_who_do_not_talk_stall_and_never_a_host() {
        let mut plan = plan(Shape { rooms: 2, people: 4, talkers: 2 });
        plan.faults.stall_listeners = 3;
        let stalled = |room| (0..4).filter(|&person| plan.stalls(room, person)).collect::<Vec<_>>();
        assert_eq!((stalled(0), stalled(1)), (vec![3], vec![2, 3]));
        plan.faults.stall_listeners = 100;
        assert!(!plan.stalls(0, 0) && !plan.stalls(0, 1));
    }
}

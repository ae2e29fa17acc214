//! The network between a client and the relay. A control stream is reliable and ordered, as a QUIC stream is, and can
//! be late; datagrams are lost in bursts, come twice, and overtake each other.

use std::time::Duration;

use super::dice::Dice;

/// How a path treats what it carries, in either direction.
#[derive(Clone, Copy, Debug)]
pub struct Conditions {
    /// Time on the way.
    pub latency: Duration,
    /// Most that is added to it, evenly distributed.
    pub jitter: Duration,
    /// Which datagrams are lost.
    pub loss: GilbertElliott,
    /// Share of datagrams that come twice.
    pub duplicated: f64,
    /// Share of datagrams that are overtaken by others: these take up to 60 ms more.
    pub overtaken: f64,
}

/// Longest extra time of a datagram that is overtaken: three frames.
const OVERTAKEN_BY: Duration = Duration::from_millis(60);

/// Losses in bursts: a path is good or bad, and loses only while it is bad.
#[derive(Clone, Copy, Debug)]
pub struct GilbertElliott {
    /// Chance, with each datagram, that a good path turns bad.
    pub worsens: f64,
    /// Chance, with each datagram, that a bad path turns good.
    pub recovers: f64,
    /// Share of datagrams lost while the path is bad.
    pub lost: f64,
}

impl GilbertElliott {
    /// Nothing is lost.
    pub const NONE: Self = Self { worsens: 0.0, recovers: 1.0, lost: 0.0 };
    /// About 4 % in bursts of about five, as on a crowded radio link.
    pub const RADIO: Self = Self { worsens: 0.01, recovers: 0.2, lost: 0.8 };
}

impl Conditions {
    /// 10 ms and nothing else.
    pub const CLEAN: Self = Self {
        latency: Duration::from_millis(10),
        jitter: Duration::ZERO,
        loss: GilbertElliott::NONE,
        duplicated: 0.0,
        overtaken: 0.0,
    };
    /// Bad in every way, and still within 50 ms for control messages.
    pub const BAD: Self = Self {
        latency: Duration::from_millis(25),
        jitter: Duration::from_millis(25),
        loss: GilbertElliott::RADIO,
        duplicated: 0.02,
        overtaken: 0.05,
    };

    /// Conditions between clean and bad.
    pub fn drawn(dice: &mut Dice) -> Self {
        let share = |dice: &mut Dice, most: f64| most * dice.below(1_000) as f64 / 1_000.0;
        Self {
            latency: dice.up_to(Duration::from_millis(25)),
            jitter: dice.up_to(Duration::from_millis(25)),
            loss: if dice.chance(0.5) { GilbertElliott::RADIO } else { GilbertElliott::NONE },
            duplicated: share(dice, 0.03),
            overtaken: share(dice, 0.1),
        }
    }
}

/// One direction of a path.
pub struct Pipe {
    /// How it behaves.
    pub conditions: Conditions,
    is_bad: bool,
    /// Nothing on the control stream arrives before this.
    control_after: Duration,
}

impl Pipe {
    /// A pipe that nothing has passed.
    pub fn new(conditions: Conditions) -> Self {
        Self { conditions, is_bad: false, control_after: Duration::ZERO }
    }

    /// Holds the control stream up until `until`, as a burst of losses does to a QUIC stream.
    pub fn stall(&mut self, until: Duration) {
        self.control_after = self.control_after.max(until);
    }

    /// When a control message sent at `now` arrives: always, and never before an earlier one.
    pub fn control(&mut self, now: Duration, dice: &mut Dice) -> Duration {
        self.control_after = self.control_after.max(self.flight(now, dice));
        self.control_after
    }

    /// When a datagram sent at `now` arrives: not at all, once or twice.
    pub fn datagram(&mut self, now: Duration, dice: &mut Dice) -> impl Iterator<Item = Duration> + use<> {
        let GilbertElliott { worsens, recovers, lost } = self.conditions.loss;
        self.is_bad = if self.is_bad { !dice.chance(recovers) } else { dice.chance(worsens) };
        let arrives = !(self.is_bad && dice.chance(lost));
        let first = arrives.then(|| self.datagram_flight(now, dice));
        let again = (arrives && dice.chance(self.conditions.duplicated)).then(|| self.datagram_flight(now, dice));
        first.into_iter().chain(again)
    }

    fn datagram_flight(&self, now: Duration, dice: &mut Dice) -> Duration {
        let overtaken = if dice.chance(self.conditions.overtaken) { dice.up_to(OVERTAKEN_BY) } else { Duration::ZERO };
        self.flight(now, dice) + overtaken
    }

    fn flight(&self, now: Duration, dice: &mut Dice) -> Duration {
        now + self.conditions.latency + dice.up_to(self.conditions.jitter)
    }
}

//! When a muted client may stop sending (DESIGN §7, rates "private" and "open").

use std::time::{Duration, Instant};

use conclave_protocol::epoch::statement::Rate;
use conclave_protocol::sframe::frame::Microphone;

/// Bounds of the random time after which a muted client stops, in seconds. Random, so that the moment of muting
/// cannot be read off the moment of stopping.
const STOP_AFTER: (f64, f64) = (5.0, 65.0);

/// Decides for every tick whether a frame goes out. Nothing here depends on what is said.
pub struct SendGate {
    microphone: Microphone,
    rate: Rate,
    /// The user would rather save data than hide from the relay who is muted.
    saves: bool,
    /// When to stop; `None` while there is no reason to.
    stop_at: Option<Instant>,
}

impl SendGate {
    /// A gate in the private rate.
    pub fn new(microphone: Microphone) -> Self {
        Self { microphone, rate: Rate::Private, saves: false, stop_at: None }
    }

    /// The client entered a meeting. One that joins muted where muted clients may be silent never starts.
    pub fn on_entered(&mut self, now: Instant, rate: Rate) {
        self.rate = rate;
        self.stop_at = self.may_stop().then_some(now);
    }

    /// The microphone was switched. `chance` is uniform in 0..1.
    pub fn on_microphone(&mut self, now: Instant, microphone: Microphone, chance: f64) {
        self.microphone = microphone;
        self.arm(now, chance);
    }

    /// The meeting changed its rate. `chance` is uniform in 0..1.
    pub fn on_rate(&mut self, now: Instant, rate: Rate, chance: f64) {
        if self.rate != rate {
            self.rate = rate;
            self.arm(now, chance);
        }
    }

    /// The user wants data saved while muted, or not. `chance` is uniform in 0..1.
    pub fn on_saves(&mut self, now: Instant, saves: bool, chance: f64) {
        if self.saves != saves {
            self.saves = saves;
            self.arm(now, chance);
        }
    }

    fn may_stop(&self) -> bool {
        (self.saves || self.rate == Rate::Open) && self.microphone == Microphone::Muted
    }

    /// Whether a frame goes out at this tick.
    pub fn is_open(&self, now: Instant) -> bool {
        self.stop_at.is_none_or(|stop| now < stop)
    }

    fn arm(&mut self, now: Instant, chance: f64) {
        let (least, most) = STOP_AFTER;
        self.stop_at =
            self.may_stop().then(|| now + Duration::from_secs_f64(least + (most - least) * chance.clamp(0.0, 1.0)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_the_private_rate_mute_changes_nothing() {
        let now = Instant::now();
        let mut gate = SendGate::new(Microphone::On);
        gate.on_entered(now, Rate::Private);
        gate.on_microphone(now, Microphone::Muted, 0.0);
        assert!(gate.is_open(now + Duration::from_secs(3600)));
    }

    #[test]
    fn in_the_open_rate_a_muted_client_stops_after_five_to_sixty_five_seconds() {
        let now = Instant::now();
        for (chance, seconds) in [(0.0, 5), (1.0, 65)] {
            let mut gate = SendGate::new(Microphone::On);
            gate.on_entered(now, Rate::Private);
            gate.on_microphone(now, Microphone::Muted, chance);
            gate.on_rate(now, Rate::Open, chance);
            assert!(gate.is_open(now + Duration::from_secs(seconds - 1)));
            assert!(!gate.is_open(now + Duration::from_secs(seconds)));
            gate.on_microphone(now, Microphone::On, chance);
            assert!(gate.is_open(now + Duration::from_secs(seconds)));
        }
    }

    #[test]
    fn who_saves_data_stops_while_muted_in_the_private_rate_too() {
        let now = Instant::now();
        let mut gate = SendGate::new(Microphone::Muted);
        gate.on_entered(now, Rate::Private);
        gate.on_saves(now, true, 0.0);
        assert!(gate.is_open(now + Duration::from_secs(4)));
        assert!(!gate.is_open(now + Duration::from_secs(5)));
        gate.on_saves(now, false, 0.0);
        assert!(gate.is_open(now + Duration::from_secs(5)));
    }

    #[test]
    fn who_joins_muted_in_the_open_rate_never_starts() {
        let now = Instant::now();
        let mut gate = SendGate::new(Microphone::Muted);
        gate.on_entered(now, Rate::Open);
        assert!(!gate.is_open(now));
    }
}

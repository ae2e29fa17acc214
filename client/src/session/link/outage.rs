//! What an outage is, from the first suspicion to the first frame that can be sent again, and what is told of it.
//! Pure: time comes in as an argument.

use std::time::{Duration, Instant};

/// How long a mere suspicion is kept from the user: most are over by then, and nothing has happened.
const DISCRETION: Duration = Duration::from_secs(2);

/// The outage there is, if there is one.
pub(super) struct Outages {
    patience: Duration,
    now: Option<Outage>,
}

struct Outage {
    since: Instant,
    why: String,
    announcement: Announcement,
    stage: Stage,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Announcement {
    Due(Instant),
    Made,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    /// Nothing comes on the connection in use. If something does, it was nothing.
    Suspected,
    /// There must be another connection, whatever still comes on this one.
    Certain,
    /// There is another connection, and no sound on it yet.
    Switched,
}

/// A suspicion that was wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Recalled {
    /// How long it lasted, if it had been announced.
    pub(super) announced: Option<Duration>,
}

impl Outages {
    /// No outage. One is over for good when no relay was found for `patience`; with none, outages are not mended.
    pub(super) fn new(patience: Duration) -> Self {
        Self { patience, now: None }
    }

    /// Whether an outage is mended at all.
    pub(super) fn are_mended(&self) -> bool {
        !self.patience.is_zero()
    }

    /// From now on no outage is mended.
    pub(super) fn give_in(&mut self) {
        *self = Self::new(Duration::ZERO);
    }

    /// Whether there is one.
    pub(super) fn is_any(&self) -> bool {
        self.now.is_some()
    }

    /// The connection in use is silent. Gives whether to look for another.
    pub(super) fn on_silent(&mut self, now: Instant, heard: Instant, why: String) -> bool {
        match &self.now {
            None => self.now = Some(Outage::new(heard, why, now + DISCRETION, Stage::Suspected)),
            Some(outage) => return outage.stage == Stage::Switched,
        }
        true
    }

    /// The connection in use is not silent any more.
    pub(super) fn on_heard(&mut self, now: Instant) -> Option<Recalled> {
        let outage = self.now.take_if(|outage| outage.stage == Stage::Suspected)?;
        Some(Recalled { announced: outage.announced_for(now) })
    }

    /// The relay in use says that it is about to close. That is told only when something comes of it.
    pub(super) fn on_closing(&mut self, now: Instant, why: String) {
        let outage = self.now.get_or_insert_with(|| Outage::new(now, why, now + DISCRETION, Stage::Certain));
        outage.stage = Stage::Certain;
    }

    /// There is no other connection to be had, and the one in use goes on.
    pub(super) fn on_nothing_found(&mut self) {
        self.now.take_if(|outage| outage.stage == Stage::Certain);
    }

    /// The connection in use is gone. Gives what to announce.
    pub(super) fn on_ended(&mut self, now: Instant, why: String) -> Option<String> {
        let new = |why| Outage::new(now, why, now, Stage::Certain);
        match &mut self.now {
            Some(outage) => {
                outage.stage = Stage::Certain;
                outage.why = why;
            }
            None => self.now = Some(new(why)),
        }
        self.announce()
    }

    /// Another connection is in use. Gives what to announce just before.
    pub(super) fn on_switched(&mut self) -> Option<String> {
        self.now.as_mut()?.stage = Stage::Switched;
        self.announce()
    }

    /// Sound can flow. When that ends an outage: how long it lasted.
    pub(super) fn on_flowing(&mut self, now: Instant) -> Option<Duration> {
        let outage = self.now.take_if(|outage| outage.stage == Stage::Switched)?;
        Some(now.saturating_duration_since(outage.since))
    }

    /// What to announce now because it has lasted for too long to say nothing.
    pub(super) fn on_time(&mut self, now: Instant) -> Option<String> {
        if self.announcement_due().is_some_and(|due| due <= now) { self.announce() } else { None }
    }

    /// When to announce it, if nothing happens before.
    pub(super) fn announcement_due(&self) -> Option<Instant> {
        match self.now.as_ref().filter(|outage| outage.stage == Stage::Suspected)?.announcement {
            Announcement::Due(due) => Some(due),
            Announcement::Made => None,
        }
    }

    /// When to give up, unless there is a connection.
    pub(super) fn end_due(&self) -> Option<Instant> {
        self.now.as_ref().map(|outage| outage.since + self.patience)
    }

    /// Why there is an outage, and how long it is mended.
    pub(super) fn explain(&self) -> Option<(&str, Duration)> {
        self.now.as_ref().map(|outage| (outage.why.as_str(), self.patience))
    }

    fn announce(&mut self) -> Option<String> {
        let outage = self.now.as_mut()?;
        let made = std::mem::replace(&mut outage.announcement, Announcement::Made);
        (made != Announcement::Made).then(|| outage.why.clone())
    }
}

impl Outage {
    fn new(since: Instant, why: String, announce_at: Instant, stage: Stage) -> Self {
        Self { since, why, announcement: Announcement::Due(announce_at), stage }
    }

    fn announced_for(&self, now: Instant) -> Option<Duration> {
        (self.announcement == Announcement::Made).then(|| now.saturating_duration_since(self.since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(120);
    const SECOND: Duration = Duration::from_secs(1);

    fn why() -> String {
        "silent".to_owned()
    }

    fn suspected(now: Instant) -> Outages {
        let mut outages = Outages::new(PATIENCE);
        assert!(outages.on_silent(now, now - SECOND, why()));
        outages
    }

    #[test]
    fn a_short_suspicion_is_told_to_nobody() {
        let now = Instant::now();
        let mut outages = suspected(now);
        assert!(!outages.on_silent(now + SECOND, now - SECOND, why()), "dialling goes on already");
        assert_eq!(outages.on_time(now + SECOND), None);
        assert_eq!(outages.on_heard(now + SECOND), Some(Recalled { announced: None }));
        assert!(!outages.is_any());
        assert_eq!(outages.on_heard(now + SECOND), None);
    }

    #[test]
    fn a_suspicion_of_two_seconds_is_told_once_and_its_end_too() {
        let now = Instant::now();
        let mut outages = suspected(now);
        assert_eq!(outages.announcement_due(), Some(now + DISCRETION));
        assert_eq!(outages.on_time(now + DISCRETION), Some(why()));
        assert_eq!(outages.on_time(now + DISCRETION), None);
        assert_eq!(outages.announcement_due(), None);
        let recalled = outages.on_heard(now + DISCRETION + SECOND);
        assert_eq!(recalled, Some(Recalled { announced: Some(SECOND * 4) }), "it counts from the last sign of life");
    }

    #[test]
    fn a_switch_is_told_before_and_is_over_when_sound_flows() {
        let now = Instant::now();
        let mut outages = suspected(now);
        assert_eq!(outages.on_flowing(now), None, "the old connection does not count");
        assert_eq!(outages.on_switched(), Some(why()));
        assert_eq!(outages.on_heard(now), None, "a sign of life is no sound");
        assert_eq!(outages.on_flowing(now + SECOND), Some(SECOND * 2));
        assert_eq!(outages.on_flowing(now + SECOND), None);
    }

    #[test]
    fn an_end_is_told_at_once_and_once_however_often_connections_end() {
        let now = Instant::now();
        let mut outages = Outages::new(PATIENCE);
        assert_eq!(outages.on_ended(now, "reset".to_owned()).as_deref(), Some("reset"));
        assert_eq!(outages.on_switched(), None);
        assert_eq!(outages.on_ended(now + SECOND, "busy".to_owned()), None);
        assert_eq!(outages.on_heard(now), None);
        assert_eq!(outages.explain(), Some(("busy", PATIENCE)));
        assert_eq!(outages.end_due(), Some(now + PATIENCE));
    }

    #[test]
    fn a_relay_that_closes_is_left_whatever_still_comes_from_it() {
        let now = Instant::now();
        let mut outages = Outages::new(PATIENCE);
        outages.on_closing(now, "closing".to_owned());
        assert_eq!(outages.on_time(now + PATIENCE), None);
        assert_eq!((outages.on_heard(now), outages.on_flowing(now)), (None, None));
        assert_eq!(outages.on_switched().as_deref(), Some("closing"));
        assert_eq!(outages.on_flowing(now + SECOND), Some(SECOND));
    }

    #[test]
    fn another_connection_that_falls_silent_before_sound_flows_is_replaced_too() {
        let now = Instant::now();
        let mut outages = suspected(now);
        outages.on_switched();
        assert!(outages.on_silent(now + SECOND * 2, now, why()));
        assert_eq!(outages.on_flowing(now + SECOND * 3), Some(SECOND * 4));
    }
}

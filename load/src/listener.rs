//! What one member hears: which frames of which talker, in which order.

use std::sync::Arc;

use conclave_protocol::wire::datagram::{Datagram, Kind};

use crate::meter::Meter;
use crate::room::{Room, Stage};
use crate::talker::{FrameName, Talker};

/// Bits of a word.
const WORD: u32 = u64::BITS;
/// How far back of the first frame others may follow that were sent earlier.
const BEFORE: u32 = 2;
/// A session that ends is not owed what was sent right before: it may still be on its way. Nanoseconds.
pub(crate) const IN_FLIGHT: u64 = 500_000_000;

/// One session of a listener, from its slot to its leaving.
pub(crate) struct Listener {
    stage: Arc<Stage>,
    room: Arc<Room>,
    /// Its own number among the talkers, if it is one.
    own: Option<usize>,
    heard: Vec<Heard>,
    /// From when on the relay owes it frames; 0 before.
    pub(crate) from: u64,
    /// Until when it does; `u64::MAX` while it is there.
    pub(crate) until: u64,
    /// When the last frame came.
    pub(crate) last: u64,
    /// When the first frame came after the relay was started again.
    pub(crate) again: Option<u64>,
    /// Frames of nobody who is measured, and datagrams that are none.
    pub(crate) foreign: u64,
}

/// Which frames of a talker came. All that a frame needs is here, since of a thousand listeners little is in the processor's
/// caches when their turn comes.
struct Heard {
    talker: Arc<Talker>,
    /// What names it in frames: another number in each of its sessions.
    index: Option<u16>,
    /// The tick of the first bit.
    base: u32,
    bits: Vec<u64>,
    highest: Option<u32>,
    reordered: u64,
    duplicates: u64,
}

/// What a listener was owed and got.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(crate) struct Account {
    pub(crate) owed: u64,
    pub(crate) got: u64,
}

impl Listener {
    pub(crate) fn new(room: Arc<Room>, own: Option<usize>) -> Self {
        let heard = room.talkers.iter().map(Heard::of).collect();
        let stage = Arc::clone(&room.stage);
        Self { stage, room, own, heard, from: 0, until: u64::MAX, last: 0, again: None, foreign: 0 }
    }

    /// A datagram came at `now`.
    pub(crate) fn hear(&mut self, now: u64, datagram: &[u8], meter: &mut Meter) {
        let Some((talker, tick, sent)) = self.identify(datagram) else {
            let is_notice = Datagram::parse(datagram).is_some_and(|d| d.kind == Kind::Removal);
            self.foreign += u64::from(!is_notice);
            return;
        };
        self.last = now;
        let restarted = self.stage.restarted();
        if restarted != 0 && self.again.is_none() && sent >= restarted {
            self.again = Some(now);
        }
        if self.heard.get_mut(talker).is_some_and(|heard| heard.note(tick)) {
            meter.record(sent, now.saturating_sub(sent));
        }
    }

    fn identify(&mut self, datagram: &[u8]) -> Option<(usize, u32, u64)> {
        let name = FrameName::of(datagram)?;
        let number = match self.heard.iter().position(|heard| heard.index == Some(name.index())) {
            Some(number) => number,
            None => {
                let number = self.room.talker_of(name.index())?;
                self.heard.get_mut(number)?.index = Some(name.index());
                number
            }
        };
        let (tick, sent) = self.heard.get(number)?.talker.look_up(name)?;
        Some((number, tick, sent))
    }

    /// What it was owed of the frames sent from `start` to `end`, and what it got. `each` is told of every frame that
    /// was owed: when it was sent, and whether it came.
    pub(crate) fn account(&self, start: u64, end: u64, mut each: impl FnMut(u64, bool)) -> Account {
        let mut account = Account::default();
        if self.from == 0 {
            return account;
        }
        let (start, end) = (start.max(self.from), end.min(self.until.saturating_sub(IN_FLIGHT)));
        for (number, heard) in self.heard.iter().enumerate() {
            if self.own == Some(number) {
                continue;
            }
            for (tick, sent) in sent_between(&heard.talker, heard.base, start, end) {
                let came = heard.has(tick);
                account.owed += 1;
                account.got += u64::from(came);
                each(sent, came);
            }
        }
        account
    }

    /// Frames that came after a later one of the same talker.
    pub(crate) fn reordered(&self) -> u64 {
        self.heard.iter().map(|heard| heard.reordered).sum()
    }

    /// Frames that came again.
    pub(crate) fn duplicates(&self) -> u64 {
        self.heard.iter().map(|heard| heard.duplicates).sum()
    }
}

/// Ticks of a talker with a frame sent in that time, from `first` on.
fn sent_between(talker: &Talker, first: u32, start: u64, end: u64) -> impl Iterator<Item = (u32, u64)> {
    let ticks = (first..talker.ticks()).filter_map(move |tick| Some((tick, talker.sent_at(tick)?)));
    ticks.filter(move |(_, sent)| (start..=end).contains(sent))
}

impl Heard {
    /// Nothing of a talker's so far.
    fn of(talker: &Arc<Talker>) -> Self {
        let base = (talker.ticks() / WORD).saturating_sub(BEFORE) * WORD;
        let talker = Arc::clone(talker);
        Self { talker, index: None, base, bits: Vec::new(), highest: None, reordered: 0, duplicates: 0 }
    }

    /// Notes a frame; whether it is new.
    fn note(&mut self, tick: u32) -> bool {
        let Some(place) = tick.checked_sub(self.base) else { return false };
        let (word, bit) = (usize::try_from(place / WORD).unwrap_or(usize::MAX), 1 << (place % WORD));
        if word >= self.bits.len() {
            self.bits.resize(word + 1, 0);
        }
        if self.bits[word] & bit != 0 {
            self.duplicates += 1;
            return false;
        }
        self.bits[word] |= bit;
        match self.highest {
            Some(highest) if tick < highest => self.reordered += 1,
            _ => self.highest = Some(tick),
        }
        true
    }

    fn has(&self, tick: u32) -> bool {
        let Some(place) = tick.checked_sub(self.base) else { return false };
        let word = usize::try_from(place / WORD).ok().and_then(|word| self.bits.get(word));
        word.is_some_and(|word| word & 1 << (place % WORD) != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::room::tests::room;
    use crate::talker::tests::datagram;

    /// Three frames of talker 0, sent at 100, 200 and 300.
    fn spoken() -> (Arc<Room>, Vec<Vec<u8>>) {
        let room = room(2);
        room.seat(9, 0);
        let frames: Vec<_> = (0..3).map(|number| datagram(9, 1, 0, number)).collect();
        for (frame, at) in frames.iter().zip([100, 200, 300]) {
            let tick = room.talkers[0].tick().unwrap();
            room.talkers[0].note_sent(tick, FrameName::of(frame).unwrap(), at);
        }
        (room, frames)
    }

    fn meter() -> Meter {
        Meter::new(Arc::default()).unwrap()
    }

    #[test]
    fn what_did_not_come_is_owed_and_what_came_late_or_twice_is_counted() {
        let (room, frames) = spoken();
        let mut listener = Listener::new(room, None);
        listener.from = 1;
        for frame in [2, 0, 0] {
            listener.hear(1_000, &frames[frame], &mut meter());
        }
        let mut owed = Vec::new();
        let account = listener.account(0, 400, |sent, came| owed.push((sent, came)));
        assert_eq!(account, Account { owed: 3, got: 2 });
        assert_eq!(owed, [(100, true), (200, false), (300, true)]);
        assert_eq!((listener.reordered(), listener.duplicates(), listener.foreign), (1, 1, 0));
    }

    #[test]
    fn nothing_is_owed_outside_of_the_window_or_the_session_or_to_the_talker_itself() {
        let (room, frames) = spoken();
        let mut listener = Listener::new(Arc::clone(&room), None);
        assert_eq!(listener.account(0, 400, |_, _| {}), Account::default(), "no slot");
        listener.from = 150;
        assert_eq!(listener.account(0, 250, |_, _| {}).owed, 1);
        listener.until = 280 + IN_FLIGHT;
        assert_eq!(listener.account(0, 400, |_, _| {}).owed, 1);
        let mut talker = Listener::new(room, Some(0));
        talker.from = 1;
        assert_eq!(talker.account(0, 400, |_, _| {}).owed, 0);
        talker.hear(1_000, &[1, 0, 0], &mut meter());
        talker.hear(1_000, &datagram(55, 1, 0, 0), &mut meter());
        talker.hear(1_000, &[2, 0, 0, 1], &mut meter());
        assert_eq!(talker.foreign, 2, "a removal notice is the host's");
        drop(frames);
    }
}

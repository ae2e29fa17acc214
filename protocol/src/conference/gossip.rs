//! What this member was told by talkers, shown to the others from time to time, so that nobody can tell two members two
//! different things (`docs/protocol.md` §9.6).

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::pulse::TO_ALL;
use super::seat::Seat;
use crate::epoch::broadcast::MAX_HEADS;
use crate::id::MemberIndex;
use crate::label;
use crate::seal::SealHead;

/// Between two messages of one member. A talker is shown every 5 s of speech at the most; with half a second until its
/// seal, and this, whoever was told something else knows it within 10 s.
const EVERY: Duration = Duration::from_secs(4);
/// Messages of one member that are looked at in [`WITHIN`]: all that an honest one sends in half a minute, which may come
/// at once after an outage. Each head that differs costs two signature checks: with these limits a hostile member takes
/// a five-hundredth of a core.
const LOOKED_AT: u8 = 8;
const WITHIN: Duration = Duration::from_secs(10);

/// Heads that wait to be shown.
#[derive(Default)]
pub(super) struct Gossip {
    heads: Vec<SealHead>,
    shown: Option<Instant>,
    due: Option<Instant>,
    tick: u32,
    /// Of those who have shown something lately, since when and how often.
    looked_at: BTreeMap<MemberIndex, (Instant, u8)>,
}

impl Gossip {
    /// A head that was verified.
    pub(super) fn note(&mut self, now: Instant, head: SealHead) {
        if self.heads.len() >= MAX_HEADS {
            self.heads.remove(0);
        }
        self.heads.push(head);
        self.due.get_or_insert(self.shown.map_or(now, |shown| (shown + EVERY).max(now)));
    }

    /// The heads to be shown now, if any.
    pub(super) fn take(&mut self, now: Instant, seat: &Seat) -> Option<Vec<SealHead>> {
        self.due.take_if(|due| *due <= now)?;
        self.tick = self.tick.wrapping_add(1);
        self.shown = Some(now);
        let heads = std::mem::take(&mut self.heads);
        shows(seat, self.tick).then_some(heads)
    }

    /// Whether what a member shows is looked at; it counts.
    pub(super) fn may_show(&mut self, now: Instant, from: MemberIndex) -> bool {
        self.looked_at.retain(|_, (since, _)| now.saturating_duration_since(*since) < WITHIN);
        let (_, count) = self.looked_at.entry(from).or_insert((now, 0));
        *count = count.saturating_add(1);
        *count <= LOOKED_AT
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.due
    }
}

/// In a large meeting about sixteen members show at a time, who follow from the chain, so that nobody chooses them.
fn shows(seat: &Seat, tick: u32) -> bool {
    let members = seat.roster().len() as u64;
    let Some(chain) = seat.chain_hash() else { return false };
    if members <= TO_ALL as u64 {
        return true;
    }
    let index = seat.index().0.to_be_bytes();
    let drawn = label::hash(label::SHOWS, &[b"heads", &chain.0, &tick.to_be_bytes(), &index]);
    let drawn = u32::from_be_bytes([drawn[0], drawn[1], drawn[2], drawn[3]]);
    // About sixteen of all, by the share of each.
    (u64::from(drawn) * members) >> 32 < TO_ALL as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_shows_too_much_is_not_looked_at_for_a_while_and_the_others_are() {
        let (mut gossip, start) = (Gossip::default(), Instant::now());
        let looked_at = (0..1_000).filter(|_| gossip.may_show(start, MemberIndex(3))).count();
        assert_eq!(looked_at, usize::from(LOOKED_AT));
        assert!(gossip.may_show(start, MemberIndex(4)));
        assert!(gossip.may_show(start + WITHIN, MemberIndex(3)));
        assert_eq!(gossip.looked_at.len(), 1, "nothing is kept of who shows nothing");
        // As often as an honest member does.
        assert!((1..1_000).all(|n| gossip.may_show(start + WITHIN + EVERY * n, MemberIndex(3))));
    }
}

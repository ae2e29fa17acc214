//! Publication of sealing keys (`docs/protocol.md` §17.3): when a member is gone for good, everybody learns the secret
//! half of its `vk`. From then on anybody could have made its seals, so that nobody can prove to the world later who
//! said what. Best effort: it delays nothing, and who goes without a word is not published.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::epoch::broadcast::{Published, SealingSeed};
use crate::epoch::roster::{Member, Roster};
use crate::id::MemberIndex;
use crate::sign::PublicKey;

/// From a member's good-bye to the publication of its key (DESIGN §8): ten times as long as a seal may take, so that no
/// seal is on its way any more.
const PUBLISH_AFTER: Duration = Duration::from_secs(15);

/// What a published key is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Shown {
    /// That of a member who is gone, or of its sender at the meeting's end.
    Good,
    /// Of nobody known here.
    Unknown,
    /// That of somebody who is still here: whoever holds it can speak in its name.
    Stolen,
}

/// What one member knows of it.
#[derive(Default)]
pub(super) struct Publication {
    /// `vk` of those who are gone.
    gone: BTreeMap<MemberIndex, PublicKey>,
    /// What those gave who went, until its time; published by whoever leads then.
    waiting: BTreeMap<MemberIndex, (Instant, SealingSeed)>,
    published: BTreeMap<MemberIndex, SealingSeed>,
    has_ended: bool,
}

impl Publication {
    pub(super) fn on_departed(&mut self, departed: &[Member]) {
        self.gone.extend(departed.iter().map(|member| (member.index, member.cert.keys.sealing)));
    }

    /// The meeting is over: everybody publishes its own.
    pub(super) fn on_end(&mut self) {
        self.has_ended = true;
    }

    pub(super) fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// A member gives its own key as it goes, or a leader what it has not published yet. `false` when it is not the
    /// member's.
    pub(super) fn keep(&mut self, now: Instant, roster: &Roster, index: MemberIndex, seed: SealingSeed) -> bool {
        let own = roster.member(index).map(|member| member.cert.keys.sealing);
        let is_right = own.or(self.gone.get(&index).copied()) == Some(seed.public());
        if is_right && !self.published.contains_key(&index) {
            self.waiting.entry(index).or_insert((now + PUBLISH_AFTER, seed));
        }
        is_right
    }

    /// What is to be published now: of those who are gone; at the end, all.
    pub(super) fn due(&self, now: Instant) -> Vec<Published> {
        let is_due =
            |index: &MemberIndex, due: &Instant| self.has_ended || (*due <= now && self.gone.contains_key(index));
        let due = self.waiting.iter().filter(|(index, (due, _))| is_due(index, due));
        due.map(|(index, (_, seed))| Published { index: *index, seed: seed.clone() }).collect()
    }

    /// What waits, for a successor.
    pub(super) fn waiting(&self) -> Vec<Published> {
        let waiting = self.waiting.iter();
        waiting.map(|(index, (_, seed))| Published { index: *index, seed: seed.clone() }).collect()
    }

    /// A key that `from` published, or this member itself.
    pub(super) fn on_published(&mut self, roster: &Roster, from: MemberIndex, shown: Published) -> Shown {
        let Published { index, seed } = shown;
        let key = seed.public();
        let is_here = |member: &Member| member.index == index && member.cert.keys.sealing == key;
        let is_last_word = self.has_ended && from == index && roster.member(index).is_some_and(is_here);
        if is_last_word || self.gone.get(&index) == Some(&key) {
            self.waiting.remove(&index);
            self.published.insert(index, seed);
            Shown::Good
        } else if roster.members().any(|member| member.cert.keys.sealing == key) {
            Shown::Stolen
        } else {
            Shown::Unknown
        }
    }

    /// Whether a member's seals count no more: anybody can make them by now.
    pub(super) fn is_published(&self, index: MemberIndex) -> bool {
        self.published.contains_key(&index)
    }

    pub(super) fn published(&self) -> impl Iterator<Item = (MemberIndex, &SealingSeed)> {
        self.published.iter().map(|(index, seed)| (*index, seed))
    }

    /// When the next is due.
    pub(super) fn poll_timeout(&self, looked: Instant) -> Option<Instant> {
        self.waiting.values().map(|(due, _)| *due).filter(|due| *due > looked).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Epoch, MeetingId};
    use crate::identity::{DisplayName, Identity, JoinKeys, Role};
    use crate::sign::KeyPair;
    use crate::time::UnixMillis;

    fn seed(index: u16) -> SealingSeed {
        SealingSeed::new([index as u8 + 1; 32])
    }

    fn member(index: u16) -> Member {
        let name = DisplayName::parse("Bob").expect("a name");
        let routing = KeyPair::from_seed(&[9; 32]).public();
        let keys = JoinKeys { session: [0; 32], sealing: seed(index).public(), routing };
        let cert = Identity::kept(&[7; 32]).certify(MeetingId([1; 20]), Role::Member, keys, &name, UnixMillis(1));
        Member { index: MemberIndex(index), cert, joined: Epoch::ZERO, name }
    }

    fn of(index: u16, seed: SealingSeed) -> Published {
        Published { index: MemberIndex(index), seed }
    }

    #[test]
    fn a_key_is_published_a_while_after_its_owner_is_gone_and_not_before() {
        let now = Instant::now();
        let (mut all, mut roster) = (Publication::default(), Roster::default());
        roster.insert(member(1));
        roster.insert(member(2));
        let one = MemberIndex(1);
        assert!(!all.keep(now, &roster, one, seed(2)), "a key of somebody else");
        assert!(all.keep(now, &roster, one, seed(1)));
        let later = now + PUBLISH_AFTER;
        assert!(all.due(later).is_empty(), "it is still here");
        all.on_departed(&[roster.remove(one).expect("a member")]);
        assert!(all.due(later - Duration::from_millis(1)).is_empty());
        assert_eq!(all.due(later), [of(1, seed(1))]);
        assert_eq!(all.on_published(&roster, MemberIndex(0), of(1, seed(1))), Shown::Good);
        assert!(all.is_published(one) && all.due(later).is_empty());
    }

    #[test]
    fn a_key_of_somebody_who_is_here_is_stolen_until_the_end_and_then_its_owner_s_to_show() {
        let (mut all, mut roster) = (Publication::default(), Roster::default());
        roster.insert(member(2));
        for (index, from) in [(2, 2), (2, 0), (5, 0)] {
            assert_eq!(all.on_published(&roster, MemberIndex(from), of(index, seed(2))), Shown::Stolen);
        }
        assert_eq!(all.on_published(&roster, MemberIndex(0), of(1, seed(1))), Shown::Unknown);
        all.on_end();
        assert_eq!(all.on_published(&roster, MemberIndex(0), of(2, seed(2))), Shown::Stolen);
        assert!(!all.is_published(MemberIndex(2)));
        assert_eq!(all.on_published(&roster, MemberIndex(2), of(2, seed(2))), Shown::Good);
        assert!(all.is_published(MemberIndex(2)));
    }
}

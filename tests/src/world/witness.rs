//! Watches a whole world and fails it at the step that breaks a promise.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use conclave_protocol::epoch::statement::ChainHash;
use conclave_protocol::sframe::frame::{DATAGRAM_LEN, Frame};
use conclave_protocol::sframe::header::Header;
use conclave_protocol::sframe::{HEADER_LEN, KeyName};
use conclave_protocol::wire::datagram;

use super::peer::{Peer, Voice};

/// A removed member opens nothing that was sealed later than this after the act (DESIGN §5).
pub const REMOVAL_LIMIT: Duration = Duration::from_millis(500);

/// A frame that was sealed.
struct Sent {
    at: Duration,
    chain: [u8; 32],
    voice: Voice,
}

/// An epoch, as somebody in it sees it.
struct Seen {
    leader: u16,
    roster: BTreeMap<u16, String>,
}

/// What is known from outside about a meeting.
#[derive(Default)]
pub struct Witness {
    /// SFrame headers, hence (KID, CTR) pairs, that were sealed with.
    headers: HashSet<[u8; HEADER_LEN]>,
    sent: HashMap<(u16, u32), Sent>,
    /// By the head of the chain: what splits has no common epochs from there on.
    epochs: HashMap<[u8; 32], Seen>,
    /// The chain that each index is on, at each epoch. An index is never on two.
    chains: HashMap<(u16, u32), [u8; 32]>,
    /// Who made the epoch of that number in that term.
    leaders: BTreeMap<(u32, u32, u16), [u8; 32]>,
    removed: BTreeMap<u16, Duration>,
    silenced: u64,
}

impl Witness {
    /// A client has sealed the frame of its tick `seq`.
    pub fn sealed(&mut self, now: Duration, peer: &Peer, seq: u32, bytes: &[u8; DATAGRAM_LEN]) {
        let header = bytes[datagram::HEADER_LEN..].first_chunk::<HEADER_LEN>().expect("a datagram holds a header");
        assert!(self.headers.insert(*header), "a (KID, CTR) pair was sealed with twice");
        let (parsed, len) = Header::decode(header).expect("what is sealed has a header");
        assert_eq!(len, HEADER_LEN, "a header of another length");
        let name = KeyName::of(parsed.kid).expect("what is sealed names a key");
        let ChainHash(chain) = peer.conference.chain_hash_at(name.epoch).expect("who seals is in the epoch");
        let voice = peer.voice;
        self.sent.insert((name.index.0, seq), Sent { at: now, chain, voice });
    }

    /// A client has opened a frame that is said to be of `talker`.
    pub fn opened(&mut self, now: Duration, peer: &mut Peer, talker: u16, frame: &Frame<'_>) {
        let name = &peer.name;
        let sent = self.sent.get(&(talker, frame.seq));
        let sent = sent.expect("a frame was opened that its talker has not sent");
        if frame.opus.is_empty() {
            self.silenced += 1;
        } else {
            assert_eq!(frame.opus, sent.voice.packet(frame.seq), "{name} hears what {talker} has not said");
        }
        let again = peer.opened.insert((talker, frame.seq), now);
        let seq = frame.seq;
        assert!(again.is_none(), "{name} was given frame {seq} of {talker} twice: at {again:?} and {now:?}");
        let index = peer.conference.index().expect("who opens is a member").0;
        // Nobody may have stopped at an epoch that the next one followed at once.
        let Some(Seen { roster, .. }) = self.epochs.get(&sent.chain) else { return };
        assert_eq!(roster.get(&index), Some(name), "{name} opens a frame of an epoch that it is not in");
        assert!(roster.contains_key(&talker), "{talker} is heard in an epoch that it is not in");
        if let Some(act) = self.removed.get(&index) {
            let since = sent.at.saturating_sub(*act);
            assert!(since <= REMOVAL_LIMIT, "{name} opens a frame sealed {since:?} after it was removed");
        }
    }

    /// A client has come to an epoch: everybody in it must see the same history and roster.
    pub fn in_epoch(&mut self, peer: &Peer) {
        let conference = &peer.conference;
        let (Some(ChainHash(chain)), Some(leader), Some(index)) =
            (conference.chain_hash(), conference.leader(), conference.index())
        else {
            return;
        };
        let (epoch, term) = (conference.epoch().number(), conference.term().0);
        let roster = peer.roster();
        assert!(roster.values().any(|name| *name == peer.name), "{} is not in its own roster", peer.name);
        let leader = leader.0;
        let seen = self.epochs.entry(chain).or_insert_with(|| Seen { leader, roster: roster.clone() });
        assert_eq!(seen.leader, leader, "two members of one epoch have two leaders");
        assert_eq!(seen.roster, roster, "two members of epoch {epoch} have another roster");
        let first = *self.leaders.entry((term, epoch, leader)).or_insert(chain);
        assert_eq!(first, chain, "a leader has made epoch {epoch} of term {term} twice");
        let on = *self.chains.entry((index.0, epoch)).or_insert(chain);
        assert_eq!(on, chain, "{} is in two histories at once", peer.name);
    }

    /// The host puts somebody out.
    pub fn removed(&mut self, now: Duration, index: u16) {
        self.removed.insert(index, now);
    }

    /// The ticks that a talker sealed in a time, in no order.
    pub fn ticks(&self, talker: u16, from: Duration, to: Duration) -> impl Iterator<Item = u32> + '_ {
        let ticks = self.sent.iter().filter(move |((index, _), _)| *index == talker);
        ticks.filter(move |(_, sent)| from <= sent.at && sent.at < to).map(|((_, seq), _)| *seq)
    }

    /// How many frames came as silence instead of what was said.
    pub fn silenced(&self) -> u64 {
        self.silenced
    }

    /// How many epochs there have been.
    pub fn epochs(&self) -> usize {
        self.epochs.len()
    }
}

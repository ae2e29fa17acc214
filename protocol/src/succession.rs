//! The line of succession: whom the host has made co-hosts, and in which order they take over
//! (`docs/protocol.md` §5.5). Relays and members check it with AK alone.

use crate::id::{MeetingId, MemberIndex};
use crate::label;
use crate::sign::{BadSignature, KeyPair, PublicKey, Signature};
use crate::wire::codec::{Malformed, Reader, Wire, Writer};

/// A co-host: its slot, the X25519 key to which guests shake hands when it leads, and the key with which it signs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Delegate {
    /// Slot and index.
    pub slot: MemberIndex,
    /// Its `ms`, which is the responder static of handshakes that it answers.
    pub hs: [u8; 32],
    /// Its own authority key.
    pub authority: PublicKey,
}

/// All co-hosts in the order in which they take over, signed by AK. A newer line replaces the older as a whole, so
/// whoever is no longer in it has lost every right.
///
/// ```text
/// MeetingId 20 ‖ seq u32 ‖ delegates: u16 × (slot u16 ‖ hs 32 ‖ ak 32) ‖ signature 64
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Line {
    /// Grows with every change; the highest counts.
    pub seq: u32,
    /// First the one that takes over first.
    pub delegates: Vec<Delegate>,
    meeting: MeetingId,
    signature: Signature,
}

/// The rank of a member: who has the lower one leads, and no act reaches a member of a rank as low as one's own.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Rank {
    /// The host.
    Host,
    /// A co-host, counted from 1.
    Delegate(u16),
    /// Everybody else.
    Member,
}

impl Line {
    /// Most co-hosts of a meeting.
    pub const MAX_DELEGATES: usize = 8;
    /// Longest encoding.
    pub const MAX_LEN: usize = MeetingId::LEN + 4 + 2 + Self::MAX_DELEGATES * (2 + 32 + 32) + 64;

    /// Signs a line.
    pub fn sign(meeting: MeetingId, seq: u32, delegates: Vec<Delegate>, authority: &KeyPair) -> Self {
        let signature = authority.sign(label::LINE_SIG, &[&Self::body(meeting, seq, &delegates)]);
        Self { seq, delegates, meeting, signature }
    }

    /// Checks AK's signature and the meeting.
    ///
    /// # Errors
    /// [`BadSignature`], for another meeting too.
    pub fn verify(&self, authority: &PublicKey, meeting: MeetingId) -> Result<(), BadSignature> {
        if self.meeting != meeting {
            return Err(BadSignature);
        }
        authority.verify(label::LINE_SIG, &[&Self::body(meeting, self.seq, &self.delegates)], &self.signature)
    }

    /// The co-host of that slot.
    pub fn delegate(&self, slot: MemberIndex) -> Option<&Delegate> {
        self.delegates.iter().find(|delegate| delegate.slot == slot)
    }

    /// What stands for the line in a statement: `H("conclave/1 line hash" ‖ the line)`.
    pub fn digest(&self) -> [u8; 32] {
        label::hash(label::LINE_HASH, &[&self.encode()])
    }

    fn body(meeting: MeetingId, seq: u32, delegates: &[Delegate]) -> Vec<u8> {
        let mut w = Writer::default();
        meeting.write(&mut w);
        w.u32(seq);
        w.list(delegates);
        w.into_bytes()
    }
}

/// The rank of `slot` in a line; without one there is only the host.
pub fn rank(line: Option<&Line>, slot: MemberIndex) -> Rank {
    if slot == MemberIndex::HOST {
        return Rank::Host;
    }
    let place = line.and_then(|line| line.delegates.iter().position(|delegate| delegate.slot == slot));
    // A line has at most eight places.
    place.map_or(Rank::Member, |place| Rank::Delegate(place as u16 + 1))
}

/// The key with which `slot` signs what leaders sign: AK for the host, a co-host's own key, nobody else's.
pub fn authority_of(line: Option<&Line>, host: &PublicKey, slot: MemberIndex) -> Option<PublicKey> {
    if slot == MemberIndex::HOST {
        return Some(*host);
    }
    line?.delegate(slot).map(|delegate| delegate.authority)
}

impl Wire for Delegate {
    fn write(&self, w: &mut Writer) {
        self.slot.write(w);
        w.array(&self.hs);
        self.authority.write(w);
    }
    fn read(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        let slot = MemberIndex::read(r)?;
        if slot == MemberIndex::HOST || slot > MemberIndex::MAX {
            return Err(Malformed("a co-host of an impossible slot"));
        }
        Ok(Self { slot, hs: r.array()?, authority: PublicKey::read(r)? })
    }
}

impl Wire for Line {
    fn write(&self, w: &mut Writer) {
        w.array(&Self::body(self.meeting, self.seq, &self.delegates));
        self.signature.write(w);
    }
    fn read(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        let meeting = MeetingId::read(r)?;
        let seq = r.u32()?;
        let delegates: Vec<Delegate> = r.list(Self::MAX_DELEGATES)?;
        let is_double = |(i, d): (usize, &Delegate)| delegates[..i].iter().any(|other| other.slot == d.slot);
        if delegates.iter().enumerate().any(is_double) {
            return Err(Malformed("a co-host twice in the line"));
        }
        Ok(Self { seq, delegates, meeting, signature: Signature::read(r)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_who_signs_and_who_ranks_where_and_cannot_be_changed() {
        let meeting = MeetingId([7; 20]);
        let (host, cohost) = (KeyPair::from_seed(&[1; 32]), KeyPair::from_seed(&[2; 32]));
        let delegate = |slot| Delegate { slot: MemberIndex(slot), hs: [slot as u8; 32], authority: cohost.public() };
        let line = Line::sign(meeting, 3, vec![delegate(5), delegate(2)], &host);
        let read = Line::decode(&line.encode()).expect("what was written");
        assert_eq!(read.verify(&host.public(), meeting), Ok(()));
        assert!(read.verify(&cohost.public(), meeting).is_err());
        assert!(read.verify(&host.public(), MeetingId([8; 20])).is_err());
        assert_eq!(rank(Some(&read), MemberIndex(5)), Rank::Delegate(1));
        assert!(rank(Some(&read), MemberIndex(0)) < rank(Some(&read), MemberIndex(5)));
        assert!(rank(Some(&read), MemberIndex(2)) < rank(Some(&read), MemberIndex(9)));
        assert_eq!(authority_of(Some(&read), &host.public(), MemberIndex(2)), Some(cohost.public()));
        assert_eq!(authority_of(Some(&read), &host.public(), MemberIndex(9)), None);
        let twice = Line::sign(meeting, 4, vec![delegate(5), delegate(5)], &host);
        assert!(Line::decode(&twice.encode()).is_err());
    }
}

//! What members say to all others at once, under a key that only the epoch's members hold (`docs/protocol.md` §7.7).
//!
//! ```text
//! packet:     kind u8 6 ‖ epoch u32 ‖ counter u32 ‖ ciphertext ‖ tag 16
//! B_i       = HKDF-Expand(ctl_e, "conclave/1 broadcast" ‖ index u16)
//! nonce     = zeros 8 ‖ counter u32            AAD = kind ‖ epoch ‖ counter ‖ index u16 of the sender
//! plaintext = type u8 ‖ body
//! ```
//!
//! The relay names the sender, and the key proves that a member of the epoch sealed it; what must be the sender's own
//! carries its signature.

use std::collections::BTreeMap;

use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{ChaCha20Poly1305, Key, Nonce};
use zeroize::Zeroizing;

use super::schedule::Control;
use super::statement::ChainHash;
use crate::id::{Epoch, MeetingId, MemberIndex, Term};
use crate::identity::Identity;
use crate::label;
use crate::seal::SealHead;
use crate::secret::Secret;
use crate::sign::{BadSignature, KeyPair, PublicKey, Signature};
use crate::time::UnixMillis;
use crate::wire::codec::{Malformed, Reader, Wire, Writer};

/// First byte of a broadcast.
pub const PACKET_KIND: u8 = 6;
/// Kind, epoch and counter.
const HEAD: usize = 1 + 4 + 4;
const TAG: usize = 16;

/// A leader's sign of life, each chained to the one before and signed.
///
/// ```text
/// term u32 ‖ epoch u32 ‖ n u32 ‖ T_e 32 ‖ previous 32 ‖ time u64 ‖ unconfirmed: u16 × u16 ‖ signature 64
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Heartbeat {
    /// Of the leader.
    pub term: Term,
    /// e.
    pub epoch: Epoch,
    /// Counts the heartbeats of a term, from 1.
    pub n: u32,
    /// The head of the chain.
    pub chain: ChainHash,
    /// [`Heartbeat::digest`] of heartbeat n − 1; zeros for the first of a term.
    pub previous: [u8; 32],
    /// The leader's clock; informative.
    pub time: UnixMillis,
    /// Members whose confirmation of T_e the leader has not, the lowest first; at most [`Heartbeat::MAX_UNCONFIRMED`].
    pub unconfirmed: Vec<MemberIndex>,
    signature: Signature,
}

/// What a leader puts into a heartbeat.
pub struct Beat {
    /// See [`Heartbeat::term`]; likewise the others.
    pub term: Term,
    /// e.
    pub epoch: Epoch,
    /// The number.
    pub n: u32,
    /// T_e.
    pub chain: ChainHash,
    /// Of the one before.
    pub previous: [u8; 32],
    /// The leader's clock.
    pub time: UnixMillis,
    /// Who has not confirmed.
    pub unconfirmed: Vec<MemberIndex>,
}

impl Heartbeat {
    /// Most members named as unconfirmed: more than that are a meeting that has just changed.
    pub const MAX_UNCONFIRMED: usize = 256;

    /// Signs a heartbeat with the leader's authority key.
    pub fn sign(beat: Beat, authority: &KeyPair) -> Self {
        let Beat { term, epoch, n, chain, previous, time, mut unconfirmed } = beat;
        unconfirmed.truncate(Self::MAX_UNCONFIRMED);
        let signature = Signature([0; 64]);
        let mut heartbeat = Self { term, epoch, n, chain, previous, time, unconfirmed, signature };
        heartbeat.signature = authority.sign(label::HEARTBEAT_SIG, &[&heartbeat.body()]);
        heartbeat
    }

    /// Checks the leader's signature.
    ///
    /// # Errors
    /// [`BadSignature`].
    pub fn verify(&self, authority: &PublicKey) -> Result<(), BadSignature> {
        authority.verify(label::HEARTBEAT_SIG, &[&self.body()], &self.signature)
    }

    /// What the next one chains to: `H("conclave/1 heartbeat hash" ‖ the heartbeat without its signature)`.
    pub fn digest(&self) -> [u8; 32] {
        label::hash(label::HEARTBEAT_HASH, &[&self.body()])
    }

    fn body(&self) -> Vec<u8> {
        let mut w = Writer::default();
        self.term.write(&mut w);
        self.epoch.write(&mut w);
        w.u32(self.n);
        w.array(&self.chain.0);
        w.array(&self.previous);
        self.time.write(&mut w);
        w.list(&self.unconfirmed);
        w.into_bytes()
    }
}

impl Wire for Heartbeat {
    fn write(&self, w: &mut Writer) {
        w.array(&self.body());
        self.signature.write(w);
    }
    fn read(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            term: Term::read(r)?,
            epoch: Epoch::read(r)?,
            n: r.u32()?,
            chain: ChainHash(r.array()?),
            previous: r.array()?,
            time: UnixMillis::read(r)?,
            unconfirmed: r.list(Self::MAX_UNCONFIRMED)?,
            signature: Signature::read(r)?,
        })
    }
}

/// A member's word to all that it holds T_e, with the value that it had committed to before e.
///
/// ```text
/// term u32 ‖ epoch u32 ‖ n u32 ‖ revealed u8 ‖ r 32 (zeros unless revealed) ‖ signature 64
/// signature = Sig_IK("conclave/1 confirm" ‖ T_e ‖ index u16 ‖ term ‖ epoch ‖ n ‖ revealed ‖ r)
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Confirm {
    /// Term of the newest heartbeat heard.
    pub term: Term,
    /// e.
    pub epoch: Epoch,
    /// Number of the newest heartbeat heard in the term; 0 before the first.
    pub n: u32,
    /// r, if the statement holds the member's commitment to it.
    pub value: Option<[u8; 32]>,
    signature: Signature,
}

impl Confirm {
    /// Signs a confirmation with the member's identity.
    pub fn sign(
        identity: &Identity,
        index: MemberIndex,
        chain: &ChainHash,
        (term, epoch, n): (Term, Epoch, u32),
        value: Option<[u8; 32]>,
    ) -> Self {
        let mut confirm = Self { term, epoch, n, value, signature: Signature([0; 64]) };
        confirm.signature = identity.sign(label::CONFIRM, &[&chain.0, &index.0.to_be_bytes(), &confirm.body()]);
        confirm
    }

    /// Checks that the owner of `identity` holds `chain`.
    ///
    /// # Errors
    /// [`BadSignature`].
    pub fn verify(&self, identity: &PublicKey, index: MemberIndex, chain: &ChainHash) -> Result<(), BadSignature> {
        identity.verify(label::CONFIRM, &[&chain.0, &index.0.to_be_bytes(), &self.body()], &self.signature)
    }

    fn body(&self) -> Vec<u8> {
        let mut w = Writer::default();
        self.term.write(&mut w);
        self.epoch.write(&mut w);
        w.u32(self.n);
        w.u8(u8::from(self.value.is_some()));
        w.array(&self.value.unwrap_or_default());
        w.into_bytes()
    }
}

impl Wire for Confirm {
    fn write(&self, w: &mut Writer) {
        w.array(&self.body());
        self.signature.write(w);
    }
    fn read(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        let term = Term::read(r)?;
        let epoch = Epoch::read(r)?;
        let n = r.u32()?;
        let value = match (r.u8()?, r.array()?) {
            (0, zeros) if zeros == [0; 32] => None,
            (1, value) => Some(value),
            _ => return Err(Malformed("a value that is neither shown nor hidden")),
        };
        Ok(Self { term, epoch, n, value, signature: Signature::read(r)? })
    }
}

/// A confirmation as the leader passes it on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Passed {
    /// Whose it is.
    pub index: MemberIndex,
    /// What it said.
    pub confirm: Confirm,
}

impl Wire for Passed {
    fn write(&self, w: &mut Writer) {
        self.index.write(w);
        self.confirm.write(w);
    }
    fn read(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self { index: MemberIndex::read(r)?, confirm: Confirm::read(r)? })
    }
}

/// Most confirmations passed on in one message: 128 of 111 bytes stay below one relay message.
pub const MAX_PASSED: usize = 128;

/// Most heads of seals in one message.
pub const MAX_HEADS: usize = 16;

/// Longest text that a member writes at once, in bytes of UTF-8.
pub const MAX_TEXT: usize = 2_000;

/// What a member says to all in person; its author signs it with `vk`, so it can be denied when the secret half of `vk`
/// has been published (DESIGN §3).
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Said {
    /// Writes: 1 to [`MAX_TEXT`] bytes.
    Chat {
        /// The text.
        text: String,
        /// Of `vk`.
        signature: Signature,
    },
    /// Raises its hand, or lowers it.
    Hand {
        /// Raised.
        on: bool,
        /// Of `vk`.
        signature: Signature,
    },
    /// Records the meeting, or has ended that.
    Recording {
        /// Records.
        on: bool,
        /// Of `vk`.
        signature: Signature,
    },
}

/// Where something was said: bound by its signature.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    /// The meeting.
    pub meeting: MeetingId,
    /// The epoch under whose key it was sent.
    pub epoch: Epoch,
    /// The author.
    pub index: MemberIndex,
    /// Its number among the author's messages of the epoch.
    pub counter: u32,
}

impl Place {
    fn bytes(&self) -> Vec<u8> {
        let mut w = Writer::default();
        self.meeting.write(&mut w);
        self.epoch.write(&mut w);
        self.index.write(&mut w);
        w.u32(self.counter);
        w.into_bytes()
    }
}

impl Said {
    /// Signs a text.
    pub fn chat(place: &Place, text: String, sealing: &KeyPair) -> Self {
        let signature = sealing.sign(label::CHAT, &[&place.bytes(), text.as_bytes()]);
        Self::Chat { text, signature }
    }

    /// Signs a raised or lowered hand.
    pub fn hand(place: &Place, on: bool, sealing: &KeyPair) -> Self {
        let signature = sealing.sign(label::HAND, &[&place.bytes(), &[u8::from(on)]]);
        Self::Hand { on, signature }
    }

    /// Signs that a recording runs, or has ended.
    pub fn recording(place: &Place, on: bool, sealing: &KeyPair) -> Self {
        let signature = sealing.sign(label::RECORDING, &[&place.bytes(), &[u8::from(on)]]);
        Self::Recording { on, signature }
    }

    /// Checks that the owner of `sealing` (`vk`) said this there.
    ///
    /// # Errors
    /// [`BadSignature`].
    pub fn verify(&self, place: &Place, sealing: &PublicKey) -> Result<(), BadSignature> {
        match self {
            Self::Chat { text, signature } => {
                sealing.verify(label::CHAT, &[&place.bytes(), text.as_bytes()], signature)
            }
            Self::Hand { on, signature } => sealing.verify(label::HAND, &[&place.bytes(), &[u8::from(*on)]], signature),
            Self::Recording { on, signature } => {
                sealing.verify(label::RECORDING, &[&place.bytes(), &[u8::from(*on)]], signature)
            }
        }
    }
}

impl Wire for Said {
    fn write(&self, w: &mut Writer) {
        match self {
            Self::Chat { text, signature } => {
                w.u8(1);
                w.bytes(text.as_bytes());
                signature.write(w);
            }
            Self::Hand { on, signature } => {
                w.u8(2);
                w.u8(u8::from(*on));
                signature.write(w);
            }
            Self::Recording { on, signature } => {
                w.u8(3);
                w.u8(u8::from(*on));
                signature.write(w);
            }
        }
    }
    fn read(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        match r.u8()? {
            1 => {
                let text = std::str::from_utf8(r.bytes(MAX_TEXT)?).map_err(|_| Malformed("text"))?.to_owned();
                if text.is_empty() {
                    return Err(Malformed("a text without text"));
                }
                Ok(Self::Chat { text, signature: Signature::read(r)? })
            }
            2 => Ok(Self::Hand { on: read_switch(r)?, signature: Signature::read(r)? }),
            3 => Ok(Self::Recording { on: read_switch(r)?, signature: Signature::read(r)? }),
            _ => Err(Malformed("unknown word to all")),
        }
    }
}

fn read_switch(r: &mut Reader<'_>) -> Result<bool, Malformed> {
    match r.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Malformed("neither on nor off")),
    }
}

/// The secret half of a `vk`, on its way to being no secret any more. Zeroised when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct SealingSeed(Zeroizing<[u8; 32]>);

impl SealingSeed {
    /// Takes the 32 bytes over.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// That of a key pair.
    pub fn of(sealing: &KeyPair) -> Self {
        Self(sealing.seed())
    }

    /// The whole key: whoever has it can make its owner's seals.
    pub fn key_pair(&self) -> KeyPair {
        KeyPair::from_seed(&self.0)
    }

    /// The public half, `vk`.
    pub fn public(&self) -> PublicKey {
        self.key_pair().public()
    }
}

impl std::fmt::Debug for SealingSeed {
    /// Never reaches a log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SealingSeed(…)")
    }
}

impl Wire for SealingSeed {
    fn write(&self, w: &mut Writer) {
        w.array(&*self.0);
    }
    fn read(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self::new(r.array()?))
    }
}

/// The sealing key of a member that is gone, or of its sender at the meeting's end (`docs/protocol.md` §10.3).
///
/// ```text
/// index u16 ‖ seed 32
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Published {
    /// Whose it was.
    pub index: MemberIndex,
    /// Its secret half.
    pub seed: SealingSeed,
}

impl Wire for Published {
    fn write(&self, w: &mut Writer) {
        self.index.write(w);
        self.seed.write(w);
    }
    fn read(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self { index: MemberIndex::read(r)?, seed: SealingSeed::read(r)? })
    }
}

/// A message to all.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Broadcast {
    /// Of the leader.
    Heartbeat(Heartbeat),
    /// Of anybody.
    Confirm(Confirm),
    /// Of the leader, for those whom the members' own confirmations do not reach.
    Passed(Vec<Passed>),
    /// Of anybody.
    Said(Said),
    /// Of the leader, and of everybody at the end.
    Published(Published),
    /// Of anybody: heads of seals that were verified, of any talkers; at most [`MAX_HEADS`].
    Heads(Vec<SealHead>),
}

impl Wire for Broadcast {
    fn write(&self, w: &mut Writer) {
        match self {
            Self::Heartbeat(heartbeat) => {
                w.u8(1);
                heartbeat.write(w);
            }
            Self::Confirm(confirm) => {
                w.u8(2);
                confirm.write(w);
            }
            Self::Passed(passed) => {
                w.u8(3);
                w.list(passed);
            }
            Self::Said(said) => {
                w.u8(4);
                said.write(w);
            }
            Self::Heads(heads) => {
                w.u8(5);
                w.list(heads);
            }
            Self::Published(published) => {
                w.u8(6);
                published.write(w);
            }
        }
    }
    fn read(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(match r.u8()? {
            1 => Self::Heartbeat(Heartbeat::read(r)?),
            2 => Self::Confirm(Confirm::read(r)?),
            3 => Self::Passed(r.list(MAX_PASSED)?),
            4 => Self::Said(Said::read(r)?),
            5 => Self::Heads(r.list(MAX_HEADS)?),
            6 => Self::Published(Published::read(r)?),
            _ => return Err(Malformed("unknown message to all")),
        })
    }
}

enum BroadcastKey {}

/// Seals this member's messages to all and opens the others', in one epoch. It owns the counter: no key and nonce are
/// used twice.
pub struct Channel {
    epoch: Epoch,
    index: MemberIndex,
    control: Secret<Control>,
    next: u32,
    /// The next counter that is taken of each sender: each message once, in order.
    expected: BTreeMap<MemberIndex, u32>,
}

impl Channel {
    /// The channel of `index` in an epoch.
    pub fn new(epoch: Epoch, index: MemberIndex, control: Secret<Control>) -> Self {
        Self { epoch, index, control, next: 0, expected: BTreeMap::new() }
    }

    /// The epoch.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The epoch of a packet, if it is a broadcast at all.
    pub fn epoch_of(packet: &[u8]) -> Option<Epoch> {
        match packet {
            [PACKET_KIND, rest @ ..] => rest.first_chunk::<4>().and_then(|e| Epoch::new(u32::from_be_bytes(*e))),
            _ => None,
        }
    }

    /// The counter that the next message gets, for what its signature binds.
    pub fn next_counter(&self) -> u32 {
        self.next
    }

    /// Seals a message; `None` when the counters are used up, which no honest member reaches in an epoch.
    pub fn seal(&mut self, message: &Broadcast) -> Option<Vec<u8>> {
        let counter = self.next;
        self.next = self.next.checked_add(1)?;
        let head = head(self.epoch, counter);
        let aad = [&head[..], &self.index.0.to_be_bytes()].concat();
        let plaintext = Zeroizing::new(message.encode());
        let sealed = self.cipher(self.index).encrypt(&nonce(counter), Payload { msg: &plaintext, aad: &aad }).ok()?;
        Some([&head[..], &sealed].concat())
    }

    /// Opens a message that the relay says is of `from`, with its counter; `None` for what is not authentic, not of
    /// this epoch, or was delivered before. Nothing has changed then.
    pub fn open(&mut self, from: MemberIndex, packet: &[u8]) -> Option<(u32, Broadcast)> {
        if Self::epoch_of(packet)? != self.epoch || packet.len() < HEAD + TAG {
            return None;
        }
        let (head, sealed) = packet.split_at(HEAD);
        let counter = u32::from_be_bytes(*head.last_chunk::<4>()?);
        if self.expected.get(&from).is_some_and(|expected| counter < *expected) {
            return None;
        }
        let aad = [head, &from.0.to_be_bytes()].concat();
        let opened = self.cipher(from).decrypt(&nonce(counter), Payload { msg: sealed, aad: &aad }).ok()?;
        let opened = Zeroizing::new(opened);
        self.expected.insert(from, counter.saturating_add(1));
        Some((counter, Broadcast::decode(&opened).ok()?))
    }

    fn cipher(&self, index: MemberIndex) -> ChaCha20Poly1305 {
        let key: Secret<BroadcastKey> = self.control.expand(label::BROADCAST, &[&index.0.to_be_bytes()]);
        ChaCha20Poly1305::new(&Key::from(*key.as_bytes()))
    }
}

fn head(epoch: Epoch, counter: u32) -> [u8; HEAD] {
    let mut head = [PACKET_KIND; HEAD];
    head[1..5].copy_from_slice(&epoch.number().to_be_bytes());
    head[5..].copy_from_slice(&counter.to_be_bytes());
    head
}

fn nonce(counter: u32) -> Nonce {
    let mut nonce = [0; 12];
    nonce[8..].copy_from_slice(&counter.to_be_bytes());
    nonce.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn channel(index: u16) -> Channel {
        Channel::new(Epoch::new(3).expect("small"), MemberIndex(index), Secret::new([9; 32]))
    }

    #[test]
    fn a_message_to_all_is_opened_once_as_its_senders_and_in_order() {
        let (mut ada, mut bob) = (channel(0), channel(1));
        let sealing = KeyPair::from_seed(&[4; 32]);
        let place = Place { meeting: MeetingId([1; 20]), epoch: ada.epoch(), index: MemberIndex(0), counter: 0 };
        let said = Said::chat(&place, "hello".to_owned(), &sealing);
        assert_eq!(said.verify(&place, &sealing.public()), Ok(()));
        assert!(said.verify(&Place { counter: 1, ..place }, &sealing.public()).is_err());
        let first = ada.seal(&Broadcast::Said(said.clone())).expect("room");
        let second = ada.seal(&Broadcast::Said(said.clone())).expect("room");
        assert!(bob.open(MemberIndex(2), &first).is_none(), "it is nobody else's");
        assert_eq!(bob.open(MemberIndex(0), &second), Some((1, Broadcast::Said(said))));
        assert!(bob.open(MemberIndex(0), &first).is_none(), "an older one comes too late");
        assert!(bob.open(MemberIndex(0), &second).is_none());
        for at in 0..first.len() {
            let mut changed = first.clone();
            changed[at] ^= 1;
            assert!(channel(1).open(MemberIndex(0), &changed).is_none());
            assert!(channel(1).open(MemberIndex(0), &first[..at]).is_none());
        }
    }
}

//! What the relay checks: capabilities and their proof of possession, revocations, and the gate before the
//! mailbox (`docs/protocol.md` §5). All are signed by the meeting's authority AK, which the relay knows from D, or by
//! a co-host's, which it knows from the [`Line`].

use std::time::Duration;

use zeroize::ZeroizeOnDrop;

use crate::VERSION;
use crate::id::{MeetingId, MemberIndex};
use crate::label;
use crate::sign::{BadSignature, KeyPair, PublicKey, Signature};
use crate::succession::{Line, Rank, authority_of, rank};
use crate::time::UnixMillis;
use crate::wire::codec::{Malformed, Reader, Wire, Writer};

/// Longest validity of a capability. A relay that lost its memory forgets a revocation for at most this long.
pub const MAX_VALIDITY: Duration = Duration::from_secs(120);

/// How far the relay's clock and the times in a capability may lie apart (DESIGN §12).
pub const CLOCK_TOLERANCE: Duration = Duration::from_secs(30);

/// What the holder of a slot may do at the relay.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rights(u8);

impl Rights {
    /// Send and receive media and messages of members.
    pub const MEMBER: Self = Self(1);
    /// The same, and read the mailbox, revoke, and set the knock gate.
    pub const LEADER: Self = Self(1 | 2);

    /// Whether the holder may read the mailbox.
    pub fn may_lead(self) -> bool {
        self.0 & 2 != 0
    }
}

/// A capability for one slot, before the signature.
///
/// ```text
/// version u8 ‖ MeetingId 20 ‖ slot u16 ‖ rk 32 ‖ rights u8 ‖ not_before u64 ‖ not_after u64 ‖ serial u32
///   ‖ signer u16
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Capability {
    /// The meeting.
    pub meeting: MeetingId,
    /// The member's index.
    pub slot: MemberIndex,
    /// The routing key that must prove possession.
    pub rk: PublicKey,
    /// What it allows.
    pub rights: Rights,
    /// Relay time from which it is valid.
    pub not_before: UnixMillis,
    /// Relay time until which it is valid.
    pub not_after: UnixMillis,
    /// Grows with the capabilities of one slot.
    pub serial: u32,
    /// Who signs: the host, or a co-host.
    pub signer: MemberIndex,
}

/// A capability and its signer's signature; 142 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SignedCapability {
    /// What is claimed, not to be believed before [`SignedCapability::verify`].
    pub claimed: Capability,
    signature: Signature,
}

/// Why a capability is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refused {
    /// Signature of AK or of rk.
    #[error(transparent)]
    Signature(#[from] BadSignature),
    /// For another meeting.
    #[error("the capability is for another meeting")]
    Meeting,
    /// Not valid at this time.
    #[error("the capability is not valid now")]
    Time,
    /// Valid for longer than allowed.
    #[error("the capability is valid for too long")]
    Validity,
    /// The signer is no host or co-host, or may not sign this.
    #[error("whoever signed has no right to it")]
    Rights,
}

impl Capability {
    /// Signs with the authority key of [`Capability::signer`].
    pub fn sign(self, authority: &KeyPair) -> SignedCapability {
        let signature = authority.sign(label::CAPABILITY, &[&self.encode()]);
        SignedCapability { claimed: self, signature }
    }
}

impl SignedCapability {
    /// Checks signature, meeting, times and the signer's right: the host may sign for every slot, a co-host for its
    /// own and for those that are neither the host's nor a co-host's; and only its own slot leads. `host` is AK.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn verify(
        &self,
        host: &PublicKey,
        line: Option<&Line>,
        meeting: MeetingId,
        now: UnixMillis,
    ) -> Result<Capability, Refused> {
        let cap = self.claimed;
        if cap.meeting != meeting {
            return Err(Refused::Meeting);
        }
        let own = cap.signer == cap.slot;
        let authority = authority_of(line, host, cap.signer).ok_or(Refused::Rights)?;
        if !(own || cap.signer == MemberIndex::HOST || rank(line, cap.slot) == Rank::Member)
            || (cap.rights.may_lead() && !own)
        {
            return Err(Refused::Rights);
        }
        if cap.not_after.0.saturating_sub(cap.not_before.0) > as_millis(MAX_VALIDITY) {
            return Err(Refused::Validity);
        }
        if now < cap.not_before.minus(CLOCK_TOLERANCE) || now > cap.not_after.plus(CLOCK_TOLERANCE) {
            return Err(Refused::Time);
        }
        authority.verify(label::CAPABILITY, &[&cap.encode()], &self.signature)?;
        Ok(cap)
    }

    /// The holder's proof that it has rk, bound to one TLS connection by its exporter value: a capability that
    /// was stolen is worthless on another connection.
    pub fn prove(&self, rk: &KeyPair, exporter: &[u8; 32]) -> Signature {
        rk.sign(label::POSSESSION, &[exporter, &self.digest()])
    }

    /// Checks [`SignedCapability::prove`].
    ///
    /// # Errors
    /// [`BadSignature`].
    pub fn verify_possession(&self, exporter: &[u8; 32], proof: &Signature) -> Result<(), BadSignature> {
        self.claimed.rk.verify(label::POSSESSION, &[exporter, &self.digest()], proof)
    }

    /// `H("conclave/1 cap digest" ‖ the signed capability)`.
    fn digest(&self) -> [u8; 32] {
        label::hash(label::CAPABILITY_DIGEST, &[&self.encode()])
    }
}

fn as_millis(d: Duration) -> u64 {
    u64::try_from(d.as_millis()).unwrap_or(u64::MAX)
}

impl Wire for Capability {
    fn write(&self, w: &mut Writer) {
        w.u8(VERSION);
        self.meeting.write(w);
        self.slot.write(w);
        self.rk.write(w);
        w.u8(self.rights.0);
        self.not_before.write(w);
        self.not_after.write(w);
        w.u32(self.serial);
        self.signer.write(w);
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        if r.u8()? != VERSION {
            return Err(Malformed("capability of another version"));
        }
        let meeting = MeetingId::read(r)?;
        let slot = MemberIndex::read(r)?;
        let rk = PublicKey::read(r)?;
        let rights = Rights(r.u8()?);
        if !matches!(rights, Rights::MEMBER | Rights::LEADER) {
            return Err(Malformed("unknown rights"));
        }
        if slot > MemberIndex::MAX {
            return Err(Malformed("slot out of range"));
        }
        let not_before = UnixMillis::read(r)?;
        let not_after = UnixMillis::read(r)?;
        let serial = r.u32()?;
        Ok(Self { meeting, slot, rk, rights, not_before, not_after, serial, signer: MemberIndex::read(r)? })
    }
}

impl Wire for SignedCapability {
    fn write(&self, w: &mut Writer) {
        self.claimed.write(w);
        self.signature.write(w);
    }
    fn read(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self { claimed: Capability::read(r)?, signature: Signature::read(r)? })
    }
}

/// Slots that are revoked although their capabilities have not expired. Every client keeps the newest one and
/// presents it in its Hello, so a relay that lost its memory learns it again.
///
/// ```text
/// MeetingId 20 ‖ seq u32 ‖ signer u16 ‖ slots: u16 × u16 ‖ signature 64
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Revoked {
    /// Grows with every revocation of a meeting; the highest counts.
    pub seq: u32,
    /// The host, or a co-host.
    pub signer: MemberIndex,
    /// The slots.
    pub slots: Vec<MemberIndex>,
    meeting: MeetingId,
    signature: Signature,
}

impl Revoked {
    /// Most slots in one revocation: those removed within one capability's life.
    pub const MAX_SLOTS: usize = 1024;

    /// Signs a revocation with the authority key of `signer`.
    pub fn sign(
        meeting: MeetingId,
        seq: u32,
        signer: MemberIndex,
        slots: Vec<MemberIndex>,
        authority: &KeyPair,
    ) -> Self {
        let signature = authority.sign(label::REVOKED, &[&Self::body(meeting, seq, signer, &slots)]);
        Self { seq, signer, slots, meeting, signature }
    }

    /// Checks signature, meeting and the signer's right: a co-host revokes nobody who ranks as high as itself. `host`
    /// is AK.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn verify(&self, host: &PublicKey, line: Option<&Line>, meeting: MeetingId) -> Result<(), Refused> {
        if self.meeting != meeting {
            return Err(Refused::Meeting);
        }
        let authority = authority_of(line, host, self.signer).ok_or(Refused::Rights)?;
        let own = rank(line, self.signer);
        if self.signer != MemberIndex::HOST && self.slots.iter().any(|slot| rank(line, *slot) <= own) {
            return Err(Refused::Rights);
        }
        let body = Self::body(meeting, self.seq, self.signer, &self.slots);
        Ok(authority.verify(label::REVOKED, &[&body], &self.signature)?)
    }

    /// Whether this one replaces `known`: a higher seq does, and with the same seq that of the higher rank.
    pub fn replaces(&self, known: &Self, line: Option<&Line>) -> bool {
        (self.seq, std::cmp::Reverse(rank(line, self.signer)))
            > (known.seq, std::cmp::Reverse(rank(line, known.signer)))
    }

    fn body(meeting: MeetingId, seq: u32, signer: MemberIndex, slots: &[MemberIndex]) -> Vec<u8> {
        let mut w = Writer::default();
        meeting.write(&mut w);
        w.u32(seq);
        signer.write(&mut w);
        w.list(slots);
        w.into_bytes()
    }
}

impl Wire for Revoked {
    fn write(&self, w: &mut Writer) {
        w.array(&Self::body(self.meeting, self.seq, self.signer, &self.slots));
        self.signature.write(w);
    }
    fn read(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        let meeting = MeetingId::read(r)?;
        let seq = r.u32()?;
        let signer = MemberIndex::read(r)?;
        let slots = r.list(Self::MAX_SLOTS)?;
        Ok(Self { seq, signer, slots, meeting, signature: Signature::read(r)? })
    }
}

/// The gate before the mailbox: who cannot show the token, made from the link's secret, cannot knock.
///
/// ```text
/// MeetingId 20 ‖ seq u32 ‖ signer u16 ‖ H(token) 32 ‖ signature 64
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KnockGate {
    /// Grows when the host makes a new link; the highest counts.
    pub seq: u32,
    /// The host, or a co-host.
    pub signer: MemberIndex,
    token_hash: [u8; 32],
    meeting: MeetingId,
    signature: Signature,
}

/// What a guest shows at the gate: HKDF of the link's secret (`docs/protocol.md` §3.3). Erased when dropped.
#[derive(Clone, PartialEq, Eq, ZeroizeOnDrop)]
pub struct KnockToken(pub [u8; 32]);

impl KnockGate {
    /// Signs a gate for `token` with the authority key of `signer`.
    pub fn sign(meeting: MeetingId, seq: u32, signer: MemberIndex, token: &KnockToken, authority: &KeyPair) -> Self {
        let token_hash = token.hash();
        let parts: [&[u8]; 4] = [&meeting.0, &seq.to_be_bytes(), &signer.0.to_be_bytes(), &token_hash];
        let signature = authority.sign(label::KNOCK_GATE, &parts);
        Self { seq, signer, token_hash, meeting, signature }
    }

    /// Checks signature and meeting. `host` is AK.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn verify(&self, host: &PublicKey, line: Option<&Line>, meeting: MeetingId) -> Result<(), Refused> {
        if self.meeting != meeting {
            return Err(Refused::Meeting);
        }
        let authority = authority_of(line, host, self.signer).ok_or(Refused::Rights)?;
        let parts: [&[u8]; 4] = [&meeting.0, &self.seq.to_be_bytes(), &self.signer.0.to_be_bytes(), &self.token_hash];
        Ok(authority.verify(label::KNOCK_GATE, &parts, &self.signature)?)
    }

    /// Whether `token` opens the gate. Compares hashes of secrets, so timing tells nothing of the token.
    pub fn opens_for(&self, token: &KnockToken) -> bool {
        self.token_hash == token.hash()
    }
}

impl KnockToken {
    fn hash(&self) -> [u8; 32] {
        label::hash(label::KNOCK_HASH, &[&self.0])
    }
}

impl Wire for KnockGate {
    fn write(&self, w: &mut Writer) {
        self.meeting.write(w);
        w.u32(self.seq);
        self.signer.write(w);
        w.array(&self.token_hash);
        self.signature.write(w);
    }
    fn read(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        let meeting = MeetingId::read(r)?;
        let seq = r.u32()?;
        let signer = MemberIndex::read(r)?;
        Ok(Self { seq, signer, token_hash: r.array()?, meeting, signature: Signature::read(r)? })
    }
}

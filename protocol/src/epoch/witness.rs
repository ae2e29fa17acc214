//! The leader's signed statement, shown by members to each other (`docs/protocol.md` §7.9).
//!
//! A leader who tells two members two histories gives them different keys, so neither opens what the other says under
//! its epoch's. What shows them the fraud must be readable by both: it is sealed under a key that follows from the
//! link's secret and the chain's name, which everybody who was ever in the meeting knows.
//!
//! ```text
//! packet:    kind u8 7 ‖ nonce 12 ‖ ciphertext ‖ tag 16
//! W        = HKDF-Expand(psk0, "conclave/1 witness" ‖ chain 16)          AAD = kind
//! plaintext = T_{e−1} 32 ‖ stmt_e 222 ‖ the leader's signature over T_e 64
//! ```

use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{ChaCha20Poly1305, Key};
use rand_core::CryptoRng;

use super::statement::{ChainHash, Statement};
use crate::label;
use crate::link::LinkPsk;
use crate::secret::Secret;
use crate::sign::{BadSignature, PublicKey, Signature};
use crate::wire::codec::{Malformed, Reader, Wire, Writer};
use crate::wire::urgency::WITNESS;

/// First byte of a witness packet.
pub const PACKET_KIND: u8 = WITNESS;

/// A statement with all that proves who made it, and after what.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Witnessed {
    /// T_{e-1}.
    pub previous: ChainHash,
    /// stmt_e.
    pub statement: Statement,
    /// Over T_e.
    pub signature: Signature,
}

impl Witnessed {
    /// T_e.
    pub fn chain(&self) -> ChainHash {
        self.previous.step(&self.statement)
    }

    /// Checks the leader's signature.
    ///
    /// # Errors
    /// [`BadSignature`].
    pub fn verify(&self, authority: &PublicKey) -> Result<(), BadSignature> {
        Statement::verify(&self.chain(), authority, &self.signature)
    }

    /// Whether the same leader made both in the same place of the chain, and they are not the same: proof that it told
    /// two histories, if both verify.
    pub fn contradicts(&self, other: &Self) -> bool {
        let place = |w: &Self| (w.statement.meeting, w.statement.chain, w.statement.term, w.statement.epoch);
        place(self) == place(other) && self.statement.leader == other.statement.leader && self.chain() != other.chain()
    }
}

impl Wire for Witnessed {
    fn write(&self, w: &mut Writer) {
        w.array(&self.previous.0);
        self.statement.write(w);
        self.signature.write(w);
    }
    fn read(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        let previous = ChainHash(r.array()?);
        let statement = Statement::read(r)?;
        Ok(Self { previous, statement, signature: Signature::read(r)? })
    }
}

enum WitnessTag {}

/// The key of a chain's witnesses.
pub struct WitnessKey(Secret<WitnessTag>);

impl WitnessKey {
    /// The key of the chain of that name.
    pub fn new(psk0: &Secret<LinkPsk>, chain: &[u8; 16]) -> Self {
        Self(psk0.expand(label::WITNESS, &[chain]))
    }

    /// Seals a witness under a nonce of `rng`; the packet.
    pub fn seal(&self, witnessed: &Witnessed, rng: &mut (impl CryptoRng + ?Sized)) -> Option<Vec<u8>> {
        let mut nonce = [0; 12];
        rng.fill_bytes(&mut nonce);
        let payload = Payload { msg: &witnessed.encode(), aad: &[PACKET_KIND] };
        let sealed = self.cipher().encrypt(&nonce.into(), payload).ok()?;
        Some([&[PACKET_KIND], &nonce[..], &sealed].concat())
    }

    /// Opens a packet; `None` for what is none, or of another chain.
    pub fn open(&self, packet: &[u8]) -> Option<Witnessed> {
        let (kind, rest) = packet.split_first()?;
        let (nonce, sealed) = rest.split_first_chunk::<12>().filter(|_| *kind == PACKET_KIND)?;
        let payload = Payload { msg: sealed, aad: &[PACKET_KIND] };
        let opened = self.cipher().decrypt(&(*nonce).into(), payload).ok()?;
        Witnessed::decode(&opened).ok()
    }

    fn cipher(&self) -> ChaCha20Poly1305 {
        ChaCha20Poly1305::new(&Key::from(*self.0.as_bytes()))
    }
}

//! Sessions between members who may lead and those whom they would lead: `Noise_KKpsk0_25519_ChaChaPoly_SHA256`
//! between the static keys in the roster (`docs/protocol.md` §4.7).
//!
//! ```text
//! prologue = "conclave/1 noise kk" ‖ u8 1 ‖ MeetingId ‖ initiator u16 ‖ responder u16
//! psk0     = HKDF-Expand(mesh_e, "conclave/1 kk psk" ‖ initiator u16 ‖ responder u16)
//! -> s ; <- s ; … ; -> psk, e, es, ss ; <- e, ee, se                      both payloads empty
//! ```
//!
//! psk0 comes from an epoch's secret, which only its members were given, in sessions that ML-KEM-768 protects too: so a
//! session here is as safe from a later quantum computer as those are.

use rand_core::CryptoRng;
use snow::{Builder, HandshakeState};
use zeroize::Zeroizing;

use super::handshake::HandshakeError;
use super::resolver::Resolver;
use super::session::Session;
use crate::VERSION;
use crate::epoch::schedule::Mesh;
use crate::id::{MeetingId, MemberIndex};
use crate::label;
use crate::secret::Secret;

/// The pattern, in Noise's notation.
pub const PATTERN: &str = "Noise_KKpsk0_25519_ChaChaPoly_SHA256";

/// Length of either message: an ephemeral key and a tag.
pub const MESSAGE_LEN: usize = 32 + 16;

/// Who shakes hands, and with what.
pub struct Pair<'a> {
    /// The meeting.
    pub meeting: MeetingId,
    /// The member who begins.
    pub initiator: MemberIndex,
    /// The other one.
    pub responder: MemberIndex,
    /// mesh_e of the epoch that the first message names.
    pub mesh: &'a Secret<Mesh>,
    /// The secret half of one's own `ms`.
    pub own: &'a Zeroizing<[u8; 32]>,
    /// The other's `ms`.
    pub other: &'a [u8; 32],
}

enum MeshPsk {}

/// The initiator after its message.
pub struct Reaching(HandshakeState);

impl Pair<'_> {
    /// Begins; the state and the message.
    ///
    /// # Errors
    /// [`HandshakeError`] when the other's key is none.
    pub fn reach(&self, rng: &mut (impl CryptoRng + ?Sized)) -> Result<(Reaching, Vec<u8>), HandshakeError> {
        let (psk, prologue) = (self.psk(), self.prologue());
        let mut noise = self.builder(&psk, &prologue, rng)?.build_initiator()?;
        let message = write(&mut noise)?;
        Ok((Reaching(noise), message))
    }

    /// Answers the first message; the session and the second.
    ///
    /// # Errors
    /// [`HandshakeError`] when it does not authenticate.
    pub fn answer(
        &self,
        message: &[u8],
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Result<(Session, Vec<u8>), HandshakeError> {
        let (psk, prologue) = (self.psk(), self.prologue());
        let mut noise = self.builder(&psk, &prologue, rng)?.build_responder()?;
        read(&mut noise, message)?;
        let reply = write(&mut noise)?;
        Ok((Session::new(noise)?, reply))
    }

    fn psk(&self) -> Secret<MeshPsk> {
        self.mesh.expand(label::MESH_PSK, &[&self.initiator.0.to_be_bytes(), &self.responder.0.to_be_bytes()])
    }

    fn prologue(&self) -> Vec<u8> {
        let mut prologue = label::MESH_PROLOGUE.as_bytes().to_vec();
        prologue.push(VERSION);
        prologue.extend_from_slice(&self.meeting.0);
        prologue.extend_from_slice(&self.initiator.0.to_be_bytes());
        prologue.extend_from_slice(&self.responder.0.to_be_bytes());
        prologue
    }

    fn builder<'b>(
        &'b self,
        psk: &'b Secret<MeshPsk>,
        prologue: &'b [u8],
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Result<Builder<'b>, HandshakeError> {
        let mut ephemeral = Zeroizing::new([0; 32]);
        rng.fill_bytes(ephemeral.as_mut());
        let params = PATTERN.parse().map_err(|_| HandshakeError::Rejected)?;
        Ok(Builder::with_resolver(params, Box::new(Resolver::new(ephemeral)))
            .psk(0, psk.as_bytes())?
            .prologue(prologue)?
            .local_private_key(self.own.as_ref())?
            .remote_public_key(self.other)?)
    }
}

impl Reaching {
    /// Reads the answer: the session is up.
    ///
    /// # Errors
    /// [`HandshakeError`] when it does not authenticate; a new handshake must begin.
    pub fn finish(mut self, message: &[u8]) -> Result<Session, HandshakeError> {
        read(&mut self.0, message)?;
        Session::new(self.0)
    }
}

fn write(noise: &mut HandshakeState) -> Result<Vec<u8>, HandshakeError> {
    let mut message = vec![0; MESSAGE_LEN];
    let len = noise.write_message(&[], &mut message)?;
    message.truncate(len);
    Ok(message)
}

fn read(noise: &mut HandshakeState, message: &[u8]) -> Result<(), HandshakeError> {
    let mut payload = [0; MESSAGE_LEN];
    if message.len() != MESSAGE_LEN || noise.read_message(message, &mut payload)? != 0 {
        return Err(HandshakeError::Rejected);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_chacha::ChaCha20Rng;
    use rand_core::SeedableRng;
    use std::time::Instant;

    #[test]
    fn two_members_of_an_epoch_get_a_session_and_nobody_else_does() {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let (a, b) = (Zeroizing::new([1; 32]), Zeroizing::new([2; 32]));
        let public = |s: &[u8; 32]| x25519_dalek::PublicKey::from(&x25519_dalek::StaticSecret::from(*s)).to_bytes();
        let (a_public, b_public) = (public(&a), public(&b));
        let (mesh, other_mesh) = (Secret::new([3; 32]), Secret::new([4; 32]));
        let pair = |mesh, own, other| Pair {
            meeting: MeetingId([5; 20]),
            initiator: MemberIndex(1),
            responder: MemberIndex(2),
            mesh,
            own,
            other,
        };
        let (reaching, first) = pair(&mesh, &a, &b_public).reach(&mut rng).expect("good keys");
        assert!(pair(&other_mesh, &b, &a_public).answer(&first, &mut rng).is_err(), "another epoch");
        assert!(pair(&mesh, &b, &b_public).answer(&first, &mut rng).is_err(), "another member");
        let (mut answered, second) = pair(&mesh, &b, &a_public).answer(&first, &mut rng).expect("the same epoch");
        let mut reached = reaching.finish(&second).expect("the same epoch");
        let now = Instant::now();
        let packet = reached.send(now, &crate::wire::control::Message::Offer).expect("room");
        assert!(matches!(answered.receive(now, &packet), Ok(Some(crate::wire::control::Message::Offer))));
    }
}

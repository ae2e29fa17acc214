//! The join handshake: `Noise_XKpsk0+psk3_25519_ChaChaPoly_SHA256` with ML-KEM-768 and CPace mixed into psk3
//! (`docs/protocol.md` §4.1–4.3).
//!
//! ```text
//! 1 →  psk0, e, es | n_J 16 ‖ mlkem_ek 1184 ‖ [Ya 32]
//! 2 ←  e, ee       | n_H 16 ‖ mlkem_ct 1088 ‖ [Yb 32] ‖ IdCert 202 of the host ‖ host's name 65
//! 3 →  s, se, psk3 | IdCert 202 ‖ name 65 ‖ commitment 32 ‖ signature of IK over h2 ‖ MeetingId
//! h2 = h after message 2;  psk3 = HKDF(salt = h2, ikm = mlkem_shared ‖ psk0 ‖ [cpace_isk], "conclave/1 psk3")
//! ```
//!
//! One struct per state; advancing consumes it. A [`super::session::Session`] exists only after message 3.

use ml_kem::kem::{Decapsulate, KeyExport};
use ml_kem::{MlKem768, ml_kem_768};
use rand_core::CryptoRng;
use snow::{Builder, HandshakeState};
use unicode_normalization::UnicodeNormalization;
use zeroize::{Zeroize, Zeroizing};

use super::cpace::{CpaceState, Isk, Share};
use super::resolver::Resolver;
use super::session::Session;
use crate::VERSION;
use crate::descriptor::Descriptor;
use crate::id::{MeetingId, MemberIndex};
use crate::identity::{BadIdCert, DisplayName, IdCert, Identity, Role};
use crate::label;
use crate::link::LinkPsk;
use crate::secret::{self, Secret};
use crate::sign::{BadSignature, Signature};
use crate::succession::Line;
use crate::time::UnixMillis;
use crate::wire::codec::{Malformed, Reader, Wire, Writer};

/// The pattern, in Noise's notation.
pub const PATTERN: &str = "Noise_XKpsk0+psk3_25519_ChaChaPoly_SHA256";

/// A passcode as both sides must see it: NFKC, blanks at the ends dropped (`docs/protocol.md` §4.3).
pub struct Passcode(Zeroizing<String>);

impl Passcode {
    /// Longest passcode, in bytes before normalisation.
    pub const MAX_LEN: usize = 256;

    /// Normalises what a person typed; `None` when nothing or too much is left.
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() > Self::MAX_LEN {
            return None;
        }
        let mut normal: String = text.nfkc().collect();
        let trimmed = normal.trim().to_owned();
        normal.zeroize();
        (!trimmed.is_empty()).then(|| Self(Zeroizing::new(trimmed)))
    }

    /// A second copy, for a handshake that is tried again.
    #[must_use]
    pub fn duplicate(&self) -> Self {
        Self(self.0.clone())
    }
}

/// Why a handshake ended. To the peer all of them look alike.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// A payload is no payload.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// Noise refused: wrong link secret, wrong passcode, another descriptor, or somebody tampers.
    #[error("the handshake does not authenticate")]
    Rejected,
    /// The peer's certificate.
    #[error(transparent)]
    IdCert(#[from] BadIdCert),
    /// The peer's signature.
    #[error(transparent)]
    Signature(#[from] BadSignature),
    /// The policy asks for a passcode and one side brought none, or the other way round.
    #[error("the passcode part of the handshake is missing")]
    Passcode,
}

impl From<snow::Error> for HandshakeError {
    fn from(_: snow::Error) -> Self {
        Self::Rejected
    }
}

/// What both sides know before the first message.
pub struct Context {
    /// The meeting.
    pub meeting: MeetingId,
    /// Its descriptor.
    pub descriptor: Descriptor,
    /// From the link's secret.
    pub psk0: Secret<LinkPsk>,
    /// Who answers.
    pub responder: Responder,
}

/// Who answers join handshakes: the host, or a co-host who leads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Responder {
    /// The holder of D.hs.
    Host,
    /// A co-host of the line.
    Delegate {
        /// Its slot.
        slot: MemberIndex,
        /// Its X25519 key.
        hs: [u8; 32],
        /// [`crate::succession::Line::digest`] of the line that names it.
        line: [u8; 32],
    },
}

impl Responder {
    /// The responder of a slot; `None` when the line does not name it.
    pub fn of(slot: MemberIndex, line: Option<&Line>) -> Option<Self> {
        if slot == MemberIndex::HOST {
            return Some(Self::Host);
        }
        let line = line?;
        line.delegate(slot).map(|delegate| Self::Delegate { slot, hs: delegate.hs, line: line.digest() })
    }
}

impl Context {
    fn prologue(&self) -> Vec<u8> {
        let mut prologue = label::PROLOGUE.as_bytes().to_vec();
        prologue.extend_from_slice(&[VERSION, VERSION]);
        prologue.extend_from_slice(&self.meeting.0);
        prologue.extend_from_slice(&self.descriptor.policy.bits().to_be_bytes());
        if let Responder::Delegate { slot, line, .. } = &self.responder {
            prologue.extend_from_slice(&slot.0.to_be_bytes());
            prologue.extend_from_slice(line);
        }
        prologue
    }

    /// The responder's static key, and the role that its certificate must have.
    fn responder_key(&self) -> (&[u8; 32], Role) {
        match &self.responder {
            Responder::Host => (&self.descriptor.hs, Role::Host),
            Responder::Delegate { hs, .. } => (hs, Role::Member),
        }
    }

    /// `"conclave/1 cpace" ‖ MeetingId ‖ "JH"`: joiner first, host second.
    fn cpace_ci(&self) -> Vec<u8> {
        [label::CPACE_CI.as_bytes(), &self.meeting.0, b"JH"].concat()
    }

    fn psk3(&self, h2: &[u8; 32], mlkem_shared: &[u8], isk: Option<&Isk>) -> Secret<Psk3> {
        let mut ikm = Zeroizing::new(Vec::with_capacity(32 + 32 + Isk::LEN));
        ikm.extend_from_slice(mlkem_shared);
        ikm.extend_from_slice(self.psk0.as_bytes());
        if let Some(isk) = isk {
            ikm.extend_from_slice(isk.as_bytes());
        }
        secret::derive(h2, &ikm, label::PSK3, &[])
    }

    fn builder(&self, rng: &mut (impl CryptoRng + ?Sized)) -> Result<Builder<'_>, HandshakeError> {
        let mut ephemeral = Zeroizing::new([0; 32]);
        rng.fill_bytes(ephemeral.as_mut());
        let params = PATTERN.parse().map_err(|_| HandshakeError::Rejected)?;
        Ok(Builder::with_resolver(params, Box::new(Resolver::new(ephemeral))).psk(0, self.psk0.as_bytes())?)
    }
}

enum Psk3 {}

/// The guest after message 1.
pub struct Knocking {
    context: Context,
    noise: HandshakeState,
    mlkem: ml_kem_768::DecapsulationKey,
    nonce: [u8; 16],
    cpace: Option<CpaceState>,
    session_static: [u8; 32],
}

/// Who hosts the meeting, as proved by message 2.
#[derive(Clone, Debug)]
pub struct HostIdentity {
    /// The certificate of the holder of `hs`.
    pub cert: IdCert,
    /// The name the host shows to people who wait.
    pub name: DisplayName,
}

/// The guest after message 2: knows the host, has said nothing of itself yet.
pub struct Introducing {
    noise: HandshakeState,
    h2: [u8; 32],
    meeting: MeetingId,
    /// The host.
    pub host: HostIdentity,
}

/// What a guest says of itself in message 3.
pub struct Introduction<'a> {
    /// Signs the join.
    pub identity: &'a Identity,
    /// Binds it to the keys of this join.
    pub cert: IdCert,
    /// The name to be shown.
    pub name: DisplayName,
    /// Commitment to the fresh value of the joining epoch.
    pub commitment: [u8; 32],
}

impl Knocking {
    /// Starts a handshake; gives the state and message 1. `session_secret` is the secret half of `ms`.
    ///
    /// # Errors
    /// [`HandshakeError::Passcode`] when the descriptor asks for a passcode and there is none, or the reverse.
    pub fn start(
        context: Context,
        session_secret: &Zeroizing<[u8; 32]>,
        passcode: Option<&Passcode>,
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Result<(Self, Vec<u8>), HandshakeError> {
        if context.descriptor.policy.asks_passcode() != passcode.is_some() {
            return Err(HandshakeError::Passcode);
        }
        let mut noise = context
            .builder(rng)?
            .prologue(&context.prologue())?
            .local_private_key(session_secret.as_ref())?
            .remote_public_key(context.responder_key().0)?
            .build_initiator()?;
        let mut seed = ml_kem::Seed::default();
        rng.fill_bytes(seed.as_mut_slice());
        let mlkem = ml_kem_768::DecapsulationKey::from_seed(seed);
        seed.as_mut_slice().zeroize();
        let mut nonce = [0; 16];
        rng.fill_bytes(&mut nonce);
        let cpace = passcode.map(|p| CpaceState::start(p.0.as_bytes(), &context.cpace_ci(), &nonce, rng));
        let hello = GuestHello {
            nonce,
            mlkem_key: Box::new(mlkem.encapsulation_key().to_bytes().into()),
            share: cpace.as_ref().map(CpaceState::share),
        };
        let message = write_noise(&mut noise, &hello.encode())?;
        let session_static =
            x25519_dalek::PublicKey::from(&x25519_dalek::StaticSecret::from(**session_secret)).to_bytes();
        Ok((Self { context, noise, mlkem, nonce, cpace, session_static }, message))
    }

    /// The public half of the session static given at the start.
    pub fn session_static(&self) -> [u8; 32] {
        self.session_static
    }

    /// Reads message 2 and learns who hosts.
    ///
    /// # Errors
    /// [`HandshakeError`]. The handshake is over then: a new one must be started.
    pub fn read_reply(mut self, message: &[u8], now: UnixMillis) -> Result<Introducing, HandshakeError> {
        let payload = read_noise(&mut self.noise, message)?;
        let reply = HostReply::decode(&payload)?;
        let meeting = self.context.meeting;
        let (hs, role) = self.context.responder_key();
        reply.cert.verify(meeting, role, hs, &reply.name, now)?;
        let isk = match (self.cpace, &reply.share) {
            (None, None) => None,
            (Some(cpace), Some(share)) => {
                let isk = cpace.finish_initiator(&self.nonce, share, &reply.nonce);
                Some(isk.map_err(|_| HandshakeError::Rejected)?)
            }
            _ => return Err(HandshakeError::Passcode),
        };
        let h2 = handshake_hash(&self.noise);
        let shared = Zeroizing::new(<[u8; 32]>::from(self.mlkem.decapsulate(&(*reply.mlkem_ciphertext).into())));
        let psk3 = self.context.psk3(&h2, shared.as_ref(), isk.as_ref());
        self.noise.set_psk(3, psk3.as_bytes())?;
        let host = HostIdentity { cert: reply.cert, name: reply.name };
        Ok(Introducing { noise: self.noise, h2, meeting, host })
    }
}

impl Introducing {
    /// Writes message 3; the session is up once the host answers in it.
    ///
    /// # Errors
    /// [`HandshakeError::Rejected`] only when Noise itself fails.
    pub fn introduce(mut self, me: Introduction<'_>) -> Result<(Session, Vec<u8>), HandshakeError> {
        let signature = me.identity.sign(label::JOIN, &[&self.h2, &self.meeting.0]);
        let payload = GuestIntroduction { cert: me.cert, name: me.name, commitment: me.commitment, signature };
        let message = write_noise(&mut self.noise, &payload.encode())?;
        Ok((Session::new(self.noise)?, message))
    }
}

/// The host's side of what it needs to answer a knock.
pub struct HostKeys<'a> {
    /// The secret half of `hs`.
    pub session_secret: &'a Zeroizing<[u8; 32]>,
    /// The host's certificate.
    pub cert: &'a IdCert,
    /// The host's name.
    pub name: &'a DisplayName,
    /// The meeting's passcode, when the policy asks for one.
    pub passcode: Option<&'a Passcode>,
}

/// The host after message 2.
pub struct Answering {
    noise: HandshakeState,
    h2: [u8; 32],
    meeting: MeetingId,
    /// The end of the meeting, which no certificate in it may come before.
    not_after: UnixMillis,
}

/// A guest whose handshake is complete and who may now knock.
pub struct Knocker {
    /// The session with the guest.
    pub session: Session,
    /// The guest's certificate, checked.
    pub cert: IdCert,
    /// The guest's name.
    pub name: DisplayName,
    /// The guest's commitment for its joining epoch.
    pub commitment: [u8; 32],
}

impl Answering {
    /// Reads message 1 and gives message 2.
    ///
    /// # Errors
    /// [`HandshakeError`]; a wrong link secret or another descriptor fails here.
    pub fn answer(
        context: &Context,
        host: &HostKeys<'_>,
        message: &[u8],
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Result<(Self, Vec<u8>), HandshakeError> {
        let mut noise = context
            .builder(rng)?
            .prologue(&context.prologue())?
            .local_private_key(host.session_secret.as_ref())?
            .build_responder()?;
        let hello = GuestHello::decode(&read_noise(&mut noise, message)?)?;
        let key =
            ml_kem_768::EncapsulationKey::new(&(*hello.mlkem_key).into()).map_err(|_| HandshakeError::Rejected)?;
        let mut seed = Zeroizing::new([0; 32]);
        rng.fill_bytes(seed.as_mut());
        let (ciphertext, shared) = encapsulate(&key, &seed);
        let mut nonce = [0; 16];
        rng.fill_bytes(&mut nonce);
        let (share, isk) = match (host.passcode, &hello.share) {
            (None, None) => (None, None),
            (Some(passcode), Some(peer)) => {
                let cpace = CpaceState::start(passcode.0.as_bytes(), &context.cpace_ci(), &hello.nonce, rng);
                let share = cpace.share();
                let isk = cpace.finish_responder(&nonce, peer, &hello.nonce).map_err(|_| HandshakeError::Rejected)?;
                (Some(share), Some(isk))
            }
            _ => return Err(HandshakeError::Passcode),
        };
        let reply = HostReply { nonce, mlkem_ciphertext: ciphertext, share, cert: *host.cert, name: host.name.clone() };
        let message = write_noise(&mut noise, &reply.encode())?;
        let h2 = handshake_hash(&noise);
        let psk3 = context.psk3(&h2, shared.as_ref(), isk.as_ref());
        noise.set_psk(3, psk3.as_bytes())?;
        let (meeting, not_after) = (context.meeting, context.descriptor.not_after);
        Ok((Self { noise, h2, meeting, not_after }, message))
    }

    /// Reads message 3: the guest has the passcode, if one is asked, and is who it says.
    ///
    /// # Errors
    /// [`HandshakeError`]. With a passcode in the policy this is a wrong guess, and counts as one.
    pub fn finish(mut self, message: &[u8], now: UnixMillis) -> Result<Knocker, HandshakeError> {
        let payload = read_noise(&mut self.noise, message)?;
        let intro = GuestIntroduction::decode(&payload)?;
        let session_static: [u8; 32] =
            self.noise.get_remote_static().and_then(|s| s.try_into().ok()).ok_or(HandshakeError::Rejected)?;
        intro.cert.verify(self.meeting, Role::Member, &session_static, &intro.name, now)?;
        // One that ran out in the waiting room would make every member refuse the epoch that admits its owner.
        if intro.cert.not_after < self.not_after {
            return Err(BadIdCert::Expired.into());
        }
        intro.cert.identity.verify(label::JOIN, &[&self.h2, &self.meeting.0], &intro.signature)?;
        let session = Session::new(self.noise)?;
        Ok(Knocker { session, cert: intro.cert, name: intro.name, commitment: intro.commitment })
    }
}

fn encapsulate(
    key: &ml_kem::EncapsulationKey<MlKem768>,
    seed: &[u8; 32],
) -> (Box<[u8; MLKEM_CIPHERTEXT]>, Zeroizing<[u8; 32]>) {
    let (ciphertext, mut shared) = key.encapsulate_deterministic(&(*seed).into());
    let copy = Zeroizing::new(shared.into());
    shared.as_mut_slice().zeroize();
    (Box::new(ciphertext.into()), copy)
}

fn handshake_hash(noise: &HandshakeState) -> [u8; 32] {
    let mut h = [0; 32];
    let hash = noise.get_handshake_hash();
    debug_assert_eq!(hash.len(), h.len());
    h[..hash.len().min(32)].copy_from_slice(&hash[..hash.len().min(32)]);
    h
}

/// What Noise adds to a payload at most: two DH keys and two tags.
const NOISE_OVERHEAD: usize = 2 * 32 + 2 * 16;

fn write_noise(noise: &mut HandshakeState, payload: &[u8]) -> Result<Vec<u8>, HandshakeError> {
    let mut message = vec![0; payload.len() + NOISE_OVERHEAD];
    let len = noise.write_message(payload, &mut message)?;
    message.truncate(len);
    Ok(message)
}

fn read_noise(noise: &mut HandshakeState, message: &[u8]) -> Result<Zeroizing<Vec<u8>>, HandshakeError> {
    let mut payload = Zeroizing::new(vec![0; message.len()]);
    let len = noise.read_message(message, &mut payload)?;
    payload.truncate(len);
    Ok(payload)
}

/// Length of an ML-KEM-768 encapsulation key (FIPS 203, table 3).
const MLKEM_KEY: usize = 1184;
/// Length of an ML-KEM-768 ciphertext (FIPS 203, table 3).
const MLKEM_CIPHERTEXT: usize = 1088;

struct GuestHello {
    nonce: [u8; 16],
    mlkem_key: Box<[u8; MLKEM_KEY]>,
    share: Option<Share>,
}

struct HostReply {
    nonce: [u8; 16],
    mlkem_ciphertext: Box<[u8; MLKEM_CIPHERTEXT]>,
    share: Option<Share>,
    cert: IdCert,
    name: DisplayName,
}

struct GuestIntroduction {
    cert: IdCert,
    name: DisplayName,
    commitment: [u8; 32],
    signature: Signature,
}

fn write_share(w: &mut Writer, share: Option<&Share>) {
    w.u8(u8::from(share.is_some()));
    if let Some(share) = share {
        w.array(share.as_bytes());
    }
}

fn read_share(r: &mut Reader<'_>) -> Result<Option<Share>, Malformed> {
    match r.u8()? {
        0 => Ok(None),
        1 => Ok(Some(Share(r.array()?))),
        _ => Err(Malformed("CPace share")),
    }
}

impl Wire for GuestHello {
    fn write(&self, w: &mut Writer) {
        w.array(&self.nonce);
        w.array(self.mlkem_key.as_ref());
        write_share(w, self.share.as_ref());
    }
    fn read(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        let nonce = r.array()?;
        let mlkem_key = Box::new(r.array()?);
        Ok(Self { nonce, mlkem_key, share: read_share(r)? })
    }
}

impl Wire for HostReply {
    fn write(&self, w: &mut Writer) {
        w.array(&self.nonce);
        w.array(self.mlkem_ciphertext.as_ref());
        write_share(w, self.share.as_ref());
        self.cert.write(w);
        self.name.write(w);
    }
    fn read(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        let nonce = r.array()?;
        let mlkem_ciphertext = Box::new(r.array()?);
        let share = read_share(r)?;
        let cert = IdCert::read(r)?;
        Ok(Self { nonce, mlkem_ciphertext, share, cert, name: DisplayName::read(r)? })
    }
}

impl Wire for GuestIntroduction {
    fn write(&self, w: &mut Writer) {
        self.cert.write(w);
        self.name.write(w);
        w.array(&self.commitment);
        self.signature.write(w);
    }
    fn read(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        let cert = IdCert::read(r)?;
        let name = DisplayName::read(r)?;
        Ok(Self { cert, name, commitment: r.array()?, signature: Signature::read(r)? })
    }
}

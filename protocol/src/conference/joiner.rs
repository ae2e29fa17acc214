//! A guest on the way in: finds the host, shakes hands, knocks and waits.

use std::time::{Duration, Instant};
use zeroize::Zeroizing;

use super::event::{Event, Failure, Person};
use super::mail::{Mail, Shake, Turned};
use super::member::Turn;
use super::outbox::Step;
use super::seat::FreshValue;
use crate::admission::lobby;
use crate::descriptor::Descriptor;
use crate::id::MemberIndex;
use crate::identity::{DisplayName, IdCert, Identity, JoinKeys, Role, SafetyNumber};
use crate::link::Link;
use crate::noise::handshake::{Context, HostIdentity, Introduction, Knocking, Passcode, Responder};
use crate::noise::session::Session;
use crate::sign::KeyPair;
use crate::succession::Line;
use crate::wire::control::{Denial, Message};
use crate::wire::relay::{KnockTokenBytes, Refusal, ToRelay};

/// First wait before a handshake message is sent again; the relay's mailbox may have dropped it.
const RESEND_FIRST: Duration = Duration::from_secs(2);
/// Longest wait: a host that comes back is found soon, and the mailbox's rate limit is never met.
const RESEND_MAX: Duration = Duration::from_secs(10);
/// Handshakes that may fail on a message that does not authenticate before the guest gives up.
const MAX_TRIES: u32 = 3;
/// How long a member that lost its place tries to come back over one connection before it gives up.
const RETURNS_FOR: Duration = Duration::from_secs(30);
/// So much longer than the host keeps a knock, a guest keeps it itself.
const LONGER_THAN_THE_HOST: Duration = Duration::from_secs(60);
/// How long nothing is said when no host answers: most are there at once.
const PATIENCE: Duration = Duration::from_secs(1);

/// The secret keys of one join.
pub(super) struct JoinSecrets {
    /// Of `ms`.
    pub(super) session: Zeroizing<[u8; 32]>,
    /// Of `vk`; seals are their own issue, but the key is bound from the first join on.
    pub(super) sealing: KeyPair,
    /// Of `rk`.
    pub(super) routing: KeyPair,
}

impl JoinSecrets {
    pub(super) fn draw(rng: &mut (impl rand_core::CryptoRng + ?Sized)) -> Self {
        let mut session = Zeroizing::new([0; 32]);
        rng.fill_bytes(session.as_mut());
        Self { session, sealing: KeyPair::generate(rng), routing: KeyPair::generate(rng) }
    }

    pub(super) fn public(&self) -> JoinKeys {
        let secret = x25519_dalek::StaticSecret::from(*self.session);
        JoinKeys {
            session: x25519_dalek::PublicKey::from(&secret).to_bytes(),
            sealing: self.sealing.public(),
            routing: self.routing.public(),
        }
    }
}

enum Stage {
    /// No leader is there, as far as the relay says.
    Absent,
    /// Asked for a mailbox.
    Gate,
    /// Message 1 is out.
    Knocking { state: Option<Box<Knocking>>, message1: Vec<u8> },
    /// Message 3 is out; the host may answer in the session.
    Introduced { session: Box<Session>, message3: Vec<u8>, answered: bool },
    /// Became a member, or the end.
    Done,
}

/// A guest before admission.
pub(super) struct Joiner {
    link: Link,
    name: DisplayName,
    passcode: Option<Passcode>,
    secrets: JoinSecrets,
    fresh: FreshValue,
    cert: Option<IdCert>,
    descriptor: Option<Descriptor>,
    host: Option<HostIdentity>,
    /// Who answers, as the relay says.
    leader: Option<(MemberIndex, Responder)>,
    has_mailbox: bool,
    /// Was a member before: what follows is no news to its user.
    pub(super) returns: bool,
    stage: Stage,
    resend_due: Option<Instant>,
    resend_wait: Duration,
    tries: u32,
    tell_absent_at: Option<Instant>,
    give_up_at: Option<Instant>,
    /// How long this guest waits for an answer, when the host is not there any more to say that it has waited enough.
    waits_until: Option<Instant>,
}

/// What a joiner has become when the host lets it in.
pub(super) struct Entered {
    pub(super) link: Link,
    pub(super) name: DisplayName,
    pub(super) passcode: Option<Passcode>,
    pub(super) leader: MemberIndex,
    pub(super) session: Session,
    pub(super) secrets: JoinSecrets,
    pub(super) fresh: FreshValue,
    pub(super) cert: IdCert,
    pub(super) descriptor: Descriptor,
}

/// What a mail led to.
pub(super) enum Progress {
    Nothing,
    /// A message of the host's to somebody whom it has let in or turned down.
    Message(Box<Message>),
    Failed(Failure),
}

impl Joiner {
    pub(super) fn new(
        link: Link,
        name: DisplayName,
        passcode: Option<Passcode>,
        returns: bool,
        rng: &mut (impl rand_core::CryptoRng + ?Sized),
    ) -> Self {
        let fresh = FreshValue::draw(link.meeting, rng);
        Self {
            secrets: JoinSecrets::draw(rng),
            link,
            name,
            passcode,
            fresh,
            cert: None,
            descriptor: None,
            host: None,
            leader: None,
            has_mailbox: false,
            returns,
            stage: Stage::Absent,
            resend_due: None,
            resend_wait: RESEND_FIRST,
            tries: 0,
            tell_absent_at: None,
            give_up_at: None,
            waits_until: None,
        }
    }

    pub(super) fn link(&self) -> &Link {
        &self.link
    }

    #[cfg(feature = "reports")]
    pub(super) fn name(&self) -> &DisplayName {
        &self.name
    }

    pub(super) fn descriptor(&self) -> Option<&Descriptor> {
        self.descriptor.as_ref()
    }

    pub(super) fn on_welcome(&mut self, step: &Step<'_>) {
        self.tell_absent_at = Some(step.now + PATIENCE);
        self.give_up_at = self.returns.then(|| step.now + RETURNS_FOR);
    }

    /// Another connection: its relay knows of no mailbox, and the host of no knock.
    pub(super) fn on_connected(&mut self) {
        self.stage = Stage::Absent;
        self.has_mailbox = false;
        self.leader = None;
        self.resend_due = None;
    }

    /// A leader is present and the relay gives D; later, that another one leads.
    pub(super) fn on_meeting(
        &mut self,
        step: &mut Step<'_>,
        descriptor: &[u8],
        line: Option<&Line>,
        leader: MemberIndex,
    ) -> Progress {
        let Ok(descriptor) = Descriptor::decode_for(self.link.meeting, descriptor) else {
            return Progress::Failed(Failure::Relay);
        };
        let line = line.filter(|line| line.verify(&descriptor.authority, self.link.meeting).is_ok());
        // A line that the relay invents, or a leader who is in none, can only be waited out.
        let Some(responder) = Responder::of(leader, line) else { return Progress::Nothing };
        if self.leader.replace((leader, responder)) == Some((leader, responder)) {
            return Progress::Nothing;
        }
        match self.stage {
            Stage::Absent => {}
            Stage::Gate => return Progress::Nothing,
            _ => return if self.has_mailbox { self.start_handshake(step) } else { Progress::Nothing },
        }
        if !descriptor.is_valid_at(step.wall) {
            return Progress::Failed(Failure::NotNow);
        }
        if descriptor.policy.asks_passcode() && self.passcode.is_none() {
            return Progress::Failed(Failure::PasscodeNeeded);
        }
        self.descriptor = Some(descriptor);
        self.tell_absent_at = None;
        self.stage = Stage::Gate;
        let token = self.link.secret.knock_token(self.link.meeting);
        step.out.control(&ToRelay::OpenMailbox { token: KnockTokenBytes(token.0) });
        Progress::Nothing
    }

    /// Who is to answer, as the relay says.
    fn leader(&self) -> MemberIndex {
        self.leader.map_or(MemberIndex::HOST, |(leader, _)| leader)
    }

    /// Whether the relay knows of no leader.
    pub(super) fn is_absent(&self) -> bool {
        matches!(self.stage, Stage::Absent)
    }

    pub(super) fn on_mailbox_open(&mut self, step: &mut Step<'_>) -> Progress {
        self.has_mailbox = true;
        if matches!(self.stage, Stage::Gate) { self.start_handshake(step) } else { Progress::Nothing }
    }

    pub(super) fn on_refused(&mut self, reason: Refusal) -> Progress {
        match reason {
            Refusal::WrongLink => Progress::Failed(Failure::WrongLink),
            Refusal::Full => Progress::Failed(Failure::Full),
            Refusal::TooFast | Refusal::NotAllowed => Progress::Nothing,
            _ => Progress::Failed(Failure::Relay),
        }
    }

    fn start_handshake(&mut self, step: &mut Step<'_>) -> Progress {
        let (Some(descriptor), Some((leader, responder))) = (&self.descriptor, self.leader) else {
            return Progress::Nothing;
        };
        let meeting = self.link.meeting;
        let psk0 = self.link.secret.psk0(meeting);
        let context = Context { meeting, descriptor: descriptor.clone(), psk0, responder };
        let passcode = self.passcode.as_ref().filter(|_| descriptor.policy.asks_passcode());
        match Knocking::start(context, &self.secrets.session, passcode, step.rng) {
            Ok((state, message1)) => {
                step.out.control(&ToRelay::Mail { bytes: Mail::Handshake(leader, Shake::Message1(&message1)).bytes() });
                self.stage = Stage::Knocking { state: Some(Box::new(state)), message1 };
                self.resend_wait = RESEND_FIRST;
                self.resend_due = Some(step.now + self.resend_wait);
                Progress::Nothing
            }
            Err(_) => Progress::Failed(Failure::Handshake),
        }
    }

    pub(super) fn on_mail(&mut self, step: &mut Step<'_>, bytes: &[u8], identity: &Identity) -> Progress {
        match Mail::parse(bytes) {
            Some(Mail::Session(packet)) => self.on_packet(step, packet),
            // Whoever led before may still answer what it was asked.
            Some(Mail::Handshake(leader, _)) if leader != self.leader() => Progress::Nothing,
            Some(Mail::Handshake(_, Shake::Message2(message))) => self.on_message2(step, message, identity),
            Some(Mail::Handshake(_, Shake::Turned(why))) => self.on_turned(step, why),
            _ => Progress::Nothing,
        }
    }

    fn on_message2(&mut self, step: &mut Step<'_>, message: &[u8], identity: &Identity) -> Progress {
        let Stage::Knocking { state, .. } = &mut self.stage else { return Progress::Nothing };
        let Some(state) = state.take() else { return Progress::Nothing };
        let Some(descriptor) = &self.descriptor else { return Progress::Nothing };
        let Ok(introducing) = state.read_reply(message, step.wall) else {
            // Not what the host wrote. The state is spent, so another handshake begins, a few times.
            self.tries += 1;
            if self.tries >= MAX_TRIES {
                return Progress::Failed(Failure::Handshake);
            }
            return self.start_handshake(step);
        };
        let host = introducing.host.clone();
        let safety_number = SafetyNumber::of(&identity.public(), &host.cert.identity);
        let (host_identity, kind) = (host.cert.identity, host.cert.kind);
        let person = Person { name: host.name.clone(), identity: host_identity, kind, safety_number };
        let (meeting, keys) = (self.link.meeting, self.secrets.public());
        let cert = identity.certify(meeting, Role::Member, keys, &self.name, descriptor.not_after);
        let commitment = self.fresh.commitment();
        let introduction = Introduction { identity, cert, name: self.name.clone(), commitment };
        let Ok((session, message3)) = introducing.introduce(introduction) else {
            return Progress::Failed(Failure::Handshake);
        };
        step.out.control(&ToRelay::Mail { bytes: Mail::Handshake(self.leader(), Shake::Message3(&message3)).bytes() });
        self.cert = Some(cert);
        let is_news = self.host.replace(host).is_none_or(|known| known.cert.identity != host_identity);
        if is_news && !self.returns {
            step.out.event(Event::HostFound(person));
        }
        self.stage = Stage::Introduced { session: Box::new(session), message3, answered: false };
        self.resend_wait = RESEND_FIRST;
        self.resend_due = Some(step.now + self.resend_wait);
        Progress::Nothing
    }

    fn on_packet(&mut self, step: &mut Step<'_>, packet: &[u8]) -> Progress {
        let Stage::Introduced { session, answered, .. } = &mut self.stage else { return Progress::Nothing };
        let Ok(message) = session.receive(step.now, packet) else { return Progress::Nothing };
        *answered = true;
        self.resend_due = None;
        self.give_up_at = None;
        self.waits_until.get_or_insert(step.now + lobby::EXPIRY + LONGER_THAN_THE_HOST);
        message.map_or(Progress::Nothing, |message| Progress::Message(Box::new(message)))
    }

    fn on_turned(&mut self, step: &mut Step<'_>, why: Turned) -> Progress {
        let answered = matches!(self.stage, Stage::Introduced { answered: true, .. });
        match why {
            // Whoever forges one of these after the host has answered gains nothing.
            _ if answered => Progress::Nothing,
            Turned::Later => {
                step.out.event(Event::Throttled);
                Progress::Nothing
            }
            Turned::WrongPasscode => Progress::Failed(Failure::WrongPasscode),
            Turned::Away => Progress::Failed(Failure::WrongLink),
        }
    }

    /// The host lets this guest in: what it takes along.
    pub(super) fn enter(&mut self, rng: &mut (impl rand_core::CryptoRng + ?Sized)) -> Option<Entered> {
        let stage = std::mem::replace(&mut self.stage, Stage::Done);
        let (Stage::Introduced { session, .. }, Some(cert), Some(descriptor)) = (stage, self.cert, &self.descriptor)
        else {
            return None;
        };
        let secrets = std::mem::replace(&mut self.secrets, JoinSecrets::draw(rng));
        let fresh = std::mem::replace(&mut self.fresh, FreshValue::draw(self.link.meeting, rng));
        Some(Entered {
            link: self.link.duplicate(),
            name: self.name.clone(),
            passcode: self.passcode.as_ref().map(Passcode::duplicate),
            leader: self.leader(),
            session: *session,
            secrets,
            fresh,
            cert,
            descriptor: descriptor.clone(),
        })
    }

    pub(super) fn handle_timeout(&mut self, step: &mut Step<'_>) -> Turn {
        if self.give_up_at.is_some_and(|at| at <= step.now) {
            return Turn::GiveUp;
        }
        if self.waits_until.take_if(|at| *at <= step.now).is_some() {
            step.out.event(Event::Denied(Denial::Expired));
            return Turn::Stay;
        }
        if self.tell_absent_at.is_some_and(|at| at <= step.now) {
            self.tell_absent_at = None;
            if !self.returns {
                step.out.event(Event::WaitingForHost);
            }
        }
        if self.resend_due.is_some_and(|due| due <= step.now) {
            let shake = match &self.stage {
                Stage::Knocking { message1, .. } => Some(Shake::Message1(message1)),
                Stage::Introduced { message3, answered: false, .. } => Some(Shake::Message3(message3)),
                _ => None,
            };
            let mail = shake.map(|shake| Mail::Handshake(self.leader(), shake).bytes());
            self.resend_due = mail.is_some().then(|| step.now + self.resend_wait);
            self.resend_wait = (self.resend_wait * 2).min(RESEND_MAX);
            if let Some(bytes) = mail {
                step.out.control(&ToRelay::Mail { bytes });
            }
        }
        if let Stage::Introduced { session, .. } = &mut self.stage {
            let mut packets = Vec::new();
            // A session without an answer sends nothing, so it cannot stall.
            let _ = session.handle_timeout(step.now, &mut packets);
            packets.into_iter().for_each(|bytes| step.out.control(&ToRelay::Mail { bytes }));
        }
        Turn::Stay
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let session = match &self.stage {
            Stage::Introduced { session, .. } => session.poll_timeout(),
            _ => None,
        };
        [self.tell_absent_at, self.resend_due, self.give_up_at, self.waits_until, session].into_iter().flatten().min()
    }
}

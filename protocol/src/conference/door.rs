//! The host's door: handshakes with guests by mailbox, and the throttle on wrong passcodes.

use rand_core::CryptoRng;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use zeroize::Zeroizing;

use super::mail::{Mail, Shake, Turned};
use crate::admission::throttle::Throttle;
use crate::id::MemberIndex;
use crate::identity::{DisplayName, IdCert};
use crate::noise::handshake::{Answering, Context, HostKeys, Knocker, Passcode};
use crate::time::UnixMillis;
use crate::wire::relay::MailboxId;

/// How long a guest may take from message 2 to message 3.
const PATIENCE: Duration = Duration::from_secs(30);
/// Most handshakes at one time; the relay opens no more mailboxes.
const MAX_HANDSHAKES: usize = 256;

enum Handshake {
    /// Waits for the throttle.
    Queued { message1: Vec<u8> },
    /// Message 2 is out.
    Answered { state: Box<Answering>, message1: Vec<u8>, message2: Vec<u8>, since: Instant },
}

/// Handshakes that have not become knocks yet.
pub(super) struct Door {
    /// Whose door it is.
    leader: MemberIndex,
    context: Context,
    session_secret: Zeroizing<[u8; 32]>,
    cert: IdCert,
    name: DisplayName,
    passcode: Option<Passcode>,
    handshakes: BTreeMap<MailboxId, Handshake>,
    throttle: Throttle,
}

/// What became of a mail.
pub(super) enum Opened {
    /// Nothing to say.
    Nothing,
    /// An answer to the guest.
    Reply(Vec<u8>),
    /// The handshake is complete.
    Knocker(Box<Knocker>),
}

impl Door {
    pub(super) fn new(
        now: Instant,
        leader: MemberIndex,
        context: Context,
        session_secret: Zeroizing<[u8; 32]>,
        cert: IdCert,
        name: DisplayName,
        passcode: Option<Passcode>,
    ) -> Self {
        let handshakes = BTreeMap::new();
        Self { leader, context, session_secret, cert, name, passcode, handshakes, throttle: Throttle::new(now) }
    }

    /// A handshake message of a guest.
    pub(super) fn handle_mail(
        &mut self,
        now: Instant,
        wall: UnixMillis,
        mailbox: MailboxId,
        mail: Mail<'_>,
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Opened {
        match mail {
            Mail::Handshake(to, Shake::Message1(message)) if to == self.leader => {
                self.on_message1(now, mailbox, message, rng)
            }
            Mail::Handshake(to, Shake::Message3(message)) if to == self.leader => {
                self.on_message3(now, wall, mailbox, message)
            }
            _ => Opened::Nothing,
        }
    }

    fn mail(&self, shake: Shake<'_>) -> Vec<u8> {
        Mail::Handshake(self.leader, shake).bytes()
    }

    fn on_message1(
        &mut self,
        now: Instant,
        mailbox: MailboxId,
        message: &[u8],
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Opened {
        match self.handshakes.get(&mailbox) {
            Some(Handshake::Answered { message1, message2, .. }) if message1 == message => {
                return Opened::Reply(self.mail(Shake::Message2(message2)));
            }
            Some(Handshake::Queued { message1 }) if message1 == message => return Opened::Nothing,
            _ => {}
        }
        self.handshakes.remove(&mailbox);
        if self.handshakes.len() >= MAX_HANDSHAKES {
            return Opened::Nothing;
        }
        let message1 = message.to_vec();
        if self.passcode.is_some() && !self.throttle.may_start(now, self.in_flight()) {
            self.handshakes.insert(mailbox, Handshake::Queued { message1 });
            return Opened::Reply(self.mail(Shake::Turned(Turned::Later)));
        }
        Opened::Reply(self.answer(now, mailbox, message1, rng))
    }

    fn answer(
        &mut self,
        now: Instant,
        mailbox: MailboxId,
        message1: Vec<u8>,
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Vec<u8> {
        let host = HostKeys {
            session_secret: &self.session_secret,
            cert: &self.cert,
            name: &self.name,
            passcode: self.passcode.as_ref(),
        };
        match Answering::answer(&self.context, &host, &message1, rng) {
            Ok((state, message2)) => {
                self.throttle.on_start(now);
                let mail = self.mail(Shake::Message2(&message2));
                let state = Box::new(state);
                self.handshakes.insert(mailbox, Handshake::Answered { state, message1, message2, since: now });
                mail
            }
            Err(_) => self.mail(Shake::Turned(Turned::Away)),
        }
    }

    fn on_message3(&mut self, now: Instant, wall: UnixMillis, mailbox: MailboxId, message: &[u8]) -> Opened {
        let state = match self.handshakes.remove(&mailbox) {
            Some(Handshake::Answered { state, .. }) => state,
            Some(queued) => {
                self.handshakes.insert(mailbox, queued);
                return Opened::Nothing;
            }
            None => return Opened::Nothing,
        };
        match state.finish(message, wall) {
            Ok(knocker) => Opened::Knocker(Box::new(knocker)),
            Err(_) if self.passcode.is_some() => {
                self.throttle.on_failure(now);
                Opened::Reply(self.mail(Shake::Turned(Turned::WrongPasscode)))
            }
            Err(_) => Opened::Reply(self.mail(Shake::Turned(Turned::Away))),
        }
    }

    /// The guest's mailbox is gone.
    pub(super) fn on_mailbox_gone(&mut self, mailbox: MailboxId) {
        self.handshakes.remove(&mailbox);
    }

    /// Lets handshakes go that take too long, and draws from the queue when the throttle allows.
    pub(super) fn handle_timeout(
        &mut self,
        now: Instant,
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Vec<(MailboxId, Vec<u8>)> {
        self.handshakes.retain(|_, handshake| match handshake {
            Handshake::Answered { since, .. } => now.saturating_duration_since(*since) < PATIENCE,
            Handshake::Queued { .. } => true,
        });
        let mut replies = Vec::new();
        loop {
            let queued: Vec<MailboxId> = self.queued().collect();
            if queued.is_empty() || !self.throttle.may_start(now, self.in_flight()) {
                return replies;
            }
            // At random, so that whoever fills the queue does not decide who comes next. The bias of the modulus
            // over at most 256 entries is below 2⁻⁵⁶.
            let drawn = queued[(rng.next_u64() % queued.len() as u64) as usize];
            if let Some(Handshake::Queued { message1 }) = self.handshakes.remove(&drawn) {
                replies.push((drawn, self.answer(now, drawn, message1, rng)));
            }
        }
    }

    /// When [`Door::handle_timeout`] wants to be called.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let patience = self.handshakes.values().filter_map(|handshake| match handshake {
            Handshake::Answered { since, .. } => Some(*since + PATIENCE),
            Handshake::Queued { .. } => None,
        });
        let throttle = self.queued().next().and_then(|_| self.throttle.next_start());
        // While one is in flight the throttle starts no other: its end, or its patience, is what comes next.
        let throttle = throttle.filter(|_| self.in_flight() == 0);
        patience.chain(throttle).min()
    }

    fn queued(&self) -> impl Iterator<Item = MailboxId> + '_ {
        let queued = |handshake: &Handshake| matches!(handshake, Handshake::Queued { .. });
        self.handshakes.iter().filter(move |(_, h)| queued(h)).map(|(mailbox, _)| *mailbox)
    }

    fn in_flight(&self) -> usize {
        self.handshakes.len() - self.queued().count()
    }
}

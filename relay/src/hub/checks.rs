//! The operator's moderator asks whether stamps are genuine (`docs/protocol.md` §9.3). It belongs to no meeting.

use std::time::Instant;

use conclave_protocol::label;
use conclave_protocol::sign::{PublicKey, Signature};
use conclave_protocol::wire::codec::{Wire, Writer};
use conclave_protocol::wire::relay::{FromRelay, Refusal, StampCheck};

use super::{FULL, Hub, NO_HELLO, Stage};
use crate::core::{ConnId, Output};

impl Hub {
    /// A question, the first or another one. Whoever can't sign it has no business here.
    pub(super) fn on_check_stamps(
        &mut self,
        now: Instant,
        conn: ConnId,
        signature: &Signature,
        checks: &[StampCheck],
        out: &mut Vec<Output>,
    ) {
        if self.clients.len() > self.limits.max_connections {
            return self.refuse(conn, Refusal::Full, Some(FULL), out);
        }
        let Some(client) = self.clients.get_mut(&conn) else { return };
        if !client.messages.take(now, 1, self.limits.stamp_checks) {
            return self.refuse(conn, Refusal::TooFast, None, out);
        }
        let mut questions = Writer::default();
        questions.list(checks);
        let signed: [&[u8]; 2] = [&client.peer.exporter, &questions.into_bytes()];
        let verify = |key: PublicKey| key.verify(label::MODERATOR_REQUEST, &signed, signature).is_ok();
        let is_moderator = self.moderator.as_ref().is_some_and(|moderator| verify(moderator.signing()));
        if !is_moderator {
            return self.refuse(conn, Refusal::NotAllowed, Some(NO_HELLO), out);
        }
        client.stage = Stage::Moderator;
        self.stats.stamps_checked += checks.len() as u64;
        let verdicts = checks.iter().map(|check| self.stamps.check(check)).collect();
        out.push(Output::Control { to: conn, bytes: FromRelay::StampsChecked { verdicts }.encode().into() });
    }
}

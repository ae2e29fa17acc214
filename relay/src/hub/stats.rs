//! What the hub counts: totals over all meetings, never anything about one client or meeting.

use conclave_protocol::wire::relay::{Refusal, ReportRefusal, ToRelay};
#[cfg(test)]
use serde::Deserialize;
use serde::Serialize;

/// The hub's counters at one moment. Those without "now" only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(Deserialize))]
pub struct Stats {
    /// Meetings that anybody waits for or takes part in, now.
    pub meetings_now: u64,
    /// Connections with a slot, now.
    pub members_now: u64,
    /// Connections without a slot, now.
    pub guests_now: u64,
    /// Open mailboxes, now.
    pub mailboxes_now: u64,

    /// Times that a member was asked to shift its frame clock.
    pub phases_asked: u64,

    /// Reports that are arriving or that the sink is busy with, now.
    pub reports_now: u64,
    /// Bytes of those, as announced.
    pub report_bytes_now: u64,

    /// Reports that the sink has taken.
    pub reports_taken: u64,
    /// Reports announced once more after they had been taken.
    pub reports_repeated: u64,
    /// `ReportRefused(NoSink)`.
    pub reports_refused_no_sink: u64,
    /// `ReportRefused(Unavailable)`.
    pub reports_refused_unavailable: u64,
    /// `ReportRefused(TooMany)`.
    pub reports_refused_too_many: u64,
    /// `ReportRefused(TooLong)`.
    pub reports_refused_too_long: u64,
    /// `ReportRefused(NotAllowed)`.
    pub reports_refused_not_allowed: u64,
    /// `ReportRefused(Damaged)`.
    pub reports_refused_damaged: u64,
    /// Reports given up because nothing more of them came; counted under damaged too.
    pub reports_stalled: u64,
    /// Parts of reports that weren't under way.
    pub report_parts_stray: u64,
    /// Stamps that the moderator asked about.
    pub stamps_checked: u64,

    /// Datagrams that came in.
    pub datagrams_in: u64,
    /// Copies of datagrams that went out.
    pub datagrams_forwarded: u64,
    /// Datagrams dropped because they are none.
    pub datagrams_dropped_malformed: u64,
    /// Datagrams dropped because their sender has no slot.
    pub datagrams_dropped_unattached: u64,
    /// Datagrams dropped because they name another slot than their sender's.
    pub datagrams_dropped_wrong_slot: u64,
    /// Removal notices dropped because their sender is no leader.
    pub datagrams_dropped_not_allowed: u64,
    /// Datagrams dropped because their slot sends too many.
    pub datagrams_dropped_too_fast: u64,

    /// Seals that were stamped.
    pub seals_stamped: u64,
    /// Copies of seals that went to other members.
    pub seals_forwarded: u64,
    /// Seals refused because they are none.
    pub seals_refused_malformed: u64,
    /// Seals refused because they name another slot than their sender's.
    pub seals_refused_wrong_slot: u64,
    /// Seals dropped because their slot sends too many.
    pub seals_dropped_too_fast: u64,

    /// Messages `Hello`.
    pub messages_hello: u64,
    /// Messages `OpenMailbox`.
    pub messages_open_mailbox: u64,
    /// Messages `Mail`.
    pub messages_mail: u64,
    /// Messages `MailTo`.
    pub messages_mail_to: u64,
    /// Messages `CloseMailbox`.
    pub messages_close_mailbox: u64,
    /// Messages `Attach`.
    pub messages_attach: u64,
    /// Messages `Send`.
    pub messages_send: u64,
    /// Messages `Revoke`.
    pub messages_revoke: u64,
    /// Messages `Gate`.
    pub messages_gate: u64,
    /// Messages `Line`.
    pub messages_line: u64,
    /// Messages `Seal`.
    pub messages_seal: u64,
    /// Messages `Report`.
    pub messages_report: u64,
    /// Messages `ReportPart`.
    pub messages_report_part: u64,
    /// Messages `CheckStamps`.
    pub messages_check_stamps: u64,
    /// Messages that are none.
    pub messages_malformed: u64,
    /// Messages and mail dropped because their receiver isn't there.
    pub messages_undeliverable: u64,

    /// `Refused(Malformed)`.
    pub refused_malformed: u64,
    /// `Refused(WrongLink)`.
    pub refused_wrong_link: u64,
    /// `Refused(Full)`.
    pub refused_full: u64,
    /// `Refused(TooFast)`.
    pub refused_too_fast: u64,
    /// `Refused(Capability)`.
    pub refused_capability: u64,
    /// `Refused(Expired)`.
    pub refused_expired: u64,
    /// `Refused(Revoked)`.
    pub refused_revoked: u64,
    /// `Refused(Replaced)`.
    pub refused_replaced: u64,
    /// `Refused(NotAllowed)`.
    pub refused_not_allowed: u64,

    /// Lines of succession that replaced an older one or none, from Hello or `Line`.
    pub lines_learned: u64,
    /// Lines of succession that the meeting's authority didn't sign, or whose sender may bring none.
    pub lines_refused: u64,

    /// Slots taken; renewals don't count.
    pub attached: u64,
    /// Slots lost because a newer line no longer holds the key that signed their capability.
    pub detached_capability: u64,
    /// Slots lost because their capability ran out.
    pub detached_expired: u64,
    /// Slots lost because they were revoked.
    pub detached_revoked: u64,
    /// Connections that lost their slot to a newer one.
    pub detached_replaced: u64,
}

/// Why a datagram isn't forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Drop {
    Malformed,
    Unattached,
    WrongSlot,
    NotAllowed,
    TooFast,
}

impl Stats {
    pub(super) fn count_message(&mut self, message: &ToRelay) {
        let counter = match message {
            ToRelay::Hello { .. } => &mut self.messages_hello,
            ToRelay::OpenMailbox { .. } => &mut self.messages_open_mailbox,
            ToRelay::Mail { .. } => &mut self.messages_mail,
            ToRelay::MailTo { .. } => &mut self.messages_mail_to,
            ToRelay::CloseMailbox { .. } => &mut self.messages_close_mailbox,
            ToRelay::Attach { .. } => &mut self.messages_attach,
            ToRelay::Send { .. } => &mut self.messages_send,
            ToRelay::Revoke { .. } => &mut self.messages_revoke,
            ToRelay::Gate { .. } => &mut self.messages_gate,
            ToRelay::Line { .. } => &mut self.messages_line,
            ToRelay::Seal { .. } => &mut self.messages_seal,
            ToRelay::Report { .. } => &mut self.messages_report,
            ToRelay::ReportPart { .. } => &mut self.messages_report_part,
            ToRelay::CheckStamps { .. } => &mut self.messages_check_stamps,
        };
        *counter += 1;
    }

    pub(super) fn count_refusal(&mut self, reason: Refusal) {
        let counter = match reason {
            Refusal::Malformed => &mut self.refused_malformed,
            Refusal::WrongLink => &mut self.refused_wrong_link,
            Refusal::Full => &mut self.refused_full,
            Refusal::TooFast => &mut self.refused_too_fast,
            Refusal::Capability => &mut self.refused_capability,
            Refusal::Expired => &mut self.refused_expired,
            Refusal::Revoked => &mut self.refused_revoked,
            Refusal::Replaced => &mut self.refused_replaced,
            Refusal::NotAllowed => &mut self.refused_not_allowed,
        };
        *counter += 1;
    }

    pub(super) fn count_report_refusal(&mut self, reason: ReportRefusal) {
        let counter = match reason {
            ReportRefusal::NoSink => &mut self.reports_refused_no_sink,
            ReportRefusal::Unavailable => &mut self.reports_refused_unavailable,
            ReportRefusal::TooMany => &mut self.reports_refused_too_many,
            ReportRefusal::TooLong => &mut self.reports_refused_too_long,
            ReportRefusal::NotAllowed => &mut self.reports_refused_not_allowed,
            ReportRefusal::Damaged => &mut self.reports_refused_damaged,
        };
        *counter += 1;
    }

    pub(super) fn count_detached(&mut self, reason: Refusal) {
        match reason {
            Refusal::Capability => self.detached_capability += 1,
            Refusal::Expired => self.detached_expired += 1,
            Refusal::Replaced => self.detached_replaced += 1,
            _ => self.detached_revoked += 1,
        }
    }

    pub(super) fn count_drop(&mut self, reason: Drop) {
        let counter = match reason {
            Drop::Malformed => &mut self.datagrams_dropped_malformed,
            Drop::Unattached => &mut self.datagrams_dropped_unattached,
            Drop::WrongSlot => &mut self.datagrams_dropped_wrong_slot,
            Drop::NotAllowed => &mut self.datagrams_dropped_not_allowed,
            Drop::TooFast => &mut self.datagrams_dropped_too_fast,
        };
        *counter += 1;
    }
}

//! What the core has counted: meetings, slots, messages, seals, reports.

use std::fmt;

use super::page::Page;
use crate::hub::Stats;

/// All of it but what became of frames.
pub(super) fn write(page: &mut Page<'_>, stats: &Stats) -> fmt::Result {
    now(page, stats)?;
    slots(page, stats)?;
    messages(page, stats)?;
    refusals(page, stats)?;
    seals(page, stats)?;
    reports(page, stats)
}

fn now(page: &mut Page<'_>, stats: &Stats) -> fmt::Result {
    page.gauge("meetings", "Meetings that somebody takes part in or waits for, now.", stats.meetings_now)?;
    page.gauge("members", "Connections that hold a slot of a meeting, now.", stats.members_now)?;
    page.gauge("guests", "Connections to a meeting that hold no slot, now.", stats.guests_now)?;
    page.gauge("mailboxes", "Open mailboxes of guests that knock, now.", stats.mailboxes_now)
}

fn slots(page: &mut Page<'_>, stats: &Stats) -> fmt::Result {
    page.counter("slots_taken", "Slots taken; renewals don't count.", stats.attached)?;
    let lost = [
        ("capability", stats.detached_capability),
        ("expired", stats.detached_expired),
        ("revoked", stats.detached_revoked),
        ("replaced", stats.detached_replaced),
    ];
    page.counters("slots_lost", "Slots taken away from their connections.", "reason", &lost)?;
    let lines = [("learned", stats.lines_learned), ("refused", stats.lines_refused)];
    page.counters("lines", "Lines of succession that members brought.", "outcome", &lines)?;
    page.counter("phases_asked", "Times that a client was asked to shift its frame clock.", stats.phases_asked)
}

fn messages(page: &mut Page<'_>, stats: &Stats) -> fmt::Result {
    let by_type = [
        ("hello", stats.messages_hello),
        ("open_mailbox", stats.messages_open_mailbox),
        ("mail", stats.messages_mail),
        ("mail_to", stats.messages_mail_to),
        ("close_mailbox", stats.messages_close_mailbox),
        ("attach", stats.messages_attach),
        ("send", stats.messages_send),
        ("revoke", stats.messages_revoke),
        ("gate", stats.messages_gate),
        ("line", stats.messages_line),
        ("seal", stats.messages_seal),
        ("report", stats.messages_report),
        ("report_part", stats.messages_report_part),
        ("check_stamps", stats.messages_check_stamps),
        ("malformed", stats.messages_malformed),
    ];
    page.counters("messages", "Control messages received, by what they are.", "type", &by_type)?;
    let help = "Messages and mail whose receiver wasn't there.";
    page.counter("messages_undeliverable", help, stats.messages_undeliverable)
}

fn refusals(page: &mut Page<'_>, stats: &Stats) -> fmt::Result {
    let refused = [
        ("malformed", stats.refused_malformed),
        ("wrong_link", stats.refused_wrong_link),
        ("full", stats.refused_full),
        ("too_fast", stats.refused_too_fast),
        ("capability", stats.refused_capability),
        ("expired", stats.refused_expired),
        ("revoked", stats.refused_revoked),
        ("replaced", stats.refused_replaced),
        ("not_allowed", stats.refused_not_allowed),
    ];
    page.counters("refusals", "Messages and slots refused to connected clients.", "reason", &refused)
}

fn seals(page: &mut Page<'_>, stats: &Stats) -> fmt::Result {
    page.counter("seals_stamped", "Seals stamped.", stats.seals_stamped)?;
    page.counter("seals_forwarded", "Seals sent, one for each member that gets it.", stats.seals_forwarded)?;
    let refused = [
        ("malformed", stats.seals_refused_malformed),
        ("wrong_slot", stats.seals_refused_wrong_slot),
        ("too_fast", stats.seals_dropped_too_fast),
    ];
    page.counters("seals_refused", "Seals neither stamped nor sent.", "reason", &refused)?;
    page.counter("stamps_checked", "Stamps that the moderator asked about.", stats.stamps_checked)
}

fn reports(page: &mut Page<'_>, stats: &Stats) -> fmt::Result {
    page.gauge(
        "reports_under_way",
        "Reports that are arriving or that the sink is busy with, now.",
        stats.reports_now,
    )?;
    page.gauge("reports_under_way_bytes", "Bytes of those, as announced.", stats.report_bytes_now)?;
    page.counter("reports_taken", "Reports that the sink has.", stats.reports_taken)?;
    page.counter("reports_repeated", "Reports that came once more after they had been taken.", stats.reports_repeated)?;
    let refused = [
        ("no_sink", stats.reports_refused_no_sink),
        ("unavailable", stats.reports_refused_unavailable),
        ("too_many", stats.reports_refused_too_many),
        ("too_long", stats.reports_refused_too_long),
        ("not_allowed", stats.reports_refused_not_allowed),
        ("damaged", stats.reports_refused_damaged),
    ];
    page.counters("reports_refused", "Reports that weren't taken.", "reason", &refused)?;
    page.counter("reports_stalled", "Reports given up because nothing more of them came.", stats.reports_stalled)?;
    page.counter("report_parts_stray", "Parts of reports that weren't under way.", stats.report_parts_stray)
}

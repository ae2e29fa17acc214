//! How soon a client needs what a relay has for it, as far as a relay can see that.

use super::relay::{DELIVER, SEALED};

/// Where in a Deliver the kind of what it brings is: behind the type, the sender's slot and the length.
const DELIVERED_KIND: usize = 1 + 2 + 2;

/// First byte of a witness (`docs/protocol.md` §7.9), and its length.
pub const WITNESS: u8 = 7;
const WITNESS_LEN: usize = 347;
/// First byte of a message to all (§7.7), of which a relay sees no more than its length.
const TO_ALL: u8 = 6;
/// Bytes of such a message without its body: header, type and tag.
const TO_ALL_EMPTY: usize = 9 + 1 + 16;
/// Bytes of a confirmation (§7.8), of a head, and of a list's length (§9.6).
const CONFIRM: usize = 109;
const HEAD: usize = 104;
const LIST: usize = 2;
const MOST_HEADS: usize = 16;
/// Bytes of a heartbeat (§7.7), with none to 256 whose confirmation is missing.
const HEARTBEAT: usize = 150;
const UNCONFIRMED: usize = 2;
const MOST_UNCONFIRMED: usize = 256;

/// How soon a client needs a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Urgency {
    /// At once, and what waits leaves before it.
    Now,
    /// At once, wherever it comes between the others.
    NowInAnyOrder,
    /// Within half a second, in its turn among the others.
    Soon,
    /// Within half a second, wherever it comes between the others.
    SoonInAnyOrder,
}

/// How soon a client needs a message. A seal is in time for longer than half a second (`docs/protocol.md` §9.4), and a witness
/// shows what has been for a while (§7.9); both stand for themselves. So do confirmations and heads, but a receiver takes the
/// messages of one sender to all in their order alone (§7.7). They are known by their lengths: what another one of the same
/// length says loses nothing by half a second either. A heartbeat must be in time, but whether seals come before it is all the
/// same; that holds for other messages to all of such lengths, too.
#[must_use]
pub fn urgency(message: &[u8]) -> Urgency {
    let length = message.len().saturating_sub(DELIVERED_KIND);
    match (message.first(), message.get(DELIVERED_KIND)) {
        (Some(&SEALED), _) => Urgency::SoonInAnyOrder,
        (Some(&DELIVER), Some(&WITNESS)) if length == WITNESS_LEN => Urgency::SoonInAnyOrder,
        (Some(&DELIVER), Some(&TO_ALL)) if is_routine(length) => Urgency::Soon,
        (Some(&DELIVER), Some(&TO_ALL)) if is_heartbeat(length) => Urgency::NowInAnyOrder,
        _ => Urgency::Now,
    }
}

/// Whether a message to all of that length is a confirmation, or heads.
fn is_routine(length: usize) -> bool {
    let is_heads = |heads: usize| length == TO_ALL_EMPTY + LIST + heads * HEAD;
    length == TO_ALL_EMPTY + CONFIRM || (1..=MOST_HEADS).any(is_heads)
}

/// Whether a message to all of that length may be a heartbeat.
fn is_heartbeat(length: usize) -> bool {
    let list = length.checked_sub(TO_ALL_EMPTY + HEARTBEAT);
    list.is_some_and(|list| list % UNCONFIRMED == 0 && list / UNCONFIRMED <= MOST_UNCONFIRMED)
}

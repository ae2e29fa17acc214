//! What the user does.

use super::event::ActError;
use super::leader::Leader;
use super::member::Member;
use super::outbox::Step;
use super::room::Room;
use super::{Conference, Part};
use crate::admission::lobby::KnockId;
use crate::epoch::broadcast::{MAX_TEXT, Said};
use crate::id::MemberIndex;
use crate::identity::Identity;
use crate::sign::PublicKey;
use crate::succession::Rank;
use crate::time::UnixMillis;
use crate::wire::control::{Message, Verb, Whom};
use std::collections::BTreeMap;
use std::time::Instant;

#[allow(clippy::missing_errors_doc)] // `admit` says for all of them what they refuse.
impl Conference {
    /// Identities that this member lets nobody in with while it leads, and until when; for good when `None`. In the
    /// place of those given before. Who is in the meeting already stays.
    pub fn set_bans(&mut self, bans: BTreeMap<PublicKey, Option<UnixMillis>>) {
        self.kept.bans = bans;
    }

    /// Lets somebody in. A co-host asks the leader to; a refusal comes as [`super::Event::Refused`] then.
    ///
    /// # Errors
    /// [`ActError`]; likewise in every act below. Nothing has changed then.
    pub fn admit(&mut self, now: Instant, knock: KnockId) -> Result<(), ActError> {
        self.act(now, Verb::Admit, Whom::Knock(knock.0))
    }

    /// Lets everybody in who waits; gives how many.
    pub fn admit_all(&mut self, now: Instant) -> Result<usize, ActError> {
        if !self.may_host() {
            return Err(ActError::NotHost);
        }
        let knocks = self.knocks();
        for (knock, _) in &knocks {
            self.admit(now, *knock)?;
        }
        Ok(knocks.len())
    }

    /// Turns somebody down; the second time for good.
    pub fn deny(&mut self, now: Instant, knock: KnockId) -> Result<(), ActError> {
        self.act(now, Verb::Deny, Whom::Knock(knock.0))
    }

    /// Turns somebody down for good.
    pub fn block_knock(&mut self, now: Instant, knock: KnockId) -> Result<(), ActError> {
        self.act(now, Verb::Block, Whom::Knock(knock.0))
    }

    /// Puts a member out, at once and for this meeting.
    pub fn remove(&mut self, now: Instant, index: MemberIndex) -> Result<(), ActError> {
        self.act(now, Verb::Remove, Whom::Member(index))
    }

    /// Puts a member out; the same as [`Conference::remove`], told as a block.
    pub fn block(&mut self, now: Instant, index: MemberIndex) -> Result<(), ActError> {
        self.act(now, Verb::Block, Whom::Member(index))
    }

    /// Lets nobody in any more but those who lost the connection, or lets people in again.
    pub fn lock(&mut self, now: Instant, on: bool) -> Result<(), ActError> {
        self.act(now, if on { Verb::Lock } else { Verb::Unlock }, Whom::Nobody)
    }

    /// Whether whoever comes from now on begins muted.
    pub fn mute_newcomers(&mut self, now: Instant, on: bool) -> Result<(), ActError> {
        self.act(now, if on { Verb::MuteNewcomers } else { Verb::UnmuteNewcomers }, Whom::Nobody)
    }

    /// Whether guests wait from now on.
    pub fn waiting_room(&mut self, now: Instant, on: bool) -> Result<(), ActError> {
        self.act(now, if on { Verb::WaitingRoomOn } else { Verb::WaitingRoomOff }, Whom::Nobody)
    }

    /// Asks a member to mute.
    pub fn ask_mute(&mut self, now: Instant, index: MemberIndex) -> Result<(), ActError> {
        self.act(now, Verb::AskMute, Whom::Member(index))
    }

    /// Makes a member a co-host, last in the line. Only the host can, while it leads.
    pub fn promote(&mut self, now: Instant, index: MemberIndex) -> Result<(), ActError> {
        self.lead(now, |lead, step, room, _| lead.promote(step, room, index))
    }

    /// Makes a co-host a member again.
    pub fn demote(&mut self, now: Instant, index: MemberIndex) -> Result<(), ActError> {
        self.lead(now, |lead, _, room, _| lead.demote(room, index))
    }

    /// Lets a co-host lead, or the host again; the host may also take the lead back with its own index.
    pub fn hand_over(&mut self, now: Instant, index: MemberIndex) -> Result<(), ActError> {
        self.do_as_member(now, |member, step, identity| member.hand_over(step, identity, index))
    }

    /// Ends the meeting for everybody.
    pub fn end(&mut self, now: Instant) -> Result<(), ActError> {
        self.act(now, Verb::End, Whom::Nobody)?;
        self.note_end();
        Ok(())
    }

    /// Writes to everybody who is here, oneself included.
    pub fn chat(&mut self, now: Instant, text: &str) -> Result<(), ActError> {
        if text.is_empty() || text.len() > MAX_TEXT {
            return Err(ActError::BadText);
        }
        let text = text.to_owned();
        self.do_as_member(now, |member, step, _| {
            let said = member.room.say(step, |place, key| Said::chat(place, text, key));
            if said { Ok(()) } else { Err(ActError::Disconnected) }
        })
    }

    /// Raises one's hand, or lowers it.
    pub fn raise_hand(&mut self, now: Instant, on: bool) -> Result<(), ActError> {
        self.do_as_member(now, |member, step, _| {
            let said = member.room.say(step, |place, key| Said::hand(place, on, key));
            if said { Ok(()) } else { Err(ActError::Disconnected) }
        })
    }

    /// Tells everybody that this member records the meeting, or has ended that. Newcomers have to be told again.
    pub fn announce_recording(&mut self, now: Instant, on: bool) -> Result<(), ActError> {
        self.do_as_member(now, |member, step, _| {
            let said = member.room.say(step, |place, key| Said::recording(place, on, key));
            if said { Ok(()) } else { Err(ActError::Disconnected) }
        })
    }

    /// Leaves. A leader hands over to the first co-host who is here; without one the meeting ends, since nobody could
    /// let anybody in or out.
    pub fn leave(&mut self, now: Instant) {
        if self.over {
            return;
        }
        let (part, mut step, identity) = self.step(now);
        if let Part::Member(member) = part {
            member.room.seal_now(&mut step);
            let heir = member.lead.as_ref().and_then(|lead| lead.successor(&member.room));
            match (&mut member.lead, heir) {
                (Some(lead), Some(heir)) => {
                    // Cannot be refused: the heir is in the line.
                    let _ = lead.hand_over(&mut step, &mut member.room, identity, heir);
                    let last_key = member.room.last_key();
                    if let Some(peer) = member.room.peers.get_mut(&heir) {
                        peer.send(&mut step, &last_key);
                        peer.send(&mut step, &Message::Leave);
                    }
                }
                (Some(lead), None) => {
                    let me = member.room.index();
                    lead.end(&mut step, &mut member.room, identity, me);
                }
                (None, _) => member.leave(&mut step),
            }
        }
        self.finish();
    }

    fn act(&mut self, now: Instant, verb: Verb, whom: Whom) -> Result<(), ActError> {
        self.do_as_member(now, |member, step, identity| member.act(step, identity, verb, whom))
    }

    fn do_as_member(
        &mut self,
        now: Instant,
        act: impl FnOnce(&mut Member, &mut Step<'_>, &Identity) -> Result<(), ActError>,
    ) -> Result<(), ActError> {
        if self.over {
            return Err(ActError::NotInMeeting);
        }
        let (part, mut step, identity) = self.step(now);
        match part {
            Part::Member(member) => act(member, &mut step, identity),
            _ => Err(ActError::NotInMeeting),
        }
    }

    fn lead(
        &mut self,
        now: Instant,
        act: impl FnOnce(&mut Leader, &mut Step<'_>, &mut Room, &Identity) -> Result<(), ActError>,
    ) -> Result<(), ActError> {
        self.do_as_member(now, |member, step, identity| match &mut member.lead {
            Some(lead) => act(lead, step, &mut member.room, identity),
            None if member.room.seat.rank(member.room.index()) == Rank::Host => Err(ActError::NotLeading),
            None => Err(ActError::NotHost),
        })
    }
}

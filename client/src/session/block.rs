//! Blocking: who may do so puts somebody out of the meeting; everybody can choose never to hear somebody again here.
//!
//! Both are remembered by identity. Who is blocked is not played, in this meeting and in later ones with the same pins,
//! and is not let in where this client decides.

use std::time::Instant;

use conclave_protocol::admission::lobby::KnockId;
use conclave_protocol::conference::ActError;
use conclave_protocol::id::MemberIndex;
use conclave_protocol::identity::IdentityKind;
use conclave_protocol::sign::PublicKey;

use super::{Running, start_now};
use crate::command::Who;
use crate::report::Report;

impl Running {
    /// Blocks a member or somebody who knocks, here and in later meetings.
    pub(super) fn block(&mut self, who: &Who) -> Result<(), String> {
        match self.member_to_block(who)? {
            Some(index) => self.block_member(index),
            None => {
                let knock = self.find_knock(who)?;
                self.block_knock(knock)
            }
        }
    }

    /// The member whom a block concerns; `None` for somebody who knocks.
    fn member_to_block(&self, who: &Who) -> Result<Option<MemberIndex>, String> {
        let Who::Name(name) = who else { return self.find_member(who).map(Some) };
        if !self.conference.may_host() {
            return self.find_member(who).map(Some);
        }
        let members = self.conference.members().filter(|m| m.name.as_str() == name).count();
        let knocks = self.conference.knocks().iter().filter(|(_, knocking)| knocking.as_str() == name).count();
        match (members, knocks) {
            (0, _) => Ok(None),
            (1, 0) => self.find_member(who).map(Some),
            _ => {
                Err("more than one of that name: use the number instead, a member's here, a knock's to deny".to_owned())
            }
        }
    }

    /// Puts a member out, or where this client may not, hears it no more.
    fn block_member(&mut self, index: MemberIndex) -> Result<(), String> {
        if self.conference.index() == Some(index) {
            return Err(ActError::Yourself.to_string());
        }
        let (identity, kind, name) = self.identity_of(index).ok_or("nobody has that number any more")?;
        let stays = match self.conference.block(Instant::now(), index) {
            Ok(()) => false,
            Err(ActError::NotHost | ActError::Rank) => true,
            Err(error) => return Err(error.to_string()),
        };
        self.pins.block(&identity, kind, &name, start_now().wall);
        self.follow_blocks()?;
        if stays {
            let message =
                format!("{name} stays in the meeting, and you do not hear them any more: unblock takes it back");
            self.reports.send(Report::Notice { message });
            self.report_roster();
        }
        Ok(())
    }

    fn block_knock(&mut self, knock: KnockId) -> Result<(), String> {
        let person = self.knocking.get(&knock).cloned();
        self.conference.block_knock(Instant::now(), knock).map_err(|error| error.to_string())?;
        if let Some(person) = person {
            self.pins.block(&person.identity, person.kind, person.name.as_str(), start_now().wall);
        }
        Ok(())
    }

    /// Takes a block back: a member is heard again, somebody who is not here may knock again in later meetings.
    pub(super) fn unblock(&mut self, who: &Who) -> Result<(), String> {
        let identity = self.blocked_identity(who)?;
        self.pins.unblock(&identity);
        self.follow_blocks()?;
        self.report_roster();
        Ok(())
    }

    /// The one who is meant among the members who are blocked, and by name among all others.
    fn blocked_identity(&self, who: &Who) -> Result<PublicKey, String> {
        let is_meant = |index: MemberIndex, name: &str| match who {
            Who::Number(number) => u32::from(index.0) == *number,
            Who::Name(text) => name == text,
        };
        let members = self.conference.members().filter(|m| is_meant(m.index, m.name.as_str()));
        let here = members.map(|m| m.cert.identity).filter(|identity| self.pins.is_blocked(identity)).collect();
        let found: Vec<PublicKey> = match who {
            Who::Name(name) if Vec::is_empty(&here) => self.pins.blocked_as(name),
            _ => here,
        };
        match found[..] {
            [identity] => Ok(identity),
            [] => Err("nobody of that name or number is blocked".to_owned()),
            _ => Err("more than one of that name is blocked: use a member's number instead".to_owned()),
        }
    }

    pub(super) fn identity_of(&self, index: MemberIndex) -> Option<(PublicKey, IdentityKind, String)> {
        let member = self.conference.members().find(|m| m.index == index)?;
        Some((member.cert.identity, member.cert.kind, member.name.as_str().to_owned()))
    }

    fn follow_blocks(&mut self) -> Result<(), String> {
        let followed = self.talkers.follow_blocks(&self.conference, &self.pins, &mut self.engine);
        followed.map_err(|error| format!("cannot set up a decoder: {error}"))
    }
}

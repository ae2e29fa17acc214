//! What the user tells a session to do.

use std::time::Instant;

use conclave_protocol::admission::lobby::KnockId;
use conclave_protocol::conference::ActError;
use conclave_protocol::id::MemberIndex;
use conclave_protocol::sframe::frame::Microphone;

use super::{Running, chance};
use crate::audio::mixer::Volume;
use crate::command::{Command, Percent, Who};
use crate::report::Report;

impl Running {
    pub(super) fn on_command(&mut self, command: Command) {
        if let Err(message) = self.obey(command) {
            self.reports.send(Report::Error { message });
        }
    }

    fn obey(&mut self, command: Command) -> Result<(), String> {
        if let Command::Leave {} = command
            && self.staying.is_some()
        {
            self.stop_staying();
            return Ok(());
        }
        let is_report = matches!(command, Command::Report(_) | Command::ReportPreview(_));
        if self.staying.is_some() && !is_report {
            return Err("the meeting is over: only report, report_preview and leave are possible".to_owned());
        }
        if self.lingering.is_some() && !is_report {
            return Err("you were removed from the meeting".to_owned());
        }
        let is_in = self.entered || (is_report && self.was_member);
        if !is_in && !matches!(command, Command::Leave {}) {
            return Err("you are not in the meeting yet: only leave is possible".to_owned());
        }
        match command {
            Command::Compare { who, digits } => {
                let index = self.find_member(&who)?;
                self.compare(index, &digits)
            }
            Command::Block { who } => self.block(&who),
            Command::Unblock { who } => self.unblock(&who),
            Command::Volume { who, percent: Percent(volume) } => self.set_volume(&who, volume),
            Command::Mute {} => {
                self.switch(Microphone::Muted);
                Ok(())
            }
            Command::Unmute {} => {
                self.switch(Microphone::On);
                Ok(())
            }
            Command::PushToTalk { on } => {
                let has_key = self.key.press(Instant::now(), on);
                has_key.then_some(()).ok_or_else(|| "there is no key to press: start with --push-to-talk".to_owned())
            }
            Command::SaveData { on } => {
                self.gate.on_saves(Instant::now(), on, chance());
                Ok(())
            }
            Command::Proof { file } => self.write_proof(&file),
            Command::Report(what) => {
                self.report(&what);
                Ok(())
            }
            Command::ReportPreview(what) => self.preview_report(&what),
            Command::Stats {} => {
                self.report_stats();
                Ok(())
            }
            Command::Leave {} => {
                self.leave("leave");
                Ok(())
            }
            Command::End {} => self.end(),
            act => self.act(act).map_err(|refused| refused.to_string())?,
        }
    }

    /// What is asked of the conference alone. The outer error is an act's that is refused, the inner one a name's.
    fn act(&mut self, command: Command) -> Result<Result<(), String>, ActError> {
        let now = Instant::now();
        let member = |who: &Who| self.find_member(who);
        let knock = |who: &Who| self.find_knock(who);
        macro_rules! found {
            ($who:expr) => {
                match $who {
                    Ok(found) => found,
                    Err(message) => return Ok(Err(message)),
                }
            };
        }
        match command {
            Command::Admit { who } => {
                let knock = found!(knock(&who));
                self.conference.admit(now, knock)?;
            }
            Command::AdmitAll {} => {
                self.conference.admit_all(now)?;
            }
            Command::Deny { who } => {
                let knock = found!(knock(&who));
                self.conference.deny(now, knock)?;
            }
            Command::Remove { who } => {
                let index = found!(member(&who));
                self.conference.remove(now, index)?;
            }
            Command::AskMute { who } => {
                let index = found!(member(&who));
                self.conference.ask_mute(now, index)?;
            }
            Command::Promote { who } => {
                let index = found!(member(&who));
                self.conference.promote(now, index)?;
            }
            Command::Demote { who } => {
                let index = found!(member(&who));
                self.conference.demote(now, index)?;
            }
            Command::HandOver { who } => {
                let index = found!(member(&who));
                self.conference.hand_over(now, index)?;
            }
            Command::Lock {} => self.conference.lock(now, true)?,
            Command::Unlock {} => self.conference.lock(now, false)?,
            Command::WaitingRoom { on } => self.conference.waiting_room(now, on)?,
            Command::MuteNewcomers { on } => self.conference.mute_newcomers(now, on)?,
            Command::Chat { text } => self.conference.chat(now, &text)?,
            Command::Hand { on } => self.conference.raise_hand(now, on)?,
            // Everything else has been obeyed.
            _ => {}
        }
        Ok(Ok(()))
    }

    fn set_volume(&mut self, who: &Who, volume: Volume) -> Result<(), String> {
        let index = self.find_member(who)?;
        if self.conference.index() == Some(index) {
            return Err("you do not hear yourself: give the volume of somebody else".to_owned());
        }
        let (identity, _, _) = self.identity_of(index).ok_or("nobody has that number any more")?;
        self.talkers.set_volume(identity, volume);
        self.talkers.follow_volumes(&self.conference, &mut self.engine);
        self.report_roster();
        Ok(())
    }

    fn end(&mut self) -> Result<(), String> {
        let leads = self.conference.leader() == self.conference.index();
        self.conference.end(Instant::now()).map_err(|refused| refused.to_string())?;
        // A co-host has asked the leader, whose word ends it.
        if leads {
            self.end_with("leave");
        }
        Ok(())
    }

    pub(super) fn find_knock(&self, who: &Who) -> Result<KnockId, String> {
        if !self.conference.may_host() {
            return Err(ActError::NotHost.to_string());
        }
        let knocks = self.conference.knocks();
        let found = knocks.iter().filter(|(id, name)| match who {
            Who::Number(number) => id.0 == *number,
            Who::Name(text) => name.as_str() == text,
        });
        only(found.map(|(id, _)| *id), "knocks")
    }

    pub(super) fn find_member(&self, who: &Who) -> Result<MemberIndex, String> {
        let found = self.conference.members().filter(|member| match who {
            Who::Number(number) => u32::from(member.index.0) == *number,
            Who::Name(text) => member.name.as_str() == text,
        });
        only(found.map(|member| member.index), "is a member")
    }

    /// Switches the microphone; whether that changed anything.
    pub(super) fn switch(&mut self, microphone: Microphone) -> bool {
        if self.microphone == microphone {
            return false;
        }
        self.microphone = microphone;
        self.gate.on_microphone(Instant::now(), microphone, chance());
        if let Some(index) = self.conference.index() {
            self.reports.send(Report::Muted { index: index.0, on: microphone == Microphone::Muted });
        }
        true
    }
}

pub(super) fn only<T>(mut found: impl Iterator<Item = T>, what: &str) -> Result<T, String> {
    let first = found.next().ok_or_else(|| format!("nobody of that name or number {what}"))?;
    match found.next() {
        None => Ok(first),
        Some(_) => Err(format!("more than one of that name {what}: use the number instead")),
    }
}

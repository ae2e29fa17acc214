//! Which devices a server has.

use std::ffi::CString;
use std::path::PathBuf;

use pulseaudio::protocol::{
    Command, CommandReply, DEFAULT_SINK, DEFAULT_SOURCE, GetSinkInfo, GetSourceInfo, ProtocolError, SampleSpec,
    SinkInfo, SourceInfo,
};

use super::Connection;
use crate::audio::device::keeper::Fault;
use crate::audio::device::{Device, Direction};

/// A server that is asked for its devices, over a connection that stays.
pub(in crate::audio::device) struct Server(Connection);

impl Server {
    /// `None` when no server runs. Waits for one that hangs for as long as it does.
    ///
    /// # Errors
    /// When it wants nothing to do with this user, or speaks otherwise.
    pub fn connect() -> Result<Option<Self>, Fault> {
        let Some(socket) = Connection::reach() else { return Ok(None) };
        let refused = |Fault(reason)| Fault(format!("the sound server refuses this program: {reason}"));
        Connection::greet(socket, None).map(|connection| Some(Self(connection))).map_err(refused)
    }

    /// Those of one direction.
    pub fn devices(&mut self, direction: Direction) -> Result<Vec<Device>, Fault> {
        match direction {
            Direction::Input => {
                let get = GetSourceInfo { index: None, name: Some(DEFAULT_SOURCE.to_owned()) };
                let default = self.named(&Command::GetSourceInfo(get), |source: SourceInfo| source.name)?;
                let all: Vec<SourceInfo> = self.0.ask(&Command::GetSourceInfoList)?;
                let of = |source: SourceInfo| device(source.name, source.description, source.sample_spec, &default);
                Ok(all.into_iter().map(of).collect())
            }
            Direction::Output => {
                let get = GetSinkInfo { index: None, name: Some(DEFAULT_SINK.to_owned()) };
                let default = self.named(&Command::GetSinkInfo(get), |sink: SinkInfo| sink.name)?;
                let all: Vec<SinkInfo> = self.0.ask(&Command::GetSinkInfoList)?;
                let of = |sink: SinkInfo| device(sink.name, sink.description, sink.sample_spec, &default);
                Ok(all.into_iter().map(of).collect())
            }
        }
    }

    /// The name of what the server knows by another one; `None` when it has nothing of that name.
    fn named<R: CommandReply>(&mut self, command: &Command, name: fn(R) -> CString) -> Result<Option<CString>, Fault> {
        match self.0.ask(command) {
            Ok(reply) => Ok(Some(name(reply))),
            Err(ProtocolError::ServerError(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

fn device(name: CString, description: Option<CString>, spec: SampleSpec, default: &Option<CString>) -> Device {
    let text = |text: &CString| String::from_utf8_lossy(text.as_bytes()).into_owned();
    Device {
        is_default: default.as_ref() == Some(&name),
        description: text(description.as_ref().unwrap_or(&name)),
        name: text(&name),
        rate: Some(spec.sample_rate),
        channels: Some(spec.channels.into()),
    }
}

/// Bytes of what shows a server who asks, as many even where it wants nothing shown: PulseAudio's `PA_NATIVE_COOKIE_LENGTH`.
const COOKIE: usize = 256;

/// What shows a server who asks: from the file that the environment names, else that of the user, else nothing but zeros.
pub(super) fn cookie() -> Vec<u8> {
    let folder = std::env::var_os("XDG_CONFIG_HOME").map(|folder| PathBuf::from(folder).join("pulse/cookie"));
    let named = std::env::var_os("PULSE_COOKIE").map(PathBuf::from);
    let places = [named, folder, pulseaudio::cookie_path_from_env()];
    let mut cookie = places.into_iter().flatten().find_map(|path| std::fs::read(path).ok()).unwrap_or_default();
    cookie.resize(COOKIE, 0);
    cookie
}

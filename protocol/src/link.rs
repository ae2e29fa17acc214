//! Meeting links (`docs/protocol.md` §3.3).
//!
//! ```text
//! conclave://RELAY[:PORT][,RELAY…]/MEETING[?pin=PIN[,PIN…]]#SECRET
//! ```
//!
//! `MEETING` is base64url of MeetingId ‖ 4 bytes of its hash, so that a mistyped id is refused at once and not
//! looked for; `SECRET` is base64url of 16 bytes and stays in the fragment, which no program sends anywhere.
//! Errors never repeat any part of the link.

use data_encoding::BASE64URL_NOPAD;
use rand_core::CryptoRng;
use std::fmt;
use zeroize::Zeroizing;

use crate::capability::KnockToken;
use crate::id::MeetingId;
use crate::label;
use crate::secret::{self, Secret};

/// The port of a relay that names none.
pub const DEFAULT_PORT: u16 = 4433;

/// Purpose tag of psk0.
pub struct LinkPsk;

/// The 16 secret bytes of a link.
pub struct LinkSecret(Zeroizing<[u8; LinkSecret::LEN]>);

impl LinkSecret {
    /// 128 bits: nobody guesses it, on line or off.
    pub const LEN: usize = 16;

    /// A new secret from `rng`.
    pub fn generate(rng: &mut (impl CryptoRng + ?Sized)) -> Self {
        let mut bytes = Zeroizing::new([0; Self::LEN]);
        rng.fill_bytes(bytes.as_mut());
        Self(bytes)
    }

    /// `psk0 = HKDF(salt = MeetingId, ikm = SECRET, "conclave/1 psk0")`.
    pub fn psk0(&self, meeting: MeetingId) -> Secret<LinkPsk> {
        secret::derive(&meeting.0, self.0.as_ref(), label::LINK_PSK0, &[])
    }

    /// `token = HKDF(salt = MeetingId, ikm = SECRET, "conclave/1 knock token")`.
    pub fn knock_token(&self, meeting: MeetingId) -> KnockToken {
        let token: Secret<()> = secret::derive(&meeting.0, self.0.as_ref(), label::KNOCK_TOKEN, &[]);
        KnockToken(*token.as_bytes())
    }

    fn duplicate(&self) -> Self {
        Self(self.0.clone())
    }
}

/// One relay of a link.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RelayAddress {
    /// Host name, IPv4 address, or IPv6 address without brackets.
    pub host: String,
    /// UDP port.
    pub port: u16,
    /// SHA-256 of the relay's SubjectPublicKeyInfo when its certificate is self-signed; else WebPKI decides.
    pub pin: Option<[u8; 32]>,
}

/// Everything that a guest needs to knock.
pub struct Link {
    /// At least one relay, in the host's order.
    pub relays: Vec<RelayAddress>,
    /// The meeting.
    pub meeting: MeetingId,
    /// The secret of the fragment.
    pub secret: LinkSecret,
}

/// What is wrong with a link. The texts name the part, never its content.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum LinkError {
    /// Another scheme, or no link at all.
    #[error("this is no meeting link: it must begin with conclave:// — copy the whole link again")]
    Scheme,
    /// No relay, too many, or one that cannot be an address.
    #[error("the link names no relay that could be reached — copy the whole link again")]
    Relay,
    /// The meeting's id was cut or changed.
    #[error("the meeting's id in the link was cut or changed — copy the whole link again, or ask for a new one")]
    Meeting,
    /// A pin that is none, or the wrong number of them.
    #[error("the relay's pin in the link was cut or changed — copy the whole link again, or ask for a new one")]
    Pin,
    /// A parameter that this version does not know.
    #[error("the link holds a parameter that this version does not know — update, or ask for a new link")]
    Parameter,
    /// No secret, or one of another length.
    #[error("the secret after # in the link is missing, cut or changed — copy the whole link again")]
    Secret,
    /// The secret stands where it would be sent to others.
    #[error("the link holds a secret outside its # part, where others can read it — ask for a new link")]
    SecretExposed,
}

impl Link {
    /// Longest link accepted.
    pub const MAX_LEN: usize = 2_048;
    /// Most relays.
    pub const MAX_RELAYS: usize = 8;

    /// Parses a link as a person pastes it: blanks around it are dropped, nothing else is mended.
    ///
    /// # Errors
    /// [`LinkError`], which repeats no part of the link.
    pub fn parse(text: &str) -> Result<Self, LinkError> {
        let text = text.trim();
        if text.len() > Self::MAX_LEN {
            return Err(LinkError::Scheme);
        }
        let (scheme, rest) = text.split_at_checked(SCHEME.len()).ok_or(LinkError::Scheme)?;
        if !scheme.eq_ignore_ascii_case(SCHEME) {
            return Err(LinkError::Scheme);
        }
        let (rest, fragment) = rest.split_once('#').ok_or(LinkError::Secret)?;
        let (path, query) = rest.split_once('?').map_or((rest, None), |(path, query)| (path, Some(query)));
        let (relays, meeting) = path.split_once('/').ok_or(LinkError::Meeting)?;
        let mut relays = parse_relays(relays)?;
        let meeting = parse_meeting(meeting)?;
        if let Some(query) = query {
            parse_query(query, &mut relays)?;
        }
        Ok(Self { relays, meeting, secret: parse_secret(fragment)? })
    }

    /// The link as text: the one place where the secret is written out, for the user who asked for it.
    pub fn reveal(&self) -> Zeroizing<String> {
        let relays = self.relays.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        let mut text = format!("{SCHEME}{relays}/{}", encode_meeting(self.meeting));
        if self.relays.iter().any(|r| r.pin.is_some()) {
            let pins = self.relays.iter().map(|r| r.pin.map(|p| BASE64URL_NOPAD.encode(&p)).unwrap_or_default());
            text.push_str("?pin=");
            text.push_str(&pins.collect::<Vec<_>>().join(","));
        }
        text.push('#');
        text.push_str(&BASE64URL_NOPAD.encode(self.secret.0.as_ref()));
        Zeroizing::new(text)
    }

    /// A second copy, secret included.
    #[must_use]
    pub fn duplicate(&self) -> Self {
        Self { relays: self.relays.clone(), meeting: self.meeting, secret: self.secret.duplicate() }
    }
}

impl fmt::Display for RelayAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl RelayAddress {
    /// Parses `HOST`, `HOST:PORT`, `[IPv6]` or `[IPv6]:PORT`, without a pin.
    ///
    /// # Errors
    /// [`LinkError::Relay`].
    pub fn parse(text: &str) -> Result<Self, LinkError> {
        let (host, port) = if let Some(rest) = text.strip_prefix('[') {
            let (host, port) = rest.split_once(']').ok_or(LinkError::Relay)?;
            host.parse::<std::net::Ipv6Addr>().map_err(|_| LinkError::Relay)?;
            (host, if port.is_empty() { None } else { Some(port.strip_prefix(':').ok_or(LinkError::Relay)?) })
        } else {
            text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port)))
        };
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b':');
        if host.is_empty() || host.len() > 253 || !host.bytes().all(plain) {
            return Err(LinkError::Relay);
        }
        let port = match port {
            None => DEFAULT_PORT,
            Some(port) => parse_port(port)?,
        };
        Ok(Self { host: host.to_owned(), port, pin: None })
    }
}

const SCHEME: &str = "conclave://";
const CHECK_LEN: usize = 4;

/// 1 to 5 digits and nothing else: the standard library would take a sign as well, and any number of zeros.
fn parse_port(text: &str) -> Result<u16, LinkError> {
    let plain = (1..=5).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    let port = if plain { text.parse().ok() } else { None };
    port.filter(|port| *port != 0).ok_or(LinkError::Relay)
}

fn parse_relays(text: &str) -> Result<Vec<RelayAddress>, LinkError> {
    let relays = text.split(',').map(RelayAddress::parse).collect::<Result<Vec<_>, _>>()?;
    if relays.len() > Link::MAX_RELAYS { Err(LinkError::Relay) } else { Ok(relays) }
}

fn parse_meeting(text: &str) -> Result<MeetingId, LinkError> {
    let bytes = BASE64URL_NOPAD.decode(text.as_bytes()).map_err(|_| LinkError::Meeting)?;
    let (id, check) = bytes.split_first_chunk::<{ MeetingId::LEN }>().ok_or(LinkError::Meeting)?;
    let meeting = MeetingId(*id);
    if check != meeting_check(meeting) {
        return Err(LinkError::Meeting);
    }
    Ok(meeting)
}

fn encode_meeting(meeting: MeetingId) -> String {
    BASE64URL_NOPAD.encode(&[&meeting.0[..], &meeting_check(meeting)].concat())
}

fn meeting_check(meeting: MeetingId) -> [u8; CHECK_LEN] {
    let hash = label::hash(label::LINK_CHECK, &[&meeting.0]);
    [hash[0], hash[1], hash[2], hash[3]]
}

fn parse_query(query: &str, relays: &mut [RelayAddress]) -> Result<(), LinkError> {
    let mut seen = false;
    for parameter in query.split('&') {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        match name {
            "pin" if !seen => parse_pins(value, relays)?,
            "pin" => return Err(LinkError::Pin),
            "secret" => return Err(LinkError::SecretExposed),
            _ => return Err(LinkError::Parameter),
        }
        seen = true;
    }
    Ok(())
}

fn parse_pins(value: &str, relays: &mut [RelayAddress]) -> Result<(), LinkError> {
    let pins: Vec<&str> = value.split(',').collect();
    if pins.len() != relays.len() {
        return Err(LinkError::Pin);
    }
    for (relay, pin) in relays.iter_mut().zip(pins) {
        if pin.is_empty() {
            continue;
        }
        let bytes = BASE64URL_NOPAD.decode(pin.as_bytes()).map_err(|_| LinkError::Pin)?;
        relay.pin = Some(bytes.try_into().map_err(|_| LinkError::Pin)?);
    }
    Ok(())
}

fn parse_secret(fragment: &str) -> Result<LinkSecret, LinkError> {
    let bytes = Zeroizing::new(BASE64URL_NOPAD.decode(fragment.as_bytes()).map_err(|_| LinkError::Secret)?);
    let array: [u8; LinkSecret::LEN] = bytes.as_slice().try_into().map_err(|_| LinkError::Secret)?;
    Ok(LinkSecret(Zeroizing::new(array)))
}

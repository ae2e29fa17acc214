//! The meeting's descriptor D and the id that certifies it (`docs/protocol.md` §3.1, §3.2).

use crate::id::MeetingId;
use crate::label;
use crate::sign::PublicKey;
use crate::time::UnixMillis;
use crate::wire::codec::{Malformed, Reader, Wire, Writer};
use crate::{SUITE, VERSION};

/// What a meeting's host promised when the meeting was made. Flags that this version does not know are refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Policy(u16);

impl Policy {
    const WAITING_ROOM: u16 = 1;
    const PASSCODE: u16 = 1 << 1;
    const DIRECT_PATH: u16 = 1 << 2;
    const KNOWN: u16 = Self::WAITING_ROOM | Self::PASSCODE | Self::DIRECT_PATH;

    /// The default: everybody waits until the host lets them in, no passcode, all media by the relay.
    pub const DEFAULT: Self = Self(Self::WAITING_ROOM);

    /// The same policy without the waiting room: who holds the link (and the passcode) is admitted by the host's
    /// client without asking.
    #[must_use]
    pub fn without_waiting_room(self) -> Self {
        Self(self.0 & !Self::WAITING_ROOM)
    }

    /// The same policy with a passcode asked of every guest.
    #[must_use]
    pub fn with_passcode(self) -> Self {
        Self(self.0 | Self::PASSCODE)
    }

    /// Guests knock and wait.
    pub fn has_waiting_room(self) -> bool {
        self.0 & Self::WAITING_ROOM != 0
    }

    /// Guests need a passcode.
    pub fn asks_passcode(self) -> bool {
        self.0 & Self::PASSCODE != 0
    }

    /// The bits on the wire.
    pub fn bits(self) -> u16 {
        self.0
    }
}

/// The descriptor D.
///
/// ```text
/// version u8 ‖ suite u16 ‖ hs 32 ‖ AK 32 ‖ not_before u64 ‖ not_after u64 ‖ policy u16 ‖ frame_ms u8
///   ‖ max_members u16 ‖ min_version u8 ‖ nonce 16 ‖ moderator 32 ‖ regions: u8 × (u8 length ‖ ASCII)
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Descriptor {
    /// The host's X25519 static key of this meeting, responder static of every join handshake.
    pub hs: [u8; 32],
    /// The authority key AK: signs statements, capabilities and revocations.
    pub authority: PublicKey,
    /// Not valid before.
    pub not_before: UnixMillis,
    /// Not valid after.
    pub not_after: UnixMillis,
    /// Promised rules.
    pub policy: Policy,
    /// Duration of an audio frame: 10 or 20 ms.
    pub frame_ms: u8,
    /// Most members at one time, the host included.
    pub max_members: u16,
    /// Makes every meeting's id its own.
    pub nonce: [u8; 16],
    /// Digest of the list of moderators to whom reports go (`docs/protocol.md` §17.1); zeros for none.
    pub moderator: [u8; 32],
    /// Regions whose relays may carry the meeting; empty for any. At most [`Descriptor::MAX_REGIONS`].
    pub regions: Vec<Region>,
}

/// The name of a relay's region: 1 to 16 of `a-z 0-9 -`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Region(String);

impl Region {
    /// Longest name, in bytes.
    pub const MAX_LEN: usize = 16;

    /// Takes a name of 1 to 16 lower-case letters, digits and hyphens.
    ///
    /// # Errors
    /// [`Malformed`] for anything else.
    pub fn parse(name: &str) -> Result<Self, Malformed> {
        let fits = (1..=Self::MAX_LEN).contains(&name.len());
        let plain = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if fits && plain { Ok(Self(name.to_owned())) } else { Err(Malformed("region name")) }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Wire for Region {
    fn write(&self, w: &mut Writer) {
        // The constructor bounds the length far below 256.
        w.u8(u8::try_from(self.0.len()).unwrap_or(0));
        w.array(self.0.as_bytes());
    }
    fn read(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        let len = usize::from(r.u8()?);
        let name = std::str::from_utf8(r.take(len)?).map_err(|_| Malformed("region name"))?;
        Self::parse(name)
    }
}

impl Descriptor {
    /// Longest encoding accepted: the fixed part and all regions.
    pub const MAX_LEN: usize = 512;
    /// Most regions.
    pub const MAX_REGIONS: usize = 8;

    /// `SHA-256("conclave/1 meeting" ‖ D)[..20]`.
    pub fn meeting_id(&self) -> MeetingId {
        let hash = label::hash(label::MEETING, &[&self.encode()]);
        let mut id = [0; MeetingId::LEN];
        id.copy_from_slice(&hash[..MeetingId::LEN]);
        MeetingId(id)
    }

    /// Parses a descriptor that somebody claims to be the one of `meeting`.
    ///
    /// # Errors
    /// [`Malformed`] when the bytes are no descriptor or belong to another meeting.
    pub fn decode_for(meeting: MeetingId, bytes: &[u8]) -> Result<Self, Malformed> {
        if bytes.len() > Self::MAX_LEN {
            return Err(Malformed("descriptor too long"));
        }
        let descriptor = Self::decode(bytes)?;
        if descriptor.meeting_id() != meeting {
            return Err(Malformed("descriptor of another meeting"));
        }
        Ok(descriptor)
    }

    /// Whether the descriptor holds at `time`.
    pub fn is_valid_at(&self, time: UnixMillis) -> bool {
        self.not_before <= time && time <= self.not_after
    }
}

impl Wire for Descriptor {
    fn write(&self, w: &mut Writer) {
        w.u8(VERSION);
        w.u16(SUITE);
        w.array(&self.hs);
        self.authority.write(w);
        self.not_before.write(w);
        self.not_after.write(w);
        w.u16(self.policy.0);
        w.u8(self.frame_ms);
        w.u16(self.max_members);
        w.u8(VERSION);
        w.array(&self.nonce);
        w.array(&self.moderator);
        debug_assert!(self.regions.len() <= Self::MAX_REGIONS);
        w.u8(u8::try_from(self.regions.len()).unwrap_or(0));
        for region in &self.regions {
            region.write(w);
        }
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        if r.u8()? != VERSION {
            return Err(Malformed("descriptor of another version"));
        }
        if r.u16()? != SUITE {
            return Err(Malformed("descriptor of another suite"));
        }
        let hs = r.array()?;
        let authority = PublicKey::read(r)?;
        let not_before = UnixMillis::read(r)?;
        let not_after = UnixMillis::read(r)?;
        let policy = Policy(r.u16()?);
        let frame_ms = r.u8()?;
        let max_members = r.u16()?;
        let min_version = r.u8()?;
        let nonce = r.array()?;
        let moderator = r.array()?;
        let count = usize::from(r.u8()?);
        if policy.0 & !Policy::KNOWN != 0 {
            return Err(Malformed("unknown policy"));
        }
        if !matches!(frame_ms, 10 | 20) {
            return Err(Malformed("frame duration"));
        }
        if min_version != VERSION {
            return Err(Malformed("minimum version"));
        }
        if max_members < 2 || count > Self::MAX_REGIONS {
            return Err(Malformed("descriptor limits"));
        }
        let regions = (0..count).map(|_| Region::read(r)).collect::<Result<_, _>>()?;
        Ok(Self { hs, authority, not_before, not_after, policy, frame_ms, max_members, nonce, moderator, regions })
    }
}

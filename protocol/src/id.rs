//! Identifiers that appear on the wire.

use std::fmt;

/// A meeting's self-certifying name: the first 20 bytes of the hash of its descriptor
/// (`docs/protocol.md` §3.2). Who holds the descriptor can check it; nobody can choose it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MeetingId(pub [u8; MeetingId::LEN]);

impl MeetingId {
    /// 160 bits: far above what guessing can reach, short enough for a link.
    pub const LEN: usize = 20;
}

impl fmt::Debug for MeetingId {
    /// Truncated, so that a log never holds what is needed to find a meeting.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MeetingId({:02x}{:02x}…)", self.0[0], self.0[1])
    }
}

/// A member's number in a meeting, given at admission and never used twice. The relay knows the same number
/// as the *slot*; the leader of a new meeting is 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct MemberIndex(pub u16);

impl MemberIndex {
    /// The member who created the meeting.
    pub const HOST: Self = Self(0);
    /// The highest index that may be given; above it joins are refused. `0xFFFF` addresses everybody.
    pub const MAX: Self = Self(0xFFFE);
}

/// A range of indexes that one leader gives: the host those below 0x8000, each rank of the line of succession 4,096 of
/// its own from there on. So two leaders of a meeting that has split never give the same one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct IndexRange(u16);

impl IndexRange {
    const COHOSTS: u16 = 0x8000;
    const SIZE: u16 = 0x1000;

    /// The host's.
    pub const HOST: Self = Self(0);

    /// That of the co-host of this rank, counted from 1; `None` beyond the longest line.
    pub fn of_rank(rank: u16) -> Option<Self> {
        (1..=8).contains(&rank).then(|| Self(Self::COHOSTS + (rank - 1) * Self::SIZE))
    }

    /// The range that an index belongs to.
    pub fn of(index: MemberIndex) -> Self {
        if index.0 < Self::COHOSTS { Self::HOST } else { Self(index.0 / Self::SIZE * Self::SIZE) }
    }

    /// Its first index.
    pub fn first(self) -> MemberIndex {
        MemberIndex(self.0)
    }

    /// Its last index that may be given.
    pub fn last(self) -> MemberIndex {
        let size = if self == Self::HOST { Self::COHOSTS } else { Self::SIZE };
        MemberIndex((self.0 + (size - 1)).min(MemberIndex::MAX.0))
    }
}

impl fmt::Display for MemberIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An epoch's number: 1 for the first, 24 bits because the SFrame KID holds no more.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Epoch(u32);

impl Epoch {
    /// Before the first statement.
    pub const ZERO: Self = Self(0);
    /// The last one that fits the KID: 63 years of two-minute epochs.
    pub const MAX: u32 = 0x00FF_FFFF;

    /// The epoch of that number; `None` above [`Epoch::MAX`].
    pub fn new(number: u32) -> Option<Self> {
        (number <= Self::MAX).then_some(Self(number))
    }

    /// Its number, 0 to [`Epoch::MAX`].
    pub fn number(self) -> u32 {
        self.0
    }

    /// The next epoch; `None` when the numbers are used up, which ends the meeting.
    pub fn next(self) -> Option<Self> {
        Self::new(self.0 + 1)
    }
}

/// The leadership's number: 0 under the host, one more with every takeover.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Term(pub u32);

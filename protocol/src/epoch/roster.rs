//! The roster: everybody who holds the epoch's key, and nobody else.

use std::collections::BTreeMap;

use super::merkle;
use crate::id::{Epoch, MemberIndex};
use crate::identity::{DisplayName, IdCert};
use crate::label;
use crate::wire::codec::{Malformed, Reader, Wire, Writer};

/// One member, as everybody in the meeting knows it.
///
/// ```text
/// index u16 ‖ IdCert 202 ‖ joined u32 ‖ name 65 (u8 length ‖ 64: UTF-8, then zeros)
/// leaf = H("conclave/1 roster leaf" ‖ index ‖ IK ‖ kind ‖ role ‖ ms ‖ vk ‖ rk ‖ joined ‖ H(name))
/// ```
///
/// The certificate's signature travels along, so that nobody has to take the leader's word for whose keys these are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Member {
    /// Slot and index.
    pub index: MemberIndex,
    /// IK and the keys it vouches for.
    pub cert: IdCert,
    /// The first epoch whose key the member was given.
    pub joined: Epoch,
    /// The name shown.
    pub name: DisplayName,
}

impl Member {
    /// Length of every member's encoding, in bytes.
    pub const WIRE_LEN: usize = 2 + IdCert::WIRE_LEN + 4 + DisplayName::WIRE_LEN;

    /// The leaf in the roster's Merkle tree.
    pub fn leaf(&self) -> [u8; 32] {
        let mut w = Writer::default();
        self.index.write(&mut w);
        self.cert.identity.write(&mut w);
        self.cert.kind.write(&mut w);
        self.cert.role.write(&mut w);
        self.cert.keys.write(&mut w);
        self.joined.write(&mut w);
        w.array(&self.name.digest());
        label::hash(label::ROSTER_LEAF, &[&w.into_bytes()])
    }
}

impl Wire for Member {
    fn write(&self, w: &mut Writer) {
        self.index.write(w);
        self.cert.write(w);
        self.joined.write(w);
        self.name.write(w);
    }
    fn read(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        let index = MemberIndex::read(r)?;
        if index > MemberIndex::MAX {
            return Err(Malformed("member index"));
        }
        let cert = IdCert::read(r)?;
        let joined = Epoch::read(r)?;
        Ok(Self { index, cert, joined, name: DisplayName::read(r)? })
    }
}

/// All members by index. Leaves are kept, so that an epoch's root costs one hash per inner node.
#[derive(Clone, Default, Debug)]
pub struct Roster {
    members: BTreeMap<MemberIndex, (Member, [u8; 32])>,
}

impl Roster {
    /// Adds a member; `false` and no change when the index is taken.
    pub fn insert(&mut self, member: Member) -> bool {
        if self.members.contains_key(&member.index) {
            return false;
        }
        let leaf = member.leaf();
        self.members.insert(member.index, (member, leaf)).is_none()
    }

    /// Takes a member out.
    pub fn remove(&mut self, index: MemberIndex) -> Option<Member> {
        self.members.remove(&index).map(|(member, _)| member)
    }

    /// The member with that index.
    pub fn member(&self, index: MemberIndex) -> Option<&Member> {
        self.members.get(&index).map(|(member, _)| member)
    }

    /// Everybody, in order of index.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.members.values().map(|(member, _)| member)
    }

    /// Everybody's leaf, in order of index.
    pub fn leaves(&self) -> Vec<[u8; 32]> {
        self.members.values().map(|(_, leaf)| *leaf).collect()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether nobody is there.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// The Merkle root over the leaves in order of index.
    pub fn root(&self) -> [u8; 32] {
        merkle::root(&self.leaves())
    }

    /// The highest index in use.
    pub fn last_index(&self) -> Option<MemberIndex> {
        self.members.keys().next_back().copied()
    }

    /// The place of a member in order of index.
    pub fn position(&self, index: MemberIndex) -> Option<usize> {
        self.members.contains_key(&index).then(|| self.members.range(..index).count())
    }
}

/// The leaf of the commitments' tree: `H("conclave/1 commit leaf" ‖ index ‖ commitment)`; a member without a
/// commitment has zeros.
pub fn commitment_leaf(index: MemberIndex, commitment: &[u8; 32]) -> [u8; 32] {
    label::hash(label::COMMIT_LEAF, &[&index.0.to_be_bytes(), commitment])
}

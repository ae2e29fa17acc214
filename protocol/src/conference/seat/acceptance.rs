//! What an epoch key has to pass before the seat moves on to its epoch.

use super::super::event::AlarmKind;
use super::{Accepted, Chain, Changed, FreshValue, NO_COMMITMENT, REMEMBERED, Refused, Seat};
use crate::epoch::roster::{Member, Roster, commitment_leaf};
use crate::epoch::schedule::EpochSecret;
use crate::epoch::statement::{Act, Op, Rate, Statement, ops_hash};
use crate::epoch::witness::Witnessed;
use crate::epoch::{merkle, schedule};
use crate::id::{Epoch, IndexRange, MemberIndex};
use crate::identity::{Identity, Role};
use crate::succession::{Line, Rank, authority_of, rank};
use crate::time::UnixMillis;
use crate::wire::control::{EpochAck, EpochKey};
use rand_core::CryptoRng;
use std::time::Instant;

impl Seat {
    /// Checks an epoch key against everything this seat knows and, if all is right, moves on to the epoch.
    pub(in crate::conference) fn accept(
        &mut self,
        now: Instant,
        wall: UnixMillis,
        key: EpochKey,
        identity: &Identity,
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Result<Accepted, Refused> {
        let line = self.check_line(&key)?;
        let chain = self.check_statement(&key, line.as_ref())?;
        let (roster, departed) = self.check_roster(&key, line.as_ref(), wall)?;
        let committed = self.check_commitment(&key, &roster)?;
        let secret = EpochSecret::new(self.meeting, chain.epoch, &chain.hash, &key.fresh);
        self.roster = roster;
        self.line = line;
        self.committed = committed;
        for member in self.roster.members() {
            let highest = self.highest.entry(IndexRange::of(member.index)).or_insert(member.index);
            *highest = member.index.max(*highest);
        }
        let removal = key.ops.iter().any(|op| matches!(op.act, Act::Remove(_)));
        self.install_openers(now, chain.epoch, &secret, removal);
        self.install_sealer(now, chain.epoch, &secret, removal);
        let fresh = FreshValue::draw(self.meeting, rng);
        let ack = EpochAck::sign(chain.epoch, &chain.hash, fresh.commitment, identity);
        self.revealed = Some(std::mem::replace(&mut self.fresh, fresh));
        if self.statements.len() >= REMEMBERED {
            self.statements.pop_front();
        }
        let EpochKey { previous, statement, signature, ops, admitted, .. } = key;
        self.statements.push_back(Witnessed { previous, statement, signature });
        let old = self.chain.replace(chain);
        Ok(Accepted {
            ops,
            secret,
            settings: Changed { before: old.map(|c| c.settings), after: chain.settings },
            leader: Changed { before: old.map(|c| c.leader), after: chain.leader },
            departed,
            admitted,
            ack,
        })
    }

    /// The line of succession after the epoch: the host's word, and never an older one.
    fn check_line(&self, key: &EpochKey) -> Result<Option<Line>, Refused> {
        let bad = |detail| Refused { kind: AlarmKind::BadStatement, detail };
        let digest = key.line.as_ref().map_or([0; 32], Line::digest);
        if digest != key.statement.line {
            return Err(bad("another line of succession than the statement's"));
        }
        let known = self.line.as_ref().map_or(0, |line| line.seq);
        match &key.line {
            Some(line) if Some(line) == self.line.as_ref() => {}
            Some(line) if line.seq <= known || line.verify(&self.descriptor.authority, self.meeting).is_err() => {
                return Err(bad("a line of succession that the host did not sign"));
            }
            None if self.line.is_some() => return Err(bad("a line of succession that is gone")),
            _ => {}
        }
        Ok(key.line.clone())
    }

    fn check_statement(&self, key: &EpochKey, line: Option<&Line>) -> Result<Chain, Refused> {
        let bad = |detail| Refused { kind: AlarmKind::BadStatement, detail };
        let statement = &key.statement;
        if statement.meeting != self.meeting {
            return Err(bad("a statement of another meeting"));
        }
        if statement.policy != self.descriptor.policy.bits() || statement.frame_ms != self.descriptor.frame_ms {
            return Err(bad("a statement with another policy than the meeting's"));
        }
        let takes_over = key.ops.iter().any(|op| matches!(op.act, Act::TakeOver(_)));
        match &self.chain {
            Some(chain) => {
                if key.previous != chain.hash || statement.chain != chain.name {
                    return Err(bad("a statement that does not follow from the last one"));
                }
                if chain.epoch.next() != Some(statement.epoch) {
                    return Err(bad("a statement out of order"));
                }
                let same = statement.term == chain.term && statement.leader == chain.leader;
                let next = chain.term.0.checked_add(1) == Some(statement.term.0);
                if takes_over != next || (!takes_over && !same) {
                    return Err(bad("a leader who does not follow from the last one"));
                }
                let opens = key.ops.iter().any(|op| op.act == Act::OpenRate);
                if opens != (chain.rate == Rate::Private && statement.rate == Rate::Open)
                    || (chain.rate == Rate::Open && statement.rate == Rate::Private)
                {
                    return Err(bad("a change of rate that no act explains"));
                }
                if key.ops.iter().fold(chain.settings, |settings, op| op.act.apply(settings)) != statement.settings {
                    return Err(bad("settings that no act explains"));
                }
            }
            None if statement.epoch == Epoch::ZERO => return Err(bad("a statement without an epoch")),
            None => {}
        }
        let hash = key.previous.step(statement);
        let authority = authority_of(line, &self.descriptor.authority, statement.leader)
            .ok_or(bad("a statement of somebody who may not lead"))?;
        Statement::verify(&hash, &authority, &key.signature)
            .map_err(|_| bad("a statement that its leader did not sign"))?;
        if ops_hash(&key.ops) != statement.ops_hash {
            return Err(bad("other acts than the statement's"));
        }
        if !schedule::commits_to(&statement.key_commitment, self.meeting, statement.epoch, &key.fresh) {
            return Err(Refused { kind: AlarmKind::BadKey, detail: "another key than everybody else's" });
        }
        let heir = key.ops.iter().find_map(|op| match op.act {
            Act::HandOver(index) => Some(index),
            _ => None,
        });
        let Statement { chain: name, term, epoch, leader, rate, settings, commitments_root, .. } = *statement;
        Ok(Chain { hash, name, term, epoch, leader, rate, settings, commitments_root, heir })
    }

    /// Whether an act is one that its author may do, under that leader.
    fn check_right(&self, op: &Op, line: Option<&Line>, leader: MemberIndex) -> Result<(), Refused> {
        let bad = |detail| Err(Refused { kind: AlarmKind::BadStatement, detail });
        if self.chain.is_none() {
            // A newcomer does not know who was there; those who were have checked it.
            return Ok(());
        }
        // A co-host who is demoted or goes in this very epoch may have acted before.
        let ranked = rank(line, op.by).min(self.rank(op.by));
        let own = op.act == Act::Leave(op.by);
        if !own && op.by != leader && ranked == Rank::Member {
            return bad("an act of somebody who has no right to it");
        }
        match op.act {
            Act::Remove(index) if ranked >= rank(line, index).min(self.rank(index)) => {
                bad("somebody put out by one who ranks no higher")
            }
            Act::Promote(_) | Act::Demote(_) if op.by != MemberIndex::HOST => {
                bad("a co-host made by another than the host")
            }
            Act::TakeOver(index) if index != leader || op.by != leader => bad("a leader who did not take over itself"),
            _ => Ok(()),
        }
    }

    fn check_roster(
        &self,
        key: &EpochKey,
        line: Option<&Line>,
        wall: UnixMillis,
    ) -> Result<(Roster, Vec<Member>), Refused> {
        let bad = |detail| Refused { kind: AlarmKind::BadRoster, detail };
        let mut roster = self.roster.clone();
        let mut departed = Vec::new();
        let mut admitted = key.admitted.iter();
        for op in &key.ops {
            self.check_right(op, line, key.statement.leader)?;
            match (op.act, op.act.departing()) {
                (_, Some(index)) => match roster.remove(index) {
                    Some(member) => departed.push(member),
                    // A newcomer is not told who was there before.
                    None if self.chain.is_none() => {}
                    None => return Err(bad("somebody left who was not there")),
                },
                (Act::Admit(index), None) => {
                    let member = admitted.next().filter(|m| m.index == index).ok_or(bad("an unknown member"))?;
                    let highest = self.highest_in(IndexRange::of(index));
                    let used_before = self.chain.is_some() && highest.is_some_and(|highest| index <= highest);
                    if used_before || member.joined != key.statement.epoch {
                        return Err(bad("a member's number was used before"));
                    }
                    self.check_member(member, wall)?;
                    if !roster.insert(member.clone()) {
                        return Err(bad("a member's number is taken"));
                    }
                }
                _ => {}
            }
        }
        if admitted.next().is_some() {
            return Err(bad("a member whom no act let in"));
        }
        if self.chain.is_none() {
            self.roster.members().try_for_each(|member| self.check_member(member, wall))?;
        }
        if roster.root() != key.statement.roster_root {
            return Err(bad("another roster than the signed one"));
        }
        if roster.member(key.statement.leader).is_none() {
            return Err(bad("a leader who is not in the roster"));
        }
        match roster.member(self.index) {
            Some(me) if me.cert == self.cert => Ok((roster, departed)),
            _ => Err(bad("this member is not in the roster as itself")),
        }
    }

    fn check_member(&self, member: &Member, wall: UnixMillis) -> Result<(), Refused> {
        let bad = |detail| Refused { kind: AlarmKind::BadRoster, detail };
        let (role, session) = if member.index == MemberIndex::HOST {
            (Role::Host, &self.descriptor.hs)
        } else {
            (Role::Member, &member.cert.keys.session)
        };
        member
            .cert
            .verify(self.meeting, role, session, &member.name, wall)
            .map_err(|_| bad("a member whose identity does not vouch for it"))
    }

    /// The statement must hold what this member committed to, so that an old one cannot be played back to it. A
    /// leader who had to go on before this member's commitment came puts zeros there; that is accepted only from
    /// a chain that this member already follows. Gives whether the commitment is there.
    fn check_commitment(&self, key: &EpochKey, roster: &Roster) -> Result<bool, Refused> {
        let root = &key.statement.commitments_root;
        let opens = |commitment: &[u8; 32]| {
            let leaf = commitment_leaf(self.index, commitment);
            let position = roster.position(self.index);
            position.is_some_and(|p| merkle::verify(root, &leaf, p, roster.len(), &key.opening))
        };
        if opens(&self.fresh.commitment) {
            return Ok(true);
        }
        if self.chain.is_some() && opens(&NO_COMMITMENT) {
            return Ok(false);
        }
        let detail = "a statement that was not made for this member: it may be an old one";
        Err(Refused { kind: AlarmKind::BadStatement, detail })
    }
}

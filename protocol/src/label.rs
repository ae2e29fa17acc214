//! Every label of the protocol. A label precedes what is hashed, signed or expanded, so that no value made for
//! one purpose can be taken for another (`docs/protocol.md` §2.2).
//!
//! INVARIANT: no label is the beginning of another (tested below), so label ‖ data can be read in one way only.

use sha2::{Digest, Sha256};

/// MeetingId = H(MEETING ‖ D)[..20].
pub const MEETING: &str = "conclave/1 meeting";
/// Checksum of a MeetingId in a link.
pub const LINK_CHECK: &str = "conclave/1 link check";
/// psk0 from the link's secret.
pub const LINK_PSK0: &str = "conclave/1 psk0";
/// The knock token from the link's secret.
pub const KNOCK_TOKEN: &str = "conclave/1 knock token";
/// H(token) in the knock gate.
pub const KNOCK_HASH: &str = "conclave/1 gate token";
/// Signature of a KnockGate.
pub const KNOCK_GATE: &str = "conclave/1 knock gate";
/// Signature of a capability.
pub const CAPABILITY: &str = "conclave/1 capability";
/// Hash of a signed capability, which the proof of possession signs.
pub const CAPABILITY_DIGEST: &str = "conclave/1 cap digest";
/// Signature that proves possession of rk.
pub const POSSESSION: &str = "conclave/1 possession";
/// Signature of a revocation.
pub const REVOKED: &str = "conclave/1 revoked";
/// Signature of an identity certificate.
pub const IDCERT: &str = "conclave/1 idcert";
/// Signature of a joining identity over h after message 2.
pub const JOIN: &str = "conclave/1 join";
/// psk3 of the join handshake.
pub const PSK3: &str = "conclave/1 psk3";
/// Noise prologue of the join handshake.
pub const PROLOGUE: &str = "conclave/1 noise join";
/// CPace channel identifier.
pub const CPACE_CI: &str = "conclave/1 cpace";
/// Name of a session on the wire.
pub const SESSION: &str = "conclave/1 session";
/// Safety number of two identities.
pub const SAFETY_NUMBER: &str = "conclave/1 safety number";
/// T_0 of a chain.
pub const CHAIN_START: &str = "conclave/1 T0";
/// T_e from T_{e-1} and the statement.
pub const CHAIN_STEP: &str = "conclave/1 T+";
/// Hash of a statement.
pub const STATEMENT_HASH: &str = "conclave/1 stmt hash";
/// Signature of a statement, over T_e.
pub const STATEMENT_SIG: &str = "conclave/1 stmt sig";
/// Hash of an epoch's ops.
pub const OPS: &str = "conclave/1 ops";
/// Key commitment kc_e.
pub const KEY_COMMITMENT: &str = "conclave/1 kc";
/// Leaf of the roster's Merkle tree.
pub const ROSTER_LEAF: &str = "conclave/1 roster leaf";
/// Inner node of a Merkle tree.
pub const MERKLE_NODE: &str = "conclave/1 merkle node";
/// Root of an empty Merkle tree.
pub const MERKLE_EMPTY: &str = "conclave/1 merkle empty";
/// Hash of a display name.
pub const NAME: &str = "conclave/1 name";
/// A member's commitment to its fresh value.
pub const FRESH_COMMIT: &str = "conclave/1 fresh commit";
/// Leaf of the commitments' Merkle tree.
pub const COMMIT_LEAF: &str = "conclave/1 commit leaf";
/// Signature of an acknowledgement of T_e.
pub const ACK: &str = "conclave/1 ack";
/// Signature of a removal notice.
pub const REMOVAL: &str = "conclave/1 removal notice";
/// CK_0 of a sender.
pub const SENDER: &str = "conclave/1 sender";
/// SK_i from CK_i.
pub const SEGMENT: &str = "conclave/1 segment";
/// CK_{i+1} from CK_i.
pub const SENDER_CHAIN: &str = "conclave/1 next segment";
/// ctl_e from ES_e: the key of messages to everybody.
pub const CONTROL: &str = "conclave/1 ctl";
/// mesh_e from ES_e: the key of sessions between members.
pub const MESH: &str = "conclave/1 mesh";
/// Signature of the line of succession.
pub const LINE_SIG: &str = "conclave/1 line sig";
/// Hash of the line of succession in a statement.
pub const LINE_HASH: &str = "conclave/1 line hash";
/// Noise prologue of a handshake between members.
pub const MESH_PROLOGUE: &str = "conclave/1 noise kk";
/// psk0 of a handshake between members, from mesh_e.
pub const MESH_PSK: &str = "conclave/1 kk psk";
/// Key of one member's messages to everybody, from ctl_e.
pub const BROADCAST: &str = "conclave/1 broadcast";
/// Key under which members show each other the leader's statements, from psk0.
pub const WITNESS: &str = "conclave/1 witness";
/// Draws who shows the leader's statement at a heartbeat.
pub const SHOWS: &str = "conclave/1 shows";
/// Signature of a heartbeat.
pub const HEARTBEAT_SIG: &str = "conclave/1 heartbeat sig";
/// Hash of a heartbeat, in the next one.
pub const HEARTBEAT_HASH: &str = "conclave/1 heartbeat hash";
/// Signature of a confirmation of T_e to all members.
pub const CONFIRM: &str = "conclave/1 confirm";
/// Signature of what a member writes to all.
pub const CHAT: &str = "conclave/1 chat";
/// Signature of a raised or lowered hand.
pub const HAND: &str = "conclave/1 hand";
/// Signature of whether a member records.
pub const RECORDING: &str = "conclave/1 recording";
/// The security code of a whole meeting.
pub const SECURITY_CODE: &str = "conclave/1 security code";
/// Signature of a seal, over MeetingId, KID and root.
pub const SEAL: &str = "conclave/1 seal sig";
/// Root of a seal.
pub const SEAL_ROOT: &str = "conclave/1 seal root";
/// Key of a seal, from SK_i.
pub const SEAL_KEY: &str = "conclave/1 seal key";
/// A seal's commitment to SK_i.
pub const SEAL_COMMIT: &str = "conclave/1 commits to segment";
/// Hash of a frame in a seal.
pub const FRAME_HASH: &str = "conclave/1 frame hash";
/// A relay's stamp on a seal's public part.
pub const STAMP: &str = "conclave/1 stamp";
/// Name of a stamp key.
pub const STAMP_KEY_ID: &str = "conclave/1 key of stamps";
/// Hash of a meeting's list of moderators, in D.
pub const MODERATORS: &str = "conclave/1 moderators";
/// Name of a moderator's key.
pub const MODERATOR_ID: &str = "conclave/1 moderator id";
/// HPKE's info for a report.
pub const REPORT: &str = "conclave/1 report";
/// Digest of a report, which a reporter who gives its name signs.
pub const REPORT_DIGEST: &str = "conclave/1 digest of report";
/// Signature of a reporter who gives its name.
pub const REPORTER: &str = "conclave/1 by reporter";
/// Signature of a moderator's request to a relay.
pub const MODERATOR_REQUEST: &str = "conclave/1 asks as moderator";
/// Signature of a ban statement.
pub const BAN: &str = "conclave/1 ban";
/// The number of one identity, for people to compare.
pub const IDENTITY_NUMBER: &str = "conclave/1 identity number";

/// TLS exporter label under which relay and client derive the value that a proof of possession signs
/// (RFC 8446 §7.5 asks for the prefix "EXPORTER").
pub const EXPORTER: &[u8] = b"EXPORTER-conclave/1 pop";

/// All labels above that can precede data.
pub const ALL: &[&str] = &[
    MEETING,
    LINK_CHECK,
    LINK_PSK0,
    KNOCK_TOKEN,
    KNOCK_HASH,
    KNOCK_GATE,
    CAPABILITY,
    CAPABILITY_DIGEST,
    POSSESSION,
    REVOKED,
    IDCERT,
    JOIN,
    PSK3,
    PROLOGUE,
    CPACE_CI,
    SESSION,
    SAFETY_NUMBER,
    CHAIN_START,
    CHAIN_STEP,
    STATEMENT_HASH,
    STATEMENT_SIG,
    OPS,
    KEY_COMMITMENT,
    ROSTER_LEAF,
    MERKLE_NODE,
    MERKLE_EMPTY,
    NAME,
    FRESH_COMMIT,
    COMMIT_LEAF,
    ACK,
    REMOVAL,
    SENDER,
    SEGMENT,
    SENDER_CHAIN,
    CONTROL,
    MESH,
    LINE_SIG,
    LINE_HASH,
    MESH_PROLOGUE,
    MESH_PSK,
    BROADCAST,
    WITNESS,
    SHOWS,
    HEARTBEAT_SIG,
    HEARTBEAT_HASH,
    CONFIRM,
    CHAT,
    HAND,
    RECORDING,
    SECURITY_CODE,
    SEAL,
    SEAL_ROOT,
    SEAL_KEY,
    SEAL_COMMIT,
    FRAME_HASH,
    STAMP,
    STAMP_KEY_ID,
    MODERATORS,
    MODERATOR_ID,
    REPORT,
    REPORT_DIGEST,
    REPORTER,
    MODERATOR_REQUEST,
    BAN,
    IDENTITY_NUMBER,
];

/// `SHA-256(label ‖ part ‖ part …)`. Every part but the last must have a fixed length or carry its own.
pub fn hash(label: &str, parts: &[&[u8]]) -> [u8; 32] {
    let mut hasher = Sha256::new();
    hasher.update(label.as_bytes());
    for part in parts {
        hasher.update(part);
    }
    hasher.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_label_is_the_beginning_of_another() {
        for (i, a) in ALL.iter().enumerate() {
            assert!(a.starts_with("conclave/1 "), "{a}");
            for (j, b) in ALL.iter().enumerate() {
                assert!(i == j || !b.starts_with(a), "{a:?} begins {b:?}");
            }
        }
    }
}

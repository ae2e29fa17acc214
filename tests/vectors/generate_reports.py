#!/usr/bin/env python3
"""Writes report.json beside it, following docs/protocol.md §9 and §10: a report of the meeting that generate.py makes,
from frames to seals, stamps, encoding, signature and the sealed file. X-Wing and HPKE are written out here.

Needs what generate.py needs, and is run the same way. `protocol/tests/report_vectors.rs` reads the file back.
"""

import hashlib
from base64 import b64encode

from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from kyber_py.ml_kem import ML_KEM_768

import generate as g
from generate import H, ed_public, expand, extract, items, made_up, padded_name, sign, string, u8, u16, u32, u64

STEP = 64 * 1024


# ---- X-Wing (draft-connolly-cfrg-xwing-kem) ----

def xwing_keys(seed):
    expanded = hashlib.shake_256(seed).digest(96)
    pk_m, sk_m = ML_KEM_768._keygen_internal(expanded[:32], expanded[32:64])
    return pk_m + g.x_public(expanded[64:]), sk_m, expanded[64:]


def xwing_encapsulate(public, randomness):
    pk_m, pk_x = public[:1184], public[1184:]
    ss_m, ct_m = ML_KEM_768._encaps_internal(pk_m, randomness[:32])
    ct_x, ss_x = g.x_public(randomness[32:]), g.dh(randomness[32:], pk_x)
    return hashlib.sha3_256(ss_m + ss_x + ct_x + pk_x + rb"\.//^" + b"\\").digest(), ct_m + ct_x


# ---- HPKE (RFC 9180 §5), base mode, one message ----

SUITE_ID = b"HPKE" + u16(0x647A) + u16(0x0001) + u16(0x0003)


def labeled_extract(salt, label, ikm):
    return extract(salt, b"HPKE-v1" + SUITE_ID + label + ikm)


def labeled_expand(prk, label, info, length):
    return expand(prk, u16(length) + b"HPKE-v1" + SUITE_ID + label + info, length)


def hpke_seal(shared, info, aad, plaintext):
    context = u8(0) + labeled_extract(b"", b"psk_id_hash", b"") + labeled_extract(b"", b"info_hash", info)
    secret = labeled_extract(shared, b"secret", b"")
    key, nonce = labeled_expand(secret, b"key", context, 32), labeled_expand(secret, b"base_nonce", context, 12)
    return key, nonce, ChaCha20Poly1305(key).encrypt(nonce, plaintext, aad)


# ---- §16 ----

def sealed_segment(world, epoch, index, vk, frames, prev):
    kid, sk = 1 << 63 | index << 40 | epoch["epoch"] << 16 | frames[0]["segment"], frames[0]["SK"]
    hashes = [H(b"frame hash", f["header"] + f["ciphertext"])[:16] for f in frames]
    commit = H(b"commits to segment", sk)
    root = H(b"seal root", epoch["T"], u64(kid), u8(len(hashes)), commit, *hashes, prev)
    public = u64(kid) + u8(len(hashes)) + root
    body = commit + b"".join(hashes) + bytes(16 * (25 - len(hashes))) + prev
    body += sign(vk, b"seal sig", world.meeting, u64(kid), root)
    key = expand(sk, b"conclave/1 seal key")
    return public + ChaCha20Poly1305(key).encrypt(bytes(12), body, public + world.meeting), public, root


def stamp(world, key, index, rk, minute, public):
    made = g.mac(key, b"conclave/1 stamp", world.meeting, u16(index), rk, u32(minute), public)[:16]
    return H(b"key of stamps", key)[:8] + u32(minute) + made


# ---- §17 ----

def epoch_proof(epoch, index):
    leaves = [member["leaf"] for member in epoch["roster"]]
    position = [member["index"] for member in epoch["roster"]].index(index)
    line = epoch["line"] if epoch["leader"] else b""
    return (epoch["previous"] + epoch["statement"] + epoch["signature"] + string(line) + u16(position)
            + u16(len(leaves)) + items(g.merkle_open(leaves, position)))


def identity_number(ik):
    digest = H(b"identity number", ik)
    return " ".join(f"{int.from_bytes(digest[i:i + 5], 'big') % 100_000:05}" for i in range(0, 30, 5))


def ban(moderator_seed, moderator_id, identity, issued, category, until):
    body = identity + u64(issued) + u8(category) + u64(until) + moderator_id
    return body + sign(moderator_seed, b"ban", body)


def report_vectors():
    world = g.World()
    index, accused, reporter = 1, world.guests[0], world.host
    stamp_key, minute = made_up("stamp key"), world.start // 60_000
    segments, prev = [], bytes(32)
    # All of the second epoch's first segment, and some of the fourth's, which the accused leads itself.
    for epoch, wanted in ((world.epochs[1], range(25)), (world.epochs[3], range(7))):
        frames = g.frames(world, epoch, index, 20, tuple(wanted))["frames"]
        whole, public, prev = sealed_segment(world, epoch, index, accused.vk, frames, prev)
        kept = [f for f in frames if f["n"] != 3]
        listed = b"".join(u8(f["number"]) + f["ciphertext"] for f in kept)
        segments.append(public[:8] + frames[0]["SK"] + string(whole) + u8(1)
                        + stamp(world, stamp_key, index, g.ed_public(accused.rk), minute, public) + u8(len(kept)) + listed)
    exhibit = (string(g.descriptor(world.d)) + accused.entry(world.meeting, index, 2)
               + items([epoch_proof(world.epochs[e], index) for e in (1, 3)]) + items(segments))
    note = "Grace said it twice.\nListen to the end."
    body = u8(3) + u64(world.start + 60_000) + string(note.encode()) + exhibit
    digest = H(b"digest of report", body)
    signed = sign(reporter.ik, b"by reporter", world.meeting, digest, H(b"name", reporter.name.encode()))
    report = body + u8(1) + padded_name(reporter.name) + ed_public(reporter.ik) + signed

    signing, sealing, randomness = made_up("moderator's Ed25519"), made_up("moderator's X-Wing"), made_up("enc", 64)
    public, _, _ = xwing_keys(sealing)
    encoded = padded_name("Trust and Safety") + ed_public(signing) + public
    moderator_id = H(b"moderator id", ed_public(signing), public)[:8]
    shared, enc = xwing_encapsulate(public, randomness)
    header = b"conclave-report" + u8(1) + moderator_id
    around = len(header) + len(enc) + 16
    length = -(-(around + 4 + len(report)) // STEP) * STEP
    plaintext = u32(len(report)) + report + bytes(length - around - 4 - len(report))
    key, nonce, ciphertext = hpke_seal(shared, b"conclave/1 report", header, plaintext)
    file = header + enc + ciphertext
    assert len(file) == STEP

    bans = [{"identity": ed_public(accused.ik), "issued": world.start, "category": 8, "until": until,
             "bytes": ban(signing, moderator_id, ed_public(accused.ik), world.start, 8, until)}
            for until in (0, world.start + 86_400_000)]
    for one in bans:
        one["line"] = "conclave-ban-1 " + b64encode(one["bytes"]).decode()
    return {
        "source": "tests/vectors/generate_reports.py",
        "moderator": {"name": "Trust and Safety", "signing_seed": signing, "sealing_seed": sealing, "bytes": encoded,
                      "id": moderator_id,
                      "text": f"conclave-moderator-1 Trust and Safety\n{b64encode(encoded).decode()}\n"},
        "stamp_key": stamp_key, "minute": minute, "exhibit": exhibit, "digest": digest, "report": report,
        "randomness": randomness, "shared_secret": shared, "enc": enc, "header": header, "key": key, "nonce": nonce,
        "file": file, "missing": [{"segment": 0, "frame": 3}, {"segment": 1, "frame": 3}],
        "numbers": [{"identity": ed_public(p.ik), "number": identity_number(ed_public(p.ik))}
                    for p in (accused, reporter)],
        "bans": bans,
    }


if __name__ == "__main__":
    g.write("report.json", "§17", report_vectors())

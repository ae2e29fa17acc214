#!/usr/bin/env python3
"""Writes the golden vectors beside it, following docs/protocol.md.

It shares no code with the Rust implementation: Noise, SFrame, CPace, ristretto255, Merkle trees and all encodings
are written out here, section by section of the specification. Only primitives come from packages:

    python3 -m venv VENV && VENV/bin/pip install cryptography==50.0.2 kyber-py==1.2.0
    VENV/bin/python tests/vectors/generate.py

`protocol/tests/vectors.rs` reads the files back. Whoever changes a byte on the wire changes the specification first,
then this program, runs it, and lets the test say whether the implementation agrees.

All secrets in here are made up and public. No code outside of tests may use them.
"""

import hashlib
import hmac
import json
from base64 import urlsafe_b64encode
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from kyber_py.ml_kem import ML_KEM_768

HERE = Path(__file__).resolve().parent
VERSION, SUITE = 1, 0xF001


# ---- §1 encoding ----

def u8(n):
    return n.to_bytes(1, "big")


def u16(n):
    return n.to_bytes(2, "big")


def u32(n):
    return n.to_bytes(4, "big")


def u64(n):
    return n.to_bytes(8, "big")


def string(b):
    """A byte string behind its u16 length."""
    return u16(len(b)) + b


def items(encoded):
    """A list behind its u16 count."""
    return u16(len(encoded)) + b"".join(encoded)


def padded_name(name):
    """A display name on the wire (§3.5): as long as any other."""
    text = name.encode()
    assert 1 <= len(text) <= 64
    return u8(len(text)) + text + bytes(64 - len(text))


def b64(b):
    return urlsafe_b64encode(b).rstrip(b"=").decode()


# ---- §2 suite ----

def sha256(*parts):
    return hashlib.sha256(b"".join(parts)).digest()


def sha512(*parts):
    return hashlib.sha512(b"".join(parts)).digest()


def H(label, *parts):
    return sha256(b"conclave/1 " + label, *parts)


def mac(key, *parts):
    return hmac.new(key, b"".join(parts), hashlib.sha256).digest()


def extract(salt, ikm):
    return mac(salt or bytes(32), ikm)


def expand(prk, info, length=32):
    out, block, count = b"", b"", 1
    while len(out) < length:
        block = mac(prk, block, info, u8(count))
        out, count = out + block, count + 1
    return out[:length]


def kdf(salt, ikm, label):
    return expand(extract(salt, ikm), b"conclave/1 " + label)


def sign(seed, label, *parts):
    return Ed25519PrivateKey.from_private_bytes(seed).sign(b"conclave/1 " + label + b"".join(parts))


def ed_public(seed):
    return Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()


def x_public(secret):
    return X25519PrivateKey.from_private_bytes(secret).public_key().public_bytes_raw()


def dh(secret, public):
    return X25519PrivateKey.from_private_bytes(secret).exchange(X25519PublicKey.from_public_bytes(public))


def made_up(name, length=32):
    """Bytes for a test, different for every name."""
    blocks = (sha256(b"conclave vectors ", name.encode(), u32(i)) for i in range(-(-length // 32)))
    return b"".join(blocks)[:length]


# ---- ristretto255, RFC 9496 ----

P = 2**255 - 19
D = -121665 * pow(121666, -1, P) % P
SQRT_M1 = pow(2, (P - 1) // 4, P)
ORDER = 2**252 + 27742317777372353535851937790883648493


def is_negative(x):
    return x % P & 1


def absolute(x):
    x %= P
    return P - x if is_negative(x) else x


def sqrt_ratio(u, v):
    u, v = u % P, v % P
    r = u * pow(v, 3, P) * pow(u * pow(v, 7, P), (P - 5) // 8, P) % P
    check = v * r * r % P
    correct, flipped, flipped_i = check == u, check == -u % P, check == -u * SQRT_M1 % P
    if flipped or flipped_i:
        r = r * SQRT_M1 % P
    return correct or flipped, absolute(r)


# RFC 9496 §4.1 fixes the signs of these two roots.
SQRT_AD_MINUS_ONE = 25063068953384623474111414158702152701244531502492656460079210482610430750235
INVSQRT_A_MINUS_D = 54469307008909316920995813868745141605393597292927456921205312896311721017578
assert SQRT_AD_MINUS_ONE**2 % P == (-D - 1) % P
assert INVSQRT_A_MINUS_D**2 * (-1 - D) % P == 1


def add(p, q):
    (x1, y1, z1, t1), (x2, y2, z2, t2) = p, q
    a, b = (y1 - x1) * (y2 - x2) % P, (y1 + x1) * (y2 + x2) % P
    c, d = 2 * t1 * t2 * D % P, 2 * z1 * z2 % P
    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % P, g * h % P, f * g % P, e * h % P


def multiply(n, p):
    out = (0, 1, 1, 0)
    while n:
        if n & 1:
            out = add(out, p)
        p, n = add(p, p), n >> 1
    return out


def ristretto_map(t):
    r = SQRT_M1 * t * t % P
    u, v = (r + 1) * (1 - D * D) % P, (-1 - r * D) * (r + D) % P
    was_square, s = sqrt_ratio(u, v)
    if not was_square:
        s = -absolute(s * t) % P
    c = -1 if was_square else r
    n = (c * (r - 1) * (D - 1) ** 2 - v) % P
    w0, w1, w2, w3 = 2 * s * v, n * SQRT_AD_MINUS_ONE, 1 - s * s, 1 + s * s
    return w0 * w3 % P, w2 * w1 % P, w1 * w3 % P, w0 * w2 % P


def from_uniform(b):
    halves = (int.from_bytes(half, "little") % 2**255 % P for half in (b[:32], b[32:]))
    first, second = map(ristretto_map, halves)
    return add(first, second)


def encode_point(point):
    x0, y0, z0, t0 = point
    u1, u2 = (z0 + y0) * (z0 - y0), x0 * y0
    _, inv = sqrt_ratio(1, u1 * u2 * u2)
    den1, den2 = inv * u1, inv * u2
    z_inv = den1 * den2 * t0
    x, y, den = x0, y0, den2
    if is_negative(t0 * z_inv):
        x, y, den = y0 * SQRT_M1, x0 * SQRT_M1, den1 * INVSQRT_A_MINUS_D
    if is_negative(x * z_inv):
        y = -y
    return absolute(den * (z0 - y)).to_bytes(32, "little")


def decode_point(b):
    s = int.from_bytes(b, "little")
    assert s < P and not is_negative(s)
    u1, u2 = 1 - s * s, 1 + s * s
    v = -D * u1 * u1 - u2 * u2
    ok, inv = sqrt_ratio(1, v * u2 * u2)
    den_x = inv * u2
    x, y = absolute(2 * s * den_x), u1 * inv * den_x * v % P
    assert ok and not is_negative(x * y) and y
    return x, y, 1, x * y % P


# ---- §4.3 CPace, draft-irtf-cfrg-cpace-21 ----

def lv(b):
    """prepend_len of the draft: LEB128 length, then the bytes."""
    n, head = len(b), b""
    while n >= 0x80:
        head, n = head + u8(n & 0x7F | 0x80), n >> 7
    return head + u8(n) + b


def cpace_generator_string(prs, ci, sid):
    dsi = b"CPaceRistretto255"
    zpad = max(0, 128 - 1 - len(lv(prs)) - len(lv(dsi)))
    return lv(dsi) + lv(prs) + lv(bytes(zpad)) + lv(ci) + lv(sid)


def cpace_generator(prs, ci, sid):
    return from_uniform(sha512(cpace_generator_string(prs, ci, sid)))


def cpace_share(scalar, prs, ci, sid):
    return encode_point(multiply(scalar, cpace_generator(prs, ci, sid)))


def cpace_isk(sid, k, ya, ada, yb, adb):
    return sha512(lv(b"CPaceRistretto255_ISK"), lv(sid), lv(k), lv(ya), lv(ada), lv(yb), lv(adb))


def cpace_scalar(drawn):
    return int.from_bytes(drawn, "little") % 2**252


def check_cpace():
    """The draft's own vectors, so that what follows stands on something published."""
    path = HERE.parent.parent / "protocol" / "vectors" / "cpace-draft-21-ristretto255.json"
    v = json.loads(path.read_text())
    g, m = v["calculate_generator"], v["messages"]
    prs, ci, sid = (bytes.fromhex(g[k]) for k in ("PRS", "CI", "sid"))
    assert encode_point(cpace_generator(prs, ci, sid)).hex() == g["g"]
    scalars = {k: int.from_bytes(bytes.fromhex(m[k]), "little") for k in ("ya", "yb")}
    assert cpace_share(scalars["ya"], prs, ci, sid).hex() == m["Ya"]
    assert encode_point(multiply(scalars["yb"], decode_point(bytes.fromhex(m["Ya"])))).hex() == m["K"]


# ---- §3 descriptor, ids, links, identities ----

def descriptor(d):
    regions = b"".join(u8(len(r)) + r.encode() for r in d["regions"])
    return (u8(VERSION) + u16(SUITE) + d["hs"] + d["authority"] + u64(d["not_before"]) + u64(d["not_after"])
            + u16(d["policy"]) + u8(d["frame_ms"]) + u16(d["max_members"]) + u8(VERSION) + d["nonce"]
            + d["moderator"] + u8(len(d["regions"])) + regions)


def meeting_id(d):
    return H(b"meeting", descriptor(d))[:20]


def link_text(relays, pins, meeting, secret):
    pin = "?pin=" + ",".join(b64(p) for p in pins) if any(pins) else ""
    name = b64(meeting + H(b"link check", meeting)[:4])
    return f"conclave://{','.join(relays)}/{name}{pin}#{b64(secret)}"


def psk0(meeting, secret):
    return kdf(meeting, secret, b"psk0")


def knock_token(meeting, secret):
    return kdf(meeting, secret, b"knock token")


class Person:
    """One member's keys of one join. kind: 0 guest, 1 kept. role: 0 host, 1 member."""

    def __init__(self, tag, name, kind, role, not_after):
        self.name, self.kind, self.role, self.not_after = name, kind, role, not_after
        self.ik, self.ms, self.vk, self.rk = (made_up(f"{tag} {k}") for k in ("IK", "ms", "vk", "rk"))
        self.fresh = made_up(f"{tag} r")

    def keys(self):
        return x_public(self.ms) + ed_public(self.vk) + ed_public(self.rk)

    def cert(self, meeting):
        fields = ed_public(self.ik) + u8(self.kind) + u8(self.role) + self.keys() + u64(self.not_after)
        return fields + sign(self.ik, b"idcert", meeting, fields, H(b"name", self.name.encode()))

    def leaf(self, index, joined):
        return H(b"roster leaf", u16(index), ed_public(self.ik), u8(self.kind), u8(self.role), self.keys(),
                 u32(joined), H(b"name", self.name.encode()))

    def entry(self, meeting, index, joined):
        return u16(index) + self.cert(meeting) + u32(joined) + padded_name(self.name)

    def commitment(self, meeting):
        return H(b"fresh commit", meeting, self.fresh)

    def inputs(self):
        return {"name": self.name, "kind": ["guest", "kept"][self.kind], "ik_seed": self.ik, "ms_secret": self.ms,
                "vk_seed": self.vk, "rk_seed": self.rk, "fresh": self.fresh, "not_after": self.not_after}


def safety_number(a, b):
    low, high = sorted((a, b))
    groups = []
    for half in (0, 1):
        digest = H(b"safety number", low, high, u8(half))
        groups += [f"{int.from_bytes(digest[i:i + 5], 'big') % 100_000:05}" for i in range(0, 30, 5)]
    return " ".join(groups)


# ---- §4 join handshake ----

class Noise:
    """Both ends' SymmetricState (Noise revision 34, §5.2), which are always equal."""

    JOIN = b"Noise_XKpsk0+psk3_25519_ChaChaPoly_SHA256"
    MESH = b"Noise_KKpsk0_25519_ChaChaPoly_SHA256"

    def __init__(self, name, prologue, *statics):
        # A name of at most 32 bytes would be padded instead.
        assert len(name) > 32
        self.h = self.ck = sha256(name)
        self.k, self.n = None, 0
        self.mix_hash(prologue)
        for known in statics:
            self.mix_hash(known)

    def mix_hash(self, data):
        self.h = sha256(self.h, data)

    def hkdf(self, ikm, outputs):
        return [expand(extract(self.ck, ikm), b"", 32 * outputs)[32 * i:32 * i + 32] for i in range(outputs)]

    def mix_key(self, ikm):
        self.ck, self.k = self.hkdf(ikm, 2)
        self.n = 0

    def mix_key_and_hash(self, psk):
        self.ck, temp, self.k = self.hkdf(psk, 3)
        self.n = 0
        self.mix_hash(temp)

    def ephemeral(self, public):
        self.mix_hash(public)
        self.mix_key(public)
        return public

    def seal(self, plaintext):
        sealed = noise_seal(self.k, self.n, plaintext, self.h)
        self.n += 1
        self.mix_hash(sealed)
        return sealed

    def split(self):
        return self.hkdf(b"", 2)


def noise_seal(key, n, plaintext, ad=b""):
    return ChaCha20Poly1305(key).encrypt(bytes(4) + n.to_bytes(8, "little"), plaintext, ad)


class Direction:
    """One direction of a session (§4.4)."""

    def __init__(self, key, session):
        self.key, self.session, self.sequence = key, session, 0

    def record(self, acknowledged, message=b""):
        sealed = noise_seal(self.key, self.sequence, u32(acknowledged) + message)
        packet = u8(4) + self.session + u32(self.sequence) + sealed
        self.sequence += 1
        return packet

    def rekey(self):
        self.key = noise_seal(self.key, 2**64 - 1, bytes(32))[:32]


def handshake(world, guest, host, passcode, slot=0, line=b"", ak=b""):
    """A join. The responder is the host, or the co-host of that slot in the line, with its authority key."""
    meeting, tag = world.meeting, "passcode" if passcode else "cohost" if slot else "link"
    draws = {side: {k: made_up(f"handshake {tag} {side} {k}", n) for k, n in fields} for side, fields in {
        "guest": [("ephemeral", 32), ("mlkem", 64), ("nonce", 16), ("cpace", 32)],
        "host": [("ephemeral", 32), ("mlkem", 32), ("nonce", 16), ("cpace", 32)]}.items()}
    if not passcode:
        for side in draws.values():
            del side["cpace"]
    g, h = draws["guest"], draws["host"]
    prologue = b"conclave/1 noise join" + u8(VERSION) + u8(VERSION) + meeting + u16(world.d["policy"])
    hs = x_public(host.ms)
    prologue += u16(slot) + hs + ak if slot else b""
    assert slot or hs == world.d["hs"]
    psk_0 = psk0(meeting, world.secret)
    share_a = share_b = u8(0)
    isk = b""
    if passcode:
        prs, ci, sid = passcode.encode(), b"conclave/1 cpace" + meeting + b"JH", g["nonce"]
        a, b = cpace_scalar(g["cpace"]), cpace_scalar(h["cpace"])
        ya, yb = cpace_share(a, prs, ci, sid), cpace_share(b, prs, ci, sid)
        k = encode_point(multiply(a, decode_point(yb)))
        assert k == encode_point(multiply(b, decode_point(ya)))
        isk = cpace_isk(sid, k, ya, g["nonce"], yb, h["nonce"])
        share_a, share_b = u8(1) + ya, u8(1) + yb

    noise = Noise(Noise.JOIN, prologue, hs)
    # -> psk, e, es
    ek, dk = ML_KEM_768._keygen_internal(g["mlkem"][:32], g["mlkem"][32:])
    noise.mix_key_and_hash(psk_0)
    message1 = noise.ephemeral(x_public(g["ephemeral"]))
    noise.mix_key(dh(g["ephemeral"], hs))
    message1 += noise.seal(g["nonce"] + ek + share_a)
    # <- e, ee
    shared, ct = ML_KEM_768._encaps_internal(ek, h["mlkem"])
    assert ML_KEM_768.decaps(dk, ct) == shared
    message2 = noise.ephemeral(x_public(h["ephemeral"]))
    noise.mix_key(dh(h["ephemeral"], x_public(g["ephemeral"])))
    message2 += noise.seal(h["nonce"] + ct + share_b + host.cert(meeting) + padded_name(host.name))
    h2 = noise.h
    psk_3 = kdf(h2, shared + psk_0 + isk, b"psk3")
    # -> s, se, psk
    message3 = noise.seal(x_public(guest.ms))
    noise.mix_key(dh(guest.ms, x_public(h["ephemeral"])))
    noise.mix_key_and_hash(psk_3)
    signature = sign(guest.ik, b"join", h2, meeting)
    message3 += noise.seal(guest.cert(meeting) + padded_name(guest.name) + guest.commitment(meeting) + signature)

    share = 32 if passcode else 0
    assert [len(m) for m in (message1, message2, message3)] == [1249 + share, 1420 + share, 427]

    to_host, to_guest = noise.split()
    session = H(b"session", noise.h)[:8]
    case = {
        "passcode": passcode, "responder": {"slot": slot, "line": line}, "draws": draws, "prologue": prologue,
        "psk0": psk_0,
        "mlkem_ek": ek, "mlkem_ct": ct, "mlkem_shared": shared,
        "message1": message1, "message2": message2, "h2": h2, "cpace_isk": isk, "psk3": psk_3,
        "join_signature": signature, "message3": message3, "h3": noise.h,
        "key_to_host": to_host, "key_to_guest": to_guest, "session": session,
    }
    case["records"] = records(world, Direction(to_host, session), Direction(to_guest, session))
    return case


def records(world, to_host, to_guest):
    """A knock, an admission, a promotion, a removal, and how the guest takes over from the host. Both directions rekey
    with the keys and acknowledgements of three epochs, the last of which go the other way."""
    second, third, fourth = world.epochs[1:4]
    out = []

    def record(direction, name, acknowledged, message=b""):
        out.append({"to": name, "acknowledged": acknowledged, "message": message,
                    "packet": direction.record(acknowledged, message)})
        if message[:1] in (u8(5), u8(8)):
            direction.rekey()

    record(to_guest, "guest", 0, u8(1))
    record(to_host, "host", 1)
    record(to_guest, "guest", 1, world.admitted(1))
    record(to_guest, "guest", 1, u8(4) + items([world.host.entry(world.meeting, 0, 1)]))
    record(to_guest, "guest", 1, second["epoch_keys"]["1"])
    record(to_host, "host", 4, second["acks"]["1"])
    record(to_guest, "guest", 2, u8(6) + u32(2))
    record(to_host, "host", 5, u8(18))
    record(to_guest, "guest", 3, u8(10))
    record(to_host, "host", 6, u8(11) + ed_public(world.cohost))
    record(to_guest, "guest", 4, third["epoch_keys"]["1"])
    record(to_host, "host", 7, third["acks"]["1"])
    record(to_host, "host", 7, fourth["epoch_keys"]["0"])
    record(to_guest, "guest", 6, fourth["acks"]["0"])
    record(to_host, "host", 8, u8(6) + u32(4))
    record(to_guest, "guest", 7, u8(9))
    return out


# ---- §4.7 sessions between members ----

def mesh_handshake(meeting, epoch, number, initiator, responder, messages):
    """Members (index, person) of an epoch, and what the responder and then the initiator say."""
    (i, one), (r, other) = initiator, responder
    draws = {side: made_up(f"mesh {number} {side} ephemeral") for side in ("initiator", "responder")}
    prologue = b"conclave/1 noise kk" + u8(VERSION) + meeting + u16(i) + u16(r)
    psk = expand(epoch["mesh"], b"conclave/1 kk psk" + u16(i) + u16(r))
    noise = Noise(Noise.MESH, prologue, x_public(one.ms), x_public(other.ms))
    # -> psk, e, es, ss
    noise.mix_key_and_hash(psk)
    message1 = noise.ephemeral(x_public(draws["initiator"]))
    noise.mix_key(dh(draws["initiator"], x_public(other.ms)))
    noise.mix_key(dh(one.ms, x_public(other.ms)))
    message1 += noise.seal(b"")
    # <- e, ee, se
    message2 = noise.ephemeral(x_public(draws["responder"]))
    noise.mix_key(dh(draws["responder"], x_public(draws["initiator"])))
    noise.mix_key(dh(draws["responder"], x_public(one.ms)))
    message2 += noise.seal(b"")
    assert len(message1) == len(message2) == 48
    to_responder, to_initiator = noise.split()
    session = H(b"session", noise.h)[:8]
    out = []
    directions = {"responder": Direction(to_responder, session), "initiator": Direction(to_initiator, session)}
    for to, acknowledged, message in messages:
        out.append({"to": to, "acknowledged": acknowledged, "message": message,
                    "packet": directions[to].record(acknowledged, message)})
        if message[:1] in (u8(5), u8(8)):
            directions[to].rekey()
    return {"epoch": epoch["epoch"], "mesh": epoch["mesh"], "draws": draws,
            "initiator": {"index": i, "ms_secret": one.ms, "ms": x_public(one.ms)},
            "responder": {"index": r, "ms_secret": other.ms, "ms": x_public(other.ms)},
            "prologue": prologue, "psk0": psk, "message1": message1, "message2": message2,
            "packet1": u8(8) + u32(epoch["epoch"]) + message1, "packet2": u8(9) + message2, "h": noise.h,
            "key_to_responder": to_responder, "key_to_initiator": to_initiator, "session": session, "records": out}


# ---- §5 what the relay checks ----

def capability(meeting, slot, rk, rights, not_before, not_after, serial, signer, authority):
    body = u8(VERSION) + meeting + u16(slot) + rk + u8(rights) + u64(not_before) + u64(not_after) + u32(serial)
    body += u16(signer)
    signed = body + sign(authority, b"capability", body)
    assert len(signed) == 142
    return signed


def possession(rk_seed, exporter, signed):
    return sign(rk_seed, b"possession", exporter, H(b"cap digest", signed))


def revoked(meeting, seq, signer, slots, authority):
    body = meeting + u32(seq) + u16(signer) + items([u16(s) for s in slots])
    return body + sign(authority, b"revoked", body)


def knock_gate(meeting, seq, signer, token, authority):
    body = meeting + u32(seq) + u16(signer) + H(b"gate token", token)
    return body + sign(authority, b"knock gate", body)


def succession(meeting, seq, delegates, authority):
    """The line of succession. Delegates are (slot, hs, ak)."""
    body = meeting + u32(seq) + items([u16(slot) + hs + ak for slot, hs, ak in delegates])
    return body + sign(authority, b"line sig", body)


def line_hash(line):
    return H(b"line hash", line) if line else bytes(32)


# ---- §7 epochs ----

def merkle_root(leaves):
    if not leaves:
        return H(b"merkle empty")
    if len(leaves) == 1:
        return leaves[0]
    at = merkle_split(len(leaves))
    return H(b"merkle node", merkle_root(leaves[:at]), merkle_root(leaves[at:]))


def merkle_split(n):
    at = 1
    while at * 2 < n:
        at *= 2
    return at


def merkle_open(leaves, position):
    if len(leaves) == 1:
        return []
    at = merkle_split(len(leaves))
    if position < at:
        return merkle_open(leaves[:at], position) + [merkle_root(leaves[at:])]
    return merkle_open(leaves[at:], position - at) + [merkle_root(leaves[:at])]


OPS = {"admit": 1, "remove": 2, "leave": 3, "lost": 4, "rekey": 5, "open_rate": 6, "end": 7, "lock": 8, "unlock": 9,
       "mute_newcomers": 10, "unmute_newcomers": 11, "waiting_room_on": 12, "waiting_room_off": 13, "ask_mute": 14,
       "promote": 15, "demote": 16, "hand_over": 17, "take_over": 18, "deny": 19, "block": 20}
OF_MEMBERS = {"admit", "remove", "leave", "lost", "ask_mute", "promote", "demote", "hand_over", "take_over"}
LOCKED, NEWCOMERS_MUTED, WAITING_ROOM = 1, 2, 4


def ops_bytes(ops):
    """Ops are (name, index, by)."""
    assert all(name in OF_MEMBERS or not index for name, index, _ in ops)
    return items([u8(OPS[name]) + u16(index) + u16(by) for name, index, by in ops])


def witnessed(previous, statement, signature):
    """A statement as members show it to each other (§7.9)."""
    assert len(statement) == 222
    return previous + statement + signature


class World:
    """One meeting from its descriptor to its fifth epoch. Member 1 is made co-host in the third, takes over with the
    fourth, and changes the rate and the settings with the fifth."""

    def __init__(self):
        start = 1_767_225_600_000  # 2026-01-01T00:00:00Z
        self.not_after = start + 3_600_000
        self.authority, self.chain, self.secret = made_up("AK"), made_up("chain", 16), made_up("SECRET", 16)
        self.cohost = made_up("AK of 1")
        self.host = Person("host", "Ada Lovelace", 1, 0, self.not_after)
        self.guests = [Person("guest 1", "Grace", 0, 1, self.not_after),
                       Person("guest 2", "Émilie du Châtelet", 1, 1, self.not_after),
                       Person("guest 3", "Hypatia", 0, 1, self.not_after)]
        self.late = Person("guest 4", "Mary", 0, 1, self.not_after)
        self.d = {"hs": x_public(self.host.ms), "authority": ed_public(self.authority), "not_before": start - 600_000,
                  "not_after": self.not_after, "policy": 1, "frame_ms": 20, "max_members": 50,
                  "nonce": made_up("nonce", 16), "moderator": bytes(32), "regions": []}
        self.meeting = meeting_id(self.d)
        self.start = start
        people = {0: self.host, 1: self.guests[0], 2: self.guests[1], 3: self.guests[2]}
        self.line = succession(self.meeting, 1, [(1, x_public(people[1].ms), ed_public(self.cohost))], self.authority)
        self.t0 = H(b"T0", self.meeting, self.chain)
        alone = {0: (people[0], 1)}
        all_four = {0: (people[0], 1), **{i: (people[i], 2) for i in (1, 2, 3)}}
        both = {i: all_four[i] for i in (0, 1)}
        first = self.epoch(1, self.t0, [("admit", 0, 0)], alone, [0])
        second = self.epoch(2, first["T"], [("admit", i, 0) for i in (1, 2, 3)], all_four, [1, 2, 3])
        # Member 1's commitment did not come in time.
        ops = [("ask_mute", 1, 0), ("promote", 1, 0), ("lock", 0, 0), ("remove", 2, 0), ("leave", 3, 3)]
        third = self.epoch(3, second["T"], ops, both, missing={1}, line=self.line, settings=WAITING_ROOM | LOCKED)
        # A leader who has just begun to lead has nobody's commitment but its own. Nine seconds after the beginning.
        after = {"line": self.line, "term": 1, "leader": 1}
        fourth = self.epoch(4, third["T"], [("take_over", 1, 1)], both, missing={0}, time=start + 9_000,
                            settings=WAITING_ROOM | LOCKED, **after)
        ops = [("unlock", 0, 0), ("mute_newcomers", 0, 1), ("open_rate", 0, 1)]
        fifth = self.epoch(5, fourth["T"], ops, both, rate=1, settings=WAITING_ROOM | NEWCOMERS_MUTED, **after)
        self.epochs = [first, second, third, fourth, fifth]

    def epoch(self, e, previous, ops, roster, admitted=(), missing=(), rate=0, term=0, leader=0, line=b"",
              settings=WAITING_ROOM, time=None):
        meeting, fresh = self.meeting, made_up(f"fresh {e}")
        authority = self.cohost if leader else self.authority
        leaves = [person.leaf(i, joined) for i, (person, joined) in roster.items()]
        commitments = {i: bytes(32) if i in missing else H(b"fresh commit", meeting, self.fresh_value(i, e))
                       for i in roster}
        commit_leaves = [H(b"commit leaf", u16(i), c) for i, c in commitments.items()]
        kc = H(b"kc", meeting, u32(e), fresh)
        time = time or self.start + e * 1000
        statement = (u8(VERSION) + u16(SUITE) + meeting + self.chain + u32(term) + u32(e) + u16(leader)
                     + H(b"ops", ops_bytes(ops)) + merkle_root(leaves) + kc + merkle_root(commit_leaves)
                     + line_hash(line) + u64(time) + u16(self.d["policy"]) + u8(rate) + u8(self.d["frame_ms"])
                     + u8(settings))
        statement_hash = H(b"stmt hash", statement)
        T = H(b"T+", previous, statement_hash)
        signature = sign(authority, b"stmt sig", T)
        entries = [roster[i][0].entry(meeting, i, e) for i in admitted]
        openings = {str(i): merkle_open(commit_leaves, at) for at, i in enumerate(roster)}
        keys = {str(i): u8(5) + previous + statement + signature + ops_bytes(ops) + items(entries) + fresh
                + items(openings[str(i)]) + string(line) for i in roster}
        ES = extract(T, fresh)
        senders = {}
        for i, (person, _) in roster.items():
            ck0 = expand(ES, b"conclave/1 sender" + meeting + u32(e) + u16(i) + ed_public(person.vk))
            ck1 = expand(ck0, b"conclave/1 next segment")
            senders[str(i)] = {"vk": ed_public(person.vk), "CK_0": ck0, "SK_0": expand(ck0, b"conclave/1 segment"),
                               "CK_1": ck1, "SK_1": expand(ck1, b"conclave/1 segment")}
        acks = {}
        for i, (person, _) in roster.items():
            commitment = H(b"fresh commit", meeting, self.fresh_value(i, e + 1))
            body = u32(e) + commitment
            acks[str(i)] = u8(8) + body + sign(person.ik, b"ack", T, body)
        return {
            "epoch": e, "previous": previous, "time": time, "rate": rate, "term": term, "leader": leader,
            "settings": settings, "line": line, "line_hash": line_hash(line),
            "ops": [{"op": name, "index": index, "by": by} for name, index, by in ops], "ops_bytes": ops_bytes(ops),
            "ops_hash": H(b"ops", ops_bytes(ops)),
            "roster": [{"index": i, "leaf": person.leaf(i, joined), "joined": joined,
                        "entry": person.entry(meeting, i, joined)} for i, (person, joined) in roster.items()],
            "roster_root": merkle_root(leaves), "fresh": fresh, "kc": kc,
            "values": {str(i): self.fresh_value(i, e) for i in roster},
            "commitments": {str(i): c for i, c in commitments.items()},
            "commitments_root": merkle_root(commit_leaves), "openings": openings,
            "statement": statement, "statement_hash": statement_hash, "T": T, "signature": signature,
            "epoch_keys": keys, "acks": acks,
            "ES": ES, "ctl": expand(ES, b"conclave/1 ctl"), "mesh": expand(ES, b"conclave/1 mesh"),
            "senders": senders,
        }

    def fresh_value(self, index, epoch):
        """A member's r for an epoch; for the epoch of its join the one that message 3 commits to."""
        person = [self.host, *self.guests][index]
        joined = 1 if index == 0 else 2
        return person.fresh if epoch == joined else made_up(f"r of {index} for {epoch}")

    def admitted(self, index):
        cap = capability(self.meeting, index, ed_public(self.guests[index - 1].rk), 1, self.start, self.start + 110_000,
                         1, 0, self.authority)
        return u8(3) + u16(index) + cap


# ---- §7.7 messages to all ----

class Broadcaster:
    """Seals one member's messages to all in one epoch, in order."""

    def __init__(self, world, epoch, index):
        self.meeting, self.epoch, self.index, self.counter = world.meeting, epoch, index, 0
        self.key = expand(epoch["ctl"], b"conclave/1 broadcast" + u16(index))

    def place(self):
        return self.meeting + u32(self.epoch["epoch"]) + u16(self.index) + u32(self.counter)

    def seal(self, what, message, **inputs):
        head = u8(6) + u32(self.epoch["epoch"]) + u32(self.counter)
        nonce, aad = bytes(8) + u32(self.counter), head + u16(self.index)
        packet = head + ChaCha20Poly1305(self.key).encrypt(nonce, message, aad)
        sealed = {"what": what, "epoch": self.epoch["epoch"], "sender": self.index, "counter": self.counter, **inputs,
                  "key": self.key, "nonce": nonce, "aad": aad, "message": message, "packet": packet}
        self.counter += 1
        return sealed


def heartbeat(epoch, n, previous, time, unconfirmed, authority):
    """The heartbeat and its hash."""
    body = u32(epoch["term"]) + u32(epoch["epoch"]) + u32(n) + epoch["T"] + previous + u64(time)
    body += items([u16(i) for i in unconfirmed])
    return body + sign(authority, b"heartbeat sig", body), H(b"heartbeat hash", body)


def confirm(epoch, index, n, value, ik):
    body = u32(epoch["term"]) + u32(epoch["epoch"]) + u32(n) + u8(value is not None) + (value or bytes(32))
    signed = body + sign(ik, b"confirm", epoch["T"], u16(index), body)
    assert len(signed) == 109
    return signed


def chat(place, text, vk):
    return u8(1) + string(text.encode()) + sign(vk, b"chat", place, text.encode())


def hand(place, on, vk):
    return u8(2) + u8(on) + sign(vk, b"hand", place, u8(on))


def recording(place, on, vk):
    return u8(3) + u8(on) + sign(vk, b"recording", place, u8(on))


def broadcasts(world):
    second, third, fourth = world.epochs[1:4]
    people = dict(enumerate([world.host, *world.guests]))
    out, beats = [], []

    def beat(by, epoch, n, previous, time, unconfirmed, authority):
        signed, digest = heartbeat(epoch, n, previous, time, unconfirmed, authority)
        beats.append(digest)
        out.append(by.seal("heartbeat", u8(1) + signed, term=epoch["term"], n=n, previous=previous, time=time,
                           unconfirmed=unconfirmed, hash=digest))

    def confirmed(by, epoch, n, is_shown=True):
        value = world.fresh_value(by.index, epoch["epoch"]) if is_shown else None
        signed = confirm(epoch, by.index, n, value, people[by.index].ik)
        out.append(by.seal("confirm", u8(2) + signed, term=epoch["term"], n=n, value=value))
        return u16(by.index) + signed

    zero, one, two, three = (Broadcaster(world, second, i) for i in range(4))
    passed = [confirmed(one, second, 0)]
    beat(zero, second, 1, bytes(32), world.start + 2_100, [0, 2, 3], world.authority)
    passed += [confirmed(two, second, 1), confirmed(three, second, 1)]
    passed.insert(0, confirmed(zero, second, 1))
    out.append(zero.seal("passed", u8(3) + items(passed)))
    text = "Grüße: is everybody here?"
    out.append(two.seal("chat", u8(4) + chat(two.place(), text, people[2].vk), text=text, place=two.place()))
    out.append(two.seal("hand", u8(4) + hand(two.place(), 1, people[2].vk), on=True, place=two.place()))
    out.append(zero.seal("hand", u8(4) + hand(zero.place(), 0, people[0].vk), on=False, place=zero.place()))
    for on in (1, 0):
        message = u8(4) + recording(two.place(), on, people[2].vk)
        out.append(two.seal("recording", message, on=bool(on), place=two.place()))
    zero, one = (Broadcaster(world, third, i) for i in range(2))
    beat(zero, third, 2, beats[0], world.start + 4_100, [], world.authority)
    confirmed(one, third, 2, is_shown=False)
    # §10.5: member 3 left with the third epoch.
    out.append(zero.seal("published", u8(6) + u16(3) + people[3].vk, of=3, seed=people[3].vk))
    one = Broadcaster(world, fourth, 1)
    confirmed(one, fourth, 0)
    beat(one, fourth, 1, bytes(32), world.start + 9_000, [0], world.cohost)
    return out


# ---- §10.1 moderators ----

def moderators():
    """Two of them. The halves of X-Wing keys are made up: nothing is sealed to them here."""
    people = [("Trust and Safety", "moderator 1"), ("Betriebsrat Köln", "moderator 2")]
    return [{"name": name, "signing_seed": made_up(f"{tag} Ed25519"), "sealing": made_up(f"{tag} X-Wing", 1216)}
            for name, tag in people]


def moderator(m):
    return padded_name(m["name"]) + ed_public(m["signing_seed"]) + m["sealing"]


def moderator_vectors():
    named = moderators()
    lists = [{"count": n, "digest": H(b"moderators", items([moderator(m) for m in named[:n]])) if n else bytes(32)}
             for n in range(3)]
    return {"moderators": [{**m, "bytes": moderator(m), "id": H(b"moderator id", ed_public(m["signing_seed"]),
                                                               m["sealing"])[:8]} for m in named], "lists": lists}


# ---- §7.9 witnesses ----

def witness_vectors(world):
    key = expand(psk0(world.meeting, world.secret), b"conclave/1 witness" + world.chain)
    shown = []
    for epoch in world.epochs[1:4]:
        nonce = made_up(f"witness nonce {epoch['epoch']}", 12)
        message = witnessed(epoch["previous"], epoch["statement"], epoch["signature"])
        packet = u8(7) + nonce + ChaCha20Poly1305(key).encrypt(nonce, message, u8(7))
        shown.append({"epoch": epoch["epoch"], "leader": epoch["leader"], "nonce": nonce, "message": message,
                      "packet": packet})
    # What the host would have told another member instead of the third epoch.
    second, third = world.epochs[1:3]
    people = {0: (world.host, 1), **{i: (world.guests[i - 1], 2) for i in (1, 2, 3)}}
    other = world.epoch(3, second["T"], [("rekey", 0, 0)], people)
    one, two = (witnessed(e["previous"], e["statement"], e["signature"]) for e in (third, other))
    proof = string(descriptor(world.d)) + string(world.line) + one + two
    # Which of 40 members show their statement at heartbeat 7 of the third epoch.
    turns = [i for i in range(40)
             if int.from_bytes(H(b"witness", third["T"], u32(7), u16(i))[:8], "big") * 40 >> 64 < 16]
    return {"key": key, "shown": shown, "proof": proof,
            "turns": {"T": third["T"], "n": 7, "members": 40, "shows": turns}}


# ---- §8 media ----

def frames(world, epoch, index, frame_ms, wanted):
    """Seals frames in order from CK_0 and shows those that are wanted."""
    e, ck, segment = epoch["epoch"], epoch["senders"][str(index)]["CK_0"], 0
    per_segment = 25 if frame_ms == 20 else 50
    shown = []
    for n in range(max(wanted) + 1):
        if n and n % per_segment == 0:
            ck, segment = expand(ck, b"conclave/1 next segment"), segment + 1
        number = n % per_segment
        opus = b"" if n == 1 else made_up(f"opus {n}", 120 if frame_ms == 20 else 60)
        seq, stamp, muted, level = 1000 + n, 0xFFFFFFF0 + n & 0xFFFFFFFF, int(n == 1), 127 if n == 1 else 20 + n
        if n not in wanted:
            continue
        plaintext = u32(seq) + u32(stamp) + u8(muted) + u8(level) + u16(len(opus)) + opus
        plaintext += bytes(132 - len(plaintext))
        kid, ctr = 1 << 63 | index << 40 | e << 16 | segment, 0x80 + number
        header = u8(0xF8) + u64(kid) + u8(ctr)
        sk = expand(ck, b"conclave/1 segment")
        secret = extract(b"", sk)
        key = expand(secret, b"SFrame 1.0 Secret key " + u64(kid) + u16(SUITE), 32)
        salt = expand(secret, b"SFrame 1.0 Secret salt " + u64(kid) + u16(SUITE), 12)
        nonce = (int.from_bytes(salt, "big") ^ ctr).to_bytes(12, "big")
        aad = header + world.meeting + u16(index)
        ciphertext = ChaCha20Poly1305(key).encrypt(nonce, plaintext, aad)
        datagram = u8(1) + u16(index) + header + ciphertext
        assert len(datagram) == 161
        shown.append({"n": n, "seq": seq, "stamp": stamp, "muted": bool(muted), "level": level, "opus": opus,
                      "segment": segment, "number": number, "SK": sk, "kid": u64(kid), "ctr": ctr, "header": header,
                      "sframe_key": key, "sframe_salt": salt, "nonce": nonce, "aad": aad, "plaintext": plaintext,
                      "ciphertext": ciphertext, "datagram": datagram})
    return {"epoch": e, "index": index, "frame_ms": frame_ms, "CK_0": epoch["senders"][str(index)]["CK_0"],
            "frames": shown}


# ---- §9 seals ----

def seal_root(epoch, kid, sk, hashes, prev):
    commit = H(b"commits to segment", sk)
    root = H(b"seal root", epoch["T"], u64(kid), u8(len(hashes)), commit, b"".join(hashes), prev)
    return commit, root


def seal(world, epoch, vk, sender_frames, prev, per_segment):
    """The seal of frames of one segment, and its parts."""
    first = sender_frames[0]
    kid, sk = int.from_bytes(first["kid"], "big"), first["SK"]
    hashes = [H(b"frame hash", f["header"] + f["ciphertext"])[:16] for f in sender_frames]
    commit, root = seal_root(epoch, kid, sk, hashes, prev)
    head = u64(kid) + root + sign(vk, b"seal sig", world.meeting, u64(kid), root)
    public = u64(kid) + u8(len(hashes)) + root
    body = commit + b"".join(hashes) + bytes(16 * (per_segment - len(hashes))) + prev + head[40:]
    key, aad = expand(sk, b"conclave/1 seal key"), public + world.meeting
    whole = public + ChaCha20Poly1305(key).encrypt(bytes(12), body, aad)
    assert len(whole) == (585 if per_segment == 25 else 985) and len(head) == 104
    opened = public + commit + b"".join(hashes) + prev + head[40:]
    return {"epoch": epoch["epoch"], "T": epoch["T"], "per_segment": per_segment, "SK": sk, "kid": u64(kid),
            "segment": first["segment"], "frames": [f["datagram"] for f in sender_frames], "hashes": hashes,
            "commit": commit, "prev": prev, "root": root, "head": head, "public": public, "key": key, "aad": aad,
            "body": body, "seal": whole}, opened


def stamp(world, slot, rk, minute, key, public):
    return H(b"key of stamps", key)[:8] + u32(minute) + mac(key, b"conclave/1 stamp", world.meeting, u16(slot), rk,
                                                            u32(minute), public)[:16]


def seal_vectors(world):
    second, third = world.epochs[1:3]
    people = [world.host, *world.guests]
    talker = frames(world, second, 1, 20, range(57))["frames"]
    senders = []
    # Full, full, ended early; of one sender, each following the one before.
    prev, seals, opened = bytes(32), [], []
    for part in (talker[:25], talker[25:50], talker[50:57]):
        made, body = seal(world, second, people[1].vk, part, prev, 25)
        prev = made["root"]
        seals.append(made)
        opened.append(body)
    senders.append({"index": 1, "frame_ms": 20, "vk_seed": people[1].vk, "seals": seals})
    ten = frames(world, third, 0, 10, range(50))["frames"]
    made, _ = seal(world, third, people[0].vk, ten, bytes(32), 50)
    senders.append({"index": 0, "frame_ms": 10, "vk_seed": people[0].vk, "seals": [made]})
    # The same segments said otherwise: two roots of segment 0, and a segment 1 that follows the other one.
    other, _ = seal(world, second, people[1].vk, talker[:24], bytes(32), 25)
    _, broken = seal(world, second, people[1].vk, talker[25:50], other["root"], 25)
    stamp_key = made_up("stamp key")
    stamps = [{"slot": sender["index"], "rk": ed_public(people[sender["index"]].rk), "minute": 29_454_000 + n,
               "public": made["public"],
               "stamp": stamp(world, sender["index"], ed_public(people[sender["index"]].rk), 29_454_000 + n, stamp_key,
                              made["public"])}
              for sender in senders for n, made in enumerate(sender["seals"])]
    return {"meeting_id": world.meeting, "senders": senders,
            "heads_message": u8(5) + items([made["head"] for made in seals]),
            "stamp_key": stamp_key, "stamps": stamps,
            "contradictions": [u8(1) + seals[0]["head"] + other["head"],
                               u8(2) + seals[0]["head"] + second["T"] + broken]}


def removal_notice(meeting, epoch, removed, authority):
    body = meeting + u32(epoch) + items([u16(i) for i in removed])
    return body + sign(authority, b"removal notice", body)


# ---- the files ----

def write(name, source, content):
    def plain(value):
        if isinstance(value, bytes):
            return value.hex()
        if isinstance(value, dict):
            return {k: plain(v) for k, v in value.items()}
        return [plain(v) for v in value] if isinstance(value, (list, tuple)) else value

    head = {"specification": "docs/protocol.md " + source, "source": "tests/vectors/generate.py"}
    text = json.dumps({**head, **plain(content)}, indent=1, ensure_ascii=False)
    (HERE / name).write_text(text + "\n", encoding="utf-8")


def link_vectors(world):
    other = {**world.d, "policy": 7, "frame_ms": 10, "max_members": 1000, "moderator": made_up("moderator"),
             "regions": ["eu", "eu-central-1"], "nonce": made_up("other nonce", 16)}
    pin = made_up("pin")
    cases = []
    for d, relays, pins in ((world.d, ["relay.example:4433"], [b""]),
                            (other, ["relay.example:443", "[2001:db8::1]:4433", "192.0.2.7:8443"], [b"", pin, b""])):
        meeting = meeting_id(d)
        cases.append({"fields": d, "descriptor": descriptor(d), "meeting_id": meeting, "secret": world.secret,
                      "link": link_text(relays, pins, meeting, world.secret), "pins": pins,
                      "psk0": psk0(meeting, world.secret), "knock_token": knock_token(meeting, world.secret)})
    a, b = ed_public(world.host.ik), ed_public(world.guests[0].ik)
    c = ed_public(world.guests[1].ik)
    numbers = [{"ik": [x, y], "safety_number": safety_number(x, y)} for x, y in ((a, b), (b, a), (a, c))]
    people = [world.host, *world.guests]
    certs = [{**p.inputs(), "ik": ed_public(p.ik), "keys": p.keys(), "cert": p.cert(world.meeting),
              "commitment": p.commitment(world.meeting), "name_hash": H(b"name", p.name.encode())} for p in people]
    return {"links": cases, "safety_numbers": numbers, "meeting_id": world.meeting, "people": certs,
            **moderator_vectors()}


def capability_vectors(world):
    exporter, host, guest = made_up("exporter"), world.host, world.guests[0]
    cases = []
    by_host, by_cohost = (0, world.authority), (1, world.cohost)
    signed_by = [(0, host.rk, 3, 1, by_host), (1, guest.rk, 1, 7, by_host), (1, guest.rk, 3, 8, by_cohost),
                 (3, world.guests[2].rk, 1, 7, by_cohost)]
    for slot, rk, rights, serial, (signer, authority) in signed_by:
        signed = capability(world.meeting, slot, ed_public(rk), rights, world.start, world.start + 110_000, serial,
                            signer, authority)
        cases.append({"slot": slot, "rk_seed": rk, "rights": rights, "not_before": world.start,
                      "not_after": world.start + 110_000, "serial": serial, "signer": signer, "capability": signed,
                      "digest": H(b"cap digest", signed), "possession": possession(rk, exporter, signed)})
    token = knock_token(world.meeting, world.secret)
    people = {1: (x_public(guest.ms), ed_public(world.cohost)),
              3: (x_public(world.guests[2].ms), ed_public(made_up("AK of 3")))}
    lines = []
    for seq, slots in ((1, [1]), (2, [3, 1]), (3, [])):
        line = succession(world.meeting, seq, [(slot, *people[slot]) for slot in slots], world.authority)
        delegates = [{"slot": slot, "hs": people[slot][0], "ak": people[slot][1]} for slot in slots]
        lines.append({"seq": seq, "delegates": delegates, "line": line, "hash": line_hash(line)})
    assert lines[0]["line"] == world.line
    revocations, gates = [], []
    for seq, slots, (signer, authority) in ((2, [2, 3], by_host), (3, [], by_host), (3, [2, 4], by_cohost)):
        revocations.append({"seq": seq, "signer": signer, "slots": slots,
                            "bytes": revoked(world.meeting, seq, signer, slots, authority)})
    for seq, (signer, authority) in ((1, by_host), (1, by_cohost)):
        gates.append({"seq": seq, "signer": signer, "token": token, "token_hash": H(b"gate token", token),
                      "bytes": knock_gate(world.meeting, seq, signer, token, authority)})
    return {"meeting_id": world.meeting, "authority_seeds": {"0": world.authority, "1": world.cohost},
            "exporter": exporter, "lines": lines, "capabilities": cases, "revoked": revocations, "knock_gates": gates}


def statement_vectors(world):
    keys = {"ES", "ctl", "mesh", "senders"}
    epochs = [{k: v for k, v in e.items() if k not in keys} for e in world.epochs]
    all_ops = [(name, 7 if name in OF_MEMBERS else 0, 7 if name == "leave" else 1) for name in OPS]
    return {"meeting_id": world.meeting, "authority_seeds": {"0": world.authority, "1": world.cohost},
            "chain": world.chain, "policy": world.d["policy"], "frame_ms": world.d["frame_ms"], "T_0": world.t0,
            "epochs": epochs,
            "all_ops": {"ops": [{"op": name, "index": index, "by": by} for name, index, by in all_ops],
                        "bytes": ops_bytes(all_ops), "hash": H(b"ops", ops_bytes(all_ops))},
            "merkle": [{"leaves": leaves, "root": merkle_root(leaves)}
                       for leaves in ([made_up(f"leaf {i}") for i in range(n)] for n in (0, 1, 2, 3, 6, 7))],
            "removal_notices": [{"epoch": 3, "removed": removed, "leader": leader,
                                 "bytes": removal_notice(world.meeting, 3, removed, authority)}
                                for leader, removed, authority in ((0, [2], world.authority),
                                                                   (1, [2, 3], world.cohost))]}


def mesh_vectors(world):
    host, guests = world.host, world.guests
    third, fourth = world.epochs[2:4]
    # The host reaches a co-host, who takes over from it.
    taken_over = [("initiator", 0, fourth["epoch_keys"]["0"]), ("responder", 1, fourth["acks"]["0"]),
                  ("initiator", 1, u8(6) + u32(4)), ("responder", 2, b"")]
    cases = [mesh_handshake(world.meeting, third, 0, (0, host), (1, guests[0]), taken_over),
             mesh_handshake(world.meeting, world.epochs[1], 1, (1, guests[0]), (3, guests[2]),
                            [("responder", 0, u8(6) + u32(2)), ("initiator", 1, b"")])]
    return {"meeting_id": world.meeting, "cases": cases}


def broadcast_vectors(world):
    ctl = {str(e["epoch"]): e["ctl"] for e in world.epochs[1:4]}
    chains = {str(e["epoch"]): e["T"] for e in world.epochs[1:4]}
    people = {str(i): {"ik_seed": p.ik, "vk_seed": p.vk} for i, p in enumerate([world.host, *world.guests])}
    return {"meeting_id": world.meeting, "authority_seeds": {"0": world.authority, "1": world.cohost},
            "people": people, "ctl": ctl, "T": chains, "messages": broadcasts(world),
            "witness": {"secret": world.secret, "chain": world.chain, **witness_vectors(world)}}


def schedule_vectors(world):
    wanted = ("epoch", "previous", "statement_hash", "T", "fresh", "kc", "ES", "ctl", "mesh", "senders")
    return {"meeting_id": world.meeting, "chain": world.chain, "T_0": world.t0,
            "epochs": [{k: e[k] for k in wanted} for e in world.epochs]}


def security_code(t, values):
    """Words and digits (§3.7) of T_e and {index: r}."""
    prk = extract(t, b"".join(u16(i) + r for i, r in sorted(values.items())))
    out = expand(prk, b"conclave/1 security code", 36)
    words = (HERE / "../../protocol/src/words.txt").read_text(encoding="ascii").split("\n")
    number = int.from_bytes(out[:6], "big") >> 4
    groups = (int.from_bytes(out[at:at + 5], "big") % 100_000 for at in range(6, 36, 5))
    return (" ".join(words[number >> shift & 0x7FF] for shift in (33, 22, 11, 0)),
            " ".join(f"{group:05}" for group in groups))


def code_vectors(world):
    cases = []
    second = world.epochs[1]
    made = [{i: made_up(f"r of {i} in epoch {e}") for i in indices} for e, indices in ((1, (0,)), (3, (0, 300, 0xFFFE)))]
    # The one in the middle is that of the meeting of the vectors in its second epoch.
    shown = {int(i): r for i, r in second["values"].items()}
    for e, values in ((world.epochs[0], made[0]), (second, shown), (world.epochs[2], made[1])):
        words, digits = security_code(e["T"], values)
        cases.append({"T": e["T"], "values": [{"index": i, "r": r} for i, r in values.items()], "words": words,
                      "digits": digits})
    return {"codes": cases}


def handshake_vectors(world):
    guest, host = world.guests[0], world.host
    case = handshake(world, guest, host, None)
    asking = World()
    asking.d = {**asking.d, "policy": 3}
    asking.meeting = meeting_id(asking.d)
    # The records' content is that of the meeting above: a session does not look into it.
    with_passcode = handshake(asking, asking.guests[0], asking.host, "correct horse 7")
    # Another guest joins where a co-host leads.
    with_cohost = handshake(world, world.late, guest, None, 1, world.line, ed_public(world.cohost))
    out = []
    for w, c, h, g in ((world, case, host, guest), (asking, with_passcode, asking.host, asking.guests[0]),
                       (world, with_cohost, guest, world.late)):
        out.append({"descriptor": descriptor(w.d), "meeting_id": w.meeting, "secret": w.secret,
                    "link": link_text(["relay.example:4433"], [b""], w.meeting, w.secret), "now": w.start,
                    "host": h.inputs(), "guest": g.inputs(), **c})
    return {"cases": out}


KNOCK, MEMBER, NOBODY = u8(1) + u32(0x01020304), u8(2) + u32(2), u8(0) + u32(0)
# What each verb may concern (§6.4).
REQUESTS = {1: [KNOCK], 2: [KNOCK], 3: [KNOCK, MEMBER], 4: [MEMBER], **{verb: [NOBODY] for verb in range(5, 11)},
            11: [MEMBER], 12: [NOBODY]}


def control_vectors(world):
    meeting = world.meeting
    cap = capability(meeting, 1, ed_public(world.guests[0].rk), 1, world.start, world.start + 110_000, 1, 0,
                     world.authority)
    proof = possession(world.guests[0].rk, made_up("exporter"), cap)
    revocation = revoked(meeting, 2, 0, [2, 3], world.authority)
    token = knock_token(meeting, world.secret)
    gate = knock_gate(meeting, 1, 0, token, world.authority)
    d, body = descriptor(world.d), b"opaque"
    to_relay = {
        "hello_of_guest": u8(1) + u8(VERSION) + meeting + 3 * string(b""),
        "hello_of_member": u8(1) + u8(VERSION) + meeting + string(d) + string(revocation) + string(world.line),
        "open_mailbox": u8(2) + token,
        "mail": u8(3) + string(body),
        "mail_to": u8(4) + u32(0x01020304) + string(body),
        "close_mailbox": u8(5) + u32(0x01020304),
        "attach": u8(6) + cap + proof,
        "send": u8(7) + u16(0xFFFF) + string(body),
        "revoke": u8(8) + revocation,
        "gate": u8(9) + gate,
        "line": u8(10) + world.line,
    }
    from_relay = {
        "welcome": u8(1) + u8(VERSION) + u64(world.start) + string(b"eu") + u8(0) + string(b""),
        "meeting": u8(2) + string(d) + string(b"") + u16(0),
        "meeting_of_cohost": u8(2) + string(d) + string(world.line) + u16(1),
        "mailbox_open": u8(3),
        "mail": u8(4) + string(body),
        "mail_from": u8(5) + u32(0x01020304) + string(body),
        "mailbox_gone": u8(6) + u32(0x01020304),
        "attached": u8(7) + u16(1),
        "deliver": u8(8) + u16(1) + string(body),
        "presence_here": u8(9) + u16(1) + u8(1),
        "presence_gone": u8(9) + u16(1) + u8(0),
        "revoked": u8(10) + revocation,
        "refused": [u8(11) + u8(reason) for reason in range(1, 10)],
        "detached": [u8(12) + u8(reason) for reason in range(1, 10)],
        "closing": u8(13),
    }
    entries = [world.host.entry(meeting, 0, 1), world.guests[1].entry(meeting, 2, 2)]
    session = {
        "waiting": u8(1),
        "denied": [u8(2) + u8(reason) for reason in range(1, 6)],
        "admitted": u8(3) + u16(1) + cap,
        "roster": u8(4) + items(entries),
        "epoch_key": world.epochs[1]["epoch_keys"]["2"],
        "activate": u8(6) + u32(2),
        "renew": u8(7) + cap,
        "epoch_ack": world.epochs[1]["acks"]["2"],
        "leave": u8(9),
        "offer": u8(10),
        "accept": u8(11) + ed_public(world.cohost),
        "ledger": u8(12) + items([ed_public(made_up(f"IK {past}")) + u8(past) for past in (1, 2, 3)]),
        "knock": u8(13) + u32(5) + ed_public(world.late.ik) + u8(0) + padded_name(world.late.name),
        "knock_gone": u8(14) + u32(5),
        # Of knocks, members and nobody, as the verb may concern.
        "request": [u8(15) + u32(verb) + u8(verb) + whom for verb in range(1, 13) for whom in REQUESTS[verb]],
        "refused": [u8(16) + u32(7) + u8(why) for why in range(14)],
        "missed": u8(17) + items([u16(m["sender"]) + u32(m["epoch"]) + u32(m["counter"]) + m["message"][1:]
                                  for m in broadcasts(world) if m["what"] in ("chat", "hand", "recording")]),
        "back": u8(18),
        "moderators": u8(19) + items([moderator(m) for m in moderators()]),
        "last_key": u8(20) + u16(3) + world.guests[2].vk,
    }
    return {"meeting_id": meeting, "to_relay": to_relay, "from_relay": from_relay, "session": session}


def main():
    check_cpace()
    world = World()
    write("link.json", "§3", link_vectors(world))
    write("handshake.json", "§4", handshake_vectors(world))
    write("capability.json", "§5", capability_vectors(world))
    write("control.json", "§6", control_vectors(world))
    write("statement.json", "§7.1, §7.2", statement_vectors(world))
    write("mesh.json", "§4.7", mesh_vectors(world))
    write("broadcast.json", "§7.7, §7.9", broadcast_vectors(world))
    write("security-code.json", "§3.7", code_vectors(world))
    write("key-schedule.json", "§7.3", schedule_vectors(world))
    write("frame.json", "§8", {"meeting_id": world.meeting, "senders": [
        frames(world, world.epochs[1], 1, 20, (0, 1, 24, 25, 50)), frames(world, world.epochs[1], 0, 20, (0, 99)),
        frames(world, world.epochs[2], 0, 10, (0, 49, 50))]})
    write("seal.json", "§9", seal_vectors(world))


if __name__ == "__main__":
    main()

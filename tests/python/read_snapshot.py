#!/usr/bin/env python3
"""A second reader of snapshots, made from store/SPEC.md, section 6, with nothing but the standard library.

    read_snapshot.py FILE [--pin HEX] [--snapshot-key HEX]

Verifies a snapshot without a key and, given the snapshot key, opens it. Prints one JSON object. A refusal is one line
`error: NAME` on standard error, with the names of the specification, and exit status 1.
"""

import argparse
import hashlib
import hmac
import json
import sys

CHUNK, TAG, TRAILER, WRAPPED = 65536, 16, 120, 1168
MAX_HEADER, MAX_DOCUMENT, MAX_RECIPIENTS, MAX_RECORD = 4 << 20, 1049600, 80, 65536


class Refused(Exception):
    """The name of the error."""


def check(holds, name):
    if not holds:
        raise Refused(name)


def sha256(*parts):
    return hashlib.sha256(b"".join(parts)).digest()


def part(data):
    return len(data).to_bytes(4, "big") + data


# --- Ed25519, verification only (RFC 8032, section 5.1)

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, P) % P
SQRT_M1 = pow(2, (P - 1) // 4, P)


def point_add(a, b):
    x1, y1, z1, t1 = a
    x2, y2, z2, t2 = b
    e, f = (y1 - x1) * (y2 - x2) % P, (y1 + x1) * (y2 + x2) % P
    g, h = 2 * t1 * t2 * D % P, 2 * z1 * z2 % P
    e, f, g, h = f - e, h - g, h + g, f + e
    return e * f % P, g * h % P, f * g % P, e * h % P


def point_mul(scalar, point):
    out = (0, 1, 1, 0)
    while scalar:
        if scalar & 1:
            out = point_add(out, point)
        point, scalar = point_add(point, point), scalar >> 1
    return out


def point_decode(data):
    y = int.from_bytes(data, "little")
    sign, y = y >> 255, y & (2**255 - 1)
    if y >= P:
        return None
    x2 = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(x2, (P + 3) // 8, P)
    if (x * x - x2) % P:
        x = x * SQRT_M1 % P
    if (x * x - x2) % P or (x == 0 and sign):
        return None
    if x & 1 != sign:
        x = P - x
    return x, y, 1, x * y % P


BASE = point_decode((4 * pow(5, -1, P) % P).to_bytes(32, "little"))


def verify_signature(public, label, message, signature):
    message = part(label) + message
    a, r = point_decode(public), point_decode(signature[:32])
    s = int.from_bytes(signature[32:], "little")
    if a is None or r is None or s >= L:
        return False
    k = int.from_bytes(hashlib.sha512(signature[:32] + public + message).digest(), "little") % L
    x1, y1, z1, _ = point_mul(s, BASE)
    x2, y2, z2, _ = point_add(r, point_mul(k, a))
    return (x1 * z2 - x2 * z1) % P == 0 and (y1 * z2 - y2 * z1) % P == 0


# --- AES-256 and AES-256-GCM-SIV (FIPS 197, RFC 8452)


def make_tables():
    alog, value = [], 1
    for _ in range(255):
        alog.append(value)
        value ^= value << 1 ^ (0x11B if value & 0x80 else 0)
    log = {value: at for at, value in enumerate(alog)}
    sbox = []
    for at in range(256):
        b = alog[-log[at] % 255] if at else 0
        b |= b << 8
        sbox.append((b ^ b >> 4 ^ b >> 5 ^ b >> 6 ^ b >> 7 ^ 0x63) & 0xFF)
    double = [(b << 1 ^ (0x11B if b & 0x80 else 0)) for b in sbox]
    first = [d << 24 | s << 16 | s << 8 | d ^ s for d, s in zip(double, sbox)]
    turn = lambda table: [w >> 8 | (w & 0xFF) << 24 for w in table]
    second = turn(first)
    third = turn(second)
    return sbox, first, second, third, turn(third)


SBOX, T0, T1, T2, T3 = make_tables()


def expand_key(key):
    words = [int.from_bytes(key[at : at + 4], "big") for at in range(0, 32, 4)]
    sub = lambda w: SBOX[w >> 24] << 24 | SBOX[w >> 16 & 255] << 16 | SBOX[w >> 8 & 255] << 8 | SBOX[w & 255]
    for at in range(8, 60):
        word = words[-1]
        if at % 8 == 0:
            word = sub((word << 8 | word >> 24) & 0xFFFFFFFF) ^ 1 << 23 + at // 8
        elif at % 8 == 4:
            word = sub(word)
        words.append(words[-8] ^ word)
    return words


def encrypt_block(words, block):
    s = [int.from_bytes(block[at : at + 4], "big") ^ words[at // 4] for at in range(0, 16, 4)]
    a, b, c, d = s
    for at in range(4, 56, 4):
        a, b, c, d = (
            T0[a >> 24] ^ T1[b >> 16 & 255] ^ T2[c >> 8 & 255] ^ T3[d & 255] ^ words[at],
            T0[b >> 24] ^ T1[c >> 16 & 255] ^ T2[d >> 8 & 255] ^ T3[a & 255] ^ words[at + 1],
            T0[c >> 24] ^ T1[d >> 16 & 255] ^ T2[a >> 8 & 255] ^ T3[b & 255] ^ words[at + 2],
            T0[d >> 24] ^ T1[a >> 16 & 255] ^ T2[b >> 8 & 255] ^ T3[c & 255] ^ words[at + 3],
        )
    out = b""
    for at, (w, x, y, z) in enumerate([(a, b, c, d), (b, c, d, a), (c, d, a, b), (d, a, b, c)]):
        word = SBOX[w >> 24] << 24 | SBOX[x >> 16 & 255] << 16 | SBOX[y >> 8 & 255] << 8 | SBOX[z & 255]
        out += (word ^ words[56 + at]).to_bytes(4, "big")
    return out


POLY = 1 << 128 | 1 << 127 | 1 << 126 | 1 << 121 | 1


def polyval(key, data):
    value = int.from_bytes(key, "little")
    for _ in range(128):  # times x^-128
        value = (value ^ POLY if value & 1 else value) >> 1
    tables = []
    for _ in range(16):
        table = [0]
        for _ in range(8):
            table += [value ^ other for other in table]
            value <<= 1
            value = value ^ POLY if value >> 128 else value
        tables.append(table)
    out = 0
    for at in range(0, len(data), 16):
        out ^= int.from_bytes(data[at : at + 16], "little")
        block, out = out.to_bytes(16, "little"), 0
        for table, byte in zip(tables, block):
            out ^= table[byte]
    return out.to_bytes(16, "little")


def gcm_siv_open(key, nonce, aad, sealed):
    words = expand_key(key)
    made = b"".join(encrypt_block(words, at.to_bytes(4, "little") + nonce)[:8] for at in range(6))
    words = expand_key(made[16:])
    sealed, tag = sealed[:-TAG], sealed[-TAG:]
    counter, tail = int.from_bytes(tag[:4], "little"), tag[4:15] + bytes([tag[15] | 0x80])
    stream = b"".join(
        encrypt_block(words, ((counter + at) & 0xFFFFFFFF).to_bytes(4, "little") + tail)
        for at in range((len(sealed) + 15) // 16)
    )[: len(sealed)]
    plain = (int.from_bytes(sealed, "big") ^ int.from_bytes(stream, "big")).to_bytes(len(sealed), "big")
    padded = lambda data: data + bytes(-len(data) % 16)
    lengths = (8 * len(aad)).to_bytes(8, "little") + (8 * len(plain)).to_bytes(8, "little")
    sum_ = polyval(made[:16], padded(aad) + padded(plain) + lengths)
    sum_ = bytes(one ^ other for one, other in zip(sum_, nonce + bytes(4)))
    expected = encrypt_block(words, sum_[:15] + bytes([sum_[15] & 0x7F]))
    return plain if hmac.compare_digest(expected, tag) else None


# --- Documents (SPEC keyfile, section 5)


class Bytes:
    """What has not been read yet."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, length):
        check(length <= len(self.data) - self.at, "Decode")
        self.at += length
        return self.data[self.at - length : self.at]

    def number(self, length):
        return int.from_bytes(self.take(length), "big")

    def part(self, limit):
        length = self.number(4)
        check(length <= limit, "Decode")
        return self.take(length)

    def end(self):
        check(self.at == len(self.data), "Decode")


def cbor(data):
    kind, value = divmod(data.number(1), 32)
    if kind == 7:
        return {20: False, 21: True, 22: None}[value]
    if value >= 24:
        value = data.number(1 << value - 24)
    if kind == 0:
        return value
    if kind in (2, 3):
        taken = data.take(value)
        return taken.decode() if kind == 3 else taken
    if kind == 4:
        return [cbor(data) for _ in range(value)]
    check(kind == 5, "Document")
    return {cbor(data): cbor(data) for _ in range(value)}


def document(data, kind):
    """The body, and the public keys whose signatures verify."""
    try:
        return signed_document(data, kind)
    except (Refused, KeyError, UnicodeDecodeError, OverflowError) as refused:
        raise Refused("Document") from refused


def signed_document(data, kind):
    read = Bytes(data)
    check(read.take(6) == b"UBSD\x01" + bytes([kind]), "Document")
    body = read.part(1 << 20)
    signed, signers = data[: read.at], []
    for _ in range(read.number(1)):
        public, signature = read.take(32), read.take(64)
        check(verify_signature(public, b"unibus/signed/v1", signed, signature), "Document")
        signers.append(public)
    read.end()
    check(signers, "Document")
    read = Bytes(body)
    decoded = cbor(read)
    read.end()
    return decoded, signers


def recipient_id(wrapping):
    return sha256(b"unibus/recipient/v1", wrapping)


# --- Snapshots


def read_header(data):
    read = Bytes(data)
    check(read.take(6) == b"UBSNAP" and read.number(2) == 1, "Decode")
    length = read.number(4)
    check(12 <= length <= min(MAX_HEADER, len(data)), "Decode")
    header = data[:length]
    read = Bytes(header)
    read.take(12)
    check(read.number(2) == 1 and read.take(2) == bytes(2), "Decode")
    names = [("cluster", 32), ("lineage", 16), ("sequence", 8), ("digest", 32)]
    names += [("created", 8), ("signer", 32), ("salt", 32)]
    out = {name: read.take(size) for name, size in names}
    out["node"] = read.part(63)
    check(out["node"] and all(c in b"abcdefghijklmnopqrstuvwxyz0123456789-" for c in out["node"]), "Decode")
    out["nodeset"], out["keyring"] = read.part(MAX_DOCUMENT), read.part(MAX_DOCUMENT)
    count = read.number(4)
    check(count <= MAX_RECIPIENTS, "Decode")
    out["wraps"] = [(read.take(32), read.take(WRAPPED)) for _ in range(count)]
    read.end()
    return header, out


def padded_chunks(chunks):
    step = 1 << max(chunks.bit_length() - 4, 0)
    return -(-max(chunks, 1) // step) * step


def verify(data, pin):
    header, fields = read_header(data)
    chunks, rest = divmod(len(data) - len(header) - TRAILER, CHUNK + TAG)
    check(chunks >= 0 and rest == 0, "Decode")
    trailer = Bytes(data[-TRAILER:])
    check(trailer.take(6) == b"UBSEND" and trailer.take(2) == bytes(2), "Decode")
    check(trailer.number(8) == chunks and trailer.number(8) == len(data), "Decode")
    check(padded_chunks(chunks) == chunks, "Decode")
    digest, signature = trailer.take(32), trailer.take(64)
    check(sha256(data[: 24 - TRAILER]) == digest, "Hash")
    label = b"unibus/snapshot/signature/v1"
    check(verify_signature(fields["signer"], label, digest, signature), "Signature")
    check(pin is None or fields["cluster"] == pin, "Cluster")
    nodeset, signers = document(fields["nodeset"], 1)
    check(nodeset[0] == fields["cluster"], "Document")
    check([sha256(b"unibus/cluster/v1", key) for key in signers] == [fields["cluster"]], "Document")
    nodes = {node[1]: node[0] for node in nodeset[4]}
    check(nodes.get(fields["signer"]) == fields["node"].decode(), "Signer")
    recovery = [recipient_id(one[1]) for one in nodeset[5]]
    everybody = [recipient_id(node[2]) for node in nodeset[4]] + recovery
    keyring, signers = document(fields["keyring"], 2)
    check(keyring[1] == fields["cluster"] and any(key in nodes for key in signers), "Document")
    check(keyring[4] <= nodeset[2], "Document")
    if keyring[4] == nodeset[2]:
        check(keyring[5] == sha256(fields["nodeset"]), "Document")
        check([wrap[0] for wrap in keyring[9]] == everybody, "Document")
    check(keyring[2] == fields["lineage"], "Contents")
    wraps = [recipient for recipient, _ in fields["wraps"]]
    check(wraps in (recovery, recovery + everybody[: -len(recovery)]), "Recipients")
    return header, fields, chunks


def open_payload(data, header, salt, chunks, key):
    prk = hmac.digest(salt, key, "sha256")
    chunk_key = hmac.digest(prk, b"unibus/snapshot/chunks/v1\x01", "sha256")
    payload = []
    for number in range(chunks):
        at = len(header) + number * (CHUNK + TAG)
        nonce = bytes(7) + number.to_bytes(4, "big") + bytes([number + 1 == chunks])
        plain = gcm_siv_open(chunk_key, nonce, sha256(header), data[at : at + CHUNK + TAG])
        check(plain is not None, "Chunk")
        payload.append(plain)
    read, running, records, last = Bytes(b"".join(payload)), hashlib.sha256(), 0, None
    try:
        while True:
            record = read.part(MAX_RECORD)
            if not record:
                break
            running.update(part(record))
            inside = Bytes(record)
            order = (inside.number(1), inside.part(MAX_RECORD))
            check(last is None or last < order, "Contents")
            last, records = order, records + 1
        check(read.number(8) == records and read.take(32) == running.digest(), "Contents")
    except Refused as refused:
        raise Refused("Contents") from refused
    check(not any(read.data[read.at :]), "Contents")
    return records, running.hexdigest()


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("file")
    arguments.add_argument("--pin", type=bytes.fromhex)
    arguments.add_argument("--snapshot-key", type=bytes.fromhex)
    given = arguments.parse_args()
    with open(given.file, "rb") as file:
        data = file.read()
    try:
        header, fields, chunks = verify(data, given.pin)
        out = {name: fields[name].hex() for name in ("cluster", "lineage", "digest", "signer")}
        out["sequence"] = int.from_bytes(fields["sequence"], "big")
        out["created"] = int.from_bytes(fields["created"], "big")
        out["node"], out["recipients"] = fields["node"].decode(), len(fields["wraps"])
        out["chunks"] = chunks
        if given.snapshot_key:
            opened = open_payload(data, header, fields["salt"], chunks, given.snapshot_key)
            out["records"], out["running_hash"] = opened
    except Refused as refused:
        print(f"error: {refused}", file=sys.stderr)
        return 1
    print(json.dumps(out))
    return 0


if __name__ == "__main__":
    sys.exit(main())

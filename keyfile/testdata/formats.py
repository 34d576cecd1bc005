"""The formats of keyfile/SPEC.md once more, from its text, with the Python standard library only.

Slow, not hardened against timing, and for vectors alone: never use it with a real key.
"""

import base64
import hashlib
import hmac

# ---- section 1 and 2: hashes and labels


def sha256(*parts):
    return hashlib.sha256(b"".join(parts)).digest()


def hkdf(salt, key, label):
    prk = hmac.new(salt or bytes(32), key, hashlib.sha256).digest()
    return hmac.new(prk, label + b"\x01", hashlib.sha256).digest()


def part(data):
    return len(data).to_bytes(4, "big") + data


def fingerprint(subject):
    text = base64.b32encode(sha256(b"unibus/fingerprint/v1", subject)[:10]).decode().lower()
    return "fp:" + "-".join(text[i : i + 4] for i in range(0, 16, 4))


def cluster_id(operator_public):
    return sha256(b"unibus/cluster/v1", operator_public)


def recipient_id(wrapping_public):
    return sha256(b"unibus/recipient/v1", wrapping_public)


# ---- section 3: bech32m (BIP 350)

ALPHABET = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
BECH32M = 0x2BC830A3


def polymod(values):
    check = 1
    for value in values:
        top = check >> 25
        check = (check & 0x1FFFFFF) << 5 ^ value
        for i, generator in enumerate((0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)):
            check ^= generator if (top >> i) & 1 else 0
    return check


def expand_prefix(prefix):
    return [ord(c) >> 5 for c in prefix] + [0] + [ord(c) & 31 for c in prefix]


def bech32m(prefix, payload):
    upper, prefix = prefix != prefix.lower(), prefix.lower()
    bits = int.from_bytes(payload, "big") << (-len(payload) * 8 % 5)
    count = (len(payload) * 8 + 4) // 5
    data = [bits >> (5 * i) & 31 for i in reversed(range(count))]
    check = polymod(expand_prefix(prefix) + data + [0] * 6) ^ BECH32M
    data += [check >> (5 * i) & 31 for i in reversed(range(6))]
    text = prefix + "1" + "".join(ALPHABET[value] for value in data)
    return text.upper() if upper else text


def bech32m_payload(prefix, text):
    head, _, tail = text.rpartition("1")
    assert head == prefix and tail in (tail.lower(), tail.upper())
    data = [ALPHABET.index(c) for c in tail.lower()]
    assert polymod(expand_prefix(prefix.lower()) + data) == BECH32M, "checksum"
    data = data[:-6]
    bits = 0
    for value in data:
        bits = bits << 5 | value
    spare = len(data) * 5 % 8
    assert spare < 5 and bits & ((1 << spare) - 1) == 0, "padding"
    payload = (bits >> spare).to_bytes(len(data) * 5 // 8, "big")
    assert bech32m(prefix, payload) == text
    return payload


# ---- Ed25519 (RFC 8032, section 6, and strict)

P = 2**255 - 19
ORDER = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P
ROOT = pow(2, (P - 1) // 4, P)


def add(p, q):
    a, b = (p[1] - p[0]) * (q[1] - q[0]) % P, (p[1] + p[0]) * (q[1] + q[0]) % P
    c, d = 2 * p[3] * q[3] * D % P, 2 * p[2] * q[2] % P
    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % P, g * h % P, f * g % P, e * h % P


def multiply(scalar, point):
    result = (0, 1, 1, 0)
    while scalar:
        if scalar & 1:
            result = add(result, point)
        point = add(point, point)
        scalar >>= 1
    return result


def recover_x(y, sign):
    square = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    x = pow(square, (P + 3) // 8, P)
    if (x * x - square) % P:
        x = x * ROOT % P
    if (x * x - square) % P or (x == 0 and sign):
        return None
    return P - x if x & 1 != sign else x


def decompress(data):
    y = int.from_bytes(data, "little")
    sign, y = y >> 255, y & (1 << 255) - 1
    x = recover_x(y, sign) if y < P else None
    return None if x is None else (x, y, 1, x * y % P)


def compress(point):
    inverse = pow(point[2], P - 2, P)
    x, y = point[0] * inverse % P, point[1] * inverse % P
    return (y | (x & 1) << 255).to_bytes(32, "little")


BASE_Y = 4 * pow(5, P - 2, P) % P
BASE = (recover_x(BASE_Y, 0), BASE_Y, 1, recover_x(BASE_Y, 0) * BASE_Y % P)


def sha512_number(*parts):
    return int.from_bytes(hashlib.sha512(b"".join(parts)).digest(), "little")


def ed25519_public(seed):
    scalar = int.from_bytes(hashlib.sha512(seed).digest()[:32], "little") & (1 << 254) - 8 | 1 << 254
    return compress(multiply(scalar, BASE))


def ed25519_verify(public, message, signature):
    key, r = decompress(public), decompress(signature[:32])
    s = int.from_bytes(signature[32:], "little")
    if key is None or r is None or s >= ORDER:
        return False
    if compress(multiply(8, key)) == compress((0, 1, 1, 0)):
        return False
    challenge = sha512_number(signature[:32], public, message) % ORDER
    return compress(multiply(s, BASE)) == compress(add(r, multiply(challenge, key)))


# ---- AES-256-GCM-SIV (FIPS 197, RFC 8452)


def xtime(byte):
    return (byte << 1 ^ 0x1B) & 0xFF if byte & 0x80 else byte << 1


def make_sbox():
    power, logarithm, value = [0] * 256, [0] * 256, 1
    for i in range(255):
        power[i], logarithm[value] = value, i
        value ^= xtime(value)
    box = []
    for byte in range(256):
        inverse = power[(255 - logarithm[byte]) % 255] if byte else 0
        out = 0x63
        for shift in range(5):
            out ^= (inverse << shift | inverse >> (8 - shift)) & 0xFF
        box.append(out)
    return box


SBOX = make_sbox()


def aes_keys(key):
    words, constant = [key[i : i + 4] for i in range(0, 32, 4)], 1
    for i in range(8, 60):
        word = words[-1]
        if i % 8 == 0:
            word = bytes(SBOX[b] for b in word[1:] + word[:1])
            word, constant = bytes([word[0] ^ constant]) + word[1:], xtime(constant)
        elif i % 8 == 4:
            word = bytes(SBOX[b] for b in word)
        words.append(bytes(a ^ b for a, b in zip(words[-8], word)))
    return [b"".join(words[i : i + 4]) for i in range(0, 60, 4)]


def aes(keys, block):
    state = bytes(a ^ b for a, b in zip(block, keys[0]))
    for number in range(1, 15):
        state = [SBOX[state[(i + 4 * (i % 4)) % 16]] for i in range(16)]
        if number < 14:
            mixed = []
            for i in range(0, 16, 4):
                column = state[i : i + 4]
                whole = column[0] ^ column[1] ^ column[2] ^ column[3]
                mixed += [column[j] ^ whole ^ xtime(column[j] ^ column[(j + 1) % 4]) for j in range(4)]
            state = mixed
        state = bytes(a ^ b for a, b in zip(state, keys[number]))
    return state


def dot(a, b):
    """Multiplication in the field of POLYVAL: a * b * x^-128."""
    result = 0
    for i in range(128):
        if b >> i & 1:
            result ^= a << i
    modulus = 1 << 128 | 1 << 127 | 1 << 126 | 1 << 121 | 1
    for _ in range(128):
        if result & 1:
            result ^= modulus
        result >>= 1
    return result


def padded(data):
    return data + bytes(-len(data) % 16)


def gcm_siv_keys(key, nonce):
    keys = aes_keys(key)
    block = [aes(keys, i.to_bytes(4, "little") + nonce)[:8] for i in range(6)]
    return block[0] + block[1], aes_keys(b"".join(block[2:]))


def gcm_siv_tag(mac_key, keys, nonce, aad, text):
    lengths = (len(aad) * 8).to_bytes(8, "little") + (len(text) * 8).to_bytes(8, "little")
    data, number, sum_ = padded(aad) + padded(text) + lengths, int.from_bytes(mac_key, "little"), 0
    for i in range(0, len(data), 16):
        sum_ = dot(sum_ ^ int.from_bytes(data[i : i + 16], "little"), number)
    block = bytearray(sum_.to_bytes(16, "little"))
    for i in range(12):
        block[i] ^= nonce[i]
    block[15] &= 0x7F
    return aes(keys, bytes(block))


def gcm_siv_stream(keys, tag, data):
    counter, out = int.from_bytes(tag[:4], "little"), bytearray()
    rest = tag[4:15] + bytes([tag[15] | 0x80])
    for i in range(0, len(data), 16):
        block = aes(keys, counter.to_bytes(4, "little") + rest)
        out += bytes(a ^ b for a, b in zip(data[i : i + 16], block))
        counter = (counter + 1) & 0xFFFFFFFF
    return bytes(out)


def gcm_siv_seal(key, nonce, aad, text):
    mac_key, keys = gcm_siv_keys(key, nonce)
    tag = gcm_siv_tag(mac_key, keys, nonce, aad, text)
    return gcm_siv_stream(keys, tag, text) + tag


def gcm_siv_open(key, nonce, aad, sealed):
    mac_key, keys = gcm_siv_keys(key, nonce)
    text = gcm_siv_stream(keys, sealed[-16:], sealed[:-16])
    assert gcm_siv_tag(mac_key, keys, nonce, aad, text) == sealed[-16:], "tag"
    return text


# ---- section 5: containers and CBOR


class Reader:
    def __init__(self, data):
        self.data = data

    def take(self, count):
        assert len(self.data) >= count, "cut short"
        head, self.data = self.data[:count], self.data[count:]
        return head

    def number(self, count):
        return int.from_bytes(self.take(count), "big")

    def end(self):
        assert not self.data, "trailing bytes"


def cbor(reader):
    first = reader.number(1)
    kind, small = first >> 5, first & 31
    if kind == 7:
        return {20: False, 21: True}[small]
    if small < 24:
        value = small
    else:
        size = {24: 1, 25: 2, 26: 4, 27: 8}[small]
        value = reader.number(size)
        assert value >= (24 if size == 1 else 1 << 4 * size), "not the shortest form"
    if kind == 0:
        return value
    if kind == 2:
        return reader.take(value)
    if kind == 3:
        return reader.take(value).decode()
    if kind == 4:
        return [cbor(reader) for _ in range(value)]
    assert kind == 5, kind
    out = {}
    for _ in range(value):
        key = cbor(reader)
        assert not out or key > max(out), "order"
        out[key] = cbor(reader)
    return out


def document(data, kind):
    """Body and signers of a signed document."""
    reader = Reader(data)
    assert reader.take(4) == b"UBSD" and reader.number(1) == 1 and reader.number(1) == kind
    body = Reader(reader.take(reader.number(4)))
    signed = data[: len(data) - len(reader.data)]
    signers = []
    for _ in range(reader.number(1)):
        public, signature = reader.take(32), reader.take(64)
        assert ed25519_verify(public, part(b"unibus/signed/v1") + signed, signature), "signature"
        signers.append(public)
    reader.end()
    value = cbor(body)
    body.end()
    return value, signers


def armoured(text, label):
    lines = text.decode().strip().split("\n")
    assert lines[0] == f"-----BEGIN {label}-----" and lines[-1] == f"-----END {label}-----"
    assert all(len(line) == 64 for line in lines[1:-2])
    return base64.b64decode("".join(lines[1:-1]), validate=True)


# ---- sections 6 to 10


def record_aad(cluster, lineage, stream, name, sequence, header):
    parts = [b"unibus/record/v1", cluster, lineage, stream, name, sequence.to_bytes(8, "big"), header]
    return b"".join(map(part, parts))


def plaintext(kind, operation, identity, digest, record):
    text = bytes([kind, operation]) + part(identity) + digest + part(record)
    size = 256
    while size < len(text):
        size *= 2
    return text + bytes(size - len(text))


def entry_name(name_key, kind, identity):
    mac = hmac.new(name_key, bytes([kind]) + identity, hashlib.sha256).digest()
    return base64.b32encode(mac[:20]).decode().lower()


def state_digest(state_key, records):
    total = sum(int.from_bytes(hmac.new(state_key, r, hashlib.sha256).digest(), "big") for r in records)
    return (total % 2**256).to_bytes(32, "big")


def chunk_nonce(number, last):
    return bytes(7) + number.to_bytes(4, "big") + bytes([last])


# ---- section 13: vectors


def read_vector(path):
    head, _, data = path.read_bytes().partition(b"\n\n")
    fields = dict(line.split(": ", 1) for line in head.decode().split("\n"))
    return fields, data


def write_vector(path, fields, data):
    """Never overwrites: a vector that was released stays as it is."""
    if path.exists():
        return
    head = "".join(f"{name}: {value}\n" for name, value in fields.items())
    path.write_bytes(head.encode() + b"\n" + data)

#!/usr/bin/env python3
"""A second implementation of keyfile/SPEC.md: reads every good vector of `v1` and prints how many of each format.

Ends with an error at the first one that it does not understand. What needs X-Wing, Argon2 or HPKE is not in the
Python standard library: wraps are taken apart and not opened, locked keys are not unlocked.
"""

import collections
import pathlib

from formats import *
from receipt import Receipt

FOLDER = pathlib.Path(__file__).parent / "v1"


def key_lines(data):
    lines = [line.strip() for line in data.decode().split("\n")]
    return [line for line in lines if line and not line.startswith("#")]


def cluster_of(fields):
    return bech32m_payload("ubc", fields["pin"])


def read_pin(fields, data):
    assert bech32m_payload("ubc", data.decode()).hex() == fields["cluster"]


def read_node_key(fields, data):
    found = []
    for line in key_lines(data):
        payload = bech32m_payload("UNIBUS-NODE-KEY-", line)
        assert payload[0] == 1 and payload[1:33] == cluster_of(fields) and payload[65:].decode() == fields["name"]
        found.append(fingerprint(ed25519_public(hkdf(b"", payload[33:65], b"unibus/node/sign/v1"))))
    assert " ".join(found) == fields["fingerprints"]


def read_operator_key(fields, data):
    [line] = key_lines(data)
    if "LOCKED" in line:
        assert len(bech32m_payload("UNIBUS-OPERATOR-KEY-LOCKED-", line)) == 89
        return
    payload = bech32m_payload("UNIBUS-OPERATOR-KEY-", line)
    assert payload[0] == 1 and len(payload) == 33
    public = ed25519_public(hkdf(b"", payload[1:], b"unibus/operator/sign/v1"))
    assert cluster_id(public) == cluster_of(fields) and fingerprint(public) == fields["fingerprint"]


def read_recovery_key(fields, data):
    [line] = key_lines(data)
    assert len(bech32m_payload("UNIBUS-RECOVERY-KEY-", line)) == 33


def read_nodeset(fields, data):
    body, [signer] = document(data, 1)
    assert body[0] == cluster_id(signer) == cluster_of(fields) and len(body[1]) == 16
    assert (body[2] > 1) == (3 in body) and body[2] == int(fields["version"])
    assert " ".join(node[0] for node in body[4]) == fields["nodes"]
    assert " ".join(recovery[0] for recovery in body[5]) == fields["recovery"]
    for node in body[4]:
        assert len(node[1]) == 32 and len(node[2]) == 1216 and isinstance(node[3], int)
    return body


def read_keyring(fields, data):
    nodeset_bytes = read_vector(FOLDER / fields["nodeset"])[1]
    nodeset, _ = document(nodeset_bytes, 1)
    body, signers = document(data, 2)
    assert any(node[1] == signers[0] for node in nodeset[4])
    assert body[0] == 1 and body[1] == nodeset[0] and body[2].hex() == fields.get("lineage", "07" * 16)
    assert body[4] == nodeset[2] and body[5] == sha256(nodeset_bytes)
    wanted = [recipient_id(node[2]) for node in nodeset[4]] + [recipient_id(r[1]) for r in nodeset[5]]
    assert [wrap[0] for wrap in body[9]] == wanted
    live = sum(epoch[1] != 4 for epoch in body[8])
    assert all(len(wrap[1]) == 1120 + 33 + 36 * live + 16 for wrap in body[9])
    if "primary" in fields:
        assert [epoch[0] for epoch in body[8] if epoch[1] == 2] == [int(fields["primary"])]
    assert sum(epoch[1] == 2 for epoch in body[8]) == 1 >= sum(epoch[1] == 1 for epoch in body[8])
    states = [None, "staged", "primary", "retired", "destroyed"]
    if "states" in fields:
        assert " ".join(f"{epoch[0]}:{states[epoch[1]]}" for epoch in body[8]) == fields["states"]
    retained = body.get(10, [])
    destroyed = {epoch[0] for epoch in body[8] if epoch[1] == 4}
    assert 10 not in body or retained
    assert all(wrap[0] in destroyed and len(wrap[1]) == 32 and len(wrap[2]) == 1168 for wrap in retained)
    places = [(wrap[0], wrap[1]) for wrap in retained]
    assert places == sorted(set(places))
    if "retained" in fields:
        operator = [recovery[1] for recovery in nodeset[5]][0]
        kept = [str(wrap[0]) for wrap in retained if wrap[1] == recipient_id(operator)]
        assert f"[{' '.join(kept)}]" == fields["retained"]


def read_acknowledgement(fields, data):
    nodeset, _ = document(read_vector(FOLDER / fields["nodeset"])[1], 1)
    body, signers = document(data, 5)
    assert any(node[0] == body[4] and node[1] in signers for node in nodeset[4])
    assert body[0] == nodeset[0] == cluster_of(fields) and body[1].hex() == fields["lineage"]
    assert body[2] == int(fields["keyring-version"]) > 0 and body[3].hex() == fields["keyring-hash"]
    assert body[4] == fields["node"] and body[6] == int(fields["created"])
    assert body[5] == sorted(set(body[5])) == [int(epoch) for epoch in fields["epochs"].split(" ")]


def counts(body):
    assert all(set(entry) == {0, 1} and entry[0] > 0 < entry[1] for entry in body)
    epochs = [entry[0] for entry in body]
    assert epochs == sorted(set(epochs))
    return "[" + " ".join(f"{entry[0]}:{entry[1]}" for entry in body) + "]"


def read_census(fields, data):
    nodeset, _ = document(read_vector(FOLDER / fields["nodeset"])[1], 1)
    body, signers = document(data, 6)
    assert any(node[0] == body[4] and node[1] in signers for node in nodeset[4])
    assert body[0] == nodeset[0] == cluster_of(fields) and body[1].hex() == fields["lineage"]
    assert body[2] == int(fields["keyring-version"]) > 0 and body[3].hex() == fields["keyring-hash"]
    assert body[4] == fields["node"] and body[5] == fields["stream"] and body[6] == int(fields["barrier"])
    assert body[7].hex() == fields["barrier-id"] and body[8].hex() == fields["digest"]
    assert body[9] == int(fields["records"]) and counts(body[10]) == fields["entries"]
    assert body[11] == body[12] == 0 and body[14] == int(fields["created"])
    disk = f"{body[13][0]} {body[13][1]} {counts(body[13][2])}" if 13 in body else "none"
    assert disk == fields["disk"]


def read_receipt(fields, data):
    receipt = Receipt(data)
    assert receipt.hash.hex() == fields["hash"]
    assert receipt.verify(cluster_of(fields)) == (fields["physical"] == "true")
    assert " ".join(sorted(receipt.nodes)) == fields["nodes"]
    assert " ".join(map(str, receipt.body["from"])) == fields["from"] and receipt.body["to"] == int(fields["to"])


def read_request(fields, data):
    body, signers = document(armoured(data, "UNIBUS NODE REQUEST"), 3)
    assert body[0] == 1 and body[1] == cluster_of(fields) and body[2] == fields["name"] and body[3] == signers[0]
    assert len(body[4]) == 1216 and fingerprint(body[3]) == fields["fingerprint"]


def read_recovery(fields, data):
    body, signers = document(armoured(data, "UNIBUS RECOVERY RECIPIENT"), 4)
    assert not signers and body[0] == 1 and body[2] == recipient_id(body[1])
    assert fingerprint(body[2]) == fields["fingerprint"]


def read_witness(fields, data):
    seed = bytes.fromhex(fields["node-seed"])
    public = ed25519_public(hkdf(b"", seed, b"unibus/node/sign/v1"))
    assert data[:5] == b"UBWT\x01" and data[5:15] == sha256(b"unibus/fingerprint/v1", public)[:10]
    local_key = hkdf(b"", seed, b"unibus/node/local/v1")
    body = Reader(gcm_siv_open(local_key, data[15:27], data[:27], data[27:]))
    assert body.take(32) == cluster_of(fields) and body.take(16).hex() == fields["lineage"]
    assert body.number(8) == int(fields["sequence"]) and body.take(32).hex() == fields["digest"]
    assert body.number(8) == int(fields["nodeset-version"])
    body.take(32)
    assert body.number(8) == int(fields["keyring-version"])
    body.take(32)
    assert body.number(8) == int(fields["last-drill"]) and body.number(8) == int(fields["last-proof"])
    body.end()


def read_envelope(fields, data):
    cluster, epoch_key = cluster_of(fields), bytes.fromhex(fields["epoch-key"])
    assert data[:4] == b"UBE1" and int.from_bytes(data[4:8], "big") == int(fields["epoch"])
    lineage, stream = bytes.fromhex(fields["lineage"]), fields["stream"].encode()
    aad = record_aad(cluster, lineage, stream, fields["entry-name"].encode(), int(fields["sequence"]), data[:20])
    text = gcm_siv_open(hkdf(cluster, epoch_key, b"unibus/epoch/record/v1"), data[8:20], aad, data[20:])
    record = bytes.fromhex(fields["record"].replace("-", ""))
    identity, digest = bytes.fromhex(fields["identity"]), bytes.fromhex(fields["digest"])
    assert text == plaintext(int(fields["kind"]), int(fields["operation"]), identity, digest, record)


def read_plaintext(fields, data):
    identity, digest, record = (bytes.fromhex(fields[name]) for name in ("identity", "digest", "record"))
    assert data == plaintext(int(fields["kind"]), int(fields["operation"]), identity, digest, record)


def read_armour(fields, data):
    assert armoured(data, "UNIBUS NODE REQUEST")[:4] == b"UBSD"


def read_name(fields, data):
    if "state-key" in fields:
        key = hkdf(cluster_of(fields), bytes.fromhex(fields["state-key"]), b"unibus/state/nonce/v1")
    else:
        key = hkdf(cluster_of(fields), bytes.fromhex(fields["epoch-key"]), b"unibus/epoch/name/v1")
    assert entry_name(key, int(fields["kind"]), bytes.fromhex(fields["identity"])).encode() == data


def read_digest(fields, data):
    records = [bytes.fromhex(record.replace("-", "")) for record in fields["records"].split(" ")]
    assert state_digest(bytes.fromhex(fields["state-key"]), records) == data


def read_derive(fields, data):
    cluster = cluster_of(fields)
    epoch_key, state_key = bytes.fromhex(fields["epoch-key"]), bytes.fromhex(fields["state-key"])
    assert data[:32] == hkdf(cluster, epoch_key, b"unibus/epoch/sqlcipher/v1")
    assert data[32:64] == hkdf(cluster, epoch_key, b"unibus/epoch/commitment/v1")
    assert data[64:] == hkdf(cluster, state_key, b"unibus/state/commitment/v1")


def read_server_side_key(fields, data):
    assert data == hkdf(b"", bytes.fromhex(fields["node-seed"]), b"unibus/node/jetstream/v1")


def read_stream(fields, data):
    key = hkdf(b"", bytes.fromhex(fields["blob-key"]), b"unibus/blob/chunks/v1")
    reader, chunks = Reader(data), []
    while reader.data:
        chunks.append(reader.take(reader.number(4)))
    for i, (chunk, text) in enumerate(zip(chunks, fields["texts"].split(" "), strict=True)):
        nonce = chunk_nonce(i, i == len(chunks) - 1)
        assert gcm_siv_open(key, nonce, bytes.fromhex(fields["aad"]), chunk).hex() == text


def main():
    counts = collections.Counter()
    for path in sorted(FOLDER.glob("*.vec")):
        fields, data = read_vector(path)
        if fields["expect"] != "ok":
            continue
        try:
            globals()["read_" + fields["format"].replace("-", "_")](fields, data)
        except Exception as error:
            raise SystemExit(f"{path.name}: {error!r}") from error
        counts[fields["format"]] += 1
    for name, count in sorted(counts.items()):
        print(name, count)


if __name__ == "__main__":
    main()

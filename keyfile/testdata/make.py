#!/usr/bin/env python3
"""Writes the vectors that are not made by unibus-keyfile itself. Existing ones are left alone."""

import pathlib

from formats import *

FOLDER = pathlib.Path(__file__).parent / "v1"
MADE_BY = "testdata/make.py"


def vector(file, data, **fields):
    fields = {name.replace("_", "-"): value for name, value in fields.items()}
    write_vector(FOLDER / f"{file}.vec", {"made-by": MADE_BY, **fields}, data)


def main():
    operator_seed, node_seed, epoch_key, state_key = (bytes([n]) * 32 for n in (1, 2, 3, 4))
    operator_public = ed25519_public(hkdf(b"", operator_seed, b"unibus/operator/sign/v1"))
    cluster = cluster_id(operator_public)
    pin = bech32m("ubc", cluster)
    lineage = bytes(range(16))

    vector("pin_ok_python", pin.encode(), format="pin", expect="ok",
           comment="the pin of the operator whose seed is 32 bytes of 1", cluster=cluster.hex())
    line = bech32m("UNIBUS-NODE-KEY-", b"\x01" + cluster + node_seed + b"alpha")
    node_public = ed25519_public(hkdf(b"", node_seed, b"unibus/node/sign/v1"))
    vector("node_key_ok_python", f"# made by other software\n\n  {line}\n".encode(), format="node-key",
           expect="ok", comment="one slot, a comment, spaces", name="alpha", pin=pin,
           fingerprints=fingerprint(node_public))
    vector("operator_key_ok_python", (bech32m("UNIBUS-OPERATOR-KEY-", b"\x01" + operator_seed) + "\n").encode(),
           format="operator-key", expect="ok", comment="in clear", pin=pin, fingerprint=fingerprint(operator_public))

    derived = {
        "database-key": hkdf(cluster, epoch_key, b"unibus/epoch/sqlcipher/v1"),
        "epoch-commitment": hkdf(cluster, epoch_key, b"unibus/epoch/commitment/v1"),
        "state-commitment": hkdf(cluster, state_key, b"unibus/state/commitment/v1"),
    }
    vector("derive_ok_python", b"".join(derived.values()), format="derive", expect="ok",
           comment="database key, epoch commitment, state commitment", pin=pin, epoch_key=epoch_key.hex(),
           state_key=state_key.hex())
    vector("server_side_key_ok_python", hkdf(b"", node_seed, b"unibus/node/jetstream/v1"),
           format="server-side-key", expect="ok", comment="of the node whose seed is 32 bytes of 2", pin=pin,
           node_seed=node_seed.hex())
    name_key = hkdf(cluster, epoch_key, b"unibus/epoch/name/v1")
    name = entry_name(name_key, 1, b"alice")
    vector("name_ok_python", name.encode(), format="name", expect="ok", comment="kind 1, identity `alice`",
           pin=pin, epoch_key=epoch_key.hex(), kind="1", identity=b"alice".hex())
    nonce_key = hkdf(cluster, state_key, b"unibus/state/nonce/v1")
    vector("name_ok_nonce_python", entry_name(nonce_key, 1, b"alice").encode(), format="name", expect="ok",
           comment="of a nonce: the same under every epoch", pin=pin, state_key=state_key.hex(), kind="1",
           identity=b"alice".hex())
    records = [b"one", b"two", b"", bytes(300)]
    vector("digest_ok_python", state_digest(state_key, records), format="digest", expect="ok",
           comment="the sum over four records", state_key=state_key.hex(),
           records=" ".join(f"{record.hex() or '-'}" for record in records))

    # A witness.
    local_key = hkdf(b"", node_seed, b"unibus/node/local/v1")
    slot = sha256(b"unibus/fingerprint/v1", node_public)[:10]
    header = b"UBWT\x01" + slot + bytes(range(12))
    digest = state_digest(state_key, records)
    body = (cluster + lineage + (7).to_bytes(8, "big") + digest + (2).to_bytes(8, "big") + bytes([5]) * 32
            + (3).to_bytes(8, "big") + bytes([6]) * 32 + bytes(8) + (1_800_000_000).to_bytes(8, "big"))
    vector("witness_ok_python", header + gcm_siv_seal(local_key, header[15:], header, body), format="witness",
           expect="ok", comment="never drilled", node_seed=node_seed.hex(), pin=pin, lineage=lineage.hex(),
           sequence="7", digest=digest.hex(), nodeset_version="2", keyring_version="3", last_drill="0",
           last_proof="1800000000")

    # Envelopes.
    record_key = hkdf(cluster, epoch_key, b"unibus/epoch/record/v1")
    place = dict(pin=pin, lineage=lineage.hex(), stream="UNIBUS", entry_name=name, sequence="9",
                 epoch_key=epoch_key.hex(), epoch="1")
    for case, operation, record in [("put", 1, b"record"), ("long", 1, b"r" * 1000), ("tombstone", 2, b"")]:
        header = b"UBE1" + (1).to_bytes(4, "big") + bytes(range(100, 112))
        aad = record_aad(cluster, lineage, b"UNIBUS", name.encode(), 9, header)
        text = plaintext(1, operation, b"alice", digest, record)
        vector(f"envelope_ok_{case}_python", header + gcm_siv_seal(record_key, header[8:], aad, text),
               format="envelope", expect="ok", comment=f"a {case}", kind="1", operation=str(operation),
               identity=b"alice".hex(), digest=digest.hex(), record=record.hex() or "-", **place)

    # A stream of two chunks.
    blob_key = bytes([8]) * 32
    chunk_key = hkdf(b"", blob_key, b"unibus/blob/chunks/v1")
    chunks = [gcm_siv_seal(chunk_key, chunk_nonce(i, i == 1), b"aad", text) for i, text in
              enumerate([b"first", b"second"])]
    vector("stream_ok_python", b"".join(map(part, chunks)), format="stream", expect="ok",
           comment="two chunks, each after its length; short ones, to keep the file small", blob_key=blob_key.hex(),
           aad=b"aad".hex(), texts=f"{b'first'.hex()} {b'second'.hex()}")


if __name__ == "__main__":
    main()

"""A second implementation of keyfile/SPEC.md, section 14: checks a receipt offline, by the standard library alone."""

import base64
import json
import re

from formats import bech32m, cluster_id, document, ed25519_verify, part, sha256

STAGED, PRIMARY, RETIRED, DESTROYED = 1, 2, 3, 4
FIELDS = {
    "backend", "cluster", "counts", "documents", "fenced", "finished", "format", "from", "lineage", "operation", "plan",
    "previous", "retained", "started", "steps", "to", "tool_version",
}


def once(pairs):
    names = [name for name, _ in pairs]
    assert len(names) == len(set(names)), "a name stands twice"
    return dict(pairs)


def refused(text):
    raise AssertionError(f"no integer from 0 to 2^53 - 1: {text}")


def integer(text):
    assert re.fullmatch("0|[1-9][0-9]*", text) and int(text) < 1 << 53, text
    return int(text)


def canonical(value):
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return text.encode()


class Receipt:
    def __init__(self, data):
        assert len(data) <= 4 << 20
        whole = json.loads(data.decode(), object_pairs_hook=once, parse_float=refused, parse_constant=refused,
                           parse_int=integer)
        assert set(whole) == {"receipt", "signature"} and set(whole["signature"]) == {"key", "signature"}
        self.body = whole["receipt"]
        self.key = bytes.fromhex(whole["signature"]["key"])
        signature = bytes.fromhex(whole["signature"]["signature"])
        message = part(b"unibus/receipt/v1") + canonical(self.body)
        assert ed25519_verify(self.key, message, signature), "signature"
        assert set(self.body) == FIELDS and self.body["format"] == "unibus-receipt-1"
        assert self.body["operation"] == "rotate epoch"
        self.hash = sha256(canonical(whole))

    def documents(self, name):
        return [base64.b64decode(text, validate=True) for text in self.body["documents"][name]]

    def verify(self, pin):
        """Raises where something does not follow; says whether every node looked at its disk."""
        body, to, old = self.body, self.body["to"], self.body["from"]
        nodeset_bytes = base64.b64decode(body["documents"]["nodeset"], validate=True)
        nodeset, [operator] = document(nodeset_bytes, 1)
        assert nodeset[0] == cluster_id(operator) == pin and body["cluster"] == bech32m("ubc", pin)
        keys = {node[0]: node[1] for node in nodeset[4]}
        [signer] = [name for name, key in keys.items() if key == self.key]
        assert not set(body["fenced"]) & set(keys)
        self.nodes = set(keys) if body["backend"] == "kv" else {signer}

        keyrings, before = [], None
        for data in self.documents("keyrings"):
            keyring, signers = document(data, 2)
            assert set(signers) & set(keys.values()) and keyring[1] == pin
            keyring["hash"] = sha256(data)
            if before:
                self.continues(keyring, before, to)
            keyrings.append(keyring)
            before = keyring
        first, *middle, last = keyrings
        states = [{epoch[0]: epoch[1] for epoch in keyring[8]} for keyring in keyrings]
        assert first[2].hex() == body["lineage"] and states[0][to] == STAGED
        assert [number for number, state in states[0].items() if state in (PRIMARY, RETIRED)] == old
        assert all(state == (PRIMARY if number == to else DESTROYED) for number, state in states[-1].items())
        assert last[4] == nodeset[2] and last[5] == sha256(nodeset_bytes)
        kept = {wrap[0] for wrap in last.get(10, [])}
        assert all((number in kept) == body["retained"] for number in old)
        active = [keyring["hash"] for keyring, state in zip(middle, states[1:])
                  if state[to] == PRIMARY and all(state[number] == RETIRED for number in old)]

        acknowledged = self.words("acknowledgements", 5, keys)
        assert all(word[3] == first["hash"] and to in word[5] for word in acknowledged)
        forgotten = self.words("forgotten", 5, keys)
        assert all(word[3] == last["hash"] and word[5] == [to] for word in forgotten)
        censuses = self.words("censuses", 6, keys)
        assert all(census[3] in active for census in censuses)
        assert all((census[5] == "sqlcipher") == (body["backend"] == "sqlcipher") for census in censuses)
        assert all(census[key] == censuses[0][key] for census in censuses for key in (5, 6, 7, 8, 9, 10))
        assert all(census[11] == census[12] == 0 for census in censuses)
        entries = [(entry[0], entry[1]) for entry in censuses[0][10]]
        assert entries == [(to, body["counts"]["entries"])] * bool(entries)
        assert sum(count for _, count in entries) == body["counts"]["entries"] >= body["counts"]["records"]
        assert censuses[0][9] == body["counts"]["records"]
        scans = [census[13] for census in censuses if 13 in census]
        assert not any(entry[0] in old for scan in scans for entry in scan[2]), "residue"
        assert body["started"] <= body["finished"]
        for one, census, other in zip(acknowledged, censuses, forgotten, strict=True):
            assert one[6] <= census[14] + 600 and census[14] <= other[6] + 600
        return len(scans) == len(self.nodes) and all(scan[0] and scan[1] for scan in scans)

    def words(self, name, kind, keys):
        """One of each node and of nobody else, in the order of names."""
        words = []
        for data in self.documents(name):
            word, signers = document(data, kind)
            assert keys[word[4]] in signers and word[1].hex() == self.body["lineage"]
            words.append(word)
        words.sort(key=lambda word: word[4])
        assert [word[4] for word in words] == sorted(self.nodes), name
        return words

    @staticmethod
    def continues(keyring, before, to):
        adjacent = keyring[3] == before[3] + 1
        assert keyring[3] > before[3] and (not adjacent or keyring[6] == before["hash"])
        assert adjacent or next(epoch[0] for epoch in before[8] if epoch[1] == PRIMARY) != to
        assert keyring[2] == before[2] and keyring[7] == before[7] and keyring[4] >= before[4]
        epochs = {epoch[0]: epoch for epoch in keyring[8]}
        for old in before[8]:
            new = epochs.pop(old[0])
            assert new[1] >= old[1] and new[2] == old[2] and new[3] == old[3] and new[4] >= old[4]
        assert all(number > before[8][-1][0] for number in epochs)
        assert all(wrap in keyring.get(10, []) for wrap in before.get(10, []))

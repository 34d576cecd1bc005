//! Receipts: what one proves, and that each thing that could be forged is found.

#![cfg(test)]

#[path = "receipt/forged.rs"]
mod forged;

use std::sync::OnceLock;

use data_encoding::{BASE64, HEXLOWER};
use serde_json::Value;
use unibus_keyfile::{
    acknowledgement::Acknowledgement,
    census::{Census, CensusFacts, DiskScan},
    error::{DecodeError, DocumentError, ErrorClass, ReceiptError},
    id::{DocumentHash, Epoch, Lineage, UnixTime},
    keyring::{Keyring, Secrets},
    node_key::NodeKeyFile,
    nodeset::{Nodeset, Plan},
    operator_key::OperatorKey,
    receipt::{Backend, MAX_RECEIPT_BYTES, RECEIPT_LABEL, Receipt, ReceiptDraft, Step},
};

const START: u64 = 1_800_000_000;

fn at(seconds: u64) -> UnixTime {
    UnixTime::from_seconds(START + seconds)
}

fn epoch(number: u32) -> Epoch {
    Epoch::from_stored(number).unwrap()
}

/// Three nodes, and the keyrings of one rotation.
struct World {
    operator: OperatorKey,
    nodes: Vec<NodeKeyFile>,
    nodeset: Nodeset,
    steps: Vec<(Keyring, Secrets)>,
    good: OnceLock<Receipt>,
}

const STAGED: usize = 1;
const ACTIVE: usize = 2;
const DESTROYED: usize = 3;

impl World {
    fn new() -> Self {
        Self::of(&["alpha", "beta", "gamma"], true)
    }

    fn of(names: &[&str], retain: bool) -> Self {
        let operator = OperatorKey::generate();
        let node = |name: &&str| NodeKeyFile::generate(name.parse().unwrap(), operator.cluster_id());
        let nodes: Vec<NodeKeyFile> = names.iter().map(node).collect();
        let plan = nodes.iter().fold(Plan::first(&operator), |plan, node| plan.with_node(node.member(at(0))));
        let nodeset = plan.sign(&operator).unwrap();
        let own = &nodes[0];
        let mut steps = vec![Keyring::create(&nodeset, own, Lineage::random(), None, at(0)).unwrap()];
        let (keyring, secrets) = &steps[0];
        steps.push(keyring.stage(&nodeset, own, secrets, at(1)).unwrap());
        let (keyring, secrets) = &steps[STAGED];
        steps.push(keyring.activate(&nodeset, own, secrets).unwrap());
        let (keyring, secrets) = &steps[ACTIVE];
        steps.push(keyring.destroy(&nodeset, own, secrets, retain).unwrap());
        Self { operator, nodes, nodeset, steps, good: OnceLock::new() }
    }

    fn keyring(&self, step: usize) -> &Keyring {
        &self.steps[step].0
    }

    fn word(&self, own: &NodeKeyFile, step: usize, seconds: u64) -> Vec<u8> {
        let (keyring, secrets) = &self.steps[step];
        Acknowledgement::sign(own, keyring, secrets, at(seconds)).unwrap().as_bytes().to_vec()
    }

    fn facts(&self) -> CensusFacts {
        let keyring = self.keyring(ACTIVE);
        CensusFacts {
            cluster: *keyring.cluster(),
            lineage: *keyring.lineage(),
            keyring_version: keyring.version(),
            keyring_hash: keyring.hash(),
            stream: "KV_UNIBUS_control_2".into(),
            barrier: (1 << 40) + 20,
            barrier_id: [3; 16],
            digest: [4; 32],
            records: 12,
            entries: vec![(epoch(2), 15)],
            unsealed: 0,
            undecryptable: 0,
            disk: Some(DiskScan { files: 9, bytes: 70_000, envelopes: vec![(epoch(2), 20)] }),
            created: at(5),
        }
    }

    fn census(&self, own: &NodeKeyFile, spoil: impl FnOnce(&mut CensusFacts)) -> Vec<u8> {
        let mut facts = self.facts();
        spoil(&mut facts);
        Census::sign(own, facts).unwrap().as_bytes().to_vec()
    }

    fn draft(&self) -> ReceiptDraft {
        let all = |word: &dyn Fn(&NodeKeyFile) -> Vec<u8>| self.nodes.iter().map(word).collect();
        let keyring = |step: usize| self.keyring(step).as_bytes().to_vec();
        ReceiptDraft {
            backend: Backend::Kv,
            tool_version: "unibus-migrate 1.0.0".into(),
            plan: [7; 32],
            lineage: *self.keyring(STAGED).lineage(),
            from: vec![epoch(1)],
            to: epoch(2),
            started: at(0),
            finished: at(8),
            steps: vec![
                Step { name: "stage".into(), milliseconds: 120 },
                Step { name: "reseal".into(), milliseconds: 4000 },
            ],
            records: 12,
            entries: 15,
            retained: true,
            fenced: vec!["delta".parse().unwrap()],
            previous: Some(DocumentHash::of(b"the one before")),
            keyrings: vec![keyring(STAGED), keyring(ACTIVE), keyring(DESTROYED)],
            acknowledgements: all(&|own| self.word(own, STAGED, 2)),
            censuses: all(&|own| self.census(own, |_| {})),
            forgotten: all(&|own| self.word(own, DESTROYED, 7)),
        }
    }

    fn sign(&self, draft: ReceiptDraft) -> Result<Receipt, ReceiptError> {
        Receipt::sign(&self.nodes[0], &self.nodeset, draft)
    }

    fn good(&self) -> Receipt {
        self.good.get_or_init(|| self.sign(self.draft()).unwrap()).clone()
    }
}

/// The whole of a receipt, its fields changed, and signed anew by this node.
fn signed_anew(receipt: &Receipt, own: &NodeKeyFile, change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let mut json: Value = serde_json::from_str(receipt.as_str()).unwrap();
    change(&mut json["receipt"]);
    let key = own.slots()[0].signing();
    let signature = key.sign(RECEIPT_LABEL, json["receipt"].to_string().as_bytes());
    json["signature"]["key"] = HEXLOWER.encode(&key.public()).into();
    json["signature"]["signature"] = HEXLOWER.encode(&signature).into();
    json.to_string().into_bytes()
}

fn documents(list: &[Vec<u8>]) -> Value {
    list.iter().map(|bytes| BASE64.encode(bytes)).collect()
}

#[test]
fn a_rotation_of_three_nodes_is_proven_offline() {
    let w = World::new();
    let signed = w.good();
    let again = Receipt::decode(signed.as_str().as_bytes()).unwrap();
    assert_eq!(again, signed);
    assert_eq!((again.cluster(), again.draft()), (w.nodeset.cluster(), &w.draft_like(&again)));
    let report = again.verify(Some(w.nodeset.cluster())).unwrap();
    assert!(report.pinned && report.physical && report.retained && !report.exposed);
    assert_eq!((report.hash, report.previous), (again.hash(), again.draft().previous));
    assert_eq!(report.nodes.iter().map(|name| name.as_str()).collect::<Vec<_>>(), ["alpha", "beta", "gamma"]);
    assert_eq!((report.signer.as_str(), report.fenced[0].as_str()), ("alpha", "delta"));
    assert_eq!((report.from, report.to, report.residue), (vec![epoch(1)], epoch(2), vec![]));
    assert_eq!((report.records, report.entries, report.digest), (12, 15, [4; 32]));
    assert_eq!((report.stream.as_str(), report.barrier), ("KV_UNIBUS_control_2", (1 << 40) + 20));
    assert_eq!((report.nodeset_version, report.keyring_version), (1, 4));
    assert_eq!((report.started, report.finished), (at(0), at(8)));
    assert_eq!((report.cluster, report.lineage), (*again.cluster(), *w.keyring(STAGED).lineage()));
}

impl World {
    /// Documents are signed anew each time with the same bytes: all of a draft but its wraps is fixed.
    fn draft_like(&self, receipt: &Receipt) -> ReceiptDraft {
        ReceiptDraft { keyrings: receipt.draft().keyrings.clone(), ..self.draft() }
    }
}

#[test]
fn without_a_pin_it_says_so_and_with_another_it_is_refused() {
    let (w, v) = (World::new(), World::new());
    let signed = w.good();
    assert!(!signed.verify(None).unwrap().pinned);
    let refused = signed.verify(Some(v.nodeset.cluster())).unwrap_err();
    let source = |error| {
        matches!(error, ReceiptError::Document { document: "nodeset", source: DocumentError::Cluster { .. } })
    };
    assert!(source(refused.clone()), "{refused:?}");
    assert_eq!((refused.class(), refused.code()), (ErrorClass::WrongKey, "UB-K023"));
}

#[test]
fn space_and_the_order_of_fields_do_not_count() {
    let w = World::new();
    let signed = w.good();
    let json: Value = serde_json::from_str(signed.as_str()).unwrap();
    let pretty = serde_json::to_string_pretty(&json).unwrap() + "\n";
    let again = Receipt::decode(pretty.as_bytes()).unwrap();
    assert_eq!((again.hash(), again.as_str()), (signed.hash(), signed.as_str()));
    let at = signed.as_str().find(",\"signature\"").unwrap();
    let turned =
        format!("{{{},{}}}", &signed.as_str()[at + 1..signed.as_str().len() - 1], &signed.as_str()[1..at]);
    assert_eq!(Receipt::decode(turned.as_bytes()).unwrap(), signed);
}

#[test]
fn every_flip_and_every_cut_is_refused() {
    let w = World::new();
    let signed = w.good();
    let bytes = signed.as_str().as_bytes();
    // Long base64 is sampled: each change of it is found by one and the same signature.
    for at in (0..bytes.len()).filter(|at| *at < 300 || bytes.len() - at < 1500 || at % 97 == 0) {
        let mut bad = bytes.to_vec();
        bad[at] ^= 0x01;
        assert!(Receipt::decode(&bad).is_err(), "flip at {at}");
        assert!(Receipt::decode(&bytes[..at]).is_err(), "cut at {at}");
    }
    assert!(Receipt::decode(&[bytes, b"{}"].concat()).is_err());
}

#[test]
fn what_cannot_be_verified_is_not_signed() {
    let w = World::new();
    let refused = w.sign(ReceiptDraft { records: 13, ..w.draft() }).unwrap_err();
    assert_eq!(refused, ReceiptError::Differs("records"));
    assert_eq!((refused.class().exit_code(), refused.code()), (9, "UB-K071"));
    let stranger = NodeKeyFile::generate("alpha".parse().unwrap(), w.operator.cluster_id());
    let refused = Receipt::sign(&stranger, &w.nodeset, w.draft()).unwrap_err();
    assert!(matches!(refused, ReceiptError::Signer { .. }), "{refused:?}");
    let v = World::new();
    let refused = Receipt::sign(&v.nodes[0], &w.nodeset, w.draft()).unwrap_err();
    assert!(matches!(refused, ReceiptError::Document { document: "nodeset", .. }), "{refused:?}");
    for draft in [
        ReceiptDraft { records: 1 << 53, entries: 1 << 53, ..w.draft() },
        ReceiptDraft { tool_version: "\n".into(), ..w.draft() },
        ReceiptDraft { from: Vec::new(), ..w.draft() },
        ReceiptDraft { finished: UnixTime::from_seconds(1 << 50), ..w.draft() },
        ReceiptDraft { steps: vec![Step { name: String::new(), milliseconds: 1 }], ..w.draft() },
    ] {
        let refused = w.sign(draft).unwrap_err();
        assert!(matches!(refused, ReceiptError::Decode(DecodeError::Field(_))), "{refused:?}");
    }
}

#[test]
fn a_node_signs_with_the_key_that_the_nodeset_lists() {
    let mut w = World::new();
    let draft = w.draft();
    w.nodes[0].rotate().unwrap();
    let report = w.sign(draft).unwrap().verify(Some(w.nodeset.cluster())).unwrap();
    assert_eq!(report.signer, *w.nodes[0].name());
}

#[test]
fn receipts_chain() {
    let w = World::new();
    let first = w.good();
    let second = w.sign(ReceiptDraft { previous: Some(first.hash()), ..w.draft() }).unwrap();
    assert!(second.follows(&first) && !first.follows(&second) && !first.follows(&first));
    assert_eq!(second.verify(None).unwrap().previous, Some(first.hash()));
    let none = w.sign(ReceiptDraft { previous: None, ..w.draft() }).unwrap();
    assert!(!none.follows(&first));
    assert!(!World::new().good().follows(&first));
}

#[test]
fn a_node_that_did_not_look_at_its_disk_makes_it_no_physical_proof() {
    let w = World::new();
    let looked_at_nothing = Some(DiskScan { files: 0, bytes: 0, envelopes: Vec::new() });
    for disk in [None, looked_at_nothing] {
        let mut draft = w.draft();
        draft.censuses[1] = w.census(&w.nodes[1], |facts| facts.disk = disk);
        let report = w.sign(draft).unwrap().verify(None).unwrap();
        assert!(!report.physical);
    }
    // What an earlier rotation left is told.
    let mut draft = w.draft();
    let scan = DiskScan { files: 1, bytes: 1, envelopes: vec![(epoch(2), 1), (epoch(9), 1)] };
    draft.censuses[1] = w.census(&w.nodes[1], |facts| facts.disk = Some(scan));
    let report = w.sign(draft).unwrap().verify(None).unwrap();
    assert_eq!((report.physical, report.residue), (true, vec![epoch(9)]));
}

#[test]
fn a_database_is_proven_by_its_own_node_alone() {
    let w = World::of(&["alpha", "beta"], false);
    let own = &w.nodes[0];
    let census = w.census(own, |facts| (facts.stream, facts.barrier) = ("sqlcipher".into(), 77));
    let draft = ReceiptDraft {
        backend: Backend::Sqlcipher,
        retained: false,
        fenced: Vec::new(),
        acknowledgements: vec![w.word(own, STAGED, 2)],
        censuses: vec![census],
        forgotten: vec![w.word(own, DESTROYED, 7)],
        ..w.draft()
    };
    let report = w.sign(draft.clone()).unwrap().verify(Some(w.nodeset.cluster())).unwrap();
    assert_eq!((report.nodes.len(), report.stream.as_str(), report.barrier), (1, "sqlcipher", 77));
    assert!(!report.retained);
    // Signed by beta, alpha's words are somebody else's.
    let refused = Receipt::sign(&w.nodes[1], &w.nodeset, draft.clone()).unwrap_err();
    assert!(matches!(refused, ReceiptError::Missing { .. }), "{refused:?}");
    let refused = w.sign(ReceiptDraft { censuses: vec![w.census(own, |_| {})], ..draft }).unwrap_err();
    assert!(
        matches!(refused, ReceiptError::Word { why: "it counted another kind of store", .. }),
        "{refused:?}"
    );
}

#[test]
fn versions_in_between_are_steps_too() {
    // A node restarts and wraps again before and after the new epoch is activated, and a node joins.
    let w = World::new();
    let own = &w.nodes[0];
    let (staged, secrets) = &w.steps[STAGED];
    let again = staged.rewrap(&w.nodeset, own, secrets).unwrap();
    let (active, held) = again.activate(&w.nodeset, own, secrets).unwrap();
    let later = active.rewrap(&w.nodeset, own, &held).unwrap();
    let (gone, left) = later.destroy(&w.nodeset, own, &held, true).unwrap();
    let census = |own: &NodeKeyFile, keyring: &Keyring| {
        w.census(own, |facts| {
            (facts.keyring_version, facts.keyring_hash) = (keyring.version(), keyring.hash());
        })
    };
    let word =
        |own: &NodeKeyFile| Acknowledgement::sign(own, &gone, &left, at(7)).unwrap().as_bytes().to_vec();
    let mut draft = ReceiptDraft {
        keyrings: [staged, &again, &active, &later, &gone].map(|keyring| keyring.as_bytes().to_vec()).into(),
        censuses: w.nodes.iter().map(|own| census(own, &later)).collect(),
        forgotten: w.nodes.iter().map(word).collect(),
        ..w.draft()
    };
    assert_eq!(w.sign(draft.clone()).unwrap().verify(None).unwrap().keyring_version, 6);
    draft.censuses[2] = census(&w.nodes[2], &active);
    w.sign(draft.clone()).unwrap();
    // What lies between the acknowledged version and the activated one may be left out; what follows may not.
    draft.keyrings.remove(1);
    w.sign(draft.clone()).unwrap();
    draft.keyrings.remove(2);
    assert_eq!(w.sign(draft).unwrap_err(), ReceiptError::Keyrings("a version is missing"));
}

#[test]
fn more_than_the_limit_is_not_even_read() {
    let refused = Receipt::decode(&vec![b' '; MAX_RECEIPT_BYTES + 1]).unwrap_err();
    assert!(matches!(refused, ReceiptError::Decode(DecodeError::TooLarge { .. })), "{refused:?}");
    for deep in ["[", "{\"a\":"] {
        assert!(Receipt::decode(deep.repeat(500_000).as_bytes()).is_err());
    }
}

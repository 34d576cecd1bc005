//! The receipts of `make.rs`.

use data_encoding::BASE64;
use serde_json::{Value, json};
use unibus_keyfile::{
    acknowledgement::Acknowledgement,
    census::{Census, CensusFacts, DiskScan},
    id::{DocumentHash, Epoch, Lineage, UnixTime},
    keyring::{Keyring, Secrets},
    node_key::NodeKeyFile,
    nodeset::Nodeset,
    receipt::{Backend, RECEIPT_LABEL, Receipt, ReceiptDraft, Step},
};

use super::{NOW, World, hex, node_of_seed, put};
use crate::{Vector, folder};

fn later(seconds: u64) -> UnixTime {
    UnixTime::from_seconds(NOW.seconds() + seconds)
}

/// A rotation by two nodes: nodeset, and the keyrings of each step.
struct Rotation {
    nodeset: Nodeset,
    staged: (Keyring, Secrets),
    active: (Keyring, Secrets),
    gone: (Keyring, Secrets),
}

impl Rotation {
    fn new(w: &World) -> Self {
        let nodeset = Vector::read(&folder().join("nodeset_ok_two.vec")).bytes;
        let nodeset = Nodeset::decode(&nodeset, &w.operator.cluster_id()).unwrap();
        let first = Keyring::create(&nodeset, &w.alpha, Lineage::from_bytes([7; 16]), None, NOW).unwrap();
        let staged = first.0.stage(&nodeset, &w.alpha, &first.1, NOW).unwrap();
        let active = staged.0.activate(&nodeset, &w.alpha, &staged.1).unwrap();
        let gone = active.0.destroy(&nodeset, &w.alpha, &active.1, true).unwrap();
        Self { nodeset, staged, active, gone }
    }

    fn word(own: &NodeKeyFile, (keyring, secrets): &(Keyring, Secrets), seconds: u64) -> Vec<u8> {
        Acknowledgement::sign(own, keyring, secrets, later(seconds)).unwrap().as_bytes().to_vec()
    }

    fn census(&self, own: &NodeKeyFile, spoil: impl FnOnce(&mut CensusFacts)) -> Vec<u8> {
        let (keyring, second) = (&self.active.0, Epoch::from_stored(2).unwrap());
        let mut facts = CensusFacts {
            cluster: *keyring.cluster(),
            lineage: *keyring.lineage(),
            keyring_version: keyring.version(),
            keyring_hash: keyring.hash(),
            stream: "KV_UNIBUS_control_2".into(),
            barrier: 1_099_511_627_796,
            barrier_id: [9; 16],
            digest: [10; 32],
            records: 12,
            entries: vec![(second, 15)],
            unsealed: 0,
            undecryptable: 0,
            disk: Some(DiskScan { files: 9, bytes: 70_000, envelopes: vec![(second, 40)] }),
            created: later(5),
        };
        spoil(&mut facts);
        Census::sign(own, facts).unwrap().as_bytes().to_vec()
    }

    fn draft(&self, nodes: &[&NodeKeyFile]) -> ReceiptDraft {
        let keyrings = [&self.staged, &self.active, &self.gone];
        ReceiptDraft {
            backend: Backend::Kv,
            tool_version: "unibus-migrate 0.1.0".into(),
            plan: [11; 32],
            lineage: *self.staged.0.lineage(),
            from: vec![Epoch::FIRST],
            to: Epoch::from_stored(2).unwrap(),
            started: NOW,
            finished: later(8),
            steps: vec![
                Step { name: "stage".into(), milliseconds: 90 },
                Step { name: "reseal".into(), milliseconds: 4100 },
            ],
            records: 12,
            entries: 15,
            retained: true,
            fenced: vec!["gamma".parse().unwrap()],
            previous: None,
            keyrings: keyrings.map(|(keyring, _)| keyring.as_bytes().to_vec()).into(),
            acknowledgements: nodes.iter().map(|own| Self::word(own, &self.staged, 2)).collect(),
            censuses: nodes.iter().map(|own| self.census(own, |_| {})).collect(),
            forgotten: nodes.iter().map(|own| Self::word(own, &self.gone, 7)).collect(),
        }
    }
}

fn signed(receipt: &Value, own: &NodeKeyFile) -> String {
    let key = own.slots()[0].signing();
    let signature = key.sign(RECEIPT_LABEL, receipt.to_string().as_bytes());
    json!({ "receipt": receipt, "signature": { "key": hex(&key.public()), "signature": hex(&signature) } })
        .to_string()
}

fn good(w: &World, r: &Rotation) -> Receipt {
    let both = r.draft(&[&w.alpha, &w.beta]);
    let put_good = |name: &str, comment: &str, physical: bool, receipt: &Receipt, text: &str| {
        let fields = [
            w.pin(),
            ("hash", receipt.hash().to_string()),
            (
                "nodes",
                receipt.verify(None).unwrap().nodes.iter().map(|n| n.as_str()).collect::<Vec<_>>().join(" "),
            ),
            ("from", "1".into()),
            ("to", "2".into()),
            ("physical", physical.to_string()),
        ];
        put(&format!("receipt_ok{name}"), "receipt", "ok", comment, &fields, text.as_bytes());
    };
    let sign = |draft: ReceiptDraft| Receipt::sign(&w.alpha, &r.nodeset, draft).unwrap();
    let receipt = sign(both.clone());
    put_good("", "as it is written", true, &receipt, receipt.as_str());
    let value: Value = serde_json::from_str(receipt.as_str()).unwrap();
    let pretty = serde_json::to_string_pretty(&value).unwrap();
    put_good("_pretty", "the same with space", true, &receipt, &format!("\n{pretty}\n"));
    let mut unseen = both.clone();
    unseen.censuses[1] = r.census(&w.beta, |facts| facts.disk = None);
    let unseen = sign(unseen);
    put_good("_not_physical", "one node did not look at its disk", false, &unseen, unseen.as_str());
    let next = sign(ReceiptDraft { previous: Some(DocumentHash::of(b"before")), ..both });
    put_good("_next", "names one before", true, &next, next.as_str());
    let alone = |facts: &mut CensusFacts| (facts.stream, facts.barrier) = ("sqlcipher".into(), 77);
    let database = ReceiptDraft {
        backend: Backend::Sqlcipher,
        censuses: vec![r.census(&w.alpha, alone)],
        fenced: Vec::new(),
        ..r.draft(&[&w.alpha])
    };
    let database = sign(database);
    put_good("_sqlcipher", "of a database", true, &database, database.as_str());
    receipt
}

/// What the decoder refuses, before it looks into any document.
fn malformed(w: &World, receipt: &Value) {
    let mut small = receipt.clone();
    for list in ["keyrings", "acknowledgements", "censuses", "forgotten"] {
        small["documents"][list] = json!(["YQ=="]);
    }
    small["documents"]["nodeset"] = json!("YQ==");
    let put_text = |name: &str, expect: &str, text: &str| {
        put(&format!("receipt_{name}"), "receipt", expect, name, &[w.pin()], text.as_bytes());
    };
    let put_field = |name: &str, expect: &str, change: &dyn Fn(&mut Value)| {
        let mut value = small.clone();
        change(&mut value);
        put_text(name, expect, &signed(&value, &w.alpha));
    };
    let whole = signed(&small, &w.alpha);
    put_text("empty", "Field(JSON)", "");
    put_text("cut", "Field(JSON)", &whole[..whole.len() - 1]);
    put_text("trailing", "Field(JSON)", &format!("{whole}{{}}"));
    put_text("array", "Field(JSON)", &format!("[{whole}]"));
    put_text("deep", "Field(JSON)", &"[".repeat(4000));
    put_text("byte_order_mark", "Field(JSON)", &format!("\u{feff}{whole}"));
    let turned = |from: &str, to: &str| {
        assert!(whole.contains(from), "{from}");
        whole.replacen(from, to, 1)
    };
    put_text(
        "name_twice",
        "Field(JSON)",
        &turned("\"retained\":true", "\"retained\":true,\"retained\":true"),
    );
    put_text("name_twice_escaped", "Field(JSON)", &turned("\"to\":2", "\"to\":2,\"\\u0074o\":2"));
    put_text("fraction", "Field(JSON)", &turned("\"to\":2", "\"to\":2.0"));
    put_text("exponent", "Field(JSON)", &turned("\"to\":2", "\"to\":2e0"));
    put_text("negative", "Field(JSON)", &turned("\"to\":2", "\"to\":-2"));
    put_text("minus_zero", "Field(JSON)", &turned("\"to\":2", "\"to\":-0"));
    put_text("integer_too_large", "Field(JSON)", &turned("\"records\":12", "\"records\":9007199254740992"));
    put_text("unsigned", "Field(signature)", &json!({ "receipt": small }).to_string());
    put_text("no_receipt", "Field(receipt)", &json!({ "signature": {} }).to_string());
    put_text("more_outside", "NotCanonical", &turned("{\"receipt\"", "{\"more\":1,\"receipt\""));
    put_text("more_in_signature", "NotCanonical", &turned("{\"key\":", "{\"k\":0,\"key\":"));
    put_text("key_long", "Field(key)", &turned("{\"key\":\"", "{\"key\":\"00"));
    put_text("changed", "Signature", &turned("\"records\":12", "\"records\":13"));
    put_field("format", "Magic", &|r| r["format"] = json!("unibus-snapshot-1"));
    put_field("version", "Version", &|r| r["format"] = json!("unibus-receipt-2"));
    put_field("operation", "Field(operation)", &|r| r["operation"] = json!("rotate node"));
    put_field("backend", "Field(backend)", &|r| r["backend"] = json!("memory"));
    put_field("tool_version", "Field(tool_version)", &|r| r["tool_version"] = json!("a\nb"));
    put_field("plan", "Field(plan)", &|r| r["plan"] = json!("00"));
    put_field("cluster", "Field(cluster)", &|r| r["cluster"] = json!(w.pin().1.to_uppercase()));
    put_field("lineage", "Field(lineage)", &|r| r["lineage"] = json!("07"));
    put_field("from_empty", "Field(from)", &|r| r["from"] = json!([]));
    put_field("from_order", "Field(from)", &|r| r["from"] = json!([2, 1]));
    put_field("to_zero", "Field(to)", &|r| r["to"] = json!(0));
    put_field("started", "Field(started)", &|r| r["started"] = json!("2027-01-15T09:00:00+01:00"));
    put_field("finished", "Field(finished)", &|r| r["finished"] = json!("2027-01-15"));
    put_field("steps", "Field(steps)", &|r| r["steps"] = json!([1]));
    put_field("step_name", "Field(name)", &|r| r["steps"][0]["name"] = json!(""));
    put_field("counts", "Field(entries)", &|r| r["counts"] = json!({ "records": 12 }));
    put_field("retained", "Field(retained)", &|r| r["retained"] = json!(null));
    put_field("fenced", "Field(fenced)", &|r| r["fenced"] = json!(["b", "a"]));
    put_field("previous", "Field(previous)", &|r| r["previous"] = json!(""));
    put_field("more", "NotCanonical", &|r| r["more"] = json!(1));
    put_field("no_documents", "Field(keyrings)", &|r| r["documents"]["keyrings"] = json!([]));
    put_field("base64", "Field(censuses)", &|r| r["documents"]["censuses"][0] = json!("YQ"));
    put_field("too_many_words", "Field(forgotten)", &|r| {
        r["documents"]["forgotten"] = json!(vec!["YQ=="; 65]);
    });
    put_field("document", "Document Truncated", &|_| {});
}

/// What is signed by a node and does not follow.
fn unproven(w: &World, r: &Rotation, receipt: &Value) {
    let put_spoilt = |name: &str, expect: &str, own: &NodeKeyFile, change: &dyn Fn(&mut Value)| {
        let mut value = receipt.clone();
        change(&mut value);
        let text = signed(&value, own);
        put(&format!("receipt_{name}"), "receipt", expect, name, &[w.pin()], text.as_bytes());
    };
    let own = &w.alpha;
    let stranger = node_of_seed([9; 32], "alpha", &w.operator.cluster_id());
    put_spoilt("other_signer", "Signer", &stranger, &|_| {});
    let other = Vector::read(&folder().join("pin_ok_python.vec"));
    let other = unibus_keyfile::id::ClusterId::from_bytes([other.bytes[5]; 32]).to_string();
    put_spoilt("other_cluster", "Differs(cluster)", own, &|r| r["cluster"] = json!(other.clone()));
    put_spoilt("records", "Differs(records)", own, &|r| r["counts"]["records"] = json!(11));
    put_spoilt("not_retained", "Differs(retained)", own, &|r| r["retained"] = json!(false));
    put_spoilt("fenced_node", "Differs(fenced)", own, &|r| r["fenced"] = json!(["beta"]));
    put_spoilt("time", "Differs(finished)", own, &|r| r["finished"] = json!("2026-01-01T00:00:00Z"));
    let activated = |r: &mut Value| drop(r["documents"]["keyrings"].as_array_mut().unwrap().remove(1));
    put_spoilt("keyring_missing", "Keyrings", own, &activated);
    for list in ["acknowledgements", "censuses", "forgotten"] {
        put_spoilt(&format!("{list}_missing"), "Missing", own, &|r| {
            drop(r["documents"][list].as_array_mut().unwrap().pop());
        });
    }
    let word =
        |r: &mut Value, list: &str, bytes: &[u8]| r["documents"][list][1] = BASE64.encode(bytes).into();
    let old = Rotation::word(&w.beta, &r.active, 2);
    put_spoilt("acknowledgement_of_another", "Word", own, &|r| word(r, "acknowledgements", &old));
    put_spoilt("not_forgotten", "Word", own, &|r| word(r, "forgotten", &old));
    let left = r.census(&w.beta, |f| f.entries.insert(0, (Epoch::FIRST, 1)));
    put_spoilt("census_old_epoch", "Word", own, &|r| word(r, "censuses", &left));
    let residue = r.census(&w.beta, |f| f.disk.as_mut().unwrap().envelopes.push((Epoch::FIRST, 1)));
    put_spoilt("census_residue", "Word", own, &|r| word(r, "censuses", &residue));
    let digest = r.census(&w.beta, |f| f.digest[0] ^= 1);
    put_spoilt("census_digest", "Word", own, &|r| word(r, "censuses", &digest));
    let barrier = r.census(&w.beta, |f| f.barrier_id[0] ^= 1);
    put_spoilt("census_barrier", "Word", own, &|r| word(r, "censuses", &barrier));
}

pub(super) fn receipts(w: &World) {
    let r = Rotation::new(w);
    let receipt = good(w, &r);
    let receipt: Value = serde_json::from_str(receipt.as_str()).unwrap();
    malformed(w, &receipt["receipt"]);
    unproven(w, &r, &receipt["receipt"]);
}

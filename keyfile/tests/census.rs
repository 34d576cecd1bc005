//! Censuses: whose word counts, about which replica, and what is refused.

#![cfg(test)]

use unibus_keyfile::{
    census::{Census, CensusFacts, DiskScan},
    error::DocumentError,
    id::{Epoch, Lineage, UnixTime},
    keyring::Keyring,
    node_key::NodeKeyFile,
    nodeset::{Nodeset, Plan},
    operator_key::OperatorKey,
    signed,
};

const NOW: UnixTime = UnixTime::from_seconds(1_800_000_000);

struct World {
    operator: OperatorKey,
    alpha: NodeKeyFile,
    beta: NodeKeyFile,
    nodeset: Nodeset,
    keyring: Keyring,
}

fn node(name: &str, operator: &OperatorKey) -> NodeKeyFile {
    NodeKeyFile::generate(name.parse().unwrap(), operator.cluster_id())
}

fn world() -> World {
    let operator = OperatorKey::generate();
    let (alpha, beta) = (node("alpha", &operator), node("beta", &operator));
    let plan = Plan::first(&operator).with_node(alpha.member(NOW)).with_node(beta.member(NOW));
    let nodeset = plan.sign(&operator).unwrap();
    let keyring = Keyring::create(&nodeset, &alpha, Lineage::random(), None, NOW).unwrap().0;
    World { operator, alpha, beta, nodeset, keyring }
}

fn epoch(number: u32) -> Epoch {
    Epoch::from_stored(number).unwrap()
}

fn facts(w: &World) -> CensusFacts {
    CensusFacts {
        cluster: *w.keyring.cluster(),
        lineage: *w.keyring.lineage(),
        keyring_version: w.keyring.version(),
        keyring_hash: w.keyring.hash(),
        stream: "KV_UNIBUS_control_2".into(),
        barrier: (1 << 40) + 17,
        barrier_id: [3; 16],
        digest: [4; 32],
        records: 12,
        entries: vec![(epoch(2), 14)],
        unsealed: 0,
        undecryptable: 0,
        disk: Some(DiskScan { files: 9, bytes: 70_000, envelopes: vec![(epoch(1), 1), (epoch(2), 20)] }),
        created: NOW,
    }
}

fn sign(w: &World, own: &NodeKeyFile) -> Census {
    Census::sign(own, facts(w)).unwrap()
}

#[test]
fn it_reads_back_as_it_was_signed() {
    let w = world();
    let signed = sign(&w, &w.beta);
    let again = Census::decode(signed.as_bytes(), &w.nodeset).unwrap();
    assert_eq!(again, signed);
    assert_eq!((again.node(), again.facts()), (w.beta.name(), &facts(&w)));
    assert_eq!((again.cluster(), again.lineage()), (w.keyring.cluster(), w.keyring.lineage()));
    assert_eq!((again.keyring_version(), again.keyring_hash()), (1, w.keyring.hash()));
    assert_eq!((again.stream(), again.barrier()), ("KV_UNIBUS_control_2", (1 << 40) + 17));
    assert_eq!((again.barrier_id(), again.digest(), again.records()), (&[3; 16], &[4; 32], 12));
    assert_eq!((again.entries(), again.unsealed(), again.undecryptable()), (&[(epoch(2), 14)][..], 0, 0));
    assert_eq!((again.disk().unwrap().files, again.created()), (9, NOW));
    assert!(again.is_of(&w.keyring));
    let other = Keyring::create(&w.nodeset, &w.alpha, Lineage::random(), None, NOW).unwrap().0;
    assert!(!again.is_of(&other), "the same version of another lineage");
}

#[test]
fn one_who_did_not_look_at_its_disk_says_so() {
    let w = world();
    let signed = Census::sign(&w.alpha, CensusFacts { disk: None, ..facts(&w) }).unwrap();
    assert_eq!(Census::decode(signed.as_bytes(), &w.nodeset).unwrap().disk(), None);
    let nothing = DiskScan { files: 0, bytes: 0, envelopes: Vec::new() };
    let signed = Census::sign(&w.alpha, CensusFacts { disk: Some(nothing.clone()), ..facts(&w) }).unwrap();
    assert_eq!(Census::decode(signed.as_bytes(), &w.nodeset).unwrap().disk(), Some(&nothing));
}

#[test]
fn counts_are_put_in_order_and_none_is_counted_twice() {
    let w = world();
    let entries = vec![(epoch(3), 1), (epoch(1), 0), (epoch(2), 5)];
    let signed = Census::sign(&w.alpha, CensusFacts { entries, ..facts(&w) }).unwrap();
    assert_eq!(signed.entries(), [(epoch(2), 5), (epoch(3), 1)]);
    let twice = vec![(epoch(2), 5), (epoch(2), 6)];
    for facts in [
        CensusFacts { entries: twice.clone(), ..facts(&w) },
        CensusFacts { disk: Some(DiskScan { files: 1, bytes: 1, envelopes: twice }), ..facts(&w) },
        CensusFacts { keyring_version: 0, ..facts(&w) },
        CensusFacts { stream: String::new(), ..facts(&w) },
        CensusFacts { stream: "a b".into(), ..facts(&w) },
        CensusFacts { stream: "s".repeat(256), ..facts(&w) },
    ] {
        let refused = Census::sign(&w.alpha, facts.clone()).unwrap_err();
        assert!(matches!(refused, DocumentError::Invalid(_)), "{facts:?}: {refused:?}");
    }
}

#[test]
fn every_flip_and_every_cut_is_refused() {
    let w = world();
    let signed = sign(&w, &w.alpha);
    let bytes = signed.as_bytes();
    for at in 0..bytes.len() {
        for mask in [0x01, 0x80] {
            let mut bad = bytes.to_vec();
            bad[at] ^= mask;
            assert!(Census::decode(&bad, &w.nodeset).is_err(), "flip at {at}");
        }
        assert!(Census::decode(&bytes[..at], &w.nodeset).is_err(), "cut at {at}");
    }
    assert!(Census::decode(&[bytes, &[0]].concat(), &w.nodeset).is_err());
}

#[test]
fn a_node_cannot_count_for_another_nor_a_stranger_for_any() {
    let w = world();
    // Beta's word, with alpha's signature in place of its own.
    let bytes = sign(&w, &w.beta).as_bytes().to_vec();
    let body = &bytes[signed::HEADER_BYTES..bytes.len() - 1 - 32 - 64];
    let by_alpha = signed::encode(signed::Kind::Census, body, &[&w.alpha.slots()[0].signing()]);
    let refused = Census::decode(&by_alpha, &w.nodeset).unwrap_err();
    assert!(matches!(refused, DocumentError::Signer { .. }), "{refused:?}");
    // A stranger who took beta's name.
    let mallory = node("beta", &w.operator);
    let refused = Census::decode(sign(&w, &mallory).as_bytes(), &w.nodeset).unwrap_err();
    assert!(matches!(refused, DocumentError::Signer { .. }), "{refused:?}");
    let unsigned = signed::encode(signed::Kind::Census, body, &[]);
    let refused = Census::decode(&unsigned, &w.nodeset).unwrap_err();
    assert!(matches!(refused, DocumentError::Signature { .. }), "{refused:?}");
    // Not even with the same body does one kind pass for another.
    let other = signed::encode(signed::Kind::Acknowledgement, body, &[&w.beta.slots()[0].signing()]);
    assert!(matches!(Census::decode(&other, &w.nodeset), Err(DocumentError::Decode { .. })));
}

#[test]
fn a_node_that_was_removed_is_no_longer_heard() {
    let w = world();
    let without = w.nodeset.next().without_node(w.beta.name()).sign(&w.operator).unwrap();
    let refused = Census::decode(sign(&w, &w.beta).as_bytes(), &without).unwrap_err();
    assert!(matches!(refused, DocumentError::Signer { .. }), "{refused:?}");
}

#[test]
fn a_node_that_changes_its_key_is_heard_under_the_old_and_the_new_nodeset() {
    let mut w = world();
    w.beta.rotate().unwrap();
    let two = w.nodeset.next().with_node(w.beta.member(NOW)).sign(&w.operator).unwrap();
    let signed = sign(&w, &w.beta);
    Census::decode(signed.as_bytes(), &w.nodeset).unwrap();
    Census::decode(signed.as_bytes(), &two).unwrap();
    w.beta.retire();
    let later = sign(&w, &w.beta);
    Census::decode(later.as_bytes(), &two).unwrap();
    assert!(Census::decode(later.as_bytes(), &w.nodeset).is_err());
}

#[test]
fn another_clusters_is_refused_by_name() {
    let (w, v) = (world(), world());
    let refused = Census::decode(sign(&v, &v.alpha).as_bytes(), &w.nodeset).unwrap_err();
    assert!(matches!(refused, DocumentError::Cluster { .. }), "{refused:?}");
    let refused = Census::sign(&v.alpha, facts(&w)).unwrap_err();
    assert!(matches!(refused, DocumentError::Cluster { .. }), "{refused:?}");
}

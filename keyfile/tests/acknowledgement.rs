//! Acknowledgements: whose word counts, for which keyring, and what is refused.

#![cfg(test)]

use unibus_keyfile::{
    acknowledgement::Acknowledgement,
    error::DocumentError,
    id::{Epoch, Lineage, UnixTime},
    keyring::{Keyring, Secrets},
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
    secrets: Secrets,
}

fn node(name: &str, operator: &OperatorKey) -> NodeKeyFile {
    NodeKeyFile::generate(name.parse().unwrap(), operator.cluster_id())
}

fn world() -> World {
    let operator = OperatorKey::generate();
    let (alpha, beta) = (node("alpha", &operator), node("beta", &operator));
    let plan = Plan::first(&operator).with_node(alpha.member(NOW)).with_node(beta.member(NOW));
    let nodeset = plan.sign(&operator).unwrap();
    let (keyring, secrets) = Keyring::create(&nodeset, &alpha, Lineage::random(), None, NOW).unwrap();
    World { operator, alpha, beta, nodeset, keyring, secrets }
}

fn sign(w: &World, own: &NodeKeyFile) -> Acknowledgement {
    Acknowledgement::sign(own, &w.keyring, &w.secrets, NOW).unwrap()
}

#[test]
fn it_reads_back_and_names_the_keyring_and_what_it_opens() {
    let w = world();
    let signed = sign(&w, &w.beta);
    let again = Acknowledgement::decode(signed.as_bytes(), &w.nodeset).unwrap();
    assert_eq!(again, signed);
    assert_eq!(again.node(), w.beta.name());
    assert_eq!((again.keyring_version(), again.keyring_hash()), (1, w.keyring.hash()));
    assert_eq!((again.cluster(), again.lineage()), (w.keyring.cluster(), w.keyring.lineage()));
    assert_eq!((again.epochs(), again.created()), (&[Epoch::FIRST][..], NOW));
    assert!(again.is_of(&w.keyring));
    let next = w.keyring.rewrap(&w.nodeset, &w.alpha, &w.secrets).unwrap();
    assert!(!again.is_of(&next), "another version, another word");
    let other = Keyring::create(&w.nodeset, &w.alpha, Lineage::random(), None, NOW).unwrap().0;
    assert!(!again.is_of(&other), "the same version of another lineage");
}

#[test]
fn every_flip_and_every_cut_is_refused() {
    let w = world();
    let signed = sign(&w, &w.alpha);
    let bytes = signed.as_bytes();
    for at in 0..bytes.len() {
        let mut bad = bytes.to_vec();
        bad[at] ^= 0x01;
        assert!(Acknowledgement::decode(&bad, &w.nodeset).is_err(), "flip at {at}");
        assert!(Acknowledgement::decode(&bytes[..at], &w.nodeset).is_err(), "cut at {at}");
    }
}

#[test]
fn a_node_cannot_speak_for_another_nor_a_stranger_for_any() {
    let w = world();
    // Beta's word, with alpha's signature in place of its own.
    let bytes = sign(&w, &w.beta).as_bytes().to_vec();
    let body = &bytes[signed::HEADER_BYTES..bytes.len() - 1 - 32 - 64];
    let by_alpha = signed::encode(signed::Kind::Acknowledgement, body, &[&w.alpha.slots()[0].signing()]);
    let refused = Acknowledgement::decode(&by_alpha, &w.nodeset).unwrap_err();
    assert!(matches!(refused, DocumentError::Signer { .. }), "{refused:?}");
    // A stranger who took beta's name.
    let mallory = node("beta", &w.operator);
    let refused = Acknowledgement::decode(sign(&w, &mallory).as_bytes(), &w.nodeset).unwrap_err();
    assert!(matches!(refused, DocumentError::Signer { .. }), "{refused:?}");
    let unsigned = signed::encode(signed::Kind::Acknowledgement, body, &[]);
    let refused = Acknowledgement::decode(&unsigned, &w.nodeset).unwrap_err();
    assert!(matches!(refused, DocumentError::Signature { .. }), "{refused:?}");
}

#[test]
fn a_node_that_was_removed_is_no_longer_heard() {
    let w = world();
    let without = w.nodeset.next().without_node(w.beta.name()).sign(&w.operator).unwrap();
    let refused = Acknowledgement::decode(sign(&w, &w.beta).as_bytes(), &without).unwrap_err();
    assert!(matches!(refused, DocumentError::Signer { .. }), "{refused:?}");
}

#[test]
fn a_node_that_changes_its_key_is_heard_under_the_old_and_the_new_nodeset() {
    let mut w = world();
    w.beta.rotate().unwrap();
    let two = w.nodeset.next().with_node(w.beta.member(NOW)).sign(&w.operator).unwrap();
    let signed = sign(&w, &w.beta);
    Acknowledgement::decode(signed.as_bytes(), &w.nodeset).unwrap();
    Acknowledgement::decode(signed.as_bytes(), &two).unwrap();
    w.beta.retire();
    let later = sign(&w, &w.beta);
    Acknowledgement::decode(later.as_bytes(), &two).unwrap();
    assert!(Acknowledgement::decode(later.as_bytes(), &w.nodeset).is_err());
}

#[test]
fn another_clusters_is_refused_by_name() {
    let (w, v) = (world(), world());
    let refused = Acknowledgement::decode(sign(&v, &v.alpha).as_bytes(), &w.nodeset).unwrap_err();
    assert!(matches!(refused, DocumentError::Cluster { .. }), "{refused:?}");
    let refused = Acknowledgement::sign(&v.alpha, &w.keyring, &w.secrets, NOW).unwrap_err();
    assert!(matches!(refused, DocumentError::Cluster { .. }), "{refused:?}");
}

#[test]
fn secrets_of_another_keyring_are_not_acknowledged() {
    let w = world();
    let (_, others) = Keyring::create(&w.nodeset, &w.alpha, Lineage::random(), None, NOW).unwrap();
    let refused = Acknowledgement::sign(&w.alpha, &w.keyring, &others, NOW).unwrap_err();
    assert!(matches!(refused, DocumentError::Invalid(_)), "{refused:?}");
}

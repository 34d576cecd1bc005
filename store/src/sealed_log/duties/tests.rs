//! Who wraps a keyring for a nodeset in which a key has changed.

use std::sync::Arc;

use unibus_keyfile::nodeset::Nodeset;

use super::*;
use crate::keys::Keys;
use crate::sealed_log::fixture::{NOW, Site, document, node};
use crate::sealed_log::stream::Generation;

#[test]
fn a_keyring_is_left_to_the_node_whose_key_has_changed_for_a_while_and_to_nobody_else() {
    let site = Site::new();
    let beta = NodeKeyFile::generate(node("beta"), site.operator.cluster_id());
    let two = site.nodeset.next().with_node(beta.member(NOW)).sign(&site.operator).unwrap();
    let keyring = site.keyring.rewrap(&two, &site.own, &site.secrets).unwrap();
    let mut own = NodeKeyFile::parse(&site.own.to_text()).unwrap();
    own.rotate().unwrap();
    let changed = two.next().with_node(own.member(NOW)).sign(&site.operator).unwrap();
    let gamma = NodeKeyFile::generate(node("gamma"), site.operator.cluster_id());
    let wider = two.next().with_node(gamma.member(NOW)).sign(&site.operator).unwrap();
    let known = Some(keyring.hash());
    let of = |nodeset: &Nodeset, own: &NodeKeyFile| {
        let keys = Keys::Node(Arc::new(NodeKeyFile::parse(&own.to_text()).unwrap()));
        let stands = document(&DocumentName::Nodeset, 3, two.as_bytes());
        let keyring = document(&DocumentName::Keyring, 4, keyring.as_bytes());
        // The key that signed it may be out of the nodeset: it was accepted before.
        let mut found =
            Documents::open(&keys, nodeset.clone(), (&stands, &keyring), Generation::FIRST, known).unwrap();
        // As if it had been published meanwhile.
        found.published_nodeset = nodeset.version();
        found
    };
    let owed = |nodeset: &Nodeset, own: &NodeKeyFile, waited| due(&of(nodeset, own), own, waited);
    assert_eq!(owed(&changed, &own, false), Some(Due::Keyring), "it is its own to wrap");
    assert_eq!(owed(&changed, &beta, false), Some(Due::Acknowledgement), "another's");
    assert_eq!(owed(&changed, &beta, true), Some(Due::Keyring), "it does not come");
    // Nobody's key has changed that somebody could wrap it with: a node that is new has no old one.
    assert_eq!(owed(&wider, &beta, false), Some(Due::Keyring));
    assert_eq!(owed(&two, &beta, true), Some(Due::Acknowledgement), "it is wrapped already");
}

//! Documents that somebody signed, and yet do not follow what is there.

use unibus_keyfile::digest::StateDigest;
use unibus_keyfile::id::Lineage;
use unibus_keyfile::node_key::NodeKeyFile;
use unibus_keyfile::nodeset::Plan;

use super::*;
use crate::sealed_log::fixture::{NOW, Site, document, node};
use crate::sealed_log::stream::Generation;

fn adopt(
    site: &Site,
    documents: &mut Documents,
    name: DocumentName,
    bytes: &[u8],
) -> Result<Adopted, LogError> {
    documents.adopt(&site.keys(), &name, &document(&name, 9, bytes), false)
}

fn assert_planted(found: Result<Adopted, LogError>) {
    assert!(matches!(found, Err(LogError::Tampered { sequence: Sequence(9), .. })), "{found:?}");
}

fn witness(documents: &Documents) -> Witness {
    Witness {
        cluster: *documents.keyring.cluster(),
        lineage: *documents.keyring.lineage(),
        sequence: Sequence(5),
        digest: StateDigest::EMPTY,
        nodeset_version: documents.nodeset.version(),
        nodeset_hash: documents.nodeset.hash(),
        keyring_version: documents.keyring.version(),
        keyring_hash: documents.keyring.hash(),
        last_drill: None,
        last_proof: None,
    }
}

/// The nodeset of the site with another node in it.
fn wider(site: &Site, name: &str) -> (NodeKeyFile, Nodeset) {
    let other = NodeKeyFile::generate(node(name), site.operator.cluster_id());
    let nodeset = site.nodeset.next().with_node(other.member(NOW)).sign(&site.operator).unwrap();
    (other, nodeset)
}

#[test]
fn documents_are_held_against_what_this_node_has_seen() {
    let site = Site::new();
    let documents = site.documents();
    let seen = witness(&documents);
    documents.not_older(&seen).unwrap();
    let other = Witness { lineage: Lineage::random(), ..seen };
    assert!(matches!(documents.not_older(&other), Err(LogError::OtherLineage { .. })));
    for (name, newer) in [
        ("nodeset", Witness { nodeset_version: 2, ..seen }),
        ("keyring", Witness { keyring_version: 2, ..seen }),
    ] {
        let error = documents.not_older(&newer).unwrap_err();
        assert_eq!(error.code(), "UB-L014");
        assert!(matches!(error, LogError::DocumentRolledBack { document, .. } if document == name));
    }
    let (nodeset_hash, keyring_hash) = (seen.keyring_hash, seen.nodeset_hash);
    for another in [Witness { nodeset_hash, ..seen }, Witness { keyring_hash, ..seen }] {
        assert!(matches!(documents.not_older(&another), Err(LogError::Tampered { .. })));
    }
    // Of an older version nothing is known that must be so.
    let older = Witness { nodeset_version: 0, keyring_version: 0, nodeset_hash, keyring_hash, ..seen };
    documents.not_older(&older).unwrap();
}

#[test]
fn a_keyring_follows_the_one_before_it() {
    let site = Site::new();
    let (_, nodeset) = wider(&site, "beta");
    let rewrap = |of: &Keyring| of.rewrap(&nodeset, &site.own, &site.secrets).unwrap();
    let next = rewrap(&site.keyring);
    let with_nodeset = || {
        let mut documents = site.documents();
        let found = adopt(&site, &mut documents, DocumentName::Nodeset, nodeset.as_bytes()).unwrap();
        assert_eq!(found, Adopted::Nodeset);
        documents
    };
    let mut documents = with_nodeset();
    let found = adopt(&site, &mut documents, DocumentName::Keyring, next.as_bytes()).unwrap();
    assert_eq!((found, documents.keyring.version()), (Adopted::Keyring, 2));
    // The same again at another place, and the one before it.
    let again = document(&DocumentName::Keyring, 10, next.as_bytes());
    assert!(documents.adopt(&site.keys(), &DocumentName::Keyring, &again, false).is_err());
    assert_planted(adopt(&site, &mut with_nodeset(), DocumentName::Keyring, site.keyring.as_bytes()));
    // One that skips a version.
    assert_planted(adopt(&site, &mut with_nodeset(), DocumentName::Keyring, rewrap(&next).as_bytes()));
    // One that a node of the cluster has signed, of the right version, behind another keyring: of another lineage, and
    // of this one.
    let twin = |lineage| {
        let (first, secrets) = Keyring::create(&site.nodeset, &site.own, lineage, None, NOW).unwrap();
        first.rewrap(&nodeset, &site.own, &secrets).unwrap()
    };
    for lineage in [Lineage::random(), *site.keyring.lineage()] {
        assert_planted(adopt(&site, &mut with_nodeset(), DocumentName::Keyring, twin(lineage).as_bytes()));
    }
}

#[test]
fn a_nodeset_is_newer_than_the_one_that_stands_and_there_is_one_of_each_version() {
    let site = Site::new();
    let (_, two) = wider(&site, "beta");
    let (_, other_two) = wider(&site, "gamma");
    let three = two.next().sign(&site.operator).unwrap();
    let mut documents = site.documents();
    assert_planted(adopt(&site, &mut documents, DocumentName::Nodeset, site.nodeset.as_bytes()));
    adopt(&site, &mut documents, DocumentName::Nodeset, three.as_bytes()).unwrap();
    for old in [&two, &three] {
        assert!(matches!(
            documents.adopt(
                &site.keys(),
                &DocumentName::Nodeset,
                &document(&DocumentName::Nodeset, 10, old.as_bytes()),
                false
            ),
            Err(LogError::Tampered { .. })
        ));
    }
    assert_eq!(documents.nodeset.version(), 3);
    // This node's file is of version 2, and so is what appears in the log.
    let published = document(&DocumentName::Nodeset, 1, site.nodeset.as_bytes());
    let keyring = document(&DocumentName::Keyring, 2, site.keyring.as_bytes());
    let open = |file: &Nodeset, published: &Raw| {
        Documents::open(&site.keys(), file.clone(), (published, &keyring), Generation::FIRST, None)
    };
    let mut documents = open(&two, &published).unwrap();
    assert_planted(adopt(&site, &mut documents, DocumentName::Nodeset, other_two.as_bytes()));
    adopt(&site, &mut documents, DocumentName::Nodeset, two.as_bytes()).unwrap();
    let both = open(&two, &document(&DocumentName::Nodeset, 1, other_two.as_bytes()));
    assert!(matches!(both, Err(LogError::Tampered { .. })), "at the start as well");
    // The newer one of file and log counts.
    assert_eq!(open(&two, &published).unwrap().nodeset.version(), 2);
    let newer = document(&DocumentName::Nodeset, 1, two.as_bytes());
    assert_eq!(open(&site.nodeset, &newer).unwrap().nodeset.version(), 2);
}

/// A replica that is catching up still has what was superseded.
#[test]
fn what_stood_before_the_documents_that_were_fetched_is_passed_over() {
    let site = Site::new();
    let (_, nodeset) = wider(&site, "beta");
    let before = site.documents();
    let keyring = before.keyring.rewrap(&nodeset, &site.own, &site.secrets).unwrap();
    let fetched = [
        document(&DocumentName::Nodeset, 5, nodeset.as_bytes()),
        document(&DocumentName::Keyring, 7, keyring.as_bytes()),
    ];
    let mut documents =
        Documents::open(&site.keys(), nodeset, (&fetched[0], &fetched[1]), Generation::FIRST, None).unwrap();
    for (name, sequence, bytes) in [
        (DocumentName::Nodeset, 1, site.nodeset.as_bytes()),
        (DocumentName::Keyring, 2, before.keyring.as_bytes()),
    ] {
        let adopted = documents.adopt(&site.keys(), &name, &document(&name, sequence, bytes), false);
        assert_eq!(adopted.unwrap(), Adopted::Noted);
        // The same behind them was put back.
        assert_planted(adopt(&site, &mut documents, name, bytes));
    }
    assert_eq!((documents.nodeset.version(), documents.keyring.version()), (2, 2));
}

#[test]
fn a_nodeset_of_another_operator_or_without_this_node_is_refused() {
    let site = Site::new();
    let stranger = unibus_keyfile::operator_key::OperatorKey::generate();
    let planted = Plan::first(&stranger).with_node(site.own.member(NOW)).sign(&stranger).unwrap();
    let planted = planted.next().sign(&stranger).unwrap();
    let found = adopt(&site, &mut site.documents(), DocumentName::Nodeset, planted.as_bytes());
    assert!(matches!(found, Err(LogError::UntrustedEntry { document: "nodeset", .. })), "{found:?}");
}

#[test]
fn an_acknowledgement_counts_for_the_node_that_signed_it_and_under_its_name() {
    let site = Site::new();
    let (beta, nodeset) = wider(&site, "beta");
    let mut documents = site.documents();
    adopt(&site, &mut documents, DocumentName::Nodeset, nodeset.as_bytes()).unwrap();
    let next = site.keyring.rewrap(&nodeset, &site.own, &site.secrets).unwrap();
    let secrets = next.unlock(&beta).unwrap();
    let word = Acknowledgement::sign(&beta, &next, &secrets, NOW).unwrap();
    let ack = |name: &str| DocumentName::Acknowledgement(node(name));
    assert_planted(adopt(&site, &mut documents, ack("alpha"), word.as_bytes()));
    assert!(documents.acknowledgements.is_empty());
    adopt(&site, &mut documents, ack("beta"), word.as_bytes()).unwrap();
    assert_eq!(documents.acknowledgements.get(&node("beta")).map(Acknowledgement::keyring_version), Some(2));
    // Without the node in the nodeset its word counts no more, and is no reason to refuse the log.
    let without = nodeset.next().without_node(&node("beta")).sign(&site.operator).unwrap();
    let later = document(&DocumentName::Nodeset, 10, without.as_bytes());
    assert_eq!(
        documents.adopt(&site.keys(), &DocumentName::Nodeset, &later, false).unwrap(),
        Adopted::Nodeset
    );
    adopt(&site, &mut documents, ack("beta"), word.as_bytes()).unwrap();
    assert!(documents.acknowledgements.is_empty());
    let mut cut = word.as_bytes().to_vec();
    cut.pop();
    let found = adopt(&site, &mut documents, ack("beta"), &cut);
    assert!(matches!(found, Err(LogError::UntrustedEntry { .. })), "{found:?}");
}

#[test]
fn a_document_with_a_header_is_none_of_ours() {
    let site = Site::new();
    let (_, two) = wider(&site, "beta");
    let mut raw = document(&DocumentName::Nodeset, 9, two.as_bytes());
    raw.foreign_header = Some("Nats-TTL");
    assert_planted(site.documents().adopt(&site.keys(), &DocumentName::Nodeset, &raw, false));
}

#[test]
fn a_keyring_that_was_accepted_once_is_taken_also_when_its_signer_is_gone_and_no_other_is() {
    let site = Site::new();
    let (beta, two) = wider(&site, "beta");
    let accepted = site.keyring.rewrap(&two, &site.own, &site.secrets).unwrap();
    // The one who signed it is out of the nodeset, and nobody has wrapped it anew.
    let three = two.next().without_node(site.own.name()).sign(&site.operator).unwrap();
    let keys = Keys::Node(Arc::new(beta));
    let open = |keyring: &Keyring, known: Option<DocumentHash>| {
        let published = document(&DocumentName::Nodeset, 3, three.as_bytes());
        let keyring = document(&DocumentName::Keyring, 4, keyring.as_bytes());
        Documents::open(&keys, three.clone(), (&published, &keyring), Generation::FIRST, known)
    };
    let found = open(&accepted, Some(accepted.hash())).unwrap();
    assert_eq!(found.keyring.hash(), accepted.hash());
    let refused = |keyring: &Keyring, known| {
        let found = open(keyring, known).unwrap_err();
        let LogError::UntrustedEntry { document: "keyring", source, .. } = found else {
            panic!("{found:?}");
        };
        assert!(matches!(source, DocumentError::Signer { .. }), "{source:?}");
    };
    refused(&accepted, None);
    refused(&accepted, Some(three.hash()));
    // What the removed node signs afterwards follows it, and is still not taken.
    let later = accepted.rewrap(&two, &site.own, &site.secrets).unwrap();
    refused(&later, Some(accepted.hash()));
}

//! A node changes its key while it serves: nothing is opened anew, and the old key opens nothing afterwards.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use unibus_keyfile::id::Fingerprint;
use unibus_keyfile::keyring::Summary;
use unibus_keyfile::node_key::NodeKeyFile;
use unibus_keyfile::nodeset::Nodeset;
use unibus_keyfile::operator_key::OperatorKey;
use unibus_keyfile::witness::{self, Witness};
use unibus_store::keys::{Keys, ReplaceError};
use unibus_store::sealed_log::{Access, LogError, LogOptions, SealedLog};
use unibus_store::store::{PostureState, Store};

use super::fixture::{Site, add, clock, now, until};

/// The same file, as if it was read again.
fn again(file: &NodeKeyFile) -> NodeKeyFile {
    NodeKeyFile::parse(&file.to_text()).unwrap()
}

fn sealed_by(site: &Site) -> String {
    let bytes = std::fs::read(Witness::path(&site.state_dir())).unwrap();
    witness::decode_header(&bytes).unwrap().0.to_string()
}

fn open_with(site: &Site, own: &NodeKeyFile, state: &Path) -> Result<SealedLog, LogError> {
    let (nodeset, keys) = (site.folder.path().join("nodeset"), Keys::Node(Arc::new(again(own))));
    SealedLog::open(LogOptions::new(vec![site.url()], keys, &nodeset, state, Arc::new(clock)))
}

#[tokio::test]
async fn a_node_changes_its_key_while_it_serves() {
    let site = Site::new();
    let log = site.open().unwrap();
    add(&log, 1..3).await;
    let mut own = again(&site.own);
    own.rotate().unwrap();
    log.replace_keys(Arc::new(again(&own))).unwrap();
    assert_eq!(sealed_by(&site), own.fingerprints()[0].to_string());
    assert_eq!(log.posture().node_key, Some(own.fingerprints()[0]));
    add(&log, 3..5).await;

    let two = site.nodeset.next().with_node(own.member(now())).sign(&site.operator).unwrap();
    std::fs::write(site.folder.path().join("nodeset"), two.as_bytes()).unwrap();
    let said = async || log.acknowledged().get(site.own.name()) == Some(&2);
    until("the new key is acknowledged", said).await;
    let keyring = log.keyring();
    let says = Summary::decode(keyring.as_bytes()).unwrap();
    assert_eq!(says.signers, own.fingerprints(), "signed by the new key and by the old one");
    assert!(keyring.unlock(&site.own).is_err(), "the old wrap is gone");
    assert!(!keyring.primary().exposed, "it is the same node");
    add(&log, 5..7).await;

    own.retire();
    log.replace_keys(Arc::new(again(&own))).unwrap();
    add(&log, 7..9).await;
    assert_eq!(log.posture().state, PostureState::Proven);
    log.verify().unwrap();
    drop(log);

    let refused = site.refused();
    assert_eq!(refused.class().exit_code(), 6, "{refused:?}");
    let text = format!("{refused:?}");
    assert!(text.contains("OtherKey"), "{text}");
    // Without the witness, too.
    let state = site.folder.path().join("other");
    std::fs::create_dir(&state).unwrap();
    let refused = open_with(&site, &site.own, &state).unwrap_err();
    assert_eq!((refused.code(), refused.class().exit_code()), ("UB-L001", 6), "{refused:?}");
    let texts = refused.to_string();
    for file in [&own, &*site.own] {
        assert!(texts.contains(&file.fingerprints()[0].to_string()), "{texts}");
    }
    let log = open_with(&site, &own, &site.state_dir()).unwrap();
    add(&log, 9..11).await;
}

#[tokio::test]
async fn a_key_file_that_cannot_go_on_changes_nothing() {
    let site = Site::new();
    let log = site.open().unwrap();
    add(&log, 1..3).await;
    let generate = |name: &str, operator: &OperatorKey| {
        Arc::new(NodeKeyFile::generate(name.parse().unwrap(), operator.cluster_id()))
    };
    let of = |error: Result<(), ReplaceError>| error.unwrap_err().code();
    assert_eq!(of(log.replace_keys(generate("beta", &site.operator))), "UB-S080");
    assert_eq!(of(log.replace_keys(generate("alpha", &OperatorKey::generate()))), "UB-S081");
    assert_eq!(of(log.replace_keys(generate("alpha", &site.operator))), "UB-S082");
    let mut early = again(&site.own);
    early.rotate().unwrap();
    early.retire();
    let error = log.replace_keys(Arc::new(early)).unwrap_err();
    assert!(error.to_string().contains(&site.own.fingerprints()[0].to_string()), "{error}");
    assert_eq!(sealed_by(&site), site.own.fingerprints()[0].to_string());
    add(&log, 3..5).await;
    let tool = SealedLog::open(site.options().access(Access::Visit)).unwrap();
    assert_eq!(of(tool.replace_keys(Arc::clone(&site.own))), "UB-S083");
    drop((tool, log));
    drop(site.open().unwrap());
}

#[tokio::test]
async fn a_witness_that_cannot_be_sealed_anew_leaves_the_key_as_it_is() {
    let site = Site::new();
    let log = site.open().unwrap();
    add(&log, 1..3).await;
    let mut own = again(&site.own);
    own.rotate().unwrap();
    let aside = site.folder.path().join("aside");
    std::fs::rename(site.state_dir(), &aside).unwrap();
    assert!(matches!(log.replace_keys(Arc::new(again(&own))), Err(ReplaceError::Witness(_))));
    std::fs::rename(&aside, site.state_dir()).unwrap();
    assert_eq!(log.posture().node_key, Some(site.own.fingerprints()[0]));
    add(&log, 3..5).await;
    drop(log);
    assert_eq!(sealed_by(&site), site.own.fingerprints()[0].to_string());
    drop(site.open().unwrap());
}

/// Brings a nodeset to a node that serves, and says which keys have signed the keyring for it, and when.
async fn wrapped(log: &SealedLog, nodeset: &Nodeset, path: &Path) -> (Vec<Fingerprint>, Duration) {
    std::fs::write(path, nodeset.as_bytes()).unwrap();
    until("the nodeset", async || log.nodeset().version() == nodeset.version()).await;
    let begun = Instant::now();
    let version = nodeset.version();
    until("the keyring", async || log.keyring().nodeset_version() == version).await;
    let says = Summary::decode(log.keyring().as_bytes()).unwrap();
    (says.signers, begun.elapsed())
}

#[tokio::test]
async fn the_keyring_is_left_to_the_node_whose_key_has_changed_and_wrapped_by_another_if_it_stays_away() {
    let site = Site::new();
    let other = NodeKeyFile::generate("beta".parse().unwrap(), site.operator.cluster_id());
    let two = site.nodeset.next().with_node(other.member(now())).sign(&site.operator).unwrap();
    let (own_path, path) = (site.folder.path().join("nodeset"), site.folder.path().join("nodeset-beta"));
    let state = site.folder.path().join("state-beta");
    std::fs::create_dir(&state).unwrap();
    for path in [&own_path, &path] {
        std::fs::write(path, two.as_bytes()).unwrap();
    }
    let alpha = site.open().unwrap();
    let keys = Keys::Node(Arc::new(again(&other)));
    let beta = LogOptions::new(vec![site.url()], keys, &path, &state, Arc::new(clock));
    let beta = SealedLog::open(beta).unwrap();
    until("both", async || beta.acknowledged().len() == 2).await;

    // It comes again within that time.
    let mut own = again(&site.own);
    own.rotate().unwrap();
    let three = two.next().with_node(own.member(now())).sign(&site.operator).unwrap();
    drop(alpha);
    let reopened = {
        let keys = Keys::Node(Arc::new(again(&own)));
        let options = LogOptions::new(vec![site.url()], keys, &own_path, &site.state_dir(), Arc::new(clock));
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_secs(2));
            SealedLog::open(options).unwrap()
        })
    };
    let (signers, _) = wrapped(&beta, &three, &path).await;
    assert_eq!(signers, own.fingerprints(), "only the node itself can show that it is the same");
    let alpha = reopened.join().unwrap();
    until("both", async || beta.acknowledged().values().all(|said| *said == beta.keyring().version())).await;

    // It stays away.
    own.retire();
    alpha.replace_keys(Arc::new(again(&own))).unwrap();
    own.rotate().unwrap();
    let four = three.next().with_node(own.member(now())).sign(&site.operator).unwrap();
    drop(alpha);
    let (signers, took) = wrapped(&beta, &four, &path).await;
    assert_eq!(signers, other.fingerprints());
    println!("wrapped by another after {took:?}");
    assert!(took >= Duration::from_secs(4), "{took:?}: it was not waited for");
    let alpha = open_with(&site, &own, &site.state_dir()).unwrap();
    add(&alpha, 1..3).await;
}

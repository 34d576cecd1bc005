//! What keeps a key from being changed to another's, or dropped too early.

use std::collections::BTreeMap;
use std::path::Path;

use unibus_keyfile::durable::{self, Sync};
use unibus_keyfile::id::{Lineage, UnixTime};
use unibus_keyfile::key_text;
use unibus_keyfile::keyring::Keyring;
use unibus_keyfile::node_key::NodeKeyFile;
use unibus_keyfile::nodeset::{Nodeset, Plan};
use unibus_keyfile::operator_key::OperatorKey;
use unibus_keyfile::request::Request;
use unibus_store::keys::KeysReport;

use super::approve;
use super::own::{Step, held, next};
use super::stand::{Stand, is_listed, is_of_this_node};

const NOW: UnixTime = UnixTime::from_seconds(1_800_000_000);
const NAMES: [&str; 3] = ["alpha", "beta", "gamma"];

fn again(own: &NodeKeyFile) -> NodeKeyFile {
    NodeKeyFile::parse(&own.to_text()).unwrap()
}

/// A cluster whose first node changes its key: the nodeset and the keyring before and after.
struct Cluster {
    operator: OperatorKey,
    own: NodeKeyFile,
    nodesets: [Nodeset; 2],
    keyrings: [Keyring; 2],
}

impl Cluster {
    fn of(count: usize) -> Self {
        let operator = OperatorKey::generate();
        let nodes: Vec<_> = NAMES
            .iter()
            .take(count)
            .map(|name| NodeKeyFile::generate(name.parse().unwrap(), operator.cluster_id()))
            .collect();
        let plan = nodes.iter().fold(Plan::first(&operator), |plan, node| plan.with_node(node.member(NOW)));
        let first = plan.sign(&operator).unwrap();
        let mut own = again(&nodes[0]);
        let (keyring, secrets) = Keyring::create(&first, &own, Lineage::random(), None, NOW).unwrap();
        own.rotate().unwrap();
        let second = first.next().with_node(own.member(NOW)).sign(&operator).unwrap();
        let wrapped = keyring.rewrap(&second, &own, &secrets).unwrap();
        Self { operator, own, nodesets: [first, second], keyrings: [keyring, wrapped] }
    }

    /// How the first node stands: which nodeset counts, which keyring, and who has acknowledged which.
    fn stand(&self, nodeset: usize, keyring: usize, said: &[(&str, u64)]) -> Stand {
        let said = said.iter().map(|(node, version)| ((*node).to_owned(), *version)).collect();
        let documents = (&self.nodesets[nodeset], &self.keyrings[keyring]);
        Stand {
            own: again(&self.own),
            report: KeysReport::new(&self.own, documents, said, None),
            nodeset: self.nodesets[nodeset].clone(),
            newest: self.nodesets[1].clone(),
            is_served: true,
        }
    }
}

#[test]
fn the_old_key_is_dropped_once_it_is_wrapped_for_the_new_one_and_two_others_have_said_so() {
    let three = Cluster::of(3);
    let step = |nodeset, keyring, said: &[(&str, u64)]| next(&three.stand(nodeset, keyring, said), false);
    let (all, own) = ([("alpha", 2), ("beta", 2), ("gamma", 2)], ("alpha", 2));
    assert_eq!(step(1, 1, &all), Step::Retire, "the control");
    for said in [
        &[][..],
        &[own],
        &[own, ("beta", 2)],
        // Of the keyring before.
        &[own, ("beta", 2), ("gamma", 1)],
        // Not this node itself.
        &[("beta", 2), ("gamma", 2)],
        &[("alpha", 1), ("beta", 2), ("gamma", 2)],
        // Nobody whom the nodeset lists.
        &[own, ("beta", 2), ("delta", 2)],
    ] {
        assert_eq!(step(1, 1, said), Step::Confirm, "{said:?}");
    }
    // Everybody has said something, of a keyring or a nodeset that is not the new one.
    let before = [("alpha", 1), ("beta", 1), ("gamma", 1)];
    assert_eq!(step(1, 0, &before), Step::Confirm);
    assert_eq!(step(0, 0, &before), Step::Confirm);
    assert_eq!(step(0, 1, &all), Step::Confirm);

    let two = Cluster::of(2);
    let step = |said: &[(&str, u64)]| next(&two.stand(1, 1, said), false);
    assert_eq!((step(&[own]), step(&[own, ("beta", 2)])), (Step::Confirm, Step::Retire));
    let one = Cluster::of(1);
    let step = |said: &[(&str, u64)]| next(&one.stand(1, 1, said), false);
    assert_eq!((step(&[]), step(&[own])), (Step::Confirm, Step::Retire));
}

#[test]
fn the_steps_follow_from_what_is_there() {
    let cluster = Cluster::of(1);
    let mut stand = cluster.stand(0, 0, &[("alpha", 1)]);
    stand.newest = cluster.nodesets[0].clone();
    assert_eq!(next(&stand, false), Step::Approve);
    assert_eq!(next(&stand, true), Step::Begin);
    // The daemon has other keys than the file.
    stand.report.keys.remove(0);
    assert_eq!(next(&stand, false), Step::Load);
    let mut done = cluster.stand(1, 1, &[("alpha", 2)]);
    done.own.retire();
    assert_eq!(next(&done, false), Step::Load);
    done.report.keys.pop();
    assert_eq!(next(&done, false), Step::Done);
}

#[test]
fn an_old_key_on_which_the_server_depends_is_held() {
    let cluster = Cluster::of(1);
    let mut stand = cluster.stand(1, 1, &[("alpha", 2)]);
    assert_eq!(held(&stand), None);
    stand.report.server_key_of = Some(stand.current());
    assert_eq!(held(&stand), None, "it depends on the new one already");
    let old = stand.own.fingerprints()[1].to_string();
    stand.report.server_key_of = Some(old.clone());
    assert_eq!(held(&stand), Some(old));
}

fn approve(cluster: &Cluster, folder: &Path, node: &str, request: &Request) -> Option<String> {
    let (operator, file) = (folder.join("operator.key"), folder.join("nodeset"));
    let text = cluster.operator.to_text(None).unwrap();
    durable::replace(&operator, text.as_bytes(), 0o600, Sync::Later).unwrap();
    let node = node.parse().unwrap();
    let said = approve::run(&operator, &file, &cluster.nodesets[0], (&node, request));
    assert_eq!(said.is_ok(), file.exists());
    said.err().map(|error| error.to_string())
}

/// The keys of a file under another name, or of another cluster.
fn posing(own: &NodeKeyFile, cluster: &[u8; 32], name: &str) -> NodeKeyFile {
    let text = own.to_text();
    let lines = text.lines().map(|line| {
        let Some(payload) = key_text::decode(key_text::NODE_PREFIX, line) else { return String::new() };
        let (version, seed) = (&payload[..1], &payload[33..65]);
        let posed = [version, cluster, seed, name.as_bytes()].concat();
        key_text::encode_secret(key_text::NODE_PREFIX, &posed).to_string()
    });
    NodeKeyFile::parse(&lines.collect::<Vec<_>>().join("\n")).unwrap()
}

#[test]
fn the_operator_signs_for_the_node_whose_old_key_has_signed_and_for_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let cluster = Cluster::of(2);
    let refused = |node: &str, own: &NodeKeyFile| {
        let why = approve(&cluster, folder.path(), node, &Request::make(own, NOW).unwrap());
        assert!(why.as_ref().is_some_and(|why| why.contains("did not sign")), "{why:?}");
    };
    let generate = |name: &str, operator: &OperatorKey| {
        NodeKeyFile::generate(name.parse().unwrap(), operator.cluster_id())
    };
    // A new key alone: whoever lost the old one, or never had it.
    refused("alpha", &generate("alpha", &cluster.operator));
    let mut retired = again(&cluster.own);
    retired.retire();
    refused("alpha", &retired);
    // Another key has signed besides, which nobody lists.
    let mut stranger = generate("alpha", &cluster.operator);
    stranger.rotate().unwrap();
    refused("alpha", &stranger);
    // A node asks for another's place, or for a place in another cluster: the key that has signed is its own.
    let cluster_bytes = *cluster.operator.cluster_id().as_bytes();
    refused("alpha", &posing(&cluster.own, &cluster_bytes, "beta"));
    refused("alpha", &posing(&cluster.own, &[7; 32], "alpha"));
    // It is not the request of that node.
    refused("beta", &cluster.own);
    refused("delta", &cluster.own);
    // Of another cluster.
    refused("alpha", &Cluster::of(1).own);

    let request = Request::make(&cluster.own, NOW).unwrap();
    assert_eq!(approve(&cluster, folder.path(), "alpha", &request), None, "the control");
}

#[test]
fn a_key_file_of_another_node_or_cluster_or_of_before_is_refused() {
    let cluster = Cluster::of(2);
    let stand = cluster.stand(1, 1, &[]);
    is_of_this_node(&cluster.own, &stand.report).unwrap();
    let beta = NodeKeyFile::generate("beta".parse().unwrap(), cluster.operator.cluster_id());
    let refused = |own: &NodeKeyFile, why: &str| {
        let error = is_of_this_node(own, &stand.report).unwrap_err();
        assert!(error.to_string().contains(why), "{error}");
        assert_eq!(error.exit(), 6);
    };
    refused(&beta, "the key file is of node `beta`");
    refused(&Cluster::of(1).own, "of another cluster");

    is_listed(&cluster.own, &cluster.nodesets[1]).unwrap();
    let generated = NodeKeyFile::generate("alpha".parse().unwrap(), cluster.operator.cluster_id());
    let error = is_listed(&generated, &cluster.nodesets[1]).unwrap_err();
    assert_eq!(error.exit(), 6, "{error}");
    let said: BTreeMap<_, _> = stand.report.nodes;
    assert!(error.to_string().contains(&said["alpha"]), "{error}");
}

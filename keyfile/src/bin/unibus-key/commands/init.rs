//! `init`: the keys of a new cluster.

use std::{os::unix::fs::DirBuilderExt, path::Path, path::PathBuf};

use serde_json::json;
use unibus_keyfile::{
    durable,
    error::{DocumentError, KeyError},
    id::UnixTime,
    node_key::NodeKeyFile,
    nodeset::{OPERATOR, Plan},
    operator_key::OperatorKey,
};
use zeroize::Zeroizing;

use crate::{cli::Init, error::Failure, output::Answer};

pub(crate) fn run(args: &Init, now: UnixTime) -> Result<Answer, Failure> {
    check_names(args)?;
    let passphrase = args.passphrase.choose()?;
    let operator = OperatorKey::generate();
    let cluster = operator.cluster_id();
    let nodes: Vec<NodeKeyFile> =
        args.nodes.iter().map(|name| NodeKeyFile::generate(name.clone(), cluster)).collect();
    let plan = nodes.iter().fold(Plan::first(&operator), |plan, node| plan.with_node(node.member(now)));
    let nodeset = plan.sign(&operator).map_err(refused)?;

    let mut files: Vec<(PathBuf, Zeroizing<Vec<u8>>, u32)> = Vec::new();
    let operator_text = operator.to_text(passphrase.as_ref().map(|text| text.as_str()))?;
    files.push((args.out.join("operator.key"), bytes_of(&operator_text), 0o600));
    for node in &nodes {
        files.push((args.out.join(format!("{}.key", node.name())), bytes_of(&node.to_text()), 0o600));
    }
    // Last: a nodeset in the folder says that all of it is there.
    files.push((args.out.join("nodeset"), Zeroizing::new(nodeset.as_bytes().to_vec()), 0o644));
    write_all(&args.out, &files)?;

    let out = args.out.display();
    let mut text = format!("cluster pin:  {cluster}\n");
    text.push_str(&format!("operator:     {}  {out}/operator.key\n", operator.fingerprint()));
    for node in &nodes {
        let name = node.name();
        text.push_str(&format!("node:         {}  {out}/{name}.key\n", node.member(now).fingerprint()));
    }
    text.push_str(&format!("nodeset:      version 1, {}  {out}/nodeset\n\n", nodeset.hash()));
    text.push_str(&format!(
        "Next:\n\
         1. Move {out}/operator.key offline now, with a copy in a second place. Whoever has it can enrol nodes and \
         read everything; without it, losing every node key loses the data.{}\n\
         2. Copy each NAME.key to its node, outside the data directory, mode 0600, and the nodeset beside the data.\n\
         3. Keep the cluster pin with the operator key: it is what every node trusts.\n",
        if passphrase.is_some() { "" } else { " It is not locked by a passphrase (--passphrase)." },
    ));
    let json = json!({
        "cluster": cluster.to_string(),
        "operator": {
            "fingerprint": operator.fingerprint().to_string(),
            "file": args.out.join("operator.key"),
            "locked": passphrase.is_some(),
        },
        "nodes": nodes.iter().map(|node| json!({
            "name": node.name().as_str(),
            "fingerprint": node.member(now).fingerprint().to_string(),
            "file": args.out.join(format!("{}.key", node.name())),
        })).collect::<Vec<_>>(),
        "nodeset": {
            "version": nodeset.version(),
            "hash": nodeset.hash().to_string(),
            "file": args.out.join("nodeset"),
        },
    });
    Ok(Answer { text, json })
}

fn refused(source: DocumentError) -> Failure {
    Failure::Document { origin: "the new nodeset".into(), source }
}

fn bytes_of(text: &str) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(text.as_bytes().to_vec())
}

fn check_names(args: &Init) -> Result<(), Failure> {
    for (i, name) in args.nodes.iter().enumerate() {
        if name.as_str() == OPERATOR {
            return Err(Failure::Name(name.clone(), "is that of the operator key"));
        }
        if args.nodes.iter().take(i).any(|earlier| earlier == name) {
            return Err(Failure::Name(name.clone(), "is given twice"));
        }
    }
    Ok(())
}

fn write_all(folder: &Path, files: &[(PathBuf, Zeroizing<Vec<u8>>, u32)]) -> Result<(), Failure> {
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.map_err(|source| KeyError::Io { step: "make the folder", path: folder.into(), source })?;
    if let Some((path, ..)) = files.iter().find(|(path, ..)| path.symlink_metadata().is_ok()) {
        return Err(KeyError::Exists { path: path.clone() }.into());
    }
    for (done, (path, bytes, mode)) in files.iter().enumerate() {
        if let Err(error) = durable::create_new(path, bytes, *mode) {
            // What this run has made is of no use to anybody without the rest.
            for (path, ..) in files.iter().take(done) {
                let _gone_either_way = std::fs::remove_file(path);
            }
            return Err(error.into());
        }
    }
    Ok(())
}

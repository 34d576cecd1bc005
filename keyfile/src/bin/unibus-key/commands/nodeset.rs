//! What every change of a nodeset shares, and `remove`.
//!
//! The nodeset comes from the cluster, where an attacker may have put an old one back: signing on top of it would
//! bring removed nodes back. So the last nodeset that was signed is kept beside the operator key.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use unibus_keyfile::{
    durable::{self, Sync},
    error::{DocumentError, KeyError},
    file,
    nodeset::{Nodeset, Plan},
    operator_key::{OperatorKey, is_locked},
};

use crate::{
    cli::{Remove, Signing},
    error::Failure,
    output::{self, Answer},
};

/// The operator and the nodeset that is to be followed by the next version.
pub(super) struct Session {
    pub(super) operator: OperatorKey,
    pub(super) nodeset: Nodeset,
    path: PathBuf,
    record: PathBuf,
    yes: bool,
}

impl Session {
    pub(super) fn open(args: &Signing) -> Result<Self, Failure> {
        let operator = load_operator(args)?;
        let nodeset = read(&args.nodeset, &operator)?;
        let record = record_path(&args.operator);
        match read(&record, &operator) {
            Ok(signed) if signed.version() > nodeset.version() => {
                let (path, given, signed) = (args.nodeset.clone(), nodeset.version(), signed.version());
                return Err(Failure::OldNodeset { path, given, signed });
            }
            Ok(signed) if signed.version() == nodeset.version() && signed.hash() != nodeset.hash() => {
                return Err(Failure::OtherNodeset { path: args.nodeset.clone(), version: nodeset.version() });
            }
            Ok(_) => {}
            Err(Failure::Key(KeyError::Missing { .. })) => {}
            Err(error) => return Err(error),
        }
        Ok(Self { operator, nodeset, path: args.nodeset.clone(), record, yes: args.yes })
    }

    /// Asks, signs the next version, replaces the nodeset and remembers it.
    pub(super) fn commit(self, plan: Plan, question: &str) -> Result<Nodeset, Failure> {
        let signed = plan.sign(&self.operator);
        let next = signed.map_err(|source| Failure::Document { origin: "the new nodeset".into(), source })?;
        output::say(&list(&next));
        output::confirm(question, self.yes)?;
        // In this order: after a crash in between, the nodeset is the newer one, and that is accepted.
        durable::replace(&self.path, next.as_bytes(), 0o644, Sync::Disk)?;
        durable::replace(&self.record, next.as_bytes(), 0o644, Sync::Disk)?;
        Ok(next)
    }
}

fn record_path(operator: &Path) -> PathBuf {
    let mut name = operator.as_os_str().to_owned();
    name.push(".nodeset");
    name.into()
}

fn load_operator(args: &Signing) -> Result<OperatorKey, Failure> {
    let text = file::read_secret_text(&args.operator)?;
    let passphrase = if is_locked(&text) { Some(args.passphrase.give()?) } else { None };
    OperatorKey::parse(&text, || passphrase)
        .map_err(|source| KeyError::Parse { origin: format!("`{}`", args.operator.display()), source }.into())
}

fn read(path: &Path, operator: &OperatorKey) -> Result<Nodeset, Failure> {
    let origin = format!("`{}`", path.display());
    Nodeset::decode(&file::read_document(path)?, &operator.cluster_id())
        .map_err(|source: DocumentError| Failure::Document { origin, source })
}

fn list(nodeset: &Nodeset) -> String {
    let mut text = format!("nodeset version {} lists", nodeset.version());
    for node in nodeset.nodes() {
        text.push_str(&format!("\n  node      {}  {}", node.fingerprint(), node.name));
    }
    for recovery in nodeset.recovery() {
        text.push_str(&format!(
            "\n  recovery  {}  {}",
            recovery.wrapping_public.fingerprint(),
            recovery.name
        ));
    }
    text
}

/// The new nodeset as JSON.
pub(super) fn summary(nodeset: &Nodeset, file: &Path) -> Value {
    json!({
        "version": nodeset.version(), "hash": nodeset.hash().to_string(), "file": file,
        "nodes": nodeset.nodes().iter().map(|node| node.name.as_str()).collect::<Vec<_>>(),
        "recovery": nodeset.recovery().iter().map(|r| r.name.as_str()).collect::<Vec<_>>(),
    })
}

pub(super) const SPREAD: &str = "put the new nodeset in place of the --nodeset file of the nodes; a daemon that runs takes it over, without a restart";

pub(crate) fn remove(args: &Remove) -> Result<Answer, Failure> {
    let session = Session::open(&args.signing)?;
    let gone = session.nodeset.nodes().iter().find(|node| node.name == args.name);
    let fingerprint = gone.ok_or_else(|| Failure::NoSuchNode(args.name.clone()))?.fingerprint();
    let plan = session.nodeset.next().without_node(&args.name);
    let next = session.commit(plan, &format!("Remove node `{}` ({fingerprint})?", args.name))?;
    let why = format!(
        "`{}` has seen the present epoch key, so it can still read old disks and whatever is sealed until there is \
         a new one",
        args.name
    );
    let text = format!(
        "removed:  {} {fingerprint}\nnodeset:  version {}, {}\n\n\
         A new epoch is needed: {why}.\n\
         Next: {SPREAD}, then run `unibus-migrate rotate epoch`.\n",
        args.name,
        next.version(),
        next.hash(),
    );
    let json = json!({
        "removed": { "name": args.name.as_str(), "fingerprint": fingerprint.to_string() },
        "nodeset": summary(&next, &args.signing.nodeset),
        "new_epoch_needed": true, "why": why,
    });
    Ok(Answer { text, json })
}

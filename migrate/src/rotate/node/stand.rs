//! How a node stands with its keys: by its key file, and by what its daemon says; without a daemon, by its files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use unibus_keyfile::file;
use unibus_keyfile::keyring::Keyring;
use unibus_keyfile::node_key::NodeKeyFile;
use unibus_keyfile::nodeset::{Member, Nodeset};
use unibus_store::keys::KeysReport;

use super::{Address, COMMAND, refused};
use crate::cli::NodeArgs;
use crate::daemon::Answer;
use crate::error::MigrateError;
use crate::open::Location;
use crate::rotate::RotateError;
use crate::source::{StoreUrl, beside};

/// Path of the daemon that says how it stands with its keys.
const KEYS: &str = "/keys";

/// Where the files of the node are.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) key_file: PathBuf,
    pub(super) nodeset: PathBuf,
    pub(super) state_dir: PathBuf,
    /// The database; none for a log.
    pub(super) database: Option<PathBuf>,
    pub(super) daemon: Address,
}

impl Place {
    pub(super) fn of(args: &NodeArgs) -> Result<Self, MigrateError> {
        let keys = &args.keys;
        let Some(key_file) = keys.node.at_rest_key_file.clone() else {
            let hint = "give --at-rest-key-file; a key from elsewhere is changed where it is kept";
            return Err(refused("the key is not in a file that this command can change", hint).into());
        };
        let (nodeset, state_dir, database) = match &args.store {
            StoreUrl::Sqlcipher(path) => {
                let location = Location::from_args(path, keys);
                (location.nodeset, location.state_dir, Some(location.database))
            }
            StoreUrl::Kv(_) => {
                let missing = |what: &str| refused(format!("{what} is not named"), format!("give {what}"));
                let nodeset = keys.nodeset.clone().ok_or_else(|| missing("--nodeset"))?;
                let state_dir = keys.state_dir.clone().ok_or_else(|| missing("--state-dir"))?;
                (nodeset, state_dir, None)
            }
            other => {
                let hint = "name a sealed store: `sqlcipher:PATH` or `kv:nats://HOST:PORT`";
                return Err(MigrateError::Role {
                    url: other.clone(),
                    role: "the store",
                    command: COMMAND,
                    hint,
                });
            }
        };
        let daemon = Address::of(&state_dir);
        Ok(Self { key_file, nodeset, state_dir, database, daemon })
    }

    /// What the daemon says now.
    pub(super) fn ask(&self) -> Result<KeysReport, RotateError> {
        match self.daemon.get::<KeysReport>(KEYS)? {
            Answer::Done(report) => Ok(report),
            Answer::Problem(status, why) => Err(RotateError::Unwell {
                command: COMMAND,
                why: format!("the daemon does not say how it stands with its keys: {why} ({status})"),
                hint: "wait until the daemon serves, and run it again".to_owned(),
            }),
        }
    }
}

/// How a node stands with its keys.
#[derive(Debug)]
pub(super) struct Stand {
    pub(super) own: NodeKeyFile,
    pub(super) report: KeysReport,
    /// The nodeset that counts, and the newest one at hand.
    pub(super) nodeset: Nodeset,
    pub(super) newest: Nodeset,
    /// Whether a daemon serves the store.
    pub(super) is_served: bool,
}

impl Stand {
    /// Looks, and refuses a key file that does not belong here.
    pub(super) fn look(place: &Place) -> Result<Self, MigrateError> {
        let own = NodeKeyFile::load(&place.key_file)?;
        let untrusted = |path: &Path| {
            let path = path.to_owned();
            move |source| MigrateError::Document { path, source }
        };
        let on_file = file::read_document(&place.nodeset)?;
        let on_file = Nodeset::decode(&on_file, own.cluster()).map_err(untrusted(&place.nodeset))?;
        let is_served = place.daemon.is_running();
        let report = match (&place.database, is_served) {
            (_, true) => place.ask()?,
            (Some(database), false) => of_files(&own, &on_file, database)?,
            (None, false) => {
                let hint = "start it: the daemon of this node wraps the keyring of a log";
                return Err(refused("no daemon listens in the state folder", hint).into());
            }
        };
        is_of_this_node(&own, &report)?;
        let bytes = HEXLOWER.decode(report.nodeset.as_bytes()).unwrap_or_default();
        let nodeset = Nodeset::decode(&bytes, own.cluster()).map_err(untrusted(&place.state_dir))?;
        if on_file.version() == nodeset.version() && on_file.hash() != nodeset.hash() {
            let why = format!(
                "`{}` is another nodeset of version {} than the one that counts: two were signed at once",
                place.nodeset.display(),
                nodeset.version()
            );
            return Err(refused(why, "put the nodeset back that the other nodes have").into());
        }
        let newest = if on_file.version() > nodeset.version() { on_file } else { nodeset.clone() };
        is_listed(&own, &newest)?;
        Ok(Self { own, report, nodeset, newest, is_served })
    }

    /// Fingerprint of the first key of the file.
    pub(super) fn current(&self) -> String {
        self.own.fingerprints().first().map(ToString::to_string).unwrap_or_default()
    }

    /// The key of this node that a nodeset lists.
    pub(super) fn listed<'n>(&self, nodeset: &'n Nodeset) -> Option<&'n Member> {
        nodeset.nodes().iter().find(|node| node.name == *self.own.name())
    }

    /// Whether that nodeset lists the first key of the file.
    pub(super) fn is_approved_in(&self, nodeset: &Nodeset) -> bool {
        self.listed(nodeset).is_some_and(|member| member.fingerprint().to_string() == self.current())
    }

    /// Whether the daemon has the very keys of the file.
    pub(super) fn is_loaded(&self) -> bool {
        let file: Vec<_> = self.own.fingerprints().iter().map(ToString::to_string).collect();
        self.report.keys == file
    }

    /// Whether nothing is under way: one key, listed, in use.
    pub(super) fn is_pristine(&self) -> bool {
        self.own.slots().len() == 1 && self.is_loaded() && self.is_approved_in(&self.nodeset)
    }

    /// Whether nothing was changed since then.
    pub(super) fn is_pristine_as(&self, before: &Self) -> bool {
        before.is_pristine() && self.is_pristine() && self.report.nodes == before.report.nodes
    }

    /// The other nodes that have acknowledged the keyring as it is wrapped now; none unless it is wrapped for the newest
    /// nodeset, and this node itself has opened it.
    pub(super) fn confirmed_by(&self) -> Vec<String> {
        let report = &self.report;
        let has_said = |node: &str| report.acknowledged.get(node) == Some(&report.keyring_version);
        let is_wrapped = report.keyring_nodeset_version == self.newest.version()
            && report.nodeset_version == self.newest.version();
        if !is_wrapped || !has_said(&report.node) {
            return Vec::new();
        }
        let others = report.nodes.keys().filter(|node| **node != report.node && has_said(node));
        others.cloned().collect()
    }

    /// Whether enough others have: two, or all where there are fewer.
    pub(super) fn is_confirmed(&self) -> bool {
        let report = &self.report;
        let others = report.nodes.len().saturating_sub(1);
        let has_said = report.acknowledged.get(&report.node) == Some(&report.keyring_version);
        let is_wrapped = report.keyring_nodeset_version == self.newest.version()
            && report.nodeset_version == self.newest.version();
        is_wrapped && has_said && self.confirmed_by().len() >= others.min(2)
    }
}

fn wrong(why: String, hint: &str) -> MigrateError {
    RotateError::WrongKey { command: COMMAND, why, hint: hint.to_owned() }.into()
}

pub(super) fn is_of_this_node(own: &NodeKeyFile, report: &KeysReport) -> Result<(), MigrateError> {
    let hint = "name the --state-dir and the key file of the same node";
    if own.cluster().to_string() != report.cluster {
        let (found, expected) = (own.cluster().fingerprint(), &report.cluster);
        return Err(wrong(
            format!("the key file is of another cluster ({found}) than the daemon ({expected})"),
            hint,
        ));
    }
    if own.name().as_str() != report.node {
        let why =
            format!("the key file is of node `{}`, and the daemon is node `{}`", own.name(), report.node);
        return Err(wrong(why, hint));
    }
    Ok(())
}

pub(super) fn is_listed(own: &NodeKeyFile, nodeset: &Nodeset) -> Result<(), MigrateError> {
    if own.slots().iter().any(|slot| nodeset.node_of(slot.signing_public()).is_some()) {
        return Ok(());
    }
    let found: Vec<_> = own.fingerprints().iter().map(ToString::to_string).collect();
    let member = nodeset.nodes().iter().find(|node| node.name == *own.name());
    let listed =
        member.map_or_else(|| "no key".to_owned(), |member| format!("the key {}", member.fingerprint()));
    let why = format!(
        "nodeset {} lists {listed} for `{}`, and the key file has {}",
        nodeset.version(),
        own.name(),
        found.join(", ")
    );
    Err(wrong(
        why,
        "this is an earlier key file of the node, or of a node that was removed: put the current one in its place",
    ))
}

/// What a daemon would say, by the files: nobody else has anything to confirm.
fn of_files(own: &NodeKeyFile, nodeset: &Nodeset, database: &Path) -> Result<KeysReport, MigrateError> {
    let path = beside(database, ".keyring");
    let keyring = Keyring::decode(&file::read_document(&path)?, nodeset, Some(own))
        .map_err(|source| MigrateError::Document { path, source })?;
    let acknowledged = BTreeMap::from([(own.name().to_string(), keyring.version())]);
    Ok(KeysReport::new(own, (nodeset, &keyring), acknowledged, None))
}

//! The operator's word: a nodeset with the new key of a node, for a request that the old key has signed too.

use std::path::{Path, PathBuf};

use unibus_keyfile::durable::{self, LockFile, Sync};
use unibus_keyfile::error::{DocumentError, KeyError};
use unibus_keyfile::file;
use unibus_keyfile::id::NodeName;
use unibus_keyfile::nodeset::Nodeset;
use unibus_keyfile::request::Request;
use unibus_store::failpoint;

use super::{COMMAND, refused};
use crate::clock;
use crate::error::MigrateError;
use crate::keys;
use crate::rotate::RotateError;

/// Mode of a nodeset: it is a public document.
const MODE: u32 = 0o644;

pub(crate) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Signs the nodeset that follows `base`, with the key of the request for `node`, and puts it in the place of the file.
///
/// # Errors
/// [`RotateError::Refused`] for a request that the old key has not signed, or a base that the operator has signed
/// another successor of; `Key`, `Document`.
pub(super) fn run(
    operator: &Path,
    file: &Path,
    base: &Nodeset,
    (node, request): (&NodeName, &Request),
) -> Result<Nodeset, MigrateError> {
    let lock = with_suffix(operator, ".lock");
    let _alone = LockFile::try_exclusive(&lock)?.ok_or(RotateError::Busy { command: COMMAND, path: lock })?;
    let key = keys::operator(operator)?;
    if key.cluster_id() != *base.cluster() {
        let (expected, found) = (*base.cluster(), key.cluster_id());
        let source = DocumentError::Cluster { document: "nodeset", expected, found };
        return Err(MigrateError::Document { path: operator.to_owned(), source });
    }
    let record = with_suffix(operator, ".nodeset");
    is_last(&record, base)?;
    let listed = base.nodes().iter().find(|member| member.name == *node);
    let vouched = listed.is_some_and(|member| request.is_vouched_for_by(&member.signing_public));
    if request.member().name != *node || request.cluster() != base.cluster() || !vouched {
        let why = format!("the old key of `{node}` did not sign the request for the new one");
        let hint =
            "a node that lost its key is enrolled anew: `unibus-key approve`, and compare the fingerprint";
        return Err(refused(why, hint).into());
    }
    let mut member = request.member().clone();
    member.since = clock::now();
    let signed = base.next().with_node(member).sign(&key);
    let next = signed.map_err(|source| MigrateError::Document { path: file.to_owned(), source })?;
    let stopped = |source| MigrateError::Io { step: "sign", path: file.to_owned(), source };
    failpoint::reach("node::approve").map_err(stopped)?;
    // In this order, as `unibus-key approve`: after a crash in between the nodeset is the newer one.
    durable::replace(file, next.as_bytes(), MODE, Sync::Disk)?;
    failpoint::reach("node::approved").map_err(stopped)?;
    durable::replace(&record, next.as_bytes(), MODE, Sync::Disk)?;
    Ok(next)
}

/// The nodeset to follow may not be older than the last one that was signed with this operator key, nor another one.
pub(crate) fn is_last(record: &Path, base: &Nodeset) -> Result<(), MigrateError> {
    let bytes = match file::read_document(record) {
        Ok(bytes) => bytes,
        Err(KeyError::Missing { .. }) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let signed = Nodeset::decode(&bytes, base.cluster())
        .map_err(|source| MigrateError::Document { path: record.to_owned(), source })?;
    let is_other = signed.version() == base.version() && signed.hash() != base.hash();
    if signed.version() > base.version() || is_other {
        let why = format!(
            "the operator has signed nodeset {} already (`{}`), and the cluster goes by {}",
            signed.version(),
            record.display(),
            base.version()
        );
        let hint = "put that nodeset in place of the --nodeset file of a node that serves, wait a second, and run it again";
        return Err(refused(why, hint).into());
    }
    Ok(())
}

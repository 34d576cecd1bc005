//! The keys of `--dev`: made together, once, where there is nothing at all; afterwards all of them or none.

use std::{
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use unibus_keyfile::{
    durable,
    id::{NodeName, UnixTime},
    node_key::NodeKeyFile,
    nodeset::Plan,
    operator_key::OperatorKey,
    provider::KeySource,
};

use crate::error::DaemonError;

/// Name of the operator key in the folder.
const OPERATOR: &str = "operator.key";
/// Name of the node key in the folder.
const NODE: &str = "dev.key";
/// Name of the nodeset in the folder.
pub(super) const NODESET: &str = "nodeset";

/// Where the keys of `--dev` lie: in `keys` beside the database.
pub(super) fn keys_folder(database: &Path) -> PathBuf {
    database.parent().unwrap_or(Path::new(".")).join("keys")
}

/// The node key, made on the first start: where none of `data` is.
pub(super) fn source(keys: &Path, data: &[PathBuf], now: UnixTime) -> Result<KeySource, DaemonError> {
    let node_key = keys.join(NODE);
    if !keys.exists() {
        if data.iter().any(|path| path.exists()) {
            return Err(DaemonError::Dev { path: node_key, problem: "gone, while the data is there" });
        }
        make(keys, now)?;
    }
    for name in [OPERATOR, NODE, NODESET] {
        let path = keys.join(name);
        if !path.exists() {
            return Err(DaemonError::Dev { path, problem: "gone" });
        }
    }
    // The operator key is not needed for serving. A damaged one is still better found today than on the day of need.
    OperatorKey::load(&keys.join(OPERATOR), || None)?;
    Ok(KeySource::File(node_key))
}

/// Makes the keys under another name, so that a crash leaves all of them or none under this one.
fn make(keys: &Path, now: UnixTime) -> Result<(), DaemonError> {
    let failed = |step: &'static str, path: &Path| {
        let path = path.to_path_buf();
        move |source| DaemonError::Files { step, path, source }
    };
    let above = keys.parent().unwrap_or(Path::new("."));
    let private = |path: &Path| std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    private(above).map_err(failed("make the folder", above))?;
    let building = durable::temporary_name(keys);
    private(&building).map_err(failed("make the folder", &building))?;

    let operator = OperatorKey::generate();
    let name: NodeName =
        "dev".parse().map_err(|_| DaemonError::Dev { path: keys.into(), problem: "not nameable" })?;
    let node = NodeKeyFile::generate(name, operator.cluster_id());
    let nodeset = Plan::first(&operator).with_node(node.member(now)).sign(&operator)?;
    let text = operator.to_text(None).map_err(|source| {
        DaemonError::Key(unibus_keyfile::error::KeyError::Parse { origin: "the operator key".into(), source })
    })?;
    durable::create_new(&building.join(OPERATOR), text.as_bytes(), 0o600)?;
    durable::create_new(&building.join(NODE), node.to_text().as_bytes(), 0o600)?;
    durable::create_new(&building.join(NODESET), nodeset.as_bytes(), 0o644)?;
    durable::take_name(&building, keys)?;
    tracing::info!(keys = %keys.display(), "made development keys");
    Ok(())
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "the test does what an accident does")]
mod tests {
    use std::fs;

    use super::*;

    const NOW: UnixTime = UnixTime::from_seconds(1_800_000_000);

    fn start(folder: &Path) -> Result<KeySource, DaemonError> {
        let database = folder.join("control.db");
        let data = ["control.db", "control.db.keyring", "state/witness", "nats/jetstream"];
        source(&keys_folder(&database), &data.map(|name| folder.join(name)), NOW)
    }

    #[test]
    fn keys_are_made_once_and_used_again() {
        let folder = tempfile::tempdir().unwrap();
        let first = start(folder.path()).unwrap().load().unwrap();
        let again = start(folder.path()).unwrap().load().unwrap();
        assert_eq!(first.fingerprints(), again.fingerprints());
        let mut names: Vec<_> = fs::read_dir(folder.path().join("keys"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        names.sort();
        assert_eq!(names, ["dev.key", "nodeset", "operator.key"]);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "something is left over");
    }

    #[test]
    fn half_of_the_keys_is_refused_and_never_made_anew() {
        for name in [OPERATOR, NODE, NODESET] {
            let folder = tempfile::tempdir().unwrap();
            start(folder.path()).unwrap();
            fs::remove_file(folder.path().join("keys").join(name)).unwrap();
            let error = start(folder.path()).unwrap_err();
            assert!(matches!(error, DaemonError::Dev { problem: "gone", .. }), "{error}");
            assert!(!folder.path().join("keys").join(name).exists());
        }
    }

    #[test]
    fn damaged_keys_are_refused() {
        for name in [OPERATOR, NODE] {
            let folder = tempfile::tempdir().unwrap();
            start(folder.path()).unwrap();
            let path = folder.path().join("keys").join(name);
            let text = fs::read_to_string(&path).unwrap();
            let at = text.rfind(|c: char| c.is_ascii_alphanumeric()).unwrap();
            let other = if &text[at..=at] == "Q" { "P" } else { "Q" };
            fs::write(&path, format!("{}{other}{}", &text[..at], &text[at + 1..])).unwrap();
            let result = start(folder.path()).and_then(|source| source.load().map_err(DaemonError::from));
            assert!(matches!(result.unwrap_err(), DaemonError::Key(_)), "{name}");
        }
    }

    #[test]
    fn no_keys_are_made_beside_data() {
        for name in ["control.db", "control.db.keyring", "state/witness", "nats/jetstream"] {
            let folder = tempfile::tempdir().unwrap();
            fs::create_dir(folder.path().join("state")).unwrap();
            fs::create_dir(folder.path().join("nats")).unwrap();
            fs::write(folder.path().join(name), b"x").unwrap();
            assert!(matches!(start(folder.path()).unwrap_err(), DaemonError::Dev { .. }), "{name}");
            assert!(!folder.path().join("keys").exists());
        }
    }
}

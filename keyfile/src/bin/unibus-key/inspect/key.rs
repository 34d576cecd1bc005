//! Key files.

use serde_json::json;
use unibus_keyfile::{
    error::{KeyError, KeyTextError},
    node_key::NodeKeyFile,
    operator_key::{ExtraRecoveryKey, OperatorKey, RecoveryKey, is_locked},
};

use super::Report;
use crate::{cli::Inspect, error::Failure};

fn unusable(args: &Inspect) -> impl Fn(KeyTextError) -> Failure {
    let origin = format!("`{}`", args.file.display());
    move |source| KeyError::Parse { origin: origin.clone(), source }.into()
}

pub(super) fn node(text: &str, args: &Inspect, report: &mut Report) -> Result<(), Failure> {
    let own = NodeKeyFile::parse(text).map_err(unusable(args))?;
    report.field("kind", "node key");
    report.field("name", own.name());
    report.field("cluster", own.cluster());
    let mut keys = Vec::new();
    for (i, slot) in own.slots().iter().enumerate() {
        let (sign, wrap) = (slot.fingerprint().to_string(), slot.wrapping_public().fingerprint().to_string());
        report.line(if i == 0 { "current key" } else { "earlier key" }, format!("{sign}  (wrapping {wrap})"));
        keys.push(json!({ "current": i == 0, "fingerprint": sign, "wrapping": wrap }));
    }
    report.value("keys", json!(keys));
    Ok(())
}

pub(super) fn operator(text: &str, args: &Inspect, report: &mut Report) -> Result<(), Failure> {
    report.field("kind", "operator key");
    let locked = is_locked(text);
    report.value("locked", json!(locked));
    report.line("locked", if locked { "by a passphrase" } else { "no" });
    if locked && !args.passphrase.is_given() {
        report.line("cluster", "not shown without the passphrase (--passphrase)");
        return Ok(());
    }
    let passphrase = if locked { Some(args.passphrase.give()?) } else { None };
    let operator = OperatorKey::parse(text, || passphrase).map_err(unusable(args))?;
    report.field("cluster", operator.cluster_id());
    report.field("fingerprint", operator.fingerprint());
    report.field("wrapping", operator.wrapping().public().fingerprint());
    Ok(())
}

pub(super) fn recovery(text: &str, args: &Inspect, report: &mut Report) -> Result<(), Failure> {
    let key = ExtraRecoveryKey::parse(text).map_err(unusable(args))?;
    report.field("kind", "recovery key");
    report.field("fingerprint", key.public().fingerprint());
    Ok(())
}

//! Signed documents, and the witness.

use data_encoding::HEXLOWER;
use serde_json::json;
use unibus_keyfile::{
    acknowledgement::Acknowledgement,
    census::Census,
    error::{DecodeError, DocumentError, WitnessError},
    file,
    id::{ClusterId, Epoch},
    keyring::{Keyring, Summary},
    node_key::NodeKeyFile,
    nodeset::Nodeset,
    recovery,
    request::Request,
    signed::Kind,
    suite::RecipientPublic,
    witness::{self, Witness},
};

use super::Report;
use crate::{cli::Inspect, error::Failure};

fn refused(args: &Inspect) -> impl Fn(DocumentError) -> Failure {
    let origin = format!("`{}`", args.file.display());
    move |source| Failure::Document { origin: origin.clone(), source }
}

pub(super) fn container(bytes: &[u8], args: &Inspect, report: &mut Report) -> Result<(), Failure> {
    match Kind::of(bytes) {
        Some(Kind::Nodeset) => nodeset(bytes, args, report),
        Some(Kind::Keyring) => keyring(bytes, args, report),
        Some(Kind::Request) => show_request(&Request::decode(bytes).map_err(refused(args))?, args, report),
        Some(Kind::Recovery) => {
            show_recipient(&recovery::decode(bytes).map_err(refused(args))?, report);
            Ok(())
        }
        Some(Kind::Acknowledgement) => acknowledgement(bytes, args, report),
        Some(Kind::Census) => census(bytes, args, report),
        _ => {
            let source = DecodeError::Field("kind");
            Err(refused(args)(DocumentError::Decode { document: "signed document", source }))
        }
    }
}

fn cluster_line(cluster: &ClusterId, args: &Inspect, report: &mut Report) {
    let note = if args.cluster.is_some() { "as expected" } else { "compare with the pin in a key file" };
    report.line("cluster", format!("{cluster}  ({note})"));
    report.value("cluster", json!(cluster.to_string()));
}

fn nodeset(bytes: &[u8], args: &Inspect, report: &mut Report) -> Result<(), Failure> {
    let nodeset = match &args.cluster {
        Some(cluster) => Nodeset::decode(bytes, cluster),
        None => Nodeset::decode_unpinned(bytes),
    };
    let nodeset = nodeset.map_err(refused(args))?;
    report.field("kind", "nodeset");
    cluster_line(nodeset.cluster(), args, report);
    report.value("version", json!(nodeset.version()));
    report.line("version", nodeset.version());
    report.field("hash", nodeset.hash());
    let previous = nodeset.previous().map(|hash| hash.to_string());
    report.line("previous", previous.as_deref().unwrap_or("none"));
    report.value("previous", json!(previous));
    report.field("chain", nodeset.lineage());
    let mut nodes = Vec::new();
    for node in nodeset.nodes() {
        let (sign, wrap) = (node.fingerprint().to_string(), node.wrapping_public.fingerprint().to_string());
        report.line("node", format!("{sign}  {}  since {}  (wrapping {wrap})", node.name, node.since));
        nodes.push(json!({
            "name": node.name.as_str(), "fingerprint": sign, "wrapping": wrap, "since": node.since.to_string(),
        }));
    }
    report.value("nodes", json!(nodes));
    let mut recipients = Vec::new();
    for recovery in nodeset.recovery() {
        let fingerprint = recovery.wrapping_public.fingerprint().to_string();
        report.line("recovery", format!("{fingerprint}  {}", recovery.name));
        recipients.push(json!({ "name": recovery.name.as_str(), "fingerprint": fingerprint }));
    }
    report.value("recovery", json!(recipients));
    Ok(())
}

fn keyring(bytes: &[u8], args: &Inspect, report: &mut Report) -> Result<(), Failure> {
    let summary = Summary::decode(bytes).map_err(refused(args))?;
    let trusted = match given_nodeset(args)? {
        None => None,
        Some(nodeset) => Some(Keyring::decode(bytes, &nodeset, None).map_err(refused(args))?),
    };
    report.field("kind", "keyring");
    cluster_line(&summary.cluster, args, report);
    report.field("lineage", summary.lineage);
    report.line("version", summary.version);
    report.value("version", json!(summary.version));
    report.field("hash", summary.hash);
    report.line("nodeset", format!("version {}", summary.nodeset_version));
    report.value("nodeset_version", json!(summary.nodeset_version));
    let trust =
        if trusted.is_some() { "a node of the nodeset" } else { "not held against a nodeset (--nodeset)" };
    let signers: Vec<String> = summary.signers.iter().map(ToString::to_string).collect();
    report.line("signed by", format!("{}  ({trust})", signers.join(", ")));
    report.value("signers", json!(signers));
    report.value("trusted", json!(trusted.is_some()));
    let mut epochs = Vec::new();
    for epoch in &summary.epochs {
        let (state, exposed) = (epoch.state.name(), if epoch.exposed { ", EXPOSED" } else { "" });
        let kept = if epoch.retained { ", kept for recovery" } else { "" };
        report.line("epoch", format!("{}  {state}{exposed}{kept}, made {}", epoch.number, epoch.created));
        epochs.push(json!({
            "number": epoch.number.get(), "state": state, "created": epoch.created.to_string(),
            "exposed": epoch.exposed, "retained": epoch.retained,
        }));
    }
    report.value("epochs", json!(epochs));
    let recipients: Vec<String> = summary.recipients.iter().map(ToString::to_string).collect();
    report.line("wrapped to", recipients.join(", "));
    report.value("recipients", json!(recipients));
    Ok(())
}

/// The nodeset that was given to hold a document against.
fn given_nodeset(args: &Inspect) -> Result<Option<Nodeset>, Failure> {
    let Some(path) = &args.nodeset else { return Ok(None) };
    let nodeset = file::read_document(path)?;
    let origin = format!("`{}`", path.display());
    let nodeset = match &args.cluster {
        Some(cluster) => Nodeset::decode(&nodeset, cluster),
        None => Nodeset::decode_unpinned(&nodeset),
    };
    nodeset.map(Some).map_err(|source| Failure::Document { origin, source })
}

fn acknowledgement(bytes: &[u8], args: &Inspect, report: &mut Report) -> Result<(), Failure> {
    report.field("kind", Kind::Acknowledgement.name());
    let Some(nodeset) = given_nodeset(args)? else {
        report.line("contents", "shown when they are held against a nodeset (--nodeset)");
        return Ok(());
    };
    let found = Acknowledgement::decode(bytes, &nodeset).map_err(refused(args))?;
    report.field("node", found.node());
    cluster_line(found.cluster(), args, report);
    report.field("lineage", found.lineage());
    report.line("keyring", format!("version {}, {}", found.keyring_version(), found.keyring_hash()));
    report.value("keyring_version", json!(found.keyring_version()));
    report.value("keyring_hash", json!(found.keyring_hash().to_string()));
    let epochs: Vec<String> = found.epochs().iter().map(ToString::to_string).collect();
    report.line("opens epochs", epochs.join(", "));
    report.value("epochs", json!(found.epochs().iter().map(|epoch| epoch.get()).collect::<Vec<_>>()));
    report.field("made", found.created());
    Ok(())
}

fn census(bytes: &[u8], args: &Inspect, report: &mut Report) -> Result<(), Failure> {
    report.field("kind", Kind::Census.name());
    let Some(nodeset) = given_nodeset(args)? else {
        report.line("contents", "shown when they are held against a nodeset (--nodeset)");
        return Ok(());
    };
    let found = Census::decode(bytes, &nodeset).map_err(refused(args))?;
    report.field("node", found.node());
    cluster_line(found.cluster(), args, report);
    report.field("lineage", found.lineage());
    report.line("keyring", format!("version {}, {}", found.keyring_version(), found.keyring_hash()));
    report.value("keyring_version", json!(found.keyring_version()));
    report.value("keyring_hash", json!(found.keyring_hash().to_string()));
    report.field("stream", found.stream());
    let barrier_id = HEXLOWER.encode(found.barrier_id());
    report.line("barrier", format!("{}, {barrier_id}", found.barrier()));
    report.value("barrier", json!(found.barrier()));
    report.value("barrier_id", json!(barrier_id));
    report.field("digest", HEXLOWER.encode(found.digest()));
    let text = |counts: &[(Epoch, u64)]| {
        let all: Vec<_> =
            counts.iter().map(|(epoch, count)| format!("{count} under epoch {epoch}")).collect();
        if all.is_empty() { "none".to_owned() } else { all.join(", ") }
    };
    let list = |counts: &[(Epoch, u64)]| -> Vec<_> {
        counts.iter().map(|(epoch, count)| json!({ "epoch": epoch.get(), "count": count })).collect()
    };
    for (name, count) in [
        ("records", found.records()),
        ("unsealed", found.unsealed()),
        ("undecryptable", found.undecryptable()),
    ] {
        report.line(name, count);
        report.value(name, json!(count));
    }
    report.line("entries", text(found.entries()));
    report.value("entries", json!(list(found.entries())));
    match found.disk() {
        None => report.line("disk", "not looked at"),
        Some(disk) => {
            let found = text(&disk.envelopes);
            report.line("disk", format!("{} files, {} bytes; envelopes: {found}", disk.files, disk.bytes));
        }
    }
    let disk = found
        .disk()
        .map(|disk| json!({ "files": disk.files, "bytes": disk.bytes, "envelopes": list(&disk.envelopes) }));
    report.value("disk", json!(disk));
    report.field("made", found.created());
    Ok(())
}

pub(super) fn request(text: &str, args: &Inspect, report: &mut Report) -> Result<(), Failure> {
    show_request(&Request::parse(text).map_err(refused(args))?, args, report)
}

fn show_request(request: &Request, args: &Inspect, report: &mut Report) -> Result<(), Failure> {
    if let Some(expected) = args.cluster.filter(|expected| expected != request.cluster()) {
        let found = *request.cluster();
        return Err(refused(args)(DocumentError::Cluster { document: "request", expected, found }));
    }
    report.field("kind", Kind::Request.name());
    report.field("name", &request.member().name);
    cluster_line(request.cluster(), args, report);
    report.field("fingerprint", request.fingerprint());
    report.field("wrapping", request.member().wrapping_public.fingerprint());
    report.field("made", request.member().since);
    Ok(())
}

pub(super) fn recipient(text: &str, args: &Inspect, report: &mut Report) -> Result<(), Failure> {
    show_recipient(&recovery::parse(text).map_err(refused(args))?, report);
    Ok(())
}

fn show_recipient(public: &RecipientPublic, report: &mut Report) {
    report.field("kind", Kind::Recovery.name());
    report.field("fingerprint", public.fingerprint());
}

pub(super) fn witness(bytes: &[u8], args: &Inspect, report: &mut Report) -> Result<(), Failure> {
    let origin = format!("`{}`", args.file.display());
    let refused = |source| Failure::Witness { origin: origin.clone(), source };
    let (key, _nonce) =
        witness::decode_header(bytes).map_err(|error| refused(WitnessError::Decode(error)))?;
    report.field("kind", "witness");
    report.field("sealed_by", key);
    let Some(path) = &args.key_file else {
        report.line("contents", "sealed; --key-file opens them");
        return Ok(());
    };
    let own = NodeKeyFile::load(path)?;
    let witness = Witness::open(bytes, &own).map_err(refused)?;
    let time =
        |at: Option<unibus_keyfile::id::UnixTime>| at.map_or_else(|| "never".into(), |t| t.to_string());
    report.field("cluster", witness.cluster);
    report.field("lineage", witness.lineage);
    report.line("sequence", witness.sequence);
    report.value("sequence", json!(witness.sequence.0));
    report.field("digest", witness.digest);
    report.line("nodeset", format!("version {}, {}", witness.nodeset_version, witness.nodeset_hash));
    report.value("nodeset_version", json!(witness.nodeset_version));
    report.line("keyring", format!("version {}, {}", witness.keyring_version, witness.keyring_hash));
    report.value("keyring_version", json!(witness.keyring_version));
    report.field("last_drill", time(witness.last_drill));
    report.field("last_proof", time(witness.last_proof));
    Ok(())
}

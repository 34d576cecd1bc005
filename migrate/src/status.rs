//! `status`: what a store says about itself, after it was proven.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use unibus_keyfile::id::{Epoch, NodeName, UnixTime};
use unibus_keyfile::keyring::{EpochState, Keyring};
use unibus_keyfile::receipt::Receipt;
use unibus_store::sealed_log::{Replication, SealedLog};
use unibus_store::store::Census;

use crate::cli::StatusArgs;
use crate::error::MigrateError;
use crate::open::{Given, Sealed, Unsound, source_keys};
use crate::output::{Answer, Output, row};
use crate::rotate;
use crate::snapshot::open_snapshot;
use crate::source::StoreUrl;

/// Shows the status of a store.
///
/// # Errors
/// What keeps the store from being opened.
pub fn run(args: &StatusArgs, output: Output) -> Result<Answer, MigrateError> {
    match &args.store {
        StoreUrl::Sqlcipher(_) | StoreUrl::Kv(_) => {
            let progress = output.progress("prove", None);
            let keys = source_keys(&args.keys, &args.recovery, &args.store)?;
            let sealed = Sealed::of(&args.store, Given::of(&args.keys), keys, Unsound::Refuse, "status")?;
            progress.finish();
            of_sealed(args, &sealed)
        }
        StoreUrl::Sqlite(_) | StoreUrl::KvPlain(_) => {
            let source = crate::plain::open(&args.store, Given::of(&args.keys), ("status", output))?;
            let counts = source.counts()?;
            source.finish()?;
            let object = json!({
                "command": "status", "store": args.store.to_string(), "sealed": false,
                "lineage": null, "sequence": null, "state_digest": null,
                "entries": {"users": counts.users, "rooms": counts.rooms, "members": counts.members, "room_keys": counts.room_keys},
                "epochs": [], "primary_epoch": null, "rotation": null, "last_proof": null,
            });
            let mut lines =
                vec![row("store", args.store.to_string()), row("sealed", "no: everything in it is readable")];
            lines.extend([
                row("users", counts.users),
                row("rooms", counts.rooms),
                row("members", counts.members),
            ]);
            lines.push(row("room keys", counts.room_keys));
            Ok(Answer::done(object, lines))
        }
        StoreUrl::Receipt(_) => {
            let (role, command, hint) =
                ("the store", "status", "`verify receipt:FILE` says what a receipt proves");
            Err(MigrateError::Role { url: args.store.clone(), role, command, hint })
        }
        StoreUrl::Snapshot(path) => {
            let snapshot = open_snapshot(path, None)?;
            let (header, keyring) = (snapshot.verified().header(), snapshot.verified().keyring());
            let object = json!({
                "command": "status", "store": args.store.to_string(), "sealed": true,
                "cluster": header.cluster.to_string(),
                "lineage": header.lineage.to_string(), "sequence": header.sequence.0,
                "state_digest": header.digest.to_string(), "entries": null,
                "created": header.created.to_string(), "made_by": header.node.to_string(),
                "epochs": epochs(keyring), "primary_epoch": keyring.primary().number.get(),
                "rotation": null, "last_proof": null,
            });
            let mut lines = vec![row("store", args.store.to_string()), row("made", header.created)];
            lines.extend([
                row("by node", &header.node),
                row("lineage", header.lineage),
                row("sequence", header.sequence),
            ]);
            lines.push(row("state digest", header.digest));
            Ok(Answer::done(object, lines))
        }
    }
}

fn of_sealed(args: &StatusArgs, sealed: &Sealed) -> Result<Answer, MigrateError> {
    let position = sealed.store().position()?;
    let (keyring, nodeset) = (&sealed.keyring, &sealed.nodeset);
    let posture = sealed.store().posture();
    let census = sealed.census()?;
    let witness = sealed.witness.as_ref();
    let last_proof = witness.and_then(|witness| witness.last_proof).map(|at| at.to_string());
    let last_drill = witness.and_then(|witness| witness.last_drill).map(|at| at.to_string());
    let nodes: Vec<Value> = nodeset
        .nodes()
        .iter()
        .map(|node| json!({"name": node.name.as_str(), "key": node.fingerprint().to_string(), "since": node.since.to_string()}))
        .collect();
    let recovery: Vec<String> = nodeset.recovery().iter().map(|one| one.name.to_string()).collect();
    let log = sealed.log().map(Servers::of).transpose()?;
    let rotation = sealed.log().map(SealedLog::rotation).transpose()?;
    let receipt = sealed.log().and_then(SealedLog::last_receipt);
    let receipt =
        receipt.and_then(|bytes| Receipt::decode(&bytes).ok()).map(|found| found.hash().to_string());
    let rotation = match &rotation {
        Some(rotation) => rotate::epoch::log::under_way(rotation),
        None => rotate::epoch::database::under_way(sealed.rotation()),
    };
    let object = json!({
        "command": "status",
        "store": args.store.to_string(),
        "sealed": true,
        "log": log.as_ref().map(Servers::object),
        "cluster": keyring.cluster().to_string(),
        "lineage": position.lineage.to_string(),
        "sequence": position.sequence.0,
        "state_digest": position.digest.to_string(),
        "entries": entries(&census),
        "records": census.total(),
        "epochs": epochs(keyring),
        "primary_epoch": keyring.primary().number.get(),
        "keyring_version": keyring.version(),
        "nodeset_version": nodeset.version(),
        "nodes": nodes,
        "recovery": recovery,
        "rotation": rotation,
        "last_receipt": receipt,
        "cipher": posture.cipher,
        "freshness": sealed.freshness.as_str(),
        "last_proof": last_proof,
        "last_drill": last_drill,
    });
    let mut lines = vec![
        row("store", args.store.to_string()),
        row("cluster", keyring.cluster()),
        row("lineage", position.lineage),
        row("sequence", position.sequence),
        row("state digest", position.digest),
    ];
    lines.extend(census_lines(&census));
    lines.push(row("epoch", format!("{} (of {})", keyring.primary().number, keyring.epochs().len())));
    lines.push(row(
        "nodes",
        nodeset.nodes().iter().map(|n| n.name.to_string()).collect::<Vec<_>>().join(", "),
    ));
    lines.push(row("recovery", recovery.join(", ")));
    lines.extend(log.iter().flat_map(Servers::lines));
    let of = |name: &str| rotation.get(name);
    if let (Some(from), Some(step)) = (of("from").and_then(Value::as_u64), of("step").and_then(Value::as_str))
    {
        lines.push(row("rotation", format!("from epoch {from}, step: {step}; `resume` goes on with it")));
    }
    lines.push(row("newest copy", sealed.freshness.remark()));
    lines.push(row("last proof", last_proof.as_deref().unwrap_or("unknown")));
    lines.push(row("last drill", last_drill.as_deref().unwrap_or("never: run `unibus-migrate drill`")));
    Ok(Answer::done(object, lines))
}

/// What the servers of a log say, and the nodes through it.
struct Servers {
    replication: Replication,
    last_sequence: u64,
    entries_by_epoch: BTreeMap<Epoch, u64>,
    acknowledged: BTreeMap<NodeName, u64>,
}

impl Servers {
    fn of(log: &SealedLog) -> Result<Self, MigrateError> {
        Ok(Self {
            replication: log.replication_now()?,
            last_sequence: log.last_sequence(),
            entries_by_epoch: log.entries_by_epoch(),
            acknowledged: log.acknowledged(),
        })
    }

    fn object(&self) -> Value {
        let Replication { leader, wanted, current, .. } = &self.replication;
        let epochs = self.entries_by_epoch.iter();
        let epochs: Map<String, Value> =
            epochs.map(|(epoch, count)| (epoch.to_string(), (*count).into())).collect();
        let nodes = self.acknowledged.iter();
        let nodes: Map<String, Value> =
            nodes.map(|(node, version)| (node.to_string(), (*version).into())).collect();
        json!({
            "leader": leader,
            "replicas": {"wanted": wanted, "current": current},
            "last_stream_sequence": self.last_sequence,
            "entries_by_epoch": epochs,
            "keyring_acknowledged": nodes,
        })
    }

    fn lines(&self) -> Vec<String> {
        let Replication { leader, wanted, current, .. } = &self.replication;
        let acknowledged: Vec<String> =
            self.acknowledged.iter().map(|(node, version)| format!("{node} {version}")).collect();
        vec![
            row("leader", leader.as_deref().unwrap_or(if *wanted == 1 { "the only server" } else { "none" })),
            row("replicas", format!("{current} of {wanted} current")),
            row("stream", format!("last sequence {}", self.last_sequence)),
            row(
                "keyring of",
                if acknowledged.is_empty() { "nobody yet".to_owned() } else { acknowledged.join(", ") },
            ),
        ]
    }
}

/// Counts per kind, for programs.
#[must_use]
pub fn entries(census: &Census) -> Value {
    json!({
        "users": census.users, "rooms": census.rooms, "members": census.members,
        "room_keys": census.room_keys, "blobs": census.blobs,
    })
}

/// Counts per kind, for people.
#[must_use]
pub fn census_lines(census: &Census) -> Vec<String> {
    vec![
        row("users", census.users),
        row("rooms", census.rooms),
        row("members", census.members),
        row("room keys", census.room_keys),
        row("blobs", census.blobs),
    ]
}

/// The epochs of a keyring, for programs.
#[must_use]
pub fn epochs(keyring: &Keyring) -> Vec<Value> {
    let state = |state: EpochState| state.name();
    let at = |at: UnixTime| at.to_string();
    keyring
        .epochs()
        .iter()
        .map(|epoch| {
            json!({
                "number": epoch.number.get(), "state": state(epoch.state),
                "created": at(epoch.created), "exposed": epoch.exposed,
            })
        })
        .collect()
}

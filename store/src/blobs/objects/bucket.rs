//! The object store's stream: its name, its settings, and what a server may not have changed about them
//! (SPEC store, section 8.8).

use serde_json::{Map, Value, json};

use super::super::BlobError;
use super::api::{Api, NO_STREAM};

/// Name of the object store.
pub const BUCKET: &str = "UNIBUS_blobs";
/// Name of its stream.
pub const BUCKET_STREAM: &str = "OBJ_UNIBUS_blobs";

/// What an object store is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "complete by nature")]
pub enum BucketUse {
    /// To store and read, in the first start of a log: made where there is none.
    Make {
        /// Replicas.
        replicas: usize,
    },
    /// To store and read in one that must be there.
    Keep {
        /// Replicas; one that has fewer gets more, in place.
        replicas: usize,
    },
    /// To read: nothing about it is changed.
    Look,
}

/// The settings: what is not named here must be absent, or say nothing.
fn settings(replicas: usize) -> Map<String, Value> {
    let settings = json!({
        "name": BUCKET_STREAM,
        "subjects": [format!("$O.{BUCKET}.C.>"), format!("$O.{BUCKET}.M.>")],
        "storage": "file",
        "retention": "limits",
        "discard": "new",
        "num_replicas": replicas,
        "max_consumers": -1,
        "max_msgs": -1,
        "max_bytes": -1,
        "max_msgs_per_subject": -1,
        "max_msg_size": -1,
        "max_age": 0,
        "duplicate_window": 120_000_000_000_u64,
        "compression": "none",
        "allow_direct": false,
        "mirror_direct": false,
        "allow_rollup_hdrs": false,
        "deny_delete": true,
        "deny_purge": false,
        "sealed": false,
    });
    if let Value::Object(settings) = settings { settings } else { Map::new() }
}

const REPLICAS: &str = "num_replicas";

/// Finds the stream, or makes it; refuses one with other settings.
pub(super) fn open(api: &Api, bucket: BucketUse) -> Result<(), BlobError> {
    const STEP: &str = "open the object store";
    let unavailable = |why: String| BlobError::Unavailable { step: STEP, why };
    let replicas = match bucket {
        BucketUse::Make { replicas } | BucketUse::Keep { replicas } => Some(replicas),
        BucketUse::Look => None,
    };
    let wanted = settings(replicas.unwrap_or(1));
    let question = Value::Object(wanted.clone());
    let found = match api.ask(STEP, "INFO", &json!({}))? {
        Ok(found) => found,
        Err(refused) if refused.number == NO_STREAM && matches!(bucket, BucketUse::Make { .. }) => {
            let made = api.ask("make the object store", "CREATE", &question)?;
            made.map_err(|refused| unavailable(refused.text))?
        }
        Err(refused) if refused.number == NO_STREAM => return Err(BlobError::NoBucket { bucket: BUCKET }),
        Err(refused) => return Err(unavailable(refused.text)),
    };
    let Some(found) = found.get("config").and_then(Value::as_object) else {
        return Err(unavailable("an answer without settings".into()));
    };
    if let Some((setting, found, wanted)) = difference(found, &wanted) {
        return Err(BlobError::OtherSettings { bucket: BUCKET, setting, found, wanted });
    }
    let has = found.get(REPLICAS).and_then(Value::as_u64).unwrap_or(1);
    if replicas.and_then(|wanted| u64::try_from(wanted).ok()).is_some_and(|wanted| wanted > has) {
        let raised = api.ask("raise the replicas of the object store", "UPDATE", &question)?;
        raised.map_err(|refused| unavailable(refused.text))?;
    }
    Ok(())
}

/// The first setting that differs, as name, found and wanted. The number of replicas is no matter of safety.
fn difference(found: &Map<String, Value>, wanted: &Map<String, Value>) -> Option<(String, String, String)> {
    let nothing = Value::Null;
    for (name, wanted) in wanted.iter().filter(|(name, _)| *name != REPLICAS) {
        let is = found.get(name).unwrap_or(&nothing);
        if is != wanted && !(says_nothing(is) && says_nothing(wanted)) {
            return Some((name.clone(), is.to_string(), wanted.to_string()));
        }
    }
    let others = found.iter().filter(|(name, _)| !wanted.contains_key(*name) && *name != REPLICAS);
    for (name, is) in others {
        if !(says_nothing(is) || name == "metadata" && is_of_the_server(is)) {
            return Some((name.clone(), is.to_string(), "nothing".into()));
        }
    }
    None
}

fn says_nothing(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Number(number) => number.as_i64().is_some_and(|number| number == 0 || number == -1),
        Value::String(text) => text.is_empty() || text == "none",
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.values().all(says_nothing),
        Value::Bool(true) => false,
    }
}

/// What a server notes about itself in the settings of each stream.
fn is_of_the_server(metadata: &Value) -> bool {
    metadata.as_object().is_some_and(|map| map.keys().all(|key| key.starts_with("_nats.")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn as_found(name: &str, value: Value) -> Option<String> {
        let mut found = settings(1);
        found.insert(name.to_owned(), value);
        difference(&found, &settings(3)).map(|(name, _, _)| name)
    }

    #[test]
    fn the_settings_are_those_of_the_specification() {
        let spec = include_str!("../../../SPEC.md");
        let section = spec.split_once("\n### 8.1 Streams\n").unwrap().1.split("\n#").next().unwrap();
        let mut wanted = settings(1);
        for row in section.lines().filter(|line| line.starts_with("| `")) {
            let cells: Vec<String> =
                row.trim_matches('|').split('|').map(|cell| cell.trim().replace('`', "")).collect();
            let [names, _, _, blobs, _] = cells.as_slice() else { continue };
            for name in names.split(", ") {
                let found = wanted.remove(name).unwrap_or(json!(false));
                let found = found.as_str().map_or(found.to_string(), str::to_owned);
                assert!(found == *blobs || name == REPLICAS, "{name}: {found}, {blobs}");
            }
        }
        let rest: Vec<_> = wanted.keys().map(String::as_str).collect();
        assert_eq!(rest, ["name", "sealed", "subjects"]);
    }

    #[test]
    fn every_setting_that_differs_is_named_also_one_that_nobody_knows() {
        assert_eq!(as_found(REPLICAS, json!(3)), None);
        assert_eq!(as_found("metadata", json!({ "_nats.ver": "2.15.1" })), None);
        assert_eq!(as_found("consumer_limits", json!({})), None);
        assert_eq!(as_found("some_later_feature", json!(false)), None);
        for (name, value) in [
            ("storage", json!("memory")),
            ("subjects", json!(["$O.UNIBUS_blobs.C.>"])),
            ("max_age", json!(1)),
            ("max_msgs", json!(10)),
            ("max_bytes", json!(1000)),
            ("max_msgs_per_subject", json!(1)),
            ("discard", json!("old")),
            ("retention", json!("interest")),
            ("compression", json!("s2")),
            ("allow_direct", json!(true)),
            ("mirror_direct", json!(true)),
            ("allow_rollup_hdrs", json!(true)),
            ("deny_delete", json!(false)),
            ("deny_purge", json!(true)),
            ("sealed", json!(true)),
            ("republish", json!({ "src": ">", "dest": "copy.>" })),
            ("mirror", json!({ "name": "OTHER" })),
            ("sources", json!([{ "name": "OTHER" }])),
            ("subject_transform", json!({ "src": "a", "dest": "b" })),
            ("description", json!("a word")),
            ("metadata", json!({ "who": "me" })),
            ("allow_msg_ttl", json!(true)),
            ("some_later_feature", json!(true)),
        ] {
            assert_eq!(as_found(name, value).as_deref(), Some(name));
        }
    }
}

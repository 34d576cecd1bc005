//! The settings of both streams: whoever changes one is found out.

use serde_json::{Value, json};

use super::server::Server;
use super::{ACK, WireError, connect, entry, list, log, raw, raw_client};
use crate::sealed_log::stream::{Bucket, Generation, NONCES, STREAM, StreamInfo};

/// What a server says of a stream with these settings instead of ours. The stream is made anew for each.
async fn with_settings(server: &Server, bucket: Bucket, change: &Value) -> StreamInfo {
    let client = raw_client(server).await;
    let name = bucket.stream();
    let mut config = bucket.config(1);
    for (setting, value) in change.as_object().unwrap() {
        config[setting] = value.clone();
    }
    raw(&client, &format!("STREAM.CREATE.{name}"), &config).await;
    let wire = connect(&server.url()).await;
    let info = match bucket {
        Bucket::Control(_) => wire.info().await.unwrap(),
        Bucket::Nonces => wire.nonces_info().await.unwrap(),
    };
    raw(&client, &format!("STREAM.DELETE.{name}"), &json!({})).await;
    info
}

#[tokio::test]
async fn the_streams_are_made_as_wanted() {
    let server = Server::start().await;
    let wire = connect(&server.url()).await;
    for _ in 0..2 {
        wire.create(1).await.unwrap();
        wire.create_nonces(1).await.unwrap();
    }
    for info in [wire.info().await.unwrap(), wire.nonces_info().await.unwrap()] {
        info.check(1).unwrap();
        let error = info.check(3).unwrap_err();
        assert_eq!((error.setting, error.found.as_str(), error.wanted.as_str()), ("num_replicas", "1", "3"));
        assert_eq!((info.messages, info.last_sequence), (0, 0));
        assert_eq!((info.current_replicas(), info.wanted_replicas()), (1, Some(1)));
        assert!(info.replicas.is_empty());
    }
}

#[tokio::test]
async fn making_a_stream_changes_none_that_is_there() {
    let (server, wire) = log().await;
    wire.publish(&[entry("a", "1")], 0, ACK).await.unwrap();
    let client = raw_client(&server).await;
    let mut config = Bucket::Control(Generation::FIRST).config(1);
    config["allow_direct"] = json!(true);
    raw(&client, &format!("STREAM.UPDATE.{STREAM}"), &config).await;
    let error = wire.create(1).await.unwrap_err();
    assert!(matches!(error, WireError::Api { code: 10_058, .. }), "{error:?}");
    let info = wire.info().await.unwrap();
    assert_eq!(info.check(1).unwrap_err().setting, "allow_direct");
    assert_eq!(info.last_sequence, 1);
    // Nor is anything repaired on the way to more replicas.
    let error = wire.raise_replicas(&info, 3).await.unwrap_err();
    assert!(matches!(&error, WireError::Settings(error) if error.setting == "allow_direct"), "{error:?}");
    assert_eq!(wire.info().await.unwrap().check(1).unwrap_err().setting, "allow_direct");
}

#[tokio::test]
async fn replicas_are_never_taken_away() {
    let (_server, wire) = log().await;
    let info = wire.info().await.unwrap();
    let error = wire.raise_replicas(&info, 0).await.unwrap_err();
    assert!(matches!(&error, WireError::Settings(error) if error.setting == "num_replicas"), "{error:?}");
    wire.raise_replicas(&info, 1).await.unwrap();
    wire.info().await.unwrap().check(1).unwrap();
}

#[tokio::test]
async fn each_changed_setting_of_the_log_is_named() {
    let server = Server::start().await;
    let subjects = list(&["$KV.UNIBUS_control.>", "other"]);
    let changes = [
        ("subjects", json!({ "subjects": subjects })),
        ("subjects", json!({ "subjects": ["$KV.UNIBUS_control.*"] })),
        ("storage", json!({ "storage": "memory" })),
        ("retention", json!({ "retention": "interest" })),
        ("discard", json!({ "discard": "old" })),
        ("discard_new_per_subject", json!({ "discard_new_per_subject": true })),
        ("max_msgs_per_subject", json!({ "max_msgs_per_subject": 2 })),
        ("max_msgs_per_subject", json!({ "max_msgs_per_subject": -1 })),
        ("max_msgs", json!({ "max_msgs": 1_000_000 })),
        ("max_bytes", json!({ "max_bytes": 1_000_000 })),
        ("max_age", json!({ "max_age": 3_600_000_000_000_i64 })),
        ("max_msg_size", json!({ "max_msg_size": 1_000_000 })),
        ("max_consumers", json!({ "max_consumers": 5 })),
        ("allow_direct", json!({ "allow_direct": true })),
        ("deny_delete", json!({ "deny_delete": false })),
        ("deny_purge", json!({ "deny_purge": false })),
        ("allow_rollup_hdrs", json!({ "allow_rollup_hdrs": true, "deny_purge": false })),
        ("allow_atomic", json!({ "allow_atomic": false })),
        ("allow_batched", json!({ "allow_batched": true })),
        ("allow_msg_ttl", json!({ "allow_msg_ttl": true })),
        ("allow_msg_counter", json!({ "allow_msg_counter": true, "discard": "old", "allow_atomic": false })),
        ("allow_msg_schedules", json!({ "allow_msg_schedules": true, "discard": "old" })),
        ("compression", json!({ "compression": "s2" })),
        ("persist_mode", json!({ "persist_mode": "async", "allow_atomic": false })),
        ("first_seq", json!({ "first_seq": 1000 })),
        ("no_ack", json!({ "no_ack": true, "allow_atomic": false })),
        ("duplicate_window", json!({ "duplicate_window": 1_000_000_000 })),
        ("sources", json!({ "sources": [{ "name": "OTHER" }] })),
        ("republish", json!({ "republish": { "src": ">", "dest": "copy.>" } })),
        (
            "subject_transform",
            json!({ "subject_transform": { "src": "$KV.UNIBUS_control.a", "dest": "$KV.UNIBUS_control.b" } }),
        ),
        ("consumer_limits", json!({ "consumer_limits": { "inactive_threshold": 60_000_000_000_i64 } })),
        ("description", json!({ "description": "mine" })),
        ("metadata", json!({ "metadata": { "owner": "me" } })),
    ];
    for (setting, change) in changes {
        let error =
            with_settings(&server, Bucket::Control(Generation::FIRST), &change).await.check(1).unwrap_err();
        let first = if change.get("discard").is_some() { "discard" } else { setting };
        let first =
            if change.get("allow_atomic").is_some() && first != "discard" { "allow_atomic" } else { first };
        let first = if change.get("allow_rollup_hdrs").is_some() { "deny_purge" } else { first };
        assert_eq!(error.setting, first, "{setting}: {error}");
    }
    with_settings(&server, Bucket::Control(Generation::FIRST), &json!({})).await.check(1).unwrap();
}

#[tokio::test]
async fn a_mirror_and_a_sealed_stream_are_named() {
    let server = Server::start().await;
    let client = raw_client(&server).await;
    raw(&client, "STREAM.CREATE.OTHER", &json!({ "name": "OTHER", "subjects": ["other"] })).await;
    let mirror = json!({ "name": STREAM, "mirror": { "name": "OTHER" }, "num_replicas": 1 });
    raw(&client, &format!("STREAM.CREATE.{STREAM}"), &mirror).await;
    let wire = connect(&server.url()).await;
    assert_eq!(wire.info().await.unwrap().check(1).unwrap_err().setting, "subjects");
    raw(&client, &format!("STREAM.DELETE.{STREAM}"), &json!({})).await;
    wire.create(1).await.unwrap();
    let mut config = Bucket::Control(Generation::FIRST).config(1);
    config["sealed"] = json!(true);
    raw(&client, &format!("STREAM.UPDATE.{STREAM}"), &config).await;
    assert_eq!(wire.info().await.unwrap().check(1).unwrap_err().setting, "sealed");
}

#[tokio::test]
async fn each_changed_setting_of_the_nonces_is_named() {
    let server = Server::start().await;
    let changes = [
        ("allow_msg_ttl", json!({ "allow_msg_ttl": false })),
        ("max_age", json!({ "max_age": 3_600_000_000_000_i64 })),
        ("max_msgs", json!({ "max_msgs": 10 })),
        ("deny_purge", json!({ "deny_purge": false })),
        ("allow_direct", json!({ "allow_direct": true })),
        ("allow_atomic", json!({ "allow_atomic": true })),
    ];
    for (setting, change) in changes {
        let error = with_settings(&server, Bucket::Nonces, &change).await.check(1).unwrap_err();
        assert_eq!(error.setting, setting);
    }
    with_settings(&server, Bucket::Nonces, &json!({})).await.check(1).unwrap();
}

/// What no server of today can be made to say.
#[test]
fn what_a_later_server_adds_is_named_only_where_it_says_something() {
    let reply = |changes: Value| {
        let mut config = Bucket::Control(Generation::FIRST).config(1);
        for (setting, value) in changes.as_object().unwrap() {
            config[setting] = value.clone();
        }
        let state = json!({ "messages": 0, "first_seq": 0, "last_seq": 0 });
        StreamInfo::parse(Bucket::Control(Generation::FIRST), json!({ "config": config, "state": state }))
            .unwrap()
    };
    let silent = json!({ "new_a": false, "new_b": 0, "new_c": "", "new_d": null, "new_e": {}, "new_f": [] });
    reply(silent).check(1).unwrap();
    for value in [json!(true), json!(1), json!("x"), json!([1]), json!({ "a": false })] {
        let error = reply(json!({ "new": value })).check(1).unwrap_err();
        assert_eq!(error.setting, "an unknown setting");
        assert!(error.found.starts_with("`new` = "), "{error}");
    }
    for (setting, value) in [
        ("name", json!(NONCES)),
        ("mirror", json!({ "name": "OTHER" })),
        ("mirror_direct", json!(true)),
        ("allow_rollup_hdrs", json!(true)),
        ("allow_msg_counter", json!(true)),
        ("allow_msg_schedules", json!(true)),
        ("persist_mode", json!("async")),
        ("no_ack", json!(true)),
        ("placement", json!({ "tags": ["x"] })),
        ("subject_delete_marker_ttl", json!(1)),
        ("template_owner", json!("x")),
        ("allow_direct", json!("true")),
        ("max_msgs", json!("-1")),
    ] {
        assert_eq!(reply(json!({ setting: value })).check(1).unwrap_err().setting, setting);
    }
    reply(json!({ "metadata": { "_nats.ver": "2.99" } })).check(1).unwrap();
}

#[test]
fn a_replica_counts_while_it_is_current_online_and_heard_of() {
    let info = |leader: Value, replicas: Value| {
        let state = json!({ "messages": 7, "first_seq": 2, "last_seq": 9 });
        let cluster = json!({ "name": "c", "leader": leader, "replicas": replicas });
        let reply = json!({ "config": Bucket::Control(Generation::FIRST).config(3), "state": state, "cluster": cluster });
        StreamInfo::parse(Bucket::Control(Generation::FIRST), reply).unwrap()
    };
    let good = json!({ "name": "n1", "current": true, "active": 1_000_000 });
    let others = [
        json!({ "name": "n2", "current": false, "active": 1_000_000, "lag": 5 }),
        json!({ "name": "n2", "current": true, "offline": true, "active": 1_000_000 }),
        json!({ "name": "n2", "current": true, "active": 5_000_000_001_i64 }),
        json!({ "name": "n2" }),
    ];
    let all = info(json!("n0"), json!([good, good]));
    assert_eq!((all.current_replicas(), all.last_sequence, all.leader.as_deref()), (3, 9, Some("n0")));
    all.check(3).unwrap();
    for other in others {
        assert_eq!(info(json!("n0"), json!([good, other])).current_replicas(), 2, "{other}");
        assert_eq!(info(json!(""), json!([good, other])).current_replicas(), 1, "{other}");
    }
    assert_eq!(info(Value::Null, Value::Null).current_replicas(), 0);
}

//! Storing at one stated place, or not at all; nonces.

use std::time::Duration;

use async_nats::HeaderMap;
use bytes::Bytes;
use serde_json::json;

use super::super::publish::MOST_ENTRIES;
use super::server::{Server, Way};
use super::{ACK, Wire, connect, entries, entry, log, raw, raw_client, until};
use crate::sealed_log::stream::{Bucket, Generation, NONCES, NONCES_PREFIX, STREAM};
use crate::sealed_log::wire::PublishError;

/// Time for an acknowledgement that will not come.
const SHORT: Duration = Duration::from_millis(300);

async fn last(wire: &Wire) -> u64 {
    wire.info().await.unwrap().last_sequence
}

#[tokio::test]
async fn an_entry_is_stored_where_it_says_or_not_at_all() {
    let (_server, wire) = log().await;
    assert_eq!(wire.publish(&[entry("a", "1")], 0, ACK).await, Ok(1));
    assert_eq!(wire.publish(&[entry("b", "2")], 1, ACK).await, Ok(2));
    for expected in [0, 1, 3, 1_000_000] {
        let refused = wire.publish(&[entry("a", "x")], expected, ACK).await;
        assert_eq!(refused, Err(PublishError::WrongLastSequence), "{expected}");
    }
    assert_eq!(last(&wire).await, 2);
    let stored = wire.get(1).await.unwrap().unwrap();
    assert_eq!(
        (stored.sequence, stored.subject.as_str(), &stored.payload[..]),
        (1, "$KV.UNIBUS_control.a", &b"1"[..])
    );
    assert_eq!(stored.foreign_header, None);
}

#[tokio::test]
async fn a_batch_is_stored_as_a_whole_or_not_at_all() {
    let (_server, wire) = log().await;
    assert_eq!(wire.publish(&entries(3), 0, ACK).await, Ok(3));
    for expected in [0, 2, 4, 1_000_000] {
        let refused = wire.publish(&entries(3), expected, ACK).await;
        assert_eq!(refused, Err(PublishError::WrongLastSequence), "{expected}");
    }
    assert_eq!(last(&wire).await, 3);
    assert_eq!(wire.publish(&entries(2), 3, ACK).await, Ok(5));
    for (sequence, there) in [(1, false), (2, false), (3, true), (4, true), (5, true), (6, false), (0, false)]
    {
        let found = wire.get(sequence).await.unwrap();
        assert_eq!(found.is_some(), there, "{sequence}");
        assert!(found.is_none_or(|raw| raw.foreign_header.is_none()), "{sequence}");
    }
}

#[tokio::test]
async fn a_batch_has_a_thousand_entries_and_no_more() {
    let (_server, wire) = log().await;
    assert_eq!(wire.publish(&entries(MOST_ENTRIES), 0, ACK).await, Ok(1000));
    let refused = wire.publish(&entries(MOST_ENTRIES + 1), 1000, ACK).await;
    assert_eq!(refused, Err(PublishError::TooMany { entries: 1001, limit: 1000 }));
    let refused = wire.publish(&[], 1000, ACK).await;
    assert!(matches!(refused, Err(PublishError::NotStored { code: 0, .. })), "{refused:?}");
    assert_eq!(last(&wire).await, 1000);
}

#[tokio::test]
async fn a_message_over_the_limit_is_not_sent() {
    let (_server, wire) = log().await;
    let large = "x".repeat(1 << 20);
    for entries in [vec![entry("a", &large)], vec![entry("a", "1"), entry("b", &large)]] {
        let refused = wire.publish(&entries, 0, ACK).await.unwrap_err();
        let PublishError::TooLarge { bytes, limit } = refused else { panic!("{refused:?}") };
        assert!(bytes > limit && limit == 1 << 20);
    }
    // The largest that goes: what is counted is what the server counts.
    let headers =
        "NATS/1.0\r\nNats-Expected-Last-Sequence: 0\r\nNats-Expected-Stream: KV_UNIBUS_control\r\n\r\n";
    let most = &large[headers.len()..];
    assert_eq!(wire.publish(&[entry("a", most)], 0, ACK).await, Ok(1));
    let refused = wire.publish(&[entry("a", &format!("{most}x"))], 0, ACK).await;
    assert_eq!(refused, Err(PublishError::TooLarge { bytes: (1 << 20) + 1, limit: 1 << 20 }));
}

#[tokio::test]
async fn a_stream_without_batches_refuses_them() {
    let server = Server::start().await;
    let client = raw_client(&server).await;
    let mut config = Bucket::Control(Generation::FIRST).config(1);
    config["allow_atomic"] = json!(false);
    raw(&client, &format!("STREAM.CREATE.{STREAM}"), &config).await;
    let wire = connect(&server.url()).await;
    let refused = wire.publish(&entries(2), 0, ACK).await.unwrap_err();
    assert!(matches!(refused, PublishError::NotStored { code: 10_174, .. }), "{refused:?}");
}

#[tokio::test]
async fn a_stranger_who_acknowledges_is_not_believed() {
    let server = Server::start().await;
    let client = raw_client(&server).await;
    // Another stream has taken our subjects.
    let config = json!({ "name": "OTHER", "subjects": ["$KV.UNIBUS_control.>", "$KV.UNIBUS_nonces.>"],
        "allow_atomic": true, "allow_msg_ttl": true });
    raw(&client, "STREAM.CREATE.OTHER", &config).await;
    let wire = connect(&server.url()).await;
    let refused = wire.publish(&[entry("a", "1")], 0, ACK).await.unwrap_err();
    assert!(matches!(refused, PublishError::NotStored { code: 10_060, .. }), "{refused:?}");
    let refused = wire.publish(&entries(2), 0, ACK).await.unwrap_err();
    assert!(matches!(refused, PublishError::NotStored { code: 10_060, .. }), "{refused:?}");
    let refused = wire.claim_nonce("n", Bytes::new(), 0, ACK, ACK).await.unwrap_err();
    assert!(matches!(refused, PublishError::NotStored { code: 10_060, .. }), "{refused:?}");
}

#[tokio::test]
async fn an_acknowledgement_of_something_else_says_nothing() {
    use futures_util::StreamExt as _;
    let server = Server::with("").await;
    let client = raw_client(&server).await;
    let wire = connect(&server.url()).await;
    let wrong = [
        r#"{"stream":"KV_UNIBUS_control","seq":7}"#,
        r#"{"stream":"KV_UNIBUS_control","seq":6,"batch":"x","count":1}"#,
        r#"{"stream":"KV_UNIBUS_control","seq":6,"duplicate":true}"#,
        r#"{"stream":"OTHER","seq":6}"#,
        r#"{"seq":6}"#,
        r#"{"error":{"code":503,"err_code":10077,"description":"no space"},"stream":"KV_UNIBUS_control","seq":0}"#,
        "",
        "ok",
    ];
    let mut asked = client.subscribe("$KV.>").await.unwrap();
    // The server has the subscription when it sends what came behind it.
    client.publish("$KV.ready", "".into()).await.unwrap();
    asked.next().await.unwrap();
    for answer in wrong {
        let entry = [entry("a", "1")];
        let (result, ()) = tokio::join!(wire.publish(&entry, 5, ACK), async {
            let reply = asked.next().await.unwrap().reply.unwrap();
            client.publish(reply, answer.into()).await.unwrap();
        });
        assert!(matches!(result, Err(PublishError::Unknown { .. })), "{answer}: {result:?}");
    }
    // The acknowledgement of a single message is none of a batch.
    let batch = entries(2);
    let (result, ()) = tokio::join!(wire.publish(&batch, 5, ACK), async {
        asked.next().await.unwrap();
        let reply = asked.next().await.unwrap().reply.unwrap();
        client.publish(reply, r#"{"stream":"KV_UNIBUS_control","seq":7}"#.into()).await.unwrap();
    });
    assert!(matches!(result, Err(PublishError::Unknown { .. })), "{result:?}");
    // Nor are these of a nonce.
    for (answer, is_claimed) in [
        (r#"{"stream":"KV_UNIBUS_nonces","seq":6}"#, true),
        (r#"{"stream":"KV_UNIBUS_control","seq":6}"#, false),
        (r#"{"stream":"KV_UNIBUS_nonces","seq":0}"#, false),
        (r#"{"stream":"KV_UNIBUS_nonces","seq":6,"duplicate":true}"#, false),
    ] {
        let (result, ()) = tokio::join!(wire.claim_nonce("n", Bytes::new(), 5, ACK, ACK), async {
            let reply = asked.next().await.unwrap().reply.unwrap();
            client.publish(reply, answer.into()).await.unwrap();
        });
        let is_open = matches!(result, Err(PublishError::Unknown { .. }));
        assert!(if is_claimed { result == Ok(true) } else { is_open }, "{answer}: {result:?}");
    }
}

#[tokio::test]
async fn an_answer_about_another_message_is_none() {
    use futures_util::StreamExt as _;
    let server = Server::with("").await;
    let client = raw_client(&server).await;
    let wire = connect(&server.url()).await;
    let mut asked = client.subscribe("$JS.API.STREAM.MSG.GET.>").await.unwrap();
    client.publish("$JS.API.STREAM.MSG.GET.ready", "".into()).await.unwrap();
    asked.next().await.unwrap();
    let mut give = async |bucket: &str, name: &str, sequence: u64| {
        let message = json!({ "subject": format!("$KV.{bucket}.{name}"), "seq": sequence, "data": "eA==" });
        let reply = asked.next().await.unwrap().reply.unwrap();
        client.publish(reply, json!({ "message": message }).to_string().into()).await.unwrap();
    };
    for (name, sequence, is_it) in [("a", 5, true), ("a", 4, false)] {
        let (found, ()) = tokio::join!(wire.get_next(5), give("UNIBUS_control", name, sequence));
        assert_eq!(found.is_ok(), is_it, "{found:?}");
    }
    for (name, is_it) in [("a", true), ("b", false)] {
        let (found, ()) =
            tokio::join!(wire.get_last("$KV.UNIBUS_control.a"), give("UNIBUS_control", name, 5));
        assert_eq!(found.is_ok(), is_it, "{found:?}");
        let (found, ()) = tokio::join!(wire.get_nonce("a"), give("UNIBUS_nonces", name, 5));
        assert_eq!(found.is_ok(), is_it, "{found:?}");
    }
}

#[tokio::test]
async fn a_lost_acknowledgement_leaves_it_open_and_the_log_tells() {
    let (server, wire) = log().await;
    let way = Way::to(&server).await;
    let cut = connect(&way.url()).await;
    cut.info().await.unwrap();
    way.lose_answers(true);
    for (write, expected) in [(entries(1), 0), (entries(3), 1)] {
        let result = cut.publish(&write, expected, SHORT).await;
        assert!(matches!(result, Err(PublishError::Unknown { .. })), "{result:?}");
        let end = expected + u64::try_from(write.len()).unwrap();
        until("the entries", async || last(&wire).await == end).await;
        assert_eq!(wire.get(end).await.unwrap().unwrap().subject, write.last().unwrap().subject);
    }
    way.lose_answers(false);
    until("the connection", async || cut.info().await.is_ok()).await;
    assert_eq!(cut.publish(&entries(1), 0, ACK).await, Err(PublishError::WrongLastSequence));
}

#[tokio::test]
async fn what_timed_out_may_be_stored_later_and_only_at_its_place() {
    let (server, wire) = log().await;
    let other = connect(&server.url()).await;
    server.hold().await;
    let (mine, others) = tokio::join!(async { wire.publish(&[entry("a", "mine")], 0, SHORT).await }, async {
        other.publish(&[entry("a", "other's")], 0, SHORT).await
    });
    server.release();
    for result in [mine, others] {
        assert!(matches!(result, Err(PublishError::Unknown { .. })), "{result:?}");
    }
    until("one of the two", async || wire.info().await.is_ok_and(|info| info.last_sequence == 1)).await;
    assert!(wire.get(1).await.unwrap().is_some());
    // Whatever was sent with the same expectation can no longer come.
    assert_eq!(wire.publish(&[entry("b", "next")], 1, ACK).await, Ok(2));
    assert_eq!(last(&wire).await, 2);
}

#[tokio::test]
async fn headers_that_no_entry_has_are_named() {
    let server = Server::start().await;
    let client = raw_client(&server).await;
    let mut config = Bucket::Control(Generation::FIRST).config(1);
    for (setting, value) in [("allow_rollup_hdrs", true), ("deny_purge", false), ("allow_msg_ttl", true)] {
        config[setting] = json!(value);
    }
    raw(&client, &format!("STREAM.CREATE.{STREAM}"), &config).await;
    let wire = connect(&server.url()).await;
    let cases = [
        ("KV-Operation", "DEL", Some("KV-Operation")),
        ("Nats-Rollup", "sub", Some("Nats-Rollup")),
        ("Nats-TTL", "1h", Some("Nats-TTL")),
        ("Nats-Marker-Reason", "MaxAge", Some("Nats-Marker-Reason")),
        ("Nats-Msg-Id", "1", Some("other")),
        ("X-Anything", "1", Some("other")),
        ("Nats-Expected-Stream", STREAM, None),
    ];
    for (number, (name, value, foreign)) in (1..).zip(cases) {
        let mut headers = HeaderMap::new();
        headers.insert(name, value);
        let request =
            client.request_with_headers(format!("$KV.UNIBUS_control.n{number}"), headers, "x".into());
        request.await.unwrap();
        assert_eq!(wire.get(number).await.unwrap().unwrap().foreign_header, foreign, "{name}");
    }
    let mut tail = wire.tail(1).await.unwrap();
    let read = super::read_to(&mut tail, 7).await;
    let read: Vec<_> = read.iter().map(|raw| raw.foreign_header).collect();
    assert_eq!(read, cases.map(|(_, _, foreign)| foreign));
}

#[tokio::test]
async fn a_nonce_is_claimed_once_until_its_time_is_over() {
    let server = Server::start().await;
    let wire = connect(&server.url()).await;
    wire.create_nonces(1).await.unwrap();
    let claim = async |name, ttl| wire.claim_nonce(name, Bytes::from_static(b"sealed"), 0, ttl, ACK).await;
    // Shorter than any server takes, and so a second.
    assert_eq!(claim("short", Duration::ZERO).await, Ok(true));
    assert_eq!(claim("long", Duration::from_secs(3600)).await, Ok(true));
    assert_eq!(claim("short", Duration::from_secs(1)).await, Ok(false));
    assert_eq!(claim("long", Duration::from_secs(1)).await, Ok(false));
    let info = wire.nonces_info().await.unwrap();
    assert_eq!((info.last_sequence, info.messages), (2, 2));
    until("the short one's end", async || claim("short", Duration::from_secs(3600)).await == Ok(true)).await;
    assert_eq!(claim("long", Duration::from_secs(3600)).await, Ok(false));
}

#[tokio::test]
async fn a_nonce_is_claimed_once_by_all_who_try_at_once() {
    let server = Server::start().await;
    let wire = connect(&server.url()).await;
    wire.create_nonces(1).await.unwrap();
    let mut claims = tokio::task::JoinSet::new();
    for _ in 0..50 {
        let wire = wire.clone();
        claims.spawn(async move { wire.claim_nonce("n", Bytes::new(), 0, ACK, ACK).await.unwrap() });
    }
    let claimed = claims.join_all().await;
    assert_eq!(claimed.iter().filter(|claimed| **claimed).count(), 1);
}

#[tokio::test]
async fn a_nonce_never_loses_its_time() {
    let server = Server::start().await;
    let client = raw_client(&server).await;
    let wire = connect(&server.url()).await;
    let mut config = Bucket::Nonces.config(1);
    config["allow_msg_ttl"] = json!(false);
    raw(&client, &format!("STREAM.CREATE.{NONCES}"), &config).await;
    let refused = wire.claim_nonce("n", Bytes::new(), 0, ACK, ACK).await.unwrap_err();
    assert!(matches!(refused, PublishError::NotStored { code: 10_166, .. }), "{refused:?}");
    assert_eq!(wire.nonces_info().await.unwrap().last_sequence, 0);
    raw(&client, &format!("STREAM.UPDATE.{NONCES}"), &Bucket::Nonces.config(1)).await;
    assert_eq!(wire.claim_nonce("n", Bytes::new(), 0, Duration::from_millis(1500), ACK).await, Ok(true));
    // Rounded up: half a second too long, never too short.
    let stored = raw(&client, &format!("STREAM.MSG.GET.{NONCES}"), &json!({ "seq": 1 })).await;
    assert_eq!(stored["message"]["subject"], format!("{NONCES_PREFIX}n"));
    let headers = stored["message"]["hdrs"].as_str().unwrap();
    let headers = data_encoding::BASE64.decode(headers.as_bytes()).unwrap();
    assert!(String::from_utf8(headers).unwrap().contains("Nats-TTL: 2s\r\n"));
}

#[tokio::test]
async fn a_claim_without_answer_leaves_it_open() {
    let server = Server::start().await;
    let wire = connect(&server.url()).await;
    wire.create_nonces(1).await.unwrap();
    let way = Way::to(&server).await;
    let cut = connect(&way.url()).await;
    way.lose_answers(true);
    let result = cut.claim_nonce("n", Bytes::new(), 0, ACK, SHORT).await;
    assert!(matches!(result, Err(PublishError::Unknown { .. })), "{result:?}");
    assert_eq!(wire.claim_nonce("n", Bytes::new(), 0, ACK, ACK).await, Ok(false));
}

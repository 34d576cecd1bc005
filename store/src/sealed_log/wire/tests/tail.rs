//! Following the stream, and noticing that something is lost.

use serde_json::json;

use super::server::Way;
use super::{
    ACK, DEADLINE, WireError, connect, entries, entry, fill, log, raw, raw_client, read_to, read_to_end,
};
use crate::sealed_log::stream::STREAM;

#[tokio::test]
async fn a_tail_gives_what_is_there_and_what_comes() {
    let (_server, wire) = log().await;
    wire.publish(&entries(3), 0, ACK).await.unwrap();
    let mut tail = wire.tail(2).await.unwrap();
    let read = read_to(&mut tail, 3).await;
    let read: Vec<_> =
        read.into_iter().map(|raw| (raw.sequence, raw.subject, raw.payload, raw.pending)).collect();
    let at = |name: &str| format!("$KV.UNIBUS_control.{name}");
    assert_eq!(read, [(2, at("n1"), "x".into(), 1), (3, at("n2"), "x".into(), 0)]);
    assert!(tail.next().await.unwrap().is_empty(), "nothing is new");
    for sequence in 3..20 {
        wire.publish(&[entry("n0", "y")], sequence, ACK).await.unwrap();
        let read = read_to(&mut tail, sequence + 1).await;
        let raw = &read[0];
        assert_eq!((read.len(), raw.sequence, raw.pending, raw.foreign_header), (1, sequence + 1, 0, None));
    }
}

#[tokio::test]
async fn holes_in_the_stream_are_no_loss() {
    let (_server, wire) = log().await;
    for sequence in 0..10 {
        wire.publish(&[entry(["a", "b"][usize::from(sequence % 3 == 0)], "x")], sequence, ACK).await.unwrap();
    }
    let read = read_to(&mut wire.tail(0).await.unwrap(), 10).await;
    assert_eq!(read.iter().map(|raw| raw.sequence).collect::<Vec<_>>(), [9, 10]);
}

#[tokio::test]
async fn a_tail_may_begin_behind_the_end() {
    let (_server, wire) = log().await;
    let mut tail = wire.tail(3).await.unwrap();
    assert!(tail.next().await.unwrap().is_empty());
    wire.publish(&entries(4), 0, ACK).await.unwrap();
    let read = read_to(&mut tail, 4).await;
    assert_eq!(read.iter().map(|raw| raw.sequence).collect::<Vec<_>>(), [3, 4]);
}

#[tokio::test]
async fn every_message_of_a_long_stream_comes_once_and_in_order() {
    let (_server, wire) = log().await;
    fill(&wire, 20_000).await;
    let mut tail = wire.tail(1).await.unwrap();
    let mut expected = 1;
    while expected <= 20_000 {
        let chunk = tail.next().await.unwrap();
        assert!(chunk.len() <= 512);
        for raw in chunk {
            assert_eq!((raw.sequence, raw.pending), (expected, 20_000 - expected));
            expected += 1;
        }
    }
}

#[tokio::test]
async fn large_messages_come_too() {
    let (_server, wire) = log().await;
    let large = "x".repeat(900_000);
    for sequence in 0..20 {
        wire.publish(&[entry(&format!("n{sequence}"), &large)], sequence, ACK).await.unwrap();
    }
    let read = read_to(&mut wire.tail(1).await.unwrap(), 20).await;
    assert!(read.len() == 20 && read.iter().all(|raw| raw.payload.len() == large.len()));
}

#[tokio::test]
async fn giving_up_the_wait_loses_nothing() {
    let (_server, wire) = log().await;
    fill(&wire, 5000).await;
    let mut tail = wire.tail(1).await.unwrap();
    let mut read = Vec::new();
    let begin = tokio::time::Instant::now();
    for turn in 0_u32.. {
        let wait = std::time::Duration::from_micros(u64::from(turn % 40));
        if let Ok(chunk) = tokio::time::timeout(wait, tail.next()).await {
            read.extend(chunk.unwrap().into_iter().map(|raw| raw.sequence));
        }
        if read.len() >= 5000 {
            break;
        }
        assert!(begin.elapsed() < DEADLINE);
    }
    assert!(read.into_iter().eq(1..=5000));
}

#[tokio::test]
async fn a_deleted_consumer_ends_the_tail() {
    let (server, wire) = log().await;
    fill(&wire, 10).await;
    let mut tail = wire.tail(1).await.unwrap();
    read_to(&mut tail, 10).await;
    let client = raw_client(&server).await;
    let names = raw(&client, &format!("CONSUMER.NAMES.{STREAM}"), &json!({})).await;
    let name = names["consumers"][0].as_str().unwrap();
    assert_eq!(names["total"], 1);
    raw(&client, &format!("CONSUMER.DELETE.{STREAM}.{name}"), &json!({})).await;
    read_to_end(&mut tail).await;
    tail.next().await.unwrap_err();
}

#[tokio::test]
async fn a_deleted_stream_ends_the_tail() {
    let (server, wire) = log().await;
    let mut tail = wire.tail(1).await.unwrap();
    assert!(tail.next().await.unwrap().is_empty());
    raw(&raw_client(&server).await, &format!("STREAM.DELETE.{STREAM}"), &json!({})).await;
    read_to_end(&mut tail).await;
    // Where the last one broke off the first message is asked for by itself.
    assert_eq!(wire.tail(1).await.unwrap().next().await.unwrap_err(), WireError::NoStream);
    assert_eq!(wire.tail(2).await.unwrap_err(), WireError::NoStream);
}

#[tokio::test]
async fn a_restarted_server_ends_the_tail_and_another_goes_on() {
    let (mut server, wire) = log().await;
    fill(&wire, 10).await;
    let mut tail = wire.tail(1).await.unwrap();
    read_to(&mut tail, 10).await;
    server.crash_and_restart().await;
    read_to_end(&mut tail).await;
    super::until("the stream", async || wire.info().await.is_ok()).await;
    let mut tail = wire.tail(11).await.unwrap();
    wire.publish(&[entry("a", "1")], 10, ACK).await.unwrap();
    assert_eq!(read_to(&mut tail, 11).await.len(), 1);
}

#[tokio::test]
async fn a_server_that_falls_silent_ends_the_tail() {
    let (server, wire) = log().await;
    let mut tail = wire.tail(1).await.unwrap();
    assert!(tail.next().await.unwrap().is_empty());
    server.hold().await;
    let error = read_to_end(&mut tail).await;
    server.release();
    assert!(error.to_string().contains("silent"), "{error}");
}

#[tokio::test]
async fn messages_lost_on_the_way_end_the_tail() {
    let (server, wire) = log().await;
    let way = Way::to(&server).await;
    let mut tail = connect(&way.url()).await.tail(1).await.unwrap();
    assert!(tail.next().await.unwrap().is_empty());
    // Both the message itself, and word of a later one or of none.
    for more in [false, true] {
        way.lose_answers(true);
        let last = wire.info().await.unwrap().last_sequence;
        wire.publish(&[entry("lost", "x")], last, ACK).await.unwrap();
        wire.info().await.unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        way.lose_answers(false);
        if more {
            wire.publish(&[entry("later", "x")], last + 1, ACK).await.unwrap();
        }
        let error = read_to_end(&mut tail).await;
        assert!(error.to_string().contains("lost on the way"), "{error}");
        tail = connect(&way.url()).await.tail(last + 2).await.unwrap();
        while !more && !tail.next().await.unwrap().is_empty() {}
    }
}

/// Publishes past every client: a header block and a subject as they are.
async fn publish_raw(server: &super::server::Server, subject: &[u8], headers: &[u8]) {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream =
        tokio::net::TcpStream::connect(server.url().trim_start_matches("nats://")).await.unwrap();
    let lengths = format!(" {} {}\r\n", headers.len(), headers.len() + 1);
    let connect: &[u8] = b"CONNECT {\"headers\":true}\r\nHPUB $KV.UNIBUS_control.";
    let publish = [connect, subject, lengths.as_bytes(), headers, b"x\r\nPING\r\n"].concat();
    stream.write_all(&publish).await.unwrap();
    let mut said = Vec::new();
    while !said.windows(4).any(|window| window == b"PONG") {
        assert!(stream.read_buf(&mut said).await.unwrap() > 0);
    }
}

#[tokio::test]
async fn a_stored_status_is_not_the_servers_word() {
    let (server, wire) = log().await;
    let mut tail = wire.tail(1).await.unwrap();
    let statuses =
        ["100 Idle Heartbeat\r\nNats-Last-Consumer: 0", "408 Request Timeout", "409 Consumer Deleted", "503"];
    for (last, status) in (1..).zip(statuses) {
        publish_raw(&server, b"a", format!("NATS/1.0 {status}\r\n\r\n").as_bytes()).await;
        let read = read_to(&mut tail, last).await;
        assert_eq!((read.len(), read[0].sequence), (1, last), "{status}");
    }
}

#[tokio::test]
async fn a_message_that_no_client_can_read_is_read_and_named() {
    let (server, wire) = log().await;
    let poisons: [(&[u8], &[u8]); 5] = [
        (b"p1", b"GARBAGE\r\n\r\n"),
        (b"p2", b"NATS/1.0\r\n\xff\xfe: 1\r\n\r\n"),
        (b"p3", b"NATS/1.0\r\nno colon\r\n\r\n"),
        (b"\xff\xfe", b"NATS/1.0\r\nA: b\r\n\r\n"),
        ("p\u{a0}5".as_bytes(), b"NATS/1.0\r\nA: b\r\n\r\n"),
    ];
    let mut last = 0;
    for (number, (subject, headers)) in poisons.into_iter().enumerate() {
        for name in 0..700 {
            last = wire.publish(&[entry(&format!("n{number}-{name}"), "x")], last, ACK).await.unwrap();
        }
        publish_raw(&server, subject, headers).await;
        last += 1;
    }
    last = wire.publish(&[entry("end", "x")], last, ACK).await.unwrap();
    // Someone who follows and applies only every other chunk before a break.
    for is_forgetful in [false, true] {
        let mut seen = Vec::new();
        let follow = async {
            while seen.last() != Some(&(last, false)) {
                let Ok(mut tail) = wire.tail(seen.last().map_or(1, |(sequence, _)| sequence + 1)).await
                else {
                    continue;
                };
                let mut held = Vec::new();
                while let Ok(raws) = tail.next().await {
                    held.extend(raws.into_iter().map(|raw| (raw.sequence, raw.foreign_header.is_some())));
                    if !is_forgetful || held.len() > 512 || held.last() == Some(&(last, false)) {
                        seen.append(&mut held);
                    }
                    if seen.last() == Some(&(last, false)) {
                        break;
                    }
                }
            }
        };
        tokio::time::timeout(DEADLINE, follow).await.unwrap();
        assert!(seen.iter().map(|(sequence, _)| *sequence).eq(1..=last));
        let named: Vec<_> =
            seen.iter().filter(|(_, is_foreign)| *is_foreign).map(|(sequence, _)| *sequence).collect();
        assert_eq!(named, [701, 1402, 2103, 2804, 3505]);
    }
}

#[tokio::test]
async fn a_tail_that_is_left_leaves_no_consumer() {
    let (server, wire) = log().await;
    drop(wire.tail(1).await.unwrap());
    let client = raw_client(&server).await;
    super::until("the consumer's end", async || {
        raw(&client, &format!("CONSUMER.NAMES.{STREAM}"), &json!({})).await["total"] == 0
    })
    .await;
}

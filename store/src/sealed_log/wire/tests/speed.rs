//! What the care costs, compared with the bare client. Run by hand: `cargo nextest run --run-ignored only speed`.

use std::time::{Duration, Instant};

use async_nats::HeaderMap;

use super::{ACK, entry, fill, log, raw_client};

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn publishing_costs_no_more_than_the_bare_client() {
    let (server, wire) = log().await;
    let client = raw_client(&server).await;
    let context = async_nats::jetstream::new(client);
    let payload = "x".repeat(300);
    let (mut ours, mut bare) = (Duration::ZERO, Duration::ZERO);
    let mut last = 0;
    for _ in 0..20 {
        let begin = Instant::now();
        for number in 0..200 {
            last = wire.publish(&[entry(&format!("n{number}"), &payload)], last, ACK).await.unwrap();
        }
        ours += begin.elapsed();
        let begin = Instant::now();
        for number in 0..200 {
            let mut headers = HeaderMap::new();
            headers.insert("Nats-Expected-Last-Sequence", last.to_string());
            let entry = entry(&format!("n{number}"), &payload);
            let ack = context.publish_with_headers(entry.subject, headers, entry.payload).await.unwrap();
            last = ack.await.unwrap().sequence;
        }
        bare += begin.elapsed();
    }
    eprintln!(
        "4000 one by one: ours {ours:?}, bare {bare:?}, ratio {:.3}",
        bare.as_secs_f64() / ours.as_secs_f64()
    );
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn a_long_stream_is_read_fast() {
    use futures_util::StreamExt as _;
    const COUNT: u64 = 100_000;
    let (server, wire) = log().await;
    fill(&wire, usize::try_from(COUNT).unwrap()).await;
    let stream = async_nats::jetstream::new(raw_client(&server).await);
    let stream = stream.get_stream("KV_UNIBUS_control").await.unwrap();
    for _ in 0..3 {
        let begin = Instant::now();
        let mut tail = wire.tail(1).await.unwrap();
        let (mut read, mut calls) = (0, 0_u64);
        while read < COUNT {
            read += u64::try_from(tail.next().await.unwrap().len()).unwrap();
            calls += 1;
        }
        let ours = begin.elapsed();
        let begin = Instant::now();
        let config = async_nats::jetstream::consumer::push::OrderedConfig {
            deliver_subject: "_INBOX.speed".into(),
            ..Default::default()
        };
        let mut bare = stream.create_consumer(config).await.unwrap().messages().await.unwrap();
        for _ in 0..COUNT {
            bare.next().await.unwrap().unwrap();
        }
        eprintln!("{COUNT}: ours {ours:?} in {calls} chunks, bare ordered push {:?}", begin.elapsed());
    }
}

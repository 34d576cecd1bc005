//! nats-server's own encryption in a cluster: the one safe way to another key, and the ways that are refused.

use std::fs;

use async_nats::jetstream::{self, stream};
use unibus_nats::NatsError;
use unibus_nats::config::{Cipher, ServerKey};
use unibus_nats::folder::MARKER;
use unibus_tests::{Cluster, Contents, Setup, folder, wait};

const MESSAGES: u64 = 50;

async fn fill(cluster: &Cluster) {
    let context = jetstream::new(cluster.client(0).await);
    let config = stream::Config {
        name: "S".into(),
        subjects: vec!["S.>".into()],
        num_replicas: cluster.len(),
        ..Default::default()
    };
    context.create_stream(config).await.unwrap();
    for number in 0..MESSAGES {
        let body = format!("marked plaintext {number}").into();
        context.publish(format!("S.{number}"), body).await.unwrap().await.unwrap();
    }
}

/// How many messages one server holds.
fn messages(cluster: &Cluster, index: usize) -> Option<u64> {
    let page = cluster.node(index).monitor("/jsz?streams=true&accounts=true")?;
    let accounts = page["account_details"].as_array()?.clone();
    let mut streams =
        accounts.iter().flat_map(|account| account["stream_detail"].as_array().into_iter().flatten());
    streams.find(|stream| stream["name"] == "S")?["state"]["messages"].as_u64()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_of_three_gets_another_key_by_an_empty_folder_and_in_no_other_way() {
    let mut cluster = Setup::of(3).cipher(Cipher::Aes).start();
    fill(&cluster).await;
    cluster.wait_in_sync();
    cluster.stop(1);
    let (before, old) = (cluster.save(1), *cluster.node(1).server_key());
    cluster.set_server_key(1, [9; 32]);
    let refused = cluster.try_start(1).unwrap_err();
    assert!(matches!(refused, NatsError::OtherServerKey { .. }), "{refused:?}");
    before.assert_unchanged(&cluster.node(1).store_dir(), "a start with another key");

    // Somebody makes the note fit: nats-server finds out itself, and nothing is lost by it.
    let marker = cluster.node(1).store_dir().join(MARKER);
    let note = fs::read_to_string(&marker).unwrap();
    let fingerprint = |key| ServerKey::from_bytes(key).unwrap().fingerprint().to_string();
    let forged = note.replace(&fingerprint(&old), &fingerprint(&[9; 32]));
    assert_ne!(note, forged);
    fs::write(&marker, forged).unwrap();
    let refused = cluster.try_start(1).unwrap_err();
    assert!(matches!(refused, NatsError::Unrecoverable { .. }), "{refused:?}");
    cluster.put_back(1, &before);
    cluster.set_server_key(1, old);
    cluster.start(1);
    cluster.wait_in_sync();
    assert_eq!(messages(&cluster, 1), Some(MESSAGES));

    cluster.stop(1);
    cluster.wipe(1);
    cluster.set_server_key(1, [9; 32]);
    cluster.start(1);
    wait::until("the messages", || {
        cluster.wait_in_sync();
        (messages(&cluster, 1) == Some(MESSAGES)).then_some(())
    });
    for index in 0..3 {
        cluster.stop(index);
        for path in folder::files(&cluster.node(index).store_dir()) {
            let bytes = fs::read(&path).unwrap();
            let plain = bytes.windows(16).any(|window| window == b"marked plaintext");
            assert!(!plain, "{} is not encrypted", path.display());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_alone_with_a_forged_note_is_killed_before_it_loses_a_stream() {
    let mut cluster = Setup::of(1).cipher(Cipher::Aes).start();
    fill(&cluster).await;
    cluster.stop(0);
    // It makes folders for accounts; the account that has the stream is not touched.
    let account = cluster.node(0).store_dir().join("jetstream/CONTROL");
    let (before, old) = (Contents::of(&account), *cluster.node(0).server_key());
    let marker = cluster.node(0).store_dir().join(MARKER);
    let note = fs::read_to_string(&marker).unwrap();
    let fingerprint = |key| ServerKey::from_bytes(key).unwrap().fingerprint().to_string();
    fs::write(&marker, note.replace(&fingerprint(&old), &fingerprint(&[9; 32]))).unwrap();
    cluster.set_server_key(0, [9; 32]);
    let refused = cluster.try_start(0).unwrap_err();
    assert!(matches!(refused, NatsError::Unrecoverable { .. }), "{refused:?}");
    fs::write(&marker, note).unwrap();
    before.assert_unchanged(&account, "nats-server with a wrong key");
    cluster.set_server_key(0, old);
    cluster.start(0);
    assert_eq!(messages(&cluster, 0), Some(MESSAGES));
}

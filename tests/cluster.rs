//! The harness of real nats-servers does what its users count on.

use std::time::Duration;

use async_nats::jetstream::{self, stream};
use unibus_tests::{Cluster, Setup, wait};

fn config(name: &str, replicas: usize) -> stream::Config {
    stream::Config {
        name: name.into(),
        subjects: vec![format!("{name}.>")],
        num_replicas: replicas,
        ..Default::default()
    }
}

async fn put(context: &jetstream::Context, subject: &str) -> Option<u64> {
    let publish = async { context.publish(subject.to_owned(), "x".into()).await.ok()?.await.ok() };
    let ack = tokio::time::timeout(Duration::from_secs(2), publish).await.ok()??;
    Some(ack.sequence)
}

async fn must_put(context: &jetstream::Context, subject: &str) -> u64 {
    let start = std::time::Instant::now();
    while start.elapsed() < wait::DEADLINE {
        if let Some(sequence) = put(context, subject).await {
            return sequence;
        }
        // Without a leader the refusal comes at once.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("no acknowledgement for {subject}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_server_is_killed_rolled_back_and_wiped() {
    let mut cluster = Cluster::one();
    let context = jetstream::new(cluster.client(0).await);
    context.create_stream(config("S", 1)).await.unwrap();
    assert_eq!(must_put(&context, "S.a").await, 1);
    assert_eq!(cluster.leader_of("S"), Some(0));
    cluster.stop(0);
    let old = cluster.save(0);
    cluster.start(0);
    let context = jetstream::new(cluster.client(0).await);
    assert_eq!(must_put(&context, "S.a").await, 2);
    cluster.kill(0);
    cluster.start(0);
    cluster.wait_ready();
    let context = jetstream::new(cluster.client(0).await);
    assert_eq!(must_put(&context, "S.a").await, 3);
    cluster.kill(0);
    cluster.put_back(0, &old);
    cluster.start(0);
    let context = jetstream::new(cluster.client(0).await);
    assert_eq!(must_put(&context, "S.a").await, 2);
    cluster.kill(0);
    cluster.wipe(0);
    cluster.start(0);
    let context = jetstream::new(cluster.client(0).await);
    assert!(context.get_stream("S").await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn three_servers_outlive_the_loss_of_their_leader() {
    let mut cluster = Cluster::three();
    let context = jetstream::new(cluster.client(0).await);
    context.create_stream(config("S", 3)).await.unwrap();
    assert_eq!(must_put(&context, "S.a").await, 1);
    let leader = cluster.wait_leader_of("S");
    cluster.kill(leader);
    let other = (leader + 1) % 3;
    let context = jetstream::new(cluster.client(other).await);
    let sequence = must_put(&context, "S.a").await;
    assert_ne!(cluster.wait_leader_of("S"), leader);
    cluster.wipe(leader);
    cluster.start(leader);
    cluster.wait_in_sync();
    let page = cluster.node(leader).monitor("/jsz?streams=true&accounts=true").unwrap();
    assert!(page.to_string().contains(&format!("\"last_seq\":{sequence}")), "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_cut_off_acknowledges_nothing_and_comes_back() {
    let cluster = Cluster::three();
    let context = jetstream::new(cluster.client(0).await);
    context.create_stream(config("S", 3)).await.unwrap();
    must_put(&context, "S.a").await;
    let leader = cluster.wait_leader_of("S");
    let (alone, others) = (
        jetstream::new(cluster.client(leader).await),
        jetstream::new(cluster.client((leader + 1) % 3).await),
    );
    cluster.partition(leader);
    let acknowledged = must_put(&others, "S.b").await;
    assert_eq!(put(&alone, "S.c").await, None, "acknowledged without a majority");
    assert_ne!(cluster.wait_leader_of("S"), leader);
    cluster.heal(leader);
    cluster.wait_in_sync();
    assert!(must_put(&alone, "S.d").await > acknowledged);
}

#[test]
fn nobody_gets_in_without_credentials_of_that_server() {
    let cluster = Setup::of(3).without_proxies().start();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        assert!(async_nats::connect(cluster.url(0)).await.is_err());
        let foreign = cluster.control_seed(1).to_owned();
        assert!(async_nats::ConnectOptions::with_nkey(foreign).connect(cluster.url(0)).await.is_err());
        let own = cluster.control_seed(0).to_owned();
        async_nats::ConnectOptions::with_nkey(own).connect(cluster.url(0)).await.unwrap();
        cluster.system_client(2).await;
    });
}

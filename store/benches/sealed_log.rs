//! What the sealed log costs: each write beside the same bytes unsealed through the same client, each replay beside
//! reading the stream without opening anything.
//!
//! Both sides take turns on the same servers, and the ratio is the median over the turns. `--smoke` (also the default
//! under `cargo test`) only shows that it runs; `--million` adds 1,000,000 entries.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::as_conversions,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a bench prints a table, and stops at the first error"
)]

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, pull};
use async_nats::{Client, HeaderMap};
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use unibus_keyfile::id::UnixTime;
use unibus_keyfile::node_key::NodeKeyFile;
use unibus_keyfile::nodeset::Plan;
use unibus_keyfile::operator_key::OperatorKey;
use unibus_store::keys::Keys;
use unibus_store::record::{Handle, Record, SignPub, Timestamp, User, UserRole};
use unibus_store::sealed_log::{Access, LogOptions, STREAM, SealedLog};
use unibus_store::store::{Actor, Store, Strength};
use unibus_tests::{Cluster, Scratch, Setup, Sync};

/// How much work a turn is.
#[derive(Clone, Copy)]
struct Size {
    singles: u32,
    batches: u32,
    turns: usize,
    replays: &'static [u32],
    checks: u32,
}

const SMOKE: Size = Size { singles: 5, batches: 2, turns: 1, replays: &[500], checks: 1000 };
const FULL: Size =
    Size { singles: 200, batches: 10, turns: 7, replays: &[10_000, 100_000], checks: 1_000_000 };
const MILLION: Size = Size { replays: &[10_000, 100_000, 1_000_000], ..FULL };

/// Entries of one batch.
const BATCH: u32 = 500;
/// Bytes of the envelope of a user.
const ENVELOPE: usize = 20 + 256 + 16;
/// The stream of the unsealed side.
const RAW: &str = "KV_UNSEALED";

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
    if has("--list") {
        return;
    }
    let size = match (has("--bench") && !has("--smoke"), has("--million")) {
        (true, true) => MILLION,
        (true, false) => FULL,
        _ => SMOKE,
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let default = Sync::Every(Duration::from_secs(120));
    println!("work | unsealed/s | sealed/s | ratio");
    for (servers, sync, name) in [
        (1, default, "R1"),
        (1, Sync::Always, "R1, synced"),
        (3, default, "R3"),
        (3, Sync::Always, "R3, synced"),
    ] {
        let site = Site::new(Setup::of(servers).without_proxies().sync(sync), servers);
        runtime.block_on(writes(&site, name, size));
    }
    println!("entries | read only, s | replay, s | ratio | bytes of memory per entry");
    for count in size.replays {
        let site = Site::new(Setup::of(1).sync(default), 1);
        runtime.block_on(replays(&site, *count, size));
    }
}

struct Site {
    cluster: Cluster,
    folder: Scratch,
    own: Arc<NodeKeyFile>,
    replicas: usize,
}

fn clock() -> Timestamp {
    let since = std::time::UNIX_EPOCH.elapsed().unwrap();
    Timestamp::from_micros(since.as_micros() as i64).unwrap()
}

#[expect(clippy::disallowed_methods, reason = "an operator copies a nodeset")]
impl Site {
    fn new(setup: Setup, replicas: usize) -> Self {
        let (cluster, folder) = (setup.start(), Scratch::new());
        let operator = OperatorKey::generate();
        let own = Arc::new(NodeKeyFile::generate("alpha".parse().unwrap(), operator.cluster_id()));
        let member = own.member(UnixTime::from_seconds(1_800_000_000));
        let nodeset = Plan::first(&operator).with_node(member).sign(&operator).unwrap();
        std::fs::write(folder.join("nodeset"), nodeset.as_bytes()).unwrap();
        std::fs::create_dir(folder.join("state")).unwrap();
        Self { cluster, folder, own, replicas }
    }

    fn open(&self, access: Access) -> SealedLog {
        let (nodeset, state) = (self.folder.join("nodeset"), self.folder.join("state"));
        let keys = Keys::Node(Arc::clone(&self.own));
        let options = LogOptions::new(vec![self.cluster.url(0)], keys, &nodeset, &state, Arc::new(clock));
        let options = options.identity(self.cluster.control_seed(0)).replicas(self.replicas);
        SealedLog::open(options.access(access)).unwrap()
    }
}

fn sign(number: u32) -> SignPub {
    let mut bytes = [7; 32];
    bytes.split_at_mut(4).0.copy_from_slice(&number.to_be_bytes());
    SignPub::from_bytes(bytes).unwrap()
}

fn user(number: u32) -> User {
    User::new(sign(number), Handle::parse(&format!("person {number}")).unwrap(), UserRole::Member, clock())
}

/// The unsealed side: a stream with the same settings, written to with the same headers.
struct Unsealed {
    client: Client,
    last: u64,
}

impl Unsealed {
    async fn new(site: &Site) -> Self {
        let client = site.cluster.client(0).await;
        let info = client.request(format!("$JS.API.STREAM.INFO.{STREAM}"), "{}".into()).await.unwrap();
        let mut config: Value = serde_json::from_slice::<Value>(&info.payload).unwrap()["config"].take();
        config["name"] = json!(RAW);
        config["subjects"] = json!(["$KV.UNSEALED.>"]);
        let reply = client.request(format!("$JS.API.STREAM.CREATE.{RAW}"), config.to_string().into());
        let reply: Value = serde_json::from_slice(&reply.await.unwrap().payload).unwrap();
        assert!(reply["error"].is_null(), "{reply}");
        Self { client, last: 0 }
    }

    fn message(&self, number: u32) -> (String, Vec<u8>) {
        let bytes: Vec<u8> = (0..ENVELOPE).map(|at| (number as usize * 31 + at) as u8).collect();
        (format!("$KV.UNSEALED.{number:032x}"), bytes)
    }

    async fn found_last(&self) -> u64 {
        let info = self.client.request(format!("$JS.API.STREAM.INFO.{RAW}"), "{}".into()).await.unwrap();
        let info: Value = serde_json::from_slice(&info.payload).unwrap();
        info["state"]["last_seq"].as_u64().unwrap()
    }

    async fn acknowledged(&mut self, subject: String, headers: HeaderMap, payload: Vec<u8>) {
        let reply = self.client.request_with_headers(subject, headers, payload.into()).await.unwrap();
        let ack: Value = serde_json::from_slice(&reply.payload).unwrap();
        self.last = ack["seq"].as_u64().unwrap_or_else(|| panic!("{ack}"));
    }

    async fn single(&mut self, number: u32) {
        let (subject, payload) = self.message(number);
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Expected-Last-Sequence", self.last.to_string());
        headers.insert("Nats-Expected-Stream", RAW);
        self.acknowledged(subject, headers, payload).await;
    }

    /// As many writers as a batch has entries, each with its own message and its own acknowledgement.
    async fn writers(&self, first: u32, rounds: u32) {
        let writer = |offset: u32| {
            let client = self.client.clone();
            let messages: Vec<_> =
                (0..rounds).map(|round| self.message(first + round * BATCH + offset)).collect();
            tokio::spawn(async move {
                for (subject, payload) in messages {
                    let reply = client.request(subject, payload.into()).await.unwrap();
                    let ack: Value = serde_json::from_slice(&reply.payload).unwrap();
                    assert!(ack["seq"].is_u64(), "{ack}");
                }
            })
        };
        let writing: Vec<_> = (0..BATCH).map(writer).collect();
        for one in writing {
            one.await.unwrap();
        }
    }

    async fn batch(&mut self, first: u32) {
        let id = format!("{first:024x}");
        for number in 1..=BATCH {
            let (subject, payload) = self.message(first + number);
            let mut headers = HeaderMap::new();
            if number == 1 {
                headers.insert("Nats-Expected-Last-Sequence", self.last.to_string());
                headers.insert("Nats-Expected-Stream", RAW);
            }
            headers.insert("Nats-Batch-Id", id.as_str());
            headers.insert("Nats-Batch-Sequence", number.to_string());
            if number == BATCH {
                headers.insert("Nats-Batch-Commit", "1");
                self.acknowledged(subject, headers, payload).await;
            } else {
                self.client.publish_with_headers(subject, headers, payload.into()).await.unwrap();
            }
        }
    }
}

async fn timed(work: impl Future<Output = ()>) -> f64 {
    let begun = Instant::now();
    work.await;
    begun.elapsed().as_secs_f64()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap()
}

/// Prints one line: `count` writes a turn, seconds of each turn unsealed and sealed.
fn line(name: &str, count: u32, turns: &[(f64, f64)]) {
    let of = |pick: fn(&(f64, f64)) -> f64| median(turns.iter().map(pick).collect());
    let (plain, sealed) = (of(|turn| turn.0), of(|turn| turn.1));
    let ratio = of(|turn| turn.0 / turn.1);
    let per = |seconds: f64| f64::from(count) / seconds;
    println!("{name} | {:.0} | {:.0} | {ratio:.2}", per(plain), per(sealed));
}

async fn writes(site: &Site, name: &str, size: Size) {
    let log = Arc::new(site.open(Access::Serve));
    let mut unsealed = Unsealed::new(site).await;
    let mut next = 0;
    let (mut singles, mut batches, mut alone) = (Vec::new(), Vec::new(), Vec::new());
    for turn in 0..=size.turns {
        let first = next;
        next += size.singles;
        let plain = timed(async {
            for number in first..next {
                unsealed.single(number).await;
            }
        })
        .await;
        let sealed = timed(async {
            for number in first..next {
                log.add_user(Actor::Operator, user(number)).await.unwrap();
            }
        })
        .await;
        // The first turn warms up.
        if turn > 0 {
            singles.push((plain, sealed));
        }
    }
    for turn in 0..=size.turns {
        let first = next;
        next += 2 * size.batches * BATCH;
        let plain = timed(async {
            for batch in 0..size.batches {
                unsealed.batch(first + batch * BATCH).await;
            }
        })
        .await;
        // As many writers as a batch has entries, each one write after the other: the log groups what waits.
        let sealed = timed(async {
            let writer = |offset: u32| {
                let (log, batches) = (Arc::clone(&log), size.batches);
                tokio::spawn(async move {
                    for batch in 0..batches {
                        log.add_user(Actor::Operator, user(first + batch * BATCH + offset)).await.unwrap();
                    }
                })
            };
            let writing: Vec<_> = (0..BATCH).map(writer).collect();
            for one in writing {
                one.await.unwrap();
            }
        })
        .await;
        let each = timed(unsealed.writers(first + size.batches * BATCH, size.batches)).await;
        unsealed.last = unsealed.found_last().await;
        if turn > 0 {
            batches.push((plain, sealed));
            alone.push((each, sealed));
        }
    }
    line(&format!("{name}, one at a time"), size.singles, &singles);
    let count = size.batches * BATCH;
    line(&format!("{name}, {BATCH} writers; unsealed: one loop that makes batches"), count, &batches);
    line(&format!("{name}, {BATCH} writers; unsealed: {BATCH} writers, too"), count, &alone);
}

fn resident() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() * 1024.0
}

async fn read_only(client: &Client, count: u64) {
    let context = async_nats::jetstream::new(client.clone());
    let stream = context.get_stream(STREAM).await.unwrap();
    let config = pull::Config {
        ack_policy: AckPolicy::None,
        deliver_policy: DeliverPolicy::All,
        memory_storage: true,
        ..pull::Config::default()
    };
    let consumer = stream.create_consumer(config).await.unwrap();
    let mut messages = consumer.stream().max_messages_per_batch(5000).messages().await.unwrap();
    for _ in 0..count {
        messages.next().await.unwrap().unwrap();
    }
}

async fn replays(site: &Site, count: u32, size: Size) {
    let log = site.open(Access::Serve);
    let mut records: Vec<_> = (0..count).map(|number| Record::User(user(number)).encode()).collect();
    records.sort_by_key(|record| record.id().unwrap());
    let begun = Instant::now();
    log.import(&mut records.into_iter().map(Ok), None).unwrap();
    let imported = begun.elapsed().as_secs_f64();
    drop(log);
    let client = site.cluster.client(0).await;
    let (mut turns, mut bytes) = (Vec::new(), Vec::new());
    for _ in 0..size.turns.min(5) {
        let plain = timed(read_only(&client, u64::from(count))).await;
        let before = resident();
        let begun = Instant::now();
        let log = site.open(Access::Read);
        let replay = begun.elapsed().as_secs_f64();
        bytes.push((resident() - before) / f64::from(count));
        assert_eq!(log.posture().entries, u64::from(count));
        turns.push((plain, replay));
    }
    let of = |pick: fn(&(f64, f64)) -> f64| median(turns.iter().map(pick).collect());
    let (plain, replay, ratio) = (of(|turn| turn.0), of(|turn| turn.1), of(|turn| turn.1 / turn.0));
    // The first open takes memory from the system; later ones find it.
    let most = bytes.into_iter().fold(0.0, f64::max);
    println!("{count} | {plain:.3} | {replay:.3} | {ratio:.2} | {most:.0}");
    println!("  import: {:.0} records/s", f64::from(count) / imported);
    let log = site.open(Access::Serve);
    let begun = Instant::now();
    for number in 0..size.checks {
        let key = sign(number.wrapping_mul(2_654_435_761) % count);
        assert!(log.is_authorized(key, Strength::Local).await);
    }
    let check = begun.elapsed().as_secs_f64() / f64::from(size.checks);
    let gets = size.checks.min(2000);
    let get = timed(async {
        for number in 0..gets {
            let body = json!({ "seq": 10 + number % count.min(400) }).to_string();
            client.request(format!("$JS.API.STREAM.MSG.GET.{STREAM}"), body.into()).await.unwrap();
        }
    })
    .await
        / f64::from(gets);
    println!(
        "  authorization check: {:.0} ns; a get from the server: {:.0} us ({:.0} times as long)",
        check * 1e9,
        get * 1e6,
        get / check
    );
}

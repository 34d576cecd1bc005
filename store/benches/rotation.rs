//! What a rotation of the epoch costs on three nodes under load: how fast it seals anew, beside the same records
//! written in batches under the same load, and how long live writes take, beside those of a quiet time and those
//! beside the batches.
//!
//! `--smoke` (also the default under `cargo test`) only shows that it runs; `--records N` has another size, `--rate N` a limit to what is
//! sealed anew in a second.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a bench prints a table, and stops at the first error"
)]

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use unibus_keyfile::id::UnixTime;
use unibus_keyfile::node_key::NodeKeyFile;
use unibus_keyfile::nodeset::Plan;
use unibus_keyfile::operator_key::OperatorKey;
use unibus_store::keys::Keys;
use unibus_store::record::{Handle, SignPub, Timestamp, User, UserRole};
use unibus_store::rotation::Step;
use unibus_store::sealed_log::{Access, LogOptions, RotationEvent, SealedLog};
use unibus_store::store::{Actor, Store, Strength};
use unibus_tests::{Cluster, Scratch, Setup};

const NAMES: [&str; 3] = ["alpha", "beta", "gamma"];
/// Writers at once that the log groups.
const WRITERS: u32 = 500;
/// Time between two live writes on one node.
const PAUSE: Duration = Duration::from_millis(5);

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
    if has("--list") {
        return;
    }
    let is_full = has("--bench") && !has("--smoke");
    let number = |flag: &str| {
        let given = arguments.iter().skip_while(|argument| *argument != flag).nth(1);
        given.map(|text| text.parse::<u32>().unwrap())
    };
    let records = number("--records").unwrap_or(if is_full { 100_000 } else { 500 });
    let rate = number("--rate").map(u64::from);
    let quiet = if is_full { Duration::from_secs(10) } else { Duration::from_millis(300) };
    let turns = if is_full { 3 } else { 1 };
    let site = Site::new();
    tokio::runtime::Runtime::new().unwrap().block_on(measure(&site, (records, rate), quiet, turns));
}

struct Site {
    cluster: Cluster,
    folder: Scratch,
    keys: Vec<Arc<NodeKeyFile>>,
}

#[expect(clippy::disallowed_methods, reason = "an operator copies a nodeset")]
impl Site {
    fn new() -> Self {
        let (cluster, folder) = (Setup::of(3).without_proxies().start(), Scratch::new());
        let operator = OperatorKey::generate();
        let own = |name: &&str| Arc::new(NodeKeyFile::generate(name.parse().unwrap(), operator.cluster_id()));
        let keys: Vec<_> = NAMES.iter().map(own).collect();
        let at = UnixTime::from_seconds(1_800_000_000);
        let plan = keys.iter().fold(Plan::first(&operator), |plan, own| plan.with_node(own.member(at)));
        std::fs::write(folder.join("nodeset"), plan.sign(&operator).unwrap().as_bytes()).unwrap();
        NAMES.iter().for_each(|name| std::fs::create_dir(folder.join(name)).unwrap());
        Self { cluster, folder, keys }
    }

    fn options(&self, node: usize) -> LogOptions {
        let (key, name) = (self.keys.get(node).unwrap(), NAMES.get(node).unwrap());
        let (nodeset, state) = (self.folder.join("nodeset"), self.folder.join(name));
        let (keys, servers) = (Keys::Node(Arc::clone(key)), vec![self.cluster.url(node)]);
        LogOptions::new(servers, keys, &nodeset, &state, Arc::new(clock))
            .identity(self.cluster.control_seed(node))
            .replicas(3)
            .data_dir(&self.cluster.node(node).store_dir())
    }
}

fn clock() -> Timestamp {
    let since = std::time::UNIX_EPOCH.elapsed().unwrap();
    Timestamp::from_micros(i64::try_from(since.as_micros()).unwrap()).unwrap()
}

fn sign(number: u32) -> SignPub {
    let mut bytes = [7; 32];
    bytes.split_at_mut(4).0.copy_from_slice(&number.to_be_bytes());
    SignPub::from_bytes(bytes).unwrap()
}

fn user(number: u32) -> User {
    User::new(sign(number), Handle::parse(&format!("person {number}")).unwrap(), UserRole::Member, clock())
}

/// Many writers at once, each with one write after the other, until all users of the range are there; a second.
async fn add_all(log: &Arc<SealedLog>, users: Range<u32>) -> f64 {
    let begun = Instant::now();
    let (count, end) = (f64::from(users.end - users.start), users.end);
    let writer = |first: u32| {
        let log = Arc::clone(log);
        tokio::spawn(async move {
            for number in (first..end).step_by(500) {
                log.add_user(Actor::Operator, user(number)).await.unwrap();
            }
        })
    };
    for one in (users.start..users.start + WRITERS).map(writer).collect::<Vec<_>>() {
        one.await.unwrap();
    }
    count / begun.elapsed().as_secs_f64()
}

/// When a live write began, and what it took.
type Write = (Instant, Duration);

/// A writer and reader on each node: what it wrote it must read.
struct Live {
    stop: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<Vec<Write>>>,
}

impl Live {
    fn on(logs: &[Arc<SealedLog>], next: &Arc<AtomicU32>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let on_node = |log: &Arc<SealedLog>| {
            let (log, stop, next) = (Arc::clone(log), Arc::clone(&stop), Arc::clone(next));
            tokio::spawn(async move {
                let mut took = Vec::new();
                while !stop.load(Ordering::Acquire) {
                    let number = next.fetch_add(1, Ordering::AcqRel);
                    let begun = Instant::now();
                    log.add_user(Actor::Operator, user(number)).await.unwrap();
                    took.push((begun, begun.elapsed()));
                    let is_there = log.is_authorized(sign(number), Strength::Local).await;
                    assert!(is_there, "{number}: {:?} after {:?}", log.position(), begun.elapsed());
                    tokio::time::sleep(PAUSE).await;
                }
                took
            })
        };
        let tasks = logs.iter().map(on_node).collect();
        Self { stop, tasks }
    }

    async fn end(self) -> Vec<Write> {
        self.stop.store(true, Ordering::Release);
        let mut all = Vec::new();
        for task in self.tasks {
            all.extend(task.await.unwrap());
        }
        all
    }
}

/// The given part of a thousand took no longer, ms.
fn quantile(writes: &[Write], thousandth: usize) -> f64 {
    let mut took: Vec<Duration> = writes.iter().map(|(_, took)| *took).collect();
    took.sort();
    let at = (took.len().saturating_sub(1)).saturating_mul(thousandth) / 1000;
    took.get(at).unwrap().as_secs_f64() * 1e3
}

/// The steps of a rotation, each with when it began; the last is its end.
fn rotate(options: LogOptions, rate: Option<u64>) -> Vec<(Instant, &'static str)> {
    let mut steps = vec![(Instant::now(), "open")];
    let tool = SealedLog::open(options.access(Access::Visit)).unwrap();
    steps.push((Instant::now(), "plan"));
    tool.begin_rotation(b"a plan").unwrap();
    tool.rotate(rand::random(), false, rate, &mut |event| {
        if let RotationEvent::Step(step) = event {
            steps.push((Instant::now(), step.name()));
        }
    })
    .unwrap();
    tool.end_rotation(b"a receipt").unwrap();
    steps.push((Instant::now(), "end"));
    steps
}

/// What the step took, each time that it was taken, s.
fn seconds_of(step: Step, steps: &[(Instant, &'static str)]) -> f64 {
    let took = |pair: &[(Instant, &'static str)]| match pair {
        [(from, name), (to, _)] if *name == step.name() => to.duration_since(*from).as_secs_f64(),
        _ => 0.0,
    };
    steps.windows(2).map(took).sum()
}

async fn measure(site: &Site, (records, rate): (u32, Option<u64>), quiet: Duration, turns: usize) {
    let opening = (0..NAMES.len()).map(|node| {
        let options = site.options(node);
        tokio::task::spawn_blocking(move || SealedLog::open(options).unwrap())
    });
    let mut logs = Vec::new();
    for log in opening.collect::<Vec<_>>() {
        logs.push(Arc::new(log.await.unwrap()));
    }
    let next = Arc::new(AtomicU32::new(records + 1));
    let (one, half) = (logs.first().unwrap(), records / 2);
    let alone = add_all(one, 1..half + 1).await;
    let tool = site.options(1);
    let steps = tokio::task::spawn_blocking(move || rotate(tool, rate)).await.unwrap();
    let reached = f64::from(half) / seconds_of(Step::Reseal, &steps);
    println!(
        "{half} users on three nodes, nobody else writes: written by {WRITERS} at once {alone:.0}/s, sealed anew {reached:.0}/s, {:.2} of it",
        reached / alone
    );
    let live = Live::on(&logs, &next);
    let batched = add_all(one, half + 1..records + 1).await;
    let beside = live.end().await;
    println!(
        "{records} users, half of them written by {WRITERS} at once under load: {batched:.0}/s; live writes p50 {:.1} ms, p99 {:.1} ms",
        quantile(&beside, 500),
        quantile(&beside, 990)
    );
    println!(
        "proven after, s | sealed anew/s | of the batched rate | writes meanwhile | p50, ms | p99, ms | slowest, ms | quiet p50 | quiet p99 | p99 to quiet | p99 to batched writes"
    );
    for turn in 0..turns {
        let live = Live::on(&logs, &next);
        tokio::time::sleep(quiet).await;
        let before = live.end().await;
        let held = next.load(Ordering::Acquire) - 1;
        let live = Live::on(&logs, &next);
        let tool = site.options(turn % NAMES.len());
        let steps = tokio::task::spawn_blocking(move || rotate(tool, rate)).await.unwrap();
        let during = live.end().await;
        let seconds = |from: Instant, to: Instant| to.duration_since(from).as_secs_f64();
        let (first, last) = (steps.first().unwrap().0, steps.last().unwrap().0);
        let mut by_step = String::new();
        for pair in steps.windows(2) {
            let [(from, name), (to, _)] = pair else { continue };
            let of = during.iter().filter(|(at, _)| at >= from && at < to).copied().collect::<Vec<_>>();
            if !of.is_empty() {
                let (took, slow) = (seconds(*from, *to), quantile(&of, 990));
                by_step.push_str(&format!("  {name}: {took:.2} s, {} writes, p99 {slow:.1} ms\n", of.len()));
            }
        }
        let reached = f64::from(held) / seconds_of(Step::Reseal, &steps);
        let (quiet_99, live_99) = (quantile(&before, 990), quantile(&during, 990));
        println!(
            "{:.1} | {reached:.0} | {:.2} | {} | {:.1} | {live_99:.1} | {:.1} | {:.1} | {quiet_99:.1} | {:.1} | {:.1}",
            seconds(first, last),
            reached / batched,
            during.len(),
            quantile(&during, 500),
            quantile(&during, 1000),
            quantile(&before, 500),
            live_99 / quiet_99,
            live_99 / quantile(&beside, 990)
        );
        print!("{by_step}");
    }
}

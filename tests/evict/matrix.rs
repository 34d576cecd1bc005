//! Where an eviction can be cut short, by whom, and how it is gone on with: users write on the other nodes meanwhile.

use std::fs::File;
use std::time::{Duration, Instant};

use unibus_tests::{Program, kv, wait};

use unibus_tests::World;

/// The places, in their order.
const PLACES: [&str; 10] = [
    "evict::ask",
    "evict::granted",
    "evict::wipe",
    "evict::ended",
    "evict::doomed",
    "evict::removing",
    "evict::removed",
    "evict::wiped",
    "evict::catching",
    "evict::prove",
];

/// What happens there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// The tool is killed.
    Tool,
    /// The daemon that evicts is killed, and its nats-server with it.
    Daemon,
    /// The nats-server that is evicted is killed, where there is one.
    Server,
    /// Another node's nats-server is killed.
    OtherServer,
    /// Another node's daemon is killed, and is away for some seconds.
    OtherDaemon,
    /// The disk is full.
    Full,
}

impl Fault {
    const ALL: [Self; 6] =
        [Self::Tool, Self::Daemon, Self::Server, Self::OtherServer, Self::OtherDaemon, Self::Full];

    /// Whether it can happen there, and is another case than elsewhere.
    fn is_at(self, place: &str) -> bool {
        match self {
            Self::Tool | Self::Daemon | Self::Full => true,
            // Between them it does not run.
            Self::Server => !["ended", "doomed", "removing", "removed"].iter().any(|at| place.ends_with(at)),
            Self::OtherServer | Self::OtherDaemon => {
                ["ask", "granted", "doomed", "catching", "prove"].iter().any(|at| place.ends_with(at))
            }
        }
    }

    const fn argument(self) -> &'static str {
        match self {
            Self::Daemon => "kill",
            Self::Full => "full",
            _ => "slow",
        }
    }

    /// Nodes whose users notice nothing: with two of three away nobody can write, and is told so.
    const fn spared(self) -> &'static [usize] {
        match self {
            Self::OtherServer | Self::OtherDaemon => &[],
            _ => &[1, 2],
        }
    }
}

fn evict(world: &World) -> Program {
    let store = format!("kv:{}", world.servers(0));
    world.migrate(0, ["rotate", "jetstream", &store, "--evict", "--json", "--yes"])
}

/// Nobody else is wiped while this node is not whole.
fn nobody_else(world: &World, cell: &str) {
    let other = world.ask(2, "second", "same");
    assert_eq!(other.status, 409, "{cell}: a second node is wiped: {}", world.daemons[2].said());
}

/// What came of one cell.
struct Row {
    code: i32,
    runs: u32,
    retryable: usize,
    slowest: Duration,
}

fn cut_short(world: &mut World, place: &str, fault: Fault) -> Row {
    let cell = format!("{place} {fault:?}");
    let plan = format!("{place}=1*return({})->off", fault.argument());
    let sign = format!("{{\"reached\":\"{place}\"}}");
    // The log is that of all daemons of this node, one after the other.
    let reached = |world: &World| world.daemons[0].said().matches(&sign).count();
    let before = reached(world);
    world.kill_and_restart_with(0, "FAILPOINTS", &plan);
    world.wait_same_digest();
    let out = File::create(world.hosts.shared("tool")).unwrap();
    let mut tool = evict(world).spawn(out.try_clone().unwrap(), out);
    let (code, mut load) = {
        let (tool, shared) = (&mut tool, &*world);
        shared.under_load(&[1, 2], || {
            wait::until("the place", || (reached(shared) > before).then_some(()));
            match fault {
                Fault::Tool => kv::kill(tool.id()),
                Fault::Server => drop(kv::nats_of(shared.daemons[0].pid()).map(kv::kill)),
                Fault::OtherServer => kv::kill(kv::nats_of(shared.daemons[1].pid()).unwrap()),
                Fault::OtherDaemon => kv::kill(shared.daemons[1].pid()),
                Fault::Daemon => {
                    wait::until("the end of it", || shared.daemons[0].get("/healthz").is_err().then_some(()));
                    nobody_else(shared, &cell);
                }
                Fault::Full => {}
            }
            if fault.argument() == "slow" && place != "evict::ask" {
                nobody_else(shared, &cell);
            }
            // One whose daemon is away waits for it: that one is started again below.
            let begun = Instant::now();
            loop {
                if let Some(status) = tool.try_wait().unwrap() {
                    return status.code();
                }
                let is_away = matches!(fault, Fault::Daemon | Fault::OtherDaemon);
                if is_away && begun.elapsed() > Duration::from_secs(3) {
                    return None;
                }
                assert!(begun.elapsed() < Duration::from_secs(90), "{cell}: the tool does not end");
                std::thread::sleep(Duration::from_millis(10));
            }
        })
    };
    if fault == Fault::OtherDaemon && code == Some(0) {
        panic!("{cell}: proven while a node was away");
    }
    match fault {
        Fault::Daemon => world.restart(0),
        Fault::OtherDaemon => world.restart(1),
        _ => {}
    }
    let ((code, runs), after) = world.under_load(&[1, 2], || {
        let code = code.unwrap_or_else(|| tool.wait().unwrap().code().unwrap_or(-1));
        let code = if fault == Fault::Tool { -1 } else { code };
        assert!([-1, 0, 2, 3].contains(&code), "{cell}: exit {code}");
        let mut runs = 0;
        if code != 0 {
            let begun = Instant::now();
            loop {
                let again = evict(world).run();
                runs += 1;
                assert!([0, 2, 3].contains(&again.code), "{cell}: {}", again.said());
                if again.code == 0 {
                    break;
                }
                assert!(begun.elapsed() < Duration::from_secs(120), "{cell}: {}", again.said());
            }
        }
        (code, runs)
    });
    load.failed.extend(after.failed);
    load.added.extend(after.added);
    let is_retryable =
        |why: &&String| why.contains(" 503 ") || why.contains("refused") || why.contains("os error");
    let spared = |why: &&String| fault.spared().iter().any(|node| why.starts_with(&format!("node {node}:")));
    let wrong: Vec<_> = load.failed.iter().filter(|why| spared(why) || !is_retryable(why)).collect();
    assert!(wrong.is_empty(), "{cell}: {wrong:?}");
    world.wait_same_digest();
    for index in 0..3 {
        let users = world.users(index);
        assert!(load.added.iter().all(|key| users.contains(key)), "{cell}: node {index} has lost users");
    }
    for index in [1, 2] {
        assert!(!world.hosts.path(index, "nats/unibus.wiped").exists(), "{cell}: {index} was wiped, too");
    }
    let status = world.get(0, "/jetstream").json();
    let own = status["nodes"].as_array().unwrap().iter().find(|node| node["node"] == status["node"]).unwrap();
    assert_eq!(own["wiped"]["proven"], true, "{cell}: {own}");
    Row { code, runs, retryable: load.failed.len(), slowest: load.slowest.max(after.slowest) }
}

/// What runs always: the daemon goes between the notes of a wipe, and the server while it catches up.
const SAMPLE: [(&str, Fault); 2] = [("evict::doomed", Fault::Daemon), ("evict::catching", Fault::Server)];

/// All of them with `UNIBUS_TEST_ALL`, some 25 minutes; those with `UNIBUS_TEST_CELLS` in their name.
#[test]
fn an_eviction_that_is_cut_short_anywhere_is_gone_on_with_and_nothing_is_lost() {
    let is_whole = std::env::var_os("UNIBUS_TEST_ALL").is_some();
    let only = std::env::var("UNIBUS_TEST_CELLS").unwrap_or_default();
    let mut world = World::start();
    let mut rows = 0;
    for place in PLACES {
        for fault in Fault::ALL.into_iter().filter(|fault| fault.is_at(place)) {
            let name = format!("{place:<16} {:<12}", format!("{fault:?}"));
            let is_wanted = if is_whole { name.contains(&only) } else { SAMPLE.contains(&(place, fault)) };
            if !is_wanted {
                continue;
            }
            let begun = Instant::now();
            let Row { code, runs, retryable, slowest } = cut_short(&mut world, place, fault);
            let took = begun.elapsed();
            eprintln!(
                "{name} exit {code:>2}, {runs} further runs, {retryable} retryable writes, slowest {slowest:?}; {took:?}"
            );
            rows += 1;
        }
    }
    assert!(rows > 0);
}

//! A node changes its key while it serves: no restart, no failed request, and the old key file is refused afterwards.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::Value;
use unibus_tests::http::{self, Answer, Request};
use unibus_tests::{Daemon, Host, Program, kv, wait};

use unibus_tests::World;

mod rotate_node {
    mod disk;
    pub(crate) mod killed;
}

const SIGHUP: rustix::process::Signal = rustix::process::Signal::HUP;

/// The places at which the tool or the daemon can be stopped, in their order.
const TOOL_STOPS: [&str; 7] = [
    "node::begin",
    "node::begun",
    "node::loaded",
    "node::approve",
    "node::approved",
    "node::retire",
    "node::retired",
];
const DAEMON_STOPS: [&str; 2] = ["node::rewrap", "node::rewrapped"];

fn fingerprints(key_file: &Path) -> Vec<String> {
    let said = Program::ours("unibus-key").args(["inspect", "--json"]).args([key_file]).run().ok().json();
    let text = said.to_string();
    let slots =
        said["keys"].as_array().or_else(|| said["slots"].as_array()).unwrap_or_else(|| panic!("{text}"));
    slots
        .iter()
        .map(|slot| slot["fingerprint"].as_str().unwrap_or_else(|| panic!("{text}")).to_owned())
        .collect()
}

fn admin(host: &Host, method: &str, path: &str) -> Answer {
    let headers = vec![("content-type".to_owned(), "application/json".to_owned())];
    let request = Request { method, path, headers, body: b"" };
    http::send_to_socket(&host.path("state/admin.sock"), &request).unwrap()
}

fn rotate(host: &Host, words: &[&str]) -> Program {
    let store = host.store();
    let operator = host.path("keys/operator.key");
    host.migrate(["rotate", "node", &store, "--json"]).option("--operator", operator).args(words)
}

/// A copy of a file for its owner alone.
fn keep(from: &Path, to: &Path) -> PathBuf {
    fs::copy(from, to).unwrap();
    fs::set_permissions(to, fs::Permissions::from_mode(0o600)).unwrap();
    to.to_path_buf()
}

fn is_over(host: &Host, daemon: &Daemon, old: &[String]) {
    let now = fingerprints(&host.key_file());
    assert_eq!(now.len(), 1, "{now:?}");
    assert!(!old.contains(&now[0]));
    let report = admin(host, "GET", "/keys").has(200).json();
    assert_eq!(report["keys"], serde_json::json!(now), "{report}");
    assert_eq!(report["nodes"]["host1"], now[0].as_str(), "{report}");
    assert_eq!(report["keyring_nodeset_version"], report["nodeset_version"], "{report}");
    let detail = daemon.posture()["at_rest_detail"].clone();
    assert_eq!((&detail["state"], &detail["node_key"]), (&"proven".into(), &now[0].as_str().into()));
    assert_eq!(detail["exposed_epochs"], serde_json::json!([]), "it is the same node");
}

#[test]
fn a_node_changes_its_key_while_its_database_is_served() {
    let host = Host::with_sample(50, 5);
    let daemon = host.serve();
    let old = keep(&host.key_file(), &host.path("old.key"));
    let before = fingerprints(&old);
    let plan = rotate(&host, &["--dry-run"]).run().ok().json();
    assert_eq!(plan["plan"]["facts"]["step"], "begins: a new key is made", "{plan}");
    assert_eq!(fingerprints(&host.key_file()), before, "a dry run changed something");
    let hash = plan["plan"]["hash"].as_str().unwrap();
    rotate(&host, &["--plan", &hash.replace(|c: char| c.is_ascii_digit(), "0")]).run().exits(2);
    let said = rotate(&host, &["--plan", hash]).run().ok().json();
    assert_eq!(
        (&said["nodes"][0]["state"], &said["nodes"][0]["from"]),
        (&"done".into(), &before[0].as_str().into())
    );
    is_over(&host, &daemon, &before);
    assert_eq!(daemon.stop(), Some(0), "the same process to the end");

    // The old key file opens nothing any more, and both fingerprints are named where they are known.
    let refused = host.refused(host.daemon_command().env("UNIBUS_AT_REST_KEY_FILE", &old)).exits(6);
    assert!(refused.stderr.contains(&before[0]), "{}", refused.stderr);
    let refused = rotate(&host, &["--yes"]).env("UNIBUS_AT_REST_KEY_FILE", &old).run().exits(6);
    for fingerprint in [&before[0], &fingerprints(&host.key_file())[0]] {
        assert!(refused.said().contains(fingerprint.as_str()), "{}", refused.said());
    }
    let daemon = host.serve();
    is_over(&host, &daemon, &before);
    assert_eq!(host.status()["entries"]["users"].as_u64().or(Some(50)), Some(50));
}

#[test]
fn a_database_that_nobody_serves_changes_its_key_too() {
    let host = Host::with_sample(20, 2);
    let before = fingerprints(&host.key_file());
    rotate(&host, &["--yes"]).run().ok();
    let now = fingerprints(&host.key_file());
    assert!(now.len() == 1 && now != before, "{now:?}");
    host.verify().run().ok();
    let daemon = host.serve();
    is_over(&host, &daemon, &before);
}

#[test]
fn without_the_operator_key_it_writes_a_request_and_goes_on_when_that_is_approved() {
    let host = Host::with_sample(20, 2);
    let daemon = host.serve();
    let before = fingerprints(&host.key_file());
    let store = host.store();
    let run = || host.migrate(["rotate", "node", &store, "--json", "--yes"]).run();
    for _ in 0..2 {
        let waits = run().exits(9).json();
        assert_eq!(waits["error"]["code"], "UB-M043", "{waits}");
        assert_eq!(fingerprints(&host.key_file()).len(), 2, "it goes on with the key that it has begun with");
    }
    let (operator, nodeset) = (host.path("keys/operator.key"), host.path("keys/nodeset"));
    let approve = Program::ours("unibus-key").args(["approve", "--yes"]).option("--operator", operator);
    approve.option("--nodeset", nodeset).args([host.key_file().with_extension("request")]).run().ok();
    run().ok();
    is_over(&host, &daemon, &before);
}

#[test]
fn a_bad_key_file_is_not_taken_and_the_daemon_says_why_and_goes_on() {
    let host = Host::with_sample(20, 2);
    let daemon = host.serve();
    let (key, good) = (host.key_file(), host.path("good.key"));
    let before = fingerprints(&key);
    keep(&key, &good);
    let other = host.path("other.key");
    let cluster = Program::ours("unibus-key").args(["inspect", "--json"]).args([&key]).run().ok().json();
    let cluster = cluster["cluster"].as_str().unwrap().to_owned();
    let generate = |name: &str, pin: &str| {
        if other.exists() {
            fs::remove_file(&other).unwrap();
        }
        let made = Program::ours("unibus-key").args(["generate", "--name", name, "--cluster", pin]);
        made.option("--out", &other).run().ok();
        keep(&other, &key);
    };
    let refused = |code: &str, exit: u64| {
        let answer = admin(&host, "POST", "/keys/reload").has(409).json();
        assert_eq!((answer["code"].as_str(), answer["exit"].as_u64()), (Some(code), Some(exit)), "{answer}");
        assert!(!answer["hint"].as_str().unwrap().is_empty(), "{answer}");
        assert_eq!(daemon.get("/healthz").unwrap().status, 200);
        assert_eq!(admin(&host, "GET", "/keys").json()["keys"], serde_json::json!(before));
    };
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    let answer = admin(&host, "POST", "/keys/reload").has(409).json();
    assert!(answer["message"].as_str().unwrap().contains("644"), "{answer}");
    generate("host2", &cluster);
    refused("UB-S080", 6);
    generate("host1", &cluster);
    refused("UB-S082", 6);
    let stranger = Host::new();
    keep(&stranger.key_file(), &key);
    refused("UB-S081", 6);
    fs::remove_file(&key).unwrap();
    assert_eq!(admin(&host, "POST", "/keys/reload").status, 409);
    // The same by signal, which nobody answers: the log says it.
    let said = daemon.said().matches("the key file is not taken").count();
    kv::signal(daemon.pid(), SIGHUP);
    wait::until("the word of the daemon", || {
        (daemon.said().matches("the key file is not taken").count() > said).then_some(())
    });
    keep(&good, &key);
    kv::signal(daemon.pid(), SIGHUP);
    wait::until("the good key file", || daemon.said().contains("the key file was read again").then_some(()));
    assert_eq!(daemon.get("/healthz").unwrap().status, 200);

    // The nodeset of another operator wraps nothing.
    let keyring = fs::read(host.path("data/control.db.keyring")).unwrap();
    fs::copy(stranger.path("keys/nodeset"), host.path("keys/nodeset")).unwrap();
    wait::until("the word about the nodeset", || {
        daemon.said().contains("the changed nodeset is not taken").then_some(())
    });
    assert_eq!(fs::read(host.path("data/control.db.keyring")).unwrap(), keyring);
    assert_eq!(daemon.get("/healthz").unwrap().status, 200);
    rotate(&host, &["--yes"]).run().exits(6);
}

#[test]
fn a_tool_that_is_killed_at_any_step_is_run_again() {
    let host = Host::with_sample(20, 2);
    let daemon = host.serve();
    for stop in TOOL_STOPS {
        let before = fingerprints(&host.key_file());
        let killed = rotate(&host, &["--yes"]).env("FAILPOINTS", format!("{stop}=return(kill)")).run();
        assert_eq!(killed.code, -1, "{stop}: {}", killed.said());
        assert_eq!(daemon.get("/healthz").unwrap().status, 200, "{stop}");
        let again = rotate(&host, &["--yes"]).run().ok();
        let again = again.json();
        assert_eq!(again["nodes"][0]["state"], "done", "{stop}: {again}");
        is_over(&host, &daemon, &before);
    }
    assert_eq!(daemon.stop(), Some(0));
    drop(host.serve());
}

#[test]
fn a_daemon_that_is_killed_while_it_wraps_the_keyring_is_started_again_and_goes_on() {
    let host = Host::with_sample(20, 2);
    for stop in DAEMON_STOPS {
        let before = fingerprints(&host.key_file());
        let failing = host.daemon_command().env("FAILPOINTS", format!("{stop}=return(kill)"));
        let mut daemon = Daemon::start(failing, &host.path("logs"));
        // The tool waits for the daemon, which somebody starts again, or for which the tool has the store open once.
        let daemon = std::thread::scope(|scope| {
            let tool = scope.spawn(|| rotate(&host, &["--yes"]).run());
            daemon.wait();
            let again = wait::until("the daemon", || {
                Daemon::start_unless_refused(host.daemon_command(), &host.path("logs")).ok()
            });
            let said = tool.join().unwrap();
            assert!(said.code == 0 || said.code == 5, "{stop}: {}", said.said());
            again
        });
        rotate(&host, &["--yes"]).run().ok();
        is_over(&host, &daemon, &before);
        assert_eq!(daemon.stop(), Some(0));
    }
}

#[test]
fn a_stolen_key_of_a_database_is_given_up_with_the_epochs_that_it_could_open() {
    let host = Host::with_sample(20, 2);
    let mut gone = Vec::new();
    for (number, is_served) in [(1, false), (2, true)] {
        let daemon = is_served.then(|| host.serve());
        let before = fingerprints(&host.key_file());
        let compromised = || rotate(&host, &["--yes", "--compromised"]);
        for stop in ["compromise::changed", "compromise::marked", "compromise::rotated"] {
            let killed = compromised().env("FAILPOINTS", format!("{stop}=return(kill)")).run();
            assert_eq!(killed.code, -1, "{stop}: {}", killed.said());
        }
        let said = compromised().run().ok().json();
        let after = fingerprints(&host.key_file());
        assert!(after.len() == 1 && after != before, "{after:?}");
        let exposure = &said["exposure"];
        assert_eq!(exposure["keys"][0]["key"], before[0].as_str(), "{said}");
        assert_eq!(exposure["readable"]["handles_roles_and_signing_keys_of_users"], 20, "{said}");
        // Once each, and the new epoch is nobody's but ours.
        gone.push(number);
        let status = host.status();
        let found: Vec<_> = status["epochs"].as_array().unwrap().iter().collect();
        assert_eq!(found.len(), gone.len() + 1, "{status}");
        for (epoch, number) in found.iter().zip(1_u64..) {
            let is_gone = gone.contains(&number);
            let state = if is_gone { "destroyed" } else { "primary" };
            assert_eq!((&epoch["state"], &epoch["exposed"]), (&state.into(), &is_gone.into()), "{status}");
        }
        if let Some(daemon) = daemon {
            assert_eq!(daemon.posture()["at_rest_detail"]["exposed_epochs"], serde_json::json!(gone));
            // What the daemon was asked for afterwards it did with the key that was loaded meanwhile.
            let receipt = exposure_receipt(&said);
            let pin = fs::read(host.path("keys/nodeset")).unwrap();
            let nodeset = unibus_keyfile::nodeset::Nodeset::decode_unpinned(&pin).unwrap();
            let receipt = receipt.map(|path| fs::read(path).unwrap());
            if let Some(receipt) = receipt {
                let receipt = unibus_keyfile::receipt::Receipt::decode(&receipt).unwrap();
                receipt.verify(Some(nodeset.cluster())).unwrap();
            }
        }
    }
}

/// Where the receipt of the rotation lies that belongs to it; none if an earlier run made it.
fn exposure_receipt(said: &Value) -> Option<PathBuf> {
    said.pointer("/epoch/receipt/file").and_then(Value::as_str).map(PathBuf::from)
}

#[test]
fn two_runs_at_once_are_one_too_many() {
    let host = Host::with_sample(20, 2);
    let _daemon = host.serve();
    let lock =
        unibus_keyfile::durable::LockFile::try_exclusive(&host.path("state/rotate-node.lock")).unwrap();
    let refused = rotate(&host, &["--yes"]).run().exits(5).json();
    assert_eq!(refused["error"]["code"], "UB-M042", "{refused}");
    drop(lock);
    let lock =
        unibus_keyfile::durable::LockFile::try_exclusive(&host.path("keys/operator.key.lock")).unwrap();
    rotate(&host, &["--yes"]).run().exits(5);
    drop(lock);
    rotate(&host, &["--yes"]).run().ok();
}

#[test]
fn three_nodes_change_their_keys_one_after_the_other_under_load_and_no_request_fails() {
    let world = World::start();
    world.spread_nodeset();
    let pids: Vec<_> = world.daemons.iter().map(Daemon::pid).collect();
    let nats: Vec<_> = pids.iter().map(|pid| kv::nats_of(*pid)).collect();
    let before: Vec<_> = (0..3).map(|index| fingerprints(&world.key_file(index))).collect();
    for index in 0..3 {
        keep(&world.key_file(index), &world.hosts.path(index, "old.key"));
    }
    let (run, load) = world.under_load(&[0, 1, 2], || world.rotate_nodes(0, &["--yes"]).run());
    let run = run.ok();
    let said = run.json();
    println!("{:?} for three nodes; {} added, slowest {:?}", run.took, load.added.len(), load.slowest);
    let nodes: Vec<_> = said["nodes"].as_array().unwrap().iter().map(|node| node["node"].clone()).collect();
    assert_eq!(nodes, ["host2", "host3", "host1"], "{said}");
    assert!(load.failed.is_empty(), "{:?}", load.failed);
    assert!(load.added.len() > 50, "{} requests are no load", load.added.len());
    world.wait_same_digest();
    for index in 0..3 {
        let now = fingerprints(&world.key_file(index));
        assert!(now.len() == 1 && now != before[index], "{now:?}");
        let detail = world.wait_proven(index);
        assert_eq!(detail["node_key"], now[0].as_str());
        assert_eq!(detail["exposed_epochs"], serde_json::json!([]), "they are the same nodes");
        assert_eq!(kv::nats_of(pids[index]), nats[index], "nats-server was started again");
        let users = world.users(index);
        assert!(load.added.iter().all(|key| users.contains(key)), "node {index} has lost users");
        let report: Value = world.get(index, "/keys").json();
        assert_eq!(
            (&report["nodeset_version"], &report["keyring_version"]),
            (&4.into(), &4.into()),
            "{report}"
        );
    }
    // With the old key file no node starts any more.
    let mut world = world;
    let old = world.hosts.path(2, "old.key");
    world.daemons.pop().map(Daemon::stop);
    let refused =
        world.hosts.refused(world.hosts.daemon_command(2).env("UNIBUS_AT_REST_KEY_FILE", &old)).exits(6);
    assert!(refused.stderr.contains(&before[2][0]), "{}", refused.stderr);
    let daemon = world.spawn(2);
    world.daemons.push(daemon);
    world.wait_proven(2);
}

#[test]
fn a_walk_that_is_stopped_goes_on_and_one_with_a_node_away_does_not_begin() {
    let mut world = World::start();
    world.spread_nodeset();
    let before: Vec<_> = (0..3).map(|index| fingerprints(&world.key_file(index))).collect();
    // Through the environment of the template only this host's tool is killed: at its own key, the last.
    let killed = world.rotate_nodes(0, &["--yes"]).env("FAILPOINTS", "node::loaded=return(kill)").run();
    assert_ne!(killed.code, 0, "{}", killed.said());
    let keys: Vec<_> = (0..3).map(|index| fingerprints(&world.key_file(index))).collect();
    assert!(keys.iter().any(|keys| keys.len() == 2), "{keys:?}");
    let said = world.rotate_nodes(0, &["--yes"]).run().ok().json();
    assert_eq!(said["nodes"].as_array().unwrap().len(), 3, "{said}");
    for (index, before) in before.iter().enumerate() {
        let now = fingerprints(&world.key_file(index));
        assert!(now.len() == 1 && now != *before, "{now:?}");
    }
    // Each changed once.
    assert_eq!(world.get(0, "/keys").json()["nodeset_version"], 4);

    // Node by node by hand, and killed at each step.
    rotate_node::killed::at_each_step(&world);

    world.spread_nodeset();
    let keys: Vec<_> = (0..3).map(|index| fingerprints(&world.key_file(index))).collect();
    world.daemons.pop().map(Daemon::stop);
    let refused = world.rotate_nodes(0, &["--yes"]).run();
    assert_eq!(refused.code, 3, "{}", refused.said());
    let after: Vec<_> = (0..3).map(|index| fingerprints(&world.key_file(index))).collect();
    assert_eq!(after, keys, "something was changed all the same");
}

#[test]
fn a_node_of_a_log_alone_changes_its_key() {
    let hosts = kv::KvHosts::new(1);
    let daemon = hosts.serve(0);
    let key = hosts.shared("keys/host1.key");
    let old = keep(&key, &hosts.shared("old.key"));
    let store = format!("kv:nats://127.0.0.1:{}", hosts.nats_port(0));
    let rotate = Program::ours("unibus-migrate").args(["rotate", "node", &store, "--yes", "--json"]);
    let rotate = rotate.option("--operator", hosts.shared("keys/operator.key"));
    let rotate = rotate.option("--at-rest-key-file", &key).option("--state-dir", hosts.path(0, "state"));
    let run = rotate.option("--nodeset", hosts.shared("keys/nodeset")).run().ok();
    assert_eq!(run.json()["nodes"][0]["state"], "done", "{}", run.said());
    assert_eq!(daemon.posture()["at_rest_detail"]["node_key"], fingerprints(&key)[0].as_str());
    assert_eq!(daemon.stop(), Some(0));
    let command = hosts.daemon_command(0).env("UNIBUS_AT_REST_KEY_FILE", &old);
    hosts.refused(command).exits(6);
    drop(hosts.serve(0));
}

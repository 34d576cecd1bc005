//! `membershipd --store kv` on three nodes: three real programs, each with its own nats-server.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use unibus_keyfile::secret::Seed;
use unibus_keyfile::suite::Signature25519;
use unibus_membership_api::signature::{Request, SignatureParameters, sign};
use unibus_tests::kv::{self, KvHosts};
use unibus_tests::{Contents, Daemon, Program, http, wait};

/// A user who can sign.
struct User(Signature25519);

impl User {
    fn new() -> Self {
        Self(Signature25519::derive(&Seed::generate(), b"test"))
    }

    fn hex(&self) -> String {
        data_encoding::HEXLOWER.encode(&self.0.public())
    }

    /// Gets a path, signed; the status of the answer.
    fn get(&self, daemon: &Daemon, path: &str) -> u16 {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        let nonce = data_encoding::BASE64URL_NOPAD.encode(&rand::random::<[u8; 16]>());
        let parameters = SignatureParameters {
            created: i64::try_from(now.as_secs()).unwrap(),
            nonce: &nonce,
            key_id: self.0.public(),
        };
        let host = format!("127.0.0.1:{}", daemon.port);
        let request = Request {
            method: "GET",
            path,
            query: None,
            authority: Some(&host),
            content_digest: None,
            content_type: None,
        };
        let signed =
            sign(&request, &parameters, |base| Ok::<_, std::convert::Infallible>(self.0.sign_bare(base)));
        let signed = signed.unwrap();
        let headers = vec![
            ("signature-input".to_owned(), signed.signature_input),
            ("signature".to_owned(), signed.signature),
        ];
        http::send(daemon.port, &http::Request { method: "GET", path, headers, body: b"" }).unwrap().status
    }
}

fn detail(daemon: &Daemon) -> Value {
    daemon.posture()["at_rest_detail"].clone()
}

fn wait_proven(daemon: &Daemon) -> Value {
    wait::until("the proof", || (daemon.get("/healthz").ok()?.status == 200).then(|| detail(daemon)))
}

fn wait_state(daemon: &Daemon, state: &str) -> Value {
    wait::until(state, || {
        let health = daemon.get("/healthz").ok()?.json();
        let detail = health["posture"]["at_rest_detail"].clone();
        (detail["state"] == state).then_some(detail)
    })
}

/// Starts all, and waits until each is proven.
fn serve_all(hosts: &KvHosts) -> Vec<Daemon> {
    let daemons: Vec<_> = (0..3).map(|index| hosts.spawn(index)).collect();
    daemons.iter().for_each(|daemon| drop(wait_proven(daemon)));
    daemons
}

fn add(hosts: &KvHosts, index: usize, handle: &str, key: &str) -> String {
    let words = ["user", "add", "--handle", handle, "--role", "admin", "--sign-pub", key];
    hosts.command(index, &words).run().ok().stdout
}

/// The digest that all nodes have come to.
fn wait_same_digest(daemons: &[Daemon]) -> Value {
    wait::until("the same digest on all nodes", || {
        let all: Vec<_> = daemons.iter().map(|daemon| detail(daemon)["state_digest"].clone()).collect();
        all.iter().all(|digest| *digest == all[0]).then(|| all[0].clone())
    })
}

#[test]
fn three_nodes_started_together_make_one_log_and_all_serve() {
    let hosts = KvHosts::new(3);
    let daemons = serve_all(&hosts);
    let details: Vec<_> = daemons.iter().map(detail).collect();
    for detail in &details {
        assert_eq!(detail["lineage"], details[0]["lineage"], "the keyring was minted twice");
        assert_eq!(detail["cluster"], details[0]["cluster"]);
        assert_eq!((&detail["epoch"], &detail["keyring_version"]), (&json!(1), &json!(1)));
        assert_eq!(detail["replicas"]["wanted"], 3, "{detail}");
    }
    // A user added on one node is seen, and let in, on all.
    let users: Vec<_> = (0..3).map(|_| User::new()).collect();
    for (index, user) in users.iter().enumerate() {
        let said = add(&hosts, index, &format!("user{index}"), &user.hex());
        let last = said.lines().last().unwrap().to_owned();
        let leader =
            last.strip_prefix("leader=host").and_then(|rest| rest.strip_suffix(" followers_current=2/2"));
        assert!(["1", "2", "3"].map(Some).contains(&leader), "{said}");
    }
    wait_same_digest(&daemons);
    for (index, daemon) in daemons.iter().enumerate() {
        let listed = hosts.command(index, &["user", "list", "--json"]).run().ok().json();
        assert_eq!(listed.as_array().unwrap().len(), 3, "{listed}");
        for user in &users {
            assert_eq!(user.get(daemon, "/users"), 200);
        }
        daemon.get("/users").unwrap().has(401);
        assert_eq!(User::new().get(daemon, "/users"), 401);
    }
    // Revoked on one, out on all.
    hosts.command(2, &["user", "revoke", &users[0].hex()]).run().ok();
    wait_same_digest(&daemons);
    for daemon in &daemons {
        assert_eq!(users[0].get(daemon, "/users"), 401);
        assert_eq!(users[1].get(daemon, "/users"), 200);
    }
    let digest = wait_same_digest(&daemons);

    // All stopped and started again: the same log.
    let nats: Vec<_> = daemons.iter().map(|daemon| kv::wait_for_nats(daemon, None)).collect();
    for daemon in daemons {
        assert_eq!(daemon.stop(), Some(0));
    }
    nats.into_iter().for_each(kv::wait_until_gone);
    let daemons = serve_all(&hosts);
    for daemon in &daemons {
        let again = detail(daemon);
        assert_eq!((&again["state_digest"], &again["lineage"]), (&digest, &details[0]["lineage"]));
        assert_eq!(users[0].get(daemon, "/users"), 401);
        assert_eq!(users[1].get(daemon, "/users"), 200);
    }
}

#[test]
fn a_lone_node_of_three_waits_says_so_and_serves_when_the_others_come() {
    let hosts = KvHosts::new(3);
    let first = hosts.spawn(0);
    let said = wait_state(&first, "no_quorum");
    assert!(!said["reason"].as_str().unwrap().is_empty(), "{said}");
    assert_eq!(said["replicas"], json!({ "wanted": 3, "current": 0 }));
    first.get("/healthz").unwrap().has(503);
    first.get("/users").unwrap().has(503);
    // Said again and again.
    wait::until("words in the log", || (first.said().matches("waiting: ").count() >= 2).then_some(()));
    let refused = hosts.command(0, &["user", "list"]).run();
    assert_ne!(refused.code, 0, "{}", refused.said());
    assert!(!hosts.path(0, "state/witness").exists());
    let others = [hosts.spawn(1), hosts.spawn(2)];
    wait_proven(&first);
    for other in &others {
        assert_eq!(wait_proven(other)["lineage"], detail(&first)["lineage"]);
    }
    // Stopped while it waits, it ends in order.
    for daemon in others.into_iter().chain([first]) {
        assert_eq!(daemon.stop(), Some(0));
    }
    let lone = hosts.spawn(1);
    wait_state(&lone, "no_quorum");
    let (nats, asked) = (kv::wait_for_nats(&lone, None), Instant::now());
    assert_eq!(lone.stop(), Some(0));
    assert!(asked.elapsed() < Duration::from_secs(20), "{:?}", asked.elapsed());
    assert!(!kv::is_nats(nats), "nats-server runs on");
    // And it gives up after its time, with what to do.
    let run = hosts.refused(hosts.daemon_command(1).args(["--boot-budget", "3s"])).exits(3);
    assert!(
        run.stderr.contains("UB-L003") && run.stderr.contains("hint: start the other nodes"),
        "{}",
        run.said()
    );
}

#[test]
fn two_of_three_down_is_denied_within_the_bound_and_serves_again_without_a_restart() {
    let hosts = KvHosts::new(3);
    let mut daemons = serve_all(&hosts);
    let user = User::new();
    add(&hosts, 0, "alice", &user.hex());
    wait_same_digest(&daemons);
    assert_eq!(user.get(&daemons[0], "/users"), 200);
    let left = daemons.remove(0);
    daemons.drain(..).for_each(Daemon::kill);
    let gone = Instant::now();
    // Whatever is answered 200 was asked within the bound.
    let denied = wait::until("a denial", || {
        let asked = gone.elapsed();
        match user.get(&left, "/users") {
            200 => {
                assert!(asked < Duration::from_secs(6), "let in {asked:?} after the majority was gone");
                None
            }
            status => Some(status),
        }
    });
    assert_eq!(denied, 503);
    let said = wait_state(&left, "no_quorum");
    assert!(gone.elapsed() < Duration::from_secs(30), "{:?}", gone.elapsed());
    assert!(!said["reason"].as_str().unwrap().is_empty(), "{said}");
    left.get("/healthz").unwrap().has(503);
    let refused = hosts.command(0, &["user", "list"]).run();
    assert_ne!(refused.code, 0, "{}", refused.said());
    for _ in 0..3 {
        assert_eq!(user.get(&left, "/users"), 503);
    }
    let back = [hosts.spawn(1), hosts.spawn(2)];
    wait_proven(&left);
    assert_eq!(user.get(&left, "/users"), 200);
    for daemon in &back {
        wait_proven(daemon);
        assert_eq!(user.get(daemon, "/users"), 200);
    }
}

#[test]
fn one_of_three_down_goes_on_and_the_missing_one_catches_up() {
    let hosts = KvHosts::new(3);
    let mut daemons = serve_all(&hosts);
    let user = User::new();
    add(&hosts, 0, "alice", &user.hex());
    wait_same_digest(&daemons);
    daemons.remove(2).kill();
    wait::until("writes without the third", || {
        let run =
            hosts.command(0, &["user", "add", "--handle", "bob", "--sign-pub", &User::new().hex()]).run();
        (run.code == 0).then_some(())
    });
    wait::until("two of three in the posture", || {
        (detail(&daemons[0])["replicas"] == json!({ "wanted": 3, "current": 2 })).then_some(())
    });
    // The one that went may have led: then it takes the others some seconds to agree on another.
    for daemon in &daemons {
        wait::until("service by two", || (user.get(daemon, "/users") == 200).then_some(()));
    }
    // Wiped, without its witness: the others vouch for the log.
    kv::remove(&hosts.path(2, "nats"));
    kv::remove(&hosts.path(2, "state"));
    daemons.push(hosts.spawn(2));
    daemons.iter().for_each(|daemon| drop(wait_proven(daemon)));
    wait_same_digest(&daemons);
    assert_eq!(user.get(&daemons[2], "/users"), 200);
    let listed = hosts.command(2, &["user", "list", "--json"]).run().ok().json();
    assert_eq!(listed.as_array().unwrap().len(), 2);
}

#[test]
fn a_node_of_yesterday_heals_and_a_cluster_of_yesterday_is_refused() {
    let hosts = KvHosts::new(3);
    let user = User::new();
    let daemons = serve_all(&hosts);
    add(&hosts, 0, "alice", &user.hex());
    wait_same_digest(&daemons);
    for daemon in daemons {
        assert_eq!(daemon.stop(), Some(0));
    }
    let yesterday: Vec<_> = (0..3).map(|index| Contents::of(&hosts.path(index, "nats"))).collect();
    let daemons = serve_all(&hosts);
    hosts.command(0, &["user", "revoke", &user.hex()]).run().ok();
    let digest = wait_same_digest(&daemons);
    for daemon in daemons {
        assert_eq!(daemon.stop(), Some(0));
    }
    yesterday[1].put_back(&hosts.path(1, "nats"));
    let daemons = serve_all(&hosts);
    assert_eq!(wait_same_digest(&daemons), digest);
    // All of them before the first is stopped: the last one alone answers nothing.
    for daemon in &daemons {
        assert_eq!(user.get(daemon, "/users"), 401);
    }
    for daemon in daemons {
        assert_eq!(daemon.stop(), Some(0));
    }
    for (index, contents) in yesterday.iter().enumerate() {
        contents.put_back(&hosts.path(index, "nats"));
    }
    let mut daemons: Vec<_> = (0..3).map(|index| hosts.spawn(index)).collect();
    // Whoever refuses it takes its server along: the last one may have nobody left to ask, and waits.
    let refused = |daemon: &Daemon| daemon.said().contains("UB-L014");
    wait::until("two to refuse it", || {
        (daemons.iter().filter(|daemon| refused(daemon)).count() >= 2).then_some(())
    });
    for mut daemon in daemons.drain(..) {
        match daemon.get("/healthz") {
            Ok(answer) if !refused(&daemon) => {
                assert_eq!(answer.status, 503, "{}", daemon.said());
                daemon.kill();
            }
            _ => {
                assert_eq!(daemon.wait(), Some(7), "{}", daemon.said());
                assert!(refused(&daemon), "{}", daemon.said());
            }
        }
    }
}

#[test]
fn a_node_that_nobody_enrolled_is_refused_with_the_next_step_and_one_that_is_serves() {
    let hosts = KvHosts::new(3);
    let mut daemons = serve_all(&hosts);
    daemons.remove(2).kill();
    let keys = |name: &str| hosts.shared("keys").join(name);
    let nodeset = keys("nodeset");
    let inspected =
        Program::ours("unibus-key").args(["inspect", "--json"]).args([&nodeset]).run().ok().json();
    let pin = inspected["cluster"].as_str().unwrap_or_else(|| panic!("{inspected}")).to_owned();
    let generate = Program::ours("unibus-key").args(["generate", "--name", "host4", "--cluster", &pin]);
    generate.option("--out", keys("host4.key")).run().ok();

    // On a new machine in the place of the third.
    kv::remove(&hosts.path(2, "nats"));
    kv::remove(&hosts.path(2, "state"));
    let as_fourth = || {
        let program = hosts.as_daemon(2, hosts.program_as(2, "host4"));
        program.env("UNIBUS_SERVER_NAME", "host3")
    };
    let refused = hosts.refused(as_fourth()).exits(6);
    assert!(refused.stderr.contains("UB-L001"), "{}", refused.said());
    assert!(refused.stderr.contains("unibus-key approve"), "{}", refused.said());
    assert!(!hosts.path(2, "state/witness").exists());

    // Enrolled: one node that serves is started with the new nodeset, then the new node with it.
    Program::ours("unibus-key")
        .args(["request"])
        .args([keys("host4.key")])
        .option("--out", keys("host4.request"))
        .run()
        .ok();
    let before = fs::read(&nodeset).unwrap();
    let approve = Program::ours("unibus-key").args(["approve", "--yes"]).option("--nodeset", &nodeset);
    approve.option("--operator", keys("operator.key")).args([keys("host4.request")]).run().ok();
    assert_ne!(fs::read(&nodeset).unwrap(), before);
    assert_eq!(daemons.remove(0).stop(), Some(0));
    let first = hosts.spawn(0);
    wait::until("the keyring for the new node", || {
        let health = first.get("/healthz").ok()?.json();
        (health["posture"]["at_rest_detail"]["keyring_version"] == 2).then_some(())
    });
    let fourth = Daemon::spawn(as_fourth(), &hosts.path(2, "logs4"));
    wait_proven(&fourth);
    wait_proven(&first);
    let user = User::new();
    add(&hosts, 0, "alice", &user.hex());
    wait::until("the user on the new node", || (user.get(&fourth, "/users") == 200).then_some(()));
}

#[test]
fn a_node_that_starts_before_the_others_know_of_it_waits_and_serves_without_a_restart_of_anybody() {
    let hosts = KvHosts::new(3);
    let mut daemons = serve_all(&hosts);
    let (user, later) = (User::new(), User::new());
    add(&hosts, 0, "alice", &user.hex());
    daemons.remove(2).kill();
    kv::remove(&hosts.path(2, "nats"));
    kv::remove(&hosts.path(2, "state"));
    let keys = |name: &str| hosts.shared("keys").join(name);
    let (nodeset, newer) = (keys("nodeset"), keys("nodeset.new"));
    let inspected =
        Program::ours("unibus-key").args(["inspect", "--json"]).args([&nodeset]).run().ok().json();
    let pin = inspected["cluster"].as_str().unwrap_or_else(|| panic!("{inspected}")).to_owned();
    let generate = Program::ours("unibus-key").args(["generate", "--name", "host4", "--cluster", &pin]);
    generate.option("--out", keys("host4.key")).run().ok();
    let request = Program::ours("unibus-key").args(["request"]).args([keys("host4.key")]);
    request.option("--out", keys("host4.request")).run().ok();
    // Approved into a copy, which only the new node has.
    fs::copy(&nodeset, &newer).unwrap();
    let approve = Program::ours("unibus-key").args(["approve", "--yes"]).option("--nodeset", &newer);
    approve.option("--operator", keys("operator.key")).args([keys("host4.request")]).run().ok();
    let as_fourth = hosts.as_daemon(2, hosts.program_as(2, "host4")).env("UNIBUS_SERVER_NAME", "host3");
    let fourth = Daemon::spawn(as_fourth.env("UNIBUS_NODESET", &newer), &hosts.path(2, "logs4"));
    let reason = wait::until("the reason of the new node", || {
        let health = fourth.get("/healthz").ok()?;
        assert_eq!(health.status, 503);
        let reason = health.json()["posture"]["at_rest_detail"]["reason"].as_str()?.to_owned();
        reason.contains("not wrapped for node `host4`").then_some(reason)
    });
    assert!(reason.contains("bring the new nodeset to a node that serves"), "{reason}");
    assert!(fourth.said().contains(&reason), "{}", fourth.said());
    fourth.get("/users").unwrap().has(503);
    let pids: Vec<_> = daemons.iter().map(Daemon::pid).collect();

    // The operator brings it to the others, which run on.
    fs::copy(&newer, &nodeset).unwrap();
    wait_proven(&fourth);
    add(&hosts, 1, "bob", &later.hex());
    daemons.push(fourth);
    for daemon in &daemons {
        wait::until("the keyring of the new nodeset", || {
            (detail(daemon)["keyring_version"] == 2).then_some(())
        });
        wait::until("the user on all", || (later.get(daemon, "/users") == 200).then_some(()));
        assert_eq!(user.get(daemon, "/users"), 200);
        wait_proven(daemon);
    }
    assert_eq!(daemons.iter().take(2).map(Daemon::pid).collect::<Vec<_>>(), pids);
    let said: Vec<_> = daemons.iter().map(Daemon::said).collect();
    let wrapped =
        said.iter().filter(|said| said.contains("published in the log document=\"keyring\" version=2"));
    assert_eq!(wrapped.count(), 1, "{said:?}");
}

#[test]
fn a_server_without_the_route_secret_does_not_get_in() {
    let hosts = KvHosts::new(3);
    let two = [hosts.spawn(0), hosts.spawn(1)];
    let other = hosts.shared("other.secret");
    fs::copy(hosts.shared("route.secret"), &other).unwrap();
    fs::write(&other, "another\n").unwrap();
    let stranger = hosts.daemon_command(2).env("UNIBUS_CLUSTER_PASS_FILE", &other);
    let stranger = Daemon::spawn(stranger, &hosts.path(2, "logs"));
    wait_state(&stranger, "no_quorum");
    // By variable, and only if there is no file.
    let by_variable = hosts
        .daemon_command(2)
        .without("UNIBUS_CLUSTER_PASS_FILE")
        .env("UNIBUS_CLUSTER_PASS", "rrrrrrrrrrrrrrrr");
    assert_eq!(stranger.stop(), Some(0));
    let third = Daemon::spawn(by_variable, &hosts.path(2, "logs"));
    for daemon in two.iter().chain([&third]) {
        wait_proven(daemon);
        // Neither in the environment nor on the command line of what runs.
        for pid in [daemon.pid(), kv::wait_for_nats(daemon, None)] {
            for file in ["environ", "cmdline"] {
                let bytes = fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
                let text = String::from_utf8_lossy(&bytes).into_owned();
                assert!(!text.contains("rrrrrrrrrrrrrrrr"), "{file} of {pid}");
            }
        }
        assert!(!daemon.said().contains("rrrrrrrrrrrrrrrr"));
    }
}

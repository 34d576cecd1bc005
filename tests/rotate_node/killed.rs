//! The tool is killed at each of its steps while three nodes serve: the same command ends what it has begun.

use std::fs;
use std::path::Path;

use unibus_tests::http::{self, Request};
use unibus_tests::{Daemon, Program, World};

use crate::{TOOL_STOPS, fingerprints, keep};

/// Steps of every run; all with `UNIBUS_TEST_ALL=1`.
const PICKED: [&str; 1] = ["node::retire"];

/// `rotate node` of the node of a host.
fn rotate(world: &World, index: usize) -> Program {
    let store = format!("kv:{}", world.servers(index));
    let rotate = world.migrate(index, ["rotate", "node", &store, "--json", "--yes"]);
    rotate.option("--operator", world.hosts.shared("keys/operator.key"))
}

/// The daemon does not take that file in place of the one that it has, and no tool takes it.
fn opens_nothing(world: &World, index: usize, old: &Path, new: &str) {
    let (key, good) = (world.key_file(index), world.hosts.path(index, "good.key"));
    keep(&key, &good);
    keep(old, &key);
    let headers = vec![("content-type".to_owned(), "application/json".to_owned())];
    let request = Request { method: "POST", path: "/keys/reload", headers, body: b"" };
    let answer = http::send_to_socket(&world.hosts.path(index, "state/admin.sock"), &request).unwrap();
    assert_eq!(answer.status, 409, "{}", String::from_utf8_lossy(&answer.body));
    let refused = rotate(world, index).run().exits(6);
    assert!(refused.said().contains(new), "{}", refused.said());
    assert_eq!(fs::read(&key).unwrap(), fs::read(old).unwrap(), "the old file was changed");
    keep(&good, &key);
}

/// Kills the tool at each step, on one host after the other. Nobody is started anew, and no request fails.
pub(crate) fn at_each_step(world: &World) {
    let all = std::env::var_os("UNIBUS_TEST_ALL").is_some();
    let pids: Vec<_> = world.daemons.iter().map(Daemon::pid).collect();
    let (rows, load) = world.under_load(&[0, 1, 2], || {
        let stops = TOOL_STOPS.into_iter().filter(|stop| all || PICKED.contains(stop));
        let cell = |(number, stop): (usize, &str)| {
            let index = number % 3;
            let (key, old) = (world.key_file(index), world.hosts.path(index, "before.key"));
            let before = fingerprints(&keep(&key, &old));
            assert_eq!(before.len(), 1, "{before:?}");
            let killed = rotate(world, index).env("FAILPOINTS", format!("{stop}=return(kill)")).run();
            assert_eq!(killed.code, -1, "{stop}: {}", killed.said());
            let between = fingerprints(&key);
            let run = rotate(world, index).run().ok();
            let said = run.json();
            assert_eq!(said["nodes"][0]["state"], "done", "{stop}: {said}");
            let now = fingerprints(&key);
            // The key that was begun with is gone on with; before that it is another, and afterwards none is made
            // that nobody has asked for.
            assert!(now.len() == 1 && now != before, "{stop}: {now:?}");
            if between.len() == 2 {
                assert_eq!(now[0], between[0], "{stop}: {said}");
            }
            let report = world.get(index, "/keys").json();
            assert_eq!(report["keys"], serde_json::json!(now), "{stop}: {report}");
            assert_eq!(report["keyring_nodeset_version"], report["nodeset_version"], "{stop}: {report}");
            opens_nothing(world, index, &old, &now[0]);
            format!("{stop:<16} {} keys left, {:?}", between.len(), run.took)
        };
        stops.enumerate().map(cell).collect::<Vec<_>>()
    });
    eprintln!("kill -9 of `rotate node` at\n{}", rows.join("\n"));
    assert!(load.failed.is_empty(), "{:?}", load.failed);
    assert!(load.added.len() > 20, "{} requests are no load", load.added.len());
    world.wait_same_digest();
    for index in 0..3 {
        let users = world.users(index);
        assert!(load.added.iter().all(|key| users.contains(key)), "node {index} has lost users");
        let detail = world.wait_proven(index);
        assert_eq!(detail["exposed_epochs"], serde_json::json!([]), "they are the same nodes");
    }
    assert_eq!(pids, world.daemons.iter().map(Daemon::pid).collect::<Vec<_>>());
}

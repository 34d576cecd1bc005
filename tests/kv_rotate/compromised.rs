//! A key that may be in other hands: another one, every epoch that it could open marked, another data key, another
//! server-side key, and what was readable; cut short between its parts.

use std::collections::BTreeSet;

use serde_json::Value;
use unibus_keyfile::node_key::NodeKeyFile;
use unibus_tests::{Daemon, Program, wait};

use super::options::status;
use super::whole::{nothing_is_lost, rotate};
use unibus_tests::World;

/// Between its parts.
const STOPS: [&str; 4] =
    ["compromise::changed", "compromise::marked", "compromise::rotated", "compromise::evicted"];

/// Those of every run; all with `UNIBUS_TEST_ALL=1`.
const PICKED: [&str; 2] = ["compromise::changed", "compromise::rotated"];

fn compromised(world: &World, index: usize) -> Program {
    let store = format!("kv:{}", world.servers(index));
    let program = world.migrate(index, ["rotate", "node", &store, "--json", "--yes", "--compromised"]);
    program.option("--operator", world.hosts.shared("keys/operator.key"))
}

fn slots(world: &World, index: usize) -> Vec<String> {
    let own = NodeKeyFile::load(&world.hosts.shared(&format!("keys/host{}.key", index + 1))).unwrap();
    own.fingerprints().iter().map(ToString::to_string).collect()
}

#[test]
fn a_stolen_key_is_given_up_with_all_that_it_could_open_whatever_cuts_it_short() {
    let mut world = World::with(&[("UNIBUS_JETSTREAM_CIPHER", "aes")]);
    // An epoch that is gone, and was in use while the key was listed: whoever has an old disk could open it.
    let before: BTreeSet<String> = (0..20).map(|_| world.add(0, "before").unwrap()).collect();
    rotate(&world, 0, &[]).run().ok();
    let (old, pids) = (slots(&world, 1), world.daemons.iter().map(Daemon::pid).collect::<Vec<_>>());
    // Refused, and nothing is noted: the next one begins.
    compromised(&world, 1).option("--plan", "00").run().exits(2);
    assert!(!world.hosts.path(1, "state/rotate-node-compromised.json").exists());
    let (run, load) = world.under_load(&[0, 1, 2], || {
        let all = std::env::var_os("UNIBUS_TEST_ALL").is_some();
        for stop in STOPS.into_iter().filter(|stop| all || PICKED.contains(stop)) {
            let killed = compromised(&world, 1).env("FAILPOINTS", format!("{stop}=return(kill)")).run();
            assert_eq!(killed.code, -1, "{stop}: {}", killed.said());
        }
        compromised(&world, 1).run()
    });
    let said = run.ok().json();
    println!("slowest write and read: {:?}; {}", load.slowest, said["exposure"]);
    nothing_is_lost(&world, &load, &before);
    assert_eq!(pids, world.daemons.iter().map(Daemon::pid).collect::<Vec<_>>());

    // Once each: one new key, one new epoch.
    let new = slots(&world, 1);
    assert!(new.len() == 1 && new != old, "{new:?}");
    let found = status(&world);
    let epochs: Vec<_> = found["epochs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|epoch| (epoch["state"].as_str().unwrap(), epoch["exposed"].as_bool().unwrap()))
        .collect();
    assert_eq!(epochs, [("destroyed", true), ("destroyed", true), ("primary", false)], "{found}");
    assert_eq!(world.detail(2)["exposed_epochs"], serde_json::json!([1, 2]), "the posture does not say it");
    let exposure = &said["exposure"];
    assert_eq!(exposure["keys"][0]["key"], old[0].as_str(), "{exposure}");
    let numbers: Vec<_> =
        exposure["epochs"].as_array().unwrap().iter().map(|epoch| epoch["number"].clone()).collect();
    assert_eq!(numbers, [1, 2].map(Value::from));
    assert!(exposure["since"].is_string() && exposure["until"].is_string(), "{exposure}");
    let users = u64::try_from(before.len() + load.added.len()).unwrap();
    // Some were added after it was counted.
    let readable = exposure["readable"]["handles_roles_and_signing_keys_of_users"].as_u64().unwrap();
    assert!((u64::try_from(before.len()).unwrap()..=users).contains(&readable), "{exposure}");
    assert!(exposure["eviction"].as_str().unwrap().starts_with("done"), "{exposure}");
    world.wait_proven(0);

    // The server-side key hangs on the new key, without a restart of the daemon in between; and after one.
    assert_eq!(world.get(1, "/keys").json()["server_key_of"], new[0].as_str());
    world.kill_and_restart(1);
    world.wait_proven(1);
    wait::until("all users", || (u64::try_from(world.users(1).len()).unwrap() == users).then_some(()));
    assert!(!world.hosts.path(1, "state/rotate-node-compromised.json").exists());
}

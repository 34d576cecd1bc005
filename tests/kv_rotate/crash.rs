//! Whatever is killed at whatever step, the rotation is gone on with, and nothing is lost.

use std::collections::BTreeSet;
use std::fs::File;
use std::time::{Duration, Instant};

use unibus_tests::{kv, wait};

use super::whole::{is_rotated, nothing_is_lost, rotate};
use unibus_tests::World;

/// The steps of which the tool tells before it takes them.
const STEPS: [&str; 11] = [
    "stage",
    "await acknowledgements",
    "activate",
    "reseal",
    "await arrival",
    "remove old stream",
    "barrier",
    "await censuses",
    "destroy",
    "await forgetting",
    "receipt",
];

/// Who is killed.
#[derive(Clone, Copy, Debug)]
enum Victim {
    Daemon,
    Server,
}

/// Runs the tool until it comes to a step. False if it came to its end first.
pub(super) fn run_until(world: &World, index: usize, step: &str, words: &[&str]) -> bool {
    let said = world.hosts.shared(&format!("said-{}", step.replace(' ', "-")));
    let out = File::create(&said).unwrap();
    let mut tool = rotate(world, index, words).spawn(out.try_clone().unwrap(), out);
    let begun = Instant::now();
    let sign = format!("{{\"step\":\"{step}\"}}");
    loop {
        let text = std::fs::read_to_string(&said).unwrap();
        if text.contains(&sign) {
            kv::kill(tool.id());
            drop(tool.wait());
            return true;
        }
        if let Some(status) = tool.try_wait().unwrap() {
            assert!(status.success(), "{text}");
            return false;
        }
        assert!(begun.elapsed() < Duration::from_secs(90), "{step}: {text}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn the_tool_is_killed_at_each_step_and_run_again_from_any_node_and_no_write_fails() {
    let world = World::start();
    let before: BTreeSet<String> = (0..50).map(|_| world.add(0, "before").unwrap()).collect();
    // What was owed at a step may be there before the tool is back: then it ends without it, and the next one is begun.
    let receipt = |number: usize| world.hosts.shared(&format!("receipt-{number}.json"));
    let (mut rotations, mut rows) = (1, Vec::new());
    let ((), load) = world.under_load(&[0, 1, 2], || {
        for (number, step) in STEPS.into_iter().enumerate() {
            let begun = Instant::now();
            while !run_until(&world, number % 3, step, &["--receipt", receipt(rotations).to_str().unwrap()]) {
                rotations += 1;
                assert!(rotations < 5, "{step} is never seen: {rows:?}");
            }
            rows.push(format!("{step:<24} killed, rotation {rotations}, {:?}", begun.elapsed()));
        }
        let (store, receipt) = (format!("kv:{}", world.servers(0)), receipt(rotations));
        let status = world.migrate(0, ["status", "--json", &store]).run().ok().json();
        // Killed behind the last step it is done, and only the file is missing.
        let end = match status["rotation"].is_null() {
            true => world.migrate(0, ["resume", &store, "--json", "--yes"]),
            false => rotate(&world, 0, &[]),
        };
        end.option("--receipt", receipt).run().ok();
    });
    eprintln!("kill -9 of the tool at\n{}", rows.join("\n"));
    nothing_is_lost(&world, &load, &before);
    let mut epochs: Vec<_> = (1..=rotations).map(|epoch| ("destroyed", epoch as u64)).collect();
    epochs.push(("primary", rotations as u64 + 1));
    is_rotated(&world, &receipt(rotations), &epochs);
}

/// Kills a daemon or its nats-server when the tool comes to a step, and starts it again.
fn kill_at(world: &mut World, step: &str, index: usize, victim: Victim) -> bool {
    let said = world.hosts.shared(&format!("said-{}-{victim:?}", step.replace(' ', "-")));
    let out = File::create(&said).unwrap();
    let mut tool = rotate(world, (index + 1) % 3, &[]).spawn(out.try_clone().unwrap(), out);
    let begun = Instant::now();
    let sign = format!("{{\"step\":\"{step}\"}}");
    let mut has_killed = false;
    loop {
        let text = std::fs::read_to_string(&said).unwrap();
        if !has_killed && text.contains(&sign) {
            has_killed = true;
            let daemon = world.daemons[index].pid();
            match victim {
                Victim::Daemon => world.kill_and_restart(index),
                Victim::Server => kv::kill(kv::nats_of(daemon).unwrap()),
            }
        }
        if let Some(status) = tool.try_wait().unwrap() {
            // It may have given up: then it is run again.
            assert!(status.success() || status.code() == Some(3), "{status} {text}");
            if !status.success() {
                let again = || rotate(world, (index + 1) % 3, &[]).run();
                wait::until("the end of the rotation", || {
                    let run = again();
                    assert!([0, 3].contains(&run.code), "{}", run.said());
                    (run.code == 0).then_some(())
                });
            }
            return has_killed;
        }
        assert!(begun.elapsed() < Duration::from_secs(120), "{step}: {text}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_daemon_or_its_server_is_killed_at_each_step_and_the_rotation_comes_to_its_end() {
    let mut world = World::start();
    let keys: BTreeSet<String> = (0..50).map(|_| world.add(0, "before").unwrap()).collect();
    let mut rows = Vec::new();
    let all = std::env::var_os("UNIBUS_TEST_ALL").is_some();
    let picked = ["activate", "reseal", "await arrival", "await censuses", "destroy"];
    for (number, step) in STEPS.into_iter().filter(|step| all || picked.contains(step)).enumerate() {
        for victim in [Victim::Daemon, Victim::Server] {
            if !all && (number % 2 == 0) == matches!(victim, Victim::Server) {
                continue;
            }
            let begun = Instant::now();
            let killed = kill_at(&mut world, step, number % 3, victim);
            (0..3).for_each(|index| drop(world.wait_proven(index)));
            rows.push(format!("{step:<24} {victim:?} killed: {killed} {:?}", begun.elapsed()));
        }
    }
    eprintln!("kill -9 at\n{}", rows.join("\n"));
    // A step that nobody has to wait at is passed over.
    let killed = rows.iter().filter(|row| row.contains("killed: true")).count();
    assert!(killed + 1 >= rows.len(), "{rows:?}");
    world.wait_same_digest();
    for index in 0..3 {
        assert_eq!(world.users(index).into_iter().collect::<BTreeSet<_>>(), keys);
    }
    let receipt = world.hosts.shared("last.json");
    rotate(&world, 0, &["--receipt", receipt.to_str().unwrap()]).run().ok();
    let last = rows.len() as u64 + 2;
    let epochs: Vec<_> = (1..last).map(|number| ("destroyed", number)).chain([("primary", last)]).collect();
    is_rotated(&world, &receipt, &epochs);
}

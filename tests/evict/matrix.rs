//! Where an eviction can be cut short in the daemon that does it, and how it is gone on with.

use std::time::Instant;

use unibus_tests::{Program, wait};

use unibus_tests::World;

/// Where, and what happens there.
const CELLS: [(&str, &str); 6] = [
    ("evict::wipe", "kill"),
    ("evict::wipe", "full"),
    ("evict::wiped", "kill"),
    ("evict::wiped", "full"),
    ("evict::prove", "kill"),
    ("evict::prove", "full"),
];

fn evict(world: &World) -> Program {
    let store = format!("kv:{}", world.servers(0));
    world.migrate(0, ["rotate", "jetstream", &store, "--evict", "--json", "--yes"])
}

/// With `UNIBUS_TEST_ALL`: some three minutes.
#[test]
fn an_eviction_that_is_cut_short_anywhere_is_gone_on_with_and_nothing_is_lost() {
    if std::env::var_os("UNIBUS_TEST_ALL").is_none() {
        return;
    }
    let mut world = World::start();
    let added: Vec<_> = (0..50).map(|_| world.add(0, "somebody").unwrap()).collect();
    let mut rows = Vec::new();
    for (place, what) in CELLS {
        let begun = Instant::now();
        world.kill_and_restart_with(0, "FAILPOINTS", &format!("{place}=1*return({what})->off"));
        world.wait_same_digest();
        let tool = evict(&world);
        let tool = std::thread::spawn(move || tool.run());
        if what == "kill" {
            wait::until("the daemon to die", || world.daemons[0].get("/healthz").is_err().then_some(()));
            world.kill_and_restart(0);
        }
        let first = tool.join().unwrap();
        let reached = format!("{{\"reached\":\"{place}\"}}");
        assert!(world.daemons[0].said().contains(&reached), "{place} was not reached");
        let said = if first.code == 0 { "went on by itself" } else { "run again" };
        if first.code != 0 {
            assert!(first.code == 3 && first.said().contains("hint"), "{}", first.said());
            assert!(what == "kill" || first.said().contains(place), "{}", first.said());
            wait::until("the gates", || {
                let again = evict(&world).run();
                assert!([0, 2, 3].contains(&again.code), "{}", again.said());
                (again.code == 0).then_some(())
            });
        }
        world.wait_same_digest();
        for index in 0..3 {
            let users = world.users(index);
            assert!(added.iter().all(|key| users.contains(key)), "{place} {what}: users are lost");
        }
        rows.push(format!("{place:<14} {what:<6} exit {:>3}, {said:<18} {:?}", first.code, begun.elapsed()));
    }
    eprintln!("an eviction that is cut short\n{}", rows.join("\n"));
}

//! Every publication of a rotation, and what can become of it: the tool dies before or after it, the servers refuse it,
//! its acknowledgement is lost. Meanwhile users write on all nodes, whose daemons lose some acknowledgements, too.

use std::collections::BTreeSet;
use std::time::Instant;

use serde_json::{Value, json};
use unibus_tests::SmallDisk;

use super::whole::{is_rotated, nothing_is_lost, rotate};
use unibus_tests::World;

/// What happens: its name, the place, what is done there.
const FAULTS: [(&str, &str, &str); 4] = [
    ("killed before it is sent", "log::send", "kill"),
    ("killed when it is stored", "log::sent", "kill"),
    ("refused as by a full disk", "log::send", "full"),
    ("acknowledgement lost", "log::sent", "lost"),
];
/// Publications that are tried where not all are asked for.
const SOME: [u32; 1] = [5];
/// More than a rotation of so few users has.
const MOST: u32 = 60;

#[test]
fn whatever_becomes_of_a_publication_the_rotation_comes_to_its_end() {
    // Of a hundred acknowledgements of a daemon three do not arrive.
    let world = World::with(&[("FAILPOINTS", "log::sent=3%return(lost)")]);
    let all = std::env::var_os("UNIBUS_TEST_ALL").is_some();
    let before: BTreeSet<String> = (0..50).map(|_| world.add(0, "before").unwrap()).collect();
    let mut epoch = 0;
    let (rows, load) = world.under_load(&[0, 1, 2], || {
        let mut rows = Vec::new();
        for (name, place, what) in FAULTS {
            for number in 1..=MOST {
                if !all && !SOME.contains(&number) {
                    continue;
                }
                let begun = Instant::now();
                let fault = format!("{place}={}*off->1*return({what})->off", number - 1);
                let index = number as usize % 3;
                let run = rotate(&world, index, &[]).env("FAILPOINTS", &fault).run();
                epoch += 1;
                if !run.said().contains(&format!("{{\"reached\":\"{place}\"}}")) {
                    // The tool has not as many.
                    run.ok();
                    break;
                }
                let code = run.code;
                match (what, code) {
                    ("kill", -1) | ("full" | "lost", 0) => {}
                    ("full" | "lost", 3) => assert!(run.said().contains("\"hint\""), "{}", run.said()),
                    _ => panic!("{name}: {}", run.said()),
                }
                if code != 0 {
                    // Somebody else takes over.
                    rotate(&world, (index + 1) % 3, &[]).run().ok();
                }
                let store = format!("kv:{}", world.servers(index));
                let status = world.migrate(index, ["status", "--json", &store]).run().ok().json();
                assert_eq!(
                    (&status["primary_epoch"], &status["rotation"]),
                    (&json!(epoch + 1), &Value::Null)
                );
                let outcome = if code == 0 { "went on by itself" } else { "run again" };
                rows.push(format!(
                    "{number:>3} {name:<26} exit {code:>2}, {outcome:<17} {:?}",
                    begun.elapsed()
                ));
            }
        }
        rows
    });
    eprintln!("publication, what became of it\n{}", rows.join("\n"));
    assert!(rows.len() >= FAULTS.len() * if all { 12 } else { SOME.len() }, "a fault did not happen");
    nothing_is_lost(&world, &load, &before);
    let receipt = world.hosts.shared("receipt.json");
    rotate(&world, 0, &["--receipt", receipt.to_str().unwrap()]).run().ok();
    let epochs: Vec<_> =
        (1..=epoch + 1).map(|number| ("destroyed", number)).chain([("primary", epoch + 2)]).collect();
    is_rotated(&world, &receipt, &epochs);
}

#[test]
fn a_receipt_that_cannot_be_written_is_written_when_there_is_room() {
    let world = World::start();
    let before: BTreeSet<String> = (0..50).map(|_| world.add(0, "before").unwrap()).collect();
    let folder = world.hosts.shared("receipts");
    std::fs::create_dir(&folder).unwrap();
    let Some(disk) = SmallDisk::over(&folder, 1) else { return };
    let receipt = folder.join("receipt.json");
    let words = ["--receipt", receipt.to_str().unwrap()];
    let (full, load) = world.under_load(&[0, 1, 2], || {
        disk.fill();
        rotate(&world, 0, &words).run()
    });
    assert!(!receipt.exists() || std::fs::metadata(&receipt).unwrap().len() == 0, "half a receipt");
    nothing_is_lost(&world, &load, &before);
    assert!(full.code == 1 && full.said().contains("UB-M044"), "{}", full.said());
    disk.free();
    let store = format!("kv:{}", world.servers(0));
    world.migrate(0, ["resume", &store, "--json", "--yes"]).args(words).run().ok();
    is_rotated(&world, &receipt, &[("destroyed", 1), ("primary", 2)]);
}

//! A new data key while the daemon serves, users write and read over HTTP, and the tool dies in the middle.

use std::fs::{self, File};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use unibus_tests::http::{self, Request};
use unibus_tests::{Daemon, Host, Program, kv, wait};

/// Users of the sample.
const USERS: u64 = 800;

/// Adds and lists users until it is over; gives the keys of those that were taken, and what failed.
fn work(host: &Host, daemon: &Daemon, over: &AtomicBool) -> (Vec<String>, Vec<String>) {
    let (mut added, mut failed) = (Vec::new(), Vec::new());
    while !over.load(Ordering::SeqCst) {
        let key = data_encoding::HEXLOWER.encode(&rand::random::<[u8; 32]>());
        match daemon.post("/users", &json!({ "sign_pub": key, "handle": "somebody" })) {
            Ok(answer) if answer.status == 201 => added.push(key),
            other => failed.push(format!("{other:?}")),
        }
        let found = users(host);
        let lost: Vec<_> = added.iter().filter(|key| !found.contains(key)).collect();
        if !lost.is_empty() || found.len() < usize::try_from(USERS).unwrap() {
            failed.push(format!("a wrong read: {} users, without {lost:?}", found.len()));
        }
        let health = daemon.get("/healthz").map(|answer| answer.status);
        if !matches!(health, Ok(200)) {
            failed.push(format!("{health:?}"));
        }
        std::thread::park_timeout(Duration::from_millis(5));
    }
    (added, failed)
}

fn users(host: &Host) -> Vec<String> {
    let request = Request { method: "GET", path: "/users", headers: Vec::new(), body: b"" };
    let Ok(answer) = http::send_to_socket(&host.path("state/admin.sock"), &request) else {
        return Vec::new();
    };
    let listed = answer.json();
    let keys = listed.as_array().into_iter().flatten().filter_map(|user| user["sign_pub"].as_str());
    keys.map(str::to_owned).collect()
}

fn rotate(host: &Host, words: &[&str]) -> Program {
    host.migrate(["rotate", "epoch", &host.store(), "--json"]).args(words)
}

/// Starts the rotation, slowly, and kills the tool when the daemon copies.
fn killed_in_the_copy(host: &Host, words: &[&str]) {
    let said = host.path("said");
    let out = File::create(&said).unwrap();
    let mut tool = rotate(host, words).args(["--rate", "500"]).spawn(out.try_clone().unwrap(), out);
    wait::until("the copy", || {
        let text = fs::read_to_string(&said).unwrap();
        assert!(tool.try_wait().unwrap().is_none(), "{text}");
        text.contains("\"step\":\"copy\"").then_some(())
    });
    kv::kill(tool.id());
    drop(tool.wait());
}

/// Puts a database and a keyring into a folder of their own, and opens them with the witness of one of the two.
fn opens(host: &Host, name: &str, database: &Path, keyring: &Path, witness: &Path) -> bool {
    let folder = host.path(name);
    fs::create_dir_all(folder.join("state")).unwrap();
    fs::copy(witness, folder.join("state/witness")).unwrap();
    fs::copy(database, folder.join("control.db")).unwrap();
    fs::copy(keyring, folder.join("control.db.keyring")).unwrap();
    let store = format!("sqlcipher:{}", folder.join("control.db").display());
    host.migrate(["verify", &store]).env("UNIBUS_STATE_DIR", folder.join("state")).run().code == 0
}

#[test]
fn the_data_key_is_rotated_under_load_the_tool_is_killed_and_no_request_fails() {
    let host = Host::with_sample(USERS, 20);
    host.snapshot("a.snapshot").run().ok();
    fs::create_dir(host.path("before")).unwrap();
    for name in ["control.db", "control.db.keyring"] {
        fs::copy(host.path("data").join(name), host.path("before").join(name)).unwrap();
    }
    fs::copy(host.path("state/witness"), host.path("before/witness")).unwrap();
    let daemon = host.serve();
    let pin = host.status()["cluster"].as_str().unwrap().to_owned();
    // Refused without a drill, and taken after one.
    let refused = rotate(&host, &["--yes"]).run().exits(2).json();
    assert_eq!(refused["error"]["code"], "UB-M023", "{refused}");
    let drill = host.migrate_without_key(["drill"]).option("--in", host.path("a.snapshot"));
    let drill = drill.option("--operator", host.path("keys/operator.key"));
    drill.option("--state-dir", host.path("state")).run().ok();

    let over = AtomicBool::new(false);
    let receipt = host.path("receipt.json");
    let (done, loads) = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..2).map(|_| scope.spawn(|| work(&host, &daemon, &over))).collect();
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            killed_in_the_copy(&host, &["--yes"]);
            // It is followed to its end by the next tool.
            let resume = host.migrate(["resume", &host.store(), "--json", "--yes"]);
            let done = resume.option("--receipt", &receipt).run().ok().json();
            // Once more, and nobody follows it: the daemon ends it all the same.
            let dry = rotate(&host, &["--dry-run"]).run().ok().json();
            let hash = dry["plan"]["hash"].as_str().unwrap();
            killed_in_the_copy(&host, &["--plan", hash]);
            wait::until("the end of the rotation", || {
                let status = host.status();
                (status["rotation"].is_null() && status["primary_epoch"] == 3).then_some(())
            });
            wait::until("the receipt", || host.path("data/control.db.receipt.3").exists().then_some(()));
            // Neither command begins another one by that.
            let nothing = host.migrate(["resume", &host.store(), "--json", "--yes"]).run().exits(2).json();
            assert_eq!(nothing["error"]["code"], "UB-M022", "{nothing}");
            rotate(&host, &["--plan", hash]).run().exits(2);
            done
        }));
        over.store(true, Ordering::SeqCst);
        (done, workers.into_iter().map(|worker| worker.join().unwrap()).collect::<Vec<_>>())
    });
    let done = done.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    assert_eq!((&done["by_the_daemon"], &done["from"], &done["to"]), (&true.into(), &json!([1]), &2.into()));
    let failed: Vec<_> = loads.iter().flat_map(|(_, failed)| failed).collect();
    assert!(failed.is_empty(), "{failed:?}");
    let added: Vec<_> = loads.iter().flat_map(|(added, _)| added).collect();
    println!("{} users added meanwhile", added.len());
    assert!(added.len() > 20, "{} requests are no load", added.len());
    let found = users(&host);
    assert!(added.iter().all(|key| found.contains(key)), "a user is lost");
    let epochs = host.status()["epochs"].clone();
    let states: Vec<_> = epochs.as_array().unwrap().iter().map(|epoch| epoch["state"].clone()).collect();
    assert_eq!(states, ["destroyed", "destroyed", "primary"].map(Value::from));
    assert_eq!(daemon.stop(), Some(0), "the same process to the end");

    // Offline, with the pin alone; and the second names the first.
    let verify = |file: &Path, pin: &str| {
        let url = format!("receipt:{}", file.display());
        host.migrate_without_key(["verify", &url, "--json", "--cluster", pin]).run()
    };
    let first = verify(&receipt, &pin).ok().json();
    let second = verify(&host.path("data/control.db.receipt.3"), &pin).ok().json();
    assert_eq!(second["previous"], first["receipt"], "{second}");
    let stranger = Host::new();
    stranger.sample(1, 1);
    stranger.copy().run().ok();
    let other = stranger.status()["cluster"].as_str().unwrap().to_owned();
    verify(&receipt, &other).exits(6);

    // What the old key opened it opens no more; the control.
    let (old, new) = (host.path("before"), host.path("data"));
    let (was, is) = (old.join("witness"), host.path("state/witness"));
    let (database, keyring) = ("control.db", "control.db.keyring");
    assert!(opens(&host, "old", &old.join(database), &old.join(keyring), &was));
    assert!(opens(&host, "new", &new.join(database), &new.join(keyring), &is));
    for witness in [&was, &is] {
        assert!(!opens(&host, "mixed", &new.join(database), &old.join(keyring), witness));
        assert!(!opens(&host, "other", &old.join(database), &new.join(keyring), witness));
    }
    host.verify().run().ok();
}

//! No acknowledged write is lost and nothing is left half-done, whenever the process is killed.

use data_encoding::HEXLOWER;
use serde_json::json;
use std::collections::BTreeSet;
use std::fs;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use unibus_tests::http::{self, Request};
use unibus_tests::{Host, Run, wait};

const KILLED: i32 = -1;

/// Writes users from several connections until told to stop; gives the keys that were acknowledged.
fn write_until(port: u16, stop: &AtomicBool, acknowledged: &Mutex<BTreeSet<String>>) {
    std::thread::scope(|scope| {
        for writer in 0..3 {
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let key = HEXLOWER.encode(&rand::random::<[u8; 32]>());
                    let body = json!({ "sign_pub": key, "handle": format!("writer-{writer}") }).to_string();
                    let headers = vec![("content-type".to_owned(), "application/json".to_owned())];
                    let request = Request { method: "POST", path: "/users", headers, body: body.as_bytes() };
                    // A broken connection is not an acknowledgement, whatever was committed.
                    match http::send(port, &request) {
                        Ok(answer) if answer.status == 201 => {
                            acknowledged.lock().unwrap().insert(key);
                        }
                        Ok(answer) => panic!("status {}", answer.status),
                        Err(_) => {}
                    }
                }
            });
        }
    });
}

#[test]
fn no_acknowledged_write_is_lost_when_the_daemon_is_killed_under_load() {
    let host = Host::with_sample(5, 1);
    let mut expected = BTreeSet::new();
    for round in 0..10u64 {
        let daemon = host.serve();
        let port = daemon.port;
        let stop = AtomicBool::new(false);
        let acknowledged = Mutex::new(BTreeSet::new());
        std::thread::scope(|scope| {
            scope.spawn(|| write_until(port, &stop, &acknowledged));
            wait::until("the first writes", || (!acknowledged.lock().unwrap().is_empty()).then_some(()));
            // Any moment will do: this is the one place that waits for a time.
            std::thread::sleep(Duration::from_millis(23 * round));
            daemon.kill();
            stop.store(true, Ordering::Relaxed);
        });
        expected.extend(acknowledged.into_inner().unwrap());
        let daemon = host.serve();
        let listed = daemon.get("/users").unwrap().has(200).json();
        let users = listed.as_array().or_else(|| listed["users"].as_array()).unwrap().clone();
        let present: BTreeSet<String> =
            users.iter().map(|user| user["sign_pub"].as_str().unwrap().to_owned()).collect();
        let lost: Vec<_> = expected.difference(&present).collect();
        assert!(lost.is_empty(), "round {round} lost {} of {}: {lost:?}", lost.len(), expected.len());
        if round % 2 == 0 { daemon.kill() } else { assert_eq!(daemon.stop(), Some(0)) }
    }
    host.verify().run().ok();
    println!("{} acknowledged writes survived 15 kills", expected.len());
}

/// Folders of unfinished stores, which must not be left once an operation has succeeded.
///
/// A file under a temporary name may stay: sealed, and never under its final name.
fn leftovers(host: &Host) -> Vec<String> {
    let entries = fs::read_dir(host.path("data")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned());
    names.filter(|name| name.starts_with(".unibus")).collect()
}

/// Moments spread over a run of that length, from at once to nearly its end.
fn moments(took: Duration) -> impl Iterator<Item = Duration> {
    (0..8u32).map(move |step| took.mul_f64(f64::from(step) / 7.5))
}

#[test]
fn a_killed_copy_is_run_again_and_completes() {
    let host = Host::new();
    host.sample(3000, 300);
    let took = host.copy().run().ok().took;
    let digest = host.status()["state_digest"].clone();
    assert!(digest.is_string());
    let mut killed = 0;
    for moment in moments(took) {
        host.lose_disk();
        let first = host.copy().run_and_kill_after(Some(moment));
        killed += u32::from(first.code == KILLED);
        finish(&host, &first, host.copy().run(), moment);
    }
    assert!(killed >= 3, "only {killed} runs were killed in time");
}

#[test]
fn a_killed_snapshot_leaves_no_file_of_that_name_or_a_whole_one() {
    let host = Host::with_sample(3000, 300);
    let took = host.snapshot("whole.snapshot").run().ok().took;
    for moment in moments(took) {
        let first = host.snapshot("a.snapshot").run_and_kill_after(Some(moment));
        if host.path("a.snapshot").exists() {
            let check = format!("snapshot:{}", host.path("a.snapshot").display());
            host.migrate_without_key(["verify", &check]).run().ok();
            fs::remove_file(host.path("a.snapshot")).unwrap();
        } else {
            assert_eq!(first.code, KILLED, "{}", first.said());
        }
        host.snapshot("a.snapshot").run().ok();
        fs::remove_file(host.path("a.snapshot")).unwrap();
        let names = fs::read_dir(host.path("")).unwrap().map(|entry| entry.unwrap().file_name());
        let left: Vec<_> = names.filter(|name| name.to_string_lossy().contains("a.snapshot")).collect();
        assert!(left.is_empty(), "killed after {moment:?}: {left:?}");
    }
    host.verify().run().ok();
}

#[test]
fn a_killed_restore_is_run_again_and_completes() {
    let host = Host::with_sample(3000, 300);
    host.snapshot("a.snapshot").run().ok();
    host.lose_disk();
    let took = host.restore("a.snapshot").run().ok().took;
    for moment in moments(took) {
        host.lose_disk();
        let first = host.restore("a.snapshot").run_and_kill_after(Some(moment));
        finish(&host, &first, host.restore("a.snapshot").run(), moment);
    }
}

/// After a killed run the next one completes, or says that the target is whole already; then it verifies.
fn finish(host: &Host, first: &Run, second: Run, moment: Duration) {
    let whole = host.verify().run();
    if second.code != 0 {
        // The first had done everything but say so: a target that is not empty is never overwritten.
        assert_eq!(second.code, 2, "killed after {moment:?} ({}): {}", first.code, second.said());
    }
    whole.ok();
    assert_eq!(leftovers(host), Vec::<String>::new(), "killed after {moment:?}");
}

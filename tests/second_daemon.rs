//! One process writes a store. Whoever comes second is told so and changes nothing.

use std::fs;
use unibus_tests::Host;

#[test]
fn a_second_daemon_on_the_same_store_is_refused() {
    let host = Host::with_sample(5, 1);
    let first = host.serve();
    let second = host.serve_in_vain().exits(5);
    assert!(second.stderr.contains("lock"), "{}", second.said());
    first.get("/healthz").unwrap().has(200);
    assert_eq!(first.stop(), Some(0));
}

#[test]
fn a_restore_over_a_running_daemon_is_refused() {
    let host = Host::with_sample(5, 1);
    host.snapshot("a.snapshot").run().ok();
    let daemon = host.serve();
    let run = host.restore("a.snapshot").run();
    assert!([2, 5].contains(&run.code), "{}\n{}", run.code, run.said());
    daemon.get("/healthz").unwrap().has(200);
    assert_eq!(daemon.stop(), Some(0));
    host.verify().run().ok();
}

#[test]
fn a_lock_file_left_by_a_killed_daemon_locks_nobody_out() {
    let host = Host::with_sample(5, 1);
    host.serve().kill();
    assert!(fs::exists(host.path("data/control.db.lock")).unwrap());
    assert_eq!(host.serve().stop(), Some(0));
}

//! One real nats-server: how it starts and ends.

use crate::bench::{Bench, PATIENCE, guard, lives, until};
use std::time::Duration;
use unibus_nats::NatsError;
use unibus_nats::folder::Folder;
use unibus_nats::process::{Process, Signal};

#[test]
fn it_gets_ready_and_ends_in_order() {
    let bench = Bench::new();
    let folder = Folder::take(&bench.store_dir()).unwrap();
    folder.check_cipher(None).unwrap();
    let mut process = Process::start(&bench.launch(), &folder).unwrap();
    process.wait_ready(PATIENCE).unwrap();
    assert!(folder.is_in_use().unwrap(), "nats-server holds no lock");
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", process.pid())).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(
        core.split_whitespace().collect::<Vec<_>>()[4..6],
        ["0", "0"],
        "a core file would hold the key"
    );
    process.signal(Signal::Terminate);
    assert!(process.wait_end(PATIENCE).unwrap().success());
    assert!(!folder.is_in_use().unwrap());
}

#[test]
fn a_port_that_was_taken_meanwhile_is_named() {
    for in_cluster in [false, true] {
        let mut bench = Bench::new();
        bench.in_cluster = in_cluster;
        let (which, port) =
            if in_cluster { ("cluster", bench.cluster_port) } else { ("client", bench.client_port) };
        let taken = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
        let folder = Folder::take(&bench.store_dir()).unwrap();
        let mut process = Process::start(&bench.launch(), &folder).unwrap();
        let refused = process.wait_ready(PATIENCE).unwrap_err();
        let NatsError::PortTaken { which: found, address } = refused else { panic!("{refused:?}") };
        assert_eq!((found, address), (which, taken.local_addr().unwrap()));
    }
}

#[test]
fn it_dies_when_its_process_goes_out_of_scope() {
    let bench = Bench::new();
    let folder = Folder::take(&bench.store_dir()).unwrap();
    let mut process = Process::start(&bench.launch(), &folder).unwrap();
    process.wait_ready(PATIENCE).unwrap();
    let pid = process.pid();
    drop(process);
    until("its end", || (!lives(pid)).then_some(()));
}

#[test]
fn a_guard_without_its_parent_or_lock_does_not_become_anything() {
    let bench = Bench::new();
    let folder = Folder::take(&bench.store_dir()).unwrap();
    let run = |parent: &str, separator: &str| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_unibus-exec-guard"));
        command.arg(parent).arg(folder.child_lock()).args([separator, "/bin/echo", "became"]);
        command.output().unwrap()
    };
    let own = std::process::id().to_string();
    let became = run(&own, "--");
    assert_eq!(became.stdout, b"became\n");
    for refused in [run("1", "--"), run("0", "--"), run("x", "--"), run(&own, "-")] {
        assert_eq!((refused.status.code(), refused.stdout.len()), (Some(97), 0));
        assert!(refused.stderr.starts_with(b"unibus guard: "));
    }
    let _held = unibus_keyfile::durable::LockFile::try_exclusive(&folder.child_lock()).unwrap().unwrap();
    let refused = run(&own, "--");
    assert_eq!((refused.status.code(), refused.stdout.len()), (Some(97), 0));
    let mut process = Process::start(&bench.launch(), &folder).unwrap();
    let refused = process.wait_ready(PATIENCE).unwrap_err();
    assert!(matches!(refused, NatsError::Locked { .. }), "{refused:?}");
}

#[test]
fn a_guard_that_is_not_there_is_told() {
    let bench = Bench::new();
    let folder = Folder::take(&bench.store_dir()).unwrap();
    let mut launch = bench.launch();
    launch.guard = unibus_nats::guard::GuardCommand::new("/nonexistent/guard", [""; 0]);
    assert!(matches!(Process::start(&launch, &folder), Err(NatsError::Guard { .. })));
    launch.guard = guard();
    launch.program = "/nonexistent/nats-server".into();
    let mut process = Process::start(&launch, &folder).unwrap();
    assert!(matches!(process.wait_ready(PATIENCE), Err(NatsError::Guard { .. })));
}

#[test]
fn one_that_is_not_ready_in_time_does_not_run_any_more() {
    let mut bench = Bench::new();
    bench.script("exec /bin/sleep 1000");
    let folder = Folder::take(&bench.store_dir()).unwrap();
    let mut process = Process::start(&bench.launch(), &folder).unwrap();
    let refused = process.wait_ready(Duration::from_millis(500)).unwrap_err();
    assert!(matches!(refused, NatsError::NotReady { .. }), "{refused:?}");
    assert!(!lives(process.pid()) && !folder.is_in_use().unwrap());
}

#[test]
fn a_server_of_a_cluster_that_takes_no_routes_is_not_ready() {
    let mut bench = Bench::new();
    bench.in_cluster = true;
    let alone = "/bin/sed '/^cluster {/,$d' > \"$HERE/alone\"";
    bench.script(&format!("{alone}; exec \"$REAL\" -c \"$HERE/alone\""));
    let folder = Folder::take(&bench.store_dir()).unwrap();
    let mut process = Process::start(&bench.launch(), &folder).unwrap();
    let refused = process.wait_ready(Duration::from_secs(2)).unwrap_err();
    assert!(bench.log().contains("Server is ready"), "{}", bench.log());
    assert!(matches!(refused, NatsError::NotReady { .. }), "{refused:?}");
}

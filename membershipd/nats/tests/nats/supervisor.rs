//! Starting again, giving up, ending, and never leaving a nats-server behind.

use crate::bench::{Bench, PATIENCE, lives, until};
use rustix::process::Signal;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use unibus_nats::NatsError;
use unibus_nats::config::{Cipher, ServerKey};
use unibus_nats::folder::{Wiped, noted_key};
use unibus_nats::process::Launch;
use unibus_nats::supervisor::{Liveness, Options, State, Supervisor};
use unibus_nats::system::System;

fn kill(pid: u32) {
    send(pid, Signal::KILL);
}

fn send(pid: u32, signal: Signal) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
}

fn with_liveness(bench: &Bench, liveness: Liveness) -> Supervisor {
    let mut options = Options::new(bench.launch());
    options.liveness = liveness;
    Supervisor::start(options).unwrap()
}

#[test]
fn a_killed_server_is_started_again_with_growing_waits() {
    let bench = Bench::new();
    let supervisor = bench.supervise().unwrap();
    bench.fill();
    let mut waits = Vec::new();
    for restarts in 1..=3 {
        let pid = supervisor.status().pid.unwrap();
        kill(pid);
        let status = supervisor.wait_for(PATIENCE, |status| matches!(status.state, State::BackingOff { .. }));
        let State::BackingOff { wait, error } = status.state else { panic!("{:?}", status.state) };
        assert!(matches!(&*error, NatsError::Ended { how, .. } if how.contains("signal: 9")), "{error:?}");
        waits.push(wait.as_millis());
        let status = supervisor.wait_for(PATIENCE, |status| status.is_ready());
        assert!(status.is_ready() && status.restarts == restarts && status.pid != Some(pid), "{status:?}");
        assert_eq!(bench.messages(), Some(1));
    }
    assert_eq!(waits, [100, 200, 400]);
    supervisor.stop();
    assert!(matches!(supervisor.status().state, State::Stopped));
}

#[test]
fn a_port_that_is_taken_stops_the_first_start_and_only_delays_a_later_one() {
    let bench = Bench::new();
    let taken = std::net::TcpListener::bind(("127.0.0.1", bench.client_port)).unwrap();
    let refused = bench.supervise().unwrap_err();
    assert!(matches!(refused, NatsError::PortTaken { which: "client", .. }), "{refused:?}");
    assert!(bench.log().is_empty(), "nats-server ran on the folder");
    drop(taken);
    let supervisor = bench.supervise().unwrap();
    kill(supervisor.status().pid.unwrap());
    let taken = until("the port", || std::net::TcpListener::bind(("127.0.0.1", bench.client_port)).ok());
    let is_port = |state: &State| matches!(state, State::BackingOff { error, .. } if matches!(&**error, NatsError::PortTaken { .. }));
    let status = supervisor.wait_for(PATIENCE, |status| is_port(&status.state));
    assert!(is_port(&status.state), "{status:?}");
    drop(taken);
    assert!(supervisor.wait_for(PATIENCE, |status| status.is_ready()).is_ready());
}

#[test]
fn a_server_that_is_too_old_is_not_started() {
    let mut bench = Bench::new();
    bench.script("if [ \"$1\" = -v ]; then echo 'nats-server: v2.11.0'; else : > \"$HERE/ran\"; fi");
    let refused = bench.supervise().unwrap_err();
    assert!(matches!(&refused, NatsError::TooOld { found, .. } if found == "2.11.0"), "{refused:?}");
    assert!(!bench.folder.path().join("ran").exists() && !bench.store_dir().exists());
}

#[test]
fn a_server_that_becomes_too_old_is_not_started_again() {
    let mut bench = Bench::new();
    bench.script("exec \"$REAL\" \"$@\"");
    let supervisor = bench.supervise().unwrap();
    bench.script("echo 'nats-server: v2.11.0'");
    kill(supervisor.status().pid.unwrap());
    let status = supervisor.wait_for(PATIENCE, |status| matches!(status.state, State::Failed { .. }));
    let State::Failed { error } = status.state else { panic!("{:?}", status.state) };
    assert!(matches!(&*error, NatsError::TooOld { .. }), "{error:?}");
    // The folder stays held: nobody else is to try while this one says that it failed.
    assert!(matches!(bench.supervise(), Err(NatsError::TooOld { .. } | NatsError::Locked { .. })));
}

#[test]
fn a_folder_that_cannot_be_used_is_told() {
    let mut bench = Bench::new();
    let file = bench.store_dir();
    std::fs::write(&file, "a file").unwrap();
    assert!(matches!(bench.supervise(), Err(NatsError::Folder { .. })));
    std::fs::remove_file(&file).unwrap();
    // Checked by us and then taken away: nats-server's own words.
    bench.script("[ \"$1\" = -v ] || { rm -rf \"$HERE/js\"; : > \"$HERE/js\"; }\nexec \"$REAL\" \"$@\"");
    let refused = bench.supervise().unwrap_err();
    assert!(matches!(refused, NatsError::Folder { .. } | NatsError::GaveUp { .. }), "{refused:?}");
}

#[test]
fn what_nats_server_says_last_is_in_the_error() {
    let mut bench = Bench::new();
    bench.script("[ \"$1\" = -v ] && exec \"$REAL\" -v\necho '[7] 2026/01/01 00:00:00.0 [FTL] no more of this' >&2; exit 1");
    let refused = bench.supervise().unwrap_err();
    assert!(matches!(&refused, NatsError::GaveUp { line } if line == "no more of this"), "{refused:?}");
    bench.script("[ \"$1\" = -v ] && exec \"$REAL\" -v\necho 'some words' >&2; exit 3");
    let refused = bench.supervise().unwrap_err();
    let NatsError::Ended { how, line } = &refused else { panic!("{refused:?}") };
    assert!(how.contains('3') && line == "some words", "{refused:?}");
}

#[test]
fn a_server_that_does_not_get_ready_is_killed() {
    let mut bench = Bench::new();
    bench.script("[ \"$1\" = -v ] && exec \"$REAL\" -v\necho $$ > \"$HERE/pid\"; exec /bin/sleep 1000");
    let mut options = Options::new(bench.launch());
    options.ready_within = Duration::from_secs(1);
    let refused = Supervisor::start(options).unwrap_err();
    assert!(matches!(refused, NatsError::NotReady { .. }), "{refused:?}");
    let pid = std::fs::read_to_string(bench.folder.path().join("pid")).unwrap();
    assert!(!lives(pid.trim().parse().unwrap()));
}

#[test]
fn something_else_that_greets_on_the_port_is_not_taken_for_it() {
    let mut bench = Bench::new();
    let here = bench.folder.path().to_path_buf();
    let words = "echo '[7] 2026/01/01 00:00:00.0 [INF] Server is ready' >&2";
    let wait = ": > \"$HERE/checked\"; until [ -e \"$HERE/taken\" ]; do /bin/sleep 0.05; done";
    bench.script(&format!("[ \"$1\" = -v ] && exec \"$REAL\" -v\n{wait}; {words}; exec /bin/sleep 1000"));
    let options = Options::new(bench.launch());
    let port = bench.client_port;
    // It takes the port after our check of it.
    let other = std::thread::spawn(move || {
        until("our check", || here.join("checked").exists().then_some(()));
        let listener = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
        std::fs::write(here.join("taken"), "").unwrap();
        let (mut stream, _) = listener.accept().unwrap();
        std::io::Write::write_all(&mut stream, b"INFO {\"server_name\":\"other\"} \r\n").unwrap();
    });
    let refused = Supervisor::start(options).unwrap_err();
    assert!(matches!(refused, NatsError::NotReady { .. }), "{refused:?}");
    other.join().unwrap();
}

#[test]
fn stop_ends_it_in_order_and_drop_does_too() {
    for in_cluster in [false, true] {
        let mut bench = Bench::new();
        bench.in_cluster = in_cluster;
        let supervisor = bench.supervise().unwrap();
        let pid = supervisor.status().pid.unwrap();
        if in_cluster {
            supervisor.stop();
        } else {
            drop(supervisor);
        }
        assert!(!lives(pid));
        let said = if in_cluster { "Entering lame duck mode" } else { "Trapped \"terminated\" signal" };
        assert!(bench.log().contains(said) && bench.log().contains("Server Exiting"), "{}", bench.log());
    }
}

#[test]
fn a_server_that_does_not_end_is_killed() {
    let bench = Bench::new();
    let mut options = Options::new(bench.launch());
    options.terminate = Duration::from_secs(1);
    let supervisor = Supervisor::start(options).unwrap();
    let pid = supervisor.status().pid.unwrap();
    send(pid, Signal::STOP);
    let start = Instant::now();
    supervisor.stop();
    assert!(!lives(pid) && start.elapsed() < Duration::from_secs(20));
}

#[test]
fn a_server_that_hangs_is_told_killed_and_started_again() {
    let bench = Bench::new();
    let (every, patience) = (Duration::from_millis(100), Duration::from_millis(500));
    let supervisor = with_liveness(&bench, Liveness { every, patience, misses: 5 });
    bench.fill();
    for restarts in 1..=2 {
        let pid = supervisor.status().pid.unwrap();
        send(pid, Signal::STOP);
        let status = supervisor.wait_for(PATIENCE, |status| matches!(status.state, State::Silent { .. }));
        assert!(matches!(status.state, State::Silent { .. }) && status.pid == Some(pid), "{status:?}");
        assert!(!status.is_ready());
        let status = supervisor.wait_for(PATIENCE, |status| matches!(status.state, State::BackingOff { .. }));
        let State::BackingOff { error, .. } = status.state else { panic!("{:?}", status.state) };
        let NatsError::Hung { silent } = &*error else { panic!("{error:?}") };
        // Five questions of half a second each, and what lies between them.
        assert!(*silent > Duration::from_millis(2500), "{silent:?}");
        assert!(!lives(pid));
        let status = supervisor.wait_for(PATIENCE, |status| status.is_ready());
        assert!(status.is_ready() && status.restarts == restarts && status.pid != Some(pid), "{status:?}");
        assert_eq!(bench.messages(), Some(1));
    }
    supervisor.stop();
}

#[test]
fn a_server_that_is_slow_for_a_while_is_left_alone() {
    let bench = Bench::new();
    let (every, patience) = (Duration::from_millis(50), Duration::from_millis(300));
    let supervisor = with_liveness(&bench, Liveness { every, patience, misses: 40 });
    let pid = supervisor.status().pid.unwrap();
    for _ in 0..3 {
        send(pid, Signal::STOP);
        let status = supervisor.wait_for(PATIENCE, |status| matches!(status.state, State::Silent { .. }));
        assert!(matches!(status.state, State::Silent { .. }), "{status:?}");
        send(pid, Signal::CONT);
        let status = supervisor.wait_for(PATIENCE, |status| status.is_ready());
        assert!(status.is_ready() && status.restarts == 0 && status.pid == Some(pid), "{status:?}");
    }
    // Asked for its greeting again and again, it has nothing to complain of.
    std::thread::park_timeout(Duration::from_secs(2));
    let log = bench.log();
    assert!(!["[ERR]", "[WRN]"].iter().any(|level| log.contains(level)), "{log}");
    supervisor.stop();
}

#[test]
fn a_stop_ends_a_server_that_hangs() {
    let bench = Bench::new();
    let (every, patience) = (Duration::from_millis(100), Duration::from_secs(1));
    let supervisor = with_liveness(&bench, Liveness { every, patience, misses: 1000 });
    let pid = supervisor.status().pid.unwrap();
    send(pid, Signal::STOP);
    let status = supervisor.wait_for(PATIENCE, |status| matches!(status.state, State::Silent { .. }));
    assert!(matches!(status.state, State::Silent { .. }), "{status:?}");
    // It runs on before it is told to end, so that it can.
    let going_on = std::thread::spawn(move || {
        std::thread::park_timeout(Duration::from_secs(2));
        send(pid, Signal::CONT);
    });
    supervisor.stop();
    going_on.join().unwrap();
    assert!(!lives(pid));
    assert!(matches!(supervisor.status().state, State::Stopped));
}

#[test]
fn a_stop_ends_a_wait_between_starts() {
    let mut bench = Bench::new();
    bench.script("exec \"$REAL\" \"$@\"");
    let supervisor = bench.supervise().unwrap();
    bench.script("[ \"$1\" = -v ] && exec \"$REAL\" -v\nexit 1");
    kill(supervisor.status().pid.unwrap());
    let long =
        |state: &State| matches!(state, State::BackingOff { wait, .. } if *wait > Duration::from_secs(2));
    assert!(long(&supervisor.wait_for(PATIENCE, |status| long(&status.state)).state));
    let start = Instant::now();
    supervisor.stop();
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
}

/// Runs in a process of its own, which the test below kills.
#[test]
#[ignore = "the body of a child process"]
fn body_of_a_parent_that_is_killed() {
    let bench = Bench::new();
    let mut launch: Launch = bench.launch();
    launch.config.store_dir = std::env::var_os("STORE").unwrap().into();
    let supervisor = Supervisor::start(Options::new(launch)).unwrap();
    println!("pid {}", supervisor.status().pid.unwrap());
    loop {
        std::thread::park();
    }
}

#[test]
fn no_server_is_left_when_its_supervisor_is_killed() {
    use std::io::BufRead;
    let bench = Bench::new();
    let mut parent = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "supervisor::body_of_a_parent_that_is_killed", "--ignored", "--nocapture"])
        .env("STORE", bench.store_dir())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = std::io::BufReader::new(parent.stdout.take().unwrap()).lines().map_while(Result::ok);
    let pid = lines.filter_map(|line| line.split_once("pid ")?.1.trim().parse::<u32>().ok()).next().unwrap();
    assert!(lives(pid));
    let refused = bench.supervise().unwrap_err();
    assert!(matches!(refused, NatsError::Locked { .. }), "{refused:?}");
    parent.kill().unwrap();
    parent.wait().unwrap();
    until("the end of the orphan", || (!lives(pid)).then_some(()));
    let next = until("the folder", || match bench.supervise() {
        Err(NatsError::Locked { .. }) => None,
        other => Some(other.unwrap()),
    });
    next.stop();
}

#[test]
fn a_server_that_is_wiped_starts_with_nothing_and_with_another_key() {
    let key = |byte: u8| ServerKey::from_bytes(&[byte; 32]).unwrap();
    let bench = Bench::new().with_key(Cipher::Aes, [1; 32]);
    let supervisor = bench.supervise().unwrap();
    bench.fill();
    let wiped = Wiped::new("op", 5).unwrap();
    supervisor.wipe(&wiped, Some((Cipher::Aes, key(2))), |_| Ok(())).unwrap();
    assert_eq!(bench.messages(), None);
    let folder = supervisor.folder().unwrap();
    assert_eq!(folder.wiped(), Some(wiped.clone()));
    assert_eq!(noted_key(folder.path()), Some((key(2).fingerprint().to_string(), 1)));
    bench.fill();
    // It is the new key's now: nats-server that is killed comes back with it.
    kill(supervisor.status().pid.unwrap());
    let status = supervisor.wait_for(PATIENCE, |status| status.is_ready() && status.restarts == 1);
    assert!(status.is_ready(), "{status:?}");
    assert_eq!(bench.messages(), Some(1));
    supervisor.stop();
    assert!(supervisor.wipe(&wiped, None, |_| Ok(())).is_err());
    assert!(bench.files().iter().any(|(path, _)| path.ends_with("1.blk")), "a stopped one was wiped");
}

#[test]
fn a_server_says_what_it_holds_through_the_system_account() {
    let bench = Bench::new();
    let supervisor = bench.supervise().unwrap();
    bench.fill();
    let view = crate::bench::block_on(async {
        let url = format!("127.0.0.1:{}", bench.client_port);
        let system = System::connect(&url, bench.system.expose_seed()).await.unwrap();
        system.look(1, Duration::from_secs(5)).await
    });
    let server = &view.servers["n0"];
    assert_eq!(server.trouble, None);
    let held = &server.streams["CONTROL/S"];
    assert_eq!((held.messages, held.first, held.last, held.replicas), (1, 1, 1, 1), "{held:?}");
    supervisor.stop();
}

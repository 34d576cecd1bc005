//! One real nats-server: what it is given, what it leaves, and how it ends.

use crate::bench::{Bench, guard};
use std::time::Duration;
use unibus_nats::NatsError;
use unibus_nats::folder::Folder;
use unibus_nats::process::{Process, Signal};

const PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn it_gets_ready_and_ends_in_order() {
    let bench = Bench::new();
    let folder = Folder::take(&bench.store_dir()).unwrap();
    folder.check_cipher(None).unwrap();
    let mut process = Process::start(&bench.launch(), &folder).unwrap();
    process.wait_ready(PATIENCE).unwrap();
    assert!(folder.is_in_use().unwrap(), "nats-server holds no lock");
    process.signal(Signal::Terminate);
    assert!(process.wait_end(PATIENCE).unwrap().success());
    assert!(!folder.is_in_use().unwrap());
}

#[test]
fn a_port_that_is_taken_is_named() {
    let bench = Bench::new();
    let taken = std::net::TcpListener::bind(("127.0.0.1", bench.client_port)).unwrap();
    let folder = Folder::take(&bench.store_dir()).unwrap();
    let mut process = Process::start(&bench.launch(), &folder).unwrap();
    let refused = process.wait_ready(PATIENCE).unwrap_err();
    let expected = taken.local_addr().unwrap();
    assert!(
        matches!(refused, NatsError::PortTaken { which: "client", address } if address == expected),
        "{refused:?}"
    );
    let _ = guard();
}

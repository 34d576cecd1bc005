//! Refusals that no other test of this folder meets, each by its code.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use nkeys::KeyPair;
use unibus_keyfile::id::Epoch;
use unibus_keyfile::keyring::CarriedOver;
use unibus_keyfile::operator_key::OperatorKey;
use unibus_keyfile::secret::StateKey;
use unibus_store::error::StoreError;
use unibus_store::keys::Keys;
use unibus_store::record::Record;
use unibus_store::sealed_log::{Access, LogError, LogOptions, SealedLog};
use unibus_store::store::Store;

use super::fixture::*;
use crate::server::Server;

fn options_at(site: &Site, url: String) -> LogOptions {
    let nodeset = site.folder.path().join("nodeset");
    let keys = Keys::Node(Arc::clone(&site.own));
    LogOptions::new(vec![url], keys, &nodeset, &site.state_dir(), Arc::new(clock))
        .boot_budget(Duration::from_secs(8))
}

/// Waits for no budget: what will not pass is said at once.
fn refused_at_once(options: LogOptions) -> LogError {
    let begun = std::time::Instant::now();
    let error = SealedLog::open(options.boot_budget(Duration::from_secs(60))).unwrap_err();
    assert!(begun.elapsed() < Duration::from_secs(30), "{error:?} after {:?}", begun.elapsed());
    error
}

#[tokio::test]
async fn a_server_that_does_not_know_this_node_is_not_asked_again() {
    let site = Site::new();
    let (known, other) = (KeyPair::new_user(), KeyPair::new_user());
    let jetstream =
        format!("jetstream {{ store_dir: \"{}\" }}\n", site.folder.path().join("known").display());
    let users = format!("authorization {{ users: [{{ nkey: {} }}] }}\n", known.public_key());
    let server = Server::with(&format!("{jetstream}{users}"));
    let options = options_at(&site, server.url()).identity(&other.seed().unwrap());
    assert_eq!(refused_at_once(options).code(), "UB-L004");
    assert!(SealedLog::open(options_at(&site, server.url()).identity(&known.seed().unwrap())).is_ok());
}

#[tokio::test]
async fn an_old_server_is_named_and_nothing_is_asked_of_it() {
    let site = Site::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("nats://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream
            .write_all(b"INFO {\"version\":\"2.11.9\",\"max_payload\":1048576,\"headers\":true}\r\n")
            .unwrap();
        let mut buffer = [0; 4096];
        while let Ok(1..) = stream.read(&mut buffer) {
            drop(stream.write_all(b"PONG\r\n"));
        }
    });
    let error = refused_at_once(options_at(&site, url));
    assert_eq!(error.code(), "UB-L005");
    assert!(error.to_string().contains("2.11.9"), "{error}");
}

#[tokio::test]
async fn a_server_without_jetstream_is_named() {
    let site = Site::new();
    let server = Server::with("");
    assert_eq!(refused_at_once(options_at(&site, server.url())).code(), "UB-L006");
}

#[tokio::test]
async fn a_log_with_half_an_import_is_served_by_nobody() {
    let site = Site::new();
    let log = site.open().unwrap();
    let half = [Ok(Record::User(user(1)).encode()), Err(StoreError::Stopped)];
    log.import(&mut half.into_iter(), None).unwrap_err();
    assert!(log.is_half_imported());
    assert!(!is_authorized(&log, 1).await);
    drop(log);
    for _ in 0..2 {
        assert_eq!(site.refused().code(), "UB-L011");
    }
    let reader = SealedLog::open(site.options().access(Access::Read)).unwrap();
    assert!(reader.is_half_imported() && !is_authorized(&reader, 1).await);
}

#[tokio::test]
async fn an_import_of_which_something_was_taken_away_meanwhile_does_not_end() {
    let site = Site::new();
    drop(site.open().unwrap());
    // Nobody looks at the stream here while it is imported.
    let log = SealedLog::open(site.options().access(Access::Visit)).unwrap();
    let mut users: Vec<Record> = (0..700).map(|number| Record::User(user(number))).collect();
    users.sort_by_key(Record::id);
    let url = site.url();
    let take_one_away = || {
        let stranger =
            async { Stranger(async_nats::connect(url.as_str()).await.unwrap()).take_away(100).await };
        let work = || tokio::runtime::Runtime::new().unwrap().block_on(stranger);
        std::thread::scope(|scope| scope.spawn(work).join().unwrap());
    };
    let mut given = users.iter().enumerate().map(|(at, user)| {
        // By then the first of them are in the log.
        if at == 600 {
            take_one_away();
        }
        Ok(user.encode())
    });
    let error = log.import(&mut given, None).unwrap_err();
    assert!(matches!(error, StoreError::Tampered { .. }), "{error:?}");
    assert!(log.is_half_imported());
}

#[tokio::test]
async fn keys_are_carried_over_only_into_a_log_that_never_held_a_record() {
    let site = Site::new();
    let log = site.open().unwrap();
    let carried = || CarriedOver { state: StateKey::generate(), last_epoch: Epoch::FIRST };
    log.carry_over(carried()).unwrap();
    let keyring = log.keyring();
    add(&log, 1..2).await;
    let position = log.position().unwrap();
    let error = log.carry_over(carried()).unwrap_err();
    assert_eq!(error.code(), "UB-L012", "{error:?}");
    assert_eq!((log.keyring().hash(), log.position().unwrap()), (keyring.hash(), position));
    log.verify().unwrap();
}

#[tokio::test]
async fn another_log_of_the_same_cluster_is_not_taken_for_this_one() {
    let mut site = Site::new();
    let log = site.open().unwrap();
    add(&log, 1..3).await;
    drop(log);
    let witness = std::fs::read(site.state_dir().join("witness")).unwrap();
    site.stop();
    std::fs::remove_dir_all(site.folder.path().join("js")).unwrap();
    std::fs::remove_file(site.state_dir().join("witness")).unwrap();
    site.start();
    // A log of its own, made by the same node with the same nodeset, and longer.
    let log = site.open().unwrap();
    add(&log, 1..30).await;
    drop(log);
    std::fs::write(site.state_dir().join("witness"), &witness).unwrap();
    for access in [Access::Serve, Access::Visit, Access::Read] {
        let error = SealedLog::open(site.options().access(access)).unwrap_err();
        assert_eq!(error.code(), "UB-L015", "{error:?}");
    }
    let now = std::fs::read(site.state_dir().join("witness")).unwrap();
    assert!(now == witness, "a refusal does not teach the witness");
}

#[tokio::test]
async fn the_operators_key_reads_a_log_and_opens_it_for_nothing_else() {
    let site = Site::new();
    let log = site.open().unwrap();
    add(&log, 1..3).await;
    drop(log);
    let text = site.operator.to_text(None).unwrap();
    let operator = Arc::new(OperatorKey::parse(&text, || None).unwrap());
    let open = |access| {
        let nodeset = site.folder.path().join("nodeset");
        let keys = Keys::Operator(Arc::clone(&operator));
        let options =
            LogOptions::new(vec![site.url()], keys, &nodeset, std::path::Path::new(""), Arc::new(clock));
        SealedLog::open(options.access(access).boot_budget(Duration::from_secs(8)))
    };
    for access in [Access::Serve, Access::Init, Access::Visit] {
        assert_eq!(open(access).unwrap_err().code(), "UB-L017");
    }
    let log = open(Access::Read).unwrap();
    assert!(is_authorized(&log, 2).await);
    let carried = CarriedOver { state: StateKey::generate(), last_epoch: Epoch::FIRST };
    assert_eq!(log.carry_over(carried).unwrap_err().code(), "UB-L017");
}

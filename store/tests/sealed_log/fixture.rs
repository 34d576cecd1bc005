//! A node with its keys, its folders and a nats-server of its own, and a stranger with every right on that server.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_nats::HeaderMap;
use bytes::Bytes;
use rustix::process::Signal;
use serde_json::{Value, json};
use unibus_keyfile::id::UnixTime;
use unibus_keyfile::node_key::NodeKeyFile;
use unibus_keyfile::nodeset::{Nodeset, Plan};
use unibus_keyfile::operator_key::OperatorKey;
use unibus_store::error::StoreError;
use unibus_store::keys::Keys;
use unibus_store::record::{Handle, SignPub, Timestamp, User, UserRole};
use unibus_store::sealed_log::{LogError, LogOptions, STREAM, SealedLog};
use unibus_store::store::{Actor, Posture, PostureState, Store, Strength};

use crate::server::Server;

/// Time that a node has to notice what was done to its log.
const NOTICED: Duration = Duration::from_secs(20);

/// Copies a folder with all that is in it.
pub(crate) fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

pub(crate) fn now() -> UnixTime {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    UnixTime::from_seconds(since.as_secs())
}

pub(crate) fn clock() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    Timestamp::from_micros(i64::try_from(since.as_micros()).unwrap()).unwrap()
}

/// One node, and where everything of it lies.
pub(crate) struct Site {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) operator: OperatorKey,
    pub(crate) own: Arc<NodeKeyFile>,
    pub(crate) nodeset: Nodeset,
    pub(crate) server: Option<Server>,
}

impl Site {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let operator = OperatorKey::generate();
        let own = Arc::new(NodeKeyFile::generate("alpha".parse().unwrap(), operator.cluster_id()));
        let nodeset = Plan::first(&operator).with_node(own.member(now())).sign(&operator).unwrap();
        std::fs::write(folder.path().join("nodeset"), nodeset.as_bytes()).unwrap();
        std::fs::create_dir(folder.path().join("state")).unwrap();
        let server = Some(Server::start(&folder.path().join("js")));
        Self { folder, operator, own, nodeset, server }
    }

    pub(crate) fn url(&self) -> String {
        self.server.as_ref().unwrap().url()
    }

    pub(crate) fn state_dir(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    pub(crate) fn options(&self) -> LogOptions {
        let nodeset = self.folder.path().join("nodeset");
        let keys = Keys::Node(Arc::clone(&self.own));
        LogOptions::new(vec![self.url()], keys, &nodeset, &self.state_dir(), Arc::new(clock))
            .boot_budget(Duration::from_secs(8))
    }

    pub(crate) fn open(&self) -> Result<SealedLog, LogError> {
        SealedLog::open(self.options())
    }

    pub(crate) fn refused(&self) -> LogError {
        match self.open() {
            Ok(_) => panic!("the log was opened"),
            Err(error) => error,
        }
    }

    /// Stops the server cleanly.
    pub(crate) fn stop(&mut self) {
        let mut server = self.server.take().unwrap();
        server.signal(Signal::TERM);
        server.child.wait().unwrap();
    }

    pub(crate) fn start(&mut self) {
        self.server = Some(Server::start(&self.folder.path().join("js")));
    }

    pub(crate) async fn stranger(&self) -> Stranger {
        Stranger(async_nats::connect(self.url()).await.unwrap())
    }
}

pub(crate) fn sign(number: u16) -> SignPub {
    let mut bytes = [7; 32];
    bytes[..2].copy_from_slice(&number.to_be_bytes());
    SignPub::from_bytes(bytes).unwrap()
}

pub(crate) fn user(number: u16) -> User {
    let handle = Handle::parse(&format!("person {number}")).unwrap();
    User::new(sign(number), handle, UserRole::Member, clock())
}

pub(crate) async fn add(log: &SealedLog, numbers: std::ops::Range<u16>) {
    for number in numbers {
        log.add_user(Actor::Operator, user(number)).await.unwrap();
    }
}

pub(crate) async fn is_authorized(log: &SealedLog, number: u16) -> bool {
    log.is_authorized(sign(number), Strength::Local).await
}

/// Waits until the node reports this state, and then checks that it answers nothing.
pub(crate) async fn denies(log: &SealedLog, state: PostureState) -> Posture {
    let begun = std::time::Instant::now();
    loop {
        let posture = log.posture();
        if posture.state == state {
            assert!(!is_authorized(log, 1).await);
            let error = log.users(Strength::Local).await.unwrap_err();
            assert!(
                matches!(
                    error,
                    StoreError::Tampered { .. }
                        | StoreError::RolledBack { .. }
                        | StoreError::Unavailable { .. }
                ),
                "{error}"
            );
            assert!(log.add_user(Actor::Operator, user(9999)).await.is_err());
            return posture;
        }
        assert!(begun.elapsed() < NOTICED, "still {:?}, {:?}", posture.state, log.trouble());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits for a condition.
pub(crate) async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let begun = std::time::Instant::now();
    while !holds().await {
        assert!(begun.elapsed() < NOTICED, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Somebody with every right on the server, and no key of ours.
pub(crate) struct Stranger(pub(crate) async_nats::Client);

/// A message as it lies in the stream.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    pub(crate) sequence: u64,
    pub(crate) subject: String,
    pub(crate) payload: Bytes,
}

impl Stranger {
    pub(crate) async fn api(&self, subject: &str, body: Value) -> Value {
        let reply = self.0.request(format!("$JS.API.{subject}"), body.to_string().into()).await.unwrap();
        serde_json::from_slice(&reply.payload).unwrap()
    }

    pub(crate) async fn info(&self) -> Value {
        self.api(&format!("STREAM.INFO.{STREAM}"), json!({})).await
    }

    /// Everything that is in the stream.
    pub(crate) async fn all(&self) -> Vec<Stored> {
        let last = self.info().await["state"]["last_seq"].as_u64().unwrap();
        let mut found = Vec::new();
        for sequence in 1..=last {
            let reply = self.api(&format!("STREAM.MSG.GET.{STREAM}"), json!({ "seq": sequence })).await;
            let message = &reply["message"];
            if message.is_null() {
                continue;
            }
            let payload = data_encoding::BASE64.decode(message["data"].as_str().unwrap().as_bytes()).unwrap();
            let subject = message["subject"].as_str().unwrap().to_owned();
            found.push(Stored { sequence, subject, payload: payload.into() });
        }
        found
    }

    /// The newest message, which after a write is the write's own unless a heartbeat came.
    pub(crate) async fn last_of(&self, subject: &str) -> Stored {
        let reply = self.api(&format!("STREAM.MSG.GET.{STREAM}"), json!({ "last_by_subj": subject })).await;
        let message = &reply["message"];
        let payload = data_encoding::BASE64.decode(message["data"].as_str().unwrap().as_bytes()).unwrap();
        Stored {
            sequence: message["seq"].as_u64().unwrap(),
            subject: subject.to_owned(),
            payload: payload.into(),
        }
    }

    /// Makes the stream anew without what stands at one sequence, all else where it was, and ending where it ended.
    pub(crate) async fn take_away(&self, gone: u64) {
        let (info, entries) = (self.info().await, self.all().await);
        let last = info["state"]["last_seq"].as_u64().unwrap();
        self.api(&format!("STREAM.DELETE.{STREAM}"), json!({})).await;
        let mut open = info["config"].clone();
        (open["deny_delete"], open["deny_purge"]) = (json!(false), json!(false));
        self.api(&format!("STREAM.CREATE.{STREAM}"), open).await;
        let mut fillers = Vec::new();
        for sequence in 1..=last {
            match entries.iter().find(|stored| stored.sequence == sequence && sequence != gone) {
                Some(stored) => {
                    self.put(&stored.subject, HeaderMap::new(), stored.payload.clone()).await;
                }
                None => {
                    let subject = format!("$KV.UNIBUS_control.filler{sequence}");
                    self.put(&subject, HeaderMap::new(), Bytes::new()).await;
                    fillers.push(sequence);
                }
            }
        }
        for sequence in fillers {
            let done = self.api(&format!("STREAM.MSG.DELETE.{STREAM}"), json!({ "seq": sequence })).await;
            assert_eq!(done["success"], json!(true), "{done}");
        }
        let closed = self.api(&format!("STREAM.UPDATE.{STREAM}"), info["config"].clone()).await;
        assert!(closed["error"].is_null(), "{closed}");
    }

    /// Puts bytes into the stream.
    pub(crate) async fn put(&self, subject: &str, headers: HeaderMap, payload: Bytes) -> Value {
        let reply = self.0.request_with_headers(subject.to_owned(), headers, payload).await.unwrap();
        let ack: Value = serde_json::from_slice(&reply.payload).unwrap();
        assert!(ack["error"].is_null(), "{ack}");
        ack
    }
}

/// The entries of sealed records: what is under a blinded name.
pub(crate) fn sealed(all: &[Stored]) -> Vec<Stored> {
    all.iter().filter(|stored| !stored.subject.contains(".doc.")).cloned().collect()
}

pub(crate) fn doc(name: &str) -> String {
    format!("$KV.UNIBUS_control.doc.{name}")
}

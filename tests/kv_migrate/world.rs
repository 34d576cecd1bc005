//! A host with keys, a nats-server beside it, and the tool that knows both.

use std::fs;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_nats::Client;
use serde_json::{Value, json};
use unibus_keyfile::node_key::NodeKeyFile;
use unibus_store::record::Timestamp;
use unibus_store::sealed_log::{Access, LogError, LogOptions, STREAM, SealedLog};
use unibus_store::sqlcipher::Keys;
use unibus_tests::{Cluster, Host, Program, Setup};

/// What every subject of the log begins with.
pub(crate) const SUBJECTS: &str = "$KV.UNIBUS_control.";

pub(crate) struct World {
    pub(crate) host: Host,
    pub(crate) cluster: Cluster,
}

pub(crate) fn digest(object: &Value) -> &str {
    object["state_digest"].as_str().unwrap_or_else(|| panic!("no digest: {object}"))
}

fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    Timestamp::from_micros(i64::try_from(since.as_micros()).unwrap()).unwrap()
}

impl World {
    /// A server without a log, and a host with an encrypted database of so many users and a tenth as many rooms.
    pub(crate) fn with_database(users: u64) -> Self {
        Self::around(Host::with_sample(users, (users / 10).max(1)))
    }

    /// The same with the plaintext database only.
    pub(crate) fn with_plaintext(users: u64) -> Self {
        let host = Host::new();
        host.sample(users, (users / 10).max(1));
        Self::around(host)
    }

    /// A log that holds the database, and no daemon.
    pub(crate) fn with_log(users: u64) -> Self {
        let world = Self::with_database(users);
        drop(world.serve());
        world.copy_in().run().ok();
        world
    }

    pub(crate) fn around(host: Host) -> Self {
        Self::of(host, Cluster::one())
    }

    /// Three servers beside a host.
    pub(crate) fn on_three(host: Host) -> Self {
        Self::of(host, Setup::of(3).without_proxies().start())
    }

    fn of(host: Host, cluster: Cluster) -> Self {
        let mut options = fs::OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let mut seed = options.open(host.path("internal.nk")).unwrap();
        std::io::Write::write_all(&mut seed, cluster.raw_seed().as_bytes()).unwrap();
        Self { host, cluster }
    }

    /// The same host and another, empty server.
    pub(crate) fn another_server(self) -> (Self, Cluster) {
        let Self { host, cluster } = self;
        (Self::around(host), cluster)
    }

    /// The same host and three other, empty servers.
    pub(crate) fn another_three(self) -> (Self, Cluster) {
        let Self { host, cluster } = self;
        (Self::on_three(host), cluster)
    }

    /// The log as the tool names it.
    pub(crate) fn kv(&self) -> String {
        format!("kv:{}", self.cluster.servers().join(","))
    }

    /// The state folder of the node that serves the log.
    pub(crate) fn state(&self) -> PathBuf {
        self.host.path("kv-state")
    }

    /// The tool with everything that it needs for the log.
    pub(crate) fn migrate<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Program {
        self.stateless(arguments).env("UNIBUS_STATE_DIR", self.state())
    }

    /// The same without a state folder.
    pub(crate) fn stateless<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Program {
        Program::ours("unibus-migrate")
            .args(arguments)
            .within(&self.host.path(""))
            .env("UNIBUS_AT_REST_KEY_FILE", self.host.key_file())
            .env("UNIBUS_NODESET", self.host.path("keys/nodeset"))
            .env("UNIBUS_INTERNAL_ID_FILE", self.host.path("internal.nk"))
    }

    /// `copy --json` of the database into the log.
    pub(crate) fn copy_in(&self) -> Program {
        let (from, to) = (self.host.store(), self.kv());
        let state = self.host.path("state");
        let copy = self.migrate(["copy", "--json", "--from", &from, "--to", &to]);
        copy.option("--from-nodeset", self.host.path("keys/nodeset")).option("--from-state-dir", state)
    }

    /// `copy --json` of the log into a database of that name.
    pub(crate) fn copy_out(&self, folder: &str) -> Program {
        let to = format!("sqlcipher:{}", self.host.path(folder).join("control.db").display());
        let from = self.kv();
        let copy = self.stateless(["copy", "--json", "--from", &from, "--to", &to]);
        copy.option("--from-state-dir", self.state())
            .option("--state-dir", self.host.path(folder).join("state"))
    }

    /// `restore --json` of a file into the log, with the operator key.
    pub(crate) fn restore(&self, file: &Path) -> Program {
        let to = self.kv();
        let restore = self.migrate(["restore", "--json", "--to", &to]).option("--in", file);
        restore.option("--operator", self.host.path("keys/operator.key"))
    }

    /// The tool on a snapshot.
    pub(crate) fn migrate_file(&self, arguments: &[&str], file: &Path) -> Program {
        let file = format!("snapshot:{}", file.display());
        self.stateless(arguments.iter().copied().chain([file.as_str()]))
    }

    pub(crate) fn status(&self) -> Value {
        let kv = self.kv();
        self.migrate(["status", "--json", &kv]).run().ok().json()
    }

    pub(crate) fn options(&self, access: Access) -> LogOptions {
        let own = Arc::new(NodeKeyFile::load(&self.host.key_file()).unwrap());
        let nodeset = self.host.path("keys/nodeset");
        fs::create_dir_all(self.state()).unwrap();
        LogOptions::new(self.cluster.servers(), Keys::Node(own), &nodeset, &self.state(), Arc::new(now))
            .identity(self.cluster.raw_seed())
            .access(access)
            .replicas(self.cluster.len())
            .boot_budget(Duration::from_secs(20))
    }

    /// Opens the log as the daemon does.
    pub(crate) fn try_serve(&self) -> Result<SealedLog, LogError> {
        SealedLog::open(self.options(Access::Serve))
    }

    pub(crate) fn serve(&self) -> SealedLog {
        self.try_serve().unwrap()
    }
}

/// Waits for an answer of a store.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// Runs what talks to the server as a stranger with all rights on it.
pub(crate) fn as_a_stranger<T>(world: &World, act: impl AsyncFnOnce(&Client) -> T) -> T {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async { act(&world.cluster.client(0).await).await })
}

pub(crate) async fn api(client: &Client, what: &str, request: &Value) -> Value {
    let reply = client.request(format!("$JS.API.{what}"), request.to_string().into()).await.unwrap();
    serde_json::from_slice(&reply.payload).unwrap()
}

/// The last sequence of the stream.
pub(crate) async fn last(client: &Client) -> u64 {
    let info = api(client, &format!("STREAM.INFO.{STREAM}"), &json!({})).await;
    info["state"]["last_seq"].as_u64().unwrap_or_else(|| panic!("{info}"))
}

/// What stands at each sequence: subject and payload.
pub(crate) async fn all(client: &Client) -> Vec<(u64, String, Vec<u8>)> {
    let mut found = Vec::new();
    for sequence in 1..=last(client).await {
        let got = api(client, &format!("STREAM.MSG.GET.{STREAM}"), &json!({ "seq": sequence })).await;
        let message = &got["message"];
        if let Some(subject) = message["subject"].as_str() {
            let data =
                data_encoding::BASE64.decode(message["data"].as_str().unwrap_or("").as_bytes()).unwrap();
            found.push((sequence, subject.to_owned(), data));
        }
    }
    found
}

/// Puts something under a name, with a plain acknowledged publish; gives its sequence.
pub(crate) async fn put(client: &Client, subject: String, payload: &[u8]) -> u64 {
    let reply = client.request(subject, payload.to_vec().into()).await.unwrap();
    let reply: Value = serde_json::from_slice(&reply.payload).unwrap();
    reply["seq"].as_u64().unwrap_or_else(|| panic!("{reply}"))
}

/// Makes the stream anew without the entries at some sequences, all others where they were: what somebody with the
/// server's disk can do.
pub(crate) async fn take_away(client: &Client, gone: &[u64]) {
    let entries = all(client).await;
    let end = last(client).await;
    let info = api(client, &format!("STREAM.INFO.{STREAM}"), &json!({})).await;
    api(client, &format!("STREAM.DELETE.{STREAM}"), &json!({})).await;
    let mut open = info["config"].clone();
    open["deny_delete"] = json!(false);
    open["deny_purge"] = json!(false);
    api(client, &format!("STREAM.CREATE.{STREAM}"), &open).await;
    let mut fillers = Vec::new();
    let mut entries = entries.into_iter().filter(|(sequence, ..)| !gone.contains(sequence)).peekable();
    for sequence in 1..=end {
        let entry = entries.next_if(|(at, ..)| *at == sequence);
        let stored = match entry {
            Some((_, subject, payload)) => put(client, subject, &payload).await,
            None => {
                fillers.push(sequence);
                put(client, format!("{SUBJECTS}filler{sequence}"), b"").await
            }
        };
        assert_eq!(stored, sequence);
    }
    for sequence in fillers {
        let done = api(client, &format!("STREAM.MSG.DELETE.{STREAM}"), &json!({ "seq": sequence })).await;
        assert_eq!(done["success"], true, "{done}");
    }
    let closed = api(client, &format!("STREAM.UPDATE.{STREAM}"), &info["config"]).await;
    assert!(closed["error"].is_null(), "{closed}");
}

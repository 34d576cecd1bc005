//! A sealed log on a nats-server of its own.

use std::io::{BufRead, BufReader, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use unibus_keyfile::{
    id::{Epoch, UnixTime},
    keyring::CarriedOver,
    node_key::NodeKeyFile,
    nodeset::Plan,
    operator_key::OperatorKey,
    secret::StateKey,
};
use unibus_store::keys::Keys;
use unibus_store::record::Timestamp;
use unibus_store::sealed_log::{LogOptions, SealedLog};

use super::fixture::{Counts, Opened};

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn serve(folder: &std::path::Path) -> (Server, String) {
    let program = std::env::var_os("NATS_SERVER_BIN").expect("run `cargo xtask test`");
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let config =
        format!("listen: 127.0.0.1:{port}\njetstream {{ store_dir: \"{}\" }}\n", folder.join("js").display());
    let mut child = Command::new(program)
        .args(["-c", "/dev/stdin"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(config.as_bytes()).unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    while !lines.next().unwrap().unwrap().contains("Server is ready") {}
    std::thread::spawn(move || lines.for_each(drop));
    (Server(child), format!("nats://127.0.0.1:{port}"))
}

#[expect(clippy::disallowed_methods, reason = "an operator copies a nodeset")]
pub(crate) fn open_on_one_node(state: StateKey) -> Opened {
    let folder = tempfile::tempdir().unwrap();
    let now = UnixTime::from_seconds(1_800_000_000);
    let operator = OperatorKey::generate();
    let own = Arc::new(NodeKeyFile::generate("alpha".parse().unwrap(), operator.cluster_id()));
    let nodeset = Plan::first(&operator).with_node(own.member(now)).sign(&operator).unwrap();
    std::fs::write(folder.path().join("nodeset"), nodeset.as_bytes()).unwrap();
    std::fs::create_dir(folder.path().join("state")).unwrap();
    let (server, url) = serve(folder.path());
    let carried = CarriedOver { state, last_epoch: Epoch::FIRST };
    let clock = Arc::new(|| Timestamp::from_micros(1_800_000_000_000_000).unwrap());
    let (nodeset, state_dir) = (folder.path().join("nodeset"), folder.path().join("state"));
    let options = LogOptions::new(vec![url], Keys::Node(own), &nodeset, &state_dir, clock);
    let store = SealedLog::open_carrying(options, Some(carried)).unwrap();
    Opened::new(store, (server, folder)).counting(Counts::Entries)
}

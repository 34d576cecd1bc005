//! One or three real nats-servers that are killed, wiped, rolled back and cut off.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;
use unibus_nats::config::{Cipher, Sync, TlsFiles};
use unibus_nats::process::Signal;
use unibus_nats::{InternalIdentity, NatsError};

use crate::folder::{Contents, Scratch};
use crate::network::{self, Network};
use crate::node::{Common, Node, local};
use crate::ports::Port;
use crate::program::binary;
use crate::proxy::{Proxy, Traffic};
use crate::wait;

/// How a cluster is to be.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    servers: usize,
    proxies: bool,
    namespaces: bool,
    sync: Sync,
    cipher: Option<Cipher>,
}

impl Setup {
    /// That many servers (one, three or five), synced every ten seconds, without server-side encryption.
    #[must_use]
    pub const fn of(servers: usize) -> Self {
        Self {
            servers,
            proxies: true,
            namespaces: false,
            sync: Sync::Every(Duration::from_secs(10)),
            cipher: None,
        }
    }

    /// Routes go from server to server: faster, and nothing can be cut off.
    #[must_use]
    pub const fn without_proxies(mut self) -> Self {
        self.proxies = false;
        self
    }

    /// Each server in a network namespace of its own, so that what is cut off is cut off by the kernel. Where this user
    /// may make none, proxies take their place.
    #[must_use]
    pub const fn in_namespaces(mut self) -> Self {
        self.namespaces = true;
        self
    }

    /// When a write reaches the disk.
    #[must_use]
    pub const fn sync(mut self, sync: Sync) -> Self {
        self.sync = sync;
        self
    }

    /// With nats-server's own encryption, each server with a key of its own.
    #[must_use]
    pub const fn cipher(mut self, cipher: Cipher) -> Self {
        self.cipher = Some(cipher);
        self
    }

    /// Starts all and waits until they are ready.
    ///
    /// # Panics
    /// When they do not get ready.
    #[must_use]
    pub fn start(self) -> Cluster {
        let cluster = self.start_without_waiting();
        cluster.wait_ready();
        cluster
    }

    /// Starts all and waits only until they listen.
    ///
    /// # Panics
    /// When one does not.
    #[must_use]
    pub fn start_without_waiting(self) -> Cluster {
        let mut cluster = Cluster::new(self);
        for node in &mut cluster.nodes {
            node.start(&cluster.common).unwrap();
        }
        for node in &mut cluster.nodes {
            node.wait_listening().unwrap();
        }
        cluster
    }
}

/// One or three running nats-servers. They end with this, with this process, and when a test panics; what they wrote is
/// kept, and its folder printed, when the test fails.
///
/// Servers are named by their number: 0, 1, 2. Everything blocks; in async code only [`Cluster::client`] and
/// [`Cluster::system_client`] are awaited, and the rest is short enough for a test.
///
/// ```no_run
/// # async fn example() {
/// use unibus_tests::Cluster;
///
/// let mut cluster = Cluster::three();
/// let client = cluster.client(0).await; // the control account, with all rights
/// let (_urls, _seed) = (cluster.servers(), cluster.control_seed(0)); // what a daemon of node 0 is given
///
/// let leader = cluster.wait_leader_of("KV_UNIBUS_control");
/// cluster.partition(leader); // the others elect a new one; its own clients still reach it
/// cluster.heal(leader);
///
/// let old = cluster.save(1);
/// cluster.kill(1);
/// cluster.put_back(1, &old); // a rollback of one server
/// cluster.start(1);
/// cluster.wait_ready();
/// # }
/// ```
#[derive(Debug)]
pub struct Cluster {
    // In this order: servers end before their proxies and their folders.
    nodes: Vec<Node>,
    proxies: BTreeMap<(usize, usize), (Proxy, Port)>,
    network: Option<Network>,
    common: Common,
    raw_control: InternalIdentity,
    raw_system: InternalIdentity,
    folder: Scratch,
}

impl Cluster {
    /// One server, ready.
    #[must_use]
    pub fn one() -> Self {
        Setup::of(1).start()
    }

    /// Three servers, ready.
    #[must_use]
    pub fn three() -> Self {
        Setup::of(3).start()
    }

    fn new(setup: Setup) -> Self {
        let folder = Scratch::new();
        let raw_control = InternalIdentity::ephemeral().unwrap();
        let raw_system = InternalIdentity::ephemeral().unwrap();
        let network = setup.namespaces.then(|| Network::new(setup.servers)).flatten();
        let with_proxies = setup.proxies && setup.servers > 1 && network.is_none();
        let only_given_routes = with_proxies || network.is_some();
        let indices = || 0..setup.servers;
        let mut nodes: Vec<_> = indices()
            .map(|index| Node::new(index, folder.join(format!("n{index}")), only_given_routes))
            .collect();
        let mut proxies = BTreeMap::new();
        for from in indices() {
            let mut routes = Vec::new();
            for to in indices().filter(|to| *to != from) {
                let target = nodes[to].cluster_port();
                if network.is_some() {
                    routes.push(format!("{}:{target}", network::address(to, from)));
                } else if with_proxies {
                    let port = Port::take();
                    routes.push(local(port.number()));
                    proxies.insert((from, to), (Proxy::start(port.number(), target), port));
                } else {
                    routes.push(local(target));
                }
            }
            nodes[from].set_routes(routes.iter().map(|route| route.parse().unwrap()).collect());
            if let Some(network) = &network {
                nodes[from].put_into(network.name(from), network.guard(from, &binary("unibus-exec-guard")));
            }
        }
        let common = Common {
            sync: setup.sync,
            cipher: setup.cipher,
            raw_control: raw_control.public().clone(),
            raw_system: raw_system.public().clone(),
            password: format!("p{:032x}", rand::random::<u128>()),
            is_cluster: setup.servers > 1,
        };
        Self { nodes, proxies, network, common, raw_control, raw_system, folder }
    }

    /// The folder of everything that the servers write.
    #[must_use]
    pub fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    /// How many servers there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Never; for those who count.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// One server.
    #[must_use]
    pub fn node(&self, index: usize) -> &Node {
        &self.nodes[index]
    }

    /// URLs of all servers, also of those that do not run.
    #[must_use]
    pub fn servers(&self) -> Vec<String> {
        self.nodes.iter().map(Node::url).collect()
    }

    /// URL of one server.
    #[must_use]
    pub fn url(&self, index: usize) -> String {
        self.nodes[index].url()
    }

    /// The identity of the daemon of one server; other servers do not know it.
    #[must_use]
    pub fn control_seed(&self, index: usize) -> &str {
        self.nodes[index].control_seed()
    }

    /// The seed of a user of the control account with all rights, that every server knows.
    #[must_use]
    pub fn raw_seed(&self) -> &str {
        self.raw_control.expose_seed()
    }

    /// A client of the control account with all rights, connected to one server and to no other.
    ///
    /// # Panics
    /// When it cannot connect.
    pub async fn client(&self, index: usize) -> async_nats::Client {
        connect(&self.url(index), self.raw_seed()).await
    }

    /// A client of the system account.
    ///
    /// # Panics
    /// When it cannot connect.
    pub async fn system_client(&self, index: usize) -> async_nats::Client {
        connect(&self.url(index), self.raw_system.expose_seed()).await
    }

    /// Ends a server at once (signal 9), as a power cut would.
    pub fn kill(&mut self, index: usize) {
        self.nodes[index].end(Signal::Kill);
    }

    /// Ends a server in order.
    pub fn stop(&mut self, index: usize) {
        self.nodes[index].end(Signal::Terminate);
    }

    /// Starts a server that was ended, and waits until it listens (not until it has caught up).
    ///
    /// # Panics
    /// When it does not start.
    pub fn start(&mut self, index: usize) {
        self.try_start(index).unwrap();
    }

    /// Starts a server that was ended.
    ///
    /// # Errors
    /// Why it did not start; it does not run then.
    pub fn try_start(&mut self, index: usize) -> Result<(), NatsError> {
        let node = &mut self.nodes[index];
        let started = node.start(&self.common).and_then(|()| node.wait_listening());
        if started.is_err() {
            node.end(Signal::Kill);
        }
        started
    }

    /// Stops a server where it is, with its connections open.
    pub fn pause(&self, index: usize) {
        self.nodes[index].signal(Signal::Pause);
    }

    /// Lets a paused server go on.
    pub fn resume(&self, index: usize) {
        self.nodes[index].signal(Signal::Continue);
    }

    /// Removes the folder of a server that was ended.
    pub fn wipe(&self, index: usize) {
        self.nodes[index].wipe();
    }

    /// Gives a server that was ended another key for nats-server's own encryption.
    pub fn set_server_key(&mut self, index: usize, key: [u8; 32]) {
        self.nodes[index].set_server_key(key);
    }

    /// Gives a server that was ended a certificate for its clients, or none.
    pub fn set_client_tls(&mut self, index: usize, files: Option<TlsFiles>) {
        self.nodes[index].set_client_tls(files);
    }

    /// Reads the folder of a server, running or not.
    #[must_use]
    pub fn save(&self, index: usize) -> Contents {
        Contents::of(&self.nodes[index].store_dir())
    }

    /// Puts an older folder back, for a server that was ended.
    pub fn put_back(&self, index: usize, saved: &Contents) {
        self.nodes[index].put_back(saved);
    }

    /// Cuts a server off from the others: what they send each other is lost, and connections stay open. Its clients
    /// still reach it.
    pub fn partition(&self, index: usize) {
        self.set_traffic(index, Traffic::Lost);
    }

    /// Connects it again.
    pub fn heal(&self, index: usize) {
        self.set_traffic(index, Traffic::Passes);
    }

    /// Says what happens to the traffic between one server and all others.
    ///
    /// # Panics
    /// Without proxies and namespaces.
    pub fn set_traffic(&self, index: usize, traffic: Traffic) {
        for other in (0..self.len()).filter(|other| *other != index) {
            self.set_traffic_between(index, other, traffic);
        }
    }

    /// Says what happens to the traffic between two servers. A cable knows only whether it is plugged in.
    ///
    /// # Panics
    /// Without proxies and namespaces.
    pub fn set_traffic_between(&self, one: usize, other: usize, traffic: Traffic) {
        if let Some(network) = &self.network {
            let state = if traffic == Traffic::Passes { "up" } else { "down" };
            return network.set_cable(one, other, state);
        }
        for pair in [(one, other), (other, one)] {
            self.proxies.get(&pair).expect("there is no proxy that could cut").0.set(traffic);
        }
    }

    /// Loses what one server sends to another, while what the other sends arrives. Through proxies, where there are no
    /// namespaces, both directions are lost.
    ///
    /// # Panics
    /// Without proxies and namespaces.
    pub fn lose_one_way(&self, from: usize, to: usize) {
        match &self.network {
            Some(network) => network.lose(from, to, "add"),
            None => self.set_traffic_between(from, to, Traffic::Lost),
        }
    }

    /// Ends what [`Cluster::lose_one_way`] began.
    ///
    /// # Panics
    /// When it was not begun.
    pub fn heal_one_way(&self, from: usize, to: usize) {
        match &self.network {
            Some(network) => network.lose(from, to, "delete"),
            None => self.set_traffic_between(from, to, Traffic::Passes),
        }
    }

    fn running(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(|node| node.is_running())
    }

    /// Waits until all running servers agree on a leader, are healthy, and every stream has a leader.
    ///
    /// # Panics
    /// When they do not in time.
    pub fn wait_ready(&self) {
        wait::until("healthy servers", || self.is_ready().then_some(()));
    }

    fn is_ready(&self) -> bool {
        let mut leaders = Vec::new();
        for node in self.running() {
            if !node.is_healthy() {
                return false;
            }
            if !self.common.is_cluster {
                continue;
            }
            let Some(page) = node.monitor("/jsz?streams=true&accounts=true") else { return false };
            let meta = &page["meta_cluster"];
            leaders.push(meta["leader"].as_str().unwrap_or_default().to_owned());
            let all_know = meta["cluster_size"].as_u64() == u64::try_from(self.nodes.len()).ok();
            let all_led = streams(&page).iter().all(|stream| stream["cluster"]["leader"].is_string());
            if !all_know || !all_led {
                return false;
            }
        }
        leaders.windows(2).all(|pair| pair[0] == pair[1]) && !leaders.first().is_some_and(String::is_empty)
    }

    /// Waits until all running servers hold the same of every stream. Nothing may be written meanwhile.
    ///
    /// # Panics
    /// When they do not in time.
    pub fn wait_in_sync(&self) {
        self.wait_ready();
        wait::until("servers in sync", || {
            let states: Option<Vec<_>> = self.running().map(state).collect();
            let states = states?;
            (self.is_ready() && states.windows(2).all(|pair| pair[0] == pair[1])).then_some(())
        });
    }

    /// The server that leads a stream, as most servers see it; `None` while there is none.
    #[must_use]
    pub fn leader_of(&self, stream: &str) -> Option<usize> {
        let mut votes = BTreeMap::<String, usize>::new();
        for node in self.running() {
            let page = node.monitor("/jsz?streams=true&accounts=true")?;
            let all = streams(&page);
            let Some(found) = all.iter().find(|found| found["name"] == stream) else { continue };
            // A server that is alone has nobody to lead, and says nothing of it.
            let leader = found["cluster"]["leader"].as_str();
            let leader =
                leader.map(str::to_owned).or_else(|| (self.len() == 1).then(|| node.name().to_owned()));
            *votes.entry(leader.unwrap_or_default()).or_default() += 1;
        }
        let (name, _) = votes.into_iter().find(|(name, count)| !name.is_empty() && count * 2 > self.len())?;
        self.nodes.iter().position(|node| node.name() == name)
    }

    /// Waits for a leader of a stream.
    ///
    /// # Panics
    /// When there is none in time.
    #[must_use]
    pub fn wait_leader_of(&self, stream: &str) -> usize {
        wait::until("a leader", || self.leader_of(stream))
    }
}

fn streams(page: &Value) -> Vec<&Value> {
    let accounts = page["account_details"].as_array().into_iter().flatten();
    accounts.flat_map(|account| account["stream_detail"].as_array().into_iter().flatten()).collect()
}

/// Name, messages and last sequence of each stream that a server holds.
fn state(node: &Node) -> Option<BTreeMap<String, (u64, u64)>> {
    let page = node.monitor("/jsz?streams=true&accounts=true")?;
    let of_one = |stream: &&Value| {
        let state = &stream["state"];
        let numbers = (state["messages"].as_u64()?, state["last_seq"].as_u64()?);
        Some((stream["name"].as_str()?.to_owned(), numbers))
    };
    streams(&page).iter().map(of_one).collect()
}

async fn connect(url: &str, seed: &str) -> async_nats::Client {
    let options = async_nats::ConnectOptions::with_nkey(seed.to_owned()).ignore_discovered_servers();
    options.connect(url).await.unwrap_or_else(|error| panic!("cannot connect to {url}: {error}"))
}

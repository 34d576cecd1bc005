//! A log on servers of somebody else: over TLS, known by a CA, or not at all.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use unibus_keyfile::node_key::NodeKeyFile;
use unibus_store::keys::Keys;
use unibus_store::record::Timestamp;
use unibus_store::sealed_log::{LogError, LogOptions, SealedLog};
use unibus_tests::kv::KvHosts;
use unibus_tests::{Authority, Cluster, Daemon, Program, wait};

/// Keys of one host, and a server beside it that is not its own.
struct World {
    hosts: KvHosts,
    cluster: Cluster,
}

impl World {
    fn new() -> Self {
        let (hosts, cluster) = (KvHosts::new(1), Cluster::one());
        fs::write(hosts.shared("internal.nk"), cluster.raw_seed()).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        fs::set_permissions(hosts.shared("internal.nk"), mode).unwrap();
        Self { hosts, cluster }
    }

    /// Starts the server anew, with that certificate or none.
    fn serve_with(&mut self, files: Option<unibus_nats::config::TlsFiles>) {
        self.cluster.stop(0);
        self.cluster.set_client_tls(0, files);
        self.cluster.start(0);
    }

    fn keyed(&self, program: Program) -> Program {
        program
            .env("UNIBUS_AT_REST_KEY_FILE", self.hosts.shared("keys/host1.key"))
            .env("UNIBUS_NODESET", self.hosts.shared("keys/nodeset"))
            .env("UNIBUS_INTERNAL_ID_FILE", self.hosts.shared("internal.nk"))
            .within(&self.hosts.shared(""))
    }

    fn daemon(&self, url: &str) -> Program {
        self.keyed(Program::ours("membershipd"))
            .args(["--store", "kv", "--nats-url", url])
            .option("--state-dir", self.hosts.path(0, "state"))
            .option("--store-dir", self.hosts.path(0, "blobs"))
    }

    fn status(&self, url: &str) -> Program {
        self.keyed(Program::ours("unibus-migrate")).args(["status", "--json", &format!("kv:{url}")])
    }

    fn open(&self, url: &str, ca: Option<&Path>, state: &str) -> Result<SealedLog, LogError> {
        let own = NodeKeyFile::load(&self.hosts.shared("keys/host1.key")).unwrap();
        let clock = || Timestamp::from_micros(1_700_000_000_000_000).unwrap();
        let state = self.hosts.path(0, state);
        fs::create_dir_all(&state).unwrap();
        let nodeset = self.hosts.shared("keys/nodeset");
        let keys = Keys::Node(Arc::new(own));
        let options = LogOptions::new(vec![url.to_owned()], keys, &nodeset, &state, Arc::new(clock))
            .identity(self.cluster.raw_seed())
            .boot_budget(Duration::from_secs(30));
        SealedLog::open(match ca {
            Some(ca) => options.ca(ca),
            None => options,
        })
    }
}

fn with(program: Program, ca: Option<&Path>) -> Program {
    match ca {
        Some(ca) => program.option("--ca", ca),
        None => program,
    }
}

#[test]
fn a_server_of_another_host_is_not_spoken_to_without_a_ca() {
    let world = World::new();
    for url in ["nats://192.0.2.1:4222", "nats://127.0.0.1:4222,nats://bus.example:4222"] {
        let refused = world.hosts.refused(world.daemon(url)).exits(2);
        assert!(refused.said().contains("--ca"), "{}", refused.said());
        let refused = world.status(url).run().exits(2);
        assert!(refused.said().contains("UB-M016") && refused.said().contains("--ca"), "{}", refused.said());
    }
    for url in ["tls://127.0.0.1:4222", "nats://user:password@127.0.0.1:4222"] {
        let refused = world.hosts.refused(world.daemon(url)).exits(2);
        assert!(refused.said().contains("nats://HOST:PORT"), "{}", refused.said());
        let refused = world.status(url).run().exits(2);
        assert!(refused.said().contains("nats://HOST:PORT"), "{}", refused.said());
    }
}

#[test]
fn a_server_with_tls_is_served_from_if_its_certificate_is_signed_by_the_ca_for_that_host() {
    let mut world = World::new();
    let (ours, another) = (Authority::new(), Authority::new());
    let ca = ours.certificate();
    let url = world.cluster.url(0);
    world.serve_with(Some(ours.sign("127.0.0.1")));

    // As it is meant.
    let daemon = Daemon::start(world.daemon(&url).option("--ca", &ca), &world.hosts.path(0, "logs"));
    let listed = |ca: &Path| {
        let program = world.keyed(Program::ours("membershipd")).args(["user", "list", "--json"]);
        program.args(["--store", "kv", "--nats-url", &url]).option("--ca", ca)
    };
    assert_eq!(listed(&ca).run().ok().json().as_array().unwrap().len(), 0);
    let status = world.status(&url).option("--ca", &ca).run().ok().json();
    assert_eq!(status["records"], 0, "{status}");

    // Another CA, none, and files that are no CA.
    let (garbage, missing) = (world.hosts.shared("garbage.pem"), world.hosts.shared("missing.pem"));
    fs::write(&garbage, "no certificate").unwrap();
    let refusals = [
        (Some(another.certificate()), "UB-L019"),
        (None, "UB-L019"),
        (Some(garbage), "UB-L020"),
        (Some(missing), "UB-L020"),
    ];
    for (ca, code) in &refusals {
        let begun = Instant::now();
        let refused = with(world.status(&url), ca.as_deref()).run().exits(2);
        assert!(refused.said().contains(code) && refused.said().contains("--ca"), "{}", refused.said());
        // Not as if it could become better by waiting.
        assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    }
    assert_eq!(daemon.stop(), Some(0));
    for (ca, code) in &refusals {
        let refused = world.hosts.refused(with(world.daemon(&url), ca.as_deref())).exits(2);
        assert!(refused.said().contains(code) && refused.said().contains("--ca"), "{}", refused.said());
    }

    // The right CA, and a certificate for another host.
    world.serve_with(Some(ours.sign("bus.example")));
    let refused = world.open(&url, Some(&ca), "state").unwrap_err();
    assert!(
        matches!(&refused, LogError::ServerNotTrusted { why } if why.contains("not valid for name")),
        "{refused}"
    );

    // A server that speaks no TLS, or somebody in between who says so.
    world.serve_with(None);
    let refused = world.open(&url, Some(&ca), "state").unwrap_err();
    assert!(matches!(refused, LogError::ServerNotTrusted { .. }), "{refused}");

    // Back in order: the same log.
    world.serve_with(Some(ours.sign("127.0.0.1")));
    let log = wait::until("the log", || world.open(&url, Some(&ca), "state").ok());
    assert!(!log.was_made());
}

//! A restore does not bring a revoked user or a used request back: through the real daemon, over HTTP.

use serde_json::json;
use unibus_keyfile::secret::Seed;
use unibus_keyfile::suite::Signature25519;
use unibus_membership_api::signature::{Request, SignatureParameters, sign};
use unibus_tests::http::{self, Answer};
use unibus_tests::{Daemon, Host, kv, wait};

use unibus_tests::World;

/// Somebody who can sign.
struct User(Signature25519);

/// A signed request as somebody on the wire sees it.
#[derive(Clone)]
struct Captured(Vec<(String, String)>);

impl User {
    fn new() -> Self {
        Self(Signature25519::derive(&Seed::generate(), b"test"))
    }

    fn hex(&self) -> String {
        data_encoding::HEXLOWER.encode(&self.0.public())
    }

    /// A request by a clock that is ahead by so many seconds.
    fn ask(&self, ahead: i64) -> Captured {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        let nonce = data_encoding::BASE64URL_NOPAD.encode(&rand::random::<[u8; 16]>());
        let created = i64::try_from(now.as_secs()).unwrap() + ahead;
        let parameters = SignatureParameters { created, nonce: &nonce, key_id: self.0.public() };
        // The port is another one after a restart: whoever repeats a request would name the one that was signed.
        let request = Request {
            method: "GET",
            path: "/users",
            query: None,
            authority: None,
            content_digest: None,
            content_type: None,
        };
        let signer = |base: &[u8]| Ok::<_, std::convert::Infallible>(self.0.sign_bare(base));
        let signed = sign(&request, &parameters, signer).unwrap();
        Captured(vec![
            ("signature-input".to_owned(), signed.signature_input),
            ("signature".to_owned(), signed.signature),
        ])
    }
}

impl Captured {
    fn send(&self, daemon: &Daemon) -> Answer {
        let headers = self.0.clone();
        http::send(daemon.port, &http::Request { method: "GET", path: "/users", headers, body: b"" }).unwrap()
    }

    fn is_refused(&self, daemon: &Daemon, code: &str) {
        let answer = self.send(daemon).has(401);
        let said = String::from_utf8_lossy(&answer.body).into_owned();
        assert!(said.contains(code), "{code}: {said}");
    }
}

/// Who there is, and what was sent before the restore.
struct Before {
    admin: User,
    revoked: User,
    /// Added and revoked after the snapshot: it knows nothing of this one.
    unknown: User,
    captured: Vec<Captured>,
}

impl Before {
    /// Sends requests of clocks that are right, ahead and behind, and sees that none is taken twice.
    fn ask(admin: User, revoked: User, unknown: User, daemon: &Daemon) -> Self {
        revoked.ask(0).send(daemon).has(200);
        // A minute is allowed in both directions.
        let captured: Vec<_> = [-20, 0, 30, 57].into_iter().map(|ahead| admin.ask(ahead)).collect();
        for one in &captured {
            one.send(daemon).has(200);
            one.is_refused(daemon, "replayed");
        }
        Self { admin, revoked, unknown, captured }
    }

    /// After the restore nobody is back.
    fn is_not_back(&self, daemons: &[&Daemon]) {
        for daemon in daemons {
            for one in &self.captured {
                // One that has run out meanwhile is refused for that.
                let answer = one.send(daemon).has(401);
                let said = String::from_utf8_lossy(&answer.body).into_owned();
                assert!(said.contains("replayed") || said.contains("expired"), "{said}");
            }
            self.captured.last().unwrap().is_refused(daemon, "replayed");
            for user in [&self.revoked, &self.unknown] {
                user.ask(59).is_refused(daemon, "unknown");
            }
            // The control: whoever is let in is let in, and nothing is simply shut.
            let (fresh, listed) = wait::until("a request that is later than the floor", || {
                let fresh = self.admin.ask(59);
                let answer = fresh.send(daemon);
                (answer.status == 200).then(|| (fresh, answer.json()))
            });
            fresh.is_refused(daemon, "replayed");
            let of = |user: &User| {
                listed.as_array().unwrap().iter().find(|one| one["sign_pub"] == user.hex().as_str()).cloned()
            };
            assert_eq!(of(&self.revoked).unwrap()["status"], "revoked", "{listed}");
        }
    }
}

#[test]
fn neither_a_revoked_user_nor_a_used_request_comes_back_into_a_database() {
    let host = Host::new();
    let serve = || Daemon::start(host.daemon_command().env("UNIBUS_BUS_AUTH", "enforce"), &host.path("logs"));
    let daemon = serve();
    let user = |words: &[&str]| host.daemon_command().args(["user"]).args(words).run();
    let add = |user_: &User, role: &str| {
        user(&["add", "--handle", "somebody", "--role", role, "--sign-pub", &user_.hex()]).ok();
    };
    let (admin, revoked, unknown) = (User::new(), User::new(), User::new());
    add(&admin, "admin");
    add(&revoked, "admin");
    host.snapshot("a.snapshot").run().ok();
    add(&unknown, "member");
    let before = Before::ask(admin, revoked, unknown, &daemon);
    user(&["revoke", &before.revoked.hex()]).ok();
    user(&["revoke", &before.unknown.hex()]).ok();
    assert_eq!(daemon.stop(), Some(0));
    let old = host.path("old");
    std::fs::rename(host.path("data"), &old).unwrap();
    std::fs::rename(host.path("state"), old.join("state")).unwrap();
    std::fs::create_dir(host.path("data")).unwrap();
    let supersede = format!("sqlcipher:{}", old.join("control.db").display());
    let restored = host
        .restore("a.snapshot")
        .args(["--json", "--supersede", &supersede])
        .option("--supersede-nodeset", host.path("keys/nodeset"))
        .run()
        .ok()
        .json();
    assert_eq!(restored["sticky"]["users_kept_revoked"], 1, "{restored}");
    assert_eq!(restored["sticky"]["revoked_users_added"], 1, "{restored}");
    let daemon = serve();
    before.is_not_back(&[&daemon]);
    // Nor can it be brought back by adding it: it is known, and revoked.
    for revoked in [&before.revoked, &before.unknown] {
        let again = user(&["add", "--handle", "again", "--sign-pub", &revoked.hex()]);
        assert!(again.code != 0 && again.said().contains("already registered"), "{}", again.said());
    }
    assert_eq!(daemon.stop(), Some(0));
    host.verify().run().ok();
}

#[test]
fn neither_a_revoked_user_nor_a_used_request_comes_back_into_a_log_of_three_nodes() {
    let mut world = World::start();
    let (admin, revoked, unknown) = (User::new(), User::new(), User::new());
    let add = |world: &World, user: &User| {
        let words = ["user", "add", "--handle", "somebody", "--role", "admin", "--sign-pub", &user.hex()];
        world.hosts.command(0, &words).run().ok();
    };
    add(&world, &admin);
    add(&world, &revoked);
    world.wait_same_digest();
    let file = world.hosts.shared("a.snapshot");
    let store = format!("kv:{}", world.servers(0));
    world.migrate(0, ["snapshot", "--from", &store, "--out"]).args([&file]).run().ok();
    add(&world, &unknown);
    world.wait_same_digest();
    let before = Before::ask(admin, revoked, unknown, &world.daemons[0]);
    for user in [&before.revoked, &before.unknown] {
        world.hosts.command(1, &["user", "revoke", &user.hex()]).run().ok();
    }
    // All servers are lost, with all state folders.
    for daemon in world.daemons.drain(..) {
        let nats = kv::wait_for_nats(&daemon, None);
        daemon.kill();
        kv::wait_until_gone(nats);
    }
    for index in 0..3 {
        kv::remove(&world.hosts.path(index, "nats"));
        kv::remove(&world.hosts.path(index, "state"));
    }
    world.daemons = (0..3).map(|index| world.spawn(index)).collect();
    (0..3).for_each(|index| drop(world.wait_proven(index)));
    let list = world.hosts.shared("revoked");
    std::fs::write(&list, format!("{}\n{}\n", before.revoked.hex(), before.unknown.hex())).unwrap();
    let restore = world.migrate(0, ["restore", "--json", "--yes", "--to", &store]).option("--in", &file);
    let restore =
        restore.option("--operator", world.hosts.shared("keys/operator.key")).option("--revoked", &list);
    let restored = restore.run().ok().json();
    assert_eq!(restored["sticky"]["users_kept_revoked"], 1, "{restored}");
    world.wait_same_digest();
    assert_eq!(world.detail(0)["lineage"], restored["lineage"], "{}", json!(world.detail(0)));
    let daemons: Vec<&Daemon> = world.daemons.iter().collect();
    before.is_not_back(&daemons);
}

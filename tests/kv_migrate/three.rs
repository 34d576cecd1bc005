//! The tool on a log of three nodes.

use unibus_store::store::{PostureState, Store, Strength};
use unibus_tests::{Host, wait};

use crate::world::{World, digest};

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

#[test]
fn a_database_goes_to_three_servers_and_back_and_each_server_may_go_meanwhile() {
    let host = Host::with_sample(600, 60);
    let before = host.status();
    let mut world = World::on_three(host);
    let kv = world.kv();
    // The tool makes the log, of three copies.
    std::fs::create_dir(world.state()).unwrap();
    let copied = world.copy_in().args(["--kv-replicas", "3"]).run().ok().json();
    assert_eq!((digest(&copied), &copied["read_back"]), (digest(&before), &"equal".into()));
    let status = wait::until("three current copies", || {
        let status = world.status();
        (status["log"]["replicas"] == serde_json::json!({"wanted": 3, "current": 3})).then_some(status)
    });
    assert_eq!((digest(&status), &status["entries"]), (digest(&before), &before["entries"]));

    // A daemon serves from it; the servers go one after the other, and every command still does its work.
    let daemon = world.serve();
    world.cluster.kill(0);
    let file = world.host.path("three.snapshot");
    let answered = |what: &str, run: &dyn Fn() -> unibus_tests::Run| {
        // While the others elect a leader it is refused as unreachable, and as nothing else.
        wait::until(what, || {
            let run = run();
            assert!([0, 3].contains(&run.code), "{}", run.said());
            (run.code == 0).then(|| run.json())
        })
    };
    let verified = answered("verify", &|| world.migrate(["verify", "--json", &kv]).run());
    assert_eq!((digest(&verified), &verified["verified"]), (digest(&before), &true.into()));
    let snapshot = answered("snapshot", &|| {
        world.migrate(["snapshot", "--json", "--from", &kv, "--out"]).args([&file]).run()
    });
    assert_eq!(snapshot["records"], copied["records"]);
    world.cluster.start(0);
    world.cluster.wait_ready();
    world.cluster.kill(1);
    let back = answered("the way back", &|| world.copy_out("back").run());
    assert_eq!(digest(&back), digest(&before));
    let status = answered("status", &|| world.migrate(["status", "--json", &kv]).run());
    assert_eq!(status["log"]["replicas"]["wanted"], 3, "{status}");
    world.cluster.start(1);
    world.cluster.wait_ready();
    wait::until("the daemon", || (daemon.posture().state == PostureState::Proven).then_some(()));
    assert_eq!(block_on(daemon.users(Strength::Linearizable)).unwrap().len(), 600);
    // Nothing of it can be read on any of the three disks.
    let audit = (0..3).fold(world.migrate(["audit", "--json", &kv]), |audit, index| {
        audit.option("--data-dir", world.cluster.node(index).store_dir())
    });
    let report = audit.run().ok().json();
    assert_eq!(report["residue"], "none", "{report}");
    let sealed: u64 =
        report["report"]["envelopes"].as_object().unwrap().values().map(|n| n.as_u64().unwrap()).sum();
    assert!(sealed >= 3 * copied["records"].as_u64().unwrap(), "not all three were read: {report}");
    drop(daemon);

    // Restored on three other servers.
    std::fs::rename(world.state(), world.host.path("old-state")).unwrap();
    let (world, _old) = world.another_three();
    std::fs::create_dir(world.state()).unwrap();
    let restored = world.restore(&file).args(["--kv-replicas", "3"]).run().ok().json();
    assert_eq!((digest(&restored), &restored["records"]), (digest(&snapshot), &snapshot["records"]));
    assert_ne!(restored["lineage"], snapshot["lineage"]);
    let daemon = world.serve();
    assert_eq!(daemon.position().unwrap().digest.to_string(), digest(&before));
}

//! `unibus-key inspect`: what it shows of each kind of file.

use unibus_keyfile::{
    acknowledgement::Acknowledgement,
    census::{Census, CensusFacts},
};

use super::*;

fn census_facts(keyring: &Keyring, created: UnixTime) -> CensusFacts {
    CensusFacts {
        cluster: *keyring.cluster(),
        lineage: *keyring.lineage(),
        keyring_version: keyring.version(),
        keyring_hash: keyring.hash(),
        stream: "KV_UNIBUS_control".into(),
        barrier: 9,
        barrier_id: [1; 16],
        digest: [2; 32],
        records: 3,
        entries: vec![(unibus_keyfile::id::Epoch::FIRST, 4)],
        unsealed: 0,
        undecryptable: 0,
        disk: None,
        created,
    }
}

#[test]
fn inspect_names_every_kind_of_file_and_shows_no_secret() {
    let desk = Desk::with_cluster();
    desk.ok(&["request", "keys/a.key", "--out", "a.request"]);
    desk.ok(&["recovery", "generate", "--out", "safe.key"]);
    let now = UnixTime::from_seconds(1_800_000_000);
    let own = NodeKeyFile::load(&desk.path("keys/a.key")).unwrap();
    let (keyring, secrets) = Keyring::create(&desk.nodeset(), &own, Lineage::random(), None, now).unwrap();
    write(&desk.path("keyring"), keyring.as_bytes());
    let word = Acknowledgement::sign(&own, &keyring, &secrets, now).unwrap();
    write(&desk.path("acknowledgement"), word.as_bytes());
    let facts = census_facts(&keyring, now);
    write(&desk.path("census"), Census::sign(&own, facts).unwrap().as_bytes());
    let witness = Witness {
        cluster: desk.pin(),
        lineage: *keyring.lineage(),
        sequence: unibus_keyfile::id::Sequence(7),
        digest: unibus_keyfile::digest::StateDigest::EMPTY,
        nodeset_version: 1,
        nodeset_hash: desk.nodeset().hash(),
        keyring_version: 1,
        keyring_hash: keyring.hash(),
        last_drill: None,
        last_proof: Some(now),
    };
    witness
        .store(desk.0.path(), &WitnessSealer::new(&own.slots()[0]), unibus_keyfile::durable::Sync::Later)
        .unwrap();
    for (name, kind) in [
        ("keys/operator.key", "operator key"),
        ("keys/a.key", "node key"),
        ("keys/nodeset", "nodeset"),
        ("keyring", "keyring"),
        ("acknowledgement", "acknowledgement"),
        ("census", "census"),
        ("a.request", "enrolment request"),
        ("safe.key", "recovery key"),
        ("safe.key.pub", "recovery recipient"),
        ("witness", "witness"),
    ] {
        let text = desk.ok(&["inspect", name]);
        let json = desk.ok(&["--json", "inspect", name]).json();
        assert_eq!(json["kind"], kind, "{name}");
        assert_eq!(json["permissions"]["ok"], true, "{name}");
        let secret = std::fs::read_to_string(desk.path(name)).unwrap_or_default();
        for line in secret.lines().filter(|line| line.starts_with("UNIBUS-")) {
            assert!(
                !text.stdout.contains(&line[30..60]) && !json.to_string().contains(&line[30..60]),
                "{name}"
            );
        }
    }
    let opened = desk.ok(&["--json", "inspect", "witness", "--key-file", "keys/a.key"]).json();
    assert_eq!((&opened["sequence"], &opened["last_drill"]), (&Value::from(7), &Value::from("never")));
    desk.refused(&["inspect", "witness", "--key-file", "keys/b.key"], 6, "UB-K051");
    let held = desk.ok(&["--json", "inspect", "keyring", "--nodeset", "keys/nodeset"]).json();
    assert_eq!(
        (&held["trusted"], &held["epochs"][0]["state"]),
        (&Value::Bool(true), &Value::from("primary"))
    );
    let held = desk.ok(&["--json", "inspect", "acknowledgement", "--nodeset", "keys/nodeset"]).json();
    assert_eq!((&held["node"], &held["keyring_version"]), (&Value::from("a"), &Value::from(1)));
    let other = Desk::with_cluster();
    let nodeset = other.path("keys/nodeset");
    let held = desk.ok(&["--json", "inspect", "census", "--nodeset", "keys/nodeset"]).json();
    assert_eq!((&held["node"], &held["entries"][0]["count"]), (&Value::from("a"), &Value::from(4)));
    assert!(held["disk"].is_null());
    for name in ["keyring", "acknowledgement", "census"] {
        desk.refused(&["inspect", name, "--nodeset", nodeset.to_str().unwrap()], 6, "UB-K023");
    }
    desk.refused(&["inspect", "keys/nodeset", "--cluster", &other.pin().to_string()], 6, "UB-K023");
}

#[test]
fn inspect_reports_wrong_permissions_and_goes_on() {
    let desk = Desk::with_cluster();
    let path = desk.path("keys/a.key");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    let shown = desk.ok(&["--json", "inspect", "keys/a.key"]).json();
    assert_eq!((&shown["name"], &shown["permissions"]["ok"]), (&Value::from("a"), &Value::Bool(false)));
    assert!(desk.ok(&["inspect", "keys/a.key"]).stdout.contains("WRONG"));
    desk.refused(&["request", "keys/a.key"], 2, "UB-K013");
    std::os::unix::fs::symlink("keys/b.key", desk.path("link")).unwrap();
    let shown = desk.ok(&["--json", "inspect", "link"]).json();
    assert_eq!(shown["permissions"]["ok"], false);
}

#[test]
fn inspect_refuses_what_is_damaged_or_unknown() {
    let desk = Desk::with_cluster();
    let text = std::fs::read_to_string(desk.path("keys/a.key")).unwrap();
    write(&desk.path("cut.key"), &text[..text.len() - 10]);
    desk.refused(&["inspect", "cut.key"], 4, "UB-K014");
    let nodeset = std::fs::read(desk.path("keys/nodeset")).unwrap();
    write(&desk.path("cut"), &nodeset[..nodeset.len() - 1]);
    desk.refused(&["inspect", "cut"], 4, "UB-K020");
    let mut changed = nodeset;
    changed[40] ^= 1;
    write(&desk.path("changed"), &changed);
    desk.refused(&["inspect", "changed"], 4, "UB-K021");
    write(&desk.path("unknown"), b"\x00\x01");
    desk.refused(&["inspect", "unknown"], 4, "UB-K063");
    desk.refused(&["inspect", "keys"], 2, "UB-K012");
    desk.refused(&["inspect", "none"], 2, "UB-K010");
    write(&desk.path("huge"), vec![0; 3 << 20]);
    desk.refused(&["inspect", "huge"], 2, "UB-K014");
}

//! The snapshots of `testdata/v1`: good ones, and each with one defect. Read here and by a second implementation.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a failed step fails the test")]

use std::collections::BTreeMap;
use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::process::Command;

use data_encoding::HEXLOWER;
use unibus_keyfile::digest::{RunningHash, StateDigest, StateHasher, sha256};
use unibus_keyfile::id::{ClusterId, Lineage, Sequence, UnixTime};
use unibus_keyfile::keyring::Keyring;
use unibus_keyfile::node_key::NodeKeyFile;
use unibus_keyfile::nodeset::{Nodeset, Plan};
use unibus_keyfile::operator_key::{OperatorKey, RecoveryKey};
use unibus_keyfile::suite::Signature25519;
use unibus_store::archive::{
    self, Header, Origin, PREFIX_BYTES, Readers, Recipient, Records, SIGNATURE_LABEL, TRAILER_BYTES, Writer,
};
use unibus_store::record::{
    Channel, Endpoint, Handle, Policy, Room, RoomId, SignPub, Subject, Timestamp, User, UserRole,
};
use unibus_store::store::Position;

/// One vector: its lines and its bytes.
struct Vector {
    lines: Vec<(String, String)>,
    bytes: Vec<u8>,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/v1")
}

fn load(name: &str) -> Vector {
    let file = fs::read(folder().join(format!("{name}.vec"))).unwrap();
    let head = file.windows(2).position(|pair| pair == b"\n\n").unwrap();
    let text = std::str::from_utf8(&file[..head]).unwrap();
    let lines = text.lines().map(|line| line.split_once(": ").unwrap());
    let lines: Vec<(String, String)> =
        lines.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let mut vector = Vector { lines, bytes: file[head + 2..].to_vec() };
    let Some(base) = vector.line("base").map(str::to_owned) else { return vector };
    let base = load(&base);
    vector.bytes = base.bytes;
    for (_, edit) in vector.lines.iter().filter(|(name, _)| name == "edit") {
        let (offset, hex) = edit.split_once(' ').unwrap();
        let (offset, new) = (offset.parse::<usize>().unwrap(), HEXLOWER.decode(hex.as_bytes()).unwrap());
        vector.bytes[offset..offset + new.len()].copy_from_slice(&new);
    }
    if let Some(length) = vector.line("length") {
        vector.bytes.resize(length.parse().unwrap(), 0);
    }
    // What a vector does not say is as in its base.
    for (name, value) in base.lines {
        if vector.line(&name).is_none() {
            vector.lines.push((name, value));
        }
    }
    vector
}

impl Vector {
    fn line(&self, name: &str) -> Option<&str> {
        self.lines.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    fn operator(&self) -> OperatorKey {
        OperatorKey::parse(self.line("operator").unwrap(), || None).unwrap()
    }

    /// The name of the first error, or `ok`.
    fn outcome(&self) -> String {
        let pin = HEXLOWER.decode(self.line("pin").unwrap().as_bytes()).unwrap();
        let pin = ClusterId::from_bytes(pin.try_into().unwrap());
        let mut reader = Cursor::new(&self.bytes);
        let read = archive::verify(&mut reader, Some(&pin)).and_then(|verified| {
            let unlocked = verified.unlock(&Recipient::Recovery(&self.operator()))?;
            let mut records = Records::start(&mut reader, &verified, &unlocked)?;
            while records.next_record()?.is_some() {}
            Ok(records.summary().unwrap())
        });
        match read {
            Ok(summary) => {
                assert_eq!(summary.records.to_string(), self.line("records").unwrap());
                "ok".to_owned()
            }
            Err(error) => format!("{error:?}").chars().take_while(char::is_ascii_alphanumeric).collect(),
        }
    }
}

fn names() -> Vec<String> {
    let files =
        fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = files
        .filter_map(|file| Some(file.strip_suffix(".vec")?.to_owned()))
        .filter(|name| name.starts_with("snapshot_"))
        .collect();
    names.sort();
    assert!(names.len() >= 20, "{names:?}");
    names
}

#[test]
fn each_vector_is_read_or_refused_as_it_says() {
    for name in names() {
        let vector = load(&name);
        assert_eq!(vector.outcome(), vector.line("expect").unwrap(), "{name}");
    }
}

#[test]
fn the_second_implementation_agrees_on_each_vector() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/python/read_snapshot.py");
    let work = tempfile::tempdir().unwrap();
    for name in names() {
        let vector = load(&name);
        let (expected, file) = (vector.line("expect").unwrap(), work.path().join(&name));
        unibus_keyfile::durable::create_new(&file, &vector.bytes, 0o600).unwrap();
        let mut command = Command::new("python3");
        command.arg(&script).arg(&file).args(["--pin", vector.line("pin").unwrap()]);
        command.args(["--snapshot-key", vector.line("snapshot-key").unwrap()]);
        let output = command.output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        if expected == "ok" {
            assert!(output.status.success(), "{name}: {stderr}");
            let read: BTreeMap<String, serde_json::Value> = serde_json::from_slice(&output.stdout).unwrap();
            assert_eq!(read["records"].to_string(), vector.line("records").unwrap(), "{name}");
            assert_eq!(read["running_hash"], vector.line("running-hash").unwrap(), "{name}");
            let (header, _) = Header::decode(&vector.bytes).unwrap();
            assert_eq!(read["lineage"], header.lineage.to_string());
            assert_eq!(read["node"], header.node.as_str());
        } else {
            // Given the snapshot key, it does not unwrap one: it finds out at the first chunk.
            let expected = if expected == "Unauthentic" { "Chunk" } else { expected };
            assert_eq!(stderr.trim(), format!("error: {expected}"), "{name}");
        }
    }
}

/// Makes the vectors. They were made once; this refuses to overwrite one.
#[test]
#[ignore = "the vectors are made and never edited"]
fn make_the_vectors() {
    let now = UnixTime::from_seconds(1_790_000_000);
    let operator = OperatorKey::generate();
    let node = NodeKeyFile::generate("alpha".parse().unwrap(), operator.cluster_id());
    let nodeset = Plan::first(&operator).with_node(node.member(now)).sign(&operator).unwrap();
    let (keyring, secrets) = Keyring::create(&nodeset, &node, Lineage::random(), None, now).unwrap();
    let records = sample_records();
    let hasher = StateHasher::new(secrets.state_key());
    let (mut digest, mut running) = (StateDigest::EMPTY, RunningHash::new());
    for record in &records {
        digest.add(&hasher.hash(record));
        running.update(&u32::try_from(record.len()).unwrap().to_be_bytes());
        running.update(record);
    }
    let position = Position { lineage: *keyring.lineage(), sequence: Sequence(42), digest };
    let origin =
        Origin { nodeset: &nodeset, keyring: &keyring, node: &node, now, readers: Readers::RecoveryAndNodes };
    let mut writer = Writer::begin(Vec::new(), &origin, &position).unwrap();
    records.iter().for_each(|record| writer.push(record).unwrap());
    let good = writer.finish().unwrap();

    let (header, _) = Header::decode(&good).unwrap();
    let wrap = &header.wraps[0];
    let key =
        operator.wrapping().unwrap(&header.wrap_info(&wrap.recipient), wrap.wrapped.as_slice()).unwrap();
    let text = operator.to_text(None).unwrap();
    let head = [
        "expect: ok".to_owned(),
        "comment: a whole snapshot of three records, of a cluster that exists for this test only".to_owned(),
        format!("pin: {}", HEXLOWER.encode(operator.cluster_id().as_bytes())),
        format!("operator: {}", text.lines().find(|line| !line.starts_with('#')).unwrap()),
        format!("snapshot-key: {}", HEXLOWER.encode(&key)),
        format!("records: {}", records.len()),
        format!("running-hash: {}", HEXLOWER.encode(&running.finish())),
    ];
    save("snapshot_good", &[head.join("\n").as_bytes(), b"\n\n", &good].concat());
    for (name, expect, lines) in plain_defects(&good) {
        save_edited(name, expect, &lines);
    }
    for (name, expect, lines) in signed_defects(&good, &nodeset, &node, &keyring) {
        save_edited(name, expect, &lines);
    }
}

fn sample_records() -> Vec<Vec<u8>> {
    let at = Timestamp::from_micros(1_790_000_000_000_000).unwrap();
    let key = |name: &str| {
        SignPub::from_bytes(
            NodeKeyFile::generate(name.parse().unwrap(), ClusterId::from_bytes([0; 32])).slots()[0]
                .signing_public()
                .to_owned(),
        )
        .unwrap()
    };
    let (alice, bob) = (key("alice"), key("bob"));
    let user =
        |key: SignPub, name: &str, role| User::new(key, Handle::parse(name).unwrap(), role, at).encode();
    let names = (Subject::parse("ops.alerts").unwrap(), Channel::random());
    let policy = Policy { encrypt: true, persist: true, sign_msgs: true };
    let room = Room::new(RoomId::parse("ops").unwrap(), names, policy, Endpoint::of(&alice), at).encode();
    let mut all = [user(alice, "alice", UserRole::Admin), user(bob, "bob", UserRole::Member), room];
    all.sort_by(|one, other| one.as_bytes().cmp(other.as_bytes()));
    all.iter().map(|record| record.as_bytes().to_vec()).collect()
}

type Defect = (&'static str, &'static str, Vec<String>);

fn edit(offset: usize, bytes: &[u8]) -> String {
    format!("edit: {offset} {}", HEXLOWER.encode(bytes))
}

/// Defects that whoever has the file can make.
fn plain_defects(good: &[u8]) -> Vec<Defect> {
    let header = Header::length(good.first_chunk::<PREFIX_BYTES>().unwrap()).unwrap();
    let trailer = good.len() - TRAILER_BYTES;
    let flip = |at: usize| vec![edit(at, &[good[at] ^ 1])];
    vec![
        ("snapshot_magic", "Decode", vec![edit(0, b"UBSNAQ")]),
        ("snapshot_version_2", "Decode", vec![edit(6, &[0, 2])]),
        ("snapshot_header_too_long", "Decode", vec![edit(8, &[0xff; 4])]),
        ("snapshot_header_too_short", "Decode", vec![edit(8, &[0, 0, 0, 12])]),
        ("snapshot_suite_2", "Decode", vec![edit(12, &[0, 2])]),
        ("snapshot_header_reserved", "Decode", vec![edit(14, &[1])]),
        ("snapshot_node_name", "Decode", vec![edit(180, b"ALPHA")]),
        ("snapshot_node_name_too_long", "Decode", vec![edit(176, &[0, 0, 0, 64])]),
        ("snapshot_nodeset_too_long", "Decode", vec![edit(185, &[0x7f, 0xff, 0xff, 0xff])]),
        ("snapshot_recipients_too_many", "Decode", vec![edit(header - 2 * 1200 - 4, &[0, 0, 0, 81])]),
        ("snapshot_recipients_trailing", "Decode", vec![edit(header - 2 * 1200 - 4, &[0, 0, 0, 1])]),
        ("snapshot_cut_in_prefix", "Decode", vec!["length: 11".to_owned()]),
        ("snapshot_cut_in_header", "Decode", vec![format!("length: {}", header - 1)]),
        ("snapshot_cut_in_payload", "Decode", vec![format!("length: {}", header + 30_000)]),
        ("snapshot_cut_in_trailer", "Decode", vec![format!("length: {}", good.len() - 1)]),
        ("snapshot_longer", "Decode", vec![format!("length: {}", good.len() + 1)]),
        ("snapshot_trailer_magic", "Decode", flip(trailer)),
        ("snapshot_trailer_reserved", "Decode", flip(trailer + 6)),
        ("snapshot_trailer_chunks", "Decode", flip(trailer + 15)),
        ("snapshot_trailer_length", "Decode", flip(trailer + 23)),
        ("snapshot_sequence_changed", "Hash", flip(71)),
        ("snapshot_payload_changed", "Hash", flip(header + 77)),
        ("snapshot_hash_changed", "Hash", flip(trailer + 24)),
        ("snapshot_signature_changed", "Signature", flip(trailer + 56)),
        ("snapshot_of_another_cluster", "Cluster", vec![format!("pin: {}", HEXLOWER.encode(&[1; 32]))]),
    ]
}

/// Defects that only a node's key can make.
fn signed_defects(good: &[u8], nodeset: &Nodeset, node: &NodeKeyFile, keyring: &Keyring) -> Vec<Defect> {
    let header = Header::decode(good).unwrap().0;
    let header_bytes = Header::length(good.first_chunk::<PREFIX_BYTES>().unwrap()).unwrap();
    let own = node.slots()[0].signing();
    let stranger = NodeKeyFile::generate("alpha".parse().unwrap(), *nodeset.cluster());
    let other = OperatorKey::generate();
    let member = NodeKeyFile::generate("alpha".parse().unwrap(), other.cluster_id());
    let other_nodeset = Plan::first(&other).with_node(member.member(header.created)).sign(&other).unwrap();
    let other_keyring =
        Keyring::create(&other_nodeset, &member, Lineage::random(), None, header.created).unwrap().0;
    let signed = |edits: &[(usize, &[u8])], key: &Signature25519| {
        let mut bytes = good.to_vec();
        for (offset, new) in edits {
            bytes[*offset..offset + new.len()].copy_from_slice(new);
        }
        let end = bytes.len() - 96;
        let hash = sha256(&[&bytes[..end]]);
        let mut lines: Vec<String> = edits.iter().map(|(offset, new)| edit(*offset, new)).collect();
        lines.push(edit(end, &hash));
        lines.push(edit(end + 32, &key.sign(SIGNATURE_LABEL, &hash)));
        lines
    };
    let (nodeset_at, keyring_at) = (176 + 4 + 5 + 4, 176 + 4 + 5 + 4 + nodeset.as_bytes().len() + 4);
    assert_eq!(&good[keyring_at..keyring_at + 4], &keyring.as_bytes()[..4]);
    let (other_nodeset, other_keyring) = (other_nodeset.as_bytes(), other_keyring.as_bytes());
    assert_eq!(
        (other_nodeset.len(), other_keyring.len()),
        (nodeset.as_bytes().len(), keyring.as_bytes().len())
    );
    vec![
        ("snapshot_signed_by_a_stranger", "Signature", signed(&[], &stranger.slots()[0].signing())),
        (
            "snapshot_of_a_stranger",
            "Signer",
            signed(&[(112, stranger.slots()[0].signing_public())], &stranger.slots()[0].signing()),
        ),
        ("snapshot_in_another_nodes_name", "Signer", signed(&[(180, b"gamma")], &own)),
        ("snapshot_nodeset_of_another_cluster", "Document", signed(&[(nodeset_at, other_nodeset)], &own)),
        ("snapshot_keyring_of_another_cluster", "Document", signed(&[(keyring_at, other_keyring)], &own)),
        ("snapshot_another_lineage", "Contents", signed(&[(48, &[7; 16])], &own)),
        ("snapshot_planted_recipient", "Recipients", signed(&[(header_bytes - 1200, &[9; 32])], &own)),
        ("snapshot_sequence_signed_again", "Unauthentic", signed(&[(71, &[43])], &own)),
        ("snapshot_time_signed_again", "Chunk", signed(&[(111, &[1])], &own)),
        (
            "snapshot_payload_signed_again",
            "Chunk",
            signed(&[(header_bytes + 77, &[good[header_bytes + 77] ^ 1])], &own),
        ),
    ]
}

fn save_edited(name: &str, expect: &str, lines: &[String]) {
    let text = format!("expect: {expect}\nbase: snapshot_good\n{}\n\n", lines.join("\n"));
    save(name, text.as_bytes());
}

fn save(name: &str, bytes: &[u8]) {
    unibus_keyfile::durable::create_new(&folder().join(format!("{name}.vec")), bytes, 0o644).unwrap();
}

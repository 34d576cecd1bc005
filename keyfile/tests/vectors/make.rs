//! Makes the vectors that come from unibus-keyfile itself: `cargo test -p unibus-keyfile --test vectors -- --ignored`.
//!
//! A vector that exists is left alone, whatever the code says today: that is what vectors are for.

use minicbor::Encoder;
use unibus_keyfile::{
    id::{ClusterId, UnixTime},
    key_text,
    node_key::NodeKeyFile,
    nodeset::Plan,
    operator_key::{ExtraRecoveryKey, OperatorKey, RecoveryKey},
    signed::{self, Kind},
    suite::Signature25519,
};

use super::folder;

#[path = "acknowledgements.rs"]
mod acknowledgements;
#[path = "censuses.rs"]
mod censuses;
#[path = "epochs.rs"]
mod epochs;
#[path = "more.rs"]
mod more;
#[path = "receipts.rs"]
mod receipts;

const NOW: UnixTime = UnixTime::from_seconds(1_800_000_000);

/// The node key file of a seed: only its text can say which seed to use.
pub(crate) fn node_of_seed(seed: [u8; 32], name: &str, cluster: &ClusterId) -> NodeKeyFile {
    NodeKeyFile::parse(&node_line(1, cluster, &seed, name)).unwrap()
}

fn node_line(version: u8, cluster: &ClusterId, seed: &[u8], name: &str) -> String {
    let payload = [&[version], cluster.as_bytes().as_slice(), seed, name.as_bytes()].concat();
    key_text::encode_secret(key_text::NODE_PREFIX, &payload).to_string()
}

pub(crate) fn operator_of_seed(seed: u8) -> OperatorKey {
    let payload = [vec![1], vec![seed; 32]].concat();
    OperatorKey::parse(&key_text::encode_secret(key_text::OPERATOR_PREFIX, &payload), || None).unwrap()
}

fn put(name: &str, format: &str, expect: &str, comment: &str, fields: &[(&str, String)], bytes: &[u8]) {
    let path = folder().join(format!("{name}.vec"));
    if path.exists() {
        return;
    }
    let mut out =
        format!("made-by: unibus-keyfile\nformat: {format}\nexpect: {expect}\ncomment: {comment}\n");
    fields.iter().for_each(|(name, value)| out.push_str(&format!("{name}: {value}\n")));
    out.push('\n');
    #[expect(clippy::disallowed_methods, reason = "a test file, made once")]
    std::fs::write(path, [out.as_bytes(), bytes].concat()).unwrap();
}

fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}

struct World {
    operator: OperatorKey,
    alpha: NodeKeyFile,
    beta: NodeKeyFile,
}

impl World {
    fn new() -> Self {
        let operator = operator_of_seed(1);
        let cluster = operator.cluster_id();
        let (alpha, beta) =
            (node_of_seed([2; 32], "alpha", &cluster), node_of_seed([3; 32], "beta", &cluster));
        Self { operator, alpha, beta }
    }

    fn pin(&self) -> (&'static str, String) {
        ("pin", self.operator.cluster_id().to_string())
    }
}

#[test]
#[ignore = "writes files; run by hand for a new format"]
fn make() {
    let w = World::new();
    key_files(&w);
    pins(&w);
    containers("nodeset", &nodeset_body(&w, |_| {}), &[w.operator.signing()], &[w.pin()]);
    nodesets(&w);
    more::keyrings(&w);
    epochs::epochs(&w);
    acknowledgements::acknowledgements(&w);
    censuses::censuses(&w);
    receipts::receipts(&w);
    more::requests(&w);
    more::recoveries(&w);
    more::witnesses();
    more::envelopes();
    more::plaintexts();
    more::streams();
}

fn key_files(w: &World) {
    let cluster = w.operator.cluster_id();
    let good = |seed: u8| node_line(1, &cluster, &[seed; 32], "alpha");
    let node = |name: &str, expect: &str, comment: &str, text: &str| {
        put(&format!("node_key_{name}"), "node-key", expect, comment, &[], text.as_bytes());
    };
    let fields = |file: &NodeKeyFile| {
        let all = file.fingerprints().iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        [("name", "alpha".to_owned()), w.pin(), ("fingerprints", all)]
    };
    put(
        "node_key_ok",
        "node-key",
        "ok",
        "as the tool writes it",
        &fields(&w.alpha),
        w.alpha.to_text().as_bytes(),
    );
    let two = format!("{}\n# kept\n{}\n", good(2), good(4));
    let file = NodeKeyFile::parse(&two).unwrap();
    put("node_key_ok_two", "node-key", "ok", "a current and an earlier key", &fields(&file), two.as_bytes());
    node("empty", "Empty", "only a comment", "# nothing\n");
    node("not_a_key", "NotAKey", "a word", "hello\n");
    node("other_prefix", "NotAKey", "an operator key", &w.operator.to_text(None).unwrap());
    node("lower_case", "NotAKey", "bech32m allows it, this format does not", &good(2).to_lowercase());
    node("mixed_case", "Checksum", "mixed case", &good(2).replacen("1Q", "1q", 1));
    node("typo", "Checksum", "the last character", &(good(2)[..good(2).len() - 1].to_owned() + "Q"));
    node("cut", "Checksum", "the last character is missing", &good(2)[..good(2).len() - 1]);
    let bech32 = {
        let hrp = bech32::Hrp::parse(key_text::NODE_PREFIX).unwrap();
        bech32::encode_upper::<bech32::Bech32>(hrp, &[1; 70]).unwrap()
    };
    node("bech32", "Checksum", "bech32, not bech32m", &bech32);
    node("version", "Payload Version", "version 2", &node_line(2, &cluster, &[2; 32], "alpha"));
    for (at, what) in [(0, "version"), (1, "cluster"), (20, "cluster_half"), (33, "seed"), (64, "seed_half")]
    {
        let payload = [&[1], cluster.as_bytes().as_slice(), &[2; 32], b"alpha"].concat();
        let text = key_text::encode_secret(key_text::NODE_PREFIX, &payload[..at]);
        node(&format!("cut_{what}"), "Payload Truncated", "the payload ends there", &text);
    }
    node("no_name", "Payload Field(node name)", "no name", &node_line(1, &cluster, &[2; 32], ""));
    node(
        "bad_name",
        "Payload Field(node name)",
        "a name with a slash",
        &node_line(1, &cluster, &[2; 32], "../x"),
    );
    let long = node_line(1, &cluster, &[2; 32], &"a".repeat(64));
    node("long_name", "Payload Field(node name)", "64 characters", &long);
    let huge = node_line(1, &cluster, &[2; 32], &"a".repeat(256));
    node("payload_too_large", "Checksum", "more than 256 bytes", &huge);
    let other = node_line(1, &cluster, &[3; 32], "beta");
    node("mixed_nodes", "Mixed", "lines of two nodes", &format!("{}\n{other}\n", good(2)));
    let cluster2 = node_line(1, &ClusterId::from_bytes([9; 32]), &[3; 32], "alpha");
    node("mixed_clusters", "Mixed", "lines of two clusters", &format!("{}\n{cluster2}\n", good(2)));
    node("repeated", "Repeated", "one key twice", &format!("{}\n{}\n", good(2), good(2)));
    let five: String = (2..7).map(|seed| good(seed) + "\n").collect();
    node("too_many", "TooMany", "five keys", &five);
    operator_files(w);
}

fn operator_files(w: &World) {
    let operator = |name: &str, expect: &str, comment: &str, fields: &[(&str, String)], text: &str| {
        put(&format!("operator_key_{name}"), "operator-key", expect, comment, fields, text.as_bytes());
    };
    let phrase = ("passphrase", "correct horse".to_owned());
    let found = [w.pin(), ("fingerprint", w.operator.fingerprint().to_string())];
    let locked = w.operator.to_text(Some(&phrase.1)).unwrap();
    operator("ok", "ok", "in clear", &found, &w.operator.to_text(None).unwrap());
    operator(
        "ok_locked",
        "ok",
        "by a passphrase",
        &[found.as_slice(), std::slice::from_ref(&phrase)].concat(),
        &locked,
    );
    operator("locked", "Locked", "no passphrase", &[], &locked);
    operator(
        "wrong_passphrase",
        "Passphrase",
        "another",
        &[("passphrase", "battery staple".into())],
        &locked,
    );
    let line = locked.lines().find(|line| line.starts_with("UNIBUS")).unwrap();
    let payload = key_text::decode(key_text::OPERATOR_LOCKED_PREFIX, line).unwrap();
    let changed = |at: usize, with: &[u8]| {
        let mut payload = payload.to_vec();
        payload[at..at + with.len()].copy_from_slice(with);
        key_text::encode_secret(key_text::OPERATOR_LOCKED_PREFIX, &payload).to_string()
    };
    let unlock = std::slice::from_ref(&phrase);
    operator("locked_changed", "Passphrase", "salt changed", unlock, &changed(13, &[0; 16]));
    operator("locked_version", "Payload Version", "version 2", unlock, &changed(0, &[2]));
    for (name, at, value) in
        [("memory", 1, u32::MAX), ("passes", 5, 17), ("lanes", 9, 65), ("no_memory", 1, 0)]
    {
        let text = changed(at, &value.to_be_bytes());
        let expect = "Payload Field(Argon2 parameters)";
        operator(&format!("locked_{name}"), expect, "out of bounds", unlock, &text);
    }
    for at in [0, 1, 13, 29, 41, 73, 88] {
        let text = key_text::encode_secret(key_text::OPERATOR_LOCKED_PREFIX, &payload[..at]);
        operator(&format!("locked_cut_{at}"), "Payload Truncated", "the payload ends there", unlock, &text);
    }
    let clear = |payload: &[u8]| key_text::encode_secret(key_text::OPERATOR_PREFIX, payload).to_string();
    operator("empty_payload", "Payload Truncated", "no payload", &[], &clear(&[]));
    operator("version", "Payload Version", "version 2", &[], &clear(&[2; 33]));
    operator("short_seed", "Payload Field(seed)", "31 bytes", &[], &clear(&[1; 32]));
    operator("long_seed", "Payload Field(seed)", "33 bytes", &[], &clear(&[1; 34]));
    operator("two", "TooMany", "two keys", &[], &format!("{}\n{}\n", clear(&[1; 33]), clear(&[1; 33])));
    operator("empty", "Empty", "no key", &[], "# nothing\n");
    let key = ExtraRecoveryKey::generate();
    let found = [("fingerprint", key.public().fingerprint().to_string())];
    put("recovery_key_ok", "recovery-key", "ok", "as the tool writes it", &found, key.to_text().as_bytes());
    let text = key_text::encode_secret(key_text::RECOVERY_PREFIX, &[2; 33]);
    put("recovery_key_version", "recovery-key", "Payload Version", "version 2", &[], text.as_bytes());
    let clear = w.operator.to_text(None).unwrap();
    put("recovery_key_other", "recovery-key", "NotAKey", "an operator key", &[], clear.as_bytes());
}

fn pins(w: &World) {
    let pin = w.operator.cluster_id().to_string();
    let put =
        |name: &str, text: &str| put(&format!("pin_{name}"), "pin", "not a pin", name, &[], text.as_bytes());
    put("typo", &pin.replacen('q', "p", 1));
    put("cut", &pin[..pin.len() - 1]);
    put("upper_case", &pin.to_uppercase());
    put("other_prefix", &key_text::encode_lower("ubd", &[1; 32]));
    put("short", &key_text::encode_lower(key_text::PIN_PREFIX, &[1; 31]));
    put("long", &key_text::encode_lower(key_text::PIN_PREFIX, &[1; 33]));
    put("empty", "");
}

/// Every defect of the container, around a body that is good.
fn containers(format: &str, body: &[u8], keys: &[&Signature25519], fields: &[(&str, String)]) {
    let kind = match format {
        "nodeset" => Kind::Nodeset,
        "keyring" => Kind::Keyring,
        "census" => Kind::Census,
        _ => Kind::Acknowledgement,
    };
    let good = signed::encode(kind, body, keys);
    let put = |name: &str, expect: &str, comment: &str, bytes: &[u8]| {
        put(&format!("{format}_{name}"), format, expect, comment, fields, bytes);
    };
    let end = signed::HEADER_BYTES + body.len();
    for at in [0, 4, 5, 6, 10, 11, end, end + 1, end + 33, good.len() - 1] {
        let place = if at < end { at.to_string() } else { format!("end_{}", at - end) };
        put(&format!("cut_{place}"), "Truncated", "cut at or in a field", &good[..at]);
    }
    let changed = |at: usize, with: &[u8]| {
        let mut bytes = good.clone();
        bytes[at..at + with.len()].copy_from_slice(with);
        bytes
    };
    put("magic", "Magic", "another magic", &changed(0, b"UBSE"));
    put("kind", "Magic", "another kind of document", &changed(5, &[9]));
    put("container_version", "Version", "version 2", &changed(4, &[2]));
    put("length", "TooLarge", "a body of 4 GiB", &changed(6, &[0xff; 4]));
    put("length_one_over", "TooLarge", "one byte over the limit", &changed(6, &[0, 0x10, 0, 1]));
    put("signature_count", "Field(signature count)", "five", &changed(end, &[5]));
    put("flipped_body", "Signature", "one bit of the body", &changed(end - 1, &[good[end - 1] ^ 1]));
    put("flipped_signature", "Signature", "one bit", &changed(end + 40, &[good[end + 40] ^ 1]));
    put("trailing", "Trailing", "one byte after the end", &[good.as_slice(), &[0]].concat());
    let twice = [&good[..end], &[2], &good[end + 1..], &good[end + 1..]].concat();
    put("signature_twice", "Field(signature)", "one signature twice", &twice);
    put("unsigned", "Signature", "no signature at all", &signed::encode(kind, body, &[]));
    let stranger = operator_of_seed(7);
    put("other_signer", "Signer", "a stranger's", &signed::encode(kind, body, &[stranger.signing()]));
    put("body_not_cbor", "Field(body)", "not CBOR", &signed::encode(kind, &[0xff; 40], keys));
    put("body_empty", "Field(body)", "nothing", &signed::encode(kind, &[], keys));
    let nested = signed::encode(kind, &vec![0x81; 4000], keys);
    put("body_nested", "Field(body)", "lists in lists", &nested);
    put(
        "body_trailing",
        "NotCanonical",
        "a byte after the map",
        &signed::encode(kind, &[body, &[0]].concat(), keys),
    );
    // A map of one more entry, with a key that is not known.
    let mut more = body.to_vec();
    more[0] += 1;
    more.extend_from_slice(&[0x18, 99, 0x00]);
    put("unknown_key", "NotCanonical", "key 99", &signed::encode(kind, &more, keys));
}

/// What a nodeset says, to be spoilt.
struct NodesetBody {
    cluster: Vec<u8>,
    lineage: Vec<u8>,
    version: u64,
    previous: Option<Vec<u8>>,
    nodes: Vec<(String, Vec<u8>, Vec<u8>)>,
    recovery: Vec<(String, Vec<u8>)>,
}

fn nodeset_body(w: &World, spoil: impl FnOnce(&mut NodesetBody)) -> Vec<u8> {
    let member = w.alpha.member(NOW);
    let mut body = NodesetBody {
        cluster: w.operator.cluster_id().as_bytes().to_vec(),
        lineage: vec![5; 16],
        version: 1,
        previous: None,
        nodes: vec![(
            "alpha".into(),
            member.signing_public.to_vec(),
            member.wrapping_public.as_bytes().to_vec(),
        )],
        recovery: vec![("operator".into(), w.operator.wrapping().public().as_bytes().to_vec())],
    };
    spoil(&mut body);
    let mut e = Encoder::new(Vec::new());
    e.map(if body.previous.is_some() { 6 } else { 5 }).unwrap();
    e.u8(0).unwrap().bytes(&body.cluster).unwrap().u8(1).unwrap().bytes(&body.lineage).unwrap();
    e.u8(2).unwrap().u64(body.version).unwrap();
    if let Some(previous) = &body.previous {
        e.u8(3).unwrap().bytes(previous).unwrap();
    }
    e.u8(4).unwrap().array(body.nodes.len().try_into().unwrap()).unwrap();
    for (name, signing, wrapping) in &body.nodes {
        e.map(4).unwrap().u8(0).unwrap().str(name).unwrap().u8(1).unwrap().bytes(signing).unwrap();
        e.u8(2).unwrap().bytes(wrapping).unwrap().u8(3).unwrap().u64(NOW.seconds()).unwrap();
    }
    e.u8(5).unwrap().array(body.recovery.len().try_into().unwrap()).unwrap();
    for (name, wrapping) in &body.recovery {
        e.map(2).unwrap().u8(0).unwrap().str(name).unwrap().u8(1).unwrap().bytes(wrapping).unwrap();
    }
    e.into_writer()
}

fn nodesets(w: &World) {
    let found = |nodes: &str, version: u64| {
        let recovery = ("recovery", "operator".to_owned());
        [w.pin(), ("version", version.to_string()), ("nodes", nodes.to_owned()), recovery]
    };
    let one = Plan::first(&w.operator).with_node(w.alpha.member(NOW)).sign(&w.operator).unwrap();
    put("nodeset_ok", "nodeset", "ok", "version 1", &found("alpha", 1), one.as_bytes());
    let one = super::Vector::read(&folder().join("nodeset_ok.vec")).bytes;
    let one = unibus_keyfile::nodeset::Nodeset::decode(&one, &w.operator.cluster_id()).unwrap();
    let two = one.next().with_node(w.beta.member(NOW)).sign(&w.operator).unwrap();
    put("nodeset_ok_two", "nodeset", "ok", "version 2", &found("alpha beta", 2), two.as_bytes());
    let fork = Plan::first(&w.operator).with_node(w.alpha.member(NOW)).sign(&w.operator).unwrap();
    put("nodeset_ok_fork", "nodeset", "ok", "another version 1", &found("alpha", 1), fork.as_bytes());
    let put = |name: &str, expect: &str, spoil: &dyn Fn(&mut NodesetBody)| {
        let bytes =
            signed::encode(Kind::Nodeset, &nodeset_body(w, |body| spoil(body)), &[w.operator.signing()]);
        put(&format!("nodeset_{name}"), "nodeset", expect, name, &[w.pin()], &bytes);
    };
    put("version_zero", "Field(version)", &|b| b.version = 0);
    put("previous_missing", "Field(previous)", &|b| b.version = 2);
    put("previous_at_first", "Field(previous)", &|b| b.previous = Some(vec![1; 32]));
    put("previous_short", "Field(previous)", &|b| (b.version, b.previous) = (2, Some(vec![1; 31])));
    put("cluster_short", "Field(cluster)", &|b| b.cluster = vec![1; 31]);
    put("other_cluster", "Cluster", &|b| b.cluster = vec![1; 32]);
    put("lineage_short", "Field(lineage)", &|b| b.lineage = vec![1; 15]);
    put("no_recovery", "Field(recovery)", &|b| b.recovery.clear());
    put("node_name", "Field(node name)", &|b| b.nodes[0].0 = "../x".into());
    put("recovery_name", "Field(recovery name)", &|b| b.recovery[0].0 = "X".into());
    let repeat = |b: &mut NodesetBody| {
        b.recovery.push((b.recovery[0].0.clone(), w.beta.member(NOW).wrapping_public.as_bytes().to_vec()));
    };
    put("recovery_name_twice", "Field(recovery name)", &repeat);
    put("signing_key_weak", "Field(signing key)", &|b| b.nodes[0].1 = vec![0; 32]);
    put("signing_key_short", "Field(signing key)", &|b| b.nodes[0].1.truncate(31));
    put("wrapping_key_short", "Field(wrapping key)", &|b| b.nodes[0].2.truncate(1215));
    put("wrapping_key_twice", "Field(wrapping key)", &|b| b.nodes[0].2.clone_from(&b.recovery[0].1));
    let second = |name: &'static str, of: &NodeKeyFile| {
        let member = of.member(NOW);
        (name.to_owned(), member.signing_public.to_vec(), member.wrapping_public.as_bytes().to_vec())
    };
    put("node_order", "Field(node order)", &|b| b.nodes.push(second("aaa", &w.beta)));
    put("node_twice", "Field(node order)", &|b| b.nodes.push(second("alpha", &w.beta)));
    put("signing_key_twice", "Field(signing key)", &|b| b.nodes.push(second("beta", &w.alpha)));
    put("too_many_nodes", "Field(nodes)", &|b| {
        b.nodes = (0..65).map(|i| (format!("n{i:03}"), vec![0; 32], Vec::new())).collect();
    });
    put("too_much_recovery", "Field(recovery)", &|b| {
        b.recovery = (0..17).map(|i| (format!("r{i:03}"), Vec::new())).collect();
    });
}

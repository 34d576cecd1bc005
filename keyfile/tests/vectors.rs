//! Reads every vector of `testdata/v1` (SPEC keyfile, section 13): each must give exactly what its head says.

#![cfg(test)]

#[path = "vectors/make.rs"]
mod make;
#[path = "vectors/wanted.rs"]
mod wanted;
#[path = "vectors/words.rs"]
mod words;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use data_encoding::HEXLOWER;
use unibus_keyfile::{
    aad::Place,
    armour, derive,
    digest::{StateDigest, StateHasher},
    envelope::{Operation, PlaintextRef},
    error::{DecodeError, DocumentError, KeyTextError, OpenError, UnlockError, WitnessError},
    id::{ClusterId, Epoch, Lineage, Sequence, UnixTime},
    key_text,
    keyring::Keyring,
    name::Blinder,
    node_key::NodeKeyFile,
    nodeset::Nodeset,
    operator_key::{ExtraRecoveryKey, OperatorKey},
    recovery,
    request::Request,
    seal::Sealer,
    secret::{BlobKey, EpochKey, StateKey},
    stream::{ChunkOpener, Position},
    witness::Witness,
};
use zeroize::Zeroizing;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/v1")
}

/// A vector: its head, and its bytes.
struct Vector {
    name: String,
    head: BTreeMap<String, String>,
    bytes: Vec<u8>,
}

impl Vector {
    fn read(path: &Path) -> Self {
        let all = std::fs::read(path).unwrap();
        let end = all.windows(2).position(|two| two == b"\n\n").expect("an empty line");
        let head = std::str::from_utf8(&all[..end]).expect("a text head");
        let fields = head.lines().map(|line| line.split_once(": ").expect("name: value"));
        let head = fields.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        Self { name, head, bytes: all[end + 2..].to_vec() }
    }

    fn field(&self, name: &str) -> &str {
        self.head.get(name).unwrap_or_else(|| panic!("{}: no field `{name}`", self.name))
    }

    fn hex(&self, name: &str) -> Vec<u8> {
        unhex(self.field(name))
    }

    fn key(&self, name: &str) -> [u8; 32] {
        self.hex(name).try_into().unwrap()
    }

    fn pin(&self) -> ClusterId {
        self.field("pin").parse().unwrap()
    }

    fn number(&self, name: &str) -> u64 {
        self.field(name).parse().unwrap()
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.bytes).unwrap()
    }

    /// Compares what came out with what the head promises; a field that the head does not have is not compared.
    fn must_be(&self, name: &str, found: impl std::fmt::Display) {
        if let Some(wanted) = self.head.get(name) {
            assert_eq!(*wanted, found.to_string(), "{}: {name}", self.name);
        }
    }
}

fn unhex(text: &str) -> Vec<u8> {
    HEXLOWER.decode(text.replace('-', "").as_bytes()).unwrap()
}

/// The name of the variant, and the field where it names one.
fn variant(error: &impl std::fmt::Debug) -> String {
    let text = format!("{error:?}");
    if text.starts_with("Field(") {
        return text.replace('"', "");
    }
    text.split([' ', '(', '{']).next().unwrap().to_owned()
}

fn of_text(error: &KeyTextError) -> String {
    match error {
        KeyTextError::Payload { source, .. } => format!("Payload {}", variant(source)),
        other => variant(other),
    }
}

fn of_document(error: &DocumentError) -> String {
    match error {
        DocumentError::Decode { source, .. } => variant(source),
        other => variant(other),
    }
}

fn of_open(error: &OpenError) -> String {
    match error {
        OpenError::Decode(source) => variant(source),
        OpenError::Contents(source) => format!("Contents {}", variant(source)),
        other => variant(other),
    }
}

type Outcome = Result<(), String>;

fn node_key(v: &Vector) -> Outcome {
    let own = NodeKeyFile::parse(v.text()).map_err(|error| of_text(&error))?;
    v.must_be("name", own.name());
    v.must_be("pin", own.cluster());
    v.must_be(
        "fingerprints",
        own.fingerprints().iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
    );
    Ok(())
}

fn operator_key(v: &Vector) -> Outcome {
    let passphrase = v.head.get("passphrase").map(|text| Zeroizing::new(text.clone()));
    let operator = OperatorKey::parse(v.text(), || passphrase).map_err(|error| of_text(&error))?;
    v.must_be("pin", operator.cluster_id());
    v.must_be("fingerprint", operator.fingerprint());
    Ok(())
}

fn recovery_key(v: &Vector) -> Outcome {
    let key = ExtraRecoveryKey::parse(v.text()).map_err(|error| of_text(&error))?;
    v.must_be("fingerprint", key.public().fingerprint());
    Ok(())
}

fn pin(v: &Vector) -> Outcome {
    let cluster: ClusterId = v.text().parse().map_err(|_| "not a pin".to_owned())?;
    v.must_be("cluster", HEXLOWER.encode(cluster.as_bytes()));
    assert_eq!(cluster.to_string(), v.text(), "one value has one text");
    Ok(())
}

fn nodeset(v: &Vector) -> Outcome {
    let nodeset = Nodeset::decode(&v.bytes, &v.pin()).map_err(|error| of_document(&error))?;
    v.must_be("version", nodeset.version());
    v.must_be("nodes", nodeset.nodes().iter().map(|n| n.name.as_str()).collect::<Vec<_>>().join(" "));
    v.must_be("recovery", nodeset.recovery().iter().map(|r| r.name.as_str()).collect::<Vec<_>>().join(" "));
    Ok(())
}

fn seeded_node(v: &Vector) -> NodeKeyFile {
    make::node_of_seed(v.key("node-seed"), v.head.get("node-name").map_or("alpha", String::as_str), &v.pin())
}

fn keyring(v: &Vector) -> Outcome {
    let own = seeded_node(v);
    let nodeset = Vector::read(&folder().join(v.field("nodeset")));
    let nodeset = Nodeset::decode(&nodeset.bytes, &v.pin()).unwrap();
    let keyring = Keyring::decode(&v.bytes, &nodeset, Some(&own)).map_err(|error| of_document(&error))?;
    let secrets = keyring.unlock(&own).map_err(|error: UnlockError| variant(&error))?;
    v.must_be("lineage", keyring.lineage());
    v.must_be("primary", secrets.primary().0);
    v.must_be("version", keyring.version());
    let commitment = derive::state_commitment(secrets.state_key(), keyring.cluster());
    v.must_be("state-commitment", HEXLOWER.encode(&commitment));
    let states = keyring.epochs().iter().map(|entry| format!("{}:{}", entry.number, entry.state.name()));
    v.must_be("states", states.collect::<Vec<_>>().join(" "));
    if v.head.contains_key("operator-seed") {
        let operator = make::operator_of_seed(v.key("operator-seed")[0]);
        let retained = keyring.retained(&operator).map_err(|error: UnlockError| variant(&error))?;
        let retained: Vec<String> = retained.iter().map(|(number, _)| number.to_string()).collect();
        v.must_be("retained", format!("[{}]", retained.join(" ")));
    }
    Ok(())
}

fn server_side_key(v: &Vector) -> Outcome {
    let found = seeded_node(v).slots()[0].jetstream_key().expose_to_nats_server().to_vec();
    (found == v.bytes).then_some(()).ok_or_else(|| HEXLOWER.encode(&found))
}

fn request(v: &Vector) -> Outcome {
    let text = String::from_utf8_lossy(&v.bytes);
    let request = Request::parse(&text).map_err(|error| of_document(&error))?;
    v.must_be("name", &request.member().name);
    v.must_be("pin", request.cluster());
    v.must_be("fingerprint", request.fingerprint());
    Ok(())
}

fn recovery_recipient(v: &Vector) -> Outcome {
    let public = recovery::parse(v.text()).map_err(|error| of_document(&error))?;
    v.must_be("fingerprint", public.fingerprint());
    Ok(())
}

fn witness(v: &Vector) -> Outcome {
    let own = seeded_node(v);
    let witness = Witness::open(&v.bytes, &own).map_err(|error| match &error {
        WitnessError::Decode(source) => variant(source),
        other => variant(other),
    })?;
    let seconds = |time: Option<UnixTime>| time.map_or(0, UnixTime::seconds);
    v.must_be("pin", witness.cluster);
    v.must_be("lineage", witness.lineage);
    v.must_be("sequence", witness.sequence);
    v.must_be("digest", witness.digest);
    v.must_be("nodeset-version", witness.nodeset_version);
    v.must_be("keyring-version", witness.keyring_version);
    v.must_be("last-drill", seconds(witness.last_drill));
    v.must_be("last-proof", seconds(witness.last_proof));
    Ok(())
}

fn epoch_key(v: &Vector) -> EpochKey {
    let key = v.key("epoch-key");
    EpochKey::init_with(|out| *out = key)
}

fn check_plaintext(v: &Vector, text: &PlaintextRef<'_>) {
    v.must_be("kind", text.kind);
    v.must_be("operation", if text.operation == Operation::Put { 1 } else { 2 });
    v.must_be("identity", HEXLOWER.encode(text.identity));
    v.must_be("digest", text.digest_after);
    v.must_be("record", if text.record.is_empty() { "-".into() } else { HEXLOWER.encode(text.record) });
}

fn envelope(v: &Vector) -> Outcome {
    let cluster = v.pin();
    let lineage: Lineage = v.field("lineage").parse().unwrap();
    let (stream, name) = (v.field("stream"), v.field("entry-name"));
    let place = Place {
        cluster: &cluster,
        lineage: &lineage,
        stream,
        name,
        sequence: Sequence(v.number("sequence")),
    };
    let epoch = Epoch::from_stored(v.number("epoch").try_into().unwrap()).unwrap();
    let sealer = Sealer::new(epoch, &epoch_key(v), &cluster);
    let mut buffer = Zeroizing::new(Vec::new());
    let text = sealer.open_into(&v.bytes, &place, &mut buffer).map_err(|error| of_open(&error))?;
    check_plaintext(v, &text);
    assert_eq!(sealer.open(&v.bytes, &place).unwrap(), text.to_plaintext());
    Ok(())
}

fn plaintext(v: &Vector) -> Outcome {
    let text = PlaintextRef::decode(&v.bytes).map_err(|error| variant(&error))?;
    assert_eq!(*text.to_plaintext().encode().unwrap(), v.bytes, "one value has one encoding");
    check_plaintext(v, &text);
    Ok(())
}

fn name(v: &Vector) -> Outcome {
    let kind = v.number("kind").try_into().unwrap();
    // Of a nonce, when the head has the state key.
    let blinder = if v.head.contains_key("state-key") {
        Blinder::of_state(&state_key(v), &v.pin())
    } else {
        Blinder::new(&epoch_key(v), &v.pin())
    };
    let name = blinder.name(kind, &v.hex("identity"));
    (name.as_str().as_bytes() == v.bytes).then_some(()).ok_or_else(|| name.to_string())
}

fn state_key(v: &Vector) -> StateKey {
    let key = v.key("state-key");
    StateKey::init_with(|out| *out = key)
}

fn digest(v: &Vector) -> Outcome {
    let hasher = StateHasher::new(&state_key(v));
    let mut digest = StateDigest::EMPTY;
    v.field("records").split(' ').for_each(|record| digest.add(&hasher.hash(&unhex(record))));
    (digest.as_bytes().as_slice() == v.bytes).then_some(()).ok_or_else(|| digest.to_string())
}

fn derived(v: &Vector) -> Outcome {
    let (epoch, cluster) = (epoch_key(v), v.pin());
    let mut found = derive::database_key(&epoch, &cluster).expose_to_sqlcipher().to_vec();
    found.extend_from_slice(&derive::epoch_commitment(&epoch, &cluster));
    found.extend_from_slice(&derive::state_commitment(&state_key(v), &cluster));
    (found == v.bytes).then_some(()).ok_or_else(|| HEXLOWER.encode(&found))
}

fn stream(v: &Vector) -> Outcome {
    let key = v.key("blob-key");
    let key = derive::blob_chunk_key(&BlobKey::init_with(|out| *out = key));
    let mut opener = ChunkOpener::new(&key, &v.hex("aad"));
    let mut rest = v.bytes.as_slice();
    let mut texts = Vec::new();
    while let Some((length, after)) = rest.split_first_chunk::<4>() {
        let (chunk, after) = after.split_at(usize::try_from(u32::from_be_bytes(*length)).unwrap());
        let position = if after.is_empty() { Position::Last } else { Position::Middle };
        let mut chunk = chunk.to_vec();
        opener.open(&mut chunk, position).map_err(|error| of_open(&error))?;
        texts.push(HEXLOWER.encode(&chunk));
        rest = after;
    }
    v.must_be("texts", texts.join(" "));
    Ok(())
}

fn armour_alone(v: &Vector) -> Outcome {
    let bytes = armour::decode(armour::REQUEST_LABEL, v.text()).map_err(|error| variant(&error))?;
    assert_eq!(armour::encode(armour::REQUEST_LABEL, &bytes).trim(), v.text().trim());
    Ok(())
}

fn decode(v: &Vector) -> Outcome {
    match v.field("format") {
        "node-key" => node_key(v),
        "operator-key" => operator_key(v),
        "recovery-key" => recovery_key(v),
        "pin" => pin(v),
        "nodeset" => nodeset(v),
        "keyring" => keyring(v),
        "acknowledgement" => words::acknowledgement(v),
        "census" => words::census(v),
        "receipt" => words::receipt(v),
        "server-side-key" => server_side_key(v),
        "request" => request(v),
        "recovery" => recovery_recipient(v),
        "witness" => witness(v),
        "envelope" => envelope(v),
        "plaintext" => plaintext(v),
        "name" => name(v),
        "digest" => digest(v),
        "derive" => derived(v),
        "stream" => stream(v),
        "armour" => armour_alone(v),
        other => panic!("{}: format `{other}` is not known", v.name),
    }
}

fn all() -> Vec<Vector> {
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|ending| ending == "vec"));
    paths.sort();
    paths.iter().map(|path| Vector::read(path)).collect()
}

#[test]
fn every_vector_gives_what_its_head_says() {
    let all = all();
    assert!(all.len() > 150, "{} vectors", all.len());
    let mut wrong = Vec::new();
    for vector in &all {
        let found = decode(vector).map_or_else(|error| error, |()| "ok".to_owned());
        if found != vector.field("expect") {
            wrong.push(format!("{}: expected {}, found {found}", vector.name, vector.field("expect")));
        }
        assert!(
            !vector.field("comment").is_empty() && !vector.field("made-by").is_empty(),
            "{}",
            vector.name
        );
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_way_to_be_wrong_has_a_vector() {
    let all = all();
    let seen: BTreeSet<(&str, &str)> = all.iter().map(|v| (v.field("format"), v.field("expect"))).collect();
    for (format, outcomes) in wanted::WANTED {
        for outcome in *outcomes {
            assert!(seen.contains(&(format, outcome)), "no vector of {format} for {outcome}");
        }
    }
    for format in [
        "operator-key",
        "recovery-key",
        "pin",
        "name",
        "digest",
        "derive",
        "server-side-key",
        "stream",
        "armour",
    ] {
        assert!(seen.contains(&(format, "ok")), "no good vector of {format}");
    }
    assert!(all.iter().any(|v| v.field("made-by") != "unibus-keyfile"), "made by other software");
}

#[test]
fn each_error_is_told_apart_from_key_text_too() {
    // What has no bytes in a file: the rest of the errors of a key's text.
    assert_eq!(of_text(&NodeKeyFile::parse("").unwrap_err()), "Empty");
    assert!(key_text::decode(key_text::PIN_PREFIX, &"q".repeat(10_000)).is_none());
    assert_eq!(variant(&DecodeError::Field("x")), "Field(x)");
}

#[test]
fn a_second_implementation_reads_the_good_ones() {
    let script = folder().parent().unwrap().join("read_vectors.py");
    let output = std::process::Command::new("python3").arg("-B").arg(script).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    let read: u64 = said.lines().map(|line| line.split(' ').nth(1).unwrap().parse::<u64>().unwrap()).sum();
    let good = all().iter().filter(|v| v.field("expect") == "ok").count();
    assert_eq!(read, u64::try_from(good).unwrap());
}

#[test]
fn the_other_softwares_vectors_come_out_of_its_script_again() {
    // Into an empty folder: the script never overwrites.
    let folder = folder();
    let here = tempfile::tempdir().unwrap();
    for name in ["formats.py", "make.py"] {
        std::fs::copy(folder.parent().unwrap().join(name), here.path().join(name)).unwrap();
    }
    std::fs::create_dir(here.path().join("v1")).unwrap();
    let script = here.path().join("make.py");
    assert!(std::process::Command::new("python3").arg("-B").arg(script).status().unwrap().success());
    for entry in std::fs::read_dir(here.path().join("v1")).unwrap() {
        let made = entry.unwrap().path();
        let kept = folder.join(made.file_name().unwrap());
        assert_eq!(std::fs::read(&made).unwrap(), std::fs::read(&kept).unwrap(), "{}", kept.display());
    }
}

//! One function for each decoder: it never panics, and what it accepts encodes to the same bytes again.
//!
//! The fuzz targets call these with random bytes; the ordinary tests call them with the corpus. Each says whether the
//! bytes were accepted, so that a seed that is meant to be good is known to be.

use std::io::Cursor;
use std::sync::LazyLock;
use unibus_keyfile::{
    aad::Place,
    acknowledgement::Acknowledgement,
    census::Census,
    derive,
    digest::{StateDigest, sha256},
    envelope::{Envelope, Plaintext},
    id::{ClusterId, Epoch, Lineage, Sequence, UnixTime},
    key_text,
    keyring::Keyring,
    node_key::NodeKeyFile,
    nodeset::Nodeset,
    operator_key::{ExtraRecoveryKey, OperatorKey},
    receipt::{RECEIPT_LABEL, Receipt},
    seal::{Nonce, Sealer},
    secret::{EpochKey, SnapshotKey},
    signed::{self, Kind},
    stream::{CHUNK_BYTES, ChunkSealer, Position},
    witness::{self, Witness, WitnessSealer},
};
use unibus_membership_api::signature::{self, SignatureInput};
use unibus_store::archive::{self, Header, Recipient, Records, TRAILER_BYTES, Trailer, Wrap};
use unibus_store::record::{Record, RecordBytes};

/// The operator of every seed: a key that protects nothing.
pub static OPERATOR: LazyLock<OperatorKey> = LazyLock::new(|| {
    let text = key_text::encode_secret(key_text::OPERATOR_PREFIX, &[&[1][..], &[0x0F; 32]].concat());
    OperatorKey::parse(&text, || None).expect("a fixed key")
});

/// The node of every seed: a key that protects nothing.
pub static NODE: LazyLock<NodeKeyFile> = LazyLock::new(|| {
    let cluster = OPERATOR.cluster_id();
    let payload = [&[1][..], cluster.as_bytes(), &[0x1F; 32], b"fuzz"].concat();
    NodeKeyFile::parse(&key_text::encode_secret(key_text::NODE_PREFIX, &payload)).expect("a fixed key")
});

/// The nodeset that every keyring seed is wrapped for.
pub static NODESET: LazyLock<Option<Nodeset>> = LazyLock::new(|| {
    Nodeset::decode(include_bytes!("../corpus/nodeset/valid-document"), &OPERATOR.cluster_id()).ok()
});

/// The key of every sealed seed.
pub static SEALER: LazyLock<Sealer> = LazyLock::new(|| {
    let key = EpochKey::init_with(|out| out.fill(0x2F));
    Sealer::new(Epoch::FIRST, &key, &OPERATOR.cluster_id())
});

/// The place of every sealed seed.
pub fn place<'a>(cluster: &'a ClusterId, lineage: &'a Lineage) -> Place<'a> {
    Place { cluster, lineage, stream: "KV_UNIBUS_control", name: "fuzz", sequence: Sequence(7) }
}

/// The history of every seed.
pub fn lineage() -> Lineage {
    Lineage::from_bytes([0x3F; 16])
}

/// A key file: as text, and as the payload of a line whose checksum is right.
pub fn key_file(bytes: &[u8]) -> bool {
    let mut accepted = false;
    if let Ok(text) = std::str::from_utf8(bytes) {
        // A locked key is not unlocked: deriving a key from a passphrase is slow on purpose.
        if let Ok(key) = OperatorKey::parse(text, || None) {
            let again = OperatorKey::parse(&key.to_text(None).expect("no passphrase"), || None);
            assert_eq!(again.expect("its own text").fingerprint(), key.fingerprint());
            accepted = true;
        }
        accepted |= ExtraRecoveryKey::parse(text).is_ok();
        accepted |= key_file_text(text);
    }
    for prefix in [key_text::NODE_PREFIX, key_text::OPERATOR_PREFIX, key_text::RECOVERY_PREFIX] {
        let text = key_text::encode_secret(prefix, bytes);
        if let Some(payload) = key_text::decode(prefix, &text) {
            assert_eq!(&payload[..], bytes);
        }
        let _ = OperatorKey::parse(&text, || None);
        accepted |= key_file_text(&text);
    }
    accepted
}

fn key_file_text(text: &str) -> bool {
    let Ok(file) = NodeKeyFile::parse(text) else { return false };
    let again = NodeKeyFile::parse(&file.to_text()).expect("its own text");
    assert_eq!(again.fingerprints(), file.fingerprints());
    assert_eq!(again.cluster(), file.cluster());
    true
}

/// A nodeset: as a document, and as a body that the operator signed.
pub fn nodeset(bytes: &[u8]) -> bool {
    let document = signed::encode(Kind::Nodeset, bytes, &[OPERATOR.signing()]);
    let accept = |bytes: &[u8]| {
        let _ = Nodeset::decode_unpinned(bytes);
        let Ok(nodeset) = Nodeset::decode(bytes, &OPERATOR.cluster_id()) else { return false };
        assert_eq!(nodeset.as_bytes(), bytes);
        assert!(nodeset.recipients().count() >= nodeset.nodes().len());
        nodeset.next().sign(&OPERATOR).is_ok()
    };
    accept(bytes) | accept(&document)
}

/// A keyring: as a document, and as a body that the node signed.
pub fn keyring(bytes: &[u8]) -> bool {
    let Some(nodeset) = NODESET.as_ref() else { return false };
    let signing = NODE.slots().first().expect("a fixed key").signing();
    let document = signed::encode(Kind::Keyring, bytes, &[&signing]);
    let accept = |bytes: &[u8]| {
        let Ok(keyring) = Keyring::decode(bytes, nodeset, Some(&NODE)) else { return false };
        assert_eq!(keyring.as_bytes(), bytes);
        assert_eq!(
            keyring.epochs().iter().filter(|epoch| epoch.number == keyring.primary().number).count(),
            1
        );
        // A key is retained for somebody: what the operator opens is among those.
        for (number, _) in keyring.retained(&*OPERATOR).unwrap_or_default() {
            assert!(keyring.epochs().iter().any(|epoch| epoch.number == number && epoch.retained));
        }
        keyring.unlock(&NODE).is_ok()
    };
    accept(bytes) | accept(&document)
}

/// An acknowledgement: as a document, and as a body that the node signed.
pub fn acknowledgement(bytes: &[u8]) -> bool {
    let Some(nodeset) = NODESET.as_ref() else { return false };
    let signing = NODE.slots().first().expect("a fixed key").signing();
    let document = signed::encode(Kind::Acknowledgement, bytes, &[&signing]);
    let accept = |bytes: &[u8]| {
        let Ok(found) = Acknowledgement::decode(bytes, nodeset) else { return false };
        assert_eq!(found.as_bytes(), bytes);
        assert_eq!((found.cluster(), found.node()), (nodeset.cluster(), NODE.name()));
        assert!(found.keyring_version() > 0 && found.epochs().is_sorted());
        !found.epochs().is_empty()
    };
    accept(bytes) | accept(&document)
}

/// A census: as a document, and as a body that the node signed.
pub fn census(bytes: &[u8]) -> bool {
    let Some(nodeset) = NODESET.as_ref() else { return false };
    let signing = NODE.slots().first().expect("a fixed key").signing();
    let document = signed::encode(Kind::Census, bytes, &[&signing]);
    let accept = |bytes: &[u8]| {
        let Ok(found) = Census::decode(bytes, nodeset) else { return false };
        assert_eq!(found.as_bytes(), bytes);
        assert_eq!((found.cluster(), found.node()), (nodeset.cluster(), NODE.name()));
        let again = Census::sign(&NODE, found.facts().clone()).expect("what was decoded");
        assert_eq!(again.facts(), found.facts());
        true
    };
    accept(bytes) | accept(&document)
}

/// A receipt: as a file, and as fields that the node signed.
pub fn receipt(bytes: &[u8]) -> bool {
    let accept = |bytes: &[u8]| {
        let Ok(receipt) = Receipt::decode(bytes) else { return false };
        let again = Receipt::decode(receipt.as_str().as_bytes()).expect("its own canonical form");
        assert_eq!(again, receipt);
        let pinned = receipt.verify(Some(&OPERATOR.cluster_id()));
        if pinned.is_ok() {
            assert!(!receipt.verify(None).expect("without a pin too").pinned);
        }
        pinned.is_ok()
    };
    accept(bytes) | signed_receipt(bytes).is_some_and(|text| accept(text.as_bytes()))
}

/// What is signed is the canonical form: bytes that are in it already get a signature that fits.
fn signed_receipt(fields: &[u8]) -> Option<String> {
    let fields = std::str::from_utf8(fields).ok()?;
    let key = NODE.slots().first()?.signing();
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let (public, signature) = (hex(&key.public()), hex(&key.sign(RECEIPT_LABEL, fields.as_bytes())));
    let signature = format!(r#"{{"key":"{public}","signature":"{signature}"}}"#);
    Some(format!(r#"{{"receipt":{fields},"signature":{signature}}}"#))
}

/// A sealed value: its header, the value at its place, and the plaintext inside.
pub fn envelope(bytes: &[u8]) -> bool {
    let (cluster, lineage) = (OPERATOR.cluster_id(), lineage());
    let place = place(&cluster, &lineage);
    if let Ok(envelope) = Envelope::decode(bytes) {
        let header = Envelope::header(envelope.epoch, &envelope.nonce);
        assert_eq!([&header[..], envelope.sealed].concat(), bytes);
    }
    let opened = SEALER.open(bytes, &place);
    let inside = Plaintext::decode(bytes);
    if let Ok(plaintext) = &inside {
        assert_eq!(&plaintext.encode().expect("what was decoded")[..], bytes);
        let sealed = SEALER.seal(plaintext, &place, Nonce::random()).expect("what was decoded");
        assert_eq!(&SEALER.open(&sealed, &place).expect("what was sealed"), plaintext);
    }
    opened.is_ok() || inside.is_ok()
}

/// A witness file.
pub fn witness(bytes: &[u8]) -> bool {
    let header = witness::decode_header(bytes);
    let Ok(opened) = Witness::open(bytes, &NODE) else { return false };
    assert!(header.is_ok());
    let sealed = WitnessSealer::new(NODE.slots().first().expect("a fixed key")).seal(&opened);
    assert_eq!(Witness::open(&sealed, &NODE).expect("what was sealed"), opened);
    true
}

/// A control record.
pub fn record(bytes: &[u8]) -> bool {
    let head = RecordBytes::from_bytes(bytes);
    let Ok(record) = Record::decode(bytes) else { return false };
    let again = record.encode();
    assert_eq!(again.as_bytes(), bytes, "one value, one encoding");
    assert_eq!(head.expect("the head of a record that decodes").id().ok(), Some(record.id()));
    let parts = RecordBytes::assemble(&record.id(), again.body()).expect("what was decoded");
    assert_eq!(parts.as_bytes(), bytes);
    true
}

/// A snapshot: as a file, and as a payload that is sealed and signed here.
pub fn snapshot(bytes: &[u8]) -> bool {
    if let Ok((header, rest)) = Header::decode(bytes) {
        assert_eq!([&header.encode().expect("what was decoded")[..], rest].concat(), bytes);
    }
    if let Some(bytes) = bytes.last_chunk::<TRAILER_BYTES>()
        && let Ok(trailer) = Trailer::decode(bytes)
    {
        assert_eq!(trailer.encode(), bytes);
    }
    let as_file = read_snapshot(bytes);
    as_file | sealed_payload(bytes).is_some_and(|file| read_snapshot(&file))
}

fn read_snapshot(bytes: &[u8]) -> bool {
    let mut reader = Cursor::new(bytes);
    let Ok(verified) = archive::verify(&mut reader, Some(&OPERATOR.cluster_id())) else { return false };
    let Ok(unlocked) = verified.unlock(&Recipient::Recovery(&*OPERATOR)) else { return false };
    let Ok(mut records) = Records::start(&mut reader, &verified, &unlocked) else { return false };
    loop {
        match records.next_record() {
            Ok(Some(bytes)) => drop(Record::decode(bytes)),
            Ok(None) => return true,
            Err(_) => return false,
        }
    }
}

/// The header of a snapshot without records, and what the key of its chunks is made of.
struct EmptySnapshot {
    header: Vec<u8>,
    key: SnapshotKey,
    salt: [u8; 32],
}

static EMPTY_SNAPSHOT: LazyLock<Option<EmptySnapshot>> = LazyLock::new(|| {
    let nodeset = NODESET.as_ref()?;
    let now = UnixTime::from_seconds(1_800_000_000);
    let (keyring, _) = Keyring::create(nodeset, &NODE, lineage(), None, now).ok()?;
    let member = NODE.member(now);
    let salt = [0x7F; 32];
    let mut header = Header {
        cluster: OPERATOR.cluster_id(),
        lineage: lineage(),
        sequence: Sequence(0),
        digest: StateDigest::EMPTY,
        created: now,
        signer: member.signing_public,
        node: member.name,
        salt,
        nodeset: nodeset.as_bytes().to_vec(),
        keyring: keyring.as_bytes().to_vec(),
        wraps: Vec::new(),
    };
    let key = SnapshotKey::init_with(|out| out.fill(0x8F));
    for recovery in nodeset.recovery() {
        let recipient = &recovery.wrapping_public;
        let wrapped = key.wrap_to(recipient, &header.wrap_info(recipient.id())).ok()?;
        header.wraps.push(Wrap::new(*recipient.id(), &wrapped)?);
    }
    Some(EmptySnapshot { header: header.encode().ok()?, key, salt })
});

/// A whole file of one chunk around this payload, signed by the node.
fn sealed_payload(payload: &[u8]) -> Option<Vec<u8>> {
    let EmptySnapshot { header, key, salt } = EMPTY_SNAPSHOT.as_ref()?;
    if payload.len() > CHUNK_BYTES {
        return None;
    }
    let mut chunk = payload.to_vec();
    chunk.resize(CHUNK_BYTES, 0);
    let chunk_key = derive::snapshot_chunk_key(key, salt);
    ChunkSealer::new(&chunk_key, &archive::chunk_aad(header)).seal(&mut chunk, Position::Last).ok()?;
    let mut file = [&header[..], &chunk].concat();
    let file_bytes = u64::try_from(file.len() + TRAILER_BYTES).ok()?;
    let mut trailer = Trailer { chunks: 1, file_bytes, hash: [0; 32], signature: [0; 64] };
    let hashed = trailer.encode();
    file.extend_from_slice(&hashed[..hashed.len() - 32 - 64]);
    trailer.hash = sha256(&[&file]);
    let signing = NODE.slots().first()?.signing();
    trailer.signature = signing.sign(archive::SIGNATURE_LABEL, &trailer.hash);
    file.truncate(file.len() - (hashed.len() - 32 - 64));
    file.extend(trailer.encode());
    Some(file)
}

/// Three lines: `Signature-Input`, `Signature`, `Content-Digest`.
pub fn request_signature(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let mut lines = text.split('\n');
    let mut line = || lines.next().unwrap_or_default();
    let (input, signed, digest) = (line(), line(), line());
    let digest =
        signature::parse_content_digest(digest).map(|sha256| signature::format_content_digest(&sha256));
    let Ok(parsed) = SignatureInput::parse(input, signed) else { return false };
    let request = signature::Request {
        method: "POST",
        path: "/rooms",
        authority: Some("127.0.0.1:8470"),
        content_digest: digest.as_deref().ok(),
        content_type: Some("application/json"),
        ..signature::Request::default()
    };
    let Ok(base) = parsed.base(&request) else { return false };
    // One line for each component and one for the parameters: no value can pass for a further line.
    assert!(base.is_ascii() && base.lines().count() <= signature::MAX_COMPONENTS + 1);
    let parameters = base.rsplit_once("\"@signature-params\": ").map_or("", |(_, parameters)| parameters);
    assert!(input.contains(parameters), "the parameters were not read in the one form they have");
    digest.is_ok()
}

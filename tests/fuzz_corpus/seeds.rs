//! The seeds, from the encoders. Nothing here is secret: the keys are constants.

use super::entries::{NODE, OPERATOR, SEALER, lineage, place};
use std::fs;
use std::path::Path;
use unibus_keyfile::acknowledgement::Acknowledgement;
use unibus_keyfile::census::{Census, CensusFacts, DiskScan};
use unibus_keyfile::digest::{RunningHash, StateDigest, StateHasher};
use unibus_keyfile::envelope::{Operation, Plaintext};
use unibus_keyfile::id::{DocumentHash, Epoch, Sequence, UnixTime};
use unibus_keyfile::keyring::{Keyring, Secrets};
use unibus_keyfile::nodeset::{Nodeset, Plan};
use unibus_keyfile::operator_key::ExtraRecoveryKey;
use unibus_keyfile::receipt::{Backend, Receipt, ReceiptDraft, Step};
use unibus_keyfile::seal::Nonce;
use unibus_keyfile::secret::BlobKey;
use unibus_keyfile::signed;
use unibus_keyfile::witness::{Witness, WitnessSealer};
use unibus_membership_api::signature::{self, Request, SignatureParameters};
use unibus_store::archive::{Header, Origin, Readers, TRAILER_BYTES, Writer};
use unibus_store::record::{
    Blob, BlobHash, Channel, Endpoint, Handle, KexPub, KeyEpoch, Member, MemberRole, Policy, Room, RoomId,
    RoomKey, SealedKey, SignPub, StorageName, Subject, Timestamp, User, UserRole, UserStatus,
};
use unibus_store::store::Position;

/// Writes every seed below this folder.
pub fn write(corpus: &Path) {
    let put = |target: &str, name: &str, bytes: &[u8]| {
        fs::create_dir_all(corpus.join(target)).unwrap();
        fs::write(corpus.join(target).join(name), bytes).unwrap();
    };
    key_files(&put);
    let nodeset = documents(&put);
    witness(&put, &nodeset);
    envelopes(&put);
    let records = records(&put);
    snapshots(&put, &nodeset, &records);
    request_signatures(&put);
}

type Put<'a> = &'a dyn Fn(&str, &str, &[u8]);

fn now() -> UnixTime {
    UnixTime::from_seconds(1_800_000_000)
}

fn key_files(put: Put<'_>) {
    put("key_file", "valid-node", NODE.to_text().as_bytes());
    put("key_file", "valid-operator", OPERATOR.to_text(None).unwrap().as_bytes());
    put("key_file", "locked-operator", OPERATOR.to_text(Some("correct horse")).unwrap().as_bytes());
    put("key_file", "valid-recovery", ExtraRecoveryKey::generate().to_text().as_bytes());
    put(
        "key_file",
        "valid-payload",
        &[&[1][..], OPERATOR.cluster_id().as_bytes(), &[7; 32], b"a-node"].concat(),
    );
    put("key_file", "comment-only", b"# nothing here\n");
}

fn documents(put: Put<'_>) -> Nodeset {
    let plan = Plan::first(&OPERATOR).with_node(NODE.member(now()));
    let nodeset = plan.sign(&OPERATOR).unwrap();
    let (keyring, secrets) = Keyring::create(&nodeset, &NODE, lineage(), None, now()).unwrap();
    let acknowledgement = Acknowledgement::sign(&NODE, &keyring, &secrets, now()).unwrap();
    let census = Census::sign(&NODE, census_facts(&keyring, Epoch::FIRST)).unwrap();
    for (target, bytes) in [
        ("census", census.as_bytes()),
        ("nodeset", nodeset.as_bytes()),
        ("keyring", keyring.as_bytes()),
        ("acknowledgement", acknowledgement.as_bytes()),
    ] {
        put(target, "valid-document", bytes);
        let length =
            u32::from_be_bytes(bytes[signed::HEADER_BYTES - 4..signed::HEADER_BYTES].try_into().unwrap());
        let body = &bytes[signed::HEADER_BYTES..][..usize::try_from(length).unwrap()];
        put(target, "valid-body", body);
        put(target, "cut", &bytes[..bytes.len() / 2]);
    }
    put("nodeset", "is-a-keyring", keyring.as_bytes());
    rotation(put, &nodeset, &keyring, &secrets);
    nodeset
}

fn census_facts(keyring: &Keyring, epoch: Epoch) -> CensusFacts {
    CensusFacts {
        cluster: *keyring.cluster(),
        lineage: *keyring.lineage(),
        keyring_version: keyring.version(),
        keyring_hash: keyring.hash(),
        stream: "KV_UNIBUS_control".into(),
        barrier: 42,
        barrier_id: [1; 16],
        digest: [2; 32],
        records: 3,
        entries: vec![(epoch, 4)],
        unsealed: 0,
        undecryptable: 0,
        disk: Some(DiskScan { files: 5, bytes: 6, envelopes: vec![(epoch, 7)] }),
        created: now(),
    }
}

/// The keyrings of a rotation, and its receipt.
fn rotation(put: Put<'_>, nodeset: &Nodeset, keyring: &Keyring, secrets: &Secrets) {
    let (staged, secrets) = keyring.stage(nodeset, &NODE, secrets, now()).unwrap();
    let acknowledged = Acknowledgement::sign(&NODE, &staged, &secrets, now()).unwrap();
    put("keyring", "valid-staged", staged.as_bytes());
    let (active, secrets) = staged.activate(nodeset, &NODE, &secrets).unwrap();
    let census = Census::sign(&NODE, census_facts(&active, active.primary().number)).unwrap();
    let (gone, secrets) = active.destroy(nodeset, &NODE, &secrets, true).unwrap();
    put("keyring", "valid-retained", gone.as_bytes());
    let forgotten = Acknowledgement::sign(&NODE, &gone, &secrets, now()).unwrap();
    let draft = ReceiptDraft {
        backend: Backend::Kv,
        tool_version: "1".into(),
        plan: [3; 32],
        lineage: *gone.lineage(),
        from: vec![Epoch::FIRST],
        to: gone.primary().number,
        started: now(),
        finished: now(),
        steps: vec![Step { name: "stage".into(), milliseconds: 1 }],
        records: 3,
        entries: 4,
        retained: true,
        fenced: vec!["other".parse().unwrap()],
        previous: Some(DocumentHash::of(b"the one before")),
        keyrings: [&staged, &active, &gone].map(|keyring| keyring.as_bytes().to_vec()).into(),
        acknowledgements: vec![acknowledged.as_bytes().to_vec()],
        censuses: vec![census.as_bytes().to_vec()],
        forgotten: vec![forgotten.as_bytes().to_vec()],
    };
    let receipt = Receipt::sign(&NODE, nodeset, draft).unwrap();
    let text = receipt.as_str();
    put("receipt", "valid-receipt", text.as_bytes());
    put("receipt", "cut", &text.as_bytes()[..text.len() / 2]);
    // Without what stands around it: the fields, which the target signs.
    let fields =
        text.strip_prefix("{\"receipt\":").and_then(|rest| rest.split_once(",\"signature\":{\"key\""));
    put("receipt", "valid-fields", fields.unwrap().0.as_bytes());
}

fn witness(put: Put<'_>, nodeset: &Nodeset) {
    let witness = Witness {
        cluster: OPERATOR.cluster_id(),
        lineage: lineage(),
        sequence: Sequence(42),
        digest: StateDigest::EMPTY,
        nodeset_version: nodeset.version(),
        nodeset_hash: nodeset.hash(),
        keyring_version: 1,
        keyring_hash: DocumentHash::of(b"keyring"),
        last_drill: None,
        last_proof: Some(now()),
    };
    let sealed = WitnessSealer::new(&NODE.slots()[0]).seal(&witness);
    put("witness", "valid", &sealed);
    put("witness", "cut", &sealed[..sealed.len() - 1]);
}

fn envelopes(put: Put<'_>) {
    let mut digest_after = StateDigest::EMPTY;
    digest_after.add(&[0x5A; 32]);
    for (name, operation, record) in
        [("valid-put", Operation::Put, &b"a record"[..]), ("valid-tombstone", Operation::Tombstone, b"")]
    {
        let identity = b"an identity".to_vec();
        let record = record.to_vec().into();
        let plaintext = Plaintext { kind: 1, operation, identity, digest_after, record };
        let (cluster, lineage) = (OPERATOR.cluster_id(), lineage());
        let sealed = SEALER.seal(&plaintext, &place(&cluster, &lineage), Nonce::random()).unwrap();
        put("envelope", name, &sealed);
        put("envelope", &format!("{name}-inside"), &plaintext.encode().unwrap());
        put("envelope", &format!("cut-{name}"), &sealed[..sealed.len() - 1]);
    }
}

fn records(put: Put<'_>) -> Vec<Vec<u8>> {
    let at = |micros| Timestamp::from_micros(micros).unwrap();
    let sign_pub = SignPub::from_bytes([9; 32]).unwrap();
    let room_id = RoomId::parse("room-1").unwrap();
    let endpoint = Endpoint::of(&sign_pub);
    let mut user = User::new(sign_pub, Handle::parse("somebody").unwrap(), UserRole::Admin, at(1));
    put("record", "valid-user", user.encode().as_bytes());
    user.status = UserStatus::Revoked { at: Some(at(2)) };
    put("record", "valid-user-revoked", user.encode().as_bytes());
    let names = (Subject::parse("a.subject").unwrap(), Channel::parse("a-channel").unwrap());
    let policy = Policy { encrypt: true, persist: false, sign_msgs: true };
    let room = Room::new(room_id.clone(), names, policy, endpoint, at(3));
    put("record", "valid-room", room.encode().as_bytes());
    let kex_pub = KexPub::from_bytes([9; 32]).ok();
    let member = Member::new(room_id.clone(), sign_pub, kex_pub, MemberRole::Owner, at(4));
    put("record", "valid-member", member.encode().as_bytes());
    let sealed = SealedKey::from_bytes(b"sealed for somebody").unwrap();
    let room_key = RoomKey::new(room_id, KeyEpoch::FIRST, endpoint, sealed);
    put("record", "valid-room-key", room_key.encode().as_bytes());
    let (key, name) = (BlobKey::init_with(|key| key.fill(0x4F)), StorageName::from_bytes([0x5F; 16]));
    let blob = Blob::new(BlobHash::of(b"content"), 7, key.into(), name, at(5)).unwrap().encode();
    put("record", "valid-blob", blob.as_bytes());
    // A field of a later version is kept, and stays in the bytes.
    let later = [
        &[1, 0, 0, 0, 32][..],
        &[9; 32],
        b"\x01\xa5\x00\x6dsomebody-else\x01\x01\x02\x00\x03\x01\x18\x63\x07",
    ]
    .concat();
    put("record", "valid-user-of-a-later-version", &later);
    put("record", "cut", &blob.as_bytes()[..40]);
    let all = [user.encode(), room.encode(), member.encode(), room_key.encode(), blob];
    all.iter().map(|record| record.as_bytes().to_vec()).collect()
}

fn snapshots(put: Put<'_>, nodeset: &Nodeset, records: &[Vec<u8>]) {
    let (keyring, secrets) = Keyring::create(nodeset, &NODE, lineage(), None, now()).unwrap();
    let hasher = StateHasher::new(secrets.state_key());
    let mut digest = StateDigest::EMPTY;
    records.iter().for_each(|record| digest.add(&hasher.hash(record)));
    let position = Position { lineage: lineage(), sequence: Sequence(5), digest };
    let origin = Origin { nodeset, keyring: &keyring, node: &NODE, now: now(), readers: Readers::Recovery };
    let mut writer = Writer::begin(Vec::new(), &origin, &position).unwrap();
    records.iter().for_each(|record| writer.push(record).unwrap());
    let file = writer.finish().unwrap();
    put("snapshot", "valid-file", &file);
    let (_, payload) = Header::decode(&file).unwrap();
    put("snapshot", "header", &file[..file.len() - payload.len()]);
    put("snapshot", "trailer", &file[file.len() - TRAILER_BYTES..]);
    // The payload of no records: a length of zero, their number, and the hash of nothing.
    let end = [&[0; 4][..], &[0; 8], &RunningHash::new().finish()].concat();
    put("snapshot", "valid-payload", &end);
    let framed =
        |record: &Vec<u8>| [&u32::try_from(record.len()).unwrap().to_be_bytes()[..], record].concat();
    put(
        "snapshot",
        "payload-with-records",
        &records.iter().flat_map(framed).chain([0; 4]).collect::<Vec<_>>(),
    );
}

fn request_signatures(put: Put<'_>) {
    let digest = signature::format_content_digest(&[0x6B; 32]);
    let request = Request {
        method: "POST",
        path: "/rooms",
        authority: Some("127.0.0.1:8470"),
        content_digest: Some(&digest),
        content_type: Some("application/json"),
        ..Request::default()
    };
    let parameters =
        SignatureParameters { created: 1_800_000_000, nonce: "AAAAAAAAAAAAAAAAAAAAAA", key_id: [7; 32] };
    let signing = NODE.slots()[0].signing();
    let signer = |base: &[u8]| Ok::<_, std::convert::Infallible>(signing.sign(b"fuzz", base));
    let headers = signature::sign(&request, &parameters, signer).unwrap();
    let text = format!("{}\n{}\n{digest}", headers.signature_input, headers.signature);
    put("request_signature", "valid", text.as_bytes());
    let proxied = format!(
        "{}, proxy=(\"@method\");created=1;tag=\"p\"\n{}, proxy=:AAAA:\n{digest}",
        headers.signature_input, headers.signature
    );
    put("request_signature", "valid-beside-a-proxy", proxied.as_bytes());
    put("request_signature", "no-digest", text.trim_end_matches(&digest).as_bytes());
}

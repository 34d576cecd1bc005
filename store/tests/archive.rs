//! Snapshots that are whole, and snapshots that are not.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::type_complexity,
    reason = "a failed step fails the test; a table of cases has the type that it has"
)]

use std::io::Cursor;

use unibus_keyfile::digest::{StateDigest, StateHasher, sha256};
use unibus_keyfile::error::ErrorClass;
use unibus_keyfile::id::{ClusterId, Lineage, Sequence, UnixTime};
use unibus_keyfile::keyring::{Keyring, Secrets};
use unibus_keyfile::node_key::NodeKeyFile;
use unibus_keyfile::nodeset::{Nodeset, Plan};
use unibus_keyfile::operator_key::OperatorKey;
use unibus_keyfile::suite::Signature25519;
use unibus_store::archive::{
    self, ArchiveError, Existing, Header, Origin, PREFIX_BYTES, Readers, Recipient, Records,
    SEALED_CHUNK_BYTES, SIGNATURE_LABEL, Snapshot, SnapshotFile, TRAILER_BYTES, Trailer, Verified, Wrap,
    Writer,
};
use unibus_store::store::Position;

const NOW: UnixTime = UnixTime::from_seconds(1_790_000_000);

struct Cluster {
    operator: OperatorKey,
    alpha: NodeKeyFile,
    beta: NodeKeyFile,
    nodeset: Nodeset,
    keyring: Keyring,
    secrets: Secrets,
}

impl Cluster {
    fn new() -> Self {
        let operator = OperatorKey::generate();
        let alpha = NodeKeyFile::generate("alpha".parse().unwrap(), operator.cluster_id());
        let beta = NodeKeyFile::generate("beta".parse().unwrap(), operator.cluster_id());
        let plan = Plan::first(&operator).with_node(alpha.member(NOW)).with_node(beta.member(NOW));
        let nodeset = plan.sign(&operator).unwrap();
        let (keyring, secrets) = Keyring::create(&nodeset, &alpha, Lineage::random(), None, NOW).unwrap();
        Self { operator, alpha, beta, nodeset, keyring, secrets }
    }

    fn pin(&self) -> ClusterId {
        self.operator.cluster_id()
    }

    fn origin(&self, readers: Readers) -> Origin<'_> {
        Origin { nodeset: &self.nodeset, keyring: &self.keyring, node: &self.alpha, now: NOW, readers }
    }

    fn position(&self, records: &[Vec<u8>]) -> Position {
        let hasher = StateHasher::new(self.secrets.state_key());
        let mut digest = StateDigest::EMPTY;
        records.iter().for_each(|record| digest.add(&hasher.hash(record)));
        Position { lineage: *self.keyring.lineage(), sequence: Sequence(77), digest }
    }

    fn snapshot(&self, records: &[Vec<u8>]) -> Vec<u8> {
        self.snapshot_for(records, Readers::Recovery)
    }

    fn snapshot_for(&self, records: &[Vec<u8>], readers: Readers) -> Vec<u8> {
        let mut writer = Writer::begin(Vec::new(), &self.origin(readers), &self.position(records)).unwrap();
        records.iter().for_each(|record| writer.push(record).unwrap());
        writer.finish().unwrap()
    }

    fn verify(&self, bytes: &[u8]) -> Result<Verified, ArchiveError> {
        archive::verify(&mut Cursor::new(bytes), Some(&self.pin()))
    }

    fn read(&self, bytes: &[u8], recipient: &Recipient<'_>) -> Result<Vec<Vec<u8>>, ArchiveError> {
        let mut reader = Cursor::new(bytes);
        let verified = archive::verify(&mut reader, Some(&self.pin()))?;
        let unlocked = verified.unlock(recipient)?;
        let mut records = Records::start(&mut reader, &verified, &unlocked)?;
        let mut all = Vec::new();
        while let Some(record) = records.next_record()? {
            all.push(record.to_vec());
        }
        let summary = records.summary().unwrap();
        assert_eq!(summary.records, u64::try_from(all.len()).unwrap());
        Ok(all)
    }

    fn read_as_operator(&self, bytes: &[u8]) -> Result<Vec<Vec<u8>>, ArchiveError> {
        self.read(bytes, &Recipient::Recovery(&self.operator))
    }
}

fn record(kind: u8, number: u64, body: usize) -> Vec<u8> {
    let mut out = vec![kind, 0, 0, 0, 8];
    out.extend(number.to_be_bytes());
    out.extend((0..body).map(|at| at.to_be_bytes()[7]));
    out
}

fn records(count: u64, body: usize) -> Vec<Vec<u8>> {
    (0..count).map(|number| record(1, number, body)).collect()
}

/// Where header and payload end.
fn parts(bytes: &[u8]) -> (usize, usize) {
    let header = Header::length(bytes.first_chunk::<PREFIX_BYTES>().unwrap()).unwrap();
    (header, bytes.len() - TRAILER_BYTES)
}

/// Puts a trailer behind header and payload that is right in all but, perhaps, its signer.
fn with_trailer(body: &[u8], signer: &Signature25519) -> Vec<u8> {
    let header = Header::length(body.first_chunk::<PREFIX_BYTES>().unwrap()).unwrap();
    let chunks = u64::try_from((body.len() - header) / SEALED_CHUNK_BYTES).unwrap();
    let file_bytes = u64::try_from(body.len() + TRAILER_BYTES).unwrap();
    let mut trailer = Trailer { chunks, file_bytes, hash: [0; 32], signature: [0; 64] };
    trailer.hash = sha256(&[body, &trailer.encode()[..24]]);
    trailer.signature = signer.sign(SIGNATURE_LABEL, &trailer.hash);
    [body, &trailer.encode()].concat()
}

/// The same snapshot with another header, hashed and signed by the node that made it.
fn with_header(cluster: &Cluster, bytes: &[u8], change: impl FnOnce(&mut Header)) -> Vec<u8> {
    let (start, end) = parts(bytes);
    let mut header = Header::decode(bytes).unwrap().0;
    change(&mut header);
    let body = [&header.encode().unwrap(), &bytes[start..end]].concat();
    with_trailer(&body, &cluster.alpha.slots()[0].signing())
}

#[test]
fn a_snapshot_gives_back_its_records() {
    let cluster = Cluster::new();
    for (count, body) in [(0, 0), (1, 0), (3, 65_523), (500, 300), (2_000, 1_000)] {
        let records = records(count, body);
        let bytes = cluster.snapshot(&records);
        assert_eq!(cluster.read_as_operator(&bytes).unwrap(), records, "{count} records of {body} bytes");
    }
}

#[test]
fn nodes_open_a_snapshot_only_if_it_is_wrapped_to_them() {
    let cluster = Cluster::new();
    let records = records(5, 10);
    let both = [Recipient::Node(&cluster.alpha), Recipient::Node(&cluster.beta)];
    let (closed, open) =
        (cluster.snapshot(&records), cluster.snapshot_for(&records, Readers::RecoveryAndNodes));
    for node in both {
        assert_eq!(cluster.read(&open, &node).unwrap(), records);
        let refused = cluster.read(&closed, &node).unwrap_err();
        assert_eq!((refused.class(), refused.code()), (ErrorClass::WrongKey, "UB-S046"));
        assert!(refused.to_string().contains("operator (fp:"), "{refused}");
    }
    let stranger = OperatorKey::generate();
    let refused = cluster.read(&open, &Recipient::Recovery(&stranger)).unwrap_err();
    assert!(matches!(refused, ArchiveError::NotARecipient { .. }), "{refused}");
}

#[test]
fn the_size_of_a_snapshot_says_little() {
    let cluster = Cluster::new();
    let payload = |records: &[Vec<u8>]| {
        let bytes = cluster.snapshot(records);
        let (start, end) = parts(&bytes);
        (end - start) / SEALED_CHUNK_BYTES
    };
    assert_eq!(payload(&records(0, 0)), payload(&records(100, 500)));
    assert_eq!(payload(&records(2_200, 1_000)), payload(&records(2_300, 1_000)));
}

#[test]
fn a_snapshot_cut_anywhere_is_refused() {
    let cluster = Cluster::new();
    let bytes = cluster.snapshot(&records(3, 100));
    for at in 0..bytes.len() {
        let refused = cluster.verify(&bytes[..at]).unwrap_err();
        assert!(matches!(refused, ArchiveError::Decode(_)), "cut at {at}: {refused}");
    }
    for extra in [1, SEALED_CHUNK_BYTES] {
        let long = [bytes.as_slice(), &vec![0; extra]].concat();
        assert!(matches!(cluster.verify(&long), Err(ArchiveError::Decode(_))));
    }
}

#[test]
fn a_snapshot_with_any_bit_flipped_is_refused() {
    let cluster = Cluster::new();
    let mut bytes = cluster.snapshot(&records(3, 100));
    let (start, end) = parts(&bytes);
    cluster.verify(&bytes).unwrap();
    for at in 0..bytes.len() {
        // All is under one hash: of documents and payload, one bit of each byte, or of some, will do.
        let bits = match at {
            _ if at < 300 || at >= end => 0xff,
            _ if at < start || at % 61 == 0 => 1_u8 << (at % 8),
            _ => 0,
        };
        for bit in (0..8).map(|bit| 1 << bit).filter(|bit| bits & bit != 0) {
            bytes[at] ^= bit;
            assert!(cluster.verify(&bytes).is_err(), "bit {bit:#04x} of byte {at}");
            bytes[at] ^= bit;
        }
    }
    cluster.verify(&bytes).unwrap();
}

#[test]
fn chunks_swapped_dropped_or_repeated_do_not_open_even_if_signed_again() {
    let cluster = Cluster::new();
    let bytes = cluster.snapshot(&records(600, 600));
    let (start, end) = parts(&bytes);
    let chunks: Vec<&[u8]> = bytes[start..end].chunks(SEALED_CHUNK_BYTES).collect();
    assert!(chunks.len() >= 5);
    let signing = cluster.alpha.slots()[0].signing();
    let with_chunks =
        |chunks: &[&[u8]]| with_trailer(&[&bytes[..start], &chunks.concat()].concat(), &signing);
    assert_eq!(cluster.read_as_operator(&with_chunks(&chunks)).unwrap().len(), 600);
    let mut swapped = chunks.clone();
    swapped.swap(1, 2);
    let repeated = [&chunks[..2], &chunks[1..]].concat();
    let dropped = [&chunks[..1], &chunks[2..]].concat();
    let cut = chunks[..chunks.len() - 1].to_vec();
    for (name, chunks) in [("swapped", swapped), ("repeated", repeated), ("dropped", dropped), ("cut", cut)] {
        let bytes = with_chunks(&chunks);
        cluster.verify(&bytes).unwrap();
        let refused = cluster.read_as_operator(&bytes).unwrap_err();
        assert!(matches!(refused, ArchiveError::Chunk { .. }), "{name}: {refused}");
    }
}

#[test]
fn parts_of_two_snapshots_do_not_make_one() {
    let cluster = Cluster::new();
    let (one, two) = (cluster.snapshot(&records(3, 100)), cluster.snapshot(&records(4, 100)));
    let ((start, end), (other_start, other_end)) = (parts(&one), parts(&two));
    let trailer = [&one[..end], &two[other_end..]].concat();
    assert!(matches!(cluster.verify(&trailer), Err(ArchiveError::Hash)));
    let header = [&two[..other_start], &one[start..]].concat();
    assert!(matches!(cluster.verify(&header), Err(ArchiveError::Hash)));
    // Whoever has a node's key can sign that, but the payload is bound to its header.
    let signing = cluster.alpha.slots()[0].signing();
    let signed = with_trailer(&[&two[..other_start], &one[start..end]].concat(), &signing);
    cluster.verify(&signed).unwrap();
    assert!(matches!(cluster.read_as_operator(&signed), Err(ArchiveError::Chunk { number: 0 })));
}

#[test]
fn every_field_of_the_header_is_bound_to_the_payload() {
    let cluster = Cluster::new();
    let bytes = cluster.snapshot(&records(3, 100));
    assert!(cluster.read_as_operator(&with_header(&cluster, &bytes, |_| ())).is_ok());
    let changes: [(&str, fn(&mut Header)); 4] = [
        ("sequence", |header| header.sequence = Sequence(78)),
        ("digest", |header| header.digest = StateDigest::EMPTY),
        ("created", |header| header.created = UnixTime::from_seconds(1)),
        ("salt", |header| header.salt = [0; 32]),
    ];
    for (name, change) in changes {
        let changed = with_header(&cluster, &bytes, change);
        cluster.verify(&changed).unwrap();
        let refused = cluster.read_as_operator(&changed).unwrap_err();
        assert_eq!(refused.class(), ErrorClass::Tampered, "{name}: {refused}");
    }
}

#[test]
fn a_planted_recipient_is_refused() {
    let cluster = Cluster::new();
    let bytes = cluster.snapshot_for(&records(3, 100), Readers::RecoveryAndNodes);
    let thief = OperatorKey::generate();
    let thief_id = *unibus_keyfile::operator_key::RecoveryKey::wrapping(&thief).public().id();
    let changes: [Box<dyn Fn(&mut Header)>; 5] = [
        Box::new(|header| header.wraps.push(Wrap::new(thief_id, &[0; 1168]).unwrap())),
        Box::new(|header| header.wraps[1].recipient = thief_id),
        Box::new(|header| header.wraps.truncate(2)),
        Box::new(|header| header.wraps.swap(0, 1)),
        Box::new(|header| header.wraps = header.wraps.split_off(1)),
    ];
    for (number, change) in changes.iter().enumerate() {
        let planted = with_header(&cluster, &bytes, change);
        let refused = cluster.verify(&planted).unwrap_err();
        assert!(matches!(refused, ArchiveError::Recipients), "change {number}: {refused}");
    }
}

#[test]
fn only_a_node_of_the_nodeset_can_sign() {
    let cluster = Cluster::new();
    let bytes = cluster.snapshot(&records(3, 100));
    let (_, end) = parts(&bytes);
    let stranger = NodeKeyFile::generate("alpha".parse().unwrap(), cluster.pin());
    let stranger_key = stranger.slots()[0].signing();
    let signed_by_stranger = with_trailer(&bytes[..end], &stranger_key);
    assert!(matches!(cluster.verify(&signed_by_stranger), Err(ArchiveError::Signature)));

    let (start, _) = parts(&bytes);
    let mut header = Header::decode(&bytes).unwrap().0;
    header.signer = stranger_key.public();
    let named = with_trailer(&[&header.encode().unwrap(), &bytes[start..end]].concat(), &stranger_key);
    assert!(matches!(cluster.verify(&named), Err(ArchiveError::Signer { .. })));

    let as_beta = with_header(&cluster, &bytes, |header| header.node = "beta".parse().unwrap());
    assert!(matches!(cluster.verify(&as_beta), Err(ArchiveError::Signer { .. })));
}

#[test]
fn documents_of_another_cluster_or_lineage_are_refused() {
    let (ours, theirs) = (Cluster::new(), Cluster::new());
    let bytes = ours.snapshot(&records(3, 100));
    let nodeset = with_header(&ours, &bytes, |header| header.nodeset = theirs.nodeset.as_bytes().to_vec());
    assert!(matches!(ours.verify(&nodeset), Err(ArchiveError::Document(_))));
    let keyring = with_header(&ours, &bytes, |header| header.keyring = theirs.keyring.as_bytes().to_vec());
    assert!(matches!(ours.verify(&keyring), Err(ArchiveError::Document(_))));
    let (other, _) = Keyring::create(&ours.nodeset, &ours.alpha, Lineage::random(), None, NOW).unwrap();
    let lineage = with_header(&ours, &bytes, |header| header.keyring = other.as_bytes().to_vec());
    assert!(matches!(ours.verify(&lineage), Err(ArchiveError::Contents { .. })));

    let foreign = theirs.snapshot(&records(3, 100));
    assert!(archive::verify(&mut Cursor::new(&foreign), None).is_ok(), "it is whole, of whatever cluster");
    let refused = ours.verify(&foreign).unwrap_err();
    assert_eq!((refused.class(), refused.code()), (ErrorClass::WrongKey, "UB-S045"));
}

#[test]
fn records_that_do_not_have_the_digest_are_refused_at_the_end() {
    let cluster = Cluster::new();
    let list = records(3, 100);
    let position = cluster.position(&list[..2]);
    let mut writer = Writer::begin(Vec::new(), &cluster.origin(Readers::Recovery), &position).unwrap();
    list.iter().for_each(|record| writer.push(record).unwrap());
    let bytes = writer.finish().unwrap();
    let refused = cluster.read_as_operator(&bytes).unwrap_err();
    assert!(matches!(refused, ArchiveError::Contents { .. }), "{refused}");
}

#[test]
fn records_out_of_order_are_not_written() {
    let cluster = Cluster::new();
    let list = records(3, 10);
    let mut writer =
        Writer::begin(Vec::new(), &cluster.origin(Readers::Recovery), &cluster.position(&list)).unwrap();
    writer.push(&list[1]).unwrap();
    for bad in [&list[0], &list[1], &vec![1, 2, 3]] {
        assert!(matches!(writer.push(bad), Err(ArchiveError::Record { number: 1, .. })));
    }
}

#[test]
fn a_file_that_changes_after_it_was_verified_is_refused() {
    let cluster = Cluster::new();
    let bytes = cluster.snapshot(&records(600, 600));
    let mut reader = Cursor::new(bytes.clone());
    let verified = archive::verify(&mut reader, Some(&cluster.pin())).unwrap();
    let unlocked = verified.unlock(&Recipient::Recovery(&cluster.operator)).unwrap();
    let (_, end) = parts(&bytes);
    for at in [20, end - 5, end + 3] {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        let mut reader = Cursor::new(changed);
        let read = Records::start(&mut reader, &verified, &unlocked).and_then(|mut records| {
            while records.next_record()?.is_some() {}
            Ok(())
        });
        assert_eq!(read.unwrap_err().class(), ErrorClass::Tampered, "changed at {at}");
    }
    // Another snapshot of the same store under the same name.
    let mut other = Cursor::new(cluster.snapshot(&records(600, 600)));
    assert!(matches!(Records::start(&mut other, &verified, &unlocked), Err(ArchiveError::Changed)));
}

#[test]
fn a_file_has_its_name_only_when_it_is_complete() {
    let cluster = Cluster::new();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("snap");
    let list = records(3, 10);
    let names = || std::fs::read_dir(folder.path()).unwrap().count();
    let create = |existing| SnapshotFile::create(&path, existing, cluster.origin(Readers::Recovery));
    let write = |existing| {
        let mut file = create(existing)?;
        file.begin(&cluster.position(&list))?;
        list.iter().try_for_each(|record| file.push(record))?;
        assert!(!path.exists() || existing == Existing::Replace);
        file.finish()
    };
    let mut unfinished = create(Existing::Refuse).unwrap();
    unfinished.begin(&cluster.position(&list)).unwrap();
    assert_eq!(names(), 1);
    drop(unfinished);
    assert_eq!(names(), 0);

    let first = write(Existing::Refuse).unwrap();
    assert_eq!(names(), 1);
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    assert!(matches!(write(Existing::Refuse), Err(ArchiveError::Name(_))));
    assert_eq!(Snapshot::open(&path, None).unwrap().verified().hash(), first.hash());
    let second = write(Existing::Replace).unwrap();
    assert_ne!(first.hash(), second.hash(), "each snapshot has a key and a salt of its own");
    let mut snapshot = Snapshot::open(&path, Some(&cluster.pin())).unwrap();
    let unlocked = snapshot.verified().unlock(&Recipient::Recovery(&cluster.operator)).unwrap();
    let mut read = snapshot.records(&unlocked).unwrap();
    while read.next_record().unwrap().is_some() {}
    assert_eq!(read.summary().unwrap().records, 3);
    assert_eq!(names(), 1);
}

#[test]
fn what_cannot_be_a_snapshot_is_not_opened() {
    let folder = tempfile::tempdir().unwrap();
    for path in [folder.path().to_owned(), folder.path().join("absent")] {
        assert!(matches!(Snapshot::open(&path, None), Err(ArchiveError::File { .. })));
    }
    let refused = archive::verify(&mut Cursor::new(b"PK\x03\x04 something else"), None).unwrap_err();
    assert_eq!(refused.code(), "UB-S040");
}

#[test]
fn nothing_of_the_records_can_be_read_in_a_snapshot() {
    use unibus_store::audit::{self, Canaries, Options, Residue, ValueKind};
    let cluster = Cluster::new();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("snap");
    let mut canaries = Canaries::default();
    let mut list = Vec::new();
    for number in 0..200_u64 {
        let secret = format!("subject.of.room.{number:09}");
        canaries.add(ValueKind::Subject, secret.as_bytes());
        list.push([record(2, number, 0), secret.into_bytes()].concat());
    }
    let mut file = SnapshotFile::create(&path, Existing::Refuse, cluster.origin(Readers::Recovery)).unwrap();
    file.begin(&cluster.position(&list)).unwrap();
    list.iter().for_each(|record| file.push(record).unwrap());
    file.finish().unwrap();
    let report = audit::scan(canaries, &[folder.path().to_owned()], Options::default(), &|_| ());
    assert_eq!(report.residue, Residue::None, "{report:?}");
}

#[test]
fn an_error_class_is_told_for_every_refusal() {
    let cluster = Cluster::new();
    let bytes = cluster.snapshot(&records(1, 10));
    let mut newer = bytes.clone();
    newer[7] = 2;
    let refused = cluster.verify(&newer).unwrap_err();
    assert_eq!((refused.class(), refused.code()), (ErrorClass::Unsupported, "UB-S041"));
    let Err(ArchiveError::Decode(_)) = cluster.verify(&bytes[..5]) else { panic!("a cut prefix was read") };
}

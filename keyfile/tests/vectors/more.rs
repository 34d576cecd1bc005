//! The rest of `make.rs`: keyrings, requests, recovery recipients, witnesses, envelopes, plaintexts, streams.

use minicbor::Encoder;
use unibus_keyfile::{
    aad, armour, derive,
    envelope::{MAX_IDENTITY_BYTES, Operation, Plaintext},
    id::{ClusterId, Lineage},
    keyring::{Keyring, WRAP_LABEL},
    operator_key::RecoveryKey,
    recovery,
    request::Request,
    secret::{EpochKey, StateKey},
    signed::{self, Kind},
    suite::{RecipientPublic, Signature25519},
};
use zeroize::Zeroizing;

use super::{NOW, World, containers, hex, put};
use crate::{Vector, folder};

/// What a keyring says, to be spoilt.
pub(super) struct KeyringBody {
    suite: u16,
    cluster: Vec<u8>,
    lineage: Vec<u8>,
    version: u64,
    nodeset_version: u64,
    nodeset_hash: Vec<u8>,
    previous: Option<Vec<u8>>,
    state_commitment: Vec<u8>,
    pub(super) epochs: Vec<(u32, u8, Vec<u8>)>,
    pub(super) wraps: Vec<(Vec<u8>, Vec<u8>)>,
    pub(super) retained: Option<Vec<Retained>>,
}

/// Epoch, recipient, wrap.
pub(super) type Retained = (u32, Vec<u8>, Vec<u8>);

pub(super) const STATE: [u8; 32] = [4; 32];
pub(super) const EPOCH: [u8; 32] = [6; 32];

pub(super) fn wrap_to(
    recipient: &RecipientPublic,
    cluster: &ClusterId,
    version: u64,
    bundle: &[u8],
) -> (Vec<u8>, Vec<u8>) {
    let info = aad::parts(&[
        WRAP_LABEL,
        &1_u16.to_be_bytes(),
        cluster.as_bytes(),
        &[7; 16],
        &version.to_be_bytes(),
        recipient.id(),
    ]);
    (recipient.id().to_vec(), recipient.wrap(&info, bundle).unwrap())
}

pub(super) fn bundle(version: u8, state: [u8; 32], number: u32, epoch: [u8; 32]) -> Vec<u8> {
    [&[version], state.as_slice(), &number.to_be_bytes(), &epoch].concat()
}

fn keyring_body(w: &World, spoil: impl FnOnce(&mut KeyringBody)) -> Vec<u8> {
    keyring_around(w, &bundle(1, STATE, 1, EPOCH), spoil)
}

pub(super) fn keyring_around(w: &World, bundle: &[u8], spoil: impl FnOnce(&mut KeyringBody)) -> Vec<u8> {
    let cluster = w.operator.cluster_id();
    let nodeset = Vector::read(&folder().join("nodeset_ok.vec")).bytes;
    let nodeset = unibus_keyfile::nodeset::Nodeset::decode(&nodeset, &cluster).unwrap();
    let (state, epoch) = (StateKey::init_with(|out| *out = STATE), EpochKey::init_with(|out| *out = EPOCH));
    let mut body = KeyringBody {
        suite: 1,
        cluster: cluster.as_bytes().to_vec(),
        lineage: vec![7; 16],
        version: 1,
        nodeset_version: 1,
        nodeset_hash: nodeset.hash().as_bytes().to_vec(),
        previous: None,
        state_commitment: derive::state_commitment(&state, &cluster).to_vec(),
        epochs: vec![(1, 2, derive::epoch_commitment(&epoch, &cluster).to_vec())],
        wraps: nodeset.recipients().map(|recipient| wrap_to(recipient, &cluster, 1, bundle)).collect(),
        retained: None,
    };
    spoil(&mut body);
    let mut e = Encoder::new(Vec::new());
    e.map(9 + u64::from(body.previous.is_some()) + u64::from(body.retained.is_some())).unwrap();
    e.u8(0).unwrap().u16(body.suite).unwrap().u8(1).unwrap().bytes(&body.cluster).unwrap();
    e.u8(2).unwrap().bytes(&body.lineage).unwrap().u8(3).unwrap().u64(body.version).unwrap();
    e.u8(4).unwrap().u64(body.nodeset_version).unwrap().u8(5).unwrap().bytes(&body.nodeset_hash).unwrap();
    if let Some(previous) = &body.previous {
        e.u8(6).unwrap().bytes(previous).unwrap();
    }
    e.u8(7).unwrap().bytes(&body.state_commitment).unwrap();
    e.u8(8).unwrap().array(body.epochs.len().try_into().unwrap()).unwrap();
    for (number, state, commitment) in &body.epochs {
        e.map(5).unwrap().u8(0).unwrap().u32(*number).unwrap().u8(1).unwrap().u8(*state).unwrap();
        e.u8(2).unwrap().u64(NOW.seconds()).unwrap().u8(3).unwrap().bytes(commitment).unwrap();
        e.u8(4).unwrap().bool(false).unwrap();
    }
    e.u8(9).unwrap().array(body.wraps.len().try_into().unwrap()).unwrap();
    for (recipient, wrapped) in &body.wraps {
        e.map(2).unwrap().u8(0).unwrap().bytes(recipient).unwrap().u8(1).unwrap().bytes(wrapped).unwrap();
    }
    if let Some(retained) = &body.retained {
        e.u8(10).unwrap().array(retained.len().try_into().unwrap()).unwrap();
        for (epoch, recipient, wrapped) in retained {
            e.map(3).unwrap().u8(0).unwrap().u32(*epoch).unwrap().u8(1).unwrap().bytes(recipient).unwrap();
            e.u8(2).unwrap().bytes(wrapped).unwrap();
        }
    }
    e.into_writer()
}

pub(super) fn keyring_fields(w: &World) -> Vec<(&'static str, String)> {
    vec![w.pin(), ("nodeset", "nodeset_ok.vec".into()), ("node-seed", hex(&[2; 32]))]
}

pub(super) fn keyrings(w: &World) {
    let fields = keyring_fields(w);
    let signing = w.alpha.slots()[0].signing();
    containers("keyring", &keyring_body(w, |_| {}), &[&signing], &fields);
    let nodeset = Vector::read(&folder().join("nodeset_ok.vec")).bytes;
    let nodeset = unibus_keyfile::nodeset::Nodeset::decode(&nodeset, &w.operator.cluster_id()).unwrap();
    let (keyring, secrets) =
        Keyring::create(&nodeset, &w.alpha, Lineage::from_bytes([7; 16]), None, NOW).unwrap();
    let commitment = hex(&derive::state_commitment(secrets.state_key(), nodeset.cluster()));
    let found =
        [("lineage", keyring.lineage().to_string()), ("primary", "1".into()), ("version", "1".into())];
    let all = [fields.clone(), found.to_vec(), vec![("state-commitment", commitment)]].concat();
    put("keyring_ok", "keyring", "ok", "the first of a lineage", &all, keyring.as_bytes());
    let next = keyring.rewrap(&nodeset, &w.alpha, &secrets).unwrap();
    let found =
        [("lineage", keyring.lineage().to_string()), ("primary", "1".into()), ("version", "2".into())];
    let all = [fields.clone(), found.to_vec()].concat();
    put("keyring_ok_rewrapped", "keyring", "ok", "the second", &all, next.as_bytes());
    let put_bytes = |name: &str, expect: &str, body: &[u8]| {
        let bytes = signed::encode(Kind::Keyring, body, &[&signing]);
        put(&format!("keyring_{name}"), "keyring", expect, name, &fields, &bytes);
    };
    let put_spoilt = |name: &str, expect: &str, spoil: &dyn Fn(&mut KeyringBody)| {
        put_bytes(name, expect, &keyring_body(w, |body| spoil(body)));
    };
    put_spoilt("suite", "Version", &|b| b.suite = 2);
    put_spoilt("other_cluster", "Cluster", &|b| b.cluster = vec![1; 32]);
    put_spoilt("cluster_short", "Field(cluster)", &|b| b.cluster = vec![1; 31]);
    put_spoilt("lineage_short", "Field(lineage)", &|b| b.lineage = vec![1; 15]);
    put_spoilt("version_zero", "Field(version)", &|b| b.version = 0);
    put_spoilt("nodeset_version_zero", "Field(version)", &|b| b.nodeset_version = 0);
    put_spoilt("nodeset_hash_short", "Field(nodeset hash)", &|b| b.nodeset_hash = vec![1; 31]);
    put_spoilt("previous_missing", "Field(previous)", &|b| b.version = 2);
    put_spoilt("previous_short", "Field(previous)", &|b| (b.version, b.previous) = (2, Some(vec![1; 31])));
    put_spoilt("state_commitment_short", "Field(state commitment)", &|b| b.state_commitment = vec![1; 31]);
    put_spoilt("epoch_zero", "Field(epoch)", &|b| b.epochs[0].0 = 0);
    put_spoilt("epoch_state", "Field(epoch state)", &|b| b.epochs[0].1 = 5);
    put_spoilt("epoch_order", "Field(epoch order)", &|b| b.epochs.push((1, 3, vec![0; 32])));
    put_spoilt("no_primary", "Field(primary epoch)", &|b| b.epochs[0].1 = 3);
    put_spoilt("two_primaries", "Field(primary epoch)", &|b| b.epochs.push((2, 2, vec![0; 32])));
    put_spoilt("commitment_short", "Field(commitment)", &|b| b.epochs[0].2 = vec![0; 31]);
    put_spoilt("recipient_short", "Field(recipient)", &|b| b.wraps[0].0.truncate(31));
    put_spoilt("too_many_epochs", "Field(epochs)", &|b| {
        b.epochs = (1..=4097).map(|number| (number, 4, Vec::new())).collect();
    });
    put_spoilt("old_nodeset", "OldNodeset", &|b| b.nodeset_version = 2);
    put_spoilt("other_nodeset", "OtherNodeset", &|b| b.nodeset_hash = vec![1; 32]);
    put_spoilt("recipient_missing", "Recipients", &|b| drop(b.wraps.pop()));
    put_spoilt("recipient_more", "Recipients", &|b| b.wraps.push((vec![1; 32], Vec::new())));
    put_spoilt("recipient_order", "Recipients", &|b| b.wraps.reverse());
    put_spoilt("wrap_changed", "Unauthentic", &|b| b.wraps[0].1[1130] ^= 1);
    put_spoilt("wrap_short", "Unauthentic", &|b| b.wraps[0].1.truncate(1119));
    put_spoilt("wrap_moved", "Unauthentic", &|b| b.wraps[0].1 = b.wraps[1].1.clone());
    put_spoilt("wrap_of_another_version", "Unauthentic", &|b| {
        (b.version, b.previous) = (2, Some(vec![1; 32]));
    });
    put_bytes("secrets_version", "Contents", &keyring_around(w, &bundle(2, STATE, 1, EPOCH), |_| {}));
    put_bytes("secrets_cut", "Contents", &keyring_around(w, &bundle(1, STATE, 1, EPOCH)[..60], |_| {}));
    let long = [bundle(1, STATE, 1, EPOCH), vec![0]].concat();
    put_bytes("secrets_trailing", "Contents", &keyring_around(w, &long, |_| {}));
    put_bytes("secrets_other_epoch", "Contents", &keyring_around(w, &bundle(1, STATE, 2, EPOCH), |_| {}));
    put_bytes("other_state_key", "Contents", &keyring_around(w, &bundle(1, EPOCH, 1, EPOCH), |_| {}));
    put_bytes("other_epoch_key", "Commitment", &keyring_around(w, &bundle(1, STATE, 1, STATE), |_| {}));
    let mut beta = fields.clone();
    beta[2].1 = hex(&[3; 32]);
    beta.push(("node-name", "beta".into()));
    put(
        "keyring_not_a_recipient",
        "keyring",
        "NotARecipient",
        "read by a node that is not in it",
        &beta,
        keyring.as_bytes(),
    );
}

fn cbor_request(suite: u16, cluster: &[u8], name: &str, signing: &[u8], wrapping: &[u8]) -> Vec<u8> {
    let mut e = Encoder::new(Vec::new());
    e.map(6).unwrap().u8(0).unwrap().u16(suite).unwrap().u8(1).unwrap().bytes(cluster).unwrap();
    e.u8(2).unwrap().str(name).unwrap().u8(3).unwrap().bytes(signing).unwrap();
    e.u8(4).unwrap().bytes(wrapping).unwrap().u8(5).unwrap().u64(NOW.seconds()).unwrap();
    e.into_writer()
}

pub(super) fn requests(w: &World) {
    let request = Request::make(&w.alpha, NOW).unwrap();
    let found = [w.pin(), ("name", "alpha".into()), ("fingerprint", request.fingerprint().to_string())];
    put("request_ok", "request", "ok", "as the tool writes it", &found, request.to_text().as_bytes());
    let member = w.alpha.member(NOW);
    let (cluster, key) = (*w.alpha.cluster().as_bytes(), w.alpha.slots()[0].signing());
    let (signing, wrapping) = (member.signing_public.to_vec(), member.wrapping_public.as_bytes().to_vec());
    let put_body = |name: &str, expect: &str, body: &[u8], keys: &[&Signature25519]| {
        let text = armour::encode(armour::REQUEST_LABEL, &signed::encode(Kind::Request, body, keys));
        put(&format!("request_{name}"), "request", expect, name, &[], text.as_bytes());
    };
    let good = cbor_request(1, &cluster, "alpha", &signing, &wrapping);
    put_body("unsigned", "Signature", &good, &[]);
    put_body("other_signer", "Signer", &good, &[&w.beta.slots()[0].signing()]);
    put_body("signer_second", "Signer", &good, &[&w.beta.slots()[0].signing(), &key]);
    put_body("suite", "Version", &cbor_request(2, &cluster, "alpha", &signing, &wrapping), &[&key]);
    put_body(
        "cluster_short",
        "Field(cluster)",
        &cbor_request(1, &cluster[1..], "alpha", &signing, &wrapping),
        &[&key],
    );
    put_body("name", "Field(node name)", &cbor_request(1, &cluster, "a b", &signing, &wrapping), &[&key]);
    put_body(
        "signing_key",
        "Field(signing key)",
        &cbor_request(1, &cluster, "alpha", &[0; 32], &wrapping),
        &[&key],
    );
    put_body(
        "wrapping_key",
        "Field(wrapping key)",
        &cbor_request(1, &cluster, "alpha", &signing, &[0; 9]),
        &[&key],
    );
    put_body("not_cbor", "Field(body)", &[0xff], &[&key]);
    let text = request.to_text();
    let put_text = |name: &str, expect: &str, text: &str| {
        put(&format!("request_{name}"), "request", expect, name, &[], text.as_bytes());
    };
    put_text("no_armour", "Field(armour)", "hello");
    put_text("armour_cut", "Field(armour)", &text[..text.len() / 2]);
    put_text("other_armour", "Magic", &text.replace("NODE REQUEST", "RECOVERY RECIPIENT"));
    put_text(
        "armoured_nodeset",
        "Magic",
        &armour::encode(armour::REQUEST_LABEL, &Vector::read(&folder().join("nodeset_ok.vec")).bytes),
    );
    put("armour_ok", "armour", "ok", "white space around it", &[], format!("\n  {text}\n").as_bytes());
    let wide: String = text.lines().filter(|line| !line.starts_with('-')).collect();
    let wide = format!("-----BEGIN UNIBUS NODE REQUEST-----\n{wide}\n-----END UNIBUS NODE REQUEST-----\n");
    put("armour_one_line", "armour", "Field(armour)", "not wrapped", &[], wide.as_bytes());
    put(
        "armour_headers",
        "armour",
        "Field(armour)",
        "with a header",
        &[],
        text.replacen("-----\n", "-----\nA: b\n\n", 1).as_bytes(),
    );
    put(
        "armour_crlf",
        "armour",
        "NotCanonical",
        "carriage returns",
        &[],
        text.replace('\n', "\r\n").as_bytes(),
    );
    put("armour_too_large", "armour", "TooLarge", "spaces", &[], (text + &" ".repeat(16 * 1024)).as_bytes());
}

fn cbor_recovery(suite: u16, wrapping: &[u8], checksum: &[u8]) -> Vec<u8> {
    let mut e = Encoder::new(Vec::new());
    e.map(3).unwrap().u8(0).unwrap().u16(suite).unwrap().u8(1).unwrap().bytes(wrapping).unwrap();
    e.u8(2).unwrap().bytes(checksum).unwrap();
    e.into_writer()
}

pub(super) fn recoveries(w: &World) {
    let public = w.operator.wrapping().public();
    let found = [("fingerprint", public.fingerprint().to_string())];
    put(
        "recovery_ok",
        "recovery",
        "ok",
        "as the tool writes it",
        &found,
        recovery::to_text(public).as_bytes(),
    );
    let put_body = |name: &str, expect: &str, body: &[u8], keys: &[&Signature25519]| {
        let text = armour::encode(armour::RECOVERY_LABEL, &signed::encode(Kind::Recovery, body, keys));
        put(&format!("recovery_{name}"), "recovery", expect, name, &[], text.as_bytes());
    };
    let good = cbor_recovery(1, public.as_bytes(), public.id());
    put_body("signed", "Field(signature count)", &good, &[w.operator.signing()]);
    put_body("suite", "Version", &cbor_recovery(2, public.as_bytes(), public.id()), &[]);
    put_body("checksum", "Field(checksum)", &cbor_recovery(1, public.as_bytes(), &[0; 32]), &[]);
    put_body("checksum_short", "Field(checksum)", &cbor_recovery(1, public.as_bytes(), &[0; 31]), &[]);
    put_body("wrapping_key", "Field(wrapping key)", &cbor_recovery(1, &[0; 1215], public.id()), &[]);
}

/// The good vector of the other software, to be spoilt.
fn of_python(name: &str) -> (Vec<(&'static str, String)>, Vec<u8>) {
    let vector = Vector::read(&folder().join(format!("{name}.vec")));
    let needed = [
        "pin",
        "node-seed",
        "lineage",
        "stream",
        "entry-name",
        "sequence",
        "epoch-key",
        "epoch",
        "blob-key",
        "aad",
    ];
    let fields =
        needed.into_iter().filter_map(|field| Some((field, vector.head.get(field)?.clone()))).collect();
    (fields, vector.bytes)
}

fn change(bytes: &[u8], at: usize, with: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[at..at + with.len()].copy_from_slice(with);
    bytes
}

pub(super) fn witnesses() {
    let (mut fields, good) = of_python("witness_ok_python");
    fields.retain(|(name, _)| ["pin", "node-seed"].contains(name));
    let put = |name: &str, expect: &str, bytes: &[u8]| {
        put(&format!("witness_{name}"), "witness", expect, name, &fields, bytes);
    };
    for at in [0, 4, 5, 15, 27, 211, good.len() - 1] {
        put(&format!("cut_{at}"), "Truncated", &good[..at]);
    }
    put("magic", "Magic", &change(&good, 0, b"UBWU"));
    put("version", "Version", &change(&good, 4, &[2]));
    put("trailing", "Trailing", &[good.as_slice(), &[0]].concat());
    put("other_key", "OtherKey", &change(&good, 5, &[0; 10]));
    put("nonce_changed", "Unauthentic", &change(&good, 15, &[0xff]));
    put("body_changed", "Unauthentic", &change(&good, 60, &[good[60] ^ 1]));
    put("tag_changed", "Unauthentic", &change(&good, 226, &[good[226] ^ 1]));
}

pub(super) fn envelopes() {
    let (fields, good) = of_python("envelope_ok_put_python");
    let put_in = |name: &str, expect: &str, fields: &[(&'static str, String)], bytes: &[u8]| {
        put(&format!("envelope_{name}"), "envelope", expect, name, fields, bytes);
    };
    let put_bytes = |name: &str, expect: &str, bytes: &[u8]| put_in(name, expect, &fields, bytes);
    for at in [0, 4, 8, 19] {
        put_bytes(&format!("cut_{at}"), "Truncated", &good[..at]);
    }
    for at in [20, 20 + 255, 20 + 256, good.len() - 1] {
        put_bytes(&format!("cut_{at}"), "Field(sealed length)", &good[..at]);
    }
    put_bytes("trailing", "Field(sealed length)", &[good.as_slice(), &[0]].concat());
    put_bytes("too_large", "Field(sealed length)", &[&good[..20], &[0; 768 + 16]].concat());
    put_bytes("magic", "Magic", &change(&good, 0, b"UBE2"));
    put_bytes("epoch_zero", "Field(epoch)", &change(&good, 4, &[0; 4]));
    put_bytes("other_epoch", "Epoch", &change(&good, 4, &[0, 0, 0, 2]));
    put_bytes("nonce_changed", "Unauthentic", &change(&good, 8, &[0xff]));
    put_bytes("body_changed", "Unauthentic", &change(&good, 100, &[good[100] ^ 1]));
    put_bytes("tag_changed", "Unauthentic", &change(&good, good.len() - 1, &[good[good.len() - 1] ^ 1]));
    let cluster = ClusterId::from_bytes([9; 32]).to_string();
    for (field, value) in [
        ("pin", cluster),
        ("lineage", hex(&[9; 16])),
        ("stream", "OTHER".into()),
        ("entry-name", "a".repeat(32)),
        ("sequence", "10".into()),
        ("epoch-key", hex(&[9; 32])),
    ] {
        let moved: Vec<_> = fields
            .iter()
            .map(|(name, old)| (*name, if *name == field { value.clone() } else { old.clone() }))
            .collect();
        put_in(&format!("other_{}", field.replace('-', "_")), "Unauthentic", &moved, &good);
    }
}

pub(super) fn plaintexts() {
    let text = Plaintext {
        kind: 1,
        operation: Operation::Put,
        identity: b"id".to_vec(),
        digest_after: unibus_keyfile::digest::StateDigest::from_bytes([9; 32]),
        record: Zeroizing::new(b"record".to_vec()),
    };
    let good = text.encode().unwrap();
    let found = [
        ("kind", "1".to_owned()),
        ("operation", "1".into()),
        ("identity", hex(b"id")),
        ("digest", text.digest_after.to_string()),
        ("record", hex(b"record")),
    ];
    put("plaintext_ok", "plaintext", "ok", "padded to 256 bytes", &found, &good);
    let put = |name: &str, expect: &str, bytes: &[u8]| {
        put(&format!("plaintext_{name}"), "plaintext", expect, name, &[], bytes);
    };
    for at in [0, 2, 5, 6, 7, 8, 39, 43, 44, 49] {
        put(&format!("cut_{at}"), "Truncated", &good[..at]);
    }
    put("operation_zero", "Field(operation)", &change(&good, 1, &[0]));
    put("operation_unknown", "Field(operation)", &change(&good, 1, &[3]));
    put("tombstone_with_record", "Field(tombstone)", &change(&good, 1, &[2]));
    let long = u32::try_from(MAX_IDENTITY_BYTES + 1).unwrap();
    put("identity_too_large", "TooLarge", &change(&good, 2, &long.to_be_bytes()));
    put("identity_4_gib", "TooLarge", &change(&good, 2, &[0xff; 4]));
    put("record_too_large", "TooLarge", &change(&good, 40, &[0, 0x10, 0, 1]));
    put("padding_not_zero", "Field(padding)", &change(&good, 255, &[1]));
    put("padding_first_not_zero", "Field(padding)", &change(&good, 50, &[1]));
    put("padding_too_long", "Field(padding)", &[good.as_slice(), &[0; 256]].concat());
    put("padding_too_short", "Field(padding)", &good[..255]);
}

pub(super) fn streams() {
    let (fields, good) = of_python("stream_ok_python");
    let put = |name: &str, bytes: &[u8]| {
        put(&format!("stream_{name}"), "stream", "Unauthentic", name, &fields, bytes);
    };
    let first = 4 + 5 + 16;
    put("first_dropped", &good[first..]);
    put("last_dropped", &good[..first]);
    put("swapped", &[&good[first..], &good[..first]].concat());
    put("repeated", &[&good[..first], &good[..first], &good[first..]].concat());
    put("changed", &change(&good, 5, &[good[5] ^ 1]));
}

//! The seeds, from the encoders. Nothing here is secret: the keys are constants.

use super::entries::{NODE, OPERATOR, SEALER, lineage, place};
use std::fs;
use std::path::Path;
use unibus_keyfile::digest::StateDigest;
use unibus_keyfile::envelope::{Operation, Plaintext};
use unibus_keyfile::id::{DocumentHash, Sequence, UnixTime};
use unibus_keyfile::keyring::Keyring;
use unibus_keyfile::nodeset::{Nodeset, Plan};
use unibus_keyfile::operator_key::ExtraRecoveryKey;
use unibus_keyfile::seal::Nonce;
use unibus_keyfile::signed;
use unibus_keyfile::witness::{Witness, WitnessSealer};
use unibus_membership_api::signature::{self, Request, SignatureParameters};

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
    let (keyring, _) = Keyring::create(&nodeset, &NODE, lineage(), None, now()).unwrap();
    for (target, bytes) in [("nodeset", nodeset.as_bytes()), ("keyring", keyring.as_bytes())] {
        put(target, "valid-document", bytes);
        let length =
            u32::from_be_bytes(bytes[signed::HEADER_BYTES - 4..signed::HEADER_BYTES].try_into().unwrap());
        let body = &bytes[signed::HEADER_BYTES..][..usize::try_from(length).unwrap()];
        put(target, "valid-body", body);
        put(target, "cut", &bytes[..bytes.len() / 2]);
    }
    put("nodeset", "is-a-keyring", keyring.as_bytes());
    nodeset
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

//! Bytes made by somebody who wants a decoder to fall over: too much memory, too deep a stack, too long a time.

#![cfg(test)]

use unibus_keyfile::{
    acknowledgement::Acknowledgement,
    armour,
    census::Census,
    error::{DecodeError, DocumentError, KeyTextError},
    key_text,
    keyring::Summary,
    node_key::NodeKeyFile,
    nodeset::{Nodeset, Plan},
    operator_key::{LOCKED_BYTES, OperatorKey},
    request::Request,
    signed::{self, Kind, MAX_BODY_BYTES},
};
use zeroize::Zeroizing;

/// A body that anybody can sign, as each kind of document.
fn refused_by_all(body: &[u8]) {
    let mallory = OperatorKey::generate();
    let sign = |kind| signed::encode(kind, body, &[mallory.signing()]);
    assert!(Nodeset::decode(&sign(Kind::Nodeset), &mallory.cluster_id()).is_err());
    assert!(Summary::decode(&sign(Kind::Keyring)).is_err());
    assert!(Request::decode(&sign(Kind::Request)).is_err());
    let nodeset = Plan::first(&mallory).sign(&mallory).unwrap();
    assert!(Acknowledgement::decode(&sign(Kind::Acknowledgement), &nodeset).is_err());
    assert!(Census::decode(&sign(Kind::Census), &nodeset).is_err());
}

#[test]
fn deeply_nested_bodies_are_refused_without_a_deep_stack() {
    for byte in [0x81, 0xa1, 0x9f, 0xbf, 0xc0, 0xd8, 0x82] {
        refused_by_all(&vec![byte; MAX_BODY_BYTES]);
        // As the value of a key that nobody knows: it is skipped before the whole is refused.
        refused_by_all(&[&[0xa1, 0x18, 99], vec![byte; MAX_BODY_BYTES - 3].as_slice()].concat());
    }
}

#[test]
fn lengths_that_promise_more_than_there_is_take_no_memory() {
    for head in [
        &[0xbb, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff][..],
        &[0xa1, 0x00, 0x5b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        &[0xa1, 0x04, 0x9b, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        &[0xa1, 0x0a, 0x9b, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        &[0xa1, 0x08, 0x9b, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        &[0xa1, 0x02, 0x7b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
    ] {
        refused_by_all(head);
    }
}

#[test]
fn a_body_over_the_limit_is_refused_by_its_length_alone() {
    let mallory = OperatorKey::generate();
    let bytes = signed::encode(Kind::Keyring, &vec![0; MAX_BODY_BYTES + 1], &[mallory.signing()]);
    let refused = Summary::decode(&bytes).unwrap_err();
    assert!(matches!(
        refused,
        DocumentError::Decode { source: DecodeError::TooLarge { what: "body", .. }, .. }
    ));
    let refused = Summary::decode(&vec![b'U'; 4 << 20]).unwrap_err();
    assert!(matches!(refused, DocumentError::Decode { source: DecodeError::TooLarge { .. }, .. }));
}

#[test]
fn a_locked_key_cannot_ask_for_more_memory_than_the_limit() {
    // Refused in the time of a comparison, whatever the passphrase: 4 TiB are not even tried.
    for (memory, passes, lanes) in
        [(u32::MAX, 1, 1), (262_145, 1, 1), (8, u32::MAX, 1), (8, 17, 1), (8192, 1, 65)]
    {
        let mut payload = vec![1];
        [memory, passes, lanes]
            .iter()
            .for_each(|number: &u32| payload.extend_from_slice(&number.to_be_bytes()));
        payload.resize(LOCKED_BYTES, 0);
        let text = key_text::encode_secret(key_text::OPERATOR_LOCKED_PREFIX, &payload);
        let refused = OperatorKey::parse(&text, || Some(Zeroizing::new("passphrase".into()))).unwrap_err();
        let wanted = DecodeError::Field("Argon2 parameters");
        assert!(
            matches!(refused, KeyTextError::Payload { source, .. } if source == wanted),
            "{memory} {passes}"
        );
    }
}

#[test]
fn long_lines_and_many_lines_are_refused() {
    let long = format!("{}1{}", key_text::NODE_PREFIX, "Q".repeat(1 << 20));
    assert_eq!(NodeKeyFile::parse(&long).unwrap_err(), KeyTextError::Checksum { line: 1 });
    let many = "# comment\n".repeat(100_000);
    assert!(matches!(NodeKeyFile::parse(&many), Err(KeyTextError::Empty { .. })));
    assert!(armour::decode(armour::REQUEST_LABEL, &"-".repeat(1 << 20)).is_err());
}

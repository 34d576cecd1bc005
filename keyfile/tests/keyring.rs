//! Keyrings: who can open them, who can make them, and what is refused.

#![cfg(test)]

use unibus_keyfile::{
    error::{DocumentError, UnlockError},
    id::{Epoch, Lineage, UnixTime},
    keyring::{CarriedOver, EpochState, Keyring, Secrets, Summary},
    node_key::NodeKeyFile,
    nodeset::{Nodeset, Plan, Recovery},
    operator_key::{ExtraRecoveryKey, OperatorKey},
};

const NOW: UnixTime = UnixTime::from_seconds(1_800_000_000);

struct World {
    operator: OperatorKey,
    alpha: NodeKeyFile,
    beta: NodeKeyFile,
    nodeset: Nodeset,
}

fn node(name: &str, operator: &OperatorKey) -> NodeKeyFile {
    NodeKeyFile::generate(name.parse().unwrap(), operator.cluster_id())
}

fn world() -> World {
    let operator = OperatorKey::generate();
    let (alpha, beta) = (node("alpha", &operator), node("beta", &operator));
    let plan = Plan::first(&operator).with_node(alpha.member(NOW)).with_node(beta.member(NOW));
    let nodeset = plan.sign(&operator).unwrap();
    World { operator, alpha, beta, nodeset }
}

fn create(w: &World) -> Keyring {
    Keyring::create(&w.nodeset, &w.alpha, Lineage::random(), None, NOW).unwrap().0
}

fn commitment(secrets: &Secrets, w: &World) -> [u8; 32] {
    unibus_keyfile::derive::state_commitment(secrets.state_key(), w.nodeset.cluster())
}

#[test]
fn nodes_and_recovery_recipients_open_it_and_nobody_else() {
    let w = world();
    let keyring = create(&w);
    let wanted = commitment(&keyring.unlock(&w.alpha).unwrap(), &w);
    assert_eq!(commitment(&keyring.unlock(&w.beta).unwrap(), &w), wanted);
    assert_eq!(commitment(&keyring.unlock_with_recovery(&w.operator).unwrap(), &w), wanted);
    let stranger = node("alpha", &w.operator);
    assert!(matches!(keyring.unlock(&stranger), Err(UnlockError::NotARecipient { .. })));
    let other = ExtraRecoveryKey::generate();
    assert!(matches!(keyring.unlock_with_recovery(&other), Err(UnlockError::NotARecipient { .. })));
}

#[test]
fn every_flip_and_every_cut_is_refused() {
    let w = world();
    let keyring = create(&w);
    let bytes = keyring.as_bytes();
    for at in 0..bytes.len() {
        let mut bad = bytes.to_vec();
        bad[at] ^= 0x01;
        assert!(Keyring::decode(&bad, &w.nodeset, Some(&w.alpha)).is_err(), "flip at {at}");
        assert!(Keyring::decode(&bytes[..at], &w.nodeset, Some(&w.alpha)).is_err(), "cut at {at}");
    }
}

#[test]
fn a_keyring_planted_by_a_stranger_is_refused_whatever_it_unwraps_to() {
    // The attacker knows all public keys and wraps a key of his own to every recipient, but is no node.
    let w = world();
    let mallory = node("mallory", &w.operator);
    let theirs = Plan::first(&w.operator).with_node(mallory.member(NOW)).sign(&w.operator).unwrap();
    let planted = Keyring::create(&theirs, &mallory, Lineage::random(), None, NOW).unwrap().0;
    let refused = Keyring::decode(planted.as_bytes(), &w.nodeset, Some(&w.alpha));
    assert!(matches!(refused, Err(DocumentError::Signer { .. })), "{refused:?}");
}

#[test]
fn another_clusters_keyring_is_refused_by_name() {
    let (w, v) = (world(), world());
    let refused = Keyring::decode(create(&v).as_bytes(), &w.nodeset, Some(&w.alpha));
    assert!(matches!(refused, Err(DocumentError::Cluster { .. })), "{refused:?}");
}

#[test]
fn an_older_nodeset_than_the_keyrings_is_refused() {
    let w = world();
    let newer = w.nodeset.next().sign(&w.operator).unwrap();
    let keyring = Keyring::create(&newer, &w.alpha, Lineage::random(), None, NOW).unwrap().0;
    let refused = Keyring::decode(keyring.as_bytes(), &w.nodeset, Some(&w.alpha));
    assert_eq!(refused.unwrap_err(), DocumentError::OldNodeset { expected: 2, found: 1 });
}

#[test]
fn another_nodeset_of_the_same_version_is_refused() {
    let w = world();
    let fork = Plan::first(&w.operator).with_node(w.alpha.member(NOW)).sign(&w.operator).unwrap();
    let refused = Keyring::decode(create(&w).as_bytes(), &fork, Some(&w.alpha));
    assert_eq!(refused.unwrap_err(), DocumentError::OtherNodeset { version: 1 });
}

#[test]
fn a_new_recipient_gets_the_same_secrets_and_a_removed_one_exposes_the_epoch() {
    let w = world();
    let keyring = create(&w);
    let secrets = keyring.unlock(&w.alpha).unwrap();
    let safe = ExtraRecoveryKey::generate();
    let recovery = Recovery { name: "safe".parse().unwrap(), wrapping_public: safe.public().clone() };
    let two = w.nodeset.next().with_recovery(recovery).sign(&w.operator).unwrap();
    let old = Keyring::decode(keyring.as_bytes(), &two, Some(&w.alpha)).unwrap();
    let wider = old.rewrap(&two, &w.alpha, &secrets).unwrap();
    assert_eq!((wider.version(), wider.previous()), (2, Some(keyring.hash())));
    assert!(!wider.primary().exposed);
    assert!(wider.unlock_with_recovery(&safe).is_ok());

    let three = two.next().without_node(w.beta.name()).sign(&w.operator).unwrap();
    let narrower = wider.rewrap(&three, &w.alpha, &secrets).unwrap();
    assert!(narrower.primary().exposed, "beta could read it: only a new epoch helps");
    assert!(matches!(narrower.unlock(&w.beta), Err(UnlockError::NotARecipient { .. })));
}

#[test]
fn a_node_follows_its_own_change_of_key() {
    let mut w = world();
    let keyring = create(&w);
    w.alpha.rotate().unwrap();
    let two = w.nodeset.next().with_node(w.alpha.member(NOW)).sign(&w.operator).unwrap();
    let opened = Keyring::decode(keyring.as_bytes(), &two, Some(&w.alpha)).unwrap();
    let secrets = opened.unlock(&w.alpha).unwrap();
    let rewrapped = opened.rewrap(&two, &w.alpha, &secrets).unwrap();
    w.alpha.retire();
    let again = Keyring::decode(rewrapped.as_bytes(), &two, Some(&w.alpha)).unwrap();
    assert!(again.unlock(&w.alpha).is_ok(), "the old key is no longer needed");
}

#[test]
fn a_new_lineage_carries_the_state_key_over_and_takes_the_next_epoch() {
    let w = world();
    let (first, secrets) = Keyring::create(&w.nodeset, &w.alpha, Lineage::random(), None, NOW).unwrap();
    let before = commitment(&secrets, &w);
    let carried = CarriedOver { last_epoch: first.primary().number, state: secrets.into_state_key() };
    let (second, secrets) =
        Keyring::create(&w.nodeset, &w.alpha, Lineage::random(), Some(carried), NOW).unwrap();
    assert_eq!(commitment(&secrets, &w), before);
    assert_eq!(second.primary().number, Epoch::FIRST.next().unwrap());
    assert_eq!(second.primary().state, EpochState::Primary);
    assert_ne!(second.lineage(), first.lineage());
}

#[test]
fn a_keyring_is_not_wrapped_around_secrets_that_it_does_not_commit_to() {
    let w = world();
    let (keyring, _) = Keyring::create(&w.nodeset, &w.alpha, Lineage::random(), None, NOW).unwrap();
    let (_, others) = Keyring::create(&w.nodeset, &w.alpha, Lineage::random(), None, NOW).unwrap();
    let refused = keyring.rewrap(&w.nodeset.next().sign(&w.operator).unwrap(), &w.alpha, &others);
    assert!(matches!(refused, Err(DocumentError::Invalid(_))), "everybody would be locked out: {refused:?}");
}

#[test]
fn a_keyring_does_not_go_back_to_an_older_nodeset() {
    let w = world();
    let newer = w.nodeset.next().without_node(w.beta.name()).sign(&w.operator).unwrap();
    let (keyring, secrets) = Keyring::create(&newer, &w.alpha, Lineage::random(), None, NOW).unwrap();
    let refused = keyring.rewrap(&w.nodeset, &w.alpha, &secrets);
    assert_eq!(refused.unwrap_err(), DocumentError::OldNodeset { expected: 2, found: 1 });
}

#[test]
fn a_removed_node_cannot_sign_a_keyring_for_the_nodeset_it_was_removed_from() {
    let w = world();
    let (planted, _) = Keyring::create(&w.nodeset, &w.beta, Lineage::random(), None, NOW).unwrap();
    let without = w.nodeset.next().without_node(w.beta.name()).sign(&w.operator).unwrap();
    let refused = Keyring::decode(planted.as_bytes(), &without, Some(&w.alpha));
    assert!(matches!(refused, Err(DocumentError::Signer { .. })), "{refused:?}");
}

#[test]
fn a_keyring_can_be_looked_at_without_trusting_it() {
    let w = world();
    let keyring = create(&w);
    let summary = Summary::decode(keyring.as_bytes()).unwrap();
    assert_eq!((summary.version, summary.hash), (keyring.version(), keyring.hash()));
    assert_eq!(summary.signers, [w.alpha.fingerprints()[0]]);
    let wanted: Vec<_> = w.nodeset.recipients().map(|recipient| recipient.fingerprint()).collect();
    assert_eq!(summary.recipients, wanted, "named as the nodeset names them");
}

fn sealed_under(secrets: &Secrets, number: Epoch, w: &World) -> [u8; 32] {
    unibus_keyfile::derive::epoch_commitment(secrets.epoch(number).unwrap(), w.nodeset.cluster())
}

#[test]
fn an_import_carries_the_state_key_over_and_keeps_what_was_sealed_before_open() {
    let w = world();
    let (source, theirs) = Keyring::create(&w.nodeset, &w.alpha, Lineage::random(), None, NOW).unwrap();
    let wanted = commitment(&theirs, &w);
    let (first, secrets) = Keyring::create(&w.nodeset, &w.alpha, Lineage::random(), None, NOW).unwrap();
    let before = sealed_under(&secrets, Epoch::FIRST, &w);
    let seven = Epoch::from_stored(7).unwrap();
    let carried = CarriedOver { state: theirs.into_state_key(), last_epoch: seven };
    let (second, secrets) = first.carry_over(&w.nodeset, &w.alpha, &secrets, carried, NOW).unwrap();
    assert_eq!((second.version(), second.previous()), (2, Some(first.hash())));
    assert_eq!(second.lineage(), first.lineage());
    let states: Vec<_> = second.epochs().iter().map(|entry| (entry.number.get(), entry.state)).collect();
    assert_eq!(states, [(1, EpochState::Retired), (8, EpochState::Primary)], "above all of both stores");
    assert!(second.changes_state_key(&first) && !second.changes_state_key(&source));
    // As every node and the operator read it.
    for again in [secrets, second.unlock(&w.beta).unwrap(), second.unlock_with_recovery(&w.operator).unwrap()]
    {
        assert_eq!(commitment(&again, &w), wanted);
        assert_eq!(again.primary().0.get(), 8);
        assert_eq!(sealed_under(&again, Epoch::FIRST, &w), before);
        assert_ne!(sealed_under(&again, again.primary().0, &w), before);
    }
}

#[test]
fn an_import_from_a_store_with_fewer_epochs_takes_the_next_of_its_own() {
    let w = world();
    let (first, secrets) = Keyring::create(&w.nodeset, &w.alpha, Lineage::random(), None, NOW).unwrap();
    let carry = |keyring: &Keyring, secrets: &Secrets| {
        let state = unibus_keyfile::secret::StateKey::generate();
        let carried = CarriedOver { state, last_epoch: Epoch::FIRST };
        keyring.carry_over(&w.nodeset, &w.alpha, secrets, carried, NOW).unwrap()
    };
    let (second, secrets) = carry(&first, &secrets);
    let (third, secrets) = carry(&second, &secrets);
    let numbers: Vec<_> = third.epochs().iter().map(|entry| entry.number.get()).collect();
    assert_eq!(numbers, [1, 2, 3]);
    assert_eq!(third.epochs().iter().filter(|e| e.state == EpochState::Primary).count(), 1);
    assert!(third.epochs().iter().all(|entry| secrets.epoch(entry.number).is_some()));
    assert!(third.changes_state_key(&second));
    let rewrapped = third.rewrap(&w.nodeset, &w.alpha, &secrets).unwrap();
    assert!(!rewrapped.changes_state_key(&third));
}

#[test]
fn what_cannot_be_carried_over_is_refused() {
    let w = world();
    let (keyring, secrets) = Keyring::create(&w.nodeset, &w.alpha, Lineage::random(), None, NOW).unwrap();
    let (_, others) = Keyring::create(&w.nodeset, &w.alpha, Lineage::random(), None, NOW).unwrap();
    let carried = |last: u32| {
        let state = unibus_keyfile::secret::StateKey::generate();
        CarriedOver { state, last_epoch: Epoch::from_stored(last).unwrap() }
    };
    let refused = keyring.carry_over(&w.nodeset, &w.alpha, &others, carried(1), NOW).unwrap_err();
    assert!(matches!(refused, DocumentError::Invalid(_)), "others' secrets: {refused:?}");
    let refused = keyring.carry_over(&w.nodeset, &w.alpha, &secrets, carried(u32::MAX), NOW).unwrap_err();
    assert!(matches!(refused, DocumentError::Invalid(_)), "no epoch is left: {refused:?}");
    let mallory = node("mallory", &w.operator);
    let refused = keyring.carry_over(&w.nodeset, &mallory, &secrets, carried(1), NOW).unwrap_err();
    assert!(matches!(refused, DocumentError::Signer { .. }), "{refused:?}");
    let newer = w.nodeset.next().without_node(w.beta.name()).sign(&w.operator).unwrap();
    let (over, moved) = keyring.carry_over(&newer, &w.alpha, &secrets, carried(1), NOW).unwrap();
    let exposed: Vec<_> = over.epochs().iter().map(|entry| entry.exposed).collect();
    assert_eq!(exposed, [true, false], "beta could read the first epoch and never the second");
    let refused = over.carry_over(&w.nodeset, &w.alpha, &moved, carried(1), NOW).unwrap_err();
    assert!(matches!(refused, DocumentError::OldNodeset { .. }), "{refused:?}");
}

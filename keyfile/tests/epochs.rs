//! The life of epochs: staged, activated, aborted, retired, destroyed; what each step keeps and what it refuses.

#![cfg(test)]

use std::collections::BTreeMap;

use unibus_keyfile::{
    acknowledgement::Acknowledgement,
    derive,
    error::{DocumentError, UnlockError},
    id::{Epoch, Lineage, UnixTime},
    keyring::{CarriedOver, EpochState, Keyring, Secrets},
    node_key::NodeKeyFile,
    nodeset::{Nodeset, Plan, Recovery},
    operator_key::{ExtraRecoveryKey, OperatorKey},
    secret::StateKey,
};

const NOW: UnixTime = UnixTime::from_seconds(1_800_000_000);
const LATER: UnixTime = UnixTime::from_seconds(1_800_000_500);

struct World {
    operator: OperatorKey,
    alpha: NodeKeyFile,
    beta: NodeKeyFile,
    nodeset: Nodeset,
}

fn world() -> World {
    let operator = OperatorKey::generate();
    let node = |name: &str| NodeKeyFile::generate(name.parse().unwrap(), operator.cluster_id());
    let (alpha, beta) = (node("alpha"), node("beta"));
    let plan = Plan::first(&operator).with_node(alpha.member(NOW)).with_node(beta.member(NOW));
    let nodeset = plan.sign(&operator).unwrap();
    World { operator, alpha, beta, nodeset }
}

type Held = (Keyring, Secrets);

impl World {
    fn first(&self) -> Held {
        Keyring::create(&self.nodeset, &self.alpha, Lineage::random(), None, NOW).unwrap()
    }

    fn stage(&self, (keyring, secrets): &Held) -> Held {
        keyring.stage(&self.nodeset, &self.alpha, secrets, LATER).unwrap()
    }

    fn activate(&self, (keyring, secrets): &Held) -> Held {
        keyring.activate(&self.nodeset, &self.beta, secrets).unwrap()
    }

    fn destroy(&self, (keyring, secrets): &Held, retain: bool) -> Held {
        keyring.destroy(&self.nodeset, &self.alpha, secrets, retain).unwrap()
    }

    fn commitment(&self, secrets: &Secrets, number: u32) -> Option<[u8; 32]> {
        secrets.epoch(epoch(number)).map(|key| derive::epoch_commitment(key, self.nodeset.cluster()))
    }

    fn extra(&self) -> (ExtraRecoveryKey, Nodeset) {
        let safe = ExtraRecoveryKey::generate();
        let recovery = Recovery { name: "safe".parse().unwrap(), wrapping_public: safe.public().clone() };
        let nodeset = self.nodeset.next().with_recovery(recovery).sign(&self.operator).unwrap();
        (safe, nodeset)
    }
}

fn epoch(number: u32) -> Epoch {
    Epoch::from_stored(number).unwrap()
}

fn states(keyring: &Keyring) -> Vec<(u32, EpochState)> {
    keyring.epochs().iter().map(|entry| (entry.number.get(), entry.state)).collect()
}

fn why(refused: Result<Held, DocumentError>) -> String {
    match refused.map(|_| ()) {
        Err(DocumentError::Invalid(why)) => why,
        other => panic!("{other:?}"),
    }
}

use EpochState::{Destroyed, Primary, Retired, Staged};

#[test]
fn a_staged_epoch_opens_for_everybody_and_does_not_seal() {
    let w = world();
    let first = w.first();
    let (keyring, secrets) = w.stage(&first);
    assert_eq!(states(&keyring), [(1, Primary), (2, Staged)]);
    assert_eq!((keyring.version(), keyring.previous()), (2, Some(first.0.hash())));
    assert_eq!(keyring.lineage(), first.0.lineage());
    let staged = keyring.staged().unwrap();
    assert_eq!(
        (staged.number, staged.created, staged.exposed, staged.retained),
        (epoch(2), LATER, false, false)
    );
    assert_eq!(keyring.primary().created, NOW);
    let again = Keyring::decode(keyring.as_bytes(), &w.nodeset, Some(&w.beta)).unwrap();
    for held in [secrets, again.unlock(&w.beta).unwrap(), again.unlock_with_recovery(&w.operator).unwrap()] {
        assert_eq!(held.primary().0, epoch(1));
        assert_eq!(w.commitment(&held, 2), Some(staged.commitment));
        assert_ne!(w.commitment(&held, 1), w.commitment(&held, 2));
        let word = Acknowledgement::sign(&w.beta, &keyring, &held, NOW).unwrap();
        assert_eq!(word.epochs(), [epoch(1), epoch(2)], "tried, not only unwrapped");
    }
    assert!(!keyring.changes_state_key(&first.0));
}

#[test]
fn an_activated_epoch_seals_and_the_one_before_opens() {
    let w = world();
    let staged = w.stage(&w.first());
    let (keyring, secrets) = w.activate(&staged);
    assert_eq!(states(&keyring), [(1, Retired), (2, Primary)]);
    assert_eq!((keyring.version(), keyring.previous()), (3, Some(staged.0.hash())));
    assert_eq!(keyring.retired().map(|entry| entry.number).collect::<Vec<_>>(), [epoch(1)]);
    assert!(keyring.staged().is_none());
    for held in [secrets, keyring.unlock(&w.alpha).unwrap()] {
        assert_eq!(held.primary().0, epoch(2));
        for number in [1, 2] {
            assert_eq!(w.commitment(&held, number), w.commitment(&staged.1, number));
        }
    }
}

#[test]
fn an_aborted_epoch_is_gone_and_its_number_with_it() {
    let w = world();
    let first = w.first();
    let staged = w.stage(&first);
    let (keyring, secrets) = staged.0.abort(&w.nodeset, &w.alpha, &staged.1).unwrap();
    assert_eq!(states(&keyring), [(1, Primary), (2, Destroyed)]);
    assert!(!keyring.epochs()[1].retained);
    assert_eq!(keyring.retained(&w.operator).unwrap().len(), 0, "it never sealed anything");
    for held in [&secrets, &keyring.unlock(&w.beta).unwrap()] {
        assert!(held.epoch(epoch(2)).is_none());
        assert_eq!(w.commitment(held, 1), w.commitment(&first.1, 1));
    }
    let (keyring, _) = w.stage(&(keyring, secrets));
    assert_eq!(states(&keyring), [(1, Primary), (2, Destroyed), (3, Staged)]);
}

#[test]
fn no_node_opens_a_destroyed_epoch_and_nothing_of_it_remains() {
    let w = world();
    let active = w.activate(&w.stage(&w.first()));
    let (keyring, secrets) = w.destroy(&active, false);
    assert_eq!(states(&keyring), [(1, Destroyed), (2, Primary)]);
    let opened = [keyring.unlock(&w.alpha).unwrap(), keyring.unlock_with_recovery(&w.operator).unwrap()];
    for held in opened.iter().chain([&secrets]) {
        assert!(held.epoch(epoch(1)).is_none());
        assert_eq!(w.commitment(held, 2), w.commitment(&active.1, 2));
    }
    assert!(!keyring.epochs()[0].retained);
    assert_eq!(keyring.retained(&w.operator).unwrap().len(), 0);
    assert_eq!(keyring.epochs()[0].commitment, active.0.epochs()[0].commitment, "what it was stays known");
    let word = Acknowledgement::sign(&w.beta, &keyring, &opened[0], NOW).unwrap();
    assert_eq!(word.epochs(), [epoch(2)]);
}

#[test]
fn a_retained_epoch_opens_for_recovery_recipients_alone() {
    let w = world();
    let (safe, wider) = w.extra();
    let (keyring, secrets) = w.activate(&w.stage(&w.first()));
    let (destroyed, held) = keyring.destroy(&wider, &w.alpha, &secrets, true).unwrap();
    assert!(destroyed.epochs()[0].retained && !destroyed.epochs()[1].retained);
    assert!(held.epoch(epoch(1)).is_none() && destroyed.unlock(&w.beta).unwrap().epoch(epoch(1)).is_none());
    assert!(destroyed.unlock_with_recovery(&safe).unwrap().epoch(epoch(1)).is_none(), "only when asked for");
    for found in [destroyed.retained(&w.operator).unwrap(), destroyed.retained(&safe).unwrap()] {
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].0, epoch(1));
        let commitment = derive::epoch_commitment(&found[0].1, w.nodeset.cluster());
        assert_eq!(commitment, keyring.epochs()[0].commitment);
    }
    let stranger = ExtraRecoveryKey::generate();
    let refused = destroyed.retained(&stranger).unwrap_err();
    assert!(
        matches!(refused, UnlockError::NotARecipient { ref expected, .. } if expected.len() == 2),
        "{refused:?}"
    );
}

#[test]
fn what_is_retained_is_carried_as_it_is_by_every_later_version() {
    let w = world();
    let first = w.destroy(&w.activate(&w.stage(&w.first())), true);
    let wanted = first.0.epochs()[0].commitment;
    let opens = |keyring: &Keyring, numbers: &[u32]| {
        let found = keyring.retained(&w.operator).unwrap();
        assert_eq!(found.iter().map(|(number, _)| number.get()).collect::<Vec<_>>(), numbers);
        assert_eq!(derive::epoch_commitment(&found[0].1, w.nodeset.cluster()), wanted);
        let again = Keyring::decode(keyring.as_bytes(), &w.nodeset, Some(&w.alpha)).unwrap();
        assert!(again.epochs()[0].retained);
    };
    opens(&first.0, &[1]);
    let rewrapped = first.0.rewrap(&w.nodeset, &w.beta, &first.1).unwrap();
    opens(&rewrapped, &[1]);
    let staged = w.stage(&(rewrapped, first.1));
    opens(&staged.0, &[1]);
    let active = w.activate(&staged);
    opens(&active.0, &[1]);
    let second = w.destroy(&active, true);
    opens(&second.0, &[1, 2]);
    let third = w.destroy(&w.activate(&w.stage(&second)), false);
    assert_eq!(states(&third.0), [(1, Destroyed), (2, Destroyed), (3, Destroyed), (4, Primary)]);
    assert!(!third.0.epochs()[2].retained);
    opens(&third.0, &[1, 2]);
    let carried = CarriedOver { state: StateKey::generate(), last_epoch: epoch(9) };
    let (over, _) = third.0.carry_over(&w.nodeset, &w.alpha, &third.1, carried, NOW).unwrap();
    opens(&over, &[1, 2]);
}

#[test]
fn every_flip_and_every_cut_of_a_keyring_with_retained_keys_is_refused() {
    let w = world();
    let (keyring, _) = w.destroy(&w.activate(&w.stage(&w.first())), true);
    let bytes = keyring.as_bytes();
    for at in 0..bytes.len() {
        let mut bad = bytes.to_vec();
        bad[at] ^= 0x01;
        assert!(Keyring::decode(&bad, &w.nodeset, Some(&w.alpha)).is_err(), "flip at {at}");
        assert!(Keyring::decode(&bytes[..at], &w.nodeset, Some(&w.alpha)).is_err(), "cut at {at}");
    }
}

#[test]
fn each_step_is_refused_where_it_does_not_belong() {
    let w = world();
    let first = w.first();
    let staged = w.stage(&first);
    let active = w.activate(&staged);
    let again = w.stage(&active);
    let gone = w.destroy(&active, false);
    let stage = |(keyring, secrets): &Held| why(keyring.stage(&w.nodeset, &w.alpha, secrets, NOW));
    let activate = |(keyring, secrets): &Held| why(keyring.activate(&w.nodeset, &w.alpha, secrets));
    let abort = |(keyring, secrets): &Held| why(keyring.abort(&w.nodeset, &w.alpha, secrets));
    let destroy = |(keyring, secrets): &Held| why(keyring.destroy(&w.nodeset, &w.alpha, secrets, true));
    assert_eq!(stage(&staged), "epoch 2 is staged already: activate or abort it first");
    for held in [&first, &active, &gone] {
        assert_eq!(activate(held), "no epoch is staged");
        assert_eq!(abort(held), "no epoch is staged");
    }
    for held in [&first, &gone] {
        assert_eq!(destroy(held), "no epoch is retired");
    }
    assert_eq!(destroy(&staged), "epoch 2 is staged: activate or abort it first");
    assert_eq!(destroy(&again), "epoch 3 is staged: activate or abort it first");
    let expose =
        |numbers: &[Epoch]| first.0.expose(&w.nodeset, &w.alpha, &first.1, numbers).map(|k| (k, w.first().1));
    assert_eq!(why(expose(&[])), "no epoch is named");
    assert_eq!(why(expose(&[epoch(1), epoch(7)])), "the keyring has no epoch 7");
}

#[test]
fn the_secrets_of_another_version_are_refused() {
    let w = world();
    let first = w.first();
    let staged = w.stage(&first);
    let active = w.activate(&staged);
    let gone = w.destroy(&active, true);
    let all = [&first, &staged, &active, &gone];
    for (mine, (keyring, _)) in all.iter().enumerate() {
        for (theirs, (_, secrets)) in all.iter().enumerate().filter(|(theirs, _)| *theirs != mine) {
            let refused = [
                keyring.stage(&w.nodeset, &w.alpha, secrets, NOW).map(|_| ()),
                keyring.activate(&w.nodeset, &w.alpha, secrets).map(|_| ()),
                keyring.abort(&w.nodeset, &w.alpha, secrets).map(|_| ()),
                keyring.destroy(&w.nodeset, &w.alpha, secrets, false).map(|_| ()),
                keyring.expose(&w.nodeset, &w.alpha, secrets, &[epoch(1)]).map(|_| ()),
                keyring.rewrap(&w.nodeset, &w.alpha, secrets).map(|_| ()),
                Acknowledgement::sign(&w.alpha, keyring, secrets, NOW).map(|_| ()),
            ];
            for refused in refused {
                let wanted = DocumentError::Invalid("these are not the secrets of this keyring".into());
                assert_eq!(refused.unwrap_err(), wanted, "keyring {mine} with the secrets of {theirs}");
            }
        }
    }
}

#[test]
fn no_stranger_and_no_older_nodeset_takes_a_step() {
    let w = world();
    let (_, wider) = w.extra();
    let mallory = NodeKeyFile::generate("mallory".parse().unwrap(), w.operator.cluster_id());
    let (keyring, secrets) = w.first();
    let refused = keyring.stage(&w.nodeset, &mallory, &secrets, NOW).unwrap_err();
    assert!(matches!(refused, DocumentError::Signer { .. }), "{refused:?}");
    let (staged, held) = keyring.stage(&wider, &w.alpha, &secrets, NOW).unwrap();
    let refused = staged.activate(&w.nodeset, &w.alpha, &held).unwrap_err();
    assert_eq!(refused, DocumentError::OldNodeset { expected: 2, found: 1 });
}

#[test]
fn exposure_stays_and_a_fresh_epoch_has_none() {
    let w = world();
    let (keyring, secrets) = w.first();
    let marked = keyring.expose(&w.nodeset, &w.alpha, &secrets, &[epoch(1)]).unwrap();
    assert!(marked.primary().exposed);
    let staged = w.stage(&(marked, secrets));
    let active = w.activate(&staged);
    let gone = w.destroy(&active, true);
    for (keyring, _) in [&staged, &active, &gone] {
        assert_eq!(keyring.epochs().iter().map(|e| e.exposed).collect::<Vec<_>>(), [true, false]);
    }
    let marked = gone.0.expose(&w.nodeset, &w.alpha, &gone.1, &[epoch(2)]).unwrap();
    assert!(marked.epochs().iter().all(|entry| entry.exposed));

    // Whoever leaves while an epoch is staged could read that one too.
    let without = w.nodeset.next().without_node(w.beta.name()).sign(&w.operator).unwrap();
    let narrower = staged.0.rewrap(&without, &w.alpha, &staged.1).unwrap();
    assert_eq!(states(&narrower), [(1, Primary), (2, Staged)]);
    assert!(narrower.staged().unwrap().exposed);
    // Whoever leaves with the step that stages could not.
    let first = w.first();
    let (narrower, _) = first.0.stage(&without, &w.alpha, &first.1, NOW).unwrap();
    assert_eq!(narrower.epochs().iter().map(|e| e.exposed).collect::<Vec<_>>(), [true, false]);
    assert!(matches!(narrower.unlock(&w.beta), Err(UnlockError::NotARecipient { .. })));
}

#[test]
fn an_import_takes_over_in_every_state() {
    let w = world();
    let first = w.first();
    let staged = w.stage(&first);
    let active = w.activate(&staged);
    for (held, retired) in [(&staged, [Retired, Retired]), (&active, [Retired, Retired])] {
        let carried = CarriedOver { state: StateKey::generate(), last_epoch: epoch(5) };
        let (over, secrets) = held.0.carry_over(&w.nodeset, &w.alpha, &held.1, carried, NOW).unwrap();
        assert_eq!(states(&over), [(1, retired[0]), (2, retired[1]), (6, Primary)]);
        assert!([1, 2, 6].iter().all(|number| secrets.epoch(epoch(*number)).is_some()));
        let (gone, secrets) = over.destroy(&w.nodeset, &w.alpha, &secrets, false).unwrap();
        assert_eq!(states(&gone), [(1, Destroyed), (2, Destroyed), (6, Primary)]);
        assert!(secrets.epoch(epoch(6)).is_some() && secrets.epoch(epoch(2)).is_none());
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Stage,
    Activate,
    Abort,
    Destroy(bool),
    Rewrap,
}

/// What must hold of every version, however it came about.
fn check(w: &World, held: &Held, seen: &mut BTreeMap<Epoch, [u8; 32]>, retained: &[Epoch], path: &[Step]) {
    let (keyring, secrets) = held;
    let count = |state| keyring.epochs().iter().filter(|entry| entry.state == state).count();
    assert_eq!(count(Primary), 1, "{path:?}");
    assert!(count(Staged) <= 1, "{path:?}");
    let unlocked = keyring.unlock(&w.beta).unwrap();
    for entry in keyring.epochs() {
        let before = *seen.entry(entry.number).or_insert(entry.commitment);
        assert_eq!(before, entry.commitment, "a number means one key: {path:?}");
        for held in [secrets, &unlocked] {
            let found = held.epoch(entry.number).map(|key| derive::epoch_commitment(key, keyring.cluster()));
            let wanted = (entry.state != Destroyed).then_some(entry.commitment);
            assert_eq!(found, wanted, "{path:?}");
        }
        assert_eq!(entry.retained, retained.contains(&entry.number), "{path:?}");
    }
    assert!(seen.keys().all(|number| keyring.epochs().iter().any(|e| e.number == *number)), "{path:?}");
    let opened = keyring.retained(&w.operator).unwrap();
    assert_eq!(opened.iter().map(|(number, _)| *number).collect::<Vec<_>>(), retained, "{path:?}");
    for (number, key) in opened {
        assert_eq!(Some(&derive::epoch_commitment(&key, keyring.cluster())), seen.get(&number), "{path:?}");
    }
}

fn walk(
    w: &World,
    held: &Held,
    seen: &BTreeMap<Epoch, [u8; 32]>,
    kept: &[Epoch],
    path: &mut Vec<Step>,
    left: usize,
) -> usize {
    if left == 0 {
        return 0;
    }
    let (keyring, secrets) = held;
    let mut versions = 0;
    let steps =
        [Step::Stage, Step::Activate, Step::Abort, Step::Destroy(true), Step::Destroy(false), Step::Rewrap];
    for step in steps {
        let staged = keyring.staged().is_some();
        let retired: Vec<Epoch> = keyring.retired().map(|entry| entry.number).collect();
        let (allowed, next) = match step {
            Step::Stage => (!staged, keyring.stage(&w.nodeset, &w.alpha, secrets, NOW)),
            Step::Activate => (staged, keyring.activate(&w.nodeset, &w.alpha, secrets)),
            Step::Abort => (staged, keyring.abort(&w.nodeset, &w.alpha, secrets)),
            Step::Destroy(retain) => {
                let next = keyring.destroy(&w.nodeset, &w.alpha, secrets, retain);
                (!staged && !retired.is_empty(), next)
            }
            Step::Rewrap => {
                let next = keyring.rewrap(&w.nodeset, &w.alpha, secrets);
                (true, next.map(|next| (next, keyring.unlock(&w.alpha).unwrap())))
            }
        };
        path.push(step);
        assert_eq!(next.is_ok(), allowed, "{path:?}");
        if let Ok(next) = next {
            assert_eq!((next.0.version(), next.0.previous()), (keyring.version() + 1, Some(keyring.hash())));
            let mut seen = seen.clone();
            let mut kept = kept.to_vec();
            if matches!(step, Step::Destroy(true)) {
                kept.extend(retired);
            }
            check(w, &next, &mut seen, &kept, path);
            versions += 1 + walk(w, &next, &seen, &kept, path, left - 1);
        }
        path.pop();
    }
    versions
}

#[test]
fn every_short_path_of_steps_keeps_the_rules() {
    let w = world();
    let first = w.first();
    let mut seen = BTreeMap::new();
    check(&w, &first, &mut seen, &[], &[]);
    let versions = walk(&w, &first, &seen, &[], &mut Vec::new(), 6);
    assert!(versions > 300, "{versions}");
}

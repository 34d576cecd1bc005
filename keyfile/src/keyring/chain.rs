//! Whether one keyring can be a later version of another (SPEC keyfile, section 5.2).

use super::{EpochState, Keyring, RetainedWrap};

impl Keyring {
    /// Whether this may be a later version: of one lineage and state key, no epoch lost or gone back, no commitment
    /// changed, no mark of exposure and no retained wrap taken away. The next version names this one by its hash.
    ///
    /// # Errors
    /// What is wrong, for people.
    pub(crate) fn continues(&self, earlier: &Self) -> Result<(), &'static str> {
        let (old, new) = (&earlier.contents, &self.contents);
        if new.cluster != old.cluster || new.lineage != old.lineage {
            return Err("they are of several lineages");
        }
        if new.version <= old.version {
            return Err("their versions do not go up");
        }
        if new.version == old.version.saturating_add(1) && new.previous != Some(earlier.hash) {
            return Err("one does not name the one before it");
        }
        if new.nodeset_version < old.nodeset_version {
            return Err("one was made for an older nodeset than the one before it");
        }
        if new.state_commitment != old.state_commitment {
            return Err("the state key is another");
        }
        for before in &old.epochs {
            let Ok(at) = new.epochs.binary_search_by_key(&before.number, |entry| entry.number) else {
                return Err("an epoch is lost");
            };
            let Some(after) = new.epochs.get(at) else { return Err("an epoch is lost") };
            if after.commitment != before.commitment || after.created != before.created {
                return Err("an epoch is another");
            }
            if after.state.number() < before.state.number() {
                return Err("an epoch went back");
            }
            if before.exposed && !after.exposed {
                return Err("an epoch is no longer marked as exposed");
            }
            if before.state == EpochState::Destroyed && before.retained != after.retained {
                return Err("a destroyed epoch came back for recovery, or was lost for it");
            }
        }
        let last = old.epochs.last().map(|entry| entry.number);
        let fresh = new.epochs.get(old.epochs.len()..).unwrap_or_default();
        if !fresh.iter().all(|entry| Some(entry.number) > last) {
            return Err("the number of an epoch was used again");
        }
        for wrap in &old.retained {
            let at = new.retained.binary_search_by_key(&wrap.place(), RetainedWrap::place);
            if at.ok().and_then(|at| new.retained.get(at)) != Some(wrap) {
                return Err("a key that was kept for recovery is lost");
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        id::{Epoch, Lineage, UnixTime},
        keyring::Contents,
        node_key::NodeKeyFile,
        nodeset::Plan,
        operator_key::OperatorKey,
    };

    fn history() -> Vec<Keyring> {
        let operator = OperatorKey::generate();
        let own = NodeKeyFile::generate("alpha".parse().unwrap(), operator.cluster_id());
        let now = UnixTime::from_seconds(1);
        let nodeset = Plan::first(&operator).with_node(own.member(now)).sign(&operator).unwrap();
        let mut all = vec![Keyring::create(&nodeset, &own, Lineage::random(), None, now).unwrap()];
        for _ in 0..2 {
            let (keyring, secrets) = all.last().unwrap();
            let staged = keyring.stage(&nodeset, &own, secrets, now).unwrap();
            let active = staged.0.activate(&nodeset, &own, &staged.1).unwrap();
            let gone = active.0.destroy(&nodeset, &own, &active.1, true).unwrap();
            let marked = gone.0.expose(&nodeset, &own, &gone.1, &[Epoch::FIRST]).unwrap();
            let secrets = marked.unlock(&own).unwrap();
            all.extend([staged, active, gone, (marked, secrets)]);
        }
        all.into_iter().map(|(keyring, _)| keyring).collect()
    }

    #[test]
    fn every_version_continues_every_earlier_one_and_no_later_one() {
        let all = history();
        for (at, keyring) in all.iter().enumerate() {
            for (before, earlier) in all.iter().enumerate() {
                assert_eq!(keyring.continues(earlier).is_ok(), before < at, "{at} after {before}");
            }
        }
    }

    #[test]
    fn what_a_node_could_change_by_hand_is_found() {
        let all = history();
        let (earlier, good) = (&all[4], &all[7]);
        let why = |change: &dyn Fn(&mut Contents)| {
            let mut forged = good.clone();
            change(&mut forged.contents);
            forged.continues(earlier).err()
        };
        assert_eq!(why(&|_| {}), None);
        assert_eq!(why(&|c| c.lineage = Lineage::random()), Some("they are of several lineages"));
        assert_eq!(why(&|c| c.version = 5), Some("their versions do not go up"));
        assert_eq!(why(&|c| c.version = 6), Some("one does not name the one before it"));
        let older = "one was made for an older nodeset than the one before it";
        assert_eq!(why(&|c| c.nodeset_version = 0), Some(older));
        assert_eq!(why(&|c| c.state_commitment[0] ^= 1), Some("the state key is another"));
        assert_eq!(why(&|c| c.epochs.truncate(1)), Some("an epoch is lost"));
        assert_eq!(why(&|c| c.epochs[1].commitment[0] ^= 1), Some("an epoch is another"));
        assert_eq!(why(&|c| c.epochs[1].created = UnixTime::from_seconds(2)), Some("an epoch is another"));
        assert_eq!(why(&|c| c.epochs[0].state = EpochState::Retired), Some("an epoch went back"));
        assert_eq!(why(&|c| c.epochs[0].exposed = false), Some("an epoch is no longer marked as exposed"));
        let recovery = "a destroyed epoch came back for recovery, or was lost for it";
        assert_eq!(why(&|c| c.epochs[0].retained = false), Some(recovery));
        let lost = "a key that was kept for recovery is lost";
        assert_eq!(why(&|c| drop(c.retained.remove(0))), Some(lost));
        assert_eq!(why(&|c| c.retained[0].wrapped[7] ^= 1), Some(lost));
        assert_eq!(why(&|c| c.retained[0].recipient[7] ^= 1), Some(lost));
        // A store that began with a later epoch, by an import: a number below it is not free.
        let (mut earlier, mut forged) = (earlier.clone(), good.clone());
        earlier.contents.epochs.remove(0);
        earlier.contents.retained.clear();
        assert_eq!(forged.continues(&earlier), Err("the number of an epoch was used again"));
        forged.contents.epochs.remove(0);
        assert_eq!(forged.continues(&earlier), Ok(()));
    }
}

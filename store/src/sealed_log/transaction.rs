//! What a write sees that comes after others of its group: the view, with their changes laid over.

use unibus_keyfile::digest::{StateDigest, StateHasher};

use super::view::State;
use super::view::tables::{Tables, merged};
use crate::domain::{Change, Scan, View, Visit};
use crate::error::StoreError;
use crate::record::{RecordBytes, RecordId};

/// Changes to be laid over a view, and the digest of the two together.
#[derive(Debug)]
pub(super) struct Layer {
    changed: Tables<Option<RecordBytes>>,
    digest: StateDigest,
}

impl Layer {
    /// No changes; `digest` is that of what lies below.
    pub(super) fn on(digest: StateDigest) -> Self {
        Self { changed: Tables::default(), digest }
    }

    /// Digest of the records with all changes.
    pub(super) const fn digest(&self) -> StateDigest {
        self.digest
    }
}

/// A view with changes laid over it: those of a group that is on its way to the log, if one is, and those of the group
/// that is being made.
#[derive(Debug)]
pub(super) struct Overlay<'a> {
    base: &'a State,
    below: Option<&'a Layer>,
    top: &'a mut Layer,
}

impl<'a> Overlay<'a> {
    pub(super) const fn new(base: &'a State, below: Option<&'a Layer>, top: &'a mut Layer) -> Self {
        Self { base, below, top }
    }

    /// Lays changes over that were made from this overlay as it is now. Gives the hash of each record as it is then.
    pub(super) fn apply(&mut self, changes: &[Change], hasher: &StateHasher) -> Vec<Option<[u8; 32]>> {
        let apply = |Change { id, before, after }: &Change| {
            if let Some(before) = before {
                self.top.digest.subtract(&hasher.hash(before.as_bytes()));
            }
            let hash = after.as_ref().map(|after| hasher.hash(after.as_bytes()));
            if let Some(hash) = &hash {
                self.top.digest.add(hash);
            }
            self.top.changed.insert(id.clone(), after.clone());
            hash
        };
        changes.iter().map(apply).collect()
    }

    /// Digest of the records with all changes.
    pub(super) const fn digest(&self) -> StateDigest {
        self.top.digest
    }
}

impl View for Overlay<'_> {
    fn record(&self, id: &RecordId) -> Result<Option<RecordBytes>, StoreError> {
        let base = self.base.shown(id)?;
        let below = self.below.and_then(|below| below.changed.get(id));
        let changed = self.top.changed.get(id).or(below);
        Ok(changed.map_or(base, Option::as_ref).cloned())
    }

    fn scan(&self, scan: Scan<'_>, visit: &mut Visit<'_>) -> Result<(), StoreError> {
        let mut rows = self.base.select(scan)?;
        if let Some(below) = self.below {
            rows = Box::new(merged(rows, below.changed.select(scan)));
        }
        for (id, bytes) in merged(rows, self.top.changed.select(scan)) {
            if visit(id, bytes)?.is_break() {
                break;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::{self, Actor};
    use crate::record::UserRole;
    use crate::sealed_log::entry::{Content, DocumentName, Opened};
    use crate::sealed_log::fixture;
    use crate::sealed_log::history::{History, Records, assert_shows, steps};
    use crate::sealed_log::view::Item;

    fn state_of(history: &History) -> State {
        let mut state = State::new(history.hasher());
        for message in history.compacted(history.log.len()) {
            state.apply(message.sequence, message.item).unwrap();
        }
        state
    }

    /// The changes between what a view shows and what it should show next.
    fn changes(view: &dyn View, before: &Records, after: &Records) -> Vec<Change> {
        let ids: std::collections::BTreeSet<_> = before.keys().chain(after.keys()).collect();
        let change = |id: &RecordId| Change {
            id: id.clone(),
            before: view.record(id).unwrap(),
            after: after.get(id).cloned(),
        };
        ids.into_iter().map(change).filter(|change| change.before != change.after).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

        #[test]
        fn each_write_of_a_group_sees_those_before_it(steps in steps(0..30), split in any::<prop::sample::Index>(), group in 0..10_usize) {
            let whole = History::of(&steps);
            // Records do not depend on the keys of their history.
            let begun = History::of(&steps[..split.index(steps.len() + 1)]);
            let state = state_of(&begun);
            let hasher = begun.hasher();
            let (mut below, mut top) = (None, Layer::on(state.digest()));
            let mut before = begun.last().records.clone();
            let rest = whole.moments.iter().skip(begun.moments.len() - 1);
            for (number, after) in rest.map(|moment| &moment.records).enumerate() {
                // From here on the first group is on its way, and another is made.
                if number == group {
                    let digest = top.digest();
                    below = Some(std::mem::replace(&mut top, Layer::on(digest)));
                }
                let mut overlay = Overlay::new(&state, below.as_ref(), &mut top);
                assert_shows(&overlay, &before);
                let changes = changes(&overlay, &before, after);
                overlay.apply(&changes, &hasher);
                assert_shows(&overlay, after);
                prop_assert_eq!(overlay.digest(), begun.digest_of(after));
                before = after.clone();
            }
            assert_shows(&state, &begun.last().records);
        }
    }

    #[test]
    fn a_check_that_allows_a_write_sees_the_write_before_it() {
        let history = History::of(&[]);
        let (state, hasher) = (state_of(&history), history.hasher());
        let mut layer = Layer::on(state.digest());
        let mut overlay = Overlay::new(&state, None, &mut layer);
        let (admin, other) = (fixture::sign(1), fixture::user(2));
        let add = |view: &dyn View| domain::add_user(view, &Actor::Signer(admin), &other);
        assert!(matches!(add(&overlay), Err(StoreError::NotAuthorized)));
        let mut user = fixture::user(1);
        user.role = UserRole::Admin;
        let changes = domain::add_user(&overlay, &Actor::Operator, &user).unwrap();
        overlay.apply(&changes, &hasher);
        assert!(domain::is_authorized(&overlay, &admin) && !domain::is_authorized(&state, &admin));
        let added = add(&overlay).unwrap();
        overlay.apply(&added, &hasher);
        assert!(matches!(add(&overlay), Err(StoreError::AlreadyExists { .. })));
        let revoke = domain::revoke_user(&overlay, &Actor::Operator, &admin, fixture::at(1)).unwrap();
        overlay.apply(&revoke, &hasher);
        assert!(!domain::is_authorized(&overlay, &admin));
        assert!(matches!(add(&overlay), Err(StoreError::NotAuthorized)));
    }

    #[test]
    fn nothing_is_decided_over_a_view_that_shows_nothing() {
        let history = History::of(&[]);
        let mut state = State::new(history.hasher());
        state.apply(5, Item::Document(DocumentName::Nodeset)).unwrap();
        let mut layer = Layer::on(state.digest());
        let overlay = Overlay::new(&state, None, &mut layer);
        let refused = domain::add_user(&overlay, &Actor::Operator, &fixture::user(1));
        assert!(matches!(refused, Err(StoreError::Unavailable { .. })));
    }

    /// The largest room: what one member's keys cost must not depend on the others'.
    #[test]
    fn a_member_of_a_large_room_is_removed_without_walking_all_keys() {
        let history = History::of(&[]);
        let mut state = State::new(history.hasher());
        let (members, epochs) = (1000, 50);
        let mut ids: Vec<RecordId> = vec![RecordId::Room(fixture::room("r"))];
        ids.extend((1..=members).map(|number| fixture::member("r", number).id()));
        for epoch in 1..=epochs {
            ids.extend((1..=members).map(|number| fixture::room_key("r", epoch, number)));
        }
        let mut digest = state.digest();
        for (sequence, id) in (1..).zip(ids) {
            let bytes = fixture::bytes(&id, 1);
            let hash = history.hasher().hash(bytes.as_bytes());
            digest.add(&hash);
            let content = Content::Record { id, bytes: Some(bytes) };
            let epoch = unibus_keyfile::id::Epoch::FIRST;
            let opened = Opened { content, digest_after: digest, epoch, hash: Some(hash) };
            state.apply(sequence, Item::Entry(opened)).unwrap();
        }
        let mut layer = Layer::on(state.digest());
        let overlay = Overlay::new(&state, None, &mut layer);
        let RecordId::Member(room, endpoint) = fixture::member("r", 500).id() else { unreachable!() };
        let mut count = 0;
        let rounds = (0..20).map(|_| {
            let began = std::time::Instant::now();
            for scan in [Scan::RoomKeysOf(&room, &endpoint), Scan::MembershipsOf(&endpoint)] {
                let mut visit = |_: &RecordId, _: &RecordBytes| {
                    count += 1;
                    Ok(std::ops::ControlFlow::Continue(()))
                };
                overlay.scan(scan, &mut visit).unwrap();
            }
            began.elapsed()
        });
        let best = rounds.min().unwrap();
        assert_eq!(count, 20 * (epochs + 1));
        // Walking 50,000 keys takes milliseconds.
        assert!(best < std::time::Duration::from_millis(1), "{best:?}");
    }
}

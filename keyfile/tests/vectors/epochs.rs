//! The keyrings of `make.rs` with more than one epoch: staged, retired, destroyed, retained.

use unibus_keyfile::{
    aad, derive,
    id::{Epoch, Lineage},
    keyring::{Keyring, RETAINED_LABEL, Secrets},
    nodeset::Nodeset,
    operator_key::RecoveryKey,
    secret::EpochKey,
    signed::{self, Kind},
};

use super::{
    NOW, World, hex,
    more::{EPOCH, KeyringBody, Retained, STATE, bundle, keyring_around, keyring_fields, wrap_to},
    put,
};
use crate::{Vector, folder};

const SECOND: [u8; 32] = [8; 32];

fn states(keyring: &Keyring) -> String {
    let state =
        |entry: &unibus_keyfile::keyring::EpochEntry| format!("{}:{}", entry.number, entry.state.name());
    keyring.epochs().iter().map(state).collect::<Vec<_>>().join(" ")
}

fn good(w: &World) {
    let nodeset = Vector::read(&folder().join("nodeset_ok.vec")).bytes;
    let nodeset = Nodeset::decode(&nodeset, &w.operator.cluster_id()).unwrap();
    let put_good = |name: &str, comment: &str, (keyring, secrets): &(Keyring, Secrets)| {
        let retained = keyring.retained(&w.operator).unwrap();
        let retained: Vec<_> = retained.iter().map(|(number, _)| number.to_string()).collect();
        let found = [
            ("lineage", keyring.lineage().to_string()),
            ("version", keyring.version().to_string()),
            ("primary", secrets.primary().0.to_string()),
            ("states", states(keyring)),
            ("operator-seed", hex(&[1; 32])),
            ("retained", format!("[{}]", retained.join(" "))),
        ];
        let fields = [keyring_fields(w), found.to_vec()].concat();
        put(&format!("keyring_ok_{name}"), "keyring", "ok", comment, &fields, keyring.as_bytes());
    };
    let own = &w.alpha;
    let first = Keyring::create(&nodeset, own, Lineage::from_bytes([7; 16]), None, NOW).unwrap();
    let staged = first.0.stage(&nodeset, own, &first.1, NOW).unwrap();
    put_good("staged", "a second epoch, staged", &staged);
    let aborted = staged.0.abort(&nodeset, own, &staged.1).unwrap();
    put_good("aborted", "the staged epoch is destroyed", &aborted);
    let active = staged.0.activate(&nodeset, own, &staged.1).unwrap();
    put_good("activated", "the second epoch seals, the first one opens", &active);
    let destroyed = active.0.destroy(&nodeset, own, &active.1, false).unwrap();
    put_good("destroyed", "nothing remains of the first epoch's key", &destroyed);
    let retained = active.0.destroy(&nodeset, own, &active.1, true).unwrap();
    put_good("retained", "the first epoch's key is kept for recovery", &retained);
    let staged = retained.0.stage(&nodeset, own, &retained.1, NOW).unwrap();
    let active = staged.0.activate(&nodeset, own, &staged.1).unwrap();
    let both = active.0.destroy(&nodeset, own, &active.1, true).unwrap();
    put_good("retained_two", "two keys are kept, the first one carried as it was", &both);
    let marked = both.0.expose(&nodeset, own, &both.1, &[Epoch::FIRST]).unwrap();
    let secrets = marked.unlock(own).unwrap();
    put_good("exposed", "a destroyed epoch counts as exposed", &(marked, secrets));
}

/// A keyring with the first epoch destroyed and retained, and the second one primary.
fn retained_body(w: &World, wrapped: [u8; 32], spoil: impl FnOnce(&mut KeyringBody)) -> Vec<u8> {
    let cluster = w.operator.cluster_id();
    keyring_around(w, &bundle(1, STATE, 2, SECOND), |body| {
        let second = EpochKey::init_with(|out| *out = SECOND);
        body.epochs[0].1 = 4;
        body.epochs.push((2, 2, derive::epoch_commitment(&second, &cluster).to_vec()));
        let recipient = w.operator.wrapping().public();
        let info = aad::parts(&[
            RETAINED_LABEL,
            &1_u16.to_be_bytes(),
            cluster.as_bytes(),
            &[7; 16],
            &1_u32.to_be_bytes(),
            recipient.id(),
        ]);
        let wrap = recipient.wrap(&info, &wrapped).unwrap();
        body.retained = Some(vec![(1, recipient.id().to_vec(), wrap)]);
        spoil(body);
    })
}

pub(super) fn epochs(w: &World) {
    good(w);
    let mut fields = keyring_fields(w);
    fields.push(("operator-seed", hex(&[1; 32])));
    let signing = w.alpha.slots()[0].signing();
    let put_body = |name: &str, expect: &str, body: &[u8]| {
        let bytes = signed::encode(Kind::Keyring, body, &[&signing]);
        put(&format!("keyring_{name}"), "keyring", expect, name, &fields, &bytes);
    };
    let put_spoilt = |name: &str, expect: &str, spoil: &dyn Fn(&mut KeyringBody)| {
        put_body(name, expect, &retained_body(w, EPOCH, |body| spoil(body)));
    };
    put_spoilt("ok_retained_by_hand", "ok", &|_| {});
    put_spoilt("two_staged", "Field(staged epoch)", &|b| {
        b.epochs.extend([(3, 1, vec![0; 32]), (4, 1, vec![0; 32])]);
    });
    put_spoilt("retained_none", "Field(retained)", &|b| b.retained = Some(Vec::new()));
    let first = |b: &mut KeyringBody, change: &dyn Fn(&mut Retained)| {
        change(&mut b.retained.as_mut().unwrap()[0]);
    };
    put_spoilt("retained_epoch_zero", "Field(retained epoch)", &|b| first(b, &|wrap| wrap.0 = 0));
    put_spoilt("retained_epoch_primary", "Field(retained epoch)", &|b| first(b, &|wrap| wrap.0 = 2));
    put_spoilt("retained_epoch_unknown", "Field(retained epoch)", &|b| first(b, &|wrap| wrap.0 = 3));
    put_spoilt("retained_epoch_retired", "Field(retained epoch)", &|b| b.epochs[0].1 = 3);
    put_spoilt("retained_recipient_short", "Field(retained recipient)", &|b| {
        first(b, &|wrap| wrap.1.truncate(31));
    });
    put_spoilt("retained_wrap_short", "Field(retained wrap)", &|b| first(b, &|wrap| wrap.2.truncate(1167)));
    put_spoilt("retained_wrap_long", "Field(retained wrap)", &|b| first(b, &|wrap| wrap.2.push(0)));
    put_spoilt("retained_twice", "Field(retained order)", &|b| {
        let list = b.retained.as_mut().unwrap();
        list.push(list[0].clone());
    });
    put_spoilt("retained_order", "Field(retained order)", &|b| {
        let list = b.retained.as_mut().unwrap();
        list.push((1, vec![0; 32], list[0].2.clone()));
    });
    put_spoilt("retained_wrap_changed", "Unauthentic", &|b| first(b, &|wrap| wrap.2[1130] ^= 1));
    put_spoilt("retained_moved", "Unauthentic", &|b| {
        // To another destroyed epoch, with the same key.
        b.epochs.push((3, 4, b.epochs[0].2.clone()));
        first(b, &|wrap| wrap.0 = 3);
    });
    put_spoilt("retained_for_others", "NotARecipient", &|b| first(b, &|wrap| wrap.1 = vec![1; 32]));
    put_body("retained_other_key", "Commitment", &retained_body(w, SECOND, |_| {}));
    // The key of a destroyed epoch in what is wrapped to nodes: no reader takes it.
    let cluster = w.operator.cluster_id();
    let both = [bundle(1, STATE, 1, EPOCH), 2_u32.to_be_bytes().to_vec(), SECOND.to_vec()].concat();
    let kept = retained_body(w, EPOCH, |body| {
        for wrap in &mut body.wraps {
            let recipients = [w.alpha.member(NOW).wrapping_public, w.operator.wrapping().public().clone()];
            let recipient = recipients.iter().find(|recipient| *recipient.id() == *wrap.0).unwrap();
            *wrap = wrap_to(recipient, &cluster, 1, &both);
        }
    });
    put_body("destroyed_epoch_with_its_key", "Contents", &kept);
}

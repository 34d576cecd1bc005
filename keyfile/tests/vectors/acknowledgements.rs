//! The acknowledgements of `make.rs`.

use minicbor::Encoder;
use unibus_keyfile::{
    acknowledgement::Acknowledgement,
    id::Lineage,
    keyring::Keyring,
    nodeset::Nodeset,
    signed::{self, Kind},
};

use super::{NOW, World, containers, hex, node_of_seed, put};
use crate::{Vector, folder};

/// What an acknowledgement says, to be spoilt.
struct Body {
    cluster: Vec<u8>,
    lineage: Vec<u8>,
    version: u64,
    hash: Vec<u8>,
    node: String,
    epochs: Vec<u32>,
}

fn body(w: &World, spoil: impl FnOnce(&mut Body)) -> Vec<u8> {
    let mut body = Body {
        cluster: w.operator.cluster_id().as_bytes().to_vec(),
        lineage: vec![7; 16],
        version: 3,
        hash: vec![8; 32],
        node: "alpha".into(),
        epochs: vec![1, 2, 5],
    };
    spoil(&mut body);
    let mut e = Encoder::new(Vec::new());
    e.map(7).unwrap().u8(0).unwrap().bytes(&body.cluster).unwrap().u8(1).unwrap();
    e.bytes(&body.lineage).unwrap().u8(2).unwrap().u64(body.version).unwrap();
    e.u8(3).unwrap().bytes(&body.hash).unwrap().u8(4).unwrap().str(&body.node).unwrap();
    e.u8(5).unwrap().array(body.epochs.len().try_into().unwrap()).unwrap();
    for number in &body.epochs {
        e.u32(*number).unwrap();
    }
    e.u8(6).unwrap().u64(NOW.seconds()).unwrap();
    e.into_writer()
}

pub(super) fn acknowledgements(w: &World) {
    let needed = [w.pin(), ("nodeset", "nodeset_ok_two.vec".to_owned())];
    let signing = w.alpha.slots()[0].signing();
    containers("acknowledgement", &body(w, |_| {}), &[&signing], &needed);
    let nodeset = Vector::read(&folder().join("nodeset_ok_two.vec")).bytes;
    let nodeset = Nodeset::decode(&nodeset, &w.operator.cluster_id()).unwrap();
    let (keyring, secrets) =
        Keyring::create(&nodeset, &w.alpha, Lineage::from_bytes([7; 16]), None, NOW).unwrap();
    let signed = Acknowledgement::sign(&w.beta, &keyring, &secrets, NOW).unwrap();
    let found = |version: u64, hash: String, node: &str, epochs: &str| {
        let lineage = ("lineage", keyring.lineage().to_string());
        let created = ("created", NOW.seconds().to_string());
        let version = ("keyring-version", version.to_string());
        let rest = [("keyring-hash", hash), ("node", node.to_owned()), ("epochs", epochs.to_owned())];
        [needed.as_slice(), &[lineage, version, created], &rest].concat()
    };
    let put = |name: &str, expect: &str, comment: &str, fields: &[(&str, String)], bytes: &[u8]| {
        put(&format!("acknowledgement_{name}"), "acknowledgement", expect, comment, fields, bytes);
    };
    let fields = found(1, keyring.hash().to_string(), "beta", "1");
    put("ok", "ok", "of a first keyring", &fields, signed.as_bytes());
    let stranger = node_of_seed([9; 32], "alpha", &w.operator.cluster_id()).slots()[0].signing();
    let beta = w.beta.slots()[0].signing();
    let of = |body: &[u8], keys: &[_]| signed::encode(Kind::Acknowledgement, body, keys);
    let good = body(w, |_| {});
    let fields = found(3, hex(&[8; 32]), "alpha", "1 2 5");
    put("ok_two_keys", "ok", "an earlier key signs too", &fields, &of(&good, &[&stranger, &signing]));
    put("other_node", "Signer", "by another node", &needed, &of(&good, &[&beta]));
    put("same_name", "Signer", "by a stranger of that name", &needed, &of(&good, &[&stranger]));
    let put_spoilt = |name: &str, expect: &str, spoil: &dyn Fn(&mut Body)| {
        put(name, expect, name, &needed, &of(&body(w, |body| spoil(body)), &[&signing]));
    };
    put_spoilt("other_cluster", "Cluster", &|b| b.cluster = vec![1; 32]);
    put_spoilt("cluster_short", "Field(cluster)", &|b| b.cluster = vec![1; 31]);
    put_spoilt("lineage_short", "Field(lineage)", &|b| b.lineage = vec![1; 15]);
    put_spoilt("version_zero", "Field(keyring version)", &|b| b.version = 0);
    put_spoilt("hash_short", "Field(keyring hash)", &|b| b.hash = vec![1; 31]);
    put_spoilt("node_name", "Field(node name)", &|b| b.node = "../x".into());
    put_spoilt("unknown_node", "Signer", &|b| b.node = "gamma".into());
    put_spoilt("no_epoch", "Field(epochs)", &|b| b.epochs.clear());
    put_spoilt("epoch_zero", "Field(epoch)", &|b| b.epochs = vec![0, 1]);
    put_spoilt("epoch_order", "Field(epoch order)", &|b| b.epochs = vec![2, 1]);
    put_spoilt("epoch_twice", "Field(epoch order)", &|b| b.epochs = vec![1, 1]);
    put_spoilt("too_many_epochs", "Field(epochs)", &|b| b.epochs = (1..=4097).collect());
}

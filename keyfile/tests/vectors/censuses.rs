//! The censuses of `make.rs`.

use minicbor::Encoder;
use unibus_keyfile::{
    census::{Census, CensusFacts, DiskScan},
    id::{DocumentHash, Epoch, Lineage},
    signed::{self, Kind},
};

use super::{NOW, World, containers, hex, node_of_seed, put};

/// What a census says, to be spoilt.
struct Body {
    cluster: Vec<u8>,
    lineage: Vec<u8>,
    version: u64,
    hash: Vec<u8>,
    node: String,
    stream: String,
    barrier_id: Vec<u8>,
    digest: Vec<u8>,
    entries: Vec<(u32, u64)>,
    envelopes: Option<Vec<(u32, u64)>>,
}

fn counts(e: &mut Encoder<Vec<u8>>, counts: &[(u32, u64)]) {
    e.array(counts.len().try_into().unwrap()).unwrap();
    for (epoch, count) in counts {
        e.map(2).unwrap().u8(0).unwrap().u32(*epoch).unwrap().u8(1).unwrap().u64(*count).unwrap();
    }
}

fn body(w: &World, spoil: impl FnOnce(&mut Body)) -> Vec<u8> {
    let mut body = Body {
        cluster: w.operator.cluster_id().as_bytes().to_vec(),
        lineage: vec![7; 16],
        version: 3,
        hash: vec![8; 32],
        node: "alpha".into(),
        stream: "KV_UNIBUS_control_2".into(),
        barrier_id: vec![9; 16],
        digest: vec![10; 32],
        entries: vec![(2, 15)],
        envelopes: Some(vec![(1, 3), (2, 40)]),
    };
    spoil(&mut body);
    let mut e = Encoder::new(Vec::new());
    e.map(if body.envelopes.is_some() { 15 } else { 14 }).unwrap();
    e.u8(0).unwrap().bytes(&body.cluster).unwrap().u8(1).unwrap().bytes(&body.lineage).unwrap();
    e.u8(2).unwrap().u64(body.version).unwrap().u8(3).unwrap().bytes(&body.hash).unwrap();
    e.u8(4).unwrap().str(&body.node).unwrap().u8(5).unwrap().str(&body.stream).unwrap();
    e.u8(6).unwrap().u64(77).unwrap().u8(7).unwrap().bytes(&body.barrier_id).unwrap();
    e.u8(8).unwrap().bytes(&body.digest).unwrap().u8(9).unwrap().u64(12).unwrap().u8(10).unwrap();
    counts(&mut e, &body.entries);
    e.u8(11).unwrap().u64(0).unwrap().u8(12).unwrap().u64(0).unwrap();
    if let Some(envelopes) = &body.envelopes {
        e.u8(13).unwrap().map(3).unwrap().u8(0).unwrap().u64(9).unwrap().u8(1).unwrap().u64(70_000).unwrap();
        e.u8(2).unwrap();
        counts(&mut e, envelopes);
    }
    e.u8(14).unwrap().u64(NOW.seconds()).unwrap();
    e.into_writer()
}

pub(super) fn censuses(w: &World) {
    let needed = [w.pin(), ("nodeset", "nodeset_ok_two.vec".to_owned())];
    let signing = w.alpha.slots()[0].signing();
    containers("census", &body(w, |_| {}), &[&signing], &needed);
    let facts = CensusFacts {
        cluster: w.operator.cluster_id(),
        lineage: Lineage::from_bytes([7; 16]),
        keyring_version: 3,
        keyring_hash: DocumentHash::from_bytes([8; 32]),
        stream: "KV_UNIBUS_control_2".into(),
        barrier: 77,
        barrier_id: [9; 16],
        digest: [10; 32],
        records: 12,
        entries: vec![(Epoch::from_stored(2).unwrap(), 15)],
        unsealed: 0,
        undecryptable: 0,
        disk: None,
        created: NOW,
    };
    let found = |node: &str, entries: &str, disk: &str| {
        let rest = [
            ("lineage", hex(&[7; 16])),
            ("keyring-version", "3".to_owned()),
            ("keyring-hash", hex(&[8; 32])),
            ("node", node.to_owned()),
            ("stream", "KV_UNIBUS_control_2".to_owned()),
            ("barrier", "77".to_owned()),
            ("barrier-id", hex(&[9; 16])),
            ("digest", hex(&[10; 32])),
            ("records", "12".to_owned()),
            ("entries", entries.to_owned()),
            ("disk", disk.to_owned()),
            ("created", NOW.seconds().to_string()),
        ];
        [needed.as_slice(), &rest].concat()
    };
    let put = |name: &str, expect: &str, comment: &str, fields: &[(&str, String)], bytes: &[u8]| {
        put(&format!("census_{name}"), "census", expect, comment, fields, bytes);
    };
    let signed = Census::sign(&w.beta, facts.clone()).unwrap();
    put("ok", "ok", "it did not look at its disk", &found("beta", "[2:15]", "none"), signed.as_bytes());
    let nothing = DiskScan { files: 4, bytes: 5, envelopes: Vec::new() };
    let facts = CensusFacts { entries: Vec::new(), disk: Some(nothing), ..facts };
    let signed = Census::sign(&w.beta, facts).unwrap();
    put("ok_empty", "ok", "an empty store", &found("beta", "[]", "4 5 []"), signed.as_bytes());
    let of = |body: &[u8], keys: &[_]| signed::encode(Kind::Census, body, keys);
    let good = body(w, |_| {});
    let stranger = node_of_seed([9; 32], "alpha", &w.operator.cluster_id()).slots()[0].signing();
    let fields = found("alpha", "[2:15]", "9 70000 [1:3 2:40]");
    put("ok_two_keys", "ok", "an earlier key signs too", &fields, &of(&good, &[&stranger, &signing]));
    let beta = w.beta.slots()[0].signing();
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
    put_spoilt("stream_empty", "Field(stream)", &|b| b.stream.clear());
    put_spoilt("stream_space", "Field(stream)", &|b| b.stream = "a b".into());
    put_spoilt("stream_long", "Field(stream)", &|b| b.stream = "s".repeat(256));
    put_spoilt("barrier_id_short", "Field(barrier id)", &|b| b.barrier_id = vec![1; 15]);
    put_spoilt("digest_short", "Field(digest)", &|b| b.digest = vec![1; 31]);
    put_spoilt("epoch_zero", "Field(epoch)", &|b| b.entries = vec![(0, 1)]);
    put_spoilt("epoch_order", "Field(epoch order)", &|b| b.entries = vec![(2, 1), (1, 1)]);
    put_spoilt("epoch_twice", "Field(epoch order)", &|b| b.entries = vec![(1, 1), (1, 1)]);
    put_spoilt("count_zero", "Field(count)", &|b| b.entries = vec![(1, 0)]);
    put_spoilt("too_many_entries", "Field(entries)", &|b| b.entries = (1..=4097).map(|n| (n, 1)).collect());
    put_spoilt("disk_epoch_zero", "Field(epoch)", &|b| b.envelopes = Some(vec![(0, 1)]));
    put_spoilt("disk_epoch_order", "Field(epoch order)", &|b| b.envelopes = Some(vec![(2, 1), (1, 1)]));
    put_spoilt("disk_count_zero", "Field(count)", &|b| b.envelopes = Some(vec![(1, 0)]));
    put_spoilt("too_many_envelopes", "Field(envelopes)", &|b| {
        b.envelopes = Some((1..=4097).map(|n| (n, 1)).collect());
    });
}

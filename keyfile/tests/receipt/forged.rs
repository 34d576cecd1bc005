//! Each field forged by a node of the cluster, which can sign whatever it likes: its own words and the receipt.

use serde_json::json;

use super::*;

/// The receipt with its fields changed, signed by alpha: what does `verify` say?
fn refused(w: &World, change: impl FnOnce(&mut Value)) -> ReceiptError {
    let bytes = signed_anew(&w.good(), &w.nodes[0], change);
    let receipt = Receipt::decode(&bytes).unwrap_or_else(|error| panic!("its form is right: {error:?}"));
    receipt.verify(Some(w.nodeset.cluster())).unwrap_err()
}

fn malformed(w: &World, change: impl FnOnce(&mut Value)) -> DecodeError {
    match Receipt::decode(&signed_anew(&w.good(), &w.nodes[0], change)).unwrap_err() {
        ReceiptError::Decode(error) => error,
        other => panic!("{other:?}"),
    }
}

fn why(error: ReceiptError) -> &'static str {
    match error {
        ReceiptError::Word { why, .. } | ReceiptError::Keyrings(why) => why,
        other => panic!("{other:?}"),
    }
}

fn differs(field: &'static str) -> ReceiptError {
    ReceiptError::Differs(field)
}

fn replaced(w: &World, list: &'static str, at: usize, bytes: &[u8]) -> ReceiptError {
    refused(w, |receipt| receipt["documents"][list][at] = BASE64.encode(bytes).into())
}

#[test]
fn signed_anew_unchanged_it_still_holds() {
    // Or all that follows would prove nothing.
    let w = World::new();
    let bytes = signed_anew(&w.good(), &w.nodes[1], |_| {});
    let report = Receipt::decode(&bytes).unwrap().verify(Some(w.nodeset.cluster())).unwrap();
    assert_eq!(report.signer.as_str(), "beta");
}

#[test]
fn its_plain_fields() {
    let w = World::new();
    let other = World::new();
    for (field, value) in [
        ("cluster", json!(other.nodeset.cluster().to_string())),
        ("lineage", json!(other.keyring(STAGED).lineage().to_string())),
        ("to", json!(1)),
        ("to", json!(3)),
        ("from", json!([2])),
        ("from", json!([1, 3])),
        ("retained", json!(false)),
        ("fenced", json!(["beta"])),
        ("finished", json!("2020-01-01T00:00:00Z")),
    ] {
        let found = refused(&w, |receipt| receipt[field] = value.clone());
        assert_eq!(found, differs(field), "{value}");
    }
    assert_eq!(refused(&w, |receipt| receipt["counts"]["records"] = json!(11)), differs("records"));
    assert_eq!(refused(&w, |receipt| receipt["counts"]["entries"] = json!(16)), differs("entries"));
    let found = refused(&w, |receipt| receipt["backend"] = json!("sqlcipher"));
    assert_eq!(why(found), "it is not wanted, or there twice");
}

#[test]
fn the_form_of_its_fields() {
    let w = World::new();
    for (field, value) in [
        ("format", json!("unibus-receipts")),
        ("operation", json!("rotate node")),
        ("backend", json!("memory")),
        ("tool_version", json!("a\u{7}")),
        ("tool_version", json!("x".repeat(65))),
        ("plan", json!("00")),
        ("plan", json!("AA".repeat(32))),
        ("cluster", json!(w.nodeset.cluster().to_string().to_uppercase())),
        ("cluster", json!(format!(" {}", w.nodeset.cluster()))),
        ("lineage", json!("00")),
        ("from", json!([])),
        ("from", json!([1, 1])),
        ("from", json!([2, 1])),
        ("from", json!([0])),
        ("from", json!(["1"])),
        ("from", json!(1)),
        ("to", json!(0)),
        ("to", json!(1_u64 << 32)),
        ("started", json!("2026-11-23T00:00:00+00:00")),
        ("started", json!("2026-11-23 00:00:00Z")),
        ("started", json!("2026-11-23T00:00:00.5Z")),
        ("finished", json!(1_800_000_000)),
        ("steps", json!([{ "name": "a" }])),
        ("steps", json!([{ "name": "a", "milliseconds": 1, "more": 1 }])),
        ("steps", json!(vec![json!({ "name": "a", "milliseconds": 1 }); 65])),
        ("counts", json!({ "records": 12 })),
        ("counts", json!({ "records": 12, "entries": 15, "more": 0 })),
        ("counts", json!([12, 15])),
        ("counts", json!({ "records": 12.0, "entries": 15 })),
        ("counts", json!({ "records": -12, "entries": 15 })),
        ("counts", json!({ "records": 12, "entries": 1_u64 << 53 })),
        ("retained", json!("true")),
        ("retained", json!(null)),
        ("fenced", json!(["../x"])),
        ("fenced", json!(["z", "a"])),
        ("fenced", json!((0..65).map(|n| format!("n{n:02}")).collect::<Vec<_>>())),
        ("previous", json!("")),
        ("previous", json!(false)),
        ("documents", json!({})),
        ("more", json!(1)),
    ] {
        malformed(&w, |receipt| receipt[field] = value.clone());
        if !["previous", "more"].contains(&field) {
            malformed(&w, |receipt| drop(receipt.as_object_mut().unwrap().remove(field)));
        }
    }
    let found = malformed(&w, |receipt| receipt["format"] = json!("unibus-receipt-2"));
    assert_eq!(found, DecodeError::Version { found: 2 });
    for list in ["keyrings", "acknowledgements", "censuses", "forgotten"] {
        malformed(&w, |receipt| receipt["documents"][list] = json!([]));
        malformed(&w, |receipt| receipt["documents"][list][0] = json!("a"));
        malformed(&w, |receipt| receipt["documents"][list][0] = json!("YQ"));
        malformed(&w, |receipt| receipt["documents"][list][0] = json!("YQ-_"));
        malformed(&w, |receipt| receipt["documents"][list][0] = json!(1));
        if list != "keyrings" {
            malformed(&w, |receipt| receipt["documents"][list] = json!(vec!["YQ=="; 65]));
        }
    }
    malformed(&w, |receipt| receipt["documents"]["nodeset"] = json!(["YQ=="]));
    malformed(&w, |receipt| receipt["documents"]["more"] = json!([]));
}

#[test]
fn what_lies_around_it() {
    let w = World::new();
    let good = w.good();
    let whole: Value = serde_json::from_str(good.as_str()).unwrap();
    let decode = |change: &dyn Fn(&mut Value)| {
        let mut json = whole.clone();
        change(&mut json);
        Receipt::decode(json.to_string().as_bytes()).unwrap_err()
    };
    let changes: [&dyn Fn(&mut Value); 8] = [
        &|json| json["more"] = json!(1),
        &|json| json["signature"]["more"] = json!(1),
        &|json| json["signature"] = json!("x"),
        &|json| json["signature"]["key"] = json!("00"),
        &|json| json["signature"]["signature"] = json!("zz".repeat(64)),
        &|json| drop(json.as_object_mut().unwrap().remove("signature")),
        &|json| drop(json.as_object_mut().unwrap().remove("receipt")),
        &|json| *json = json!([json.clone()]),
    ];
    for change in changes {
        assert!(matches!(decode(change), ReceiptError::Decode(_)));
    }
    let found = decode(&|json| json["receipt"]["counts"]["records"] = json!(13));
    assert_eq!((found.clone(), found.code()), (ReceiptError::Signature, "UB-K070"));
    // Beta's key beside alpha's signature.
    let beta = HEXLOWER.encode(&w.nodes[1].slots()[0].signing().public());
    assert_eq!(decode(&|json| json["signature"]["key"] = json!(beta.clone())), ReceiptError::Signature);
    assert_eq!(decode(&|json| json["signature"]["key"] = json!("00".repeat(32))), ReceiptError::Signature);
    // A name that stands twice, where each of the two would be signed right.
    let twice = good.as_str().replacen("\"retained\":true", "\"retained\":true,\"retained\":true", 1);
    assert!(matches!(Receipt::decode(twice.as_bytes()), Err(ReceiptError::Decode(_))));
}

#[test]
fn its_signer_and_its_nodeset() {
    let w = World::new();
    let stranger = NodeKeyFile::generate("alpha".parse().unwrap(), w.operator.cluster_id());
    let bytes = signed_anew(&w.good(), &stranger, |_| {});
    let found = Receipt::decode(&bytes).unwrap().verify(Some(w.nodeset.cluster())).unwrap_err();
    assert!(matches!(found, ReceiptError::Signer { .. }), "{found:?}");

    // A nodeset of another operator, who enrolled the same nodes.
    let mallory = OperatorKey::generate();
    let plan = w.nodes.iter().fold(Plan::first(&mallory), |plan, node| plan.with_node(node.member(at(0))));
    let planted = BASE64.encode(plan.sign(&mallory).unwrap().as_bytes());
    let found = refused(&w, |receipt| receipt["documents"]["nodeset"] = planted.clone().into());
    assert!(matches!(found, ReceiptError::Document { document: "nodeset", .. }), "{found:?}");
    let bytes =
        signed_anew(&w.good(), &w.nodes[0], |receipt| receipt["documents"]["nodeset"] = planted.into());
    assert_eq!(Receipt::decode(&bytes).unwrap().verify(None).unwrap_err(), differs("cluster"));

    // A later nodeset than the last keyring's: it would say nothing about whom that is wrapped to.
    let later = w.nodeset.next().sign(&w.operator).unwrap();
    let later = BASE64.encode(later.as_bytes());
    let found = refused(&w, |receipt| receipt["documents"]["nodeset"] = later.into());
    assert_eq!(why(found), "the last one was made for another nodeset");

    // One with a node more, whose word is missing.
    let more = NodeKeyFile::generate("delta".parse().unwrap(), w.operator.cluster_id());
    let wider = w.nodeset.next().with_node(more.member(at(0))).sign(&w.operator).unwrap();
    let (keyring, secrets) = &w.steps[ACTIVE];
    let (gone, left) = keyring.destroy(&wider, &w.nodes[0], secrets, true).unwrap();
    let word = |own| Acknowledgement::sign(own, &gone, &left, at(7)).unwrap().as_bytes().to_vec();
    let forgotten: Vec<_> = w.nodes.iter().chain([&more]).map(word).collect();
    let found = refused(&w, |receipt| {
        receipt["fenced"] = json!([]);
        receipt["documents"]["nodeset"] = BASE64.encode(wider.as_bytes()).into();
        receipt["documents"]["keyrings"][2] = BASE64.encode(gone.as_bytes()).into();
        receipt["documents"]["forgotten"] = documents(&forgotten);
    });
    let missing =
        |node: &str| ReceiptError::Missing { document: "acknowledgement", node: node.parse().unwrap() };
    assert_eq!(found, missing("delta"));
}

#[test]
fn its_keyrings() {
    let w = World::new();
    let own = &w.nodes[0];
    let with = |list: &[&Keyring]| {
        let list: Vec<_> = list.iter().map(|keyring| keyring.as_bytes().to_vec()).collect();
        refused(&w, |receipt| receipt["documents"]["keyrings"] = documents(&list))
    };
    let [first, staged, active, gone] = [0, STAGED, ACTIVE, DESTROYED].map(|step| w.keyring(step));
    assert_eq!(why(with(&[staged])), "there are too few");
    assert_eq!(with(&[first, staged, active, gone]), differs("to"));
    assert_eq!(with(&[active, gone]), differs("to"));
    assert_eq!(why(with(&[staged, gone])), "none has the new epoch activated and the old ones retired");
    assert_eq!(why(with(&[staged, active])), "in the last one an epoch besides the new one opens");
    assert_eq!(why(with(&[active, staged, gone])), "their versions do not go up");
    assert_eq!(why(with(&[staged, staged, active, gone])), "their versions do not go up");
    assert_eq!(why(with(&[staged, active, active, gone])), "their versions do not go up");

    // Another fork of the same lineage.
    let fork = |step: usize| {
        let (keyring, secrets) = &w.steps[step];
        match step {
            0 => keyring.stage(&w.nodeset, own, secrets, at(1)),
            STAGED => keyring.activate(&w.nodeset, own, secrets),
            _ => keyring.destroy(&w.nodeset, own, secrets, true),
        }
        .unwrap()
    };
    assert_eq!(why(with(&[staged, &fork(STAGED).0, gone])), "one does not name the one before it");
    assert_eq!(why(with(&[&fork(0).0, active, gone])), "one does not name the one before it");

    // Another lineage.
    let other = Keyring::create(&w.nodeset, own, Lineage::random(), None, at(0)).unwrap();
    let other = other.0.stage(&w.nodeset, own, &other.1, at(1)).unwrap();
    assert_eq!(
        with(&[&other.0, &other.0.activate(&w.nodeset, own, &other.1).unwrap().0]),
        differs("lineage")
    );
    assert_eq!(why(with(&[&other.0, active, gone])), "they are of several lineages");

    // By somebody else than a node.
    let stranger = OperatorKey::generate();
    let mallory = NodeKeyFile::generate("alpha".parse().unwrap(), stranger.cluster_id());
    let theirs = Plan::first(&stranger).with_node(mallory.member(at(0))).sign(&stranger).unwrap();
    let planted = Keyring::create(&theirs, &mallory, Lineage::random(), None, at(0)).unwrap().0;
    let found = with(&[staged, active, &planted]);
    assert!(matches!(found, ReceiptError::Document { document: "keyring", .. }), "{found:?}");
}

#[test]
fn what_is_retained_or_not() {
    let w = World::of(&["alpha", "beta", "gamma"], false);
    let draft = ReceiptDraft { retained: false, ..w.draft() };
    let good = w.sign(draft).unwrap();
    let bytes = signed_anew(&good, &w.nodes[0], |receipt| receipt["retained"] = json!(true));
    assert_eq!(Receipt::decode(&bytes).unwrap().verify(None).unwrap_err(), differs("retained"));
}

#[test]
fn the_acknowledgements() {
    let w = World::new();
    let beta = &w.nodes[1];
    for (list, step, others) in
        [("acknowledgements", STAGED, [0, ACTIVE]), ("forgotten", DESTROYED, [ACTIVE, STAGED])]
    {
        for other in others {
            let found = replaced(&w, list, 1, &w.word(beta, other, 2));
            assert_eq!(why(found), "it is about another keyring", "{list}");
        }
        // Not beta's: by another node, by a stranger of its name, or alpha's own, twice.
        let found = replaced(&w, list, 1, &w.word(&w.nodes[0], step, 3));
        assert!(
            matches!(found, ReceiptError::Missing { ref node, .. } if node.as_str() == "beta"),
            "{found:?}"
        );
        let mallory = NodeKeyFile::generate("beta".parse().unwrap(), w.operator.cluster_id());
        let found = replaced(&w, list, 1, &w.word(&mallory, step, 3));
        assert!(matches!(found, ReceiptError::Document { .. }), "{found:?}");
        let found = refused(&w, |receipt| {
            let twice = receipt["documents"][list][1].clone();
            receipt["documents"][list].as_array_mut().unwrap().push(twice);
        });
        assert_eq!(why(found), "it is not wanted, or there twice");
        let found = refused(&w, |receipt| drop(receipt["documents"][list].as_array_mut().unwrap().pop()));
        assert!(
            matches!(found, ReceiptError::Missing { ref node, .. } if node.as_str() == "gamma"),
            "{found:?}"
        );
        // One bit of it.
        let mut bad = w.word(beta, step, 3);
        bad[40] ^= 1;
        assert!(matches!(replaced(&w, list, 1, &bad), ReceiptError::Document { .. }));
        assert!(matches!(replaced(&w, list, 1, &w.census(beta, |_| {})), ReceiptError::Document { .. }));
    }
}

/// An acknowledgement that beta signs by hand: its release is told to lie.
fn lie(w: &World, step: usize, epochs: &[u32]) -> Vec<u8> {
    let keyring = w.keyring(step);
    let mut e = minicbor::Encoder::new(Vec::new());
    e.map(7).unwrap().u8(0).unwrap().bytes(keyring.cluster().as_bytes()).unwrap().u8(1).unwrap();
    e.bytes(keyring.lineage().as_bytes()).unwrap().u8(2).unwrap().u64(keyring.version()).unwrap();
    e.u8(3).unwrap().bytes(keyring.hash().as_bytes()).unwrap().u8(4).unwrap().str("beta").unwrap();
    e.u8(5).unwrap().array(epochs.len().try_into().unwrap()).unwrap();
    for number in epochs {
        e.u32(*number).unwrap();
    }
    e.u8(6).unwrap().u64(at(7).seconds()).unwrap();
    let key = w.nodes[1].slots()[0].signing();
    unibus_keyfile::signed::encode(unibus_keyfile::signed::Kind::Acknowledgement, &e.into_writer(), &[&key])
}

#[test]
fn what_a_node_says_that_it_opens() {
    let w = World::new();
    let found = replaced(&w, "acknowledgements", 1, &lie(&w, STAGED, &[1]));
    assert_eq!(why(found), "it does not open the new epoch");
    for epochs in [&[1, 2][..], &[1], &[2, 3]] {
        let found = replaced(&w, "forgotten", 1, &lie(&w, DESTROYED, epochs));
        assert_eq!(why(found), "it opens another epoch than the new one", "{epochs:?}");
    }
}

#[test]
fn the_censuses() {
    let w = World::new();
    let beta = &w.nodes[1];
    let forged = |spoil: &dyn Fn(&mut CensusFacts)| {
        why(replaced(&w, "censuses", 1, &w.census(beta, |facts| spoil(facts))))
    };
    assert_eq!(forged(&|f| f.lineage = Lineage::random()), "it is about another keyring");
    for step in [0, STAGED, DESTROYED] {
        let keyring = w.keyring(step);
        let found = forged(&|f| (f.keyring_version, f.keyring_hash) = (keyring.version(), keyring.hash()));
        assert_eq!(found, "it is about another keyring");
    }
    assert_eq!(forged(&|f| f.stream = "sqlcipher".into()), "it counted another kind of store");
    assert_eq!(forged(&|f| f.stream = "KV_UNIBUS_control".into()), "it counted another stream");
    assert_eq!(forged(&|f| f.barrier += 1), "it counted at another barrier");
    assert_eq!(forged(&|f| f.barrier_id[15] ^= 1), "it counted at another barrier");
    assert_eq!(forged(&|f| f.digest[31] ^= 1), "its state digest is another");
    assert_eq!(forged(&|f| f.records -= 1), "its number of records is another");
    for entries in
        [vec![(epoch(1), 1), (epoch(2), 14)], vec![(epoch(1), 15)], vec![(epoch(2), 15), (epoch(3), 1)]]
    {
        let found = forged(&|f| f.entries.clone_from(&entries));
        assert_eq!(found, "names stand under another epoch than the new one");
    }
    assert_eq!(forged(&|f| f.entries = vec![(epoch(2), 14)]), "its number of names is another");
    assert_eq!(forged(&|f| f.entries.clear()), "its number of names is another");
    assert_eq!(forged(&|f| f.unsealed = 1), "values are not sealed");
    assert_eq!(forged(&|f| f.undecryptable = 1), "values do not open");
    let scan = |f: &mut CensusFacts| f.disk.as_mut().unwrap().envelopes = vec![(epoch(1), 1), (epoch(2), 1)];
    assert_eq!(forged(&scan), "its disk holds envelopes of a destroyed epoch");
    let mallory = NodeKeyFile::generate("beta".parse().unwrap(), w.operator.cluster_id());
    let found = replaced(&w, "censuses", 1, &w.census(&mallory, |_| {}));
    assert!(matches!(found, ReceiptError::Document { document: "census", .. }), "{found:?}");
    let found = refused(&w, |receipt| drop(receipt["documents"]["censuses"].as_array_mut().unwrap().pop()));
    assert!(matches!(found, ReceiptError::Missing { document: "census", .. }), "{found:?}");
}

#[test]
fn what_all_nodes_agree_on_is_held_against_the_receipt() {
    // All nodes say it: still more records than names cannot be.
    let w = World::new();
    let all = |spoil: &dyn Fn(&mut CensusFacts)| -> Vec<_> {
        w.nodes.iter().map(|own| w.census(own, |facts| spoil(facts))).collect()
    };
    let few = all(&|f| f.entries = vec![(epoch(2), 11)]);
    let found = refused(&w, |receipt| {
        receipt["counts"]["entries"] = json!(11);
        receipt["documents"]["censuses"] = documents(&few);
    });
    assert_eq!(found, differs("entries"));
    let none = all(&|f| f.entries.clear());
    let found = refused(&w, |receipt| {
        receipt["counts"]["entries"] = json!(0);
        receipt["documents"]["censuses"] = documents(&none);
    });
    assert_eq!(found, differs("entries"));
}

#[test]
fn the_order_in_time() {
    let w = World::new();
    let beta = &w.nodes[1];
    let late = w.word(beta, STAGED, 5 + 601);
    assert_eq!(why(replaced(&w, "acknowledgements", 1, &late)), "it is older than the acknowledgement");
    let late = w.census(beta, |facts| facts.created = at(7 + 601));
    assert_eq!(why(replaced(&w, "censuses", 1, &late)), "it is older than the census");
    let late = w.word(beta, DESTROYED, 8 + 601);
    assert_eq!(why(replaced(&w, "forgotten", 1, &late)), "it is younger than the receipt");
    // A clock may be set a little.
    let mut draft = w.draft();
    draft.acknowledgements[1] = w.word(beta, STAGED, 5 + 600);
    w.sign(draft).unwrap();
}

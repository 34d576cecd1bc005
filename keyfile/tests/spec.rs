//! Holds `SPEC.md` against the code: offsets, sizes, labels, limits. Changing one of the two alone fails here.

#![cfg(test)]

use unibus_keyfile::{
    acknowledgement, armour, census, derive, digest, envelope, file, id, key_text, keyring, node_key,
    nodeset, operator_key, receipt, signed, stream, suite, witness,
};

const SPEC: &str = include_str!("../SPEC.md");

/// The text of one section, without its subsections.
fn section(title: &str) -> &'static str {
    let start = SPEC.find(&format!("# {title}\n")).unwrap_or_else(|| panic!("no section `{title}`"));
    let text = &SPEC[start + 2 + title.len()..];
    let end = text.find("\n#").unwrap_or(text.len());
    &text[..end]
}

/// The tables of a section: rows of cells, without head and rule.
fn tables(title: &str) -> Vec<Vec<Vec<&'static str>>> {
    let mut tables = Vec::new();
    let mut rows: Vec<Vec<&str>> = Vec::new();
    for line in section(title).lines().chain([""]) {
        if line.starts_with('|') {
            let escaped = line.replace("\\|", "\u{1}");
            let count = escaped.split('|').count() - 2;
            let cells: Vec<&str> = if escaped == *line {
                line.split('|').skip(1).take(count).map(str::trim).collect()
            } else {
                Vec::new()
            };
            rows.push(cells);
        } else if !rows.is_empty() {
            tables.push(rows.drain(..).skip(2).collect());
        }
    }
    tables
}

fn layout(title: &str, number: usize) -> Vec<(String, String, String)> {
    let rows = &tables(title)[number];
    rows.iter().map(|row| (row[0].to_owned(), row[1].to_owned(), row[3].to_owned())).collect()
}

/// Checks that the fields of fixed size follow each other from 0 without a gap; gives where they end.
fn fixed_end(title: &str, number: usize) -> usize {
    let mut end = 0;
    for (offset, size, field) in layout(title, number) {
        let Ok(offset) = offset.parse::<usize>() else { break };
        assert_eq!(offset, end, "{title}: offset of {field}");
        let Ok(size) = size.parse::<usize>() else { break };
        end += size;
    }
    end
}

fn offset_of(title: &str, number: usize, field: &str) -> usize {
    let rows = layout(title, number);
    let row = rows.iter().find(|row| row.2 == field).unwrap_or_else(|| panic!("{title}: no field {field}"));
    row.0.parse().unwrap()
}

#[test]
fn layouts_are_without_gaps_and_as_long_as_the_code_says() {
    for (title, number, bytes) in [
        ("3.1 Node key file", 0, node_key::FIXED_BYTES),
        ("3.2 Operator key", 0, 1 + 32),
        ("3.2 Operator key", 1, operator_key::LOCKED_BYTES),
        ("4 Suite", 0, suite::ENCAPSULATION_BYTES),
        ("5 Signed documents", 0, signed::HEADER_BYTES),
        ("6 Witness", 0, witness::WITNESS_BYTES),
        ("6 Witness", 1, witness::BODY_BYTES),
        ("7.1 Header", 0, envelope::HEADER_BYTES),
        ("10 STREAM", 0, envelope::NONCE_BYTES),
    ] {
        assert_eq!(fixed_end(title, number), bytes, "{title}, table {number}");
    }
    assert_eq!(offset_of("6 Witness", 0, "ciphertext"), witness::HEADER_BYTES);
    assert_eq!(offset_of("3.2 Operator key", 1, "ciphertext"), operator_key::LOCKED_BYTES - 32 - 16);
    let fixed: usize = layout("7.2 Plaintext and padding", 0)
        .iter()
        .filter_map(|(_, size, _)| size.parse::<usize>().ok())
        .sum();
    assert_eq!(fixed, envelope::FIXED_BYTES);
}

#[test]
fn the_aad_of_the_table_is_the_aad_of_the_code() {
    let cluster = id::ClusterId::from_bytes([0xaa; 32]);
    let lineage = id::Lineage::from_bytes([0xbb; 16]);
    let stream = "stream";
    let name = "n".repeat(unibus_keyfile::name::NAME_CHARS);
    let sequence = id::Sequence(0x0102_0304_0506_0708);
    let place =
        unibus_keyfile::aad::Place { cluster: &cluster, lineage: &lineage, stream, name: &name, sequence };
    let aad = place.aad(&[0xcc; envelope::HEADER_BYTES]);
    let value = |text: &str| -> usize {
        text.split('+').map(|term| term.trim().parse().unwrap_or(stream.len())).sum()
    };
    let mut end = 0;
    for (offset, size, field) in layout("7.3 AAD", 0) {
        assert_eq!(value(&offset), end, "{field}");
        let length = value(&size);
        let part = &aad[end..end + length];
        assert_eq!(part[..4], u32::try_from(length - 4).unwrap().to_be_bytes(), "{field}");
        let wanted: &[u8] = match field.as_str() {
            "label" => b"unibus/record/v1",
            "cluster" => cluster.as_bytes(),
            "lineage" => lineage.as_bytes(),
            "stream" => stream.as_bytes(),
            "entry name" => name.as_bytes(),
            "sequence" => &sequence.0.to_be_bytes(),
            "header" => &[0xcc; envelope::HEADER_BYTES],
            other => panic!("{other}"),
        };
        assert_eq!(&part[4..], wanted, "{field}");
        end += length;
    }
    assert_eq!(end, aad.len());
}

#[test]
fn labels_are_those_of_the_code_all_of_them_and_no_other() {
    let all = tables("1 Keys");
    let mut derived: Vec<String> = all[0].iter().map(|row| row[3].replace('`', "")).collect();
    let mut wanted: Vec<String> =
        derive::HKDF_LABELS.iter().map(|label| String::from_utf8(label.to_vec()).unwrap()).collect();
    derived.sort();
    wanted.sort();
    assert_eq!(derived, wanted);
    let other: Vec<String> = all[1].iter().map(|row| row[0].replace('`', "")).collect();
    let code: [&[u8]; 8] = [
        derive::CLUSTER_LABEL,
        derive::FINGERPRINT_LABEL,
        derive::RECIPIENT_LABEL,
        signed::SIGN_LABEL,
        keyring::WRAP_LABEL,
        keyring::RETAINED_LABEL,
        unibus_keyfile::aad::RECORD_LABEL,
        receipt::RECEIPT_LABEL,
    ];
    assert_eq!(other, code.map(|label| String::from_utf8(label.to_vec()).unwrap()));
    assert!(other.iter().all(|label| !derived.contains(label)), "no label serves twice");
}

#[test]
fn limits_are_those_of_the_code_all_of_them_and_no_other() {
    let number = |n: usize| u64::try_from(n).unwrap();
    let mut code = vec![
        ("MAX_KEY_FILE_BYTES", file::MAX_KEY_FILE_BYTES),
        ("MAX_DOCUMENT_BYTES", file::MAX_DOCUMENT_BYTES),
        ("MAX_PAYLOAD", number(key_text::MAX_PAYLOAD)),
        ("MAX_SLOTS", number(node_key::MAX_SLOTS)),
        ("ARGON2_MEMORY_KIB", operator_key::ARGON2_MEMORY_KIB.into()),
        ("ARGON2_PASSES", operator_key::ARGON2_PASSES.into()),
        ("ARGON2_LANES", operator_key::ARGON2_LANES.into()),
        ("ARGON2_MEMORY_LIMIT_KIB", operator_key::ARGON2_MEMORY_LIMIT_KIB.into()),
        ("ARGON2_PASSES_LIMIT", operator_key::ARGON2_PASSES_LIMIT.into()),
        ("ARGON2_LANES_LIMIT", operator_key::ARGON2_LANES_LIMIT.into()),
        ("MIN_PASSPHRASE_CHARS", number(operator_key::MIN_PASSPHRASE_CHARS)),
        ("WRAPPING_PUBLIC_BYTES", number(suite::WRAPPING_PUBLIC_BYTES)),
        ("ENCAPSULATION_BYTES", number(suite::ENCAPSULATION_BYTES)),
        ("SIGNATURE_BYTES", number(suite::SIGNATURE_BYTES)),
        ("MAX_BODY_BYTES", number(signed::MAX_BODY_BYTES)),
        ("MAX_SIGNATURES", number(signed::MAX_SIGNATURES)),
        ("MAX_ARMOUR_BYTES", number(armour::MAX_ARMOUR_BYTES)),
        ("MAX_NODES", number(nodeset::MAX_NODES)),
        ("MAX_RECOVERY", number(nodeset::MAX_RECOVERY)),
        ("MAX_EPOCHS", number(keyring::MAX_EPOCHS)),
        ("MAX_SEALS_PER_EPOCH", keyring::MAX_SEALS_PER_EPOCH),
        ("NODE_NAME_MAX", number(id::NodeName::MAX)),
        ("MIN_PLAINTEXT_BYTES", number(envelope::MIN_PLAINTEXT_BYTES)),
        ("MAX_PLAINTEXT_BYTES", number(envelope::MAX_PLAINTEXT_BYTES)),
        ("MAX_IDENTITY_BYTES", number(envelope::MAX_IDENTITY_BYTES)),
        ("CHUNK_BYTES", number(stream::CHUNK_BYTES)),
        ("MAX_STREAM_BYTES", number(census::MAX_STREAM_BYTES)),
        ("MAX_RECEIPT_BYTES", number(receipt::MAX_RECEIPT_BYTES)),
        ("MAX_STEPS", number(receipt::MAX_STEPS)),
        ("MAX_TEXT", number(receipt::MAX_TEXT)),
        ("CLOCK_SLACK_SECONDS", receipt::CLOCK_SLACK_SECONDS),
    ];
    let all = tables("11 Limits");
    let mut spec: Vec<(String, u64)> =
        all[0].iter().map(|row| (row[0].replace('`', ""), row[1].parse().unwrap())).collect();
    spec.sort();
    code.sort_unstable();
    assert_eq!(spec, code.into_iter().map(|(name, value)| (name.to_owned(), value)).collect::<Vec<_>>());
}

#[test]
fn magics_prefixes_and_armour_are_those_of_the_code() {
    for (title, magic) in [
        ("5 Signed documents", &signed::MAGIC),
        ("6 Witness", &witness::MAGIC),
        ("7.1 Header", &envelope::MAGIC),
    ] {
        let text = format!("`{}`", std::str::from_utf8(magic).unwrap());
        assert!(section(title).contains(&text), "{title}: {text}");
    }
    let prefixes = [
        key_text::PIN_PREFIX,
        key_text::NODE_PREFIX,
        key_text::OPERATOR_PREFIX,
        key_text::OPERATOR_LOCKED_PREFIX,
        key_text::RECOVERY_PREFIX,
    ];
    let table: Vec<String> = tables("3 Key text")[0].iter().map(|row| row[0].replace('`', "")).collect();
    assert_eq!(table, prefixes);
    assert!(section("5.3 Request").contains(armour::REQUEST_LABEL));
    assert!(section("5.4 Recovery recipient").contains(armour::RECOVERY_LABEL));
    assert!(section("7.2 Plaintext and padding").contains("256, 512, 1024, ... 1048576"));
    assert!(
        section("9 State digest").contains("modulo 2^256")
            && digest::StateDigest::EMPTY.as_bytes() == &[0; 32]
    );
}

#[test]
fn kinds_of_documents_are_those_of_the_code_and_have_a_section_each() {
    let row = tables("5 Signed documents")[0].iter().find(|row| row[3] == "kind").unwrap()[4];
    let kinds: Vec<(u8, &str)> = row
        .split(", ")
        .map(|kind| kind.split_once(' ').unwrap())
        .map(|(number, name)| (number.parse().unwrap(), name))
        .collect();
    for (number, name) in &kinds {
        let head = [signed::MAGIC.as_slice(), &[signed::VERSION_1, *number]].concat();
        let kind = signed::Kind::of(&head).unwrap_or_else(|| panic!("{number} {name}"));
        assert!(kind.name().ends_with(name), "{number}: {name}");
        let title = format!("### 5.{number} {}{}\n", name[..1].to_uppercase(), &name[1..]);
        assert!(SPEC.contains(&title), "{title}");
    }
    let next = u8::try_from(kinds.len() + 1).unwrap();
    assert_eq!(signed::Kind::of(&[signed::MAGIC.as_slice(), &[1, next]].concat()), None);
}

/// Holds the table of a body's fields against a document: numbers, kinds and lengths.
fn fields_are_those_of(title: &str, number: usize, document: &[u8]) {
    let mut body = minicbor::Decoder::new(&document[signed::HEADER_BYTES..]);
    let rows = &tables(title)[number];
    assert_eq!(body.map().unwrap(), u64::try_from(rows.len()).ok(), "{title}");
    for row in rows {
        assert_eq!(body.u64().unwrap().to_string(), row[0], "{title}: {}", row[1]);
        let kind = match body.datatype().unwrap() {
            minicbor::data::Type::Bytes => format!("bytes {}", body.bytes().unwrap().len()),
            minicbor::data::Type::String => body.str().map(|_| "text".into()).unwrap(),
            minicbor::data::Type::Array => {
                let mut ahead = body.probe();
                ahead.array().unwrap();
                let kind = if ahead.u64().is_ok() { "uint" } else { "maps" };
                body.skip().map(|()| format!("array of {kind}")).unwrap()
            }
            minicbor::data::Type::Map => body.skip().map(|()| "map".into()).unwrap(),
            _ => body.u64().map(|_| "uint".into()).unwrap(),
        };
        assert_eq!(kind, row[2].replace(", optional", ""), "{title}: {}", row[1]);
    }
}

#[test]
fn the_fields_of_what_nodes_sign_are_those_of_the_code() {
    let operator = operator_key::OperatorKey::generate();
    let own = node_key::NodeKeyFile::generate("alpha".parse().unwrap(), operator.cluster_id());
    let now = id::UnixTime::from_seconds(1);
    let nodeset = nodeset::Plan::first(&operator).with_node(own.member(now)).sign(&operator).unwrap();
    let lineage = id::Lineage::from_bytes([1; 16]);
    let first = keyring::Keyring::create(&nodeset, &own, lineage, None, now).unwrap();
    let (staged, secrets) = first.0.stage(&nodeset, &own, &first.1, now).unwrap();
    let word = acknowledgement::Acknowledgement::sign(&own, &staged, &secrets, now).unwrap();
    fields_are_those_of("5.5 Acknowledgement", 0, word.as_bytes());
    assert!(section("5.5 Acknowledgement").contains(&format!("1 to {}", keyring::MAX_EPOCHS)));
    assert!(section("5.5 Acknowledgement").contains(&format!("`{}`", signed::Kind::Acknowledgement.name())));

    let (active, secrets) = staged.activate(&nodeset, &own, &secrets).unwrap();
    let (gone, _) = active.destroy(&nodeset, &own, &secrets, true).unwrap();
    fields_are_those_of("5.2 Keyring", 0, gone.as_bytes());
    assert!(section("5.2 Keyring").contains(&format!("bytes {})", keyring::RETAINED_WRAP_BYTES)));

    let facts = census::CensusFacts {
        cluster: *gone.cluster(),
        lineage,
        keyring_version: gone.version(),
        keyring_hash: gone.hash(),
        stream: "sqlcipher".into(),
        barrier: 7,
        barrier_id: [2; 16],
        digest: [3; 32],
        records: 1,
        entries: vec![(id::Epoch::FIRST, 1)],
        unsealed: 0,
        undecryptable: 0,
        disk: Some(census::DiskScan::default()),
        created: now,
    };
    let census = census::Census::sign(&own, facts).unwrap();
    fields_are_those_of("5.6 Census", 0, census.as_bytes());
    assert!(section("5.6 Census").contains(&format!("1 to {}", census::MAX_STREAM_BYTES)));
}

#[test]
fn every_section_that_the_code_cites_exists() {
    let mut folders = vec![std::path::PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/src"))];
    let mut cited = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            for citation in text.split("SPEC keyfile, section").skip(1) {
                let numbers =
                    citation.trim_start_matches(['s', ' ']).split([')', ':', '"', '\n', ';']).next().unwrap();
                for number in numbers.split("and").flat_map(|list| list.split(',')) {
                    let number = number.trim().trim_end_matches('.').split(' ').next().unwrap();
                    assert!(
                        SPEC.contains(&format!("# {number} ")),
                        "{}: no section {number}",
                        path.display()
                    );
                    cited += 1;
                }
            }
        }
    }
    assert!(cited > 15, "{cited}");
}

#[test]
fn every_code_in_the_sources_is_in_the_list_and_has_a_page() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut folders = vec![root.join("src")];
    let mut used = std::collections::BTreeSet::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            // The list itself does not count as a use.
            if path.ends_with("src/error.rs") {
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            used.extend(text.split('"').filter(|word| word.starts_with("UB-K")).map(str::to_owned));
        }
    }
    // Those of `DecodeError`, which is in the same file as the list.
    used.extend(["UB-K001".to_owned(), "UB-K002".to_owned()]);
    let listed: std::collections::BTreeSet<String> =
        unibus_keyfile::error::CODES.iter().map(|code| (*code).to_owned()).collect();
    assert_eq!(used, listed);
    for code in listed {
        let page = root.join(format!("../runbooks/errors/{code}.md"));
        assert!(page.is_file(), "{} is missing", page.display());
    }
}

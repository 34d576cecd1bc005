//! Records as other software wrote them: each file of `testdata/v1/record` is one, right or wrong in one way.
//!
//! A file is a text head (`expect:` `ok` or the name of the error, `comment:`), an empty line, and the bytes. The
//! files were made from SPEC store, sections 1 and 2, by an encoder that is not ours. They are never edited.

use std::{collections::BTreeMap, fs, path::Path};

use unibus_store::record::{DecodeError, Record};

const ALL: [&str; 12] = [
    "TooLong",
    "Truncated",
    "Kind",
    "Identity",
    "Version",
    "Cbor",
    "Indefinite",
    "Order",
    "Trailing",
    "Missing",
    "Field",
    "NotCanonical",
];

fn name_of(error: &DecodeError) -> &'static str {
    match error {
        DecodeError::TooLong { .. } => "TooLong",
        DecodeError::Truncated { .. } => "Truncated",
        DecodeError::Kind { .. } => "Kind",
        DecodeError::Identity { .. } => "Identity",
        DecodeError::Version { .. } => "Version",
        DecodeError::Cbor { .. } => "Cbor",
        DecodeError::Indefinite { .. } => "Indefinite",
        DecodeError::Order { .. } => "Order",
        DecodeError::Trailing { .. } => "Trailing",
        DecodeError::Missing { .. } => "Missing",
        DecodeError::Field { .. } => "Field",
        DecodeError::NotCanonical { .. } => "NotCanonical",
        _ => "an error without vectors",
    }
}

/// The vectors by file name: what is expected, and the bytes.
#[cfg(test)]
fn vectors() -> BTreeMap<String, (String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/v1/record");
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let read = files.map(|path| {
        let bytes = fs::read(&path).unwrap();
        let end = bytes.windows(2).position(|window| window == b"\n\n").unwrap();
        let head = std::str::from_utf8(&bytes[..end]).unwrap();
        let expect = head.lines().find_map(|line| line.strip_prefix("expect: ")).unwrap();
        (
            path.file_stem().unwrap().to_str().unwrap().to_owned(),
            (expect.to_owned(), bytes[end + 2..].to_vec()),
        )
    });
    read.collect()
}

#[test]
fn each_vector_decodes_or_is_refused_as_it_says() {
    let mut wrong = Vec::new();
    for (name, (expect, bytes)) in vectors() {
        let decoded = Record::decode(&bytes);
        let found = decoded.as_ref().map_or_else(name_of, |_| "ok");
        if found != expect {
            wrong.push(format!("{name}: wanted {expect}, found {found}: {decoded:?}"));
        }
        if let Ok(record) = decoded {
            assert_eq!(record.encode().as_bytes(), bytes, "{name} is written in another way");
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn there_is_a_vector_for_each_error() {
    let vectors = vectors();
    assert!(vectors.len() > 100, "{} vectors", vectors.len());
    for name in ALL {
        assert!(vectors.values().any(|(expect, _)| expect == name), "{name}");
    }
}

#[test]
fn a_good_vector_cut_anywhere_is_refused() {
    for (name, (_, bytes)) in vectors().into_iter().filter(|(_, (expect, _))| expect == "ok") {
        for cut in 0..bytes.len() {
            assert!(Record::decode(&bytes[..cut]).is_err(), "{name} cut at {cut}");
        }
    }
}

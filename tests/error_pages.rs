//! Each error code has one page in `runbooks/errors`, and each page a code.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Every `"UB-X123"` of the crates' sources.
fn codes() -> BTreeSet<String> {
    let mut files = Vec::new();
    for member in ["keyfile", "store", "migrate", "membershipd", "membershipd/nats"] {
        sources(&top().join(member).join("src"), &mut files);
    }
    let mut codes = BTreeSet::new();
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        for (at, _) in text.match_indices("\"UB-") {
            let code = text[at + 1..].split('"').next().unwrap();
            // A test may look for the beginning of a code only.
            if code.len() > 4 {
                assert!(is_code(code), "{}: `{code}` is not a code", file.display());
                codes.insert(code.to_owned());
            }
        }
    }
    assert!(codes.len() > 20, "the search found {} codes only", codes.len());
    codes
}

fn is_code(code: &str) -> bool {
    let Some(&[letter, ref digits @ ..]) = code.strip_prefix("UB-").map(str::as_bytes) else { return false };
    b"KSMDLN".contains(&letter) && digits.len() == 3 && digits.iter().all(u8::is_ascii_digit)
}

#[test]
fn each_code_has_a_page_and_each_page_a_code() {
    let folder = top().join("runbooks/errors");
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let pages: BTreeSet<String> = names.map(|name| name.trim_end_matches(".md").to_owned()).collect();
    let codes = codes();
    let missing: Vec<_> = codes.difference(&pages).collect();
    let surplus: Vec<_> = pages.difference(&codes).collect();
    assert!(
        missing.is_empty() && surplus.is_empty(),
        "without a page: {missing:?}; without a code: {surplus:?}"
    );
}

#[test]
fn each_page_says_what_it_means_and_what_to_do() {
    for code in codes() {
        let path = top().join("runbooks/errors").join(format!("{code}.md"));
        let Ok(text) = fs::read_to_string(&path) else { continue };
        assert!(text.starts_with(&format!("# {code}: ")), "{code}: another title");
        for section in ["## What it means", "## What to do"] {
            let body = text.split(section).nth(1).unwrap_or_default();
            assert!(body.trim().len() > 12, "{code}: no text under `{section}`");
        }
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            assert!(path.parent().unwrap().join(link).is_file(), "{code}: a link leads nowhere: {link}");
        }
    }
}

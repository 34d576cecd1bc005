//! Where the server-side key and the route password are not.

use crate::bench::{Bench, KEY, PASSWORD, files};
use data_encoding::{BASE64, HEXLOWER, HEXUPPER};
use std::path::Path;
use unibus_nats::config::Cipher;

/// Every form of the secrets that is looked for.
fn secrets() -> Vec<Vec<u8>> {
    let hex = HEXLOWER.encode(&KEY);
    let encoded = PASSWORD.replace('%', "%25").replace('&', "%26").replace('-', "%2D");
    let all = [
        KEY.to_vec(),
        hex.clone().into_bytes(),
        HEXUPPER.encode(&KEY).into_bytes(),
        BASE64.encode(&KEY).into_bytes(),
        BASE64.encode(format!("k{hex}").as_bytes()).into_bytes(),
        PASSWORD.as_bytes().to_vec(),
        encoded.into_bytes(),
        BASE64.encode(PASSWORD.as_bytes()).into_bytes(),
    ];
    all.into_iter().collect()
}

fn contains(bytes: &[u8], what: &[u8]) -> bool {
    bytes.windows(what.len()).any(|window| window == what)
}

fn assert_absent(place: &Path, bytes: &[u8]) {
    for secret in secrets() {
        assert!(!contains(bytes, &secret), "{} has {}", place.display(), String::from_utf8_lossy(&secret));
    }
}

#[test]
fn the_key_and_the_route_password_are_in_no_argument_variable_log_or_file() {
    let mut bench = Bench::new().with_key(Cipher::Aes, KEY);
    bench.in_cluster = true;
    let rendered = bench.config().render().unwrap();
    assert!(
        rendered.contains(&HEXLOWER.encode(&KEY)) && rendered.contains(PASSWORD),
        "the control run found nothing"
    );
    let supervisor = bench.supervise().unwrap();
    let pid = supervisor.status().pid.unwrap();
    // A reload would read the pipe again, and nats-server logs both keys when one has changed.
    let process = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(process, rustix::process::Signal::HUP).unwrap();
    crate::bench::until("the answer to the reload", || {
        bench.log().contains("Failed to reload server configuration").then_some(())
    });
    for name in ["environ", "cmdline", "comm", "status"] {
        let path = format!("/proc/{pid}/{name}");
        let bytes = std::fs::read(&path).unwrap();
        assert!(name == "environ" || !bytes.is_empty());
        assert_absent(Path::new(&path), &bytes);
    }
    assert!(std::fs::read(format!("/proc/{pid}/environ")).unwrap().is_empty());
    supervisor.stop();
    let all = files(bench.folder.path());
    assert!(all.iter().any(|(path, bytes)| path.ends_with("log") && contains(bytes, b"AES-GCM")));
    assert!(all.iter().any(|(path, _)| path.ends_with("meta.key")));
    for (path, bytes) in all {
        assert_absent(&path, &bytes);
    }
}

#[test]
fn a_hash_of_the_configuration_tells_nothing_about_its_secrets() {
    // nats-server logs SHA-256 of what it read: with equal texts a password could be tried out.
    let bench = Bench::new();
    assert_ne!(*bench.config().render().unwrap(), *bench.config().render().unwrap());
}

#[test]
fn nothing_prints_a_secret() {
    let mut bench = Bench::new().with_key(Cipher::ChaCha, KEY);
    bench.in_cluster = true;
    let printed = format!("{:?} {:?}", bench.launch(), bench.control);
    assert_absent(Path::new("Debug"), printed.as_bytes());
    assert!(!printed.contains(bench.control.expose_seed()));
}

//! What nats-server does to those who do not know it, tried on our supervisor.

use crate::bench::{Bench, KEY, PATIENCE, until};
use unibus_nats::NatsError;
use unibus_nats::config::Cipher;
use unibus_nats::folder::MARKER;
use unibus_nats::supervisor::State;

const OTHER: [u8; 32] = [7; 32];

/// A folder with a stream, made with that key.
fn made_with(cipher: Option<(Cipher, [u8; 32])>) -> Bench {
    let mut bench = Bench::new();
    bench.cipher = cipher;
    let supervisor = bench.supervise().unwrap();
    bench.fill();
    supervisor.stop();
    bench
}

/// Asserts that a start with that key is refused, before nats-server ran, and that no byte has changed.
#[track_caller]
fn assert_refused(bench: &mut Bench, cipher: Option<(Cipher, [u8; 32])>, code: &str) {
    let own = bench.cipher;
    let (before, log) = (bench.files(), bench.log());
    bench.cipher = cipher;
    let refused = bench.supervise().unwrap_err();
    assert_eq!(refused.code(), code, "{refused:?}");
    assert!(refused.is_final());
    assert!(bench.files() == before, "{refused:?}: the folder has changed");
    assert_eq!(bench.log(), log, "nats-server ran");
    bench.cipher = own;
}

#[track_caller]
fn assert_whole(bench: &Bench) {
    let supervisor = bench.supervise().unwrap();
    assert_eq!(bench.messages(), Some(1));
    supervisor.stop();
}

#[test]
fn a_wrong_cipher_or_key_or_none_is_refused_before_nats_server_sees_the_folder() {
    for cipher in [Cipher::Aes, Cipher::ChaCha] {
        let mut bench = made_with(Some((cipher, KEY)));
        let other_cipher = if cipher == Cipher::Aes { Cipher::ChaCha } else { Cipher::Aes };
        assert_refused(&mut bench, Some((cipher, OTHER)), "UB-N009");
        assert_refused(&mut bench, Some((other_cipher, KEY)), "UB-N009");
        assert_refused(&mut bench, None, "UB-N009");
        assert_whole(&bench);
    }
}

#[test]
fn a_folder_is_never_converted_in_place() {
    let mut bench = made_with(None);
    assert_refused(&mut bench, Some((Cipher::Aes, KEY)), "UB-N009");
    std::fs::remove_file(bench.store_dir().join(MARKER)).unwrap();
    assert_refused(&mut bench, Some((Cipher::Aes, KEY)), "UB-N010");
    assert_whole(&bench);
}

#[test]
fn without_its_note_an_encrypted_folder_is_refused_with_any_key() {
    let mut bench = made_with(Some((Cipher::Aes, KEY)));
    let marker = bench.store_dir().join(MARKER);
    let note = std::fs::read(&marker).unwrap();
    std::fs::remove_file(&marker).unwrap();
    assert_refused(&mut bench, Some((Cipher::Aes, KEY)), "UB-N010");
    assert_refused(&mut bench, Some((Cipher::Aes, OTHER)), "UB-N010");
    assert_refused(&mut bench, None, "UB-N010");
    // A planted note that says that it is not encrypted.
    std::fs::write(&marker, "unibus-nats-folder 1\ncipher off\n").unwrap();
    assert_refused(&mut bench, None, "UB-N010");
    for damaged in [&b""[..], b"unibus-nats-folder 2\ncipher off\n", &note[..note.len() - 1], b"\xff"] {
        std::fs::write(&marker, damaged).unwrap();
        assert_refused(&mut bench, Some((Cipher::Aes, KEY)), "UB-N010");
    }
    std::fs::write(&marker, note).unwrap();
    assert_whole(&bench);
}

#[test]
fn a_stream_that_is_not_encrypted_among_encrypted_ones_is_refused() {
    let mut bench = made_with(Some((Cipher::Aes, KEY)));
    let planted = bench.store_dir().join("jetstream/CONTROL/streams/PLANTED");
    std::fs::create_dir_all(&planted).unwrap();
    std::fs::write(planted.join("meta.inf"), "{}").unwrap();
    assert_refused(&mut bench, Some((Cipher::Aes, KEY)), "UB-N010");
}

#[test]
fn an_empty_folder_belongs_to_whoever_comes_first() {
    let mut bench = Bench::new();
    bench.supervise().unwrap().stop();
    bench.cipher = Some((Cipher::Aes, KEY));
    bench.supervise().unwrap().stop();
    bench.cipher = Some((Cipher::ChaCha, OTHER));
    let supervisor = bench.supervise().unwrap();
    bench.fill();
    supervisor.stop();
    assert_refused(&mut bench, Some((Cipher::Aes, KEY)), "UB-N009");
}

#[test]
fn a_server_that_cannot_decrypt_is_killed_at_once_and_the_stream_stays() {
    let bench = made_with(Some((Cipher::Aes, KEY)));
    let folder = bench.store_dir().join("jetstream/CONTROL/streams/S");
    let path = folder.join("meta.key");
    let mut key = std::fs::read(&path).unwrap();
    key[20] ^= 1;
    std::fs::write(&path, &key).unwrap();
    let block = std::fs::read(folder.join("msgs/1.blk")).unwrap();
    let before = bench.log().len();
    let refused = bench.supervise().unwrap_err();
    assert!(matches!(&refused, NatsError::Unrecoverable { line } if line.contains("decrypt")), "{refused:?}");
    assert!(refused.is_final());
    assert!(!bench.log()[before..].contains("Server Exiting"), "it was asked, not killed");
    assert_eq!(std::fs::read(folder.join("msgs/1.blk")).unwrap(), block);
    key[20] ^= 1;
    std::fs::write(&path, &key).unwrap();
    assert_whole(&bench);
}

#[test]
fn a_server_that_finds_out_later_is_killed_and_not_started_again() {
    let mut bench = Bench::new();
    let line =
        "[7] 2026/01/01 00:00:00.0 [WRN]   Error decrypting our stream metafile: unable to recover keys";
    bench.script(&format!(
        "[ \"$1\" = -v ] || (until [ -e \"$HERE/now\" ]; do /bin/sleep 0.05; done; echo '{line}' >&2) &\nexec \"$REAL\" \"$@\""
    ));
    let supervisor = bench.supervise().unwrap();
    let pid = supervisor.status().pid.unwrap();
    std::fs::write(bench.folder.path().join("now"), "").unwrap();
    let status = supervisor.wait_for(PATIENCE, |status| matches!(status.state, State::Failed { .. }));
    let State::Failed { error } = &status.state else { panic!("{status:?}") };
    assert!(matches!(&**error, NatsError::Unrecoverable { .. }), "{error:?}");
    assert!(!crate::bench::lives(pid) && status.pid.is_none() && status.restarts == 0);
    assert!(matches!(bench.supervise(), Err(NatsError::Locked { .. })), "the folder was let go");
}

#[test]
fn a_server_that_does_not_say_that_it_encrypts_is_killed() {
    let mut bench = Bench::new().with_key(Cipher::Aes, KEY);
    for said in [
        "",
        "[7] 2026/01/01 00:00:00.0 [INF]   Encryption:      ChaCha20-Poly1305",
        "Encryption:      AES-GCM",
    ] {
        // An old or odd server that ignores the cipher: everything else of it is as it should be.
        let filter = "/bin/sed -u -e '/cipher:/d' -e '/^key:/d'";
        let run = "exec \"$REAL\" -c \"$HERE/filtered\"";
        bench.script(&format!(
            "[ \"$1\" = -v ] && exec \"$REAL\" -v\necho '{said}' >&2\n{filter} > \"$HERE/filtered\"; {run}"
        ));
        let refused = bench.supervise().unwrap_err();
        assert!(matches!(refused, NatsError::NotEncrypting { .. }), "{said}: {refused:?}");
    }
}

#[test]
fn two_supervisors_do_not_share_a_folder() {
    let bench = Bench::new();
    let first = bench.supervise().unwrap();
    bench.fill();
    let mut launch = Bench::new().launch();
    launch.raw_log = None;
    launch.config.store_dir = bench.store_dir();
    let options = unibus_nats::supervisor::Options::new(launch);
    let refused = unibus_nats::Supervisor::start(options).unwrap_err();
    assert!(matches!(refused, NatsError::Locked { .. }), "{refused:?}");
    assert_eq!(bench.messages(), Some(1));
    first.stop();
    assert_whole(&bench);
}

#[test]
fn a_supervisor_does_not_take_a_folder_on_which_a_nats_server_still_runs() {
    // As after a kill of the supervisor whose nats-server got away.
    let bench = Bench::new();
    bench.supervise().unwrap().stop();
    let lock = bench.store_dir().join(unibus_nats::folder::CHILD_LOCK);
    let held = unibus_keyfile::durable::LockFile::try_exclusive(&lock).unwrap().unwrap();
    let before = bench.log();
    let refused = bench.supervise().unwrap_err();
    assert!(matches!(&refused, NatsError::Locked { path } if *path == lock), "{refused:?}");
    assert_eq!(bench.log(), before, "it came as far as the guard");
    drop(held);
    bench.supervise().unwrap().stop();
}

#[test]
fn a_reload_changes_nothing() {
    let bench = Bench::new().with_key(Cipher::Aes, KEY);
    let supervisor = bench.supervise().unwrap();
    bench.fill();
    let pid = supervisor.status().pid.unwrap();
    let process = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(process, rustix::process::Signal::HUP).unwrap();
    until("the answer to the reload", || bench.log().contains("Failed to reload").then_some(()));
    assert!(!bench.log().contains(&data_encoding::HEXLOWER.encode(&KEY)), "the key is in the log");
    crate::bench::block_on(async {
        let nobody = async_nats::connect(format!("127.0.0.1:{}", bench.client_port)).await;
        assert!(nobody.is_err(), "a reload let everybody in");
    });
    assert_eq!(bench.messages(), Some(1));
    assert_eq!(supervisor.status().pid, Some(pid));
}

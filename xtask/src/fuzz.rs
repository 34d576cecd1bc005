//! Short runs of every fuzz target. The committed corpus is read, never written.

use crate::run::{cargo, cargo_tool, root};
use crate::tools;
use std::fs;
use std::path::PathBuf;
use std::sync::Mutex;

/// How long, and which targets (none: all).
#[derive(Debug)]
pub struct Options {
    seconds: u32,
    targets: Vec<String>,
}

impl Options {
    /// Reads `[--seconds N] [TARGET]...`.
    pub fn parse(arguments: &[String]) -> Result<Self, String> {
        let mut options = Self { seconds: 10, targets: Vec::new() };
        let mut rest = arguments.iter();
        while let Some(argument) = rest.next() {
            if argument == "--seconds" {
                let number = rest.next().and_then(|number| number.parse().ok());
                options.seconds = number.ok_or("--seconds needs a number")?;
            } else if argument.starts_with('-') {
                return Err(format!("unknown option {argument}"));
            } else {
                options.targets.push(argument.clone());
            }
        }
        Ok(options)
    }
}

/// Builds all targets, then runs two at a time.
pub fn run(options: &Options) -> Result<(), String> {
    let folder = root().join("fuzz");
    let tool = tools::ci_tool("cargo-fuzz")?;
    // libFuzzer's coverage flags are unstable; the pinned stable compiler knows them all the same.
    // Memory errors are for the sanitizer of a longer run: our decoders have no unsafe code.
    let fuzz = || cargo_tool(&tool).within(&folder).env("RUSTC_BOOTSTRAP", "1");
    fuzz().args(["build", "-s", "none"]).run()?;
    let known = targets()?;
    if let Some(unknown) = options.targets.iter().find(|name| !known.contains(name)) {
        return Err(format!("no fuzz target `{unknown}`; there are {}", known.join(", ")));
    }
    let wanted = if options.targets.is_empty() { known } else { options.targets.clone() };
    let queue = Mutex::new(wanted.into_iter());
    let next = || queue.lock().ok().and_then(|mut queue| queue.next());
    let work = || -> Result<(), String> {
        while let Some(target) = next() {
            let found = folder.join("target").join("corpus").join(&target);
            fs::create_dir_all(&found)
                .map_err(|error| format!("cannot create {}: {error}", found.display()))?;
            let seeds = folder.join("corpus").join(&target);
            let limits = [
                format!("-max_total_time={}", options.seconds),
                "-verbosity=1".to_owned(),
                "-print_final_stats=0".to_owned(),
                "-rss_limit_mb=1024".to_owned(),
                "-timeout=10".to_owned(),
            ];
            let run =
                fuzz().args(["run", "-s", "none", &target]).args([found, seeds]).args(["--"]).args(limits);
            let said = run.output_of_both()?;
            println!(
                "fuzz {target}: {}",
                said.lines().rfind(|line| line.starts_with("Done")).unwrap_or("done")
            );
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let other = scope.spawn(work);
        let own = work();
        let other = other.join().unwrap_or_else(|_| Err("a fuzz run panicked".to_owned()));
        own.and(other)
    })
}

/// Writes the seeds anew, from the encoders, by the test that otherwise checks them.
pub fn write_corpus() -> Result<(), String> {
    let test = ["test", "--package", "unibus-tests", "--test", "fuzz_corpus", "--all-features"];
    cargo().args(test).env("UNIBUS_WRITE_CORPUS", "1").run()
}

fn targets() -> Result<Vec<String>, String> {
    let folder = root().join("fuzz").join("fuzz_targets");
    let read = |error| format!("cannot read {}: {error}", folder.display());
    let mut names = Vec::new();
    for entry in fs::read_dir(&folder).map_err(read)? {
        let path: PathBuf = entry.map_err(read)?.path();
        if path.extension().is_some_and(|extension| extension == "rs") {
            names.extend(path.file_stem().and_then(|stem| stem.to_str()).map(str::to_owned));
        }
    }
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::Options;

    fn parse(words: &[&str]) -> Result<Options, String> {
        Options::parse(&words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn options_are_read() {
        let options = parse(&["--seconds", "3", "record"]).unwrap();
        assert_eq!((options.seconds, options.targets), (3, vec!["record".to_owned()]));
        assert!(parse(&["--seconds", "soon"]).is_err());
        assert!(parse(&["--minutes"]).is_err());
    }
}

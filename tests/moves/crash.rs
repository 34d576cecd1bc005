//! `copy` and `restore`, stopped at every step: what is there then is refused or complete, the same command run again
//! ends proven, and the source is as it was. Printed as a table.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::json;
use unibus_keyfile::id::UnixTime;
use unibus_keyfile::node_key::NodeKeyFile;
use unibus_store::sealed_log::{Access, LogError, SealedLog};
use unibus_store::sqlcipher::{CreateOptions, Keys, NewStore, OpenOptions, SqlcipherStore};
use unibus_store::store::Store;
use unibus_tests::{Program, Run, kv, wait};

use crate::lossy::Lossy;
use crate::world::{World, api, as_a_stranger, digest};

/// Places on the way to a database; how often each is passed before it fails.
const TO_DATABASE: [(&str, u32); 12] = [
    ("create::begun", 0),
    ("create::record", 0),
    ("create::record", 400),
    ("create::close", 0),
    ("create::closed", 0),
    ("create::proven", 0),
    ("create::complete", 0),
    ("create::aside", 0),
    ("create::witnessed", 0),
    ("create::name", 0),
    ("create::named", 0),
    ("nodeset", 0),
];
/// Places on the way to a log.
const TO_LOG: [(&str, u32); 13] = [
    ("fill::open", 0),
    ("fill::opened", 0),
    ("import::open", 0),
    ("import::opened", 0),
    ("import::batch", 0),
    ("import::batched", 0),
    ("import::batch", 1),
    ("import::floor", 0),
    ("import::read", 0),
    ("import::close", 0),
    ("import::closed", 0),
    ("fill::read_back", 0),
    ("fill::proven", 0),
];
/// Steps that write, behind which an acknowledgement is to come.
const WRITES: [(&str, u32); 4] =
    [("import::open", 0), ("import::batch", 0), ("import::batch", 1), ("import::close", 0)];

/// What is run in CI.
const SAMPLE: [(&str, u32, &str); 11] = [
    ("create::record", 400, "kill"),
    ("create::closed", 0, "full"),
    ("create::aside", 0, "kill"),
    ("create::witnessed", 0, "kill"),
    ("create::witnessed", 0, "io"),
    ("create::name", 0, "full"),
    ("nodeset", 0, "kill"),
    ("import::batch", 1, "server"),
    ("import::batch", 1, "lost"),
    ("import::batched", 0, "full"),
    ("import::close", 0, "kill"),
];

fn all() -> bool {
    std::env::var_os("UNIBUS_TEST_ALL").is_some()
}

fn is_picked(place: &str, passed: u32, fault: &str) -> bool {
    all() || SAMPLE.contains(&(place, passed, fault))
}

fn failpoints(place: &str, passed: u32, fault: &str) -> String {
    let before = if passed > 0 { format!("{passed}*off->") } else { String::new() };
    format!("{place}={before}1*return({fault})")
}

/// How a run ended.
fn ended(run: &Run) -> String {
    match run.code {
        -1 => "killed".to_owned(),
        code => {
            let said = run.said();
            let code_of = |text: &str| {
                text.split(['(', '[', ')', ']', ' ', '"'])
                    .find(|word| word.starts_with("UB-"))
                    .map(str::to_owned)
            };
            format!("exit {code} {}", code_of(&said).unwrap_or_default())
        }
    }
}

fn copy_folder(from: &Path, to: &Path) {
    kv::remove(to);
    fs::create_dir_all(to).unwrap();
    let Ok(entries) = fs::read_dir(from) else { return };
    for entry in entries {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn now() -> UnixTime {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    UnixTime::from_seconds(since.as_secs())
}

/// The stage: a source, what is to come of it, and where.
struct Stage {
    world: World,
    snapshot: PathBuf,
    wanted: String,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Command {
    Copy,
    Restore,
}

impl Stage {
    fn new() -> Self {
        let world = World::with_database(300);
        let wanted = digest(&world.host.status()).to_owned();
        let snapshot = world.host.path("a.snapshot");
        world.host.snapshot("a.snapshot").run().ok();
        Self { world, snapshot, wanted }
    }

    /// What must stay as it is. A reader that is killed leaves a WAL without a byte in it.
    fn source(&self) -> Vec<Vec<u8>> {
        let wal = fs::read(self.world.host.path("data/control.db-wal")).unwrap_or_default();
        let files = ["data/control.db", "data/control.db.keyring", "state/witness", "a.snapshot"];
        let read = |name: &str| fs::read(self.world.host.path(name)).unwrap();
        files.into_iter().map(read).chain([wal]).collect()
    }

    fn new_folder(&self) -> PathBuf {
        self.world.host.path("new")
    }

    fn key(&self) -> Arc<NodeKeyFile> {
        Arc::new(NodeKeyFile::load(&self.world.host.key_file()).unwrap())
    }

    fn to_database(&self, command: Command) -> Program {
        let to = format!("sqlcipher:{}", self.new_folder().join("control.db").display());
        let program = match command {
            Command::Copy => self
                .world
                .stateless(["copy", "--json", "--yes", "--from", &self.world.host.store(), "--to", &to])
                .option("--from-state-dir", self.world.host.path("state"))
                .option("--from-nodeset", self.world.host.path("keys/nodeset")),
            Command::Restore => self
                .world
                .stateless(["restore", "--json", "--yes", "--to", &to])
                .option("--in", &self.snapshot)
                .option("--operator", self.world.host.path("keys/operator.key")),
        };
        program.option("--state-dir", self.new_folder().join("state"))
    }

    /// What the daemon makes of a folder: the digest that it would serve.
    fn served(&self, folder: &Path) -> Result<String, String> {
        let options = OpenOptions::new(&folder.join("control.db"), Keys::Node(self.key()), now())
            .nodeset(&self.world.host.path("keys/nodeset"))
            .state_dir(&folder.join("state"));
        let store = SqlcipherStore::open(&options).map_err(|error| error.code().to_owned())?;
        Ok(store.position().unwrap().digest.to_string())
    }

    /// Before a restore the daemon has been started once, and left an empty store.
    fn clear(&self, command: Command) {
        let folder = self.new_folder();
        kv::remove(&folder);
        if command == Command::Restore {
            fs::create_dir(&folder).unwrap();
            let options = CreateOptions::new(&folder.join("control.db"), self.key(), now())
                .nodeset(&self.world.host.path("keys/nodeset"))
                .state_dir(&folder.join("state"));
            NewStore::begin(options).unwrap().finish().unwrap();
        }
    }

    fn database_cell(&self, command: Command, (place, passed): (&str, u32), fault: &str) -> String {
        self.clear(command);
        let empty = self.served(&self.new_folder()).ok();
        let source = self.source();
        let name = match (place, command) {
            ("nodeset", Command::Copy) => "copy::nodeset",
            ("nodeset", Command::Restore) => "restore::nodeset",
            _ => place,
        };
        let what = format!("{command:?} {name} {passed} {fault}");
        let run = self.to_database(command).env("FAILPOINTS", failpoints(name, passed, fault)).run();
        assert!(run.code != 0 && (run.code == -1) == (fault == "kill"), "{what}: {}", run.said());
        let probe = self.world.host.path("probe");
        copy_folder(&self.new_folder(), &probe);
        let found = self.served(&probe);
        // All of it, or what was there before it, or nothing.
        if let Ok(found) = &found {
            assert!(
                *found == self.wanted || empty.as_ref() == Some(found),
                "{what}: something half is served"
            );
        }
        let is_done = found.as_ref().is_ok_and(|found| *found == self.wanted);
        let again = self.to_database(command).run();
        assert!(
            again.code == 0 || is_done && again.code == 2,
            "{what}: then {found:?}, then {}",
            again.said()
        );
        assert_eq!(self.served(&self.new_folder()).as_ref(), Ok(&self.wanted), "{what}");
        for entry in fs::read_dir(self.new_folder()).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            assert!(!name.starts_with(".unibus-new-"), "{what}: {name} is left");
        }
        assert!(self.source() == source, "{what}: the source was changed");
        let found = match found {
            Ok(_) if is_done => "complete".to_owned(),
            Ok(_) => "the empty store".to_owned(),
            Err(code) => format!("refused {code}"),
        };
        let then = if again.code == 0 { "proven".to_owned() } else { ended(&again) + " (was done)" };
        format!(
            "| {command:?} to sqlcipher | {name} {passed} | {fault} | {} | {found} | {then} |",
            ended(&run)
        )
    }

    fn to_log(&self, command: Command, port: Option<u16>) -> Program {
        let kv = port.map_or_else(|| self.world.kv(), |port| format!("kv:nats://127.0.0.1:{port}"));
        match command {
            Command::Copy => self
                .world
                .migrate(["copy", "--json", "--yes", "--from", &self.world.host.store(), "--to", &kv])
                .option("--from-state-dir", self.world.host.path("state"))
                .option("--from-nodeset", self.world.host.path("keys/nodeset")),
            Command::Restore => self
                .world
                .migrate(["restore", "--json", "--yes", "--to", &kv])
                .option("--in", &self.snapshot)
                .option("--operator", self.world.host.path("keys/operator.key")),
        }
    }

    /// A copy makes the log itself; a restore finds the one that the daemon has made.
    fn clear_log(&self, command: Command) {
        as_a_stranger(&self.world, async |client| {
            for stream in ["KV_UNIBUS_control", "KV_UNIBUS_nonces", "OBJ_UNIBUS_blobs"] {
                api(client, &format!("STREAM.DELETE.{stream}"), &json!({})).await;
            }
        });
        kv::remove(&self.world.state());
        fs::create_dir(self.world.state()).unwrap();
        if command == Command::Restore {
            drop(self.world.serve());
        }
    }

    /// What a daemon makes of the log: the digest that it would serve, or why it does not.
    fn served_log(&self) -> Result<String, String> {
        // Only looked at: a daemon that serves would make one where there is none.
        match SealedLog::open(self.world.options(Access::Read)) {
            Ok(log) if log.is_half_imported() => {
                drop(log);
                let refused = self.world.try_serve();
                assert!(
                    matches!(refused, Err(LogError::HalfImported)),
                    "half an import is served: {refused:?}"
                );
                Err("half, refused".to_owned())
            }
            Ok(log) if !log.ever_held_a_record() => Err("empty".to_owned()),
            Ok(log) => Ok(log.position().unwrap().digest.to_string()),
            Err(LogError::NothingThere { .. }) => Err("nothing".to_owned()),
            Err(error) => Err(format!("refused {}", error.code())),
        }
    }

    fn log_cell(&mut self, command: Command, (place, passed): (&str, u32), fault: &str) -> String {
        self.clear_log(command);
        let source = self.source();
        let what = format!("{command:?} {place} {passed} {fault}");
        let run = match fault {
            "server" | "lost" => self.stopped(command, (place, passed), fault),
            _ => {
                let run =
                    self.to_log(command, None).env("FAILPOINTS", failpoints(place, passed, fault)).run();
                assert!(run.code != 0 && (run.code == -1) == (fault == "kill"), "{what}: {}", run.said());
                run
            }
        };
        let found = self.served_log();
        if let Ok(found) = &found {
            assert_eq!(*found, self.wanted, "{what}: something half is served");
        }
        let again = (run.code != 0).then(|| self.to_log(command, None).run());
        if let Some(again) = &again {
            assert!(
                again.code == 0 || found.is_ok() && again.code == 2,
                "{what}: then {found:?}, then {}",
                again.said()
            );
        }
        assert_eq!(self.served_log().as_ref(), Ok(&self.wanted), "{what}");
        drop(self.world.serve());
        assert!(self.source() == source, "{what}: the source was changed");
        let found = found.map_or_else(|why| why, |_| "complete".to_owned());
        let then = match &again {
            None => "not needed".to_owned(),
            Some(again) if again.code == 0 => "proven".to_owned(),
            Some(again) => ended(again) + " (was done)",
        };
        format!("| {command:?} to kv | {place} {passed} | {fault} | {} | {found} | {then} |", ended(&run))
    }

    /// Stopped at a place while something happens to the server, or to what it answers.
    fn stopped(&mut self, command: Command, (place, passed): (&str, u32), fault: &str) -> Run {
        let lossy = (fault == "lost").then(|| {
            let url = self.world.cluster.url(0);
            Lossy::to(url.rsplit(':').next().unwrap().parse().unwrap())
        });
        let mut program = self
            .to_log(command, lossy.as_ref().map(|lossy| lossy.port))
            .env("FAILPOINTS", failpoints(place, passed, "stop"));
        let (out, err) = (self.world.host.path("out"), self.world.host.path("err"));
        let line = program.line();
        let mut child = program.spawn(File::create(&out).unwrap(), File::create(&err).unwrap());
        let stat = format!("/proc/{}/stat", child.id());
        wait::until("the place", || {
            assert!(
                child.try_wait().unwrap().is_none(),
                "it has ended: {}",
                fs::read_to_string(&err).unwrap()
            );
            let text = fs::read_to_string(&stat).unwrap();
            text.rsplit(')').next()?.trim().starts_with('T').then_some(())
        });
        match &lossy {
            Some(lossy) => lossy.lose_one(),
            None => {
                self.world.cluster.kill(0);
                self.world.cluster.start(0);
                self.world.cluster.wait_ready();
            }
        }
        kv::signal(child.id(), rustix::process::Signal::CONT);
        let status = wait::until("its end", || child.try_wait().unwrap());
        assert!(lossy.is_none_or(|lossy| lossy.has_lost()), "no acknowledgement was lost");
        Run {
            line,
            code: status.code().unwrap_or(-1),
            stdout: fs::read_to_string(&out).unwrap(),
            stderr: fs::read_to_string(&err).unwrap(),
            peak_kib: 0,
            took: std::time::Duration::ZERO,
        }
    }
}

const HEAD: &str = "| command | place | fault | ended | found | the same again |\n|---|---|---|---|---|---|";

#[test]
fn whatever_stops_a_copy_or_a_restore_to_a_database_it_is_done_by_running_it_again() {
    let stage = Stage::new();
    println!("{HEAD}");
    for command in [Command::Copy, Command::Restore] {
        for place in TO_DATABASE {
            for fault in ["kill", "io", "full"] {
                if is_picked(place.0, place.1, fault) {
                    println!("{}", stage.database_cell(command, place, fault));
                }
            }
        }
        if command == Command::Restore {
            println!("{}", stage.database_cell(command, ("restore::aside", 0), "kill"));
        }
    }
}

#[test]
fn whatever_stops_a_copy_or_a_restore_to_a_log_it_is_done_by_running_it_again() {
    let mut stage = Stage::new();
    println!("{HEAD}");
    for command in [Command::Copy, Command::Restore] {
        for place in TO_LOG {
            for fault in ["kill", "io", "full", "server", "lost"] {
                let is_there = fault != "lost" || WRITES.contains(&place);
                // Of the sample each command has a half.
                let is_its_half = (command == Command::Restore) == matches!(fault, "server" | "lost");
                if is_there && is_picked(place.0, place.1, fault) && (all() || is_its_half) {
                    println!("{}", stage.log_cell(command, place, fault));
                }
            }
        }
    }
}

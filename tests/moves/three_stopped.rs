//! `copy` and `restore` into the log of three nodes that serve, while the tool, a daemon or a nats-server is killed at a
//! step: nobody ever serves a part, and the same command run again ends proven. Printed as a table.

use std::fs::{self, File};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use unibus_tests::http::{self, Request};
use unibus_tests::{Daemon, Program, Run, World, kv, wait};

/// Steps of the way into a log; the second batch, where there are several.
const PLACES: [&str; 7] = [
    "import::opened",
    "import::batch",
    "import::batched",
    "import::floor",
    "import::close",
    "import::closed",
    "fill::read_back",
];
const USERS: usize = 600;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Command {
    Copy,
    Restore,
}

/// Who is killed; those of the first node are those that the tool talks to.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Killed {
    Tool,
    Daemon,
    Server,
    OtherDaemon,
    OtherServer,
    /// The tool, and all daemons: they start with a part of the import.
    Everybody,
}

const ALL: [Killed; 6] = [
    Killed::Tool,
    Killed::Daemon,
    Killed::Server,
    Killed::OtherDaemon,
    Killed::OtherServer,
    Killed::Everybody,
];
/// What runs always.
const SAMPLE: [(Command, &str, Killed); 4] = [
    (Command::Copy, "import::batched", Killed::Everybody),
    (Command::Copy, "import::batch", Killed::Daemon),
    (Command::Copy, "import::closed", Killed::OtherServer),
    (Command::Restore, "import::batched", Killed::Tool),
];

/// Three nodes with an empty log, and what is to come into it.
struct Stage {
    world: World,
    wanted: Value,
}

impl Killed {
    fn is_of_the_tool(self) -> bool {
        matches!(self, Self::Tool | Self::Everybody)
    }
}

impl Stage {
    fn new() -> Self {
        let world = World::start();
        let sample = ["sample", "--users", "600", "--rooms", "60", "--out", "old.db"];
        world.migrate(0, sample).run().ok();
        fs::create_dir(world.hosts.shared("db")).unwrap();
        let here = |program: Program| program.env("UNIBUS_STATE_DIR", world.hosts.shared("db/state"));
        let sealed = ["copy", "--yes", "--from", "sqlite:old.db", "--to", "sqlcipher:db/control.db"];
        here(world.migrate(0, sealed)).run().ok();
        let wanted = here(world.migrate(0, ["status", "--json", "sqlcipher:db/control.db"]))
            .run()
            .ok()
            .json()["state_digest"]
            .clone();
        let snapshot = ["snapshot", "--from", "sqlcipher:db/control.db", "--out", "a.snapshot"];
        here(world.migrate(0, snapshot)).run().ok();
        assert!(wanted.is_string(), "{wanted}");
        Self { world, wanted }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.world.hosts.shared(name)
    }

    fn transfer(&self, command: Command) -> Program {
        let kv = format!("kv:{}", self.world.servers(0));
        match command {
            Command::Copy => {
                let words = ["copy", "--json", "--yes", "--from", "sqlcipher:db/control.db", "--to", &kv];
                let copy = self.world.migrate(0, words).option("--from-state-dir", self.file("db/state"));
                copy.option("--from-nodeset", self.file("keys/nodeset"))
            }
            Command::Restore => {
                let restore = self.world.migrate(0, ["restore", "--json", "--yes", "--to", &kv]);
                let restore = restore.option("--in", self.file("a.snapshot"));
                restore.option("--operator", self.file("keys/operator.key"))
            }
        }
    }

    /// Lets the tool stop at the place, kills somebody there, and lets it go on. A daemon is started again at once, as
    /// a service manager does it; a nats-server by its daemon.
    fn killed(&mut self, command: Command, place: &str, killed: Killed) -> Run {
        let passed = if place == "import::batch" { "1*off->" } else { "" };
        let mut program =
            self.transfer(command).env("FAILPOINTS", format!("{place}={passed}1*return(stop)->off"));
        let (out, err) = (self.file("out"), self.file("err"));
        let (line, begun) = (program.line(), Instant::now());
        let mut child = program.spawn(File::create(&out).unwrap(), File::create(&err).unwrap());
        let stat = format!("/proc/{}/stat", child.id());
        wait::until("the place", || {
            let said = || fs::read_to_string(&err).unwrap();
            assert!(child.try_wait().unwrap().is_none(), "{place}: it has ended: {}", said());
            let text = fs::read_to_string(&stat).unwrap();
            text.rsplit(')').next()?.trim().starts_with('T').then_some(())
        });
        let server = |index: usize| kv::nats_of(self.world.daemons[index].pid()).unwrap();
        match killed {
            Killed::Tool => kv::kill(child.id()),
            Killed::Daemon => self.world.kill_and_restart(0),
            Killed::Server => kv::kill(server(0)),
            Killed::OtherDaemon => self.world.kill_and_restart(1),
            Killed::OtherServer => kv::kill(server(1)),
            Killed::Everybody => {
                kv::kill(child.id());
                (0..3).for_each(|_| self.world.daemons.remove(0).kill());
                self.world.daemons = (0..3).map(|index| self.world.spawn(index)).collect();
            }
        }
        if !killed.is_of_the_tool() {
            kv::signal(child.id(), rustix::process::Signal::CONT);
        }
        let status = wait::until("its end", || child.try_wait().unwrap());
        let read = |path| fs::read_to_string(path).unwrap();
        let code = status.code().unwrap_or(-1);
        Run { line, code, stdout: read(&out), stderr: read(&err), peak_kib: 0, took: begun.elapsed() }
    }

    /// The row of the table.
    fn cell(&mut self, command: Command, place: &str, killed: Killed) -> String {
        let cell = format!("{command:?} {place} {killed:?}");
        let first = self.killed(command, place, killed);
        assert_eq!(first.code == -1, killed.is_of_the_tool(), "{cell}: {}", first.said());
        assert!([-1, 0, 2, 3].contains(&first.code), "{cell}: {}", first.said());
        if killed == Killed::Everybody && !["import::closed", "fill::read_back"].contains(&place) {
            wait::until("each to say what it waits for", || {
                let why =
                    |daemon: &Daemon| daemon.get("/healthz").ok().map(|answer| answer.json().to_string());
                let is_told = |daemon| why(daemon).is_some_and(|why| why.contains("import into this log"));
                self.world.daemons.iter().all(is_told).then_some(())
            });
        }
        let begun = Instant::now();
        let (mut again, mut is_done) = (0, first.code == 0);
        while !is_done {
            let run = self.transfer(command).run();
            again += 1;
            // Then it is all there, as the digest says below.
            let was_done = run.code == 2 && run.said().contains("UB-M002");
            assert!(was_done || [0, 3].contains(&run.code), "{cell}: {}", run.said());
            is_done = run.code == 0 || was_done;
            assert!(begun.elapsed() < Duration::from_secs(60), "{cell}: {}", run.said());
        }
        assert_eq!(self.world.wait_same_digest(), self.wanted, "{cell}");
        for index in 0..3 {
            assert_eq!(self.world.users(index).len(), USERS, "{cell}: node {index}");
        }
        let kv = format!("kv:{}", self.world.servers(2));
        self.world.migrate(2, ["verify", &kv]).run().ok();
        let took = begun.elapsed() + first.took;
        format!("| {command:?} | {place} | {killed:?} | exit {} | {again} further | {took:.1?} |", first.code)
    }
}

/// The admin sockets of the three.
struct Sockets(Vec<PathBuf>);

impl Sockets {
    fn of(world: &World) -> Self {
        Self((0..3).map(|index| world.hosts.path(index, "state/admin.sock")).collect())
    }

    /// How many users a node lists, if it answers.
    fn listed(&self, index: usize) -> Option<usize> {
        let request = Request { method: "GET", path: "/users", headers: Vec::new(), body: b"" };
        let answer = http::send_to_socket(&self.0[index], &request).ok()?;
        (answer.status == 200).then(|| answer.json().as_array().unwrap().len())
    }

    /// Asks all for their users until it is over; gives how often one answered, and what was neither none nor all.
    fn watch(&self, over: &AtomicBool) -> (u64, Vec<String>) {
        let (mut answered, mut wrong) = (0, Vec::new());
        while !over.load(Ordering::SeqCst) {
            for index in 0..3 {
                match self.listed(index) {
                    Some(0 | USERS) => answered += 1,
                    Some(count) => wrong.push(format!("node {index} lists {count} users")),
                    None => {}
                }
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        (answered, wrong)
    }
}

/// All with `UNIBUS_TEST_ALL`, some ten minutes; those with `UNIBUS_TEST_CELLS` in their name.
#[test]
fn whoever_is_killed_nobody_serves_a_part_and_it_is_done_by_running_it_again() {
    let is_whole = std::env::var_os("UNIBUS_TEST_ALL").is_some();
    let only = std::env::var("UNIBUS_TEST_CELLS").unwrap_or_default();
    println!("| command | place | killed | ended | the same again | took |\n|---|---|---|---|---|---|");
    for command in [Command::Copy, Command::Restore] {
        for place in PLACES {
            for killed in ALL {
                // Only a restore has a floor of nonces.
                let is_there = command == Command::Restore || place != "import::floor";
                let is_wanted = match is_whole {
                    true => format!("{command:?} {place} {killed:?}").contains(&only),
                    false => SAMPLE.contains(&(command, place, killed)),
                };
                if !is_there || !is_wanted {
                    continue;
                }
                let mut stage = Stage::new();
                let (sockets, over) = (Sockets::of(&stage.world), AtomicBool::new(false));
                let (row, (answered, wrong)) = std::thread::scope(|scope| {
                    let watching = scope.spawn(|| sockets.watch(&over));
                    let end = End(&over);
                    let row = stage.cell(command, place, killed);
                    drop(end);
                    (row, watching.join().unwrap())
                });
                assert!(wrong.is_empty(), "{row} {wrong:?}");
                assert!(answered > 0, "{row} nobody answered");
                println!("{row}");
            }
        }
    }
}

/// Ends the watch, also of a test that fails.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

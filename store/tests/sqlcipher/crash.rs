//! Killed in the middle, and a disk that is full: what was acknowledged is there, and what is there is whole.
//!
//! The children are this test binary itself, running one ignored test.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use unibus_keyfile::error::ErrorClass;
use unibus_keyfile::node_key::NodeKeyFile;
use unibus_store::error::StoreError;
use unibus_store::sqlcipher::{CreateOptions, Keys, NewStore, OpenError, OpenOptions, SqlcipherStore};
use unibus_store::store::{Actor, Store, Strength};

use super::fixture::{Site, names, now, overwrite, records, sign_pub, tree, user};

const DATA: &str = "UNIBUS_TEST_DATA";
const STATE: &str = "UNIBUS_TEST_STATE";
const FROM: &str = "UNIBUS_TEST_FROM";

/// The command that runs one ignored test of this binary on a site; its key file lies outside of data and state.
fn child(site: &Site, test: &str, from: u32, limit: Option<u64>) -> Command {
    use std::os::unix::fs::PermissionsExt;
    let key = site.folder.path().join("alpha.key");
    overwrite(&key, site.own.to_text().as_bytes());
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    let exe = std::env::current_exe().unwrap();
    let mut command = match limit {
        None => Command::new(exe),
        Some(blocks) => {
            // A write over the limit then fails with EFBIG instead of a signal.
            let mut shell = Command::new("sh");
            shell.args(["-c", &format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$@\""), "sh"]).arg(exe);
            shell
        }
    };
    command.args([
        "--exact",
        &format!("sqlcipher::crash::{test}"),
        "--ignored",
        "--nocapture",
        "--test-threads=1",
    ]);
    command.env(DATA, &site.data).env(STATE, &site.state).env(FROM, from.to_string());
    command.stdout(Stdio::piped()).stderr(Stdio::null());
    command
}

fn variable(name: &str) -> String {
    std::env::var(name).expect("only run as a child")
}

fn own_key() -> Arc<NodeKeyFile> {
    let data = variable(DATA);
    let folder = Path::new(&data).parent().unwrap();
    Arc::new(NodeKeyFile::load(&folder.join("alpha.key")).unwrap())
}

fn open_as_child() -> SqlcipherStore {
    let db = Path::new(&variable(DATA)).join("control.db");
    let options = OpenOptions::new(&db, Keys::Node(own_key()), now()).state_dir(Path::new(&variable(STATE)));
    SqlcipherStore::open(&options).unwrap()
}

#[test]
#[ignore = "run by other tests as a process of its own"]
fn child_that_writes_until_it_is_killed() {
    let from: u32 = variable(FROM).parse().unwrap();
    let store = Arc::new(open_as_child());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    runtime.block_on(async {
        let writers: Vec<_> = (0..4)
            .map(|lane| {
                let store = Arc::clone(&store);
                tokio::spawn(async move {
                    for number in (from + lane..).step_by(4) {
                        match store.add_user(Actor::Operator, user(number)).await {
                            // One call of write(2) a line, so that no line is half there.
                            Ok(()) => println!("ack {number}"),
                            Err(error) => {
                                println!("error {:?} {error}", error.class());
                                return;
                            }
                        }
                    }
                })
            })
            .collect();
        for writer in writers {
            writer.await.unwrap();
        }
    });
}

#[test]
#[ignore = "run by other tests as a process of its own"]
fn child_that_makes_a_store() {
    let db = Path::new(&variable(DATA)).join("control.db");
    let options = CreateOptions::new(&db, own_key(), now()).state_dir(Path::new(&variable(STATE)));
    println!("ack 0");
    let mut new = NewStore::begin(options).unwrap();
    for bytes in &records(variable(FROM).parse().unwrap()) {
        if let Err(error) = new.push(bytes) {
            println!("error {:?} {error}", error.class());
            return;
        }
    }
    match new.finish() {
        Ok(_) => println!("done"),
        Err(error) => println!("error {:?} {error}", error.class()),
    }
}

/// Kills the child after some time and gives the numbers it has acknowledged.
fn killed_after(mut child: Child, delay: Duration) -> Vec<u32> {
    let output = child.stdout.take().unwrap();
    let lines =
        std::thread::spawn(move || BufReader::new(output).lines().map_while(Result::ok).collect::<Vec<_>>());
    wait(delay);
    child.kill().unwrap();
    child.wait().unwrap();
    lines.join().unwrap().iter().filter_map(|line| line.strip_prefix("ack ")?.parse().ok()).collect()
}

#[expect(clippy::disallowed_methods, reason = "the moment of a kill is a time, not a condition")]
fn wait(delay: Duration) {
    std::thread::sleep(delay);
}

async fn all_there(site: &Site, acknowledged: &[u32]) {
    let store = site.open().unwrap();
    for &number in acknowledged {
        assert!(
            store.is_authorized(sign_pub(number), Strength::Local).await,
            "user {number} was acknowledged"
        );
    }
    let report = store.verify().unwrap();
    // Users that were committed and not acknowledged any more may be there too, one for each that waited.
    let users = report.census.users;
    let wanted = u64::try_from(acknowledged.len()).unwrap() + 20;
    assert!(users >= wanted, "{users} users, {wanted} acknowledged");
    assert_eq!(report.position.sequence.0, users - 20 + 1);
}

#[tokio::test]
async fn what_was_acknowledged_before_a_kill_is_there() {
    let site = Site::with_store(20);
    let (mut acknowledged, mut from) = (Vec::new(), 1000);
    for round in 0..6_u64 {
        let started = child(&site, "child_that_writes_until_it_is_killed", from, None).spawn().unwrap();
        let numbers = killed_after(started, Duration::from_millis(400 + 97 * round));
        acknowledged.extend(numbers);
        from += 100_000;
        all_there(&site, &acknowledged).await;
    }
    assert!(acknowledged.len() > 50, "only {} writes in all rounds", acknowledged.len());
}

#[tokio::test]
async fn a_full_disk_loses_no_acknowledged_write() {
    let site = Site::with_store(20);
    // In blocks of 512 bytes: room for some frames of the log.
    let mut child = child(&site, "child_that_writes_until_it_is_killed", 1000, Some(600)).spawn().unwrap();
    let lines: Vec<String> =
        BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok).collect();
    assert!(child.wait().unwrap().success());
    let acknowledged: Vec<u32> =
        lines.iter().filter_map(|line| line.strip_prefix("ack ")?.parse().ok()).collect();
    let errors = lines.iter().filter(|line| line.starts_with("error ")).count();
    assert!(acknowledged.len() > 5 && errors == 4, "{} acknowledged, {errors} refused", acknowledged.len());
    all_there(&site, &acknowledged).await;
}

/// A file system with little room, mounted over the data folder; none where that is not allowed.
struct SmallDisk<'s>(&'s Path);

impl<'s> SmallDisk<'s> {
    fn mount(folder: &'s Path) -> Option<Self> {
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"]).arg(folder).output();
        mounted.is_ok_and(|output| output.status.success()).then_some(Self(folder))
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        drop(Command::new("umount").arg(self.0).output());
    }
}

#[tokio::test]
async fn a_store_goes_on_when_there_is_room_again() {
    let site = Site::new();
    let nodeset = std::fs::read(&site.nodeset).unwrap();
    let Some(_disk) = SmallDisk::mount(&site.data) else {
        println!("not run: mounting a small file system is not allowed here");
        return;
    };
    overwrite(&site.nodeset, &nodeset);
    let ballast = site.data.join("ballast");
    overwrite(&ballast, &vec![0; 400 * 1024]);
    site.create(&records(20));
    let store = site.open().unwrap();
    let mut refused = None;
    let mut added = 0;
    for number in 1000..4000 {
        match store.add_user(Actor::Operator, user(number)).await {
            Ok(()) => added += 1,
            Err(error) => {
                refused = Some(error);
                break;
            }
        }
    }
    let refused = refused.expect("the disk has 1 MiB");
    assert!(matches!(refused, StoreError::Unavailable { why: "the disk is full" }), "{refused:?}");
    assert_eq!(store.position().unwrap().sequence.0, added + 1);
    std::fs::remove_file(&ballast).unwrap();
    store.add_user(Actor::Operator, user(9000)).await.unwrap();
    assert_eq!(store.verify().unwrap().census.users, added + 21);
    drop(store);
    assert_eq!(site.open().unwrap().position().unwrap().sequence.0, added + 2);
}

#[test]
fn a_store_does_not_take_its_name_on_a_full_disk() {
    let site = Site::new();
    let mut child = child(&site, "child_that_makes_a_store", 3000, Some(600)).spawn().unwrap();
    let lines: Vec<String> =
        BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok).collect();
    assert!(child.wait().unwrap().success());
    assert!(lines.iter().any(|line| line.starts_with("error ")), "{lines:?}");
    assert_eq!(site.open().unwrap_err().class(), ErrorClass::NotFound);
    assert_eq!(names(&tree(&site.data)).len(), 2, "{:?}", names(&tree(&site.data)));
    site.create(&records(3));
}

#[test]
fn a_creation_killed_at_any_time_is_nothing_or_all() {
    let users = 4000;
    let whole = {
        let site = Site::new();
        let started = Instant::now();
        let output = child(&site, "child_that_makes_a_store", users, None).output().unwrap();
        assert!(String::from_utf8_lossy(&output.stdout).contains("done"));
        started.elapsed()
    };
    let (mut nothing, mut all) = (0, 0);
    for round in 0..12_u32 {
        let site = Site::new();
        let started = child(&site, "child_that_makes_a_store", users, None).spawn().unwrap();
        killed_after(started, whole * (round + 1) / 12);
        match site.open() {
            Ok(store) => {
                all += 1;
                assert_eq!(store.verify().unwrap().census.users, u64::from(users));
            }
            Err(error) => {
                nothing += 1;
                assert!(matches!(error, OpenError::NothingThere { .. }), "{error:?}");
                site.create(&records(3));
            }
        }
        let left: Vec<_> =
            names(&tree(&site.data)).into_iter().filter(|(name, _)| name.contains("new")).collect();
        assert!(left.is_empty(), "{left:?}");
    }
    println!("killed {nothing} times before and {all} times after the store was there");
    assert!(nothing > 0);
}

//! What encryption costs: each workload with a key and without, in the same library, over the same schema.
//!
//! Each side is a process of its own, because some settings of SQLCipher hold for a whole process: a store in service
//! wipes and locks all of SQLite's memory, an import and a proof do not. Sides take turns, and the ratio is the median
//! over the turns: absolute times move with the machine's other work, ratios of neighbours hardly do. Time is that of
//! the processor, so that the machine's other work does not count; of a commit it is what passes, disk included.
//! `--smoke` (also the default under `cargo test`) only shows that it runs.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::as_conversions,
    clippy::indexing_slicing,
    reason = "a bench prints a table, and stops at the first error"
)]

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use aes::Aes256;
use aes::cipher::{BlockCipherDecrypt, KeyInit};
use hmac::{Hmac, Mac};
use rusqlite::Connection;
use unibus_keyfile::digest::{StateDigest, StateHasher};
use unibus_keyfile::secret::StateKey;
use unibus_store::domain::ImportOrder;
use unibus_store::record::{Handle, RecordBytes, SignPub, Timestamp, User, UserRole};

const PAGE_BYTES: usize = 4096;
/// Bytes of a user's handle.
const HANDLE_BYTES: usize = 24;

/// How much work a turn is.
#[derive(Clone, Copy)]
struct Size {
    rows: u32,
    reads: u32,
    commits: u32,
    scans: u32,
    opens: u32,
    turns: usize,
}

const FULL: Size = Size { rows: 50_000, reads: 50_000, commits: 100, scans: 5, opens: 500, turns: 15 };
const SMOKE: Size = Size { rows: 500, reads: 200, commits: 3, scans: 1, opens: 2, turns: 2 };

/// What is timed, by which keyed side, and the least ratio of speed, with a key to without, that is wanted.
const WORKLOADS: [(&str, usize, Option<f64>); 6] = [
    ("cached point read", SERVING, Some(0.95)),
    ("durable single-row commit", SERVING, Some(0.75)),
    ("bulk import of records", KEYED, Some(0.9)),
    ("cold scan", KEYED, None),
    ("open and first read", KEYED, None),
    ("bulk import, rows alone", KEYED, None),
];

const SIDES: [&str; 3] = ["plain", "keyed", "serving"];
const PLAIN: usize = 0;
const KEYED: usize = 1;
const SERVING: usize = 2;

/// Processor time of this thread.
fn processor_time() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(text.split(' ').next().unwrap().parse().unwrap())
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
    if has("--list") {
        return;
    }
    let size = if has("--bench") && !has("--smoke") { FULL } else { SMOKE };
    match arguments.iter().position(|argument| argument == "--side") {
        Some(at) => side(&arguments[at + 1], Path::new(&arguments[at + 2]), size),
        None => compare(size),
    }
}

/// One side's process, and how it is spoken to.
struct Side {
    child: Child,
    ask: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Side {
    fn start(name: &str, folder: &Path, size: Size) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--side", name]).arg(folder);
        command.arg(if size.rows == FULL.rows { "--bench" } else { "--smoke" });
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (ask, answers) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        Self { child, ask, answers }
    }

    fn time(&mut self, workload: usize) -> f64 {
        writeln!(self.ask, "{workload}").unwrap();
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        line.trim().parse().unwrap()
    }

    fn end(mut self) {
        drop(self.ask);
        self.child.wait().unwrap();
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn compare(size: Size) {
    let folder = tempfile::tempdir().unwrap();
    let mut sides = SIDES.map(|name| Side::start(name, folder.path(), size));
    println!("SQLCipher against the same library without a key; {} rows, {} turns", size.rows, size.turns);
    println!("{:<28}{:>14}{:>14}{:>9}{:>9}", "", "no key ns", "key ns", "speed", "wanted");
    let mut scans = (0.0, 0.0);
    for (workload, (name, with_key, wanted)) in WORKLOADS.iter().enumerate() {
        let (mut plain, mut keyed, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        for turn in 0..size.turns {
            // Who goes first takes turns too.
            let order = if turn % 2 == 0 { [PLAIN, *with_key] } else { [*with_key, PLAIN] };
            let mut times = [0.0; SIDES.len()];
            for side in order {
                times[side] = sides[side].time(workload);
            }
            let (without, with) = (times[PLAIN], times[*with_key]);
            plain.push(without);
            keyed.push(with);
            ratios.push(without / with);
        }
        let (plain, keyed) = (median(plain), median(keyed));
        if *name == "cold scan" {
            scans = (plain, keyed);
        }
        let wanted = wanted.map_or_else(String::new, |wanted| format!("{wanted:.2}"));
        println!("{name:<28}{plain:>14.0}{keyed:>14.0}{:>9.2}{wanted:>9}", median(ratios));
    }
    sides.into_iter().for_each(Side::end);
    floor(size, scans, &folder.path().join("keyed.db"));
}

/// What the cryptography of a page costs at least: one AES-256-CBC and one HMAC-SHA-256 over it.
fn floor(size: Size, (plain, keyed): (f64, f64), database: &Path) {
    let pages = std::fs::metadata(database).unwrap().len() / PAGE_BYTES as u64;
    let one = || page_floor(pages * u64::from(size.scans)) / f64::from(size.rows * size.scans);
    let floor = median((0..size.turns).map(|_| one()).collect());
    println!(
        "{:<28}{:>14}{floor:>14.0}   one AES-256-CBC and HMAC-SHA-256 a page, {pages} pages",
        "floor of the scan", ""
    );
    let extra = keyed - plain;
    println!(
        "{:<28}{:>14}{:>14.2}   times the floor; wanted: at most 1.5",
        "scan: what the key adds",
        "",
        extra / floor
    );
}

fn page_floor(pages: u64) -> f64 {
    let cipher = Aes256::new(&[7; 32].into());
    let mac = <Hmac<sha2::Sha256> as KeyInit>::new_from_slice(&[9; 32]).unwrap();
    let sealed = [0x3c_u8; PAGE_BYTES];
    let started = processor_time();
    for _ in 0..pages {
        let mut tag = mac.clone();
        tag.update(&sealed);
        std::hint::black_box(tag.finalize());
        let mut blocks: Vec<aes::Block> =
            sealed.chunks_exact(16).map(|block| <[u8; 16]>::try_from(block).unwrap().into()).collect();
        cipher.decrypt_blocks(&mut blocks);
        for (block, before) in blocks.iter_mut().zip(sealed.chunks_exact(16)) {
            block.iter_mut().zip(before).for_each(|(byte, other)| *byte ^= other);
        }
        std::hint::black_box(&blocks);
    }
    nanos(processor_time() - started)
}

fn nanos(elapsed: Duration) -> f64 {
    elapsed.as_nanos() as f64
}

/// A side: answers each line, the number of a workload, with nanoseconds for one of its units.
fn side(name: &str, folder: &Path, size: Size) {
    let side = Arm {
        is_keyed: name != "plain",
        is_serving: name == "serving",
        database: folder.join(format!("{name}.db")),
        size,
    };
    side.import(Import::Rows);
    let serving = side.open(262_144);
    serving.execute_batch("PRAGMA synchronous = FULL").unwrap();
    let mut counter = size.rows;
    for line in std::io::stdin().lines() {
        let per_unit = match line.unwrap().trim() {
            "0" => side.point_reads(&serving),
            "1" => side.commits(&serving, &mut counter),
            "2" => side.import(Import::Records),
            "3" => side.scan(),
            "4" => side.opens(),
            _ => side.import(Import::Rows),
        };
        println!("{per_unit}");
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Import {
    Rows,
    Records,
}

/// A user's record, with a handle of the usual length.
fn user(key: [u8; 32]) -> RecordBytes {
    let handle = Handle::parse(&"h".repeat(HANDLE_BYTES)).unwrap();
    let at = Timestamp::from_micros(1_800_000_000_000_000).unwrap();
    User::new(SignPub::from_bytes(key).unwrap(), handle, UserRole::Member, at).encode()
}

struct Arm {
    is_keyed: bool,
    is_serving: bool,
    database: PathBuf,
    size: Size,
}

/// The tables of a store, as its specification has them.
fn schema() -> &'static str {
    let spec = include_str!("../SPEC.md");
    spec.split("```sql\n").nth(1).unwrap().split("```").next().unwrap()
}

/// Numbers to keys all over the range, the same each time.
fn key_of(number: u32) -> [u8; 32] {
    let mut key = [0; 32];
    for (at, part) in key.chunks_exact_mut(4).enumerate() {
        let mixed = number.wrapping_mul(0x9e37_79b1).rotate_left(at as u32 * 5)
            ^ (at as u32).wrapping_mul(0x85eb_ca6b);
        part.copy_from_slice(&mixed.to_be_bytes());
    }
    key
}

impl Arm {
    fn open_at(&self, path: &Path, cache_kib: u32) -> Connection {
        let connection = Connection::open(path).unwrap();
        if self.is_keyed {
            let key = "5a".repeat(32);
            if self.is_serving {
                connection.execute_batch("PRAGMA cipher_memory_security = ON").unwrap();
            }
            let text = format!("PRAGMA key = \"x'{key}'\"; PRAGMA cipher_hmac_algorithm = HMAC_SHA256");
            connection.execute_batch(&text).unwrap();
        }
        let text = format!(
            "PRAGMA cache_size = -{cache_kib}; PRAGMA secure_delete = ON; PRAGMA cell_size_check = ON"
        );
        connection.execute_batch(&text).unwrap();
        connection
    }

    fn open(&self, cache_kib: u32) -> Connection {
        self.open_at(&self.database, cache_kib)
    }

    /// Makes a database as a new store is made: one transaction, no syncs, sorted. Of records, each is also decoded and
    /// hashed, as [`unibus_store::sqlcipher::NewStore`] does.
    fn import(&self, import: Import) -> f64 {
        let is_first = !self.database.exists();
        let path = if is_first { self.database.clone() } else { self.database.with_extension("import") };
        drop(std::fs::remove_file(&path));
        let mut keys: Vec<[u8; 32]> = (0..self.size.rows).map(key_of).collect();
        keys.sort_unstable();
        let records: Vec<RecordBytes> = keys.iter().map(|key| user(*key)).collect();
        let hasher = StateHasher::new(&StateKey::init_with(|key| key.fill(1)));
        let (mut order, mut digest) = (ImportOrder::default(), StateDigest::EMPTY);
        let started = processor_time();
        let connection = self.open_at(&path, 32_768);
        connection.execute_batch("PRAGMA journal_mode = MEMORY; PRAGMA synchronous = OFF").unwrap();
        connection.execute_batch(schema()).unwrap();
        connection.execute_batch("BEGIN").unwrap();
        let insert = "INSERT INTO users (sign_pub, body) VALUES (?1, ?2)";
        for (key, record) in keys.iter().zip(&records) {
            let mut statement = connection.prepare_cached(insert).unwrap();
            if import == Import::Records {
                order.accept(record).unwrap();
                digest.add(&hasher.hash(record.as_bytes()));
            }
            statement.execute((key, record.body())).unwrap();
        }
        let meta =
            "INSERT INTO meta VALUES (1, 1, zeroblob(32), zeroblob(16), 1, 0, zeroblob(32), zeroblob(32), 0)";
        connection.execute_batch(meta).unwrap();
        connection.execute_batch("COMMIT").unwrap();
        let elapsed = nanos(processor_time() - started);
        connection.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(())).unwrap();
        std::hint::black_box(digest);
        elapsed / f64::from(self.size.rows)
    }

    fn point_reads(&self, connection: &Connection) -> f64 {
        let mut statement = connection.prepare_cached("SELECT body FROM users WHERE sign_pub = ?1").unwrap();
        let mut read = |number: u32| {
            let length = statement.query_row([key_of(number)], |row| Ok(row.get_ref(0)?.as_blob()?.len()));
            assert!(length.unwrap() > HANDLE_BYTES);
        };
        // Warms the cache.
        (0..self.size.rows).step_by(7).for_each(&mut read);
        let started = processor_time();
        for turn in 0..self.size.reads {
            read(turn.wrapping_mul(2_654_435_761) % self.size.rows);
        }
        nanos(processor_time() - started) / f64::from(self.size.reads)
    }

    fn commits(&self, connection: &Connection, counter: &mut u32) -> f64 {
        let mut times = Vec::new();
        for _ in 0..self.size.commits {
            *counter += 1;
            let key = key_of(*counter);
            let started = Instant::now();
            connection.execute_batch("BEGIN IMMEDIATE").unwrap();
            let insert = "INSERT INTO users (sign_pub, body) VALUES (?1, ?2)";
            connection.prepare_cached(insert).unwrap().execute((key, [1; 2 * HANDLE_BYTES])).unwrap();
            let advance = "UPDATE meta SET sequence = sequence + 1, state_digest = ?1 WHERE id = 1";
            connection.prepare_cached(advance).unwrap().execute([key]).unwrap();
            connection.execute_batch("COMMIT").unwrap();
            times.push(nanos(started.elapsed()));
        }
        median(times)
    }

    fn scan(&self) -> f64 {
        let started = processor_time();
        for _ in 0..self.size.scans {
            let connection = self.open(16_384);
            let mut statement =
                connection.prepare("SELECT sign_pub, body FROM users ORDER BY sign_pub").unwrap();
            let mut rows = statement.query([]).unwrap();
            let mut bytes = 0;
            while let Some(row) = rows.next().unwrap() {
                bytes += row.get_ref(1).unwrap().as_blob().unwrap().len();
            }
            assert!(bytes >= HANDLE_BYTES * self.size.rows as usize);
        }
        nanos(processor_time() - started) / f64::from(self.size.rows * self.size.scans)
    }

    fn opens(&self) -> f64 {
        let started = processor_time();
        for _ in 0..self.size.opens {
            let connection = self.open(16_384);
            let count: i64 = connection.query_row("SELECT count(*) FROM meta", [], |row| row.get(0)).unwrap();
            assert_eq!(count, 1);
        }
        nanos(processor_time() - started) / f64::from(self.size.opens)
    }
}

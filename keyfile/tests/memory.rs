//! What is left in memory when keys are dropped. The allocator of this test looks into every block that is freed;
//! values on the stack are read after their drop. Each check has a control that must find something.

#![cfg(test)]
#![expect(unsafe_code, reason = "reads memory after drop, and is an allocator")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    mem::MaybeUninit,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering::SeqCst},
    },
};

use hkdf::Hkdf;
use sha2::Sha256;
use unibus_keyfile::{
    derive,
    digest::StateHasher,
    id::{ClusterId, Epoch, Lineage, UnixTime},
    key_text,
    keyring::{CarriedOver, Keyring},
    name::Blinder,
    node_key::NodeKeyFile,
    nodeset::Plan,
    operator_key::{ExtraRecoveryKey, OperatorKey},
    seal::Sealer,
    secret::{BlobKey, EpochKey, Seed, SnapshotKey, StateKey},
    stream::{ChunkOpener, ChunkSealer},
    suite::{Signature25519, WrappingKey},
    witness::WitnessSealer,
};
use zeroize::Zeroizing;

const CLUSTER: ClusterId = ClusterId::from_bytes([9; 32]);
const NOW: UnixTime = UnixTime::from_seconds(1_800_000_000);

// ---- an allocator that looks into freed blocks

static WATCHED: [AtomicU8; 32] = [const { AtomicU8::new(0) }; 32];
static WATCHING: AtomicBool = AtomicBool::new(false);
static FOUND: AtomicUsize = AtomicUsize::new(0);
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

struct Looking;

/// Half of a key is as bad as the whole: any 16 bytes of it count.
fn look_into(block: *const u8, length: usize) {
    if !WATCHING.load(SeqCst) || length < 16 {
        return;
    }
    let mut key = [0; 32];
    for (to, from) in key.iter_mut().zip(&WATCHED) {
        *to = from.load(SeqCst);
    }
    // SAFETY: the block is still allocated, and its bytes are only compared.
    let bytes = unsafe { core::slice::from_raw_parts(block, length) };
    let halves = [&key[..16], &key[16..]];
    if bytes.windows(16).any(|window| halves.contains(&window)) {
        FOUND.fetch_add(1, SeqCst);
    }
}

// SAFETY: all work is the system allocator's; blocks are read before they are given back.
unsafe impl GlobalAlloc for Looking {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // Zeroed, so that reading a block that was never filled is reading of defined bytes.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        look_into(block, layout.size());
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Looking = Looking;

struct Watch(#[expect(dead_code, reason = "held")] MutexGuard<'static, ()>);

impl Watch {
    /// Looks for this key in every block that is freed from here on.
    fn of(key: &[u8; 32]) -> Self {
        let guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        for (to, from) in WATCHED.iter().zip(key) {
            to.store(*from, SeqCst);
        }
        FOUND.store(0, SeqCst);
        WATCHING.store(true, SeqCst);
        Self(guard)
    }

    fn found(self) -> usize {
        WATCHING.store(false, SeqCst);
        FOUND.load(SeqCst)
    }
}

fn pattern(seed: u8) -> [u8; 32] {
    core::array::from_fn(|i| seed.wrapping_add(u8::try_from(i).unwrap().wrapping_mul(37)))
}

fn expand(salt: &[u8], key: &[u8; 32], label: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    Hkdf::<Sha256>::new(Some(salt), key).expand(label, &mut out).unwrap();
    out
}

#[test]
fn the_allocator_finds_a_key_that_is_not_wiped() {
    let key = pattern(1);
    let watch = Watch::of(&key);
    drop(Box::new(key));
    drop(key[..20].to_vec());
    let mut growing = key.to_vec();
    growing.reserve_exact(100_000);
    drop(Zeroizing::new(growing));
    assert!(watch.found() >= 2, "control");
}

#[test]
fn secrets_leave_nothing_on_the_heap() {
    let key = pattern(2);
    let watch = Watch::of(&key);
    macro_rules! each { ($($secret:ident)*) => { $( drop($secret::init_with(|out| *out = key)); )* } }
    each!(Seed EpochKey StateKey BlobKey SnapshotKey);
    assert_eq!(watch.found(), 0);
}

#[test]
fn derived_keys_leave_nothing_on_the_heap() {
    let epoch = EpochKey::init_with(|out| *out = pattern(3));
    let watch = Watch::of(&expand(CLUSTER.as_bytes(), &pattern(3), derive::EPOCH_SQLCIPHER));
    drop(derive::database_key(&epoch, &CLUSTER));
    assert_eq!(watch.found(), 0);
    let watch = Watch::of(&expand(CLUSTER.as_bytes(), &pattern(3), derive::EPOCH_RECORD));
    drop(Box::new(Sealer::new(Epoch::FIRST, &epoch, &CLUSTER)));
    assert_eq!(watch.found(), 0);
}

#[test]
fn a_key_file_that_was_read_and_written_leaves_no_seed() {
    let own = NodeKeyFile::generate("alpha".parse().unwrap(), CLUSTER);
    let text = own.to_text();
    let line = text.lines().find(|line| line.starts_with("UNIBUS")).unwrap();
    let payload = key_text::decode(key_text::NODE_PREFIX, line).unwrap();
    let seed: [u8; 32] = payload[33..65].try_into().unwrap();
    let watch = Watch::of(&seed);
    let again = NodeKeyFile::parse(&text).unwrap();
    drop(again.to_text());
    let key = &again.slots()[0];
    drop((key.signing(), key.wrapping(), key.local_key(), WitnessSealer::new(key)));
    drop(again);
    assert_eq!(watch.found(), 0);

    // Nor its text.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("alpha.key");
    unibus_keyfile::durable::create_new(&path, text.as_bytes(), 0o600).unwrap();
    let watch = Watch::of(line.as_bytes()[60..92].try_into().unwrap());
    drop(NodeKeyFile::load(&path).unwrap());
    drop(unibus_keyfile::provider::KeySource::Command(format!("cat '{}'", path.display())).load().unwrap());
    drop(own.to_text());
    assert_eq!(watch.found(), 0);
}

#[test]
fn operator_and_recovery_keys_leave_no_seed() {
    let operator = OperatorKey::generate();
    let clear = operator.to_text(None).unwrap();
    let line = clear.lines().find(|line| line.starts_with("UNIBUS")).unwrap();
    let payload = key_text::decode(key_text::OPERATOR_PREFIX, line).unwrap();
    let watch = Watch::of(payload[1..33].try_into().unwrap());
    let locked = operator.to_text(Some("correct horse")).unwrap();
    drop(OperatorKey::parse(&locked, || Some(Zeroizing::new("correct horse".into()))).unwrap());
    drop(OperatorKey::parse(&clear, || None).unwrap());
    drop(operator);
    assert_eq!(watch.found(), 0);

    let recovery = ExtraRecoveryKey::generate();
    let text = recovery.to_text();
    let line = text.lines().find(|line| line.starts_with("UNIBUS")).unwrap();
    let payload = key_text::decode(key_text::RECOVERY_PREFIX, line).unwrap();
    let watch = Watch::of(payload[1..33].try_into().unwrap());
    drop(ExtraRecoveryKey::parse(&text).unwrap());
    drop(recovery);
    assert_eq!(watch.found(), 0);
}

#[test]
fn making_and_unlocking_a_keyring_leaves_no_secret() {
    let operator = OperatorKey::generate();
    let own = NodeKeyFile::generate("alpha".parse().unwrap(), operator.cluster_id());
    let nodeset = Plan::first(&operator).with_node(own.member(NOW)).sign(&operator).unwrap();
    let key = pattern(4);
    let watch = Watch::of(&key);
    let carried = CarriedOver { state: StateKey::init_with(|out| *out = key), last_epoch: Epoch::FIRST };
    let (keyring, secrets) = Keyring::create(&nodeset, &own, Lineage::random(), Some(carried), NOW).unwrap();
    drop(secrets);
    drop(keyring.unlock(&own).unwrap());
    drop(keyring.unlock_with_recovery(&operator).unwrap());
    assert_eq!(watch.found(), 0);
}

// ---- values that keep a key schedule in themselves

/// The bytes of a value before and after its drop.
fn before_and_after<T>(value: T) -> (Vec<u8>, Vec<u8>) {
    let mut place = MaybeUninit::new(value);
    let bytes = |place: &MaybeUninit<T>| {
        let start = place.as_ptr().cast::<u8>();
        // SAFETY: the place is ours and as long as `T`; volatile reads see what is there.
        (0..size_of::<T>()).map(|i| unsafe { start.add(i).read_volatile() }).collect::<Vec<u8>>()
    };
    let before = bytes(&place);
    // SAFETY: it was initialised above, and is not used as a `T` again.
    unsafe { place.assume_init_drop() };
    (before, bytes(&place))
}

/// How many bytes that were not zero are still there.
fn left(before: &[u8], after: &[u8]) -> usize {
    before.iter().zip(after).filter(|(before, after)| **before != 0 && before == after).count()
}

fn contains(bytes: &[u8], key: &[u8]) -> bool {
    bytes.windows(key.len()).any(|window| window == key)
}

#[test]
fn a_value_that_is_not_wiped_is_found_after_its_drop() {
    struct NotWiped(#[expect(dead_code, reason = "only its bytes are read")] [u8; 480]);
    let (before, after) = before_and_after(NotWiped([7; 480]));
    assert_eq!(left(&before, &after), 480, "control");
}

#[test]
fn key_schedules_and_keyed_states_are_wiped() {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let epoch = EpochKey::generate();
    let chunk = derive::blob_chunk_key(&BlobKey::generate());
    let own = NodeKeyFile::generate("alpha".parse().unwrap(), CLUSTER);
    // What may be left is public: the epoch, the fingerprint, where an AAD lay, and padding.
    let cases = [
        ("Sealer", before_and_after(Sealer::new(Epoch::FIRST, &epoch, &CLUSTER)), 240, 4),
        ("WitnessSealer", before_and_after(WitnessSealer::new(&own.slots()[0])), 480, 16),
        ("ChunkSealer", before_and_after(ChunkSealer::new(&chunk, b"")), 480, 32),
        ("ChunkOpener", before_and_after(ChunkOpener::new(&chunk, b"")), 480, 32),
        ("StateHasher", before_and_after(StateHasher::new(&StateKey::generate())), 100, 0),
        ("Blinder", before_and_after(Blinder::new(&epoch, &CLUSTER)), 100, 0),
    ];
    for (name, (before, after), size, public) in cases {
        assert!(before.len() >= size, "{name} keeps its state in itself: {}", before.len());
        assert!(before.iter().filter(|byte| **byte != 0).count() > public + 32, "{name} holds something");
        assert!(left(&before, &after) <= public, "{name}: {} bytes left", left(&before, &after));
    }
}

#[test]
fn the_direct_dependencies_on_aes_polyval_hmac_and_sha2_are_what_wipes() {
    // Fails when one of them loses its feature `zeroize`: nothing else asks for it.
    use hmac::{Hmac, KeyInit};
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let key = pattern(5);
    let half: [u8; 16] = key[..16].try_into().unwrap();
    let cases = [
        ("aes", before_and_after(aes::Aes256::new((&key).into()))),
        ("polyval", before_and_after(polyval::Polyval::new((&half).into()))),
        ("hmac", before_and_after(Hmac::<Sha256>::new_from_slice(&key).unwrap())),
        ("hkdf", before_and_after(Hkdf::<Sha256>::new(None, &key))),
        ("aes-gcm-siv", before_and_after(aes_gcm_siv::Aes256GcmSiv::new((&key).into()))),
    ];
    for (name, (before, after)) in cases {
        assert!(before.iter().any(|byte| *byte != 0), "{name}");
        assert_eq!(left(&before, &after), 0, "{name}");
    }
}

#[test]
fn private_keys_are_wiped_and_only_their_public_half_stays() {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let seed = Seed::init_with(|out| *out = pattern(6));
    let secret = expand(&[], &pattern(6), derive::NODE_SIGN);
    let (before, after) = before_and_after(Signature25519::derive(&seed, derive::NODE_SIGN));
    assert!(contains(&before, &secret), "control");
    assert!(!contains(&after, &secret[..8]));
    let secret = expand(&[], &pattern(6), derive::NODE_WRAP);
    let (before, after) = before_and_after(WrappingKey::derive(&seed, derive::NODE_WRAP));
    assert!(contains(&before, &secret), "control");
    assert!(!contains(&after, &secret[..8]));
}

// ---- pages, core files, tracing

fn locked_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmLck:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn pages_are_locked_while_a_secret_lies_in_them() {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    if rustix::process::getrlimit(rustix::process::Resource::Memlock).current == Some(0) {
        return;
    }
    let before = locked_kib();
    let secrets: Vec<SnapshotKey> = (0..1000).map(|_| SnapshotKey::generate()).collect();
    let during = locked_kib();
    assert!(during > before, "{before} KiB, then {during} KiB");
    let (first, rest) = (SnapshotKey::generate(), secrets);
    drop(rest);
    assert!(locked_kib() > before, "one secret is still there");
    drop(first);
    assert_eq!(locked_kib(), before);
}

#[test]
#[ignore = "the test below runs it as a child process: it cannot be undone"]
fn hardened_child() {
    use rustix::process::{DumpableBehavior, Resource, dumpable_behavior, getrlimit};
    assert_eq!(dumpable_behavior().unwrap(), DumpableBehavior::Dumpable, "control");
    unibus_keyfile::hygiene::harden_process().unwrap();
    assert_eq!(dumpable_behavior().unwrap(), DumpableBehavior::NotDumpable);
    let core = getrlimit(Resource::Core);
    assert_eq!((core.current, core.maximum), (Some(0), Some(0)));
    println!("HARDENED");
}

#[test]
fn a_hardened_process_leaves_no_core_file_and_cannot_be_traced() {
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "hardened_child", "--nocapture"])
        .output()
        .unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).contains("HARDENED"), "{output:?}");
}

#[test]
fn no_secret_type_shows_its_bytes_when_it_is_printed() {
    let key = pattern(7);
    let seed = Seed::init_with(|out| *out = key);
    let epoch = EpochKey::init_with(|out| *out = key);
    let state = StateKey::init_with(|out| *out = key);
    let snapshot = SnapshotKey::init_with(|out| *out = key);
    let blob = BlobKey::init_with(|out| *out = key);
    let chunk = derive::blob_chunk_key(&blob);
    let operator = OperatorKey::generate();
    let own = NodeKeyFile::generate("alpha".parse().unwrap(), operator.cluster_id());
    let nodeset = Plan::first(&operator).with_node(own.member(NOW)).sign(&operator).unwrap();
    let (_, secrets) = Keyring::create(&nodeset, &own, Lineage::random(), None, NOW).unwrap();
    let printed = [
        format!("{seed:?}"),
        format!("{epoch:?}"),
        format!("{state:?}"),
        format!("{snapshot:?}"),
        format!("{blob:?}"),
        format!("{chunk:?}"),
        format!("{:?}", derive::local_key(&seed)),
        format!("{:?}", derive::database_key(&epoch, &CLUSTER)),
        format!("{:?}", Sealer::new(Epoch::FIRST, &epoch, &CLUSTER)),
        format!("{:?}", Blinder::new(&epoch, &CLUSTER)),
        format!("{:?}", StateHasher::new(&state)),
        format!("{:?}", ChunkSealer::new(&chunk, b"")),
        format!("{:?}", ChunkOpener::new(&chunk, b"")),
        format!("{:?}", WitnessSealer::new(&own.slots()[0])),
        format!("{:?}", Signature25519::derive(&seed, derive::NODE_SIGN)),
        format!("{:?}", WrappingKey::derive(&seed, derive::NODE_WRAP)),
        format!("{own:?}"),
        format!("{operator:?}"),
        format!("{:?}", ExtraRecoveryKey::generate()),
        format!("{secrets:?}"),
        format!("{:?}", CarriedOver { state, last_epoch: Epoch::FIRST }),
    ];
    for text in &printed {
        assert!(text.contains("[REDACTED]"), "{text}");
        // Neither a list of numbers nor hexadecimal.
        assert!(!text.contains(&format!("{}, {}", key[0], key[1])), "{text}");
        assert!(!text.contains(&format!("{:02x}{:02x}{:02x}", key[0], key[1], key[2])), "{text}");
    }
}

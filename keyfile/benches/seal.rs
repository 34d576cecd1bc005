//! Sealing and opening an entry of 256 bytes, against the bare cipher on the same bytes.
//!
//! `cargo bench -p unibus-keyfile` measures; `-- --smoke`, and `cargo test --benches`, run a few rounds to see that
//! it works. Both sides are timed in turns of some milliseconds, so that a machine that slows down slows both; the
//! ratio of a round is of two neighbours, and the median over all rounds is what is printed.

use std::{hint::black_box, time::Instant};

use aes_gcm_siv::{
    Aes256GcmSiv, KeyInit,
    aead::{AeadInOut, inout::InOutBuf},
};
use unibus_keyfile::{
    aad::Place,
    digest::StateDigest,
    envelope::{Envelope, FIXED_BYTES, HEADER_BYTES, Operation, Plaintext, TAG_BYTES},
    id::{ClusterId, Epoch, Lineage, Sequence},
    name::Blinder,
    seal::{Nonce, Sealer},
    secret::EpochKey,
};
use zeroize::Zeroizing;

const PADDED: usize = 256;
const IDENTITY: &[u8; 32] = b"an identity of thirty-two bytes!";

/// Takes a result away, so that the compiler cannot leave the work for it out.
fn spend<T>(result: T) {
    let _spent = black_box(result);
}

struct Effort {
    rounds: usize,
    turns: u32,
}

/// Median nanoseconds of one call of each, and the median ratio of the first to the second.
fn compare(effort: &Effort, mut ours: impl FnMut(), mut bare: impl FnMut()) -> (f64, f64, f64) {
    let time = |work: &mut dyn FnMut()| {
        let start = Instant::now();
        for _ in 0..effort.turns {
            work();
        }
        start.elapsed().as_secs_f64() * 1e9 / f64::from(effort.turns)
    };
    let mut rounds = Vec::with_capacity(effort.rounds);
    for _ in 0..effort.rounds {
        let (a, b) = (time(&mut ours), time(&mut bare));
        rounds.push((a, b, a / b));
    }
    let median = |mut values: Vec<f64>| {
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
    };
    (
        median(rounds.iter().map(|round| round.0).collect()),
        median(rounds.iter().map(|round| round.1).collect()),
        median(rounds.iter().map(|round| round.2).collect()),
    )
}

fn row(work: &str, target: Option<f64>, (ours, bare, ratio): (f64, f64, f64)) -> String {
    let row = format!("{work:<44} {ours:>8.0} {bare:>8.0} {ratio:>7.2}");
    match target {
        None => format!("{row}\n"),
        Some(target) => {
            let verdict = if ratio <= target { "met" } else { "NOT met" };
            format!("{row} {target:>7.1}  {verdict}\n")
        }
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
    if has("--list") {
        return;
    }
    let measure = has("--bench") && !has("--smoke");
    let effort = if measure { Effort { rounds: 2000, turns: 500 } } else { Effort { rounds: 3, turns: 10 } };
    let table = run(&effort);
    let head = format!("{:<44} {:>8} {:>8} {:>7} {:>7}", "256 B entry", "ns", "bare ns", "ratio", "at most");
    let note = if measure { "" } else { "(smoke: these numbers say nothing)\n" };
    #[expect(clippy::print_stdout, reason = "a bench prints its table")]
    {
        println!("{head}\n{table}{note}");
    }
}

fn run(effort: &Effort) -> String {
    let cluster = ClusterId::from_bytes([1; 32]);
    let lineage = Lineage::from_bytes([2; 16]);
    let key = EpochKey::generate();
    let sealer = Sealer::new(Epoch::FIRST, &key, &cluster);
    let blinder = Blinder::new(&key, &cluster);
    let name = blinder.name(1, IDENTITY);
    let plaintext = Plaintext {
        kind: 1,
        operation: Operation::Put,
        identity: IDENTITY.to_vec(),
        digest_after: StateDigest::EMPTY,
        record: Zeroizing::new(vec![7; PADDED - FIXED_BYTES - IDENTITY.len()]),
    };
    let place = Place {
        cluster: &cluster,
        lineage: &lineage,
        stream: "UNIBUS_CONTROL",
        name: name.as_str(),
        sequence: Sequence(1),
    };

    // The bare cipher gets the same AAD and 256 bytes, in place, without an allocation.
    let cipher = Aes256GcmSiv::new(&[3; 32].into());
    let nonce = [4; 12].into();
    let aad = place.aad(&Envelope::header(Epoch::FIRST, &[4; 12]));
    let mut text = [7; PADDED];

    let mut bare = || {
        let text = InOutBuf::from(&mut text[..]);
        spend(cipher.encrypt_inout_detached(&nonce, black_box(&aad), text));
    };
    let sealed = compare(
        effort,
        || {
            let name = blinder.name(1, black_box(IDENTITY));
            let place = Place { name: name.as_str(), ..place };
            spend(sealer.seal(black_box(&plaintext), &place, Nonce::random()));
        },
        &mut bare,
    );
    let blinded = compare(effort, || spend(blinder.name(1, black_box(IDENTITY))), &mut bare);
    let drawn = compare(effort, || spend(Nonce::random()), &mut bare);
    let sealed_alone = compare(
        effort,
        || spend(sealer.seal(black_box(&plaintext), &place, Nonce::fixed([4; 12]))),
        &mut bare,
    );

    let envelope = sealer.seal(&plaintext, &place, Nonce::random()).unwrap_or_default();
    let mut buffer = Zeroizing::new(Vec::new());
    let mut bare_sealed = [7; PADDED];
    let tag = cipher.encrypt_inout_detached(&nonce, &aad, InOutBuf::from(&mut bare_sealed[..]));
    let tag = tag.unwrap_or_default();
    let mut out = [0; PADDED];
    let mut opened_all = true;
    let opened = compare(
        effort,
        || opened_all &= black_box(sealer.open_into(black_box(&envelope), &place, &mut buffer)).is_ok(),
        || {
            if let Ok(text) = InOutBuf::new(black_box(&bare_sealed), &mut out) {
                spend(cipher.decrypt_inout_detached(&nonce, black_box(&aad), text, &tag));
            }
        },
    );
    assert!(
        opened_all && envelope.len() == HEADER_BYTES + PADDED + TAG_BYTES,
        "the bench opens what it sealed"
    );
    [
        row("seal, with blinding, padding and nonce", Some(1.7), sealed),
        row("  of that: blinding the name", None, blinded),
        row("  of that: drawing the nonce", None, drawn),
        row("  of that: padding, AAD, cipher", None, sealed_alone),
        row("open, with decoding, into a buffer", Some(1.2), opened),
    ]
    .concat()
}

use std::time::Instant;

use super::super::*;
use crate::domain::{self, View};
use crate::sealed_log::fixture::{self, Keys};

fn resident_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    text.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

/// Says what a user costs; run it alone.
#[test]
#[ignore = "measures"]
fn bytes_of_a_user_in_memory() {
    let keys = Keys::new();
    let (codec, users) = (keys.codec(), 100_000_u32);
    let mut state = State::new(StateHasher::new(keys.secrets.state_key()));
    let before = resident_bytes();
    let began = Instant::now();
    let mut digest = StateDigest::EMPTY;
    for number in 0..users {
        let record = Record::User(fixture::user(number));
        let (id, bytes) = (record.id(), RecordBytes::assemble(&record.id(), record.encode().body()).unwrap());
        let hash = codec.hasher().hash(bytes.as_bytes());
        digest.add(&hash);
        let content = Content::Record { id, bytes: Some(bytes) };
        let opened = Opened { content, digest_after: digest, epoch: Epoch::FIRST, hash: Some(hash) };
        state.apply(u64::from(number) + 1, Item::Entry(opened)).unwrap();
    }
    let each = (resident_bytes() - before) / u64::from(users);
    println!("{each} bytes for a user, {:?} to make and apply {users}", began.elapsed());
    assert!(state.is_settled() && state.census().users == u64::from(users));

    let rounds = 1_000_000_u32;
    let asked: Vec<_> = (0..users).map(fixture::sign).collect();
    let began = Instant::now();
    for round in 0..rounds {
        let key = &asked[usize::try_from(round.wrapping_mul(7919) % users).unwrap()];
        assert!(domain::is_authorized(&state, key));
    }
    println!("{:?} to authorize", began.elapsed() / rounds);
    let began = Instant::now();
    for round in 0..rounds {
        let key = &asked[usize::try_from(round.wrapping_mul(7919) % users).unwrap()];
        assert!(state.shown(&RecordId::User(*key)).unwrap().is_some());
    }
    println!("{:?} to find", began.elapsed() / rounds);
    let began = Instant::now();
    for round in 0..rounds {
        let key = &asked[usize::try_from(round.wrapping_mul(7919) % users).unwrap()];
        assert!(state.record(&RecordId::User(*key)).unwrap().is_some());
    }
    println!("{:?} to find and copy", began.elapsed() / rounds);
}

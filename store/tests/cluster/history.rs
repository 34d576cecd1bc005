//! Histories of three nodes are linearizable (Herlihy and Wing): there is an order of all operations, each between its
//! call and its answer, that a single store could have gone through.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rand::RngExt as _;
use unibus_store::error::StoreError;
use unibus_store::sealed_log::{STREAM, SealedLog};
use unibus_store::store::{Actor, Store, Strength};
use unibus_tests::Cluster;

use super::fixture::*;

/// What a user can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Status {
    Absent,
    Active,
    Revoked,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    Add,
    Revoke,
    Read,
}

/// What was answered; `None` if nobody knows whether it happened.
type Answer = Option<Status>;

/// One operation on one user: what was asked, when, and the status that the answer tells of.
#[derive(Clone, Copy, Debug)]
struct Operation {
    call: Call,
    answer: Answer,
    /// Whether it has changed something.
    changed: bool,
    begun: Instant,
    ended: Option<Instant>,
}

impl Operation {
    /// The status after this operation on one of that status; none if its answer is then impossible.
    fn step(&self, status: Status) -> Option<Status> {
        match (self.call, self.answer) {
            (Call::Read, Some(seen)) => (seen == status).then_some(status),
            (Call::Read, None) => Some(status),
            (Call::Add, Some(_)) if self.changed => (status == Status::Absent).then_some(Status::Active),
            (Call::Add, Some(_)) => (status != Status::Absent).then_some(status),
            (Call::Revoke, Some(_)) if self.changed => (status == Status::Active).then_some(Status::Revoked),
            (Call::Revoke, Some(_)) => (status != Status::Active).then_some(status),
            // It may have happened at any time after its call.
            (Call::Add, None) => Some(if status == Status::Absent { Status::Active } else { status }),
            (Call::Revoke, None) => Some(if status == Status::Active { Status::Revoked } else { status }),
        }
    }
}

/// Looks for an order (Wing and Gong, with remembered dead ends).
fn is_linearizable(history: &[Operation]) -> bool {
    fn search(
        history: &[Operation],
        done: &mut Vec<bool>,
        status: Status,
        dead: &mut BTreeSet<(Vec<bool>, Status)>,
    ) -> bool {
        let is_over = |at: usize| done[at] || history[at].ended.is_none();
        if (0..history.len()).all(is_over) {
            return true;
        }
        if dead.contains(&(done.clone(), status)) {
            return false;
        }
        let open = (0..history.len()).filter(|at| !done[*at]);
        let first_end = open.filter_map(|at| history[at].ended).min();
        for at in 0..history.len() {
            let may_be_next = first_end.is_none_or(|end| history[at].begun <= end);
            if done[at] || !may_be_next {
                continue;
            }
            if let Some(next) = history[at].step(status) {
                done[at] = true;
                if search(history, done, next, dead) {
                    return true;
                }
                done[at] = false;
            }
        }
        dead.insert((done.clone(), status));
        false
    }
    search(history, &mut vec![false; history.len()], Status::Absent, &mut BTreeSet::new())
}

async fn operate(log: &SealedLog, call: Call, number: u32) -> Operation {
    let begun = Instant::now();
    let (answer, changed) = match call {
        Call::Add => match log.add_user(Actor::Operator, user(number)).await {
            Ok(()) => (Some(Status::Active), true),
            Err(StoreError::AlreadyExists { .. }) => (Some(Status::Active), false),
            Err(_) => (None, false),
        },
        Call::Revoke => match log.revoke_user(Actor::Operator, sign(number), clock()).await {
            Ok(()) => (Some(Status::Revoked), true),
            Err(StoreError::NotFound { .. }) => (Some(Status::Revoked), false),
            Err(_) => (None, false),
        },
        Call::Read => match log.user(sign(number), Strength::Linearizable).await {
            Ok(None) => (Some(Status::Absent), false),
            Ok(Some(found)) if found.is_active() => (Some(Status::Active), false),
            Ok(Some(_)) => (Some(Status::Revoked), false),
            Err(_) => (None, false),
        },
    };
    let ended = answer.map(|_| Instant::now());
    Operation { call, answer, changed, begun, ended }
}

async fn client(
    log: Arc<SealedLog>,
    stop: Arc<AtomicBool>,
    groups: Arc<std::sync::atomic::AtomicU32>,
) -> Vec<(u32, Operation)> {
    let mut done = Vec::new();
    while !stop.load(Ordering::Acquire) {
        // A few users at a time are fought over; then the next few.
        let group = groups.load(Ordering::Acquire);
        let (number, call) = {
            let mut rng = rand::rng();
            let call = match rng.random_range(0..10) {
                0..3 => Call::Add,
                3..4 => Call::Revoke,
                _ => Call::Read,
            };
            (group * 4 + rng.random_range(0..4), call)
        };
        let operation = operate(&log, call, number).await;
        done.push((number, operation));
    }
    done
}

#[tokio::test(flavor = "multi_thread")]
async fn histories_under_leader_kills_are_linearizable() {
    let mut trio = Trio::on(Cluster::three());
    let logs = trio.open_all();
    let stop = Arc::new(AtomicBool::new(false));
    let groups = Arc::new(std::sync::atomic::AtomicU32::new(0));
    let clients: Vec<_> = (0..6)
        .map(|at| {
            let log = Arc::clone(&logs[at % 3]);
            tokio::spawn(client(log, Arc::clone(&stop), Arc::clone(&groups)))
        })
        .collect();
    for _ in 0..3 {
        for _ in 0..25 {
            tokio::time::sleep(Duration::from_millis(60)).await;
            groups.fetch_add(1, Ordering::AcqRel);
        }
        let leader = trio.cluster.wait_leader_of(STREAM);
        trio.cluster.kill(leader);
        tokio::time::sleep(Duration::from_millis(1500)).await;
        trio.cluster.start(leader);
        trio.cluster.wait_ready();
    }
    stop.store(true, Ordering::Release);
    let mut by_user: std::collections::BTreeMap<u32, Vec<Operation>> = std::collections::BTreeMap::new();
    let mut total = 0;
    for done in clients {
        for (number, operation) in done.await.unwrap() {
            total += 1;
            by_user.entry(number).or_default().push(operation);
        }
    }
    for (number, history) in &mut by_user {
        history.sort_by_key(|operation| operation.begun);
        assert!(is_linearizable(history), "user {number}: {history:#?}");
    }
    println!("{total} operations on {} users", by_user.len());
    assert!(total > 300, "{total}");
}

/// The search itself: a history that no store can have is found out.
#[test]
fn a_read_of_the_past_is_not_linearizable() {
    let start = Instant::now();
    let at = |from: u64, to: u64, call, answer, changed| Operation {
        call,
        answer: Some(answer),
        changed,
        begun: start + Duration::from_millis(from),
        ended: Some(start + Duration::from_millis(to)),
    };
    let add = at(0, 1, Call::Add, Status::Active, true);
    let revoke = at(2, 3, Call::Revoke, Status::Revoked, true);
    assert!(is_linearizable(&[add, revoke, at(4, 5, Call::Read, Status::Revoked, false)]));
    assert!(!is_linearizable(&[add, revoke, at(4, 5, Call::Read, Status::Active, false)]));
    assert!(is_linearizable(&[add, revoke, at(2, 5, Call::Read, Status::Active, false)]), "at the same time");
    assert!(!is_linearizable(&[add, at(2, 3, Call::Add, Status::Active, true)]), "applied twice");
}

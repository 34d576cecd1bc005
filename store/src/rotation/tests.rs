//! All that can happen to a rotation: two who drive, nodes that write, crash and lag, whoever finishes what another
//! has begun. Every state that can be reached is visited, with the real step function.
//!
//! A crash of who drives is a decision that is never acted upon: it can be followed by anything.

use std::collections::{HashMap, HashSet, VecDeque};

use super::*;

const NODES: usize = 2;
const DRIVERS: usize = 2;
/// Writes that happen at most.
const WRITES: u8 = 1;
/// Version of the keyring from which on no rotation is begun: called off and begun anew, it goes on for ever.
const LAST_BEGIN: u8 = 3;
/// Barriers that are written at most.
const BARRIERS: u8 = 2;

/// What was decided, and at which version of the keyring.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Decided {
    Stage,
    Activate,
    Fill,
    Close,
    Finish,
    Remove,
    Barrier,
    Destroy,
    End,
    Abort,
}

/// A stream: the writes in it, and whether it is closed or open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Stream {
    writes: u8,
    is_closed: bool,
    is_open: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct World {
    has_plan: bool,
    version: u8,
    primary: u8,
    is_staged: bool,
    is_retired: bool,
    /// The version that each node has seen, and the one that it has acknowledged.
    seen: [u8; NODES],
    acknowledged: [u8; NODES],
    /// The first stream; gone when it was removed.
    old: Option<Stream>,
    next: Option<Stream>,
    /// Whether a node is in the next stream, and has said so there.
    is_over: [bool; NODES],
    has_arrived: [bool; NODES],
    /// Writes that were acknowledged.
    written: u8,
    barrier: u8,
    /// The last barrier that a node has passed with its view whole, and the one of its census.
    passed: [u8; NODES],
    census: [u8; NODES],
    decided: [Option<(Decided, u8)>; DRIVERS],
}

impl World {
    const fn new() -> Self {
        Self {
            has_plan: false,
            version: 1,
            primary: 1,
            is_staged: false,
            is_retired: false,
            seen: [1; NODES],
            acknowledged: [1; NODES],
            old: Some(Stream { writes: 0, is_closed: false, is_open: true }),
            next: None,
            is_over: [false; NODES],
            has_arrived: [false; NODES],
            written: 0,
            barrier: 0,
            passed: [0; NODES],
            census: [0; NODES],
            decided: [None; DRIVERS],
        }
    }

    fn is_in_next(&self) -> bool {
        self.next.is_some_and(|next| next.is_open)
    }

    fn facts(&self) -> Facts {
        let name = |node: usize| ["a", "b"][node].parse::<NodeName>().unwrap();
        let those = |is: &dyn Fn(usize) -> bool| (0..NODES).filter(|node| is(*node)).map(name).collect();
        let epoch = |number: u8| Epoch::from_stored(u32::from(number)).unwrap();
        let missing: BTreeSet<NodeName> = those(&|node| self.census[node] != self.barrier);
        let is_in_next = self.is_in_next();
        Facts {
            from: self.has_plan.then(|| epoch(1)),
            primary: epoch(self.primary),
            staged: self.is_staged.then(|| epoch(2)),
            has_retired: self.is_retired,
            nodes: those(&|_| true),
            acknowledged: those(&|node| self.acknowledged[node] == self.version),
            is_resealed: self.primary == 1 || is_in_next,
            is_closed: !is_in_next && self.old.is_some_and(|old| old.is_closed),
            arrived: those(&|node| !is_in_next || self.has_arrived[node]),
            has_before: is_in_next && self.old.is_some(),
            censuses: match (self.barrier, missing.is_empty()) {
                (0, _) => Censuses::NoBarrier,
                (_, false) => Censuses::Missing(missing),
                (_, true) => Censuses::Equal,
            },
        }
    }

    fn after(&self, change: impl FnOnce(&mut Self)) -> Self {
        let mut world = *self;
        change(&mut world);
        world
    }

    /// All that can happen next.
    fn successors(&self) -> Vec<Self> {
        let mut all = Vec::new();
        if !self.has_plan && self.primary == 1 && self.version <= LAST_BEGIN {
            all.push(self.after(|world| world.has_plan = true));
        }
        for driver in 0..DRIVERS {
            self.drive(driver, &mut all);
        }
        for node in 0..NODES {
            self.live(node, &mut all);
        }
        all
    }

    /// Somebody decides what is next, from what stands there now; or does what was decided, maybe long ago.
    fn drive(&self, driver: usize, all: &mut Vec<Self>) {
        if let Some((decided, version)) = self.decided[driver] {
            let mut world = self.after(|world| world.decided[driver] = None);
            // Given up, crashed, or refused because something else stands there now.
            all.push(world);
            world.act(decided, version);
            all.push(world);
            return;
        }
        let step = next(&self.facts());
        let mut can: Vec<Decided> = match step {
            Step::Stage => vec![Decided::Stage],
            Step::Activate => vec![Decided::Activate],
            Step::Reseal if self.next.is_none() => vec![Decided::Fill],
            Step::Reseal => vec![Decided::Fill, Decided::Close],
            Step::AwaitOpening => vec![Decided::Finish],
            Step::RemoveBefore => vec![Decided::Remove],
            Step::Barrier => vec![Decided::Barrier],
            // A node that crashed has passed no barrier.
            Step::AwaitCensuses(_) if self.barrier < BARRIERS => vec![Decided::Barrier],
            Step::Destroy => vec![Decided::Destroy],
            Step::Receipt => vec![Decided::End],
            _ => Vec::new(),
        };
        if self.has_plan && step.can_be_aborted() {
            can.push(Decided::Abort);
        }
        let decide = |one: Decided| self.after(|world| world.decided[driver] = Some((one, self.version)));
        all.extend(can.into_iter().map(decide));
    }

    /// Does it, if what it was decided upon still stands there: that is what a stated sequence and hash are for.
    fn act(&mut self, decided: Decided, version: u8) {
        let is_current = self.version == version;
        match decided {
            Decided::Stage if is_current => {
                (self.is_staged, self.version) = (true, self.version + 1);
            }
            Decided::Activate if is_current => {
                assert!(self.is_staged && self.acknowledged.iter().all(|said| *said == self.version));
                (self.is_staged, self.is_retired, self.primary) = (false, true, 2);
                self.version += 1;
            }
            Decided::Fill => {
                if let Some(old) = self.old.filter(|_| !self.is_in_next()) {
                    self.next = Some(Stream { writes: old.writes, is_closed: false, is_open: false });
                }
            }
            Decided::Close => {
                if let Some(old) = self.old.as_mut().filter(|_| self.next.is_some()) {
                    old.is_closed = true;
                }
            }
            Decided::Finish => self.finish(),
            Decided::Remove => {
                // Whoever is still in there would take it for tampering.
                assert!(self.is_over.iter().all(|over| *over), "a stream is removed under a node: {self:?}");
                self.old = None;
            }
            Decided::Barrier if self.barrier < BARRIERS => self.barrier += 1,
            Decided::Destroy if is_current => {
                assert!(self.old.is_none(), "something under the old epoch is left: {self:?}");
                assert!(self.is_in_next() && self.is_over.iter().all(|over| *over));
                (self.is_retired, self.version) = (false, self.version + 1);
            }
            Decided::End => self.forget(),
            Decided::Abort => {
                if self.is_staged && is_current {
                    (self.is_staged, self.version) = (false, self.version + 1);
                }
                self.forget();
            }
            _ => {}
        }
    }

    /// The plan goes only when nothing of it is left to be done.
    const fn forget(&mut self) {
        if !self.is_staged && !self.is_retired {
            self.has_plan = false;
        }
    }

    fn finish(&mut self) {
        if let (Some(old), Some(next)) = (self.old.filter(|old| old.is_closed), self.next.as_mut())
            && !next.is_open
        {
            (next.writes, next.is_open) = (old.writes, true);
        }
    }

    /// What a node does.
    fn live(&self, node: usize, all: &mut Vec<Self>) {
        if self.seen[node] < self.version {
            all.push(self.after(|world| world.seen[node] = world.version));
        }
        if self.seen[node] == self.version && self.acknowledged[node] < self.version {
            all.push(self.after(|world| world.acknowledged[node] = world.version));
        }
        if self.old.is_some_and(|old| old.is_closed) && self.next.is_some() && !self.is_in_next() {
            all.push(self.after(Self::finish));
        }
        if self.is_in_next() && !self.is_over[node] {
            all.push(self.after(|world| {
                (world.is_over[node], world.seen[node]) = (true, world.version);
            }));
        }
        if self.is_over[node] && !self.has_arrived[node] {
            all.push(self.after(|world| world.has_arrived[node] = true));
        }
        if self.is_over[node] && self.passed[node] < self.barrier {
            all.push(self.after(|world| world.passed[node] = world.barrier));
        }
        if self.passed[node] == self.barrier && self.census[node] < self.barrier {
            all.push(self.after(|world| world.census[node] = world.barrier));
            // It crashes before it has given its census; once, so that the barriers do not run out.
            if self.barrier < BARRIERS {
                all.push(self.after(|world| world.passed[node] = 0));
            }
        }
        self.write(node, all);
    }

    /// A write states the end that the node has seen: it is stored there, or nowhere.
    fn write(&self, node: usize, all: &mut Vec<Self>) {
        let count = u8::try_from(self.written.count_ones()).unwrap();
        if count == WRITES || self.seen[node] < self.version {
            return;
        }
        let bit = 1 << count;
        let is_at = |stream: &Option<Stream>| stream.is_some_and(|one| !one.is_closed && one.is_open);
        let target = if self.is_over[node] { &self.next } else { &self.old };
        if is_at(target) {
            all.push(self.after(|world| {
                let target = if world.is_over[node] { &mut world.next } else { &mut world.old };
                if let Some(stream) = target {
                    stream.writes |= bit;
                }
                world.written |= bit;
            }));
        }
    }

    fn check(&self) {
        assert!(!(self.is_staged && self.is_retired), "{self:?}");
        let current = if self.is_in_next() { self.next } else { self.old };
        let current = current.unwrap_or_else(|| panic!("there is no log: {self:?}"));
        assert_eq!(current.writes, self.written, "a write is lost: {self:?}");
        if self.primary == 2 && !self.is_retired {
            assert!(self.old.is_none(), "{self:?}");
        }
        if !self.has_plan {
            assert!(!self.is_retired, "nobody would go on with it: {self:?}");
        }
    }

    const fn is_done(&self) -> bool {
        !self.has_plan
    }
}

#[test]
fn whatever_happens_nothing_is_lost_and_every_rotation_can_come_to_its_end() {
    let mut seen: HashSet<World> = HashSet::new();
    let mut before: HashMap<World, Vec<World>> = HashMap::new();
    let mut waiting = VecDeque::from([World::new()]);
    seen.insert(World::new());
    while let Some(world) = waiting.pop_front() {
        world.check();
        for successor in world.successors() {
            before.entry(successor).or_default().push(world);
            if seen.insert(successor) {
                waiting.push_back(successor);
            }
        }
    }
    // From everywhere there is a way to the end.
    let done: Vec<World> = seen.iter().filter(|world| world.is_done()).copied().collect();
    assert!(!done.is_empty());
    let mut can: HashSet<World> = done.iter().copied().collect();
    let mut waiting = VecDeque::from(done);
    while let Some(world) = waiting.pop_front() {
        for one in before.get(&world).into_iter().flatten() {
            if can.insert(*one) {
                waiting.push_back(*one);
            }
        }
    }
    let stuck = seen.iter().find(|world| !can.contains(world));
    assert_eq!(stuck, None, "no way to the end from here; {} states in all", seen.len());
    eprintln!("{} states, {} of them ended", seen.len(), seen.iter().filter(|world| world.is_done()).count());
}

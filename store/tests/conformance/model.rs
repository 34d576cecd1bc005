//! What a store should do, said a second time and in another way: small numbers, plain maps, no bytes. It is
//! written from SPEC store, section 3, and shares no code with the rules it checks.

use std::collections::{BTreeMap, BTreeSet};

/// Why the model refuses, as the code that the store should give.
pub(crate) type Answer = Result<(), &'static str>;

const EXISTS: Answer = Err("UB-S001");
const NOT_FOUND: Answer = Err("UB-S002");
const DENIED: Answer = Err("UB-S003");
const CONFLICT: Answer = Err("UB-S004");
const NOT_EXACTLY: Answer = Err("UB-S005");
const ALREADY_MEMBER: Answer = Err("UB-S006");
const LAST_OWNER: Answer = Err("UB-S007");
const LAST_ADMIN: Answer = Err("UB-S008");
const INVALID: Answer = Err("UB-S009");

/// A person, by number. None as an actor is the operator.
pub(crate) type Who = u8;
pub(crate) type Actor = Option<Who>;

#[derive(Clone, Debug)]
pub(crate) enum Operation {
    AddUser { actor: Actor, who: Who, admin: bool },
    Revoke { actor: Actor, who: Who, second: u8 },
    CreateRoom { actor: Actor, room: u8, owner: Who, encrypt: bool, with_key: bool },
    Invite { actor: Actor, room: u8, who: Who, as_owner: bool, key_for: Option<u64> },
    Remove { actor: Actor, room: u8, who: Who },
    Rekey { actor: Actor, room: u8, epoch: u64, keys: Keys },
    PutBlob { actor: Actor, number: u8 },
    Claim { who: Who, nonce: u8, expires: u8, now: u8 },
}

/// For whom a rekey brings keys.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Keys {
    AllMembers,
    WithoutTheFirst,
    AlsoFor(Who),
    TwiceForTheFirst,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Person {
    pub(crate) admin: bool,
    pub(crate) revoked: Option<u8>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) encrypt: bool,
    pub(crate) named_owner: Who,
    pub(crate) epoch: u64,
    /// Who is in, and whether as an owner.
    pub(crate) people: BTreeMap<Who, bool>,
    /// Which keys there are, and the number of the write that brought them.
    pub(crate) keys: BTreeMap<(u64, Who), u64>,
}

#[derive(Debug, Default)]
pub(crate) struct Model {
    pub(crate) users: BTreeMap<Who, Person>,
    pub(crate) rooms: BTreeMap<u8, Place>,
    pub(crate) blobs: BTreeSet<u8>,
    pub(crate) writes: u64,
    nonces: BTreeMap<(Who, u8), u8>,
    forgotten_up_to: Option<u8>,
}

impl Model {
    pub(crate) fn active(&self, who: Who) -> bool {
        self.users.get(&who).is_some_and(|person| person.revoked.is_none())
    }

    fn active_admin(&self, who: Who) -> bool {
        self.active(who) && self.users[&who].admin
    }

    fn owns(&self, who: Who, room: u8) -> bool {
        self.active(who) && self.rooms.get(&room).is_some_and(|place| place.people.get(&who) == Some(&true))
    }

    /// What an operation on a room answers before its own rules: a signer must own it, for the operator it must
    /// be there.
    fn room_gate(&self, actor: Actor, room: u8) -> Answer {
        match actor {
            Some(who) if !self.owns(who, room) => DENIED,
            None if !self.rooms.contains_key(&room) => NOT_FOUND,
            _ => Ok(()),
        }
    }

    /// Applies an operation; an error leaves the model as it is. `rank` orders people as their endpoints do.
    pub(crate) fn apply(&mut self, operation: &Operation, rank: impl Fn(Who) -> usize) -> Answer {
        match *operation {
            Operation::AddUser { actor, who, admin } => self.add_user(actor, who, admin),
            Operation::Revoke { actor, who, second } => self.revoke(actor, who, second),
            Operation::CreateRoom { actor, room, owner, encrypt, with_key } => {
                self.create_room(actor, room, owner, (encrypt, with_key))
            }
            Operation::Invite { actor, room, who, as_owner, key_for } => {
                self.invite(actor, room, who, (as_owner, key_for))
            }
            Operation::Remove { actor, room, who } => self.remove(actor, room, who, rank),
            Operation::Rekey { actor, room, epoch, keys } => self.rekey(actor, room, epoch, keys),
            Operation::PutBlob { actor, number } => self.put_blob(actor, number),
            Operation::Claim { who, nonce, expires, now } => self.claim(who, nonce, expires, now),
        }?;
        self.writes += 1;
        Ok(())
    }

    fn add_user(&mut self, actor: Actor, who: Who, admin: bool) -> Answer {
        if actor.is_some_and(|actor| !self.active_admin(actor)) {
            return DENIED;
        }
        if self.users.contains_key(&who) {
            return EXISTS;
        }
        self.users.insert(who, Person { admin, revoked: None });
        Ok(())
    }

    fn revoke(&mut self, actor: Actor, who: Who, second: u8) -> Answer {
        if actor.is_some_and(|actor| !self.active_admin(actor)) {
            return DENIED;
        }
        if !self.active(who) {
            return NOT_FOUND;
        }
        let admins = self.users.keys().filter(|who| self.active_admin(**who)).count();
        if actor.is_some() && self.active_admin(who) && admins == 1 {
            return LAST_ADMIN;
        }
        self.users.get_mut(&who).unwrap().revoked = Some(second);
        Ok(())
    }

    fn create_room(&mut self, actor: Actor, room: u8, owner: Who, (encrypt, key): (bool, bool)) -> Answer {
        if actor.is_some_and(|actor| !self.active(actor) || actor != owner) {
            return DENIED;
        }
        if self.rooms.contains_key(&room) {
            return EXISTS;
        }
        if encrypt != key {
            return INVALID;
        }
        let keys = if key { BTreeMap::from([((1, owner), self.writes)]) } else { BTreeMap::new() };
        let people = BTreeMap::from([(owner, true)]);
        self.rooms.insert(room, Place { encrypt, named_owner: owner, epoch: 1, people, keys });
        Ok(())
    }

    fn invite(&mut self, actor: Actor, room: u8, who: Who, (owner, key): (bool, Option<u64>)) -> Answer {
        self.room_gate(actor, room)?;
        let revoked = self.users.contains_key(&who) && !self.active(who);
        let writes = self.writes;
        let place = self.rooms.get_mut(&room).unwrap();
        if place.people.contains_key(&who) {
            return ALREADY_MEMBER;
        }
        if revoked {
            return INVALID;
        }
        match key {
            Some(_) if !place.encrypt => return INVALID,
            None if place.encrypt => return INVALID,
            Some(epoch) if epoch != place.epoch => return CONFLICT,
            Some(epoch) => {
                place.keys.insert((epoch, who), writes);
            }
            None => {}
        }
        place.people.insert(who, owner);
        Ok(())
    }

    fn remove(&mut self, actor: Actor, room: u8, who: Who, rank: impl Fn(Who) -> usize) -> Answer {
        if actor == Some(who) {
            let inside = self.rooms.get(&room).is_some_and(|place| place.people.contains_key(&who));
            if !self.active(who) || !inside {
                return DENIED;
            }
        } else {
            self.room_gate(actor, room)?;
        }
        let place = self.rooms.get_mut(&room).unwrap();
        if !place.people.contains_key(&who) {
            return NOT_FOUND;
        }
        let mut rest = place.people.clone();
        rest.remove(&who);
        if rest.is_empty() {
            self.rooms.remove(&room);
            return Ok(());
        }
        let heir = rest.iter().filter(|(_, owner)| **owner).map(|(who, _)| *who).min_by_key(|who| rank(*who));
        let Some(heir) = heir else { return LAST_OWNER };
        if place.named_owner == who {
            place.named_owner = heir;
        }
        place.people = rest;
        place.keys.retain(|(_, holder), _| *holder != who);
        Ok(())
    }

    fn rekey(&mut self, actor: Actor, room: u8, epoch: u64, keys: Keys) -> Answer {
        self.room_gate(actor, room)?;
        let writes = self.writes;
        let place = self.rooms.get_mut(&room).unwrap();
        if !place.encrypt {
            return INVALID;
        }
        if epoch != place.epoch + 1 {
            return CONFLICT;
        }
        match keys {
            Keys::AllMembers => {}
            // Also for a member means twice for that member.
            Keys::AlsoFor(_) | Keys::WithoutTheFirst | Keys::TwiceForTheFirst => return NOT_EXACTLY,
        }
        place.epoch = epoch;
        let people: Vec<Who> = place.people.keys().copied().collect();
        place.keys.extend(people.into_iter().map(|who| ((epoch, who), writes)));
        Ok(())
    }

    fn put_blob(&mut self, actor: Actor, number: u8) -> Answer {
        if actor.is_some_and(|actor| !self.active(actor)) {
            return DENIED;
        }
        if self.blobs.insert(number) { Ok(()) } else { EXISTS }
    }

    /// A refused claim is no error of the store: it answers false. Here it is the error "false".
    fn claim(&mut self, who: Who, nonce: u8, expires: u8, now: u8) -> Answer {
        let live = self.nonces.get(&(who, nonce)).is_some_and(|until| now < *until);
        let too_old = self.forgotten_up_to.is_some_and(|floor| expires <= floor);
        if live || too_old || expires <= now {
            return Err("false");
        }
        let old = self.nonces.values().copied().filter(|until| *until <= now).max();
        self.forgotten_up_to = self.forgotten_up_to.max(old);
        self.nonces.retain(|_, until| now < *until);
        self.nonces.insert((who, nonce), expires);
        Ok(())
    }
}

//! The change of this node's own key, step by step. Each step looks anew at what is there.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use serde_json::{Value, json};
use unibus_keyfile::durable::{self, Sync};
use unibus_keyfile::id::NodeName;
use unibus_keyfile::node_key::NodeKeyFile;
use unibus_keyfile::request::Request;
use unibus_store::failpoint;
use unibus_store::keys::{KeysReport, Refusal};
use unibus_store::sqlcipher::{Keys, OpenOptions, SqlcipherStore};

use super::stand::{Place, Stand};
use super::{COMMAND, PATIENCE, approve, headline, pause, refused};
use crate::cli::{NodeArgs, Part};
use crate::clock;
use crate::error::MigrateError;
use crate::output::Output;
use crate::rotate::RotateError;

/// Mode of a key file.
const SECRET: u32 = 0o600;
/// Path of the daemon that has the key file read again.
const RELOAD: &str = "/keys/reload";

/// What is done next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// A new key is put before the old one in the file.
    Begin,
    /// The daemon reads the file.
    Load,
    /// The operator signs for it.
    Approve,
    /// The keyring is wrapped for it, and the others confirm.
    Confirm,
    /// The old keys go.
    Retire,
    /// Nothing is left.
    Done,
}

impl Step {
    const fn name(self) -> &'static str {
        match self {
            Self::Begin => "a new key is made",
            Self::Load => "the key file is read again",
            Self::Approve => "the operator approves the new key",
            Self::Confirm => "the keyring is wrapped for the new key, and the others confirm",
            Self::Retire => "the old key is dropped",
            Self::Done => "nothing is left to do",
        }
    }
}

/// The change of one node's key.
#[derive(Debug)]
pub(super) struct Change<'c> {
    args: &'c NodeArgs,
    place: &'c Place,
    node: NodeName,
    /// Whether a new one is begun.
    begins: bool,
    from: String,
}

impl<'c> Change<'c> {
    /// The change that is under way, or a new one.
    pub(super) fn of(args: &'c NodeArgs, place: &'c Place, stand: &Stand) -> Result<Self, MigrateError> {
        let from = stand.report.nodes.get(&stand.report.node).cloned().unwrap_or_default();
        let is_meant = args.from.as_ref().is_none_or(|wanted| *wanted == stand.current());
        let begins = stand.is_pristine() && is_meant && args.part != Some(Part::Finish);
        if let Some(path) = &args.operator {
            // Before anything is changed: the key may be missing, or another cluster's.
            let operator = crate::keys::operator(path)?;
            if operator.cluster_id() != *stand.own.cluster() {
                let why = "the operator key is of another cluster than the key file";
                return Err(RotateError::WrongKey {
                    command: COMMAND,
                    why: why.to_owned(),
                    hint: "give the operator key of this cluster".to_owned(),
                }
                .into());
            }
        }
        Ok(Self { args, place, node: stand.own.name().clone(), begins, from })
    }

    /// What it does first, for the plan.
    pub(super) fn describe(&self, stand: &Stand) -> String {
        let step = next(stand, self.begins);
        let word = if self.begins { "begins" } else { "goes on" };
        format!("{word}: {}", step.name())
    }

    /// Does all that is left; gives what came of it.
    pub(super) fn run(mut self, output: Output) -> Result<Value, MigrateError> {
        let began = Instant::now();
        let mut progress = output.progress("rotate node", None);
        let mut waiting: Option<Instant> = None;
        let mut said = BTreeSet::new();
        loop {
            let stand = Stand::look(self.place)?;
            let step = next(&stand, self.begins);
            if said.insert(step.name()) {
                output.note(&format!("{}: {}", self.node, step.name()));
                waiting = None;
            }
            progress.step();
            match step {
                Step::Begin => self.begin(stand.own)?,
                Step::Load => self.load(&stand)?,
                Step::Approve => {
                    let request = Request::make(&stand.own, clock::now());
                    let request = request.map_err(|source| MigrateError::Document {
                        path: self.place.key_file.clone(),
                        source,
                    })?;
                    match (&self.args.operator, self.args.part) {
                        (_, Some(Part::Prepare)) => return Ok(self.asks(&stand, &request)),
                        (Some(operator), _) => {
                            let (file, base) = (&self.place.nodeset, &stand.newest);
                            approve::run(operator, file, base, (&self.node, &request))?;
                        }
                        (None, Some(Part::Finish)) => self.wait(&mut waiting, &stand)?,
                        (None, None) => return Err(self.ask_operator(&request)?),
                    }
                }
                Step::Confirm if stand.is_served => self.wait(&mut waiting, &stand)?,
                Step::Confirm => self.open_once(&stand)?,
                Step::Retire => {
                    if let Some(held) = held(&stand) {
                        return Ok(self.answer(&stand, "held", Some(held), began));
                    }
                    self.retire(stand)?;
                }
                Step::Done => {
                    progress.finish();
                    return Ok(self.answer(&stand, "done", None, began));
                }
            }
        }
    }

    fn reach(&self, place: &'static str) -> Result<(), MigrateError> {
        let path = self.place.key_file.clone();
        failpoint::reach(place).map_err(|source| MigrateError::Io { step: "change", path, source })
    }

    fn write(&self, own: &NodeKeyFile) -> Result<(), MigrateError> {
        Ok(durable::replace(&self.place.key_file, own.to_text().as_bytes(), SECRET, Sync::Disk)?)
    }

    fn begin(&mut self, mut own: NodeKeyFile) -> Result<(), MigrateError> {
        self.reach("node::begin")?;
        own.rotate()
            .map_err(|error| refused(error.to_string(), "retire the keys that are no longer used"))?;
        self.write(&own)?;
        self.begins = false;
        self.reach("node::begun")
    }

    /// Has the daemon read the file.
    fn load(&self, stand: &Stand) -> Result<(), MigrateError> {
        let (status, body) = self.place.daemon.call(RELOAD)?;
        if status == 200 {
            let report: Option<KeysReport> = serde_json::from_slice(&body).ok();
            let is_taken = report.is_some_and(|report| report.keys.first() == Some(&stand.current()));
            if is_taken {
                return self.reach("node::loaded");
            }
        }
        if let Ok(refusal) = serde_json::from_slice::<Refusal>(&body) {
            return Err(RotateError::Refusal(refusal).into());
        }
        let why = format!("the daemon does not read its key file again (status {status})");
        Err(refused(why, "start it with this very --at-rest-key-file").into())
    }

    /// Without a daemon the store is opened once: that wraps the keyring, and seals the witness anew.
    fn open_once(&self, stand: &Stand) -> Result<(), MigrateError> {
        if self.place.database.is_none() {
            return Ok(());
        }
        let store = open(self.place)?;
        if store.keyring().nodeset_version() < stand.newest.version() {
            return Err(refused("the keyring is not wrapped for the new key", "look at the nodeset").into());
        }
        drop(store);
        self.reach("node::confirmed")
    }

    fn wait(&self, waiting: &mut Option<Instant>, stand: &Stand) -> Result<(), MigrateError> {
        if waiting.get_or_insert_with(Instant::now).elapsed() >= PATIENCE {
            let report = &stand.report;
            let why = format!(
                "keyring {} is for nodeset {}, nodeset {} is the newest, and {} have confirmed it",
                report.keyring_version,
                report.keyring_nodeset_version,
                stand.newest.version(),
                names(&stand.confirmed_by())
            );
            let hint = "look at the log of the daemons; run it again: it goes on from here".to_owned();
            return Err(RotateError::Unwell { command: COMMAND, why, hint }.into());
        }
        pause();
        Ok(())
    }

    fn retire(&self, stand: Stand) -> Result<(), MigrateError> {
        if !stand.is_served {
            // Once more, so that the witness is certainly sealed with the key that stays.
            self.open_once(&stand)?;
        }
        self.reach("node::retire")?;
        let mut own = stand.own;
        own.retire();
        self.write(&own)?;
        self.reach("node::retired")
    }

    /// Writes the request for the operator, and says what to do with it.
    fn ask_operator(&self, request: &Request) -> Result<MigrateError, MigrateError> {
        let path = self.request_path();
        durable::replace(&path, request.to_text().as_bytes(), 0o644, Sync::Disk)?;
        let hint = format!(
            "bring `{}` to the operator: `unibus-key approve --operator operator.key --nodeset nodeset {}`, compare {}; \
             put the new nodeset in place of `{}`, and run this again",
            path.display(),
            path.file_name().unwrap_or_default().to_string_lossy(),
            request.fingerprint(),
            self.place.nodeset.display()
        );
        Ok(RotateError::NotApproved { node: self.node.clone(), hint }.into())
    }

    fn request_path(&self) -> PathBuf {
        self.place.key_file.with_extension("request")
    }

    fn asks(&self, stand: &Stand, request: &Request) -> Value {
        json!({
            "node": self.node.as_str(), "state": "asks", "from": self.from, "to": stand.current(),
            "request": request.to_text(),
        })
    }

    fn answer(&self, stand: &Stand, state: &str, held: Option<String>, began: Instant) -> Value {
        let took = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        json!({
            "node": self.node.as_str(), "state": state, "from": self.from, "to": stand.current(),
            "held": held, "nodeset_version": stand.report.nodeset_version,
            "keyring_version": stand.report.keyring_version, "confirmed_by": stand.confirmed_by(),
            "took_ms": took,
        })
    }
}

/// The next step, by what is there alone.
pub(super) fn next(stand: &Stand, begins: bool) -> Step {
    if begins {
        return Step::Begin;
    }
    if !stand.is_loaded() && stand.is_served {
        return Step::Load;
    }
    if !stand.is_approved_in(&stand.newest) {
        return Step::Approve;
    }
    if !stand.is_confirmed() {
        return Step::Confirm;
    }
    if stand.own.slots().len() > 1 { Step::Retire } else { Step::Done }
}

/// Opens the database that nobody serves.
pub(super) fn open(place: &Place) -> Result<SqlcipherStore, MigrateError> {
    let database = place.database.as_ref().ok_or_else(|| refused("it is no database", "name one"))?;
    let own = NodeKeyFile::load(&place.key_file)?;
    let options = OpenOptions::new(database, Keys::Node(Arc::new(own)), clock::now())
        .nodeset(&place.nodeset)
        .state_dir(&place.state_dir);
    Ok(SqlcipherStore::open(&options)?)
}

/// An old key that nats-server's own encryption depends on.
pub(super) fn held(stand: &Stand) -> Option<String> {
    let held = stand.report.server_key_of.clone()?;
    (held != stand.current()).then_some(held)
}

fn names(list: &[String]) -> String {
    if list.is_empty() { "none of the others".to_owned() } else { list.join(", ") }
}

/// What came of it, for people.
pub(super) fn lines(value: &Value) -> Vec<String> {
    let text = |name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let confirmed: Vec<String> = value
        .get("confirmed_by")
        .and_then(|list| serde_json::from_value(list.clone()).ok())
        .unwrap_or_default();
    let mut lines = vec![
        headline("node", text("node")),
        headline("old key", text("from")),
        headline("new key", text("to")),
    ];
    match text("state").as_str() {
        "asks" => lines.push(headline("next", "the operator approves the request")),
        "held" => {
            lines.push(headline("held", text("held")));
            lines.push(
                "nats-server's own encryption depends on the old key: run `rotate jetstream`, then this again"
                    .to_owned(),
            );
        }
        _ => lines.push(headline("confirmed by", names(&confirmed))),
    }
    lines
}

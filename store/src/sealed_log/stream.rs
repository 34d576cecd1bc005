//! The streams of the sealed log: their names, their settings, and what a server may not have changed about them
//! (SPEC store, section 8.1).

use std::fmt;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value, json};

/// Name of the first stream of a log; the others' names begin with it.
pub const STREAM: &str = "KV_UNIBUS_control";
/// What the subjects of the first stream begin with, without the last dot.
const SUBJECTS: &str = "$KV.UNIBUS_control";
/// What every subject of the first stream begins with.
#[cfg(test)]
pub(super) const SUBJECT_PREFIX: &str = "$KV.UNIBUS_control.";
/// Bits of a sequence that count within one stream: each stream of a log begins above all sequences of the one before.
const SEQUENCE_BITS: u32 = 40;
/// Name of the stream of used nonces.
pub(super) const NONCES: &str = "KV_UNIBUS_nonces";
/// What every subject of that stream begins with; the blinded name follows.
pub(super) const NONCES_PREFIX: &str = "$KV.UNIBUS_nonces.";

/// Time for which a server remembers message ids, which nothing here uses: what it does when it is not told.
const DUPLICATE_WINDOW_NANOS: i64 = 120_000_000_000;
/// Time within which a follower must have been heard of to count.
const HEARD_OF: Duration = Duration::from_secs(5);

/// Which of the streams of a log, from 1: each change of the epoch makes a new one and takes the one before away (SPEC
/// store, section 8.11).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Generation(u32);

impl Generation {
    /// The one that a log begins with.
    pub(super) const FIRST: Self = Self(1);

    /// The one with this number; none for what is no number of one.
    pub(super) const fn from_number(number: u32) -> Option<Self> {
        // Sequences have no more bits above those that count within a stream.
        if number >= 1 && number < (1 << (u64::BITS - SEQUENCE_BITS)) { Some(Self(number)) } else { None }
    }

    /// The one that a sequence belongs to.
    pub(super) fn of_sequence(sequence: u64) -> Self {
        let above = u32::try_from(sequence.saturating_sub(1) >> SEQUENCE_BITS).unwrap_or(0);
        Self(above.saturating_add(1))
    }

    /// The one with this stream; none for another stream.
    pub(super) fn of_stream(name: &str) -> Option<Self> {
        let rest = name.strip_prefix(STREAM)?;
        let found = match rest.strip_prefix('_') {
            None if rest.is_empty() => Self::FIRST,
            None => return None,
            Some(number) => Self::from_number(number.parse().ok()?)?,
        };
        (found.stream() == name).then_some(found)
    }

    /// Its number.
    pub(super) const fn number(self) -> u32 {
        self.0
    }

    /// The one that follows.
    pub(super) const fn next(self) -> Option<Self> {
        match self.0.checked_add(1) {
            Some(number) => Self::from_number(number),
            None => None,
        }
    }

    /// The one before; none for the first.
    pub(super) const fn before(self) -> Option<Self> {
        match self.0.checked_sub(1) {
            Some(number) => Self::from_number(number),
            None => None,
        }
    }

    /// Name of its stream.
    pub(super) fn stream(self) -> String {
        format!("{STREAM}{self}")
    }

    /// What its subjects begin with; the entry name follows.
    pub(super) fn prefix(self) -> String {
        format!("{SUBJECTS}{self}.")
    }

    /// The sequence before its first one.
    pub(super) fn base(self) -> u64 {
        u64::from(self.0.saturating_sub(1)) << SEQUENCE_BITS
    }

    /// The setting `first_seq` of its stream; 0 for none.
    fn first_sequence(self) -> i64 {
        if self.0 <= 1 { 0 } else { self.base().cast_signed().saturating_add(1) }
    }
}

/// As it stands behind the names.
impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::FIRST { Ok(()) } else { write!(f, "_{}", self.0) }
    }
}

/// A setting that differs from what it must be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{setting}` = {found}, wanted {wanted}")]
pub(super) struct SettingsError {
    /// The first one that differs.
    pub(super) setting: &'static str,
    /// What it is.
    pub(super) found: String,
    /// What it must be.
    pub(super) wanted: String,
}

/// One of the streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bucket {
    /// The log.
    Control(Generation),
    /// The nonces of signed requests.
    Nonces,
}

/// What a setting must be.
#[derive(Debug, Clone, Copy)]
enum Wanted {
    Text(&'static str),
    Flag(bool),
    Number(i64),
    /// Not set: absent, or empty.
    Nothing,
    /// The stream's own name.
    Name,
    /// Its own subjects and no others.
    Subjects,
    /// Nothing but what the server notes there by itself.
    ServersOwn,
}

use Wanted::{Flag, Name, Nothing, Number, ServersOwn, Subjects, Text};

impl Bucket {
    /// The stream's name.
    pub(super) fn stream(self) -> String {
        match self {
            Self::Control(generation) => generation.stream(),
            Self::Nonces => NONCES.to_owned(),
        }
    }

    /// All its subjects.
    fn subjects(self) -> String {
        match self {
            Self::Control(generation) => format!("{}>", generation.prefix()),
            Self::Nonces => format!("{NONCES_PREFIX}>"),
        }
    }

    /// Every setting that this program knows, in the order in which they are looked at, except the replicas.
    fn settings(self) -> [(&'static str, Wanted); 40] {
        let (control, first_sequence) = match self {
            Self::Control(generation) => (true, generation.first_sequence()),
            Self::Nonces => (false, 0),
        };
        [
            ("name", Name),
            ("subjects", Subjects),
            ("storage", Text("file")),
            ("retention", Text("limits")),
            ("discard", Text("new")),
            ("discard_new_per_subject", Flag(false)),
            ("max_msgs_per_subject", Number(1)),
            ("max_msgs", Number(-1)),
            ("max_bytes", Number(-1)),
            ("max_age", Number(0)),
            ("max_msg_size", Number(-1)),
            ("max_consumers", Number(-1)),
            // A direct get is answered by any replica, however old what it has.
            ("allow_direct", Flag(false)),
            ("mirror_direct", Flag(false)),
            ("deny_delete", Flag(true)),
            ("deny_purge", Flag(true)),
            ("allow_rollup_hdrs", Flag(false)),
            ("allow_atomic", Flag(control)),
            ("allow_batched", Flag(false)),
            ("allow_msg_ttl", Flag(!control)),
            ("allow_msg_counter", Flag(false)),
            ("allow_msg_schedules", Flag(false)),
            ("subject_delete_marker_ttl", Number(0)),
            ("persist_mode", Text("default")),
            ("compression", Text("none")),
            ("first_seq", Number(first_sequence)),
            ("sealed", Flag(false)),
            ("no_ack", Flag(false)),
            ("duplicate_window", Number(DUPLICATE_WINDOW_NANOS)),
            ("mirror", Nothing),
            ("sources", Nothing),
            ("republish", Nothing),
            ("subject_transform", Nothing),
            ("placement", Nothing),
            ("consumer_limits", Nothing),
            ("template_owner", Nothing),
            ("pre_acks", Nothing),
            // Both lie readable on the servers' disks.
            ("description", Nothing),
            ("metadata", ServersOwn),
            ("ack_reply_prefix", Nothing),
        ]
    }

    /// The settings with which the stream is made.
    pub(super) fn config(self, replicas: usize) -> Value {
        let mut config = Map::new();
        for (name, wanted) in self.settings() {
            let value = match wanted {
                // What a server of today does not know by name it may refuse: only what is set is said.
                Text("default") | Number(0) | Flag(false) | Nothing | ServersOwn => continue,
                Text(text) => json!(text),
                Flag(flag) => json!(flag),
                Number(number) => json!(number),
                Name => json!(self.stream()),
                Subjects => json!([self.subjects()]),
            };
            config.insert(name.to_owned(), value);
        }
        config.insert("num_replicas".to_owned(), json!(replicas));
        Value::Object(config)
    }

    /// Compares one setting.
    fn compare(
        self,
        setting: &'static str,
        wanted: Wanted,
        config: &Map<String, Value>,
    ) -> Result<(), SettingsError> {
        let found = config.get(setting).unwrap_or(&Value::Null);
        let unset = is_nothing(found);
        let (fits, wanted) = match wanted {
            Text(text) => (found == text || (unset && matches!(text, "default" | "none")), text.to_owned()),
            Flag(flag) => (*found == json!(flag) || (unset && !flag), flag.to_string()),
            Number(number) => (*found == json!(number) || (unset && number == 0), number.to_string()),
            Nothing => (unset, "nothing".to_owned()),
            Name => (*found == json!(self.stream()), self.stream()),
            Subjects => (*found == json!([self.subjects()]), self.subjects()),
            ServersOwn => (is_servers_own(found), "nothing".to_owned()),
        };
        if fits { Ok(()) } else { Err(SettingsError { setting, found: found.to_string(), wanted }) }
    }
}

/// Whether a value says nothing: what a server shows of a setting that nobody set.
fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Number(number) => number.as_i64() == Some(0),
        Value::String(text) => text.is_empty(),
        Value::Array(values) => values.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Bool(true) => false,
    }
}

/// Whether these are only notes that the server made about itself.
fn is_servers_own(value: &Value) -> bool {
    match value {
        Value::Object(fields) => fields.keys().all(|name| name.starts_with("_nats.")),
        other => is_nothing(other),
    }
}

/// Another server that keeps a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Replica {
    /// The server's name.
    pub(super) name: String,
    /// Whether the leader believes it to be up to date.
    pub(super) current: bool,
    /// Whether the leader believes it to be gone.
    pub(super) offline: bool,
    /// Time since it was heard of.
    pub(super) active: Duration,
    /// Entries that it lacks.
    pub(super) lag: u64,
}

/// What a server says of a stream.
#[derive(Debug, Clone)]
pub(super) struct StreamInfo {
    bucket: Bucket,
    config: Map<String, Value>,
    /// Messages that are there.
    pub(super) messages: u64,
    /// The last sequence that was given.
    pub(super) last_sequence: u64,
    /// The server that leads it; none while there is no quorum.
    pub(super) leader: Option<String>,
    /// The other servers that keep it.
    pub(super) replicas: Vec<Replica>,
}

#[derive(Deserialize)]
struct InfoReply {
    config: Map<String, Value>,
    state: StateReply,
    cluster: Option<ClusterReply>,
}

#[derive(Deserialize)]
struct StateReply {
    messages: u64,
    last_seq: u64,
}

#[derive(Deserialize)]
struct ClusterReply {
    leader: Option<String>,
    replicas: Option<Vec<ReplicaReply>>,
}

#[derive(Deserialize)]
struct ReplicaReply {
    name: String,
    #[serde(default)]
    current: bool,
    #[serde(default)]
    offline: bool,
    #[serde(default)]
    active: u64,
    #[serde(default)]
    lag: u64,
}

impl Replica {
    fn follows(&self) -> bool {
        self.current && !self.offline && self.active <= HEARD_OF
    }
}

impl StreamInfo {
    /// Reads a server's reply.
    pub(super) fn parse(bucket: Bucket, reply: Value) -> Result<Self, serde_json::Error> {
        let reply: InfoReply = serde_json::from_value(reply)?;
        let (leader, replicas) = match reply.cluster {
            Some(cluster) => {
                (cluster.leader.filter(|name| !name.is_empty()), cluster.replicas.unwrap_or_default())
            }
            None => (None, Vec::new()),
        };
        let replicas = replicas.into_iter().map(|replica| Replica {
            name: replica.name,
            current: replica.current,
            offline: replica.offline,
            active: Duration::from_nanos(replica.active),
            lag: replica.lag,
        });
        Ok(Self {
            bucket,
            config: reply.config,
            messages: reply.state.messages,
            last_sequence: reply.state.last_seq,
            leader,
            replicas: replicas.collect(),
        })
    }

    /// Compares each setting with what it must be. The replicas come last: what differs there alone may be raised.
    ///
    /// # Errors
    /// [`SettingsError`] with the first setting that differs; one that this program does not know must say nothing.
    pub(super) fn check(&self, replicas: usize) -> Result<(), SettingsError> {
        let settings = self.bucket.settings();
        for (setting, wanted) in settings {
            self.bucket.compare(setting, wanted, &self.config)?;
        }
        let known =
            |name: &str| name == "num_replicas" || settings.iter().any(|(setting, _)| *setting == name);
        if let Some((name, value)) =
            self.config.iter().find(|(name, value)| !known(name) && !is_nothing(value))
        {
            let found = format!("`{name}` = {value}");
            return Err(SettingsError { setting: "an unknown setting", found, wanted: "none".to_owned() });
        }
        if self.wanted_replicas() == Some(replicas) {
            return Ok(());
        }
        let found = self.config.get("num_replicas").unwrap_or(&Value::Null).to_string();
        Err(SettingsError { setting: "num_replicas", found, wanted: replicas.to_string() })
    }

    /// The number of replicas that the stream is set to.
    pub(super) fn wanted_replicas(&self) -> Option<usize> {
        usize::try_from(self.config.get("num_replicas")?.as_u64()?).ok()
    }

    /// The stream that this is about.
    pub(super) const fn bucket(&self) -> Bucket {
        self.bucket
    }

    /// The replicas that have everything, as far as the leader knows: itself, and the followers that are up to date
    /// and were heard of just now.
    pub(super) fn current_replicas(&self) -> usize {
        let follows = self.replicas.iter().filter(|replica| replica.follows());
        usize::from(self.leader.is_some()).saturating_add(follows.count())
    }

    /// The servers whose replicas are not.
    pub(super) fn behind(&self) -> Vec<String> {
        self.replicas
            .iter()
            .filter(|replica| !replica.follows())
            .map(|replica| replica.name.clone())
            .collect()
    }
}

//! What a command is about to do, and the hash that says whether the world still is as it was.

use data_encoding::HEXLOWER;
use serde_json::{Map, Value, json};
use unibus_keyfile::digest::sha256;

use crate::cli::ConsentArgs;
use crate::error::MigrateError;
use crate::output::{Answer, Output, row};

/// Bytes of a plan's hash: enough that nobody meets another plan with the same one.
const HASH_BYTES: usize = 16;

/// A plan: facts about what is there and what will be made of it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Plan {
    command: &'static str,
    facts: Vec<(&'static str, String)>,
    replaces: Option<String>,
}

impl Plan {
    /// An empty plan of a command.
    #[must_use]
    pub fn new(command: &'static str) -> Self {
        Self { command, facts: Vec::new(), replaces: None }
    }

    /// Adds a fact; a plan made of other facts has another hash.
    #[must_use]
    pub fn fact(mut self, name: &'static str, value: impl ToString) -> Self {
        self.facts.push((name, value.to_string()));
        self
    }

    /// Says that the command takes something away, which needs consent.
    #[must_use]
    pub fn replacing(mut self, what: impl Into<String>) -> Self {
        self.replaces = Some(what.into());
        self
    }

    /// SHA-256 over the command and all facts, shortened, in hex.
    #[must_use]
    pub fn hash(&self) -> String {
        let hash = self.whole_hash();
        HEXLOWER.encode(hash.first_chunk::<HASH_BYTES>().map_or(&hash[..], |short| &short[..]))
    }

    /// The same, not shortened: what a receipt names.
    #[must_use]
    pub fn whole_hash(&self) -> [u8; 32] {
        let text = json!([self.command, self.facts, self.replaces]).to_string();
        sha256(&[b"unibus/plan/v1", text.as_bytes()])
    }

    /// The plan as an object.
    #[must_use]
    pub fn object(&self) -> Value {
        let facts: Map<String, Value> = self
            .facts
            .iter()
            .map(|(name, value)| ((*name).to_owned(), Value::from(value.as_str())))
            .collect();
        json!({"command": self.command, "hash": self.hash(), "replaces": self.replaces, "facts": facts})
    }

    /// The plan for people.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let mut lines = vec![format!("plan: {}", self.command)];
        lines.extend(
            self.facts.iter().map(|(name, value)| format!("  {}", row(&name.replace('_', " "), value))),
        );
        if let Some(what) = &self.replaces {
            lines.push(format!("  {}", row("replaces", what)));
        }
        lines.push(format!("  {}", row("hash", self.hash())));
        lines
    }

    /// Decides, from what the caller said, whether to go on.
    ///
    /// # Errors
    /// `PlanChanged` when `--plan` names another hash; `Unconfirmed` when something would be replaced and
    /// nobody agreed.
    pub fn settle(&self, consent: &ConsentArgs, output: Output) -> Result<Decision, MigrateError> {
        if consent.dry_run {
            let object = json!({"command": self.command, "dry_run": true, "plan": self.object()});
            return Ok(Decision::Stop(Answer::done(object, self.lines())));
        }
        if let Some(expected) = &consent.plan {
            let found = self.hash();
            if !expected.eq_ignore_ascii_case(&found) {
                return Err(MigrateError::PlanChanged { expected: expected.clone(), found });
            }
            return Ok(Decision::Go);
        }
        for line in self.lines() {
            output.note(&line);
        }
        let Some(what) = &self.replaces else { return Ok(Decision::Go) };
        if consent.yes || output.confirm(&format!("This replaces {what}. Go on?")) == Some(true) {
            return Ok(Decision::Go);
        }
        Err(MigrateError::Unconfirmed { what: what.clone() })
    }
}

/// Go on, or stop with this answer.
#[derive(Debug)]
#[non_exhaustive]
pub enum Decision {
    /// Apply the plan.
    Go,
    /// It was a dry run: this is the answer.
    Stop(Answer),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Format;

    fn consent(plan: Option<&str>, yes: bool) -> ConsentArgs {
        ConsentArgs { dry_run: false, plan: plan.map(str::to_owned), yes, rate: None }
    }

    #[test]
    fn another_fact_gives_another_hash() {
        let plan = Plan::new("copy").fact("from", "a");
        assert_eq!(plan.hash(), Plan::new("copy").fact("from", "a").hash());
        assert_ne!(plan.hash(), Plan::new("copy").fact("from", "b").hash());
        let hash = plan.hash();
        assert_ne!(hash, plan.replacing("x").hash());
    }

    #[test]
    fn a_plan_of_another_hash_is_refused() {
        let plan = Plan::new("copy").fact("from", "a");
        let output = Output::new(Format::Json);
        assert!(matches!(plan.settle(&consent(Some(&plan.hash()), false), output), Ok(Decision::Go)));
        let error = plan.settle(&consent(Some("00"), false), output).unwrap_err();
        assert!(matches!(error, MigrateError::PlanChanged { .. }));
    }

    #[test]
    fn only_what_replaces_needs_consent() {
        let output = Output::new(Format::Json);
        let creating = Plan::new("copy");
        assert!(matches!(creating.settle(&consent(None, false), output), Ok(Decision::Go)));
        let replacing = creating.replacing("the witness");
        assert!(replacing.settle(&consent(None, false), output).is_err());
        assert!(matches!(replacing.settle(&consent(None, true), output), Ok(Decision::Go)));
    }
}

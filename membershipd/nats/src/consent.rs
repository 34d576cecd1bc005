//! One eviction at a time in the whole cluster: each other daemon has to consent.
//!
//! Two servers wiped at once could elect a leader that has forgotten everything. So a daemon that is to wipe its server
//! asks all others first, and does it only if each consents. Who consents makes no eviction of its own, and consents to
//! no other, until that one is over or nothing was heard of it for a while. Of two that begin at the same moment each
//! refuses the other.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_nats::Message;
use futures_util::StreamExt as _;
use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;

use crate::error::NatsError;
use crate::eviction::NodeSaid;
use crate::system::System;

/// Subject of the question, in the system account.
const ASK: &str = "unibus.eviction.ask";
/// Subject of the word that it is over.
const OVER: &str = "unibus.eviction.over";
/// Subject of the question what every daemon knows of its own server.
const WHO: &str = "unibus.eviction.who";
/// How long a consent holds after it was last asked for.
const HOLDS: Duration = Duration::from_secs(60);

/// The question, and the word that it is over.
#[derive(Debug, Serialize, Deserialize)]
struct Asked {
    server: String,
}

/// An answer.
#[derive(Debug, Serialize, Deserialize)]
struct Answer {
    server: String,
    /// Why not; none is consent.
    refused: Option<String>,
}

/// What this daemon has promised, and what it does itself.
#[derive(Debug, Default)]
pub(crate) struct Promises {
    own: bool,
    given: Option<(String, Instant)>,
}

impl Promises {
    /// Begins an eviction of its own.
    ///
    /// # Errors
    /// Why not.
    fn begin(&mut self, now: Instant) -> Result<(), String> {
        if self.own {
            return Err("an eviction of this node is under way".to_owned());
        }
        if let Some((server, at)) = &self.given
            && now.duration_since(*at) < HOLDS
        {
            return Err(format!("an eviction of `{server}` is under way"));
        }
        self.own = true;
        Ok(())
    }

    /// Answers another daemon.
    fn answer(&mut self, asker: &str, now: Instant) -> Result<(), String> {
        if self.own {
            return Err("its own eviction is under way".to_owned());
        }
        match &self.given {
            Some((server, at)) if server != asker && now.duration_since(*at) < HOLDS => {
                Err(format!("an eviction of `{server}` is under way"))
            }
            _ => {
                self.given = Some((asker.to_owned(), now));
                Ok(())
            }
        }
    }

    fn over(&mut self, asker: &str) {
        self.given.take_if(|(server, _)| server == asker);
    }
}

/// Asks the other daemons, and answers them.
#[derive(Debug)]
pub struct Consent {
    server: String,
    system: System,
    promises: Arc<Mutex<Promises>>,
    answering: JoinHandle<()>,
}

impl Drop for Consent {
    fn drop(&mut self) {
        self.answering.abort();
    }
}

/// This daemon's own eviction; over when it is dropped.
#[derive(Debug)]
pub struct Begun(Arc<Mutex<Promises>>);

impl Drop for Begun {
    fn drop(&mut self) {
        lock(&self.0).own = false;
    }
}

fn lock(promises: &Mutex<Promises>) -> MutexGuard<'_, Promises> {
    promises.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Consent {
    /// Answers from now on, for the server of this name. Must be called in a runtime.
    ///
    /// # Errors
    /// [`NatsError::System`].
    pub async fn start(
        server: &str,
        system: System,
        know: impl Fn() -> NodeSaid + Send + 'static,
    ) -> Result<Self, NatsError> {
        let failed = |error: async_nats::SubscribeError| NatsError::System {
            step: "listen to the other daemons",
            source: std::io::Error::other(error.to_string()),
        };
        let client = system.client().clone();
        let mut asked = client.subscribe(ASK).await.map_err(failed)?;
        let mut over = client.subscribe(OVER).await.map_err(failed)?;
        let mut who = client.subscribe(WHO).await.map_err(failed)?;
        let promises = Arc::new(Mutex::new(Promises::default()));
        let (own, of_task) = (server.to_owned(), Arc::clone(&promises));
        let answering = tokio::spawn(async move {
            loop {
                tokio::select! {
                    Some(message) = asked.next() => {
                        if let Some((to, answer)) = reply(&own, &of_task, &message) {
                            // Who is not answered does not begin.
                            let _unheard = client.publish(to, answer.into()).await;
                        }
                    }
                    Some(message) = over.next() => {
                        if let Ok(Asked { server }) = serde_json::from_slice(&message.payload) {
                            lock(&of_task).over(&server);
                        }
                    }
                    Some(message) = who.next() => {
                        if let (Some(to), Ok(said)) = (message.reply, serde_json::to_vec(&know())) {
                            let _unheard = client.publish(to, said.into()).await;
                        }
                    }
                    else => break,
                }
            }
        });
        Ok(Self { server: server.to_owned(), system, promises, answering })
    }

    /// Begins an eviction of this daemon's own: from now on it consents to no other.
    ///
    /// # Errors
    /// Why not.
    pub fn begin(&self) -> Result<Begun, String> {
        lock(&self.promises).begin(Instant::now())?;
        Ok(Begun(Arc::clone(&self.promises)))
    }

    /// Asks all others; asked again, a consent is renewed.
    ///
    /// # Errors
    /// Who refuses and why, or that not all have answered.
    pub async fn ask(&self, others: usize, within: Duration) -> Result<(), String> {
        let question = Asked { server: self.server.clone() };
        let body = serde_json::to_value(&question).unwrap_or_default();
        let deadline = tokio::time::Instant::now() + within;
        let own = self.server.clone();
        let is_other = |answer: &Answer| answer.server != own;
        let answers: Vec<Answer> = self.system.gather(ASK, &body, others, deadline, is_other).await;
        for answer in &answers {
            if let Some(why) = &answer.refused {
                return Err(format!("`{}` does not consent: {why}", answer.server));
            }
        }
        if answers.len() == others {
            return Ok(());
        }
        let names: Vec<_> = answers.iter().map(|answer| answer.server.as_str()).collect();
        Err(format!("{} of {others} other daemons consent ({})", names.len(), names.join(", ")))
    }

    /// What every daemon, this one included, knows of its own server; by the names of the nodes.
    pub async fn nodes(&self, wanted: usize, within: Duration) -> Vec<NodeSaid> {
        let deadline = tokio::time::Instant::now() + within;
        let body = serde_json::Value::Null;
        let mut said: Vec<NodeSaid> = self.system.gather(WHO, &body, wanted, deadline, |_| true).await;
        said.sort_by(|one, other| one.node.cmp(&other.node));
        said
    }

    /// Says that it is over.
    pub async fn over(&self) {
        let word = serde_json::to_vec(&Asked { server: self.server.clone() }).unwrap_or_default();
        // Unheard, the promise ends by itself.
        let _unheard = self.system.client().publish(OVER, word.into()).await;
        let _unheard = self.system.client().flush().await;
    }
}

/// The answer, and where it goes; none to what this daemon itself has asked.
fn reply(own: &str, promises: &Mutex<Promises>, message: &Message) -> Option<(async_nats::Subject, Vec<u8>)> {
    let to = message.reply.clone()?;
    let Asked { server } = serde_json::from_slice(&message.payload).ok()?;
    if server == own {
        return None;
    }
    let refused = lock(promises).answer(&server, Instant::now()).err();
    Some((to, serde_json::to_vec(&Answer { server: own.to_owned(), refused }).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_that_begin_at_once_each_refuses_the_other() {
        let (mut one, mut other, now) = (Promises::default(), Promises::default(), Instant::now());
        one.begin(now).unwrap();
        other.begin(now).unwrap();
        assert!(one.answer("other", now).is_err() && other.answer("one", now).is_err());
        assert!(one.begin(now).is_err(), "twice on one node");
    }

    #[test]
    fn a_promise_holds_until_it_is_over_or_old() {
        let (mut promises, now) = (Promises::default(), Instant::now());
        promises.answer("a", now).unwrap();
        assert!(promises.begin(now).is_err() && promises.answer("b", now).is_err());
        promises.answer("a", now).unwrap();
        promises.over("b");
        assert!(promises.answer("b", now).is_err());
        promises.over("a");
        promises.answer("b", now).unwrap();
        promises.begin(now + HOLDS).unwrap();
    }
}

//! The writer, against a server that answers what the test says.

use async_nats::{Client, Message, Subscriber};
use futures_util::StreamExt as _;

use unibus_keyfile::digest::StateDigest;

use super::*;
use crate::domain::{self, Change};
use crate::record::{RecordBytes, RecordId};
use crate::sealed_log::entry::{DocumentName, Opened};
use crate::sealed_log::fixture::{self, Site};
use crate::sealed_log::stream::Generation;
use crate::sealed_log::view::Item;
use crate::sealed_log::wire::Raw;
use crate::sealed_log::wire::tests::connect;
use crate::sealed_log::wire::tests::server::Server;

/// Time for what comes at once.
const SOON: Duration = Duration::from_secs(20);
/// Time in which nothing must come.
const A_WHILE: Duration = Duration::from_millis(400);

type Answered = oneshot::Receiver<Result<(), StoreError>>;

/// A writer that nobody has started, and everything around it.
struct Stage {
    _server: Server,
    client: Client,
    asked: Subscriber,
    shared: Arc<Shared>,
    send: mpsc::Sender<Job>,
    writer: Option<Writer>,
}

impl Stage {
    async fn new() -> Self {
        let server = Server::with("").await;
        let client = async_nats::connect(server.url()).await.unwrap();
        let mut asked = client.subscribe("$KV.>").await.unwrap();
        // The server has the subscription when it sends what came behind it.
        client.publish("$KV.ready", "".into()).await.unwrap();
        asked.next().await.unwrap();
        let shared = Arc::new(Site::new().shared(None));
        let (send, jobs) = mpsc::channel(16);
        let writer = Writer {
            shared: Arc::clone(&shared),
            wire: connect(&server.url()).await,
            node: fixture::node("alpha"),
            jobs,
            beat_every: None,
            replicas: 3,
            streak: 0,
            ended: 0,
        };
        Self { _server: server, client, asked, shared, send, writer: Some(writer) }
    }

    fn start(&mut self) {
        tokio::spawn(self.writer.take().unwrap().run());
    }

    fn ask(&self, work: Work) -> Answered {
        let (answer, answered) = oneshot::channel();
        self.send.try_send(Job { work, answer, deadline: Instant::now() + SOON }).unwrap();
        answered
    }

    /// The next message that is published.
    async fn published(&mut self) -> Message {
        tokio::time::timeout(SOON, self.asked.next()).await.unwrap().unwrap()
    }

    async fn assert_publishes_nothing(&mut self) {
        let more = tokio::time::timeout(A_WHILE, self.asked.next()).await;
        assert!(more.is_err(), "{more:?}");
    }

    async fn answer(&self, message: &Message, answer: String) {
        self.client.publish(message.reply.clone().unwrap(), answer.into()).await.unwrap();
    }

    async fn acknowledge(&self, message: &Message, sequence: u64) {
        self.answer(message, format!(r#"{{"stream":"KV_UNIBUS_control","seq":{sequence}}}"#)).await;
    }

    /// Lets the view see a message at a sequence.
    fn stands(&self, message: &Message, sequence: u64) {
        let (subject, payload) = (message.subject.to_string(), message.payload.clone());
        self.shared.take(&[Raw { sequence, subject, payload, foreign_header: None, pending: 0 }]).unwrap();
    }

    /// Lets the view see another node's heartbeat, over no records.
    fn another_stands(&self, sequence: u64) {
        self.shared.take_own(sequence, vec![(beat("beta", 1), [9; 20])]).unwrap();
    }

    /// Lets the view see that another node has removed what [`add`] adds.
    fn is_removed_at(&self, sequence: u64, number: u32) {
        let content = Content::Record { id: RecordId::User(fixture::sign(number)), bytes: None };
        let plan = self.plan(&[]).unwrap();
        self.shared.take_own(sequence, vec![(item(&plan, content, StateDigest::EMPTY), [9; 20])]).unwrap();
    }

    fn plan(&self, group: &[Job]) -> Option<Plan> {
        Plan::over(&self.shared, group.iter(), false)
    }
}

fn sealed(mut plan: Plan) -> Ready {
    let sealed = Arc::new(plan.seal(|| own_beat("alpha")).unwrap());
    Ready { plan, sealed }
}

/// What stands at the first place of a plan, if `digest_after` is what it says.
fn item(plan: &Plan, content: Content, digest_after: StateDigest) -> Item {
    Item::Entry(Opened { content, digest_after, epoch: plan.codec.primary(), hash: None })
}

fn own_beat(node: &str) -> Content {
    let heartbeat = Heartbeat {
        at: fixture::at(1),
        keyring_version: 1,
        keyring_hash: unibus_keyfile::id::DocumentHash::from_bytes([1; 32]),
    };
    Content::Heartbeat { node: fixture::node(node), heartbeat }
}

fn beat(node: &str, epoch: u32) -> Item {
    let content = own_beat(node);
    let epoch = unibus_keyfile::id::Epoch::from_stored(epoch).unwrap();
    Item::Entry(Opened { content, digest_after: StateDigest::EMPTY, epoch, hash: None })
}

fn add(number: u32) -> Work {
    let user = fixture::user(number);
    Work::Transaction(Box::new(move |view| domain::add_user(view, &domain::Actor::Operator, &user)))
}

/// Something that the rules refuse.
fn refused() -> Work {
    Work::Transaction(Box::new(|_| Err(StoreError::NotAuthorized)))
}

/// A transaction that changes so many records.
fn many(count: u32) -> Work {
    Work::Transaction(Box::new(move |_| {
        let change = |number| {
            let id = RecordId::User(fixture::sign(number));
            let after: Option<RecordBytes> = Some(fixture::bytes(&id, 1));
            Change { id, before: None, after }
        };
        Ok((0..count).map(change).collect())
    }))
}

fn document() -> Sealed {
    Sealed { subject: DocumentName::Nodeset.subject(Generation::FIRST), payload: vec![1; 300].into() }
}

fn job(work: Work) -> Job {
    Job { work, answer: oneshot::channel().0, deadline: Instant::now() + SOON }
}

async fn outcome(answered: Answered) -> Result<(), StoreError> {
    tokio::time::timeout(SOON, answered).await.unwrap().unwrap()
}

fn expected(message: &Message) -> String {
    message.headers.as_ref().unwrap().get("Nats-Expected-Last-Sequence").unwrap().to_string()
}

#[tokio::test]
async fn what_an_old_leader_refuses_and_a_new_one_stores_is_written_once() {
    let mut stage = Stage::new().await;
    stage.start();
    let answered = stage.ask(add(1));
    let message = stage.published().await;
    stage.stands(&message, 1);
    let refusal =
        r#"{"error":{"code":400,"err_code":10071,"description":"wrong last sequence"},"stream":"","seq":0}"#;
    stage.answer(&message, refusal.to_owned()).await;
    outcome(answered).await.unwrap();
    stage.assert_publishes_nothing().await;
}

#[tokio::test]
async fn a_write_in_whose_place_another_stands_is_done_again() {
    let mut stage = Stage::new().await;
    stage.start();
    let answered = stage.ask(add(1));
    let message = stage.published().await;
    stage.another_stands(1);
    stage.answer(&message, "nobody knows".to_owned()).await;
    let again = stage.published().await;
    assert_eq!((expected(&message).as_str(), expected(&again).as_str()), ("0", "1"));
    stage.acknowledge(&again, 2).await;
    outcome(answered).await.unwrap();
    assert_eq!(stage.shared.state().census().users, 1);
}

#[tokio::test]
async fn a_write_that_nobody_answers_is_found_among_all_attempts() {
    let mut stage = Stage::new().await;
    stage.start();
    let answered = stage.ask(add(1));
    let first = stage.published().await;
    stage.answer(&first, "nobody knows".to_owned()).await;
    let second = stage.published().await;
    assert_eq!(expected(&first), expected(&second), "only one of them can be stored");
    stage.stands(&first, 1);
    stage.answer(&second, "nobody knows".to_owned()).await;
    outcome(answered).await.unwrap();
    stage.assert_publishes_nothing().await;
}

#[tokio::test]
async fn a_write_whose_place_was_superseded_unseen_is_not_done_again_and_not_called_done() {
    let mut stage = Stage::new().await;
    stage.start();
    let answered = stage.ask(add(1));
    let message = stage.published().await;
    stage.is_removed_at(2, 1);
    stage.answer(&message, "nobody knows".to_owned()).await;
    let error = outcome(answered).await.unwrap_err();
    assert!(error.to_string().contains("cannot be known"), "{error}");
    stage.assert_publishes_nothing().await;
}

/// Nothing about the user stands there or behind: so what was superseded was not this write.
#[tokio::test]
async fn a_write_that_has_left_nothing_is_done_again_although_its_place_was_superseded_unseen() {
    let mut stage = Stage::new().await;
    stage.start();
    let answered = stage.ask(add(1));
    let message = stage.published().await;
    stage.another_stands(2);
    stage.answer(&message, "nobody knows".to_owned()).await;
    let message = stage.published().await;
    stage.acknowledge(&message, 3).await;
    outcome(answered).await.unwrap();
}

#[tokio::test]
async fn a_refusal_of_a_group_stays_one_whether_it_was_acknowledged_or_found() {
    for is_acknowledged in [true, false] {
        let mut stage = Stage::new().await;
        let (added, denied) = (stage.ask(add(1)), stage.ask(refused()));
        stage.start();
        let message = stage.published().await;
        if is_acknowledged {
            stage.acknowledge(&message, 1).await;
        } else {
            stage.stands(&message, 1);
            stage.answer(&message, "nobody knows".to_owned()).await;
        }
        outcome(added).await.unwrap();
        assert!(matches!(outcome(denied).await, Err(StoreError::NotAuthorized)));
    }
}

#[tokio::test]
async fn a_refusal_is_told_only_when_the_view_was_proven_current() {
    let mut stage = Stage::new().await;
    stage.start();
    let mut denied = stage.ask(refused());
    let message = stage.published().await;
    assert!(tokio::time::timeout(A_WHILE, &mut denied).await.is_err());
    assert_eq!(stage.shared.age(), None);
    stage.acknowledge(&message, 1).await;
    assert!(matches!(outcome(denied).await, Err(StoreError::NotAuthorized)));
    // The proof is as old as what was sent, not as its acknowledgement.
    assert!(stage.shared.age().unwrap() >= A_WHILE);
}

#[tokio::test]
async fn an_attempt_that_may_still_win_is_followed_by_one_of_the_same_jobs() {
    let stage = Stage::new().await;
    let plan = stage.plan(&[job(add(1)), job(refused())]).unwrap();
    let mut attempts = Attempts::default();
    assert_eq!(attempts.jobs(), usize::MAX);
    attempts.remember(sealed(plan));
    assert_eq!(attempts.jobs(), 2);
}

#[tokio::test]
async fn a_group_has_as_many_entries_as_one_batch() {
    let stage = Stage::new().await;
    assert_eq!(stage.plan(&[job(many(300)), job(many(200))]).unwrap().jobs(), 2);
    assert_eq!(stage.plan(&[job(many(300)), job(many(201)), job(add(1))]).unwrap().jobs(), 1);
    assert_eq!(stage.plan(&[job(many(1000))]).unwrap().entries.len(), 1000);
    let too_much = stage.plan(&[job(many(1001)), job(add(1))]).unwrap();
    assert!(matches!(too_much.outcomes[..], [Err(StoreError::Invalid { .. }), Ok(())]));
    assert_eq!(too_much.entries.len(), 1);
}

#[tokio::test]
async fn a_document_goes_last_behind_a_heartbeat_and_follows_what_stands_there() {
    let stage = Stage::new().await;
    stage.another_stands(1);
    let document = || job(Work::Document(Box::new(|_, _| Ok(Some(document())))));
    let alone = sealed(stage.plan(&[document(), job(add(1))]).unwrap());
    assert!(alone.plan.document.is_some() && alone.plan.jobs() == 1);
    assert!(matches!(&alone.plan.entries[..], [entry] if matches!(entry.content, Content::Heartbeat { .. })));
    assert_eq!(alone.sealed.len(), 2);
    let behind = stage.plan(&[job(add(1)), document()]).unwrap();
    assert!(behind.document.is_none() && behind.jobs() == 1);
    let made_from: Make = Box::new(|documents, state| {
        assert_eq!((documents.keyring.version(), state.sequence()), (1, 1));
        Err(StoreError::NotAuthorized)
    });
    let refused = stage.plan(&[job(Work::Document(made_from))]).unwrap();
    assert!(refused.document.is_none());
    assert!(matches!(refused.outcomes[..], [Err(StoreError::NotAuthorized)]));
}

#[tokio::test]
async fn nothing_is_written_from_a_view_that_is_not_one_of_the_logs() {
    let stage = Stage::new().await;
    let plan = stage.plan(&[job(add(1)), job(add(2))]).unwrap();
    assert!(matches!(plan.entries[0].content, Content::Record { .. }));
    // The first half of that write.
    let half = item(&plan, plan.entries[0].content.clone(), plan.entries[1].digest);
    stage.shared.take_own(1, vec![(half, [1; 20])]).unwrap();
    assert!(stage.plan(&[job(add(3))]).is_none());
}

#[tokio::test]
async fn while_an_import_is_under_way_nothing_else_is_written() {
    let stage = Stage::new().await;
    let plan = stage.plan(&[]).unwrap();
    let mark = item(&plan, Content::Import { open: true }, StateDigest::EMPTY);
    stage.shared.take_own(1, vec![(mark, [1; 20])]).unwrap();
    let outcomes = |stage: &Stage| stage.plan(&[job(add(1))]).unwrap().outcomes;
    assert!(matches!(outcomes(&stage)[..], [Err(StoreError::Unavailable { .. })]));
    stage.shared.set_importing(true);
    assert!(matches!(outcomes(&stage)[..], [Ok(())]));
}

#[tokio::test]
async fn an_import_begins_only_where_there_never_was_a_record() {
    let stage = Stage::new().await;
    let open = || job(Work::Control(Content::Import { open: true }));
    let plan = stage.plan(&[job(add(1))]).unwrap();
    assert!(matches!(stage.plan(&[open()]).unwrap().outcomes[..], [Ok(())]));
    let record = item(&plan, plan.entries[0].content.clone(), plan.entries[0].digest);
    stage.shared.take_own(1, vec![(record, [1; 20])]).unwrap();
    let outcomes = stage.plan(&[open()]).unwrap().outcomes;
    assert!(matches!(outcomes[..], [Err(StoreError::NotEmpty { records: 1 })]));
}

#[tokio::test]
async fn an_own_write_that_does_not_fit_the_view_ends_all_answers() {
    let mut stage = Stage::new().await;
    let mut ready = sealed(stage.plan(&[job(add(1))]).unwrap());
    // Somebody has changed the keys, which the plan did not know.
    stage.shared.take_own(1, vec![(beat("beta", 2), [1; 20])]).unwrap();
    let (answer, answered) = oneshot::channel();
    let mut group = VecDeque::from([Job { work: add(1), answer, deadline: Instant::now() + SOON }]);
    ready.plan.at = 1;
    assert!(!stage.writer.as_mut().unwrap().done(&mut group, ready));
    assert!(matches!(outcome(answered).await, Err(StoreError::Poisoned { .. })));
    assert!(stage.shared.verdict().is_some());
}

#[tokio::test]
async fn nobody_waits_beyond_the_deadline_of_a_write() {
    let mut late = job(add(1));
    late.deadline = Instant::now();
    assert!(!pause(&VecDeque::from([job(add(2)), late])).await);
    assert!(!pause(&VecDeque::new()).await);
    assert!(pause(&VecDeque::from([job(add(2))])).await);
}

#[tokio::test]
async fn the_next_group_is_sent_when_the_first_is_acknowledged_and_sees_what_it_wrote() {
    let mut stage = Stage::new().await;
    stage.start();
    let first = stage.ask(add(1));
    let message = stage.published().await;
    let (second, again) = (stage.ask(add(2)), stage.ask(add(1)));
    stage.assert_publishes_nothing().await;
    stage.acknowledge(&message, 1).await;
    outcome(first).await.unwrap();
    let next = stage.published().await;
    assert_eq!(next.headers.as_ref().unwrap().get("Nats-Expected-Last-Sequence").unwrap().as_str(), "1");
    stage.acknowledge(&next, 2).await;
    outcome(second).await.unwrap();
    // It was refused over a user that was on its way, and told so when that user was there for certain.
    assert!(matches!(outcome(again).await, Err(StoreError::AlreadyExists { .. })));
    assert_eq!(stage.shared.sequence(), 2);
}

#[tokio::test]
async fn what_was_made_behind_a_group_that_is_not_stored_is_made_anew() {
    let mut stage = Stage::new().await;
    stage.start();
    let first = stage.ask(add(1));
    let message = stage.published().await;
    // Refused if the first is stored, and right if it is not: it must not be answered from what never happened.
    let (second, again) = (stage.ask(add(2)), stage.ask(add(1)));
    stage.assert_publishes_nothing().await;
    stage.another_stands(1);
    let refusal = r#"{"stream":"KV_UNIBUS_control","error":{"code":400,"err_code":10071,"description":"wrong last sequence"}}"#;
    stage.answer(&message, refusal.to_owned()).await;
    let batch: Vec<_> = vec![stage.published().await, stage.published().await];
    assert_eq!(batch[0].headers.as_ref().unwrap().get("Nats-Expected-Last-Sequence").unwrap().as_str(), "1");
    let id = batch[0].headers.as_ref().unwrap().get("Nats-Batch-Id").unwrap().as_str().to_owned();
    let ack = format!(r#"{{"stream":"KV_UNIBUS_control","seq":3,"batch":"{id}","count":2}}"#);
    stage.answer(&batch[1], ack).await;
    outcome(first).await.unwrap();
    outcome(second).await.unwrap();
    assert!(matches!(outcome(again).await, Err(StoreError::AlreadyExists { .. })));
    assert_eq!(stage.shared.sequence(), 3);
}

#[tokio::test]
async fn a_node_that_writes_alone_follows_again_when_it_pauses_or_meets_another() {
    let mut stage = Stage::new().await;
    let mut alone = stage.shared.alone.subscribe();
    stage.start();
    for sequence in 1..=u64::from(ALONE_AFTER) {
        assert!(!alone.has_changed().unwrap());
        let written = stage.ask(add(u32::try_from(sequence).unwrap()));
        let message = stage.published().await;
        stage.acknowledge(&message, sequence).await;
        outcome(written).await.unwrap();
    }
    assert!(alone.has_changed().unwrap());
    tokio::time::timeout(SOON, alone.wait_for(|alone| !alone)).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_verdict_ends_a_write_at_once_and_a_doubt_only_delays_it() {
    let mut stage = Stage::new().await;
    stage.start();
    stage.shared.doubt(Some("something".into()));
    let answered = stage.ask(add(1));
    stage.assert_publishes_nothing().await;
    stage.shared.doubt(None);
    let message = stage.published().await;
    stage.acknowledge(&message, 1).await;
    outcome(answered).await.unwrap();
    stage.shared.doubt(Some("something".into()));
    let verdict = super::super::shared::Verdict::Tampered {
        sequence: unibus_keyfile::id::Sequence(1),
        what: "something".into(),
    };
    stage.shared.condemn(verdict);
    let begun = Instant::now();
    let error = outcome(stage.ask(add(2))).await.unwrap_err();
    assert!(matches!(error, StoreError::Tampered { .. }), "{error:?}");
    assert!(begun.elapsed() < SOON / 2, "{:?}", begun.elapsed());
    stage.assert_publishes_nothing().await;
}

#[tokio::test]
async fn a_node_that_shares_the_log_with_others_is_not_alone() {
    let mut stage = Stage::new().await;
    let alone = stage.shared.alone.subscribe();
    stage.start();
    // Without a conflict: each write of another is seen before the next of ours.
    for number in 1..=u64::from(ALONE_AFTER) + 1 {
        stage.another_stands(2 * number - 1);
        let written = stage.ask(refused());
        let message = stage.published().await;
        stage.acknowledge(&message, 2 * number).await;
        assert!(matches!(outcome(written).await, Err(StoreError::NotAuthorized)));
    }
    assert!(!alone.has_changed().unwrap());
}

//! `approve`: enrols nodes.

use serde_json::json;
use unibus_keyfile::{error::DocumentError, file, id::UnixTime, nodeset::Nodeset, request::Request};

use super::nodeset::{SPREAD, Session, summary};
use crate::{
    cli::Approve,
    error::Failure,
    output::{self, Answer},
};

enum Change {
    Adds,
    Replaces { old: String, vouched: bool },
    Nothing,
}

impl Change {
    fn of(request: &Request, nodeset: &Nodeset) -> Self {
        let asked = request.member();
        let Some(present) = nodeset.nodes().iter().find(|node| node.name == asked.name) else {
            return Self::Adds;
        };
        if present.signing_public == asked.signing_public && present.wrapping_public == asked.wrapping_public
        {
            return Self::Nothing;
        }
        let vouched = request.is_vouched_for_by(&present.signing_public);
        Self::Replaces { old: present.fingerprint().to_string(), vouched }
    }

    const fn name(&self) -> &'static str {
        match self {
            Self::Adds => "adds",
            Self::Replaces { .. } => "replaces",
            Self::Nothing => "nothing",
        }
    }

    fn describe(&self, request: &Request) -> String {
        let (name, fingerprint) = (&request.member().name, request.fingerprint());
        let cluster = request.cluster();
        match self {
            Self::Adds => format!("adds node `{name}`: {fingerprint} (asks to join {cluster})"),
            Self::Nothing => format!("node `{name}` is listed with these keys already: {fingerprint}"),
            Self::Replaces { old, vouched: true } => {
                format!(
                    "replaces the keys of node `{name}`: {old} becomes {fingerprint} (signed by the old key too)"
                )
            }
            Self::Replaces { old, vouched: false } => format!(
                "REPLACES the keys of node `{name}`: {old} becomes {fingerprint}, and the old key did NOT sign this; \
                 make sure that the node itself asks"
            ),
        }
    }
}

pub(crate) fn run(args: &Approve, now: UnixTime) -> Result<Answer, Failure> {
    let session = Session::open(&args.signing)?;
    let mut plan = session.nodeset.next();
    let mut changes: Vec<(Request, Change)> = Vec::new();
    for path in &args.requests {
        let origin = format!("`{}`", path.display());
        let refused = |source| Failure::Document { origin: origin.clone(), source };
        let bytes = file::read_document(path)?;
        let request = Request::parse(&String::from_utf8_lossy(&bytes)).map_err(refused)?;
        if request.cluster() != session.nodeset.cluster() {
            let (expected, found) = (*session.nodeset.cluster(), *request.cluster());
            return Err(refused(DocumentError::Cluster { document: "request", expected, found }));
        }
        let name = &request.member().name;
        if changes.iter().any(|(earlier, _)| earlier.member().name == *name) {
            return Err(Failure::Name(name.clone(), "is asked for by two requests"));
        }
        let change = Change::of(&request, &session.nodeset);
        output::say(&change.describe(&request));
        if !matches!(change, Change::Nothing) {
            let mut member = request.member().clone();
            member.since = now;
            plan = plan.with_node(member);
        }
        changes.push((request, change));
    }
    let listed = |(request, change): &(Request, Change)| {
        json!({
            "name": request.member().name.as_str(), "fingerprint": request.fingerprint().to_string(),
            "change": change.name(),
        })
    };
    let requests: Vec<_> = changes.iter().map(listed).collect();
    if changes.iter().all(|(_, change)| matches!(change, Change::Nothing)) {
        let json =
            json!({ "requests": requests, "nodeset": summary(&session.nodeset, &args.signing.nodeset) });
        return Ok(Answer { text: "nothing to do\n".into(), json });
    }
    let replaced = changes.iter().any(|(_, change)| matches!(change, Change::Replaces { .. }));
    let next = session.commit(plan, "Are these the fingerprints that the nodes show?")?;
    let mut text = format!("nodeset:  version {}, {}\n\nNext: {SPREAD}.\n", next.version(), next.hash());
    if replaced {
        text.push_str(
            "A replaced key has seen the present epoch key: if it is lost or in other hands, run \
             `unibus-migrate rotate epoch` afterwards.\n",
        );
    }
    let nodeset = summary(&next, &args.signing.nodeset);
    Ok(Answer { text, json: json!({ "requests": requests, "nodeset": nodeset, "replaced": replaced }) })
}

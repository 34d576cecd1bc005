//! `generate`, `request`, `rotate`, `retire`: a node's own key file.

use serde_json::json;
use unibus_keyfile::{
    durable::{self, Sync},
    file,
    id::UnixTime,
    node_key::{NodeKey, NodeKeyFile},
    nodeset::Nodeset,
    request::Request,
};

use crate::{
    cli,
    error::Failure,
    output::{self, Answer},
};

pub(crate) fn generate(args: cli::Generate) -> Result<Answer, Failure> {
    let own = NodeKeyFile::generate(args.name, args.cluster);
    durable::create_new(&args.out, own.to_text().as_bytes(), 0o600)?;
    let (name, fingerprint) = (own.name(), fingerprint(&own));
    let path = args.out.display();
    let text = format!(
        "node:     {name}\ncluster:  {}\nkey:      {fingerprint}  {path}\n\n\
         Next: unibus-key request {path} --out {name}.request, and send that to the operator.\n",
        own.cluster(),
    );
    let json = json!({
        "name": name.as_str(), "cluster": own.cluster().to_string(), "fingerprint": fingerprint, "file": args.out,
    });
    Ok(Answer { text, json })
}

pub(crate) fn request(args: &cli::Request, now: UnixTime) -> Result<Answer, Failure> {
    let own = NodeKeyFile::load(&args.file)?;
    let made = Request::make(&own, now);
    let request = made.map_err(|source| Failure::Document { origin: "the new request".into(), source })?;
    let (armoured, fingerprint) = (request.to_text(), request.fingerprint());
    let next = format!(
        "The operator runs `unibus-key approve`. Compare this fingerprint by voice: {fingerprint} (node `{}`)",
        own.name(),
    );
    let text = match &args.out {
        Some(out) => {
            durable::create_new(out, armoured.as_bytes(), 0o644)?;
            format!("request:  {}\n{next}\n", out.display())
        }
        None => {
            output::say(&next);
            armoured.clone()
        }
    };
    let json = json!({
        "name": own.name().as_str(), "cluster": own.cluster().to_string(),
        "fingerprint": fingerprint.to_string(), "file": args.out, "request": armoured,
    });
    Ok(Answer { text, json })
}

pub(crate) fn rotate(args: &cli::Rotate) -> Result<Answer, Failure> {
    let mut own = NodeKeyFile::load(&args.file)?;
    own.rotate()?;
    durable::replace(&args.file, own.to_text().as_bytes(), 0o600, Sync::Disk)?;
    let path = args.file.display();
    let (current, earlier) = (fingerprint(&own), earlier(&own));
    let text = format!(
        "node:     {}\ncurrent:  {current}  {path}\nearlier:  {}\n\n\
         Next:\n\
         1. unibus-key request {path} --out {name}.request; the operator approves it.\n\
         2. kill -HUP the daemon of the node, which reads its key file again; then put the new nodeset in place of\n\
         \u{20}  its --nodeset file: it wraps the keyring to the new key, without a restart.\n\
         3. unibus-key retire {path} --nodeset NODESET; kill -HUP the daemon once more.\n\
         `unibus-migrate rotate node` does all of this, and waits until other nodes have confirmed it.\n",
        own.name(),
        earlier.join(", "),
        name = own.name(),
    );
    let json = json!({
        "name": own.name().as_str(), "current": current, "earlier": earlier, "file": args.file,
    });
    Ok(Answer { text, json })
}

pub(crate) fn retire(args: &cli::Retire) -> Result<Answer, Failure> {
    let mut own = NodeKeyFile::load(&args.file)?;
    let current = fingerprint(&own);
    if own.slots().len() < 2 {
        let text = format!("nothing to retire: {current} is the only key of `{}`\n", args.file.display());
        return Ok(Answer { text, json: json!({ "current": current, "retired": [], "file": args.file }) });
    }
    match &args.nodeset {
        Some(path) => {
            let read = Nodeset::decode(&file::read_document(path)?, own.cluster());
            let origin = format!("`{}`", path.display());
            let nodeset = read.map_err(|source| Failure::Document { origin, source })?;
            let is_listed = |slot: &NodeKey| nodeset.node_of(slot.signing_public()).is_some();
            if !own.slots().first().is_some_and(is_listed) {
                return Err(Failure::NotListed(args.file.clone()));
            }
        }
        None => {
            output::say(&format!(
                "This drops {} from `{}`. A keyring, witness or nodeset that still needs one of them then opens \
                 with the operator key only. (--nodeset FILE checks the nodeset.)",
                earlier(&own).join(", "),
                args.file.display(),
            ));
            output::confirm("Drop the earlier keys?", args.yes)?;
        }
    }
    let retired: Vec<String> = own.retire().iter().map(ToString::to_string).collect();
    durable::replace(&args.file, own.to_text().as_bytes(), 0o600, Sync::Disk)?;
    let text = format!("current:  {current}  {}\nretired:  {}\n", args.file.display(), retired.join(", "));
    Ok(Answer { text, json: json!({ "current": current, "retired": retired, "file": args.file }) })
}

fn fingerprint(own: &NodeKeyFile) -> String {
    own.slots().first().map(|slot| slot.fingerprint().to_string()).unwrap_or_default()
}

fn earlier(own: &NodeKeyFile) -> Vec<String> {
    own.slots().iter().skip(1).map(NodeKey::fingerprint).map(|f| f.to_string()).collect()
}

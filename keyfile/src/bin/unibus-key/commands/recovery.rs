//! `recovery generate` and `recovery add`: further recovery recipients.

use std::path::{Path, PathBuf};

use serde_json::json;
use unibus_keyfile::{
    durable,
    error::KeyError,
    file,
    nodeset::{OPERATOR, Recovery},
    operator_key::ExtraRecoveryKey,
    recovery,
};

use super::nodeset::{SPREAD, Session, summary};
use crate::{
    cli::RecoveryAdd,
    error::Failure,
    output::{self, Answer},
};

pub(crate) fn generate(out: &Path) -> Result<Answer, Failure> {
    let key = ExtraRecoveryKey::generate();
    let mut public = out.as_os_str().to_owned();
    public.push(".pub");
    let public = PathBuf::from(public);
    if public.symlink_metadata().is_ok() {
        return Err(KeyError::Exists { path: public }.into());
    }
    durable::create_new(out, key.to_text().as_bytes(), 0o600)?;
    durable::create_new(&public, recovery::to_text(key.public()).as_bytes(), 0o644)?;
    let fingerprint = key.public().fingerprint().to_string();
    let text = format!(
        "recovery key:  {fingerprint}  {}\npublic half:   {}\n\n\
         Next: keep the key offline and send the public half to the operator, who runs `unibus-key recovery add`. \
         Compare the fingerprint by voice.\n",
        out.display(),
        public.display(),
    );
    Ok(Answer { text, json: json!({ "fingerprint": fingerprint, "file": out, "public": public }) })
}

pub(crate) fn add(args: &RecoveryAdd) -> Result<Answer, Failure> {
    if args.name.as_str() == OPERATOR {
        return Err(Failure::Name(args.name.clone(), "is that of the operator key"));
    }
    let session = Session::open(&args.signing)?;
    let origin = format!("`{}`", args.public.display());
    let bytes = file::read_document(&args.public)?;
    let public = recovery::parse(&String::from_utf8_lossy(&bytes))
        .map_err(|source| Failure::Document { origin, source })?;
    let fingerprint = public.fingerprint().to_string();
    let present = session.nodeset.recovery().iter().find(|recovery| recovery.name == args.name);
    match present {
        Some(same) if same.wrapping_public == public => {
            let nodeset = summary(&session.nodeset, &args.signing.nodeset);
            let json = json!({ "name": args.name.as_str(), "fingerprint": fingerprint, "nodeset": nodeset });
            return Ok(Answer { text: "nothing to do\n".into(), json });
        }
        Some(other) => output::say(&format!(
            "replaces recovery recipient `{}`: {} becomes {fingerprint}",
            args.name,
            other.wrapping_public.fingerprint()
        )),
        None => output::say(&format!("adds recovery recipient `{}`: {fingerprint}", args.name)),
    }
    let plan =
        session.nodeset.next().with_recovery(Recovery { name: args.name.clone(), wrapping_public: public });
    let next = session.commit(plan, "Is this the fingerprint that its holder shows?")?;
    let text = format!(
        "recovery:  {} {fingerprint}\nnodeset:   version {}, {}\n\n\
         Next: {SPREAD}; the keyring is then wrapped to it too. Prove it with a drill.\n",
        args.name,
        next.version(),
        next.hash(),
    );
    let nodeset = summary(&next, &args.signing.nodeset);
    let json = json!({ "name": args.name.as_str(), "fingerprint": fingerprint, "nodeset": nodeset });
    Ok(Answer { text, json })
}

//! `sample`: a realistic plaintext source.

use serde_json::json;
use unibus_store::plaintext::sample::Sample;

use crate::cli::SampleArgs;
use crate::error::MigrateError;
use crate::open::Given;
use crate::output::{Answer, Output, row};
use crate::plain;
use crate::source::SampleOut;

/// Writes the sample.
///
/// # Errors
/// `Exists`, `Plaintext`, `Unproven`, `Identity`.
pub fn run(args: &SampleArgs, output: Output) -> Result<Answer, MigrateError> {
    let sample = Sample::new(args.users, args.rooms, args.seed);
    let mut progress = output.progress("sample", None);
    let counts = match &args.out {
        SampleOut::File(path) => {
            if path.symlink_metadata().is_ok() {
                return Err(MigrateError::Exists { path: path.clone() });
            }
            sample.write(path, &mut |done| progress.at(done))?
        }
        SampleOut::Buckets(servers) => {
            let buckets = plain::buckets(servers, Given::of_servers(&args.kv))?;
            let replicas = if args.replicas == "3" { 3 } else { 1 };
            sample.write_buckets(&buckets, replicas, &mut |done| progress.at(done))?
        }
    };
    progress.finish();
    let object = json!({
        "command": "sample", "out": args.out.to_string(), "seed": args.seed,
        "entries": {"users": counts.users, "rooms": counts.rooms, "members": counts.members, "room_keys": counts.room_keys},
        "records": counts.total(),
    });
    let lines = vec![
        row("sample", &args.out),
        row("users", counts.users),
        row("rooms", counts.rooms),
        row("members", counts.members),
        row("room keys", counts.room_keys),
    ];
    Ok(Answer::done(object, lines))
}

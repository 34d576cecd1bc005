//! `sample`: a realistic plaintext source.

use serde_json::json;
use unibus_store::plaintext::sample::Sample;

use crate::cli::SampleArgs;
use crate::error::MigrateError;
use crate::output::{Answer, Output, row};

/// Writes the sample.
///
/// # Errors
/// `Exists`, `Plaintext`.
pub fn run(args: &SampleArgs, output: Output) -> Result<Answer, MigrateError> {
    if args.out.symlink_metadata().is_ok() {
        return Err(MigrateError::Exists { path: args.out.clone() });
    }
    let mut progress = output.progress("sample", None);
    let counts =
        Sample::new(args.users, args.rooms, args.seed).write(&args.out, &mut |done| progress.at(done))?;
    progress.finish();
    let object = json!({
        "command": "sample", "out": args.out.display().to_string(), "seed": args.seed,
        "entries": {"users": counts.users, "rooms": counts.rooms, "members": counts.members, "room_keys": counts.room_keys},
        "records": counts.total(),
    });
    let lines = vec![
        row("sample", args.out.display()),
        row("users", counts.users),
        row("rooms", counts.rooms),
        row("members", counts.members),
        row("room keys", counts.room_keys),
    ];
    Ok(Answer::done(object, lines))
}

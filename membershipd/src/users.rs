//! The user commands: through the daemon that runs on the state folder, else in the store itself.

use std::{
    io::{self, Write},
    sync::Arc,
};

use unibus_membership_api::users::{AddUser, User as UserBody, UserRole as RoleBody};
use unibus_store::{
    error::StoreError,
    record::{User, UserRole},
    store::{Actor, Store, Strength},
};

use crate::{
    admin::{AdminClient, ReplicationBody, socket_path},
    boot::Place,
    cli::{Backend, KvArgs, Role, StoreArgs, UserCommand},
    clock::Clock,
    error::DaemonError,
    guards,
    http::user_body,
    kv::visit,
};

/// What a user command answers.
#[derive(Debug)]
enum Answer {
    Added(UserBody),
    Listed(Vec<UserBody>, Form),
    Revoked(UserBody),
}

/// What a user command answers, and after a write to the log which nodes have it.
struct Done(Answer, Option<ReplicationBody>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Table,
    Json,
}

/// Does a user command, and writes its answer to `output`. The node key is taken only by a command that opens the store
/// itself.
///
/// # Errors
/// [`DaemonError::UserExists`], [`DaemonError::NoSuchUser`], and what keeps daemon or store from answering.
pub fn run(
    command: &UserCommand,
    (args, kv): (&StoreArgs, &KvArgs),
    clock: &Arc<dyn Clock>,
    output: impl Write,
) -> Result<(), DaemonError> {
    guards::check_command(args, kv)?;
    let answer = match args.store {
        Backend::Kv if kv.internal_id_file.is_some() => in_log(command, (args, kv), clock)?,
        // The log has no other door: its server lets in the daemon alone.
        Backend::Kv => through_daemon(command, args)?
            .ok_or_else(|| DaemonError::NotRunning { path: socket_path(&args.state_dir) })?,
        // Asked on a thread of its own runtime that is gone before the key is taken from the environment.
        Backend::Sqlite => match through_daemon(command, args)? {
            Some(answer) => answer,
            None => in_store(command, (args, kv), clock)?,
        },
    };
    print(&answer, output).map_err(|source| DaemonError::Process { step: "write the answer", source })
}

fn runtime() -> Result<tokio::runtime::Runtime, DaemonError> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| DaemonError::Process { step: "start the runtime", source })
}

fn through_daemon(command: &UserCommand, args: &StoreArgs) -> Result<Option<Done>, DaemonError> {
    runtime()?.block_on(async {
        let Some(mut daemon) = AdminClient::connect(&args.state_dir).await? else { return Ok(None) };
        let answer = match command {
            UserCommand::Add { handle, sign_pub, role } => {
                let role = if *role == Role::Admin { RoleBody::Admin } else { RoleBody::Member };
                let (sign_pub, handle) = (sign_pub.to_string(), handle.as_str().to_owned());
                Answer::Added(daemon.add_user(&AddUser { sign_pub, handle, role }).await?)
            }
            UserCommand::List { json } => Answer::Listed(daemon.users().await?, form(*json)),
            UserCommand::Revoke { sign_pub } => {
                Answer::Revoked(daemon.revoke_user(&sign_pub.to_string()).await?)
            }
        };
        let wrote = !matches!(answer, Answer::Listed(..));
        let replication = if wrote { daemon.replication().await? } else { None };
        Ok(Some(Done(answer, replication)))
    })
}

fn in_store(
    command: &UserCommand,
    (args, kv): (&StoreArgs, &KvArgs),
    clock: &Arc<dyn Clock>,
) -> Result<Done, DaemonError> {
    let place = Place::prepare(args, kv, clock.as_ref())?;
    let (store, _) = place.open(clock.as_ref())?;
    let answer = in_backend(command, &store, clock.as_ref());
    drop(store);
    Ok(Done(answer?, None))
}

/// In the log of the running daemon, beside it.
fn in_log(
    command: &UserCommand,
    (args, kv): (&StoreArgs, &KvArgs),
    clock: &Arc<dyn Clock>,
) -> Result<Done, DaemonError> {
    let place = Place::prepare(args, kv, clock.as_ref())?;
    let log = visit(&place, kv, clock)?;
    let answer = in_backend(command, &log, clock.as_ref())?;
    let wrote = !matches!(answer, Answer::Listed(..));
    let replication = wrote.then(|| log.replication_now()).transpose()?;
    Ok(Done(answer, replication.as_ref().map(ReplicationBody::from)))
}

fn in_backend(command: &UserCommand, store: &impl Store, clock: &dyn Clock) -> Result<Answer, DaemonError> {
    runtime()?.block_on(async {
        match command {
            UserCommand::Add { handle, sign_pub, role } => {
                let role = if *role == Role::Admin { UserRole::Admin } else { UserRole::Member };
                let user = User::new(*sign_pub, handle.clone(), role, clock.now());
                match store.add_user(Actor::Operator, user.clone()).await {
                    Ok(()) => Ok(Answer::Added(user_body(&user))),
                    Err(StoreError::AlreadyExists { .. }) => Err(DaemonError::UserExists),
                    Err(error) => Err(error.into()),
                }
            }
            UserCommand::List { json } => {
                let users = store.users(Strength::Linearizable).await?;
                Ok(Answer::Listed(users.iter().map(user_body).collect(), form(*json)))
            }
            UserCommand::Revoke { sign_pub } => {
                match store.revoke_user(Actor::Operator, *sign_pub, clock.now()).await {
                    Ok(()) => {}
                    Err(StoreError::NotFound { .. }) => return Err(DaemonError::NoSuchUser),
                    Err(error) => return Err(error.into()),
                }
                let user = store.user(*sign_pub, Strength::Linearizable).await?;
                Ok(Answer::Revoked(user.as_ref().map(user_body).ok_or(DaemonError::NoSuchUser)?))
            }
        }
    })
}

fn form(json: bool) -> Form {
    if json { Form::Json } else { Form::Table }
}

fn print(Done(answer, replication): &Done, mut output: impl Write) -> io::Result<()> {
    let role = |user: &UserBody| if user.role == RoleBody::Admin { "admin" } else { "member" };
    match answer {
        Answer::Added(user) => writeln!(output, "added {} {} ({})", user.sign_pub, user.handle, role(user))?,
        Answer::Revoked(user) => writeln!(output, "revoked {} {}", user.sign_pub, user.handle)?,
        Answer::Listed(users, Form::Json) => {
            serde_json::to_writer(&mut output, users).map_err(io::Error::other)?;
            writeln!(output)?;
        }
        Answer::Listed(users, Form::Table) => {
            writeln!(output, "{:64}  {:6}  {:30}  HANDLE", "SIGN_PUB", "ROLE", "STATUS")?;
            for user in users {
                let status = match &user.revoked_at {
                    Some(at) => format!("revoked {at}"),
                    None if user.status == unibus_membership_api::users::UserStatus::Revoked => {
                        "revoked".into()
                    }
                    None => "active".into(),
                };
                writeln!(output, "{:64}  {:6}  {:30}  {}", user.sign_pub, role(user), status, user.handle)?;
            }
        }
    }
    if let Some(ReplicationBody { leader, followers, followers_current }) = replication {
        let leader = leader.as_deref().unwrap_or("none");
        writeln!(output, "leader={leader} followers_current={followers_current}/{followers}")?;
    }
    output.flush()
}

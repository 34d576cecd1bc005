//! The user commands: through the daemon that runs on the state folder, else in the store itself.

use std::io::{self, Write};

use unibus_membership_api::users::{AddUser, User as UserBody, UserRole as RoleBody};
use unibus_store::{
    error::StoreError,
    record::{User, UserRole},
    store::{Actor, Store as _, Strength},
};

use crate::{
    admin::AdminClient,
    boot::Place,
    cli::{Role, StoreArgs, UserCommand},
    clock::Clock,
    error::DaemonError,
    http::user_body,
};

/// What a user command answers.
#[derive(Debug)]
enum Answer {
    Added(UserBody),
    Listed(Vec<UserBody>, Form),
    Revoked(UserBody),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Table,
    Json,
}

/// Does a user command, and writes its answer to `output`. `place` gets the node key, which only a command that opens the
/// store itself needs.
///
/// # Errors
/// [`DaemonError::UserExists`], [`DaemonError::NoSuchUser`], and what keeps daemon or store from answering.
pub fn run(
    command: &UserCommand,
    args: &StoreArgs,
    clock: &dyn Clock,
    output: impl Write,
) -> Result<(), DaemonError> {
    // Asked on a thread of its own runtime that is gone before the key is taken from the environment.
    let answer = match through_daemon(command, args)? {
        Some(answer) => answer,
        None => in_store(command, args, clock)?,
    };
    print(&answer, output).map_err(|source| DaemonError::Process { step: "write the answer", source })
}

fn runtime() -> Result<tokio::runtime::Runtime, DaemonError> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| DaemonError::Process { step: "start the runtime", source })
}

fn through_daemon(command: &UserCommand, args: &StoreArgs) -> Result<Option<Answer>, DaemonError> {
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
        Ok(Some(answer))
    })
}

fn in_store(command: &UserCommand, args: &StoreArgs, clock: &dyn Clock) -> Result<Answer, DaemonError> {
    let place = Place::prepare(args, clock)?;
    let (store, _) = place.open(clock)?;
    let answer = runtime()?.block_on(async {
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
    });
    drop(store);
    answer
}

fn form(json: bool) -> Form {
    if json { Form::Json } else { Form::Table }
}

fn print(answer: &Answer, mut output: impl Write) -> io::Result<()> {
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
    output.flush()
}

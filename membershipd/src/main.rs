//! The control plane of unibus: parses, runs, prints the error, exits.

use std::{
    ffi::OsString,
    io::{self, Write as _},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use clap::{CommandFactory as _, Parser as _};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::{
    EnvFilter, Layer as _, filter::FilterFn, layer::SubscriberExt as _, util::SubscriberInitExt as _,
};
use unibus_keyfile::{error::KeyError, hygiene, provider};
use unibus_membership_api::health::AuthMode;
use unibus_membershipd::{
    admin::{AdminClient, socket_path},
    boot::{Found, Place, make_folder},
    cli::{Backend, CLUSTER_PASS, Cli, Command, LogFormat, UserCommand},
    clock::{Clock, SystemClock},
    error::DaemonError,
    guards::{self, ClearRooms, SecretVariable},
    http::limits::Limits,
    keys::{Served, ServerKeyOf},
    kv::{self, Node, Opened, Plan},
    posture::{Waiting, raw},
    run::{self, Config, Front},
    users,
};
use unibus_nats::guard;
use unibus_store::store::Store;

/// Time that is given to what still runs on threads when everything else has stopped.
const LAST_GRACE: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    let mut words = std::env::args_os().skip(1);
    if words.next().is_some_and(|word| word == kv::GUARD_COMMAND) {
        return become_nats_server(&words.collect::<Vec<_>>());
    }
    unibus_store::failpoint::from_environment();
    let hardened = hygiene::harden_process();
    let cli = Cli::parse();
    start_log(cli.serve.log_format);
    let result = match hardened {
        Ok(()) => dispatch(&cli),
        Err(source) => Err(DaemonError::Process { step: "protect the memory of the process", source }),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tell(&error, wants_json(&cli));
            ExitCode::from(error.exit_code())
        }
    }
}

/// The short life between `fork` and nats-server. Before everything else, because nothing of this program is for it.
fn become_nats_server(arguments: &[OsString]) -> ExitCode {
    let error = guard::exec(arguments);
    // The daemon reads it.
    writeln!(io::stderr(), "{} {error}", guard::MESSAGE).ok();
    ExitCode::from(guard::EXIT_CODE)
}

fn wants_json(cli: &Cli) -> bool {
    matches!(&cli.command, Some(Command::User { command: UserCommand::List { json: true } }))
}

/// Says what went wrong: for people on stderr, for programs as one object on stdout.
fn tell(error: &DaemonError, as_json: bool) {
    let mut message = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        message.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    let (hint, code) = (error.hint(), error.code());
    // Nobody can be told that nobody can be told.
    if as_json {
        let object = serde_json::json!({
            "error": { "code": code, "message": message, "hint": hint, "exit": error.exit_code() }
        });
        writeln!(io::stdout(), "{object}").ok();
    } else {
        writeln!(io::stderr(), "error: {message}\nhint: {hint}\n[{code}]").ok();
    }
}

/// Logs to stderr: this program's own lines only, because what a library logs of a request is not in our hands.
fn start_log(format: LogFormat) {
    let level = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let own = FilterFn::new(|line| {
        line.target().starts_with("unibus_") || line.target().starts_with("membershipd")
    });
    let lines = tracing_subscriber::fmt::layer().with_writer(io::stderr);
    let lines = match format {
        LogFormat::Json => lines.json().flatten_event(true).with_filter(own).boxed(),
        _ => lines.with_ansi(false).with_filter(own).boxed(),
    };
    tracing_subscriber::registry().with(level).with(lines).init();
}

fn dispatch(cli: &Cli) -> Result<(), DaemonError> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    match &cli.command {
        None => serve(cli, &clock),
        Some(Command::User { command }) => {
            users::run(command, (&cli.store, &cli.kv), &clock, io::stdout().lock())
        }
        Some(Command::Selfcheck) => selfcheck(cli),
        Some(Command::ReadRaw { roots }) => raw::serve(roots, io::stdin().lock(), io::stdout().lock())
            .map_err(|source| DaemonError::Process { step: "read the raw files", source }),
        Some(Command::Completions { shell }) => {
            clap_complete::generate(*shell, &mut Cli::command(), "membershipd", &mut io::stdout().lock());
            Ok(())
        }
        Some(_) => Ok(()),
    }
}

fn selfcheck(cli: &Cli) -> Result<(), DaemonError> {
    let health = runtime()?.block_on(async {
        let daemon = AdminClient::connect(&cli.store.state_dir).await?;
        let mut daemon =
            daemon.ok_or_else(|| DaemonError::NotRunning { path: socket_path(&cli.store.state_dir) })?;
        daemon.selfcheck().await
    })?;
    let text = serde_json::to_string_pretty(&health).unwrap_or_default();
    writeln!(io::stdout(), "{text}")
        .map_err(|source| DaemonError::Process { step: "write the answer", source })?;
    if health.posture.at_rest {
        return Ok(());
    }
    let state = serde_json::to_string(&health.posture.at_rest_detail.state).unwrap_or_default();
    Err(DaemonError::NotProven { state: state.trim_matches('"').to_owned() })
}

fn runtime() -> Result<tokio::runtime::Runtime, DaemonError> {
    let built = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    built.map_err(|source| DaemonError::Process { step: "start the runtime", source })
}

fn serve(cli: &Cli, clock: &Arc<dyn Clock>) -> Result<(), DaemonError> {
    // Before any thread: secrets may stand in the environment, from where they are removed.
    let secret = provider::take_from_environment(CLUSTER_PASS)
        .map_err(|source| DaemonError::Secret(KeyError::Parse { origin: CLUSTER_PASS.to_owned(), source }))?;
    let variable = if secret.is_some() { SecretVariable::Set } else { SecretVariable::Unset };
    let clear_rooms = guards::check(cli, variable)?;
    let place = Place::prepare(&cli.store, &cli.kv, clock.as_ref())?;
    match cli.store.store {
        Backend::Kv => {
            let plan = Plan::new(&place, cli, secret, clock)?;
            serve_log(cli, (&place, plan), clear_rooms, clock)
        }
        _ => serve_database(cli, &place, clear_rooms, clock),
    }
}

/// The program that reads the raw files: through the link, so that a daemon whose program was replaced on disk starts
/// what it is itself.
const OWN_PROGRAM: &str = "/proc/self/exe";

fn serve_database(
    cli: &Cli,
    place: &Place,
    clear_rooms: ClearRooms,
    clock: &Arc<dyn Clock>,
) -> Result<(), DaemonError> {
    let auth = cli.serve.bus_auth.into();
    let (store, found) = place.open(clock.as_ref())?;
    let store = Arc::new(store);
    let facts = place.facts(&store, auth, PathBuf::from(OWN_PROGRAM))?;
    let keys = place.keys(Served::Database(Arc::clone(&store)));
    let store: Arc<dyn Store> = store;
    let blobs = Arc::new(place.blobs()?);
    let state_dir = place.state_dir().to_path_buf();
    let config = Config::new((store, blobs), (auth, clear_rooms), facts, state_dir).keys(keys);

    let runtime = runtime()?;
    let result = runtime.block_on(async {
        let (listener, address) = listen(cli).await?;
        tracing::info!(%address, node = %place.node(), "serving");
        next_steps(place, found, cli.store.store, address);
        let stop = CancellationToken::new();
        stop_on_signals(&stop)?;
        run::run(listener, config, Arc::clone(clock), stop).await
    });
    runtime.shutdown_timeout(LAST_GRACE);
    result
}

fn serve_log(
    cli: &Cli,
    (place, plan): (&Place, Plan),
    clear_rooms: ClearRooms,
    clock: &Arc<dyn Clock>,
) -> Result<(), DaemonError> {
    let auth = cli.serve.bus_auth.into();
    let folder = plan.folder().map(Path::to_path_buf);
    let runtime = runtime()?;
    let mut grace = LAST_GRACE;
    let result = runtime.block_on(async {
        let stop = CancellationToken::new();
        stop_on_signals(&stop)?;
        make_folder(place.state_dir())?;
        let (listener, address) = listen(cli).await?;
        let waiting = Arc::new(Waiting::new(place.node().to_string(), auth, "kv", plan.replicas()));
        let limits = Limits::default();
        let front = Front::open(listener, place.state_dir(), &limits, &waiting, stop.clone())?;
        tracing::info!(%address, node = %place.node(), "listening; the log is opened");
        let node = match kv::open(plan, &waiting, &stop).await {
            Ok(Opened::Node(node)) => node,
            Ok(Opened::Stopped) => {
                front.close().await;
                // What still opens the log is left behind.
                grace = Duration::ZERO;
                return Ok(());
            }
            Err(error) => {
                front.close().await;
                return Err(error);
            }
        };
        let server = node.server().cloned();
        let found = if node.log().was_made() { Found::Nothing } else { Found::Store };
        tracing::info!(%address, node = %place.node(), sequence = node.log().last_sequence(), "serving");
        next_steps(place, found, cli.store.store, address);
        let place = (place, folder, kv::server_key_of(&cli.kv));
        let served = serve_node(&node, place, (auth, clear_rooms), front, clock).await;
        // In this order: the log writes its witness while its server is still there.
        drop(node);
        if let Some(server) = server {
            tokio::task::spawn_blocking(move || server.stop()).await.ok();
        }
        served
    });
    runtime.shutdown_timeout(grace);
    result
}

async fn serve_node(
    node: &Arc<Node>,
    (place, folder, server_key_of): (&Place, Option<PathBuf>, ServerKeyOf),
    (auth, clear_rooms): (AuthMode, ClearRooms),
    front: Front,
    clock: &Arc<dyn Clock>,
) -> Result<(), DaemonError> {
    let facts = place.facts_of_log(node, folder.as_deref(), (auth, PathBuf::from(OWN_PROGRAM)));
    let log = Arc::clone(node.log());
    let store: Arc<dyn Store> = log;
    let opening = Arc::clone(node.log());
    let blobs = match tokio::task::spawn_blocking(move || opening.blobs()).await {
        Ok(Ok(blobs)) => Arc::new(blobs),
        Ok(Err(error)) => {
            front.close().await;
            return Err(DaemonError::Blobs(error));
        }
        Err(_) => return Ok(()),
    };
    let state_dir = place.state_dir().to_path_buf();
    let keys = place.keys(Served::Log(Arc::clone(node.log()))).server_key_of(server_key_of);
    let config = Config::new((store, blobs), (auth, clear_rooms), facts, state_dir).keys(keys);
    front.serve(config, Arc::clone(clock)).await
}

async fn listen(cli: &Cli) -> Result<(TcpListener, SocketAddr), DaemonError> {
    let address = SocketAddr::new(cli.serve.bind, cli.serve.http_port);
    let bound = TcpListener::bind(address).await;
    let listener = bound.map_err(|source| DaemonError::Bind { address, source })?;
    let address = listener.local_addr().map_err(|source| DaemonError::Bind { address, source })?;
    Ok((listener, address))
}

fn stop_on_signals(stop: &CancellationToken) -> Result<(), DaemonError> {
    use tokio::signal::unix::{SignalKind, signal};
    for kind in [SignalKind::terminate(), SignalKind::interrupt()] {
        let mut signals =
            signal(kind).map_err(|source| DaemonError::Process { step: "listen to signals", source })?;
        let stop = stop.clone();
        tokio::spawn(async move {
            signals.recv().await;
            tracing::info!("stopping");
            stop.cancel();
        });
    }
    // From here on it ends nobody, also while the store is opened; who serves reads the key file again.
    signal(SignalKind::hangup())
        .map(drop)
        .map_err(|source| DaemonError::Process { step: "listen to signals", source })?;
    Ok(())
}

/// What to do now, for somebody who tries it out.
fn next_steps(place: &Place, found: Found, store: Backend, address: SocketAddr) {
    let Some(keys) = place.dev_keys() else { return };
    let flags = if store == Backend::Kv { " --store kv" } else { "" };
    let keys = keys.display();
    let made = if found == Found::Nothing { "made keys and an encrypted store" } else { "opened the store" };
    let text = format!(
        "\nmembershipd --dev: {made}; keys in {keys} (operator.key is the way back after a loss)\n\n  \
         add a user:  membershipd{flags} user add --handle NAME --role admin --sign-pub HEX\n  \
         see it all:  curl -s http://{address}/healthz\n"
    );
    // A closed stdout is no reason not to serve.
    writeln!(io::stdout(), "{text}").ok();
}

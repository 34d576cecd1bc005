//! The control plane of unibus: parses, runs, prints the error, exits.

use std::{
    io::{self, Write as _},
    net::SocketAddr,
    path::PathBuf,
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
use unibus_keyfile::hygiene;
use unibus_membershipd::{
    admin::{AdminClient, socket_path},
    boot::{Found, Place},
    cli::{Cli, Command, LogFormat, UserCommand},
    clock::SystemClock,
    error::DaemonError,
    guards,
    posture::raw,
    run::{self, Config},
    users,
};
use unibus_store::store::Store;

/// Time that is given to what still runs on threads when everything else has stopped.
const LAST_GRACE: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
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
    let clock = SystemClock;
    match &cli.command {
        None => serve(cli),
        Some(Command::User { command }) => users::run(command, &cli.store, &clock, io::stdout().lock()),
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

fn serve(cli: &Cli) -> Result<(), DaemonError> {
    let (auth, clock) = (cli.serve.bus_auth.into(), SystemClock);
    let clear_rooms = guards::check(cli.serve.bind, auth, cli.store.dev)?;
    // Before any thread: the key may stand in the environment, from where it is removed.
    let place = Place::prepare(&cli.store, &clock)?;
    let (store, found) = place.open(&clock)?;
    // Through the link, so that a daemon whose program was replaced on disk starts what it is itself.
    let facts = place.facts(&store, auth, PathBuf::from("/proc/self/exe"))?;
    let store: Arc<dyn Store> = Arc::new(store);
    let blobs = Arc::new(place.blobs()?);
    let state_dir = place.state_dir().to_path_buf();
    let config = Config::new((store, blobs), (auth, clear_rooms), facts, state_dir);

    let runtime = runtime()?;
    let result = runtime.block_on(async {
        let address = SocketAddr::new(cli.serve.bind, cli.serve.http_port);
        let bound = TcpListener::bind(address).await;
        let listener = bound.map_err(|source| DaemonError::Bind { address, source })?;
        let address = listener.local_addr().map_err(|source| DaemonError::Bind { address, source })?;
        tracing::info!(%address, node = %place.node(), "serving");
        next_steps(&place, found, address);
        let stop = CancellationToken::new();
        stop_on_signals(&stop)?;
        run::run(listener, config, Arc::new(clock), stop).await
    });
    runtime.shutdown_timeout(LAST_GRACE);
    result
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
    Ok(())
}

/// What to do now, for somebody who tries it out.
fn next_steps(place: &Place, found: Found, address: SocketAddr) {
    let Some(keys) = place.dev_keys() else { return };
    let keys = keys.display();
    let made = if found == Found::Nothing { "made keys and an encrypted store" } else { "opened the store" };
    let text = format!(
        "\nmembershipd --dev: {made}; keys in {keys} (operator.key is the way back after a loss)\n\n  \
         add a user:  membershipd user add --handle NAME --role admin --sign-pub HEX\n  \
         see it all:  curl -s http://{address}/healthz\n"
    );
    // A closed stdout is no reason not to serve.
    writeln!(io::stdout(), "{text}").ok();
}

//! The command line: `snip serve`, `migrate`, `seed`, `journal`, `alerts`, `healthcheck`.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use sd_notify::NotifyState;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use snip::alerts::Receiver;
use snip::api::Api;
use snip::clicks::{self, Clicks};
use snip::config::{
    AlertsArgs, Cli, Command, HealthcheckArgs, JournalCommand, SeedArgs, ServeArgs, ShipArgs, StoreArgs, StoreChoice,
};
use snip::http::{Bound, ListenAddress, Server, Sharing};
use snip::limits;
use snip::links::Links;
use snip::log::{Format, Level};
use snip::store::Store;
use snip::store::postgres::{PostgresStore, Tables};
use snip::store::sqlite::SqliteStore;
use snip::{log, runtime, seed};

/// How long `healthcheck` waits for each step.
const HEALTHCHECK_TIMEOUT: Duration = Duration::from_secs(3);
/// Exit code for a command line or an environment that makes no sense.
const BAD_SETTINGS: u8 = 2;

fn main() -> ExitCode {
    let cli = match Cli::read(std::env::args_os()) {
        Ok(cli) => cli,
        Err(error) => return explain(&error),
    };
    let done = match cli.command {
        Command::Serve(args) => serve(&args),
        Command::Migrate(args) => migrate(&args),
        Command::Seed(args) => run_seed(&args),
        Command::Journal(JournalCommand::Inspect { dir }) => inspect(&dir),
        Command::Journal(JournalCommand::Ship(args)) => ship(&args),
        Command::Alerts(args) => alerts(&args),
        Command::Healthcheck(args) => healthcheck(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Alternate form: the whole chain of causes on one line, without a backtrace.
            let _ = writeln!(std::io::stderr(), "snip: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Prints the help or the version as clap has it, and what is wrong with the command line on one line.
fn explain(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    // clap's first paragraph says it; usage and tips follow, which `--help` has as well.
    let text = error.to_string();
    let paragraph = text.split("\n\n").next().unwrap_or_default();
    let line = paragraph.lines().map(str::trim).collect::<Vec<_>>().join(" ");
    let line = line.strip_prefix("error: ").unwrap_or(&line);
    complain(line);
    ExitCode::from(BAD_SETTINGS)
}

fn complain(line: &str) {
    let _ = writeln!(std::io::stderr(), "snip: {line}; see snip --help");
}

fn say(line: &str) {
    // With nobody to read it there is nothing to be done.
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// Settings that make no sense end the program as those do that the command line's own reader finds.
fn choose_store(args: &StoreArgs) -> StoreChoice {
    args.choose().unwrap_or_else(|why| {
        complain(&why);
        std::process::exit(BAD_SETTINGS.into())
    })
}

/// The store for a command: there, or an error.
fn open_store(choice: &StoreChoice) -> anyhow::Result<Arc<dyn Store>> {
    Ok(match choice {
        StoreChoice::Sqlite(file) => Arc::new(SqliteStore::open(file)?),
        StoreChoice::Postgres(config) => Arc::new(PostgresStore::open(config.clone(), Tables::Migrate)?),
    })
}

/// The store for a server, which may start before its database.
fn start_store(choice: &StoreChoice, no_migrate: bool) -> anyhow::Result<Arc<dyn Store>> {
    let tables = if no_migrate { Tables::Check } else { Tables::Migrate };
    Ok(match choice {
        StoreChoice::Sqlite(file) => Arc::new(SqliteStore::open(file)?),
        StoreChoice::Postgres(config) => Arc::new(PostgresStore::start(config.clone(), tables)?),
    })
}

fn serve(args: &ServeArgs) -> anyhow::Result<()> {
    let inherited = Bound::inherited().map_err(anyhow::Error::msg)?;
    let choice = choose_store(&args.store);
    // Signals first: one that comes during the start is not to kill the process half-way.
    let signals = Signals::new([SIGTERM, SIGINT]).context("cannot listen for signals")?;
    let _log = log::start(args.log_level, args.log_format);
    // A connection is a descriptor; the default of 1024 would be the limit before ours is.
    let descriptors = args.http_options().connections_max as u64 + limits::DESCRIPTORS_RESERVE;
    if rlimit::increase_nofile_limit(descriptors).map_or(true, |allowed| allowed < descriptors) {
        tracing::warn!(
            wanted = descriptors,
            "the system allows fewer file descriptors than connections; see ulimit -n"
        );
    }
    let store = start_store(&choice, args.no_migrate)?;
    let bound = if inherited.is_empty() {
        args.listen().iter().map(|address| Bound::bind(address, args.sharing())).collect::<Result<_, _>>()?
    } else {
        inherited
    };
    announce(args, &choice, &bound);

    let journal = args.journal_options();
    let journal_folder = journal.folder.clone();
    let clicks = Clicks::start(store.clone(), journal)?;
    clicks::tell_left_over(&journal_folder);
    let connections = Arc::default();
    let api = Api::new(
        Arc::clone(&store),
        open_links(args, &choice, &store)?,
        clicks,
        Arc::clone(&connections),
        args.trusted_proxies.clone(),
        args.slow_request,
    )
    .context("cannot start the thread that looks at the store")?;
    let api = Arc::new(api);
    let server =
        Server::start(bound, Arc::clone(&api), args.http_options(), connections).context("cannot start to serve")?;
    tell_supervisor(NotifyState::Ready);
    // A matter of memory alone.
    if let Err(error) = runtime::forget_start() {
        tracing::debug!(%error, "what only the start has needed stays in memory");
    }

    await_signal(signals);
    shut_down(server, &api, args.drain_timeout)
}

/// Waits for the signal to end. A second one means it.
fn await_signal(mut signals: Signals) {
    let signal = signals.forever().next();
    tell_supervisor(NotifyState::Stopping);
    tracing::info!(signal, "shutting down: requests in flight are finished, no new ones taken");
    let second = move || signals.forever().next().map(|_| std::process::exit(130));
    // Without the thread the end is still orderly, only not to be hurried.
    if let Err(error) = std::thread::Builder::new().name("snip-signal".into()).spawn(second) {
        tracing::warn!(%error, "no thread to wait for a second signal: SIGKILL ends the process at once");
    }
}

/// Tells systemd, or whoever else set `NOTIFY_SOCKET`.
fn tell_supervisor(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(%error, "cannot tell the supervisor; see NOTIFY_SOCKET");
    }
}

fn open_links(args: &ServeArgs, choice: &StoreChoice, store: &Arc<dyn Store>) -> anyhow::Result<Links> {
    let links = Links::new(Arc::clone(store), args.cache_bytes);
    if let Some(redis) = args.redis() {
        links.use_redis(redis.clone()).context("cannot start the thread of Redis")?;
    }
    // A SQLite file without Redis has no other instances to hear of.
    if args.redis().is_some() || matches!(choice, StoreChoice::Postgres(_)) {
        links.follow_changes().context("cannot start the thread that follows changes")?;
    }
    Ok(links)
}

fn shut_down(server: Server<Api>, api: &Api, limit: Duration) -> anyhow::Result<()> {
    let deadline = Instant::now() + limit;
    api.start_draining();
    if !server.drain(limit) {
        tracing::warn!("the drain timeout passed; connections that are still open are cut");
    }
    let left = deadline.saturating_duration_since(Instant::now()).max(limits::CLICKS_CLOSE_MIN);
    match api.close(left) {
        0 => tracing::info!("stopped"),
        left => {
            tracing::warn!(clicks = left, "stopped; the store did not take these clicks, the next start ships them")
        }
    }
    runtime::end_within(limits::EXIT_LIMIT);
    Ok(())
}

/// Says where the service is and how to try it.
fn announce(args: &ServeArgs, store: &StoreChoice, bound: &[Bound]) {
    for bound in bound {
        tracing::info!(address = %bound.address(), %store, "listening");
        warn_if_reachable(bound);
    }
    if !args.log_format.is_text() {
        return;
    }
    let at = |address: &ListenAddress| match address {
        ListenAddress::Tcp(address) => ("", format!("http://{address}")),
        ListenAddress::Unix(_) => ("--unix-socket ", address.to_string().replacen("unix:", "", 1) + " http://snip"),
    };
    let listening: Vec<String> = bound.iter().map(|bound| bound.address().to_string()).collect();
    say(&format!("Snip {} listens on {}", env!("CARGO_PKG_VERSION"), listening.join(", ")));
    say(&format!("  store: {store}"));
    if let Some((option, base)) = bound.first().map(|bound| at(bound.address())) {
        let body = r#"{"url": "https://example.com/hello"}"#;
        say(&format!("  try:   curl {option}{base}/urls -H 'Content-Type: application/json' -d '{body}'"));
    }
}

fn warn_if_reachable(bound: &Bound) {
    if let Some(address) = bound.tcp_address().filter(|address| !address.ip().is_loopback()) {
        tracing::warn!(%address, "reachable from outside this machine, and there is no access control");
    }
}

fn migrate(args: &StoreArgs) -> anyhow::Result<()> {
    let choice = choose_store(args);
    // What an adoption changed stands in the log.
    let _log = log::start(Level::Info, Format::Text);
    open_store(&choice)?;
    say(&format!("The tables are up to date ({choice})."));
    Ok(())
}

fn run_seed(args: &SeedArgs) -> anyhow::Result<()> {
    if args.generate {
        let written = seed::generate(&args.dir)?;
        say(&format!("Wrote {written} to {}", args.dir.display()));
        return Ok(());
    }
    let store = open_store(&choose_store(&args.store))?;
    let loaded = seed::load(store.as_ref(), &args.dir, args.reset)?;
    say(&format!("Loaded {loaded}"));
    Ok(())
}

fn inspect(folder: &Path) -> anyhow::Result<()> {
    let report = clicks::inspect::report(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    say(report.trim_end());
    Ok(())
}

fn ship(args: &ShipArgs) -> anyhow::Result<()> {
    let _log = log::start(log::Level::Warn, log::Format::Auto);
    let store = open_store(&choose_store(&args.store))?;
    let Some(shipped) = clicks::ship(&args.dir, store.as_ref(), args.timeout)? else {
        bail!("the store did not take all clicks of {} in time; run it again", args.dir.display());
    };
    say(&format!("Stored {} clicks and removed the journal in {}", shipped.stored, args.dir.display()));
    if shipped.skipped > 0 {
        say(&format!("{} clicks behind damaged records are lost", shipped.skipped));
    }
    if shipped.damaged > 0 {
        say(&format!("{} damaged files are left there", shipped.damaged));
    }
    Ok(())
}

fn alerts(args: &AlertsArgs) -> anyhow::Result<()> {
    let webhook = args.webhook().unwrap_or_else(|why| {
        complain(&why);
        std::process::exit(BAD_SETTINGS.into())
    });
    let signals = Signals::new([SIGTERM, SIGINT]).context("cannot listen for signals")?;
    let _log = log::start(args.log_level, args.log_format);
    let bound = Bound::bind(&args.listen, Sharing::Alone)?;
    let forwards = webhook.is_some();
    let receiver = Arc::new(Receiver::start(&args.dir, webhook, args.grafana())?);
    tracing::info!(address = %bound.address(), dir = %args.dir.display(), forwards, "listening for alerts");
    warn_if_reachable(&bound);
    let server = Server::start(vec![bound], Arc::clone(&receiver), args.http_options(), Arc::default())
        .context("cannot start to serve")?;
    tell_supervisor(NotifyState::Ready);
    await_signal(signals);
    receiver.start_draining();
    if !server.drain(limits::ALERT_DRAIN) {
        tracing::warn!("connections that are still open are cut");
    }
    match receiver.close(limits::ALERT_FORWARD_FLUSH) {
        0 => tracing::info!("stopped"),
        alerts => tracing::warn!(alerts, "stopped; these alerts are in alerts.jsonl and were not forwarded"),
    }
    Ok(())
}

/// Asks `/readyz`, with a deadline for each step.
fn healthcheck(args: &HealthcheckArgs) -> anyhow::Result<()> {
    let address = args.address().context("no address to ask")?;
    let status = ask(&address).with_context(|| format!("{address} does not answer"))?;
    if status != "200" {
        bail!("{address} is not ready: /readyz answers {status}");
    }
    Ok(())
}

fn ask(address: &ListenAddress) -> anyhow::Result<String> {
    match address {
        ListenAddress::Tcp(text) => {
            let address = text.to_socket_addrs()?.next().context("the host name has no address")?;
            let stream = TcpStream::connect_timeout(&address, HEALTHCHECK_TIMEOUT)?;
            stream.set_read_timeout(Some(HEALTHCHECK_TIMEOUT))?;
            status_of(stream)
        }
        ListenAddress::Unix(path) => {
            let stream = UnixStream::connect(path)?;
            stream.set_read_timeout(Some(HEALTHCHECK_TIMEOUT))?;
            status_of(stream)
        }
    }
}

fn status_of(mut stream: impl Read + Write) -> anyhow::Result<String> {
    stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut line = [0; "HTTP/1.1 200".len()];
    stream.read_exact(&mut line)?;
    let line = String::from_utf8_lossy(&line).into_owned();
    Ok(line.rsplit(' ').next().unwrap_or_default().to_owned())
}

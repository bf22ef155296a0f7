//! What can be set: flags and environment variables, checked once. `docs/configuration.md` explains each.

use std::ffi::OsString;
use std::fmt;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::TypedValueParser;
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::alerts::{self, WebhookUrl};
use crate::api::TrustedProxies;
use crate::clicks::{self, Durability};
use crate::http::{ListenAddress, Options, Sharing};
use crate::limits;
use crate::log::{Format, Level};
use crate::pg;
use crate::redis::Config as RedisConfig;

/// Where the server listens when nobody says otherwise: not reachable from outside.
const LISTEN_DEFAULT: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 8080);

/// A URL shortener: HTTP/1.1 on coroutines, with an embedded SQLite store by default.
///
/// Without a command it serves. Every option may also be given as the environment variable named beside it.
#[derive(Debug, Parser)]
#[command(name = "snip", version)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

impl Cli {
    /// Reads the command line, the program's name first. An option where a command would stand belongs to `serve`.
    ///
    /// The command is put in before clap reads: were the options of `serve` clap's own for the program as a whole,
    /// their variables would be read for every command, and a bad one would count even under a flag.
    pub fn read(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        let mut arguments: Vec<OsString> = arguments.into_iter().collect();
        let is_for_all = |first: &str| matches!(first, "-h" | "--help" | "-V" | "--version");
        let first = arguments.get(1).map(|first| first.to_string_lossy());
        if first.is_none_or(|first| first.starts_with('-') && !is_for_all(&first)) {
            arguments.insert(arguments.len().min(1), "serve".into());
        }
        Self::try_parse_from(arguments)
    }
}

/// What the program does.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve the API (the default)
    Serve(Box<ServeArgs>),
    /// Bring the store's tables up to date and end
    Migrate(StoreArgs),
    /// Load users.csv, urls.csv and events.csv into the store
    Seed(SeedArgs),
    /// Look after the journal of clicks
    #[command(subcommand)]
    Journal(JournalCommand),
    /// Receive alerts of Alertmanager: keep them in files, forward them to Discord
    Alerts(Box<AlertsArgs>),
    /// Ask a running server whether it is ready: exit code 0 if so (for containers)
    Healthcheck(HealthcheckArgs),
}

/// What is done with a journal that no server uses.
#[derive(Debug, Subcommand)]
pub enum JournalCommand {
    /// Tell what is in a journal, segment by segment; works beside a running server too
    Inspect {
        /// The journal's folder, such as ./data/journal/NAME
        #[arg(value_name = "DIR")]
        dir: PathBuf,
    },
    /// Store the clicks of a left-over journal, each exactly once, and remove it
    Ship(ShipArgs),
}

/// Which journal goes where.
#[derive(Debug, Args)]
pub struct ShipArgs {
    /// The journal's folder, such as ./data/journal/NAME
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,

    /// Longest time to wait for the store
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "5m")]
    pub timeout: Duration,

    /// Which store.
    #[command(flatten)]
    pub store: StoreArgs,
}

/// How clicks are journaled.
#[derive(Debug, Args)]
pub struct JournalArgs {
    /// Name of this instance, unique among those that share a store [default: the host's name]
    #[arg(long, env = "INSTANCE_ID", value_name = "NAME", value_parser = instance_id)]
    instance_id: Option<String>,

    /// Bytes of the click journal on disk; past it clicks are shed and counted, redirects go on
    #[arg(long, env = "SNIP_JOURNAL_MAX_BYTES", value_name = "N", value_parser = journal_bytes(),
          default_value_t = limits::JOURNAL_BYTES_DEFAULT)]
    journal_max_bytes: u64,

    /// What a click survives when its redirect is answered: a crash of the process; of the host, save for the last
    /// interval; of the host
    #[arg(long, env = "SNIP_JOURNAL_SYNC", value_enum, ignore_case = true, default_value = "process")]
    journal_sync: JournalSync,

    /// How often the journal is synced with '--journal-sync interval'
    #[arg(long, env = "SNIP_JOURNAL_SYNC_INTERVAL", value_name = "TIME", value_parser = duration,
          default_value = "100ms")]
    journal_sync_interval: Duration,
}

/// When the journal is synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum JournalSync {
    /// Never: clicks survive a crash of the process
    Process,
    /// Every so often
    Interval,
    /// Before each redirect is answered
    Always,
}

/// Which store.
#[derive(Clone, Debug, Args)]
pub struct StoreArgs {
    /// Folder of the SQLite file and of the click journal; made when it is missing
    #[arg(long, env = "SNIP_DATA_DIR", value_name = "DIR", default_value = "./data")]
    pub data_dir: PathBuf,

    /// PostgreSQL instead of SQLite: a postgres:// URL or libpq's key=value pairs. The variables DATABASE_HOST, _PORT,
    /// _NAME, _USER and _PASSWORD may be set instead
    #[arg(long, env = "DATABASE_URL", value_name = "URL", hide_env_values = true)]
    database_url: Option<Secret>,

    /// A pooler in transaction mode, such as PgBouncer, stands before the database
    #[arg(long, env = "SNIP_DATABASE_POOLER", value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_value_t = false, default_missing_value = "true")]
    database_pooler: bool,
}

/// A text that is never shown: a URL may hold a password. Not looked into while the command line is read, for errors
/// there repeat the value.
#[derive(Clone)]
struct Secret(String);

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// The store that was chosen. Shown for people, without a password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreChoice {
    /// A file.
    Sqlite(PathBuf),
    /// A database.
    Postgres(pg::Config),
}

impl fmt::Display for StoreChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(file) => write!(f, "SQLite, {}", file.display()),
            Self::Postgres(config) => write!(f, "PostgreSQL, {config}"),
        }
    }
}

/// The variables that name a database by its parts.
const DATABASE_PARTS: [&str; 5] =
    ["DATABASE_HOST", "DATABASE_PORT", "DATABASE_NAME", "DATABASE_USER", "DATABASE_PASSWORD"];

impl StoreArgs {
    /// The store that these settings and the environment ask for.
    ///
    /// # Errors
    /// One line on what is contradictory, incomplete or malformed.
    pub fn choose(&self) -> Result<StoreChoice, String> {
        self.choose_with(|name| std::env::var(name).ok())
    }

    fn choose_with(&self, variable: impl Fn(&str) -> Option<String>) -> Result<StoreChoice, String> {
        // Empty is as good as absent: that is how compose files and units pass what is not set.
        let part = |name: &str| variable(name).filter(|value| !value.is_empty());
        let given: Vec<&str> = DATABASE_PARTS.into_iter().filter(|name| part(name).is_some()).collect();
        let url = self.database_url.as_ref().map(|url| url.0.as_str()).filter(|url| !url.is_empty());
        let config = match (url, given.first()) {
            (None, None) => return self.sqlite(),
            (Some(_), Some(part)) => {
                return Err(format!("both --database-url (DATABASE_URL) and {part} are set: keep one of the two ways"));
            }
            (Some(url), None) => pg::Config::parse(url),
            (None, Some(_)) => {
                let needed =
                    |name: &str| part(name).ok_or_else(|| format!("{} is set, but not {name}", given.join(", ")));
                let [host, name, user] = [needed("DATABASE_HOST")?, needed("DATABASE_NAME")?, needed("DATABASE_USER")?];
                let port = part("DATABASE_PORT").unwrap_or_else(|| "5432".to_owned());
                pg::Config::from_parts(&host, &port, &name, &user, part("DATABASE_PASSWORD").as_deref())
            }
        };
        let mut config = config.map_err(|error| error.to_string())?;
        config.pooler |= self.database_pooler;
        Ok(StoreChoice::Postgres(config))
    }

    fn sqlite(&self) -> Result<StoreChoice, String> {
        if self.database_pooler {
            return Err("--database-pooler is set, but no database is named".to_owned());
        }
        Ok(StoreChoice::Sqlite(self.data_dir.join("snip.db")))
    }
}

/// How `snip serve` serves.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// Which store.
    #[command(flatten)]
    pub store: StoreArgs,

    /// Do not bring the database's tables up to date: refuse a database whose tables are not (PostgreSQL)
    #[arg(long, env = "SNIP_NO_MIGRATE", value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_value_t = false, default_missing_value = "true")]
    pub no_migrate: bool,

    #[command(flatten)]
    listen: ListenArgs,

    /// Listen although another server does, to take its place: it is to be stopped then. Both need their own '--instance-id'
    #[arg(long, env = "SNIP_REUSE_PORT", value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_value_t = false, default_missing_value = "true")]
    reuse_port: bool,

    /// Second cache level, shared by instances: redis://, rediss:// or unix:///path, [user:password@]host[:port][/db]
    #[arg(long, env = "REDIS_URL", value_name = "URL", hide_env_values = true)]
    redis_url: Option<RedisUrl>,

    /// Memory of the in-process cache of links, in bytes
    #[arg(long, env = "SNIP_CACHE_BYTES", value_name = "BYTES", default_value_t = limits::LINKS_LOCAL_BYTES)]
    pub cache_bytes: u64,
    #[command(flatten)]
    journal: JournalArgs,

    /// Peers whose X-Forwarded-For, X-Real-IP and X-Request-Id are believed: addresses, networks, 'loopback', 'unix'
    #[arg(long, env = "SNIP_TRUSTED_PROXIES", value_name = "LIST", default_value = "loopback,unix")]
    pub trusted_proxies: TrustedProxies,

    /// Least severe events in the log
    #[arg(long, env = "LOG_LEVEL", value_enum, ignore_case = true, default_value = "info")]
    pub log_level: Level,

    /// Form of the log; 'auto' is JSON unless standard output is a terminal
    #[arg(long, env = "LOG_FORMAT", value_enum, ignore_case = true, default_value = "auto")]
    pub log_format: Format,

    /// From this time on a request is slow, and the log tells what it waited for
    #[arg(long, env = "SNIP_SLOW_REQUEST", value_name = "TIME", value_parser = duration, default_value = "100ms")]
    pub slow_request: Duration,

    /// Connections open at once; past it new ones get 503
    #[arg(long, env = "SNIP_MAX_CONNECTIONS", value_name = "N", value_parser = connections(),
          default_value_t = limits::CONNECTIONS_MAX_DEFAULT)]
    max_connections: usize,

    /// Longest time from a request's first byte to the end of its head
    #[arg(long, env = "SNIP_HEAD_TIMEOUT", value_name = "TIME", value_parser = duration,
          default_value = "10s")]
    head_timeout: Duration,

    /// Longest time for a request's body, or for as much of it as the minimum rate asks
    #[arg(long, env = "SNIP_BODY_TIMEOUT", value_name = "TIME", value_parser = duration,
          default_value = "30s")]
    body_timeout: Duration,

    /// Longest time between two requests on a connection
    #[arg(long, env = "SNIP_IDLE_TIMEOUT", value_name = "TIME", value_parser = duration,
          default_value = "75s")]
    idle_timeout: Duration,

    /// Longest time for a client to take its answer, or as much of it as the minimum rate asks
    #[arg(long, env = "SNIP_WRITE_TIMEOUT", value_name = "TIME", value_parser = duration,
          default_value = "30s")]
    write_timeout: Duration,

    /// Bytes a second below which a body, or the taking of an answer, counts as stalled
    #[arg(long, env = "SNIP_MIN_RATE", value_name = "BYTES", value_parser = clap::value_parser!(u32).range(1..),
          default_value_t = limits::RATE_MIN_DEFAULT)]
    min_rate: u32,

    /// Longest time from SIGTERM or Ctrl-C to the end, for requests in flight
    #[arg(long, env = "SNIP_DRAIN_TIMEOUT", value_name = "TIME", value_parser = duration,
          default_value = "30s")]
    pub drain_timeout: Duration,
}

impl ServeArgs {
    /// Where to listen.
    pub fn listen(&self) -> Vec<ListenAddress> {
        self.listen.addresses()
    }

    /// Whether another server may listen there too.
    pub fn sharing(&self) -> Sharing {
        if self.reuse_port { Sharing::HandOver } else { Sharing::Alone }
    }

    /// The second level of the cache, if there is one.
    pub fn redis(&self) -> Option<&RedisConfig> {
        self.redis_url.as_ref()?.0.as_ref()
    }

    /// The journal of clicks.
    pub fn journal_options(&self) -> clicks::Options {
        let args = &self.journal;
        let instance = args.instance_id.clone().unwrap_or_else(host_name);
        clicks::Options {
            bytes_max: args.journal_max_bytes,
            durability: match args.journal_sync {
                JournalSync::Process => Durability::Process,
                JournalSync::Interval => Durability::Interval(args.journal_sync_interval),
                JournalSync::Always => Durability::Always,
            },
            ..clicks::Options::new(&self.store.data_dir.join("journal").join(&instance), &instance)
        }
    }

    /// The bounds of the HTTP server.
    pub fn http_options(&self) -> Options {
        Options {
            connections_max: self.max_connections,
            head_timeout: self.head_timeout,
            body_timeout: self.body_timeout,
            idle_timeout: self.idle_timeout,
            write_timeout: self.write_timeout,
            rate_min: self.min_rate,
        }
    }
}

/// A Redis URL; an empty one, as a composed environment may hold, is none.
#[derive(Clone, Debug)]
struct RedisUrl(Option<RedisConfig>);

impl std::str::FromStr for RedisUrl {
    type Err = crate::redis::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.trim().is_empty() { Ok(Self(None)) } else { Ok(Self(Some(text.parse()?))) }
    }
}

#[derive(Debug, Args)]
struct ListenArgs {
    /// Where to listen, host:port or unix:/path; may be repeated [default: 127.0.0.1:8080]
    #[arg(long = "listen", env = "SNIP_LISTEN", value_name = "ADDR", value_delimiter = ',')]
    addresses: Vec<ListenAddress>,
}

impl ListenArgs {
    fn addresses(&self) -> Vec<ListenAddress> {
        if self.addresses.is_empty() {
            let (host, port) = LISTEN_DEFAULT;
            return vec![ListenAddress::Tcp(format!("{host}:{port}"))];
        }
        self.addresses.clone()
    }
}

/// What `snip seed` loads or makes.
#[derive(Debug, Args)]
pub struct SeedArgs {
    /// Folder of the three files
    #[arg(value_name = "DIR", default_value = "seed_data")]
    pub dir: PathBuf,

    /// Delete what the store holds first
    #[arg(long, conflicts_with = "generate")]
    pub reset: bool,

    /// Write the made-up data set into DIR instead of loading it
    #[arg(long)]
    pub generate: bool,

    /// Which store.
    #[command(flatten)]
    pub store: StoreArgs,
}

/// How `snip alerts` receives alerts.
#[derive(Debug, Args)]
pub struct AlertsArgs {
    /// Where to listen, host:port or unix:/path
    #[arg(long, env = "SNIP_ALERTS_LISTEN", value_name = "ADDR", default_value = "127.0.0.1:9095")]
    pub listen: ListenAddress,

    /// Folder of alerts.jsonl and evidence/; made when it is missing
    #[arg(long, env = "SNIP_ALERTS_DIR", value_name = "DIR", default_value = "./data/alerts")]
    pub dir: PathBuf,

    /// Forward alerts to this webhook of Discord. A secret: give it by the variable
    #[arg(long, env = "DISCORD_WEBHOOK_URL", value_name = "URL", hide_env_values = true)]
    discord_webhook_url: Option<Secret>,

    /// Page of Grafana that forwarded alerts link to, with the time around the alert
    #[arg(long, env = "SNIP_GRAFANA_URL", value_name = "URL", value_parser = web_page)]
    grafana_url: Option<WebPage>,

    /// Least severe events in the log
    #[arg(long, env = "LOG_LEVEL", value_enum, ignore_case = true, default_value = "info")]
    pub log_level: Level,

    /// Form of the log; 'auto' is JSON unless standard output is a terminal
    #[arg(long, env = "LOG_FORMAT", value_enum, ignore_case = true, default_value = "auto")]
    pub log_format: Format,
}

impl AlertsArgs {
    /// The webhook, if one is set.
    ///
    /// # Errors
    /// One line on what is wrong with it, without the URL.
    pub fn webhook(&self) -> Result<Option<WebhookUrl>, String> {
        let given = self.discord_webhook_url.as_ref().map(|url| url.0.as_str()).filter(|url| !url.trim().is_empty());
        let parsed = given.map(WebhookUrl::parse).transpose();
        parsed.map_err(|why| format!("--discord-webhook-url (DISCORD_WEBHOOK_URL) is of no use: {why}"))
    }

    /// The page of Grafana, if one is set.
    pub fn grafana(&self) -> Option<String> {
        self.grafana_url.as_ref()?.0.clone()
    }

    /// The bounds of its HTTP server.
    pub fn http_options(&self) -> Options {
        Options { connections_max: limits::ALERT_CONNECTIONS_MAX, ..Options::default() }
    }
}

/// The address of a page; an empty one, as a composed environment may hold, is none.
#[derive(Clone, Debug)]
struct WebPage(Option<String>);

fn web_page(text: &str) -> Result<WebPage, String> {
    let text = text.trim();
    if text.is_empty() {
        return Ok(WebPage(None));
    }
    // Shorter than the links that are forwarded, which the time is added to.
    let page = alerts::link(text).filter(|page| page.len() <= limits::DISCORD_LINK_CHARS_MAX / 2);
    page.map(|page| WebPage(Some(page))).ok_or_else(|| "expected a URL with http:// or https://".to_owned())
}

/// Whom `snip healthcheck` asks.
#[derive(Debug, Args)]
pub struct HealthcheckArgs {
    #[command(flatten)]
    listen: ListenArgs,
}

impl HealthcheckArgs {
    /// The address to ask: the first that the server listens on.
    pub fn address(&self) -> Option<ListenAddress> {
        self.listen.addresses().into_iter().next()
    }
}

fn connections() -> impl TypedValueParser<Value = usize> {
    clap::value_parser!(u64).range(1..=limits::CONNECTIONS_MAX_CEILING as u64).map(|count| count as usize)
}

fn journal_bytes() -> impl TypedValueParser<Value = u64> {
    clap::value_parser!(u64).range(limits::JOURNAL_BYTES_MIN..)
}

/// A name that can be a folder's.
fn instance_id(text: &str) -> Result<String, String> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if text.is_empty()
        || text.len() > limits::INSTANCE_ID_BYTES_MAX
        || text.starts_with('.')
        || !text.chars().all(is_name)
    {
        let max = limits::INSTANCE_ID_BYTES_MAX;
        return Err(format!("expected 1 to {max} letters, digits, '-', '_' or '.', not beginning with '.'"));
    }
    Ok(text.to_owned())
}

/// The host's name, made fit to be an instance's.
fn host_name() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let name: String = name.chars().take(limits::INSTANCE_ID_BYTES_MAX).collect();
    instance_id(&name).unwrap_or_else(|_| "snip".into())
}

/// `10s`, `500ms`, `2m`: a number with its unit, more than nothing and at most [`limits::SETTING_TIME_MAX`].
fn duration(text: &str) -> Result<Duration, String> {
    let parsed = text.parse::<jiff::SignedDuration>().ok().and_then(|span| Duration::try_from(span).ok());
    let time = parsed.filter(|time| !time.is_zero());
    let time = time.ok_or_else(|| "expected a time such as 10s, 500ms or 2m".to_owned())?;
    if time > limits::SETTING_TIME_MAX { Err("expected a time of a year (8760h) at most".to_owned()) } else { Ok(time) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn serve(arguments: &[&str]) -> Result<ServeArgs, String> {
        let arguments = [&["snip"], arguments].concat();
        match Cli::read(arguments.into_iter().map(OsString::from)).map_err(|error| error.to_string())?.command {
            Command::Serve(args) => Ok(*args),
            other => Err(format!("{other:?}")),
        }
    }

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn defaults_are_those_of_the_limits() {
        let args = serve(&[]).unwrap();
        assert_eq!(args.http_options(), Options::default());
        assert_eq!(args.journal_options().bytes_max, limits::JOURNAL_BYTES_DEFAULT);
        assert_eq!(args.journal_options().durability, Durability::Process);
        assert_eq!(args.journal.journal_sync_interval, limits::JOURNAL_SYNC_INTERVAL_DEFAULT);
        assert_eq!(args.drain_timeout, limits::DRAIN_TIMEOUT_DEFAULT);
        assert_eq!(args.listen(), vec!["127.0.0.1:8080".parse().unwrap()]);
        assert_eq!(args.slow_request, limits::SLOW_REQUEST_DEFAULT);
        assert_eq!(args.trusted_proxies, TrustedProxies::default());
    }

    #[test]
    fn serve_may_be_left_out() {
        for command in [&["serve"][..], &[]] {
            let args = serve(&[command, &["--listen", "127.0.0.1:1,unix:/s", "--listen", "[::1]:2"]].concat()).unwrap();
            assert_eq!(args.listen().len(), 3);
        }
    }

    fn choose(arguments: &[&str], variables: &[(&str, &str)]) -> Result<StoreChoice, String> {
        let variable = |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned());
        serve(arguments).unwrap().store.choose_with(variable)
    }

    #[test]
    fn the_store_is_chosen_by_url_or_by_parts() {
        let check = |arguments: &[&str], variables: &[(&str, &str)], expect: &str| {
            assert_eq!(choose(arguments, variables).unwrap().to_string(), expect, "{arguments:?} {variables:?}");
        };
        let parts = [("DATABASE_HOST", "db"), ("DATABASE_NAME", "snip"), ("DATABASE_USER", "ann")];
        check(&["--data-dir", "/d"], &[], "SQLite, /d/snip.db");
        check(&["--database-url="], &[("DATABASE_HOST", "")], "SQLite, ./data/snip.db");
        check(&["--database-url", "postgres://ann:secret@db/snip"], &[], "PostgreSQL, ann@db:5432/snip");
        check(&[], &parts, "PostgreSQL, ann@db:5432/snip");
        check(&[], &[&parts[..], &[("DATABASE_PORT", "6000")]].concat(), "PostgreSQL, ann@db:6000/snip");
        let with_password = choose(&[], &[&parts[..], &[("DATABASE_PASSWORD", "secret")]].concat()).unwrap();
        let StoreChoice::Postgres(config) = &with_password else { panic!("{with_password:?}") };
        assert!(config.password.is_some() && !config.pooler);
        assert!(!format!("{with_password:?} {with_password}").contains("secret"));
        for pooler in [&["--database-pooler"][..], &["--database-pooler=true"]] {
            let chosen = choose(pooler, &parts).unwrap();
            assert!(matches!(chosen, StoreChoice::Postgres(config) if config.pooler), "{pooler:?}");
        }
    }

    #[test]
    fn contradictory_stores_are_told_without_the_password() {
        let check = |arguments: &[&str], variables: &[(&str, &str)], expect: &str| {
            let error = choose(arguments, variables).unwrap_err();
            assert!(error.contains(expect) && !error.contains("secret") && !error.contains('\n'), "{error}");
        };
        let url = ["--database-url", "postgres://ann:secret@db/snip"];
        check(&url, &[("DATABASE_HOST", "db")], "keep one of the two ways");
        check(&url, &[("DATABASE_PASSWORD", "secret")], "DATABASE_PASSWORD are set");
        check(&[], &[("DATABASE_PASSWORD", "secret")], "DATABASE_PASSWORD is set, but not DATABASE_HOST");
        check(&[], &[("DATABASE_HOST", "db"), ("DATABASE_NAME", "snip")], "but not DATABASE_USER");
        check(&["--database-url", "mysql://ann:secret@db"], &[], "must begin with postgres://");
        check(&["--database-pooler"], &[], "no database is named");
        let shown = format!("{:?}", serve(&url).unwrap());
        assert!(!shown.contains("secret"), "{shown}");
    }

    #[test]
    fn a_deadline_is_reckoned_with_the_longest_time() {
        let time = duration("8760h").unwrap();
        assert!(std::time::Instant::now().checked_add(time).is_some());
        assert!(duration("8761h").is_err());
    }

    #[test]
    fn an_empty_redis_url_is_none() {
        let redis = |arguments: &[&str]| serve(arguments).unwrap().redis().map(ToString::to_string);
        assert_eq!((redis(&[]), redis(&["--redis-url", ""])), (None, None));
        assert_eq!(redis(&["--redis-url", "redis://cache/1"]).as_deref(), Some("cache:6379/1"));
    }

    #[test]
    fn the_journal_is_named_after_the_instance() {
        let args = serve(&["--data-dir", "/d", "--instance-id", "web-1", "--journal-sync", "interval"]).unwrap();
        let options = args.journal_options();
        assert_eq!((options.folder, options.instance.as_str()), ("/d/journal/web-1".into(), "web-1"));
        assert_eq!(options.durability, Durability::Interval(limits::JOURNAL_SYNC_INTERVAL_DEFAULT));
        assert_eq!(instance_id(&host_name()), Ok(host_name()));
    }

    #[test]
    fn nonsense_is_told() {
        let check = |arguments: &[&str], expect: &str| {
            let error = serve(arguments).unwrap_err();
            assert!(error.contains(expect), "{arguments:?}: {error}");
        };
        check(&["--listen", "8080"], "neither host:port nor unix:/path");
        check(&["--head-timeout", "0s"], "expected a time such as");
        check(&["--head-timeout", "soon"], "expected a time such as");
        check(&["--drain-timeout", "9223372036854775807s"], "a year (8760h) at most");
        check(&["--max-connections", "0"], "1..=30000");
        check(&["--log-level", "loud"], "possible values");
        check(&["--redis-url", "cache:6379"], "must begin with redis://");
        check(&["--cache-bytes", "lots"], "invalid digit");
        check(&["--instance-id", "../web"], "not beginning with '.'");
        check(&["--instance-id", "a/b"], "letters, digits");
        check(&["--journal-max-bytes", "1000"], "is not in");
        check(&["--journal-sync", "never"], "possible values");
        check(&["--unknown"], "unexpected argument");
        check(&["--trusted-proxies", "10.0.0.0/99"], "neither an address");
    }
}

//! Prepared single-row SELECT by primary key, many tasks on few connections: this client, tokio-postgres (pipelined,
//! current-thread runtime), and `pgbench -M prepared -S` for scale.
//!
//! `cargo bench --bench pg_select [-- ROUNDS [SECONDS]]`. Each round runs each client in a process of its own, one after
//! the other, over a unix socket; the server has core 0, the client core 1. Printed: queries a second and CPU
//! microseconds of the client process a query, each round and the median.

#![allow(clippy::print_stdout, reason = "a bench prints its numbers")]

#[allow(dead_code, reason = "the bench uses a part")]
#[path = "../tests/support"]
mod support {
    pub mod ports;
    pub mod postgres;
    pub mod process;
    pub mod wait;
}

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use support::postgres;

const CONNECTIONS: usize = 4;
const TASKS: usize = 256;
const ROWS: i64 = 100_000;
const SELECT: &str = "SELECT short_code, url FROM links WHERE id = $1";

const SERVER_CORE: &str = "0";
const CLIENT_CORE: &str = "1";

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["client", name, url, seconds] => run_client(name, url, Duration::from_secs(seconds.parse().unwrap())),
        [] => compare(5, "4"),
        [rounds] => compare(rounds.parse().unwrap(), "4"),
        [rounds, seconds, ..] => compare(rounds.parse().unwrap(), seconds),
    }
}

// ---- The parent: server, rounds, medians -----------------------------------------------------------------------

fn compare(rounds: usize, seconds: &str) {
    let server = postgres::Postgres::start();
    pin(server.pid(), SERVER_CORE);
    server.psql(&format!(
        "CREATE TABLE links (id bigint PRIMARY KEY, short_code varchar(20), url text);
         INSERT INTO links SELECT n, 'c' || n, 'https://example.com/some/path/' || n FROM generate_series(1, {ROWS}) n"
    ));
    server.psql("VACUUM ANALYZE links");
    let url = server.url_unix();
    let mut results: Vec<(&str, Vec<(f64, f64)>)> = vec![("snip", Vec::new()), ("tokio-postgres", Vec::new())];
    for round in 0..rounds {
        for (name, figures) in &mut results {
            let figure = run_child(name, &url, seconds);
            println!("round {round}  {name:<15} {:>8.0} queries/s  {:>6.2} µs CPU/query", figure.0, figure.1);
            figures.push(figure);
        }
    }
    println!();
    for (name, figures) in &mut results {
        let (rate, cpu) = (median(figures, |figure| figure.0), median(figures, |figure| figure.1));
        println!("median   {name:<15} {rate:>8.0} queries/s  {cpu:>6.2} µs CPU/query");
    }
    println!("\npgbench -M prepared -S (one query under way on each connection):\n{}", pgbench(&server, seconds));
}

fn median(figures: &mut [(f64, f64)], of: impl Fn(&(f64, f64)) -> f64) -> f64 {
    figures.sort_by(|a, b| of(a).total_cmp(&of(b)));
    of(&figures[figures.len() / 2])
}

fn pin(pid: u32, core: &str) {
    let pinned = Command::new("taskset").args(["-acp", core, &pid.to_string()]).output();
    assert!(pinned.is_ok_and(|output| output.status.success()), "taskset (util-linux) does not pin the server");
}

fn run_child(name: &str, url: &str, seconds: &str) -> (f64, f64) {
    let bench = std::env::current_exe().unwrap();
    let mut child = Command::new("taskset");
    child.args(["-c", CLIENT_CORE]).arg(bench).args(["client", name, url, seconds]);
    let output = child.output().unwrap();
    assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let (rate, cpu) = text.trim().split_once(' ').unwrap();
    (rate.parse().unwrap(), cpu.parse().unwrap())
}

fn pgbench(server: &postgres::Postgres, seconds: &str) -> String {
    let script = server.folder().join("select.sql");
    std::fs::write(&script, format!("\\set id random(1, {ROWS})\n{}\n", SELECT.replace("$1", ":id"))).unwrap();
    let mut command = Command::new("taskset");
    command.args(["-c", CLIENT_CORE]).arg(postgres::binary("pgbench"));
    command.args(["-n", "-M", "prepared", "-c", &CONNECTIONS.to_string(), "-T", seconds, "-U", "postgres", "-f"]);
    command.arg(script).arg("-h").arg(server.folder()).args(["-p", &server.port().to_string(), "postgres"]);
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().filter(|line| line.starts_with("tps") || line.starts_with("latency")).collect::<Vec<_>>().join("\n")
}

// ---- The children: one client each -----------------------------------------------------------------------------

/// What tasks share: whether to go on, and how many queries were answered.
#[derive(Default)]
struct Run {
    stop: AtomicBool,
    answered: AtomicU64,
}

impl Run {
    /// Measures for so long while tasks work elsewhere, then stops them.
    fn measure(&self, seconds: Duration) {
        std::thread::sleep(Duration::from_millis(500)); // everything is connected, prepared and warm
        let (begun, cpu, answered) = (Instant::now(), cpu_time(), self.answered.load(Ordering::Relaxed));
        std::thread::sleep(seconds);
        let answered = (self.answered.load(Ordering::Relaxed) - answered) as f64;
        let cpu = (cpu_time() - cpu).as_secs_f64() * 1e6 / answered;
        println!("{} {cpu}", answered / begun.elapsed().as_secs_f64());
        self.stop.store(true, Ordering::Relaxed);
    }

    /// The next id a task asks for; every id is asked for in an order without pattern.
    fn next_id(&self, seed: &mut u64) -> Option<i64> {
        *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (!self.stop.load(Ordering::Relaxed)).then_some(((*seed >> 33) % ROWS as u64) as i64 + 1)
    }

    fn check(&self, id: i64, code: &str, url: &str) {
        assert!(code[1..].parse() == Ok(id) && url.len() > 30);
        self.answered.fetch_add(1, Ordering::Relaxed);
    }
}

/// CPU time of this process, all threads (proc(5), stat: utime and stime in ticks of 10 ms).
fn cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let ticks =
        stat.rsplit(") ").next().unwrap().split(' ').skip(11).take(2).map(|field| field.parse::<u64>().unwrap());
    Duration::from_millis(ticks.sum::<u64>() * 10)
}

fn run_client(name: &str, url: &str, seconds: Duration) {
    let run = Arc::new(Run::default());
    match name {
        "snip" => run_snip(url, &run, seconds),
        _ => run_tokio(url, &run, seconds),
    }
}

fn run_snip(url: &str, run: &Arc<Run>, seconds: Duration) {
    use snip::pg::{Config, Pool, Statement, Type};
    static STATEMENT: Statement = Statement::new("select", SELECT, &[Type::INT8]).read_only();
    let pool = Pool::open_with(Config::parse(url).unwrap(), CONNECTIONS).unwrap();
    while pool.stats().connections < CONNECTIONS {
        std::thread::sleep(Duration::from_millis(10));
    }
    let tasks: Vec<_> = (0..TASKS as u64)
        .map(|mut seed| {
            let (run, pool) = (Arc::clone(run), pool.clone());
            may::go!(move || {
                while let Some(id) = run.next_id(&mut seed) {
                    let rows = pool.query(&STATEMENT, &[&id]).unwrap();
                    let row = rows.first().unwrap();
                    run.check(id, row.get(0).unwrap(), row.get(1).unwrap());
                }
            })
        })
        .collect();
    run.measure(seconds);
    tasks.into_iter().for_each(|task| task.join().unwrap());
}

fn run_tokio(url: &str, run: &Arc<Run>, seconds: Duration) {
    let measuring = Arc::clone(run);
    let meter = std::thread::spawn(move || measuring.measure(seconds));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut clients = Vec::new();
        for _ in 0..CONNECTIONS {
            let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await.unwrap();
            tokio::spawn(connection);
            let statement = client.prepare(SELECT).await.unwrap();
            clients.push((Arc::new(client), statement));
        }
        let mut tasks = Vec::new();
        for (n, mut seed) in (0..TASKS as u64).enumerate() {
            let (run, (client, statement)) = (Arc::clone(run), clients[n % CONNECTIONS].clone());
            tasks.push(tokio::spawn(async move {
                while let Some(id) = run.next_id(&mut seed) {
                    let row = client.query_one(&statement, &[&id]).await.unwrap();
                    run.check(id, row.get(0), row.get(1));
                }
            }));
        }
        for task in tasks {
            task.await.unwrap();
        }
    });
    meter.join().unwrap();
}

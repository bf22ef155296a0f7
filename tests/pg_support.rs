//! The server that other tests start: it starts, answers, dies and comes back.

mod support;

use support::postgres::Postgres;

#[test]
fn a_server_starts_answers_and_survives_kill_9() {
    let mut server = Postgres::start();
    server.psql("CREATE TABLE t (id bigint); INSERT INTO t VALUES (1), (2)");
    server.stop_kill9();
    server.restart();
    assert_eq!(server.psql("SELECT count(*), min(id) FROM t"), "2|1");
    let pid = server.pid();
    drop(server);
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists(), "the server is gone with its owner");
}

#[test]
fn a_frozen_server_runs_on() {
    let server = Postgres::start();
    server.freeze();
    server.thaw();
    assert_eq!(server.psql("SELECT 1"), "1");
}

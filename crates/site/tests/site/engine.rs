//! One engine for a folder: the running one over its socket, or one opened for the question.

use std::os::unix::fs::PermissionsExt as _;

use sqlx::Connection as _;

use crate::hospital::Hospital;

#[test]
fn commands_work_without_a_running_engine_with_one_and_after_it_was_killed() {
    let site = Hospital::new();
    let before = site.ask("Ida", &["status"]);
    assert_eq!(before["phase"], "set_up");
    let running = site.start();
    let during = site.ask("Ida", &["status"]);
    assert!(during["ledger"]["entries"].as_u64() > before["ledger"]["entries"].as_u64());
    site.add("Stefan", "data-steward");
    running.kill();
    let people = site.ask("Ida", &["user", "list"]);
    assert_eq!(people.as_array().map(Vec::len), Some(2));
    let running = site.start();
    assert_eq!(site.ask("Stefan", &["user", "list"]), people);
    assert_eq!(running.end(), Some(0));
}

#[test]
fn the_socket_is_the_owners_alone_and_the_folder_too() {
    let site = Hospital::new();
    let _running = site.start();
    let mode = |path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(site.data().join("engine.sock")), 0o600);
    assert_eq!(mode(site.data()), 0o700);
    assert_eq!(mode(site.data().join("site.db")), 0o600);
}

#[cfg(target_os = "linux")]
#[test]
fn the_engine_leaves_no_image_of_its_memory() {
    let site = Hospital::new();
    let running = site.start();
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", running.process())).unwrap();
    let core = limits.lines().find_map(|l| l.strip_prefix("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().take(2).collect::<Vec<_>>(), ["0", "0"]);
}

#[test]
fn a_second_engine_on_the_same_folder_is_refused() {
    let site = Hospital::new();
    let _running = site.start();
    let (code, words) = site.refused("Ida", &["run"]);
    assert_eq!(code, 3, "{words}");
    assert!(words.contains("another process runs this site"), "{words}");
}

#[test]
fn a_connection_that_ends_logs_out() {
    let site = Hospital::new();
    let running = site.start();
    site.ask("Ida", &["user", "list"]);
    let page = site.ask("Ida", &["audit", "list"]);
    let actions: Vec<&str> =
        page["entries"].as_array().unwrap().iter().map(|e| e["action"].as_str().unwrap()).collect();
    assert!(actions.iter().any(|a| a.contains("logout")), "{actions:?}");
    assert_eq!(running.end(), Some(0));
}

#[test]
fn an_altered_log_is_found_and_has_its_own_exit_code() {
    let site = Hospital::new();
    site.add("Olga", "auditor");
    let said = site.ask("Olga", &["audit", "verify"]);
    assert!(said.as_array().is_some_and(|s| !s.is_empty()), "{said}");
    let checkpoint = site.ask("Olga", &["audit", "checkpoint"]);
    assert_eq!(checkpoint["root"].as_str().map(str::len), Some(64));
    let database = format!("sqlite:{}", site.data().join("site.db").display());
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let mut connection = sqlx::SqliteConnection::connect(&database).await.unwrap();
        let alter = "UPDATE ledger_entry SET fields = replace(fields, 'person_added', 'person_changed') \
                     WHERE action = 'person_added' AND sequence = (SELECT max(sequence) FROM ledger_entry \
                     WHERE action = 'person_added')";
        let altered = sqlx::query(alter).execute(&mut connection).await.unwrap();
        assert_eq!(altered.rows_affected(), 1);
        connection.close().await.unwrap();
    });
    let (code, said) = site.refused("Olga", &["audit", "verify"]);
    assert_eq!(code, 5, "{said}");
}

#[test]
fn a_command_that_opens_the_engine_itself_writes_that_it_stopped() {
    let site = Hospital::new();
    site.ask("Ida", &["status"]);
    let page = site.ask("Ida", &["audit", "list"]);
    let count = |wanted: &str| page["entries"].as_array().unwrap().iter().filter(|e| e["action"] == wanted).count();
    // The engine that answers now has not stopped yet.
    assert_eq!(count("engine_started"), count("engine_stopped") + 1, "{page}");
}

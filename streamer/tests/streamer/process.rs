//! The program as a container starts it: its exit code, and the report it leaves.

use std::path::Path;
use std::process::{Command, Output};

use firn_crd::exit::Reason;
use firn_crd::report::{Failed, Outcome, Report};

fn run(root: &Path, command: &str, orders: Option<&str>) -> Output {
    std::fs::create_dir_all(root.join("dev")).unwrap();
    let mut program = Command::new(env!("CARGO_BIN_EXE_firn-streamer"));
    program.arg(command).arg("--root").arg(root).env_clear();
    if let Some(orders) = orders {
        program.env("FIRN_RUN", orders);
    }
    program.output().unwrap()
}

fn failure(root: &Path) -> Failed {
    let message = std::fs::read_to_string(root.join("dev/termination-log")).unwrap();
    match Report::parse(&message).unwrap().result {
        Outcome::Failed(failed) => *failed,
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_command_refuses_another_contract_by_both_versions() {
    for command in ["check", "fetch", "build", "push", "publish"] {
        let root = tempfile::tempdir().unwrap();
        let output = run(root.path(), command, Some(r#"{"contract":999}"#));
        assert_eq!(output.status.code(), Some(70), "{command}");
        assert!(output.stdout.is_empty(), "{command}");
        let failed = failure(root.path());
        assert_eq!(failed.reason, Reason::InternalError);
        for version in ["contract 999", "contracts 1 to 3"] {
            assert!(failed.message.contains(version), "{}", failed.message);
        }
    }
}

#[test]
fn orders_for_something_else_are_refused() {
    let root = tempfile::tempdir().unwrap();
    let orders = r#"{"contract":1,"build":"app-1","output":{"repository":"r.example/app","tags":[]},
        "work":{"publish":{"digest":"sha256:00"}}}"#;
    let output = run(root.path(), "build", Some(orders));
    assert_eq!(output.status.code(), Some(70));
    assert!(failure(root.path()).message.contains("build"));
}

#[test]
fn without_orders_it_says_who_gives_them() {
    let root = tempfile::tempdir().unwrap();
    assert_eq!(run(root.path(), "push", None).status.code(), Some(70));
    assert!(failure(root.path()).message.contains("FIRN_RUN"));
}

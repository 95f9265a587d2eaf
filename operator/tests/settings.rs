//! What the command line and the environment say, and what it means.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail by panicking")]

use std::time::Duration;

use clap::{CommandFactory, Parser};
use expect_test::expect_file;
use firn_operator::settings::{Args, Permitted, Settings, Watch};

/// The environment of whoever runs the tests must not matter: everything is given as flags.
fn resolve(more: &[&str]) -> Result<Settings, String> {
    let base = [
        "--builder-image=registry.example.com/builder@sha256:00",
        "--http-proxy=",
        "--https-proxy=",
        "--no-proxy=",
    ];
    let name = |flag: &str| flag.split('=').next().map(str::to_owned);
    let base = base
        .iter()
        .filter(|flag| more.iter().all(|given| name(given) != name(flag)));
    let arguments = std::iter::once(&"firn-operator").chain(base).chain(more);
    let args = Args::try_parse_from(arguments).map_err(|error| error.to_string())?;
    Settings::resolve(args).map_err(|error| error.to_string())
}

#[test]
fn help_tells_every_flag_with_its_variable() {
    let help = Args::command()
        .term_width(100)
        .render_long_help()
        .to_string();
    // Values that this machine's environment holds are no part of it.
    let help = help
        .lines()
        .map(without_value)
        .collect::<Vec<_>>()
        .join("\n")
        + "\n";
    expect_file!["golden/help.txt"].assert_eq(&help);
}

fn without_value(line: &str) -> String {
    match line
        .trim_start()
        .strip_prefix("[env: ")
        .and_then(|rest| rest.split_once('='))
    {
        Some((name, _)) => format!("{}[env: {name}=]", &line[..line.find('[').unwrap()]),
        None => line.to_owned(),
    }
}

#[test]
fn every_flag_has_an_environment_twin() {
    for argument in Args::command()
        .get_arguments()
        .filter(|a| !["help", "version"].contains(&a.get_id().as_str()))
    {
        assert!(
            argument.get_env().is_some(),
            "--{} has none",
            argument.get_id()
        );
    }
}

#[test]
fn defaults_work_for_an_image_of_nixpkgs() {
    let settings = resolve(&[]).unwrap();
    assert_eq!(settings.watch, Watch::All);
    assert_eq!(
        settings.allowed.default_substituters,
        ["https://cache.nixos.org"]
    );
    assert_eq!(settings.allowed.default_public_keys.len(), 1);
    assert_eq!(settings.allowed.substituters, Permitted::Only([].into()));
    assert!(!settings.allowed.public_keys.permits("evil-1:AAAA"));
    assert_eq!(
        (
            settings.limits.concurrent_builds,
            settings.limits.concurrent_builds_per_namespace
        ),
        (20, 5)
    );
    assert_eq!(settings.pods.resources.cpu_limit, None);
    assert_eq!(settings.pods.resources.memory_limit.as_deref(), Some("4Gi"));
    assert_eq!(settings.pods.job_retention, Duration::from_secs(3600));
    assert!(settings.network.proxies.environment().is_empty());
}

#[test]
fn lists_have_commas_and_an_empty_one_is_none() {
    let settings = resolve(&[
        "--watch-namespaces=shop, team-b,",
        "--substituters=",
        "--allowed-public-keys=*",
    ])
    .unwrap();
    assert!(settings.watch.serves("shop") && settings.watch.serves("team-b"));
    assert!(!settings.watch.serves("default"));
    assert!(settings.allowed.default_substituters.is_empty());
    assert_eq!(settings.allowed.public_keys, Permitted::Any);
}

#[test]
fn one_namespace_never_gets_more_slots_than_there_are() {
    let settings = resolve(&["--max-concurrent-builds=2"]).unwrap();
    assert_eq!(settings.limits.concurrent_builds_per_namespace, 2);
}

#[test]
fn what_cannot_be_used_is_named() {
    for (flag, word) in [
        ("--builder-image=", "--builder-image is empty"),
        ("--substituters=ftp://cache", "ftp://cache"),
        ("--trusted-public-keys=nokey", "nokey"),
        ("--build-memory-limit=4 Gi", "\"4 Gi\""),
        ("--build-cpu-request=-1", "\"-1\""),
        ("--job-retention=15", "such as 90s, 15m"),
        ("--job-retention=1 day", "1 day"),
        ("--max-concurrent-builds=0", "0 is not in"),
        ("--ca-file=/nonexistent/ca.crt", "/nonexistent/ca.crt"),
        ("--ca-file=/dev/null", "no PEM certificate"),
        ("--log-format=xml", "xml"),
    ] {
        let message = resolve(&[flag])
            .err()
            .unwrap_or_else(|| panic!("{flag} is taken"));
        assert!(message.contains(word), "{flag}: {message}");
    }
}

#[test]
fn proxies_reach_other_programs_and_no_log() {
    let settings = resolve(&[
        "--https-proxy=http://u:canary@proxy:3128",
        "--no-proxy=.svc",
    ])
    .unwrap();
    let environment = settings.network.proxies.environment();
    assert!(environment.contains(&("https_proxy", "http://u:canary@proxy:3128")));
    assert!(environment.contains(&("NO_PROXY", ".svc")));
    assert!(!format!("{settings:?}").contains("canary"));
}

//! The documentation's promises that can be checked: every reason is explained, every link leads
//! somewhere, every example is of a known kind, the health check says what its page says.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use firn_crd::exit::Reason;
use firn_crd::image::NixImage;
use firn_e2e::clone::repository;
use firn_operator::image::retry::{Rule, rule};
use firn_operator::image::support::NOT_YET;
use serde_json::{Value, json};
use strum::IntoEnumIterator as _;

fn read(path: &str) -> Result<String> {
    std::fs::read_to_string(repository().join(path)).with_context(|| path.to_owned())
}

/// The repository's Markdown files: those of the root, of docs/ and of charts/.
fn pages() -> Result<Vec<PathBuf>> {
    let root = repository();
    let mut pages = Vec::new();
    let mut folders = vec![root.join("docs"), root.join("charts")];
    let mut files: Vec<_> = std::fs::read_dir(&root)?.collect::<Result<_, _>>()?;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            // Not through the link from one chart to the other.
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
            }
            files.push(entry);
        }
    }
    for file in files {
        if file.path().extension().is_some_and(|e| e == "md") {
            pages.push(file.path());
        }
    }
    pages.sort();
    Ok(pages)
}

/// What GitHub and others make of a heading.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().to_lowercase();
    let kept = kept.chars().filter_map(|c| match c {
        ' ' => Some('-'),
        c if c.is_alphanumeric() || c == '-' || c == '_' => Some(c),
        _ => None,
    });
    kept.collect()
}

fn anchors(page: &str) -> BTreeSet<String> {
    let headings = page.lines().filter(|line| line.starts_with('#'));
    headings
        .map(|heading| anchor(heading.trim_start_matches('#')))
        .collect()
}

/// Targets of `[text](target)`.
fn links(page: &str) -> Vec<&str> {
    let targets = page.split("](").skip(1);
    targets
        .filter_map(|rest| rest.split_once(')').map(|(target, _)| target))
        .collect()
}

#[test]
fn every_reason_is_explained_under_its_class_with_a_remedy() -> Result<()> {
    let page = read("docs/troubleshooting.md")?;
    let mut documented = BTreeSet::new();
    for section in page.split("\n### ").skip(1) {
        let section = section.split("\n## ").next().unwrap_or_default();
        let (name, text) = section.split_once('\n').context("an empty section")?;
        let reason: Reason = name
            .parse()
            .with_context(|| format!("no reason is called {name:?}"))?;
        assert!(
            text.trim_start()
                .starts_with(&format!("*{}.*", reason.class())),
            "{reason} is of class {}",
            reason.class()
        );
        let harmless = matches!(reason, Reason::Cancelled | Reason::Superseded);
        assert!(harmless || text.contains("**Remedy:**"), "{reason}");
        assert!(documented.insert(reason.to_string()), "{reason} twice");
    }
    for reason in Reason::iter() {
        assert!(
            documented.contains(&reason.to_string()),
            "docs/troubleshooting.md has no section for {reason}"
        );
    }
    Ok(())
}

/// Words in backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

#[test]
fn what_is_tried_again_and_when_is_told_for_every_reason() -> Result<()> {
    let page = read("docs/troubleshooting.md")?;
    for (kind, begin) in [
        (Rule::Limited, "| **By itself, within limits:**"),
        (Rule::Outside, "| **By itself, without limit:**"),
        (Rule::Asked, "| **When somebody asks:**"),
        (Rule::NewWork, "| **With new work:**"),
    ] {
        let row = page.lines().find(|line| line.starts_with(begin));
        let (_, told) = row
            .and_then(|row| row.trim_end_matches(" |").rsplit_once('|'))
            .with_context(|| format!("no row {begin:?}"))?;
        let told: BTreeSet<String> = quoted(told).map(str::to_owned).collect();
        let true_for: BTreeSet<String> = Reason::iter()
            .filter(|reason| rule(Some(*reason), reason.class()) == kind)
            .map(|reason| reason.to_string())
            .collect();
        assert_eq!(told, true_for, "{begin}");
    }
    Ok(())
}

#[test]
fn what_is_refused_is_on_the_page_of_what_is_not_there_yet_and_nothing_else() -> Result<()> {
    let page = read("docs/not-yet.md")?;
    let fields: BTreeSet<&str> = page
        .lines()
        .filter_map(|line| line.strip_suffix(" |")?.rsplit_once('|'))
        .flat_map(|(_, cell)| quoted(cell))
        // Values stand beside their fields.
        .filter(|word| word.chars().all(|c| c.is_ascii_alphanumeric() || c == '.'))
        .collect();
    let within = |path: &str, parent: &str| {
        path.strip_prefix(parent)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    for leaf in NOT_YET {
        assert!(
            fields.iter().any(|field| within(leaf.path, field)),
            "docs/not-yet.md does not name spec.{}",
            leaf.path
        );
    }
    for field in fields {
        assert!(
            NOT_YET.iter().any(|leaf| within(leaf.path, field)),
            "docs/not-yet.md names {field}, which is not refused"
        );
    }
    Ok(())
}

#[test]
fn every_link_leads_somewhere() -> Result<()> {
    for page in pages()? {
        let text = std::fs::read_to_string(&page)?;
        for link in links(&text) {
            if link.starts_with("https://") {
                continue;
            }
            let (path, fragment) = link.split_once('#').unwrap_or((link, ""));
            let target = if path.is_empty() {
                page.clone()
            } else {
                page.parent().unwrap_or(Path::new("")).join(path)
            };
            assert!(target.exists(), "{}: {link}", page.display());
            if !fragment.is_empty() {
                let anchors = anchors(&std::fs::read_to_string(&target)?);
                assert!(anchors.contains(fragment), "{}: {link}", page.display());
            }
        }
    }
    Ok(())
}

#[test]
fn every_make_command_in_the_documentation_exists() -> Result<()> {
    let makefile = read("Makefile")?;
    for page in pages()? {
        let text = std::fs::read_to_string(&page)?;
        for line in text.lines() {
            let Some(rest) = line.trim().strip_prefix("make ") else {
                continue;
            };
            let target = rest.split_whitespace().next().unwrap_or_default();
            if line.starts_with("    ") {
                assert!(
                    makefile.contains(&format!("\n{target}:")),
                    "{}: make {target}",
                    page.display()
                );
            }
        }
    }
    Ok(())
}

/// YAML documents in fenced blocks of a page that are whole `NixImage`s.
fn images_of_page(page: &str) -> Vec<&str> {
    let blocks = page.split("```yaml\n").skip(1);
    blocks
        .filter_map(|rest| rest.split_once("\n```").map(|(block, _)| block))
        .filter(|block| block.contains("kind: NixImage\n"))
        .collect()
}

/// Whether everything in `part` is in `whole` too.
fn holds(whole: &Value, part: &Value) -> bool {
    match (whole, part) {
        (Value::Object(whole), Value::Object(part)) => part
            .iter()
            .all(|(key, value)| whole.get(key).is_some_and(|own| holds(own, value))),
        (Value::Array(whole), Value::Array(part)) => {
            whole.len() == part.len() && whole.iter().zip(part).all(|(a, b)| holds(a, b))
        }
        (whole, part) => whole == part,
    }
}

#[test]
fn every_example_says_only_what_the_api_knows() -> Result<()> {
    let mut examples = Vec::new();
    for file in std::fs::read_dir(repository().join("docs/examples"))? {
        let path = file?.path();
        let text = std::fs::read_to_string(&path)?;
        examples.push((path.display().to_string(), text));
    }
    for page in pages()? {
        let text = std::fs::read_to_string(&page)?;
        let images = images_of_page(&text).into_iter();
        examples.extend(images.map(|image| (page.display().to_string(), image.to_owned())));
    }
    assert!(examples.len() >= 5, "{} examples", examples.len());
    for (place, text) in examples {
        let written: Value = serde_yaml_ng::from_str(&text).with_context(|| place.clone())?;
        let read: NixImage =
            serde_json::from_value(written.clone()).with_context(|| place.clone())?;
        let known = serde_json::to_value(read)?;
        assert!(holds(&known, &written), "{place}: {known:#}");
    }
    Ok(())
}

/// One object, through the script that the documentation hands out.
fn health(object: &Value) -> Result<(String, String)> {
    let lua = mlua::Lua::new();
    let run = || -> mlua::Result<(String, String)> {
        let decode = lua.load(to_lua(object)).eval::<mlua::Value>()?;
        lua.globals().set("obj", decode)?;
        let script = read("docs/argocd-health.lua").map_err(mlua::Error::external)?;
        let health: mlua::Table = lua.load(script).eval()?;
        Ok((health.get("status")?, health.get("message")?))
    };
    run().map_err(|error| anyhow::anyhow!("{error}"))
}

/// JSON as a Lua expression.
fn to_lua(value: &Value) -> String {
    match value {
        Value::Null => "nil".into(),
        Value::Array(items) => {
            let items: Vec<_> = items.iter().map(to_lua).collect();
            format!("{{{}}}", items.join(","))
        }
        Value::Object(fields) => {
            let fields = fields.iter();
            let fields: Vec<_> = fields
                .map(|(key, value)| format!("[{key:?}]={}", to_lua(value)))
                .collect();
            format!("{{{}}}", fields.join(","))
        }
        plain => plain.to_string(),
    }
}

#[test]
fn argo_cd_sees_each_state_as_its_page_says() -> Result<()> {
    let condition = |kind: &str, status: &str, generation: i64| {
        json!({"type": kind, "status": status, "observedGeneration": generation,
               "reason": "Why", "message": format!("{kind} is {status}")})
    };
    let image = |observed: i64, conditions: Value| {
        json!({"metadata": {"generation": 2}, "spec": {},
               "status": {"observedGeneration": observed, "conditions": conditions}})
    };
    let c = condition;
    for (what, object, status, message) in [
        (
            "just applied",
            json!({"metadata": {"generation": 1}, "spec": {}}),
            "Progressing",
            "Waiting for the operator",
        ),
        (
            "born, not seen",
            json!({"metadata": {"generation": 1}, "spec": {}, "status": {"observedGeneration": -1}}),
            "Progressing",
            "Waiting for the operator",
        ),
        (
            "first build runs",
            image(
                -1,
                json!([c("Ready", "Unknown", 2), c("Reconciling", "True", 2)]),
            ),
            "Progressing",
            "Why: Reconciling is True",
        ),
        (
            "published",
            image(2, json!([c("Ready", "True", 2), c("Available", "True", 2)])),
            "Healthy",
            "Why: Ready is True",
        ),
        (
            "published, a new revision is built",
            image(
                2,
                json!([c("Ready", "Unknown", 2), c("Reconciling", "True", 2)]),
            ),
            "Progressing",
            "Why: Reconciling is True",
        ),
        (
            "published, the next revision waits for a slot",
            image(2, json!([c("Ready", "Unknown", 2)])),
            "Progressing",
            "Why: Ready is Unknown",
        ),
        (
            "failed, tried again",
            image(
                1,
                json!([c("Ready", "False", 2), c("Reconciling", "True", 2)]),
            ),
            "Progressing",
            "Why: Reconciling is True",
        ),
        (
            "failed for good",
            image(2, json!([c("Ready", "False", 2), c("Stalled", "True", 2)])),
            "Degraded",
            "Why: Stalled is True",
        ),
        (
            "failed, without a word about what follows",
            image(2, json!([c("Ready", "False", 2)])),
            "Degraded",
            "Why: Ready is False",
        ),
        (
            "the old spec failed, the new one was not seen",
            image(1, json!([c("Ready", "False", 1), c("Stalled", "True", 1)])),
            "Progressing",
            "Waiting for the operator",
        ),
        (
            "the old spec was published, the new one was not seen",
            image(1, json!([c("Ready", "True", 1)])),
            "Progressing",
            "Waiting for the operator",
        ),
        (
            "suspended after a failure",
            json!({"metadata": {"generation": 2}, "spec": {"suspend": true},
                   "status": {"observedGeneration": 2, "conditions": [c("Ready", "False", 2)]}}),
            "Suspended",
            "spec.suspend is true",
        ),
    ] {
        let seen = health(&object).with_context(|| what.to_owned())?;
        assert_eq!(seen, (status.to_owned(), message.to_owned()), "{what}");
    }
    Ok(())
}

//! Nix's log in its JSON form: shown as text, and remembered as far as a report needs it.
//!
//! Bounds: `ACTIVITIES_MAX` activities at once, `DRV_MAX` bytes of name and twice `TAIL_MAX` bytes of
//! log for each build, `FAILED_MAX` ended builds, twice `ERRORS_MAX` bytes of errors.

use std::collections::{BTreeMap, VecDeque};
use std::io::Write;
use std::time::{Duration, Instant};

use firn_crd::report::{Stage, StageName, first_bytes, last_bytes};
use jiff::Timestamp;
use serde::Deserialize;

use crate::failure::plain;

const ACTIVITIES_MAX: usize = 10_000;
const TAIL_MAX: usize = 4096;
/// The longest store path is as long. What build code writes as the name of a derivation may be as
/// long as a line is.
const DRV_MAX: usize = 255;
const FAILED_MAX: usize = 64;
const ERRORS_MAX: usize = 32 * 1024;
/// Longest line that is shown, in bytes.
const SHOWN_MAX: usize = 4096;

/// Nix's numbers for what it does. <https://github.com/NixOS/nix/blob/2.34.0/src/libutil/include/nix/util/logging.hh>
const COPY_PATH: u64 = 100;
const BUILD: u64 = 105;
const SUBSTITUTE: u64 = 108;
/// Nix's numbers for what comes of it.
const BUILD_LOG_LINE: u64 = 101;
const SET_PHASE: u64 = 104;

/// What was seen of a log so far.
pub struct Log {
    out: Box<dyn Write + Send>,
    running: BTreeMap<u64, Activity>,
    /// Ended builds, the newest last.
    ended: VecDeque<Activity>,
    errors: String,
    substituting: Busy,
    building: Busy,
}

impl std::fmt::Debug for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Log")
            .field("errors", &self.errors)
            .finish_non_exhaustive()
    }
}

struct Activity {
    kind: u64,
    /// The derivation, of a build.
    drv: String,
    tail: String,
}

/// How long something was going on, however much of it at once.
#[derive(Default)]
struct Busy {
    running: usize,
    since: Option<Instant>,
    total: Duration,
    first: Option<Timestamp>,
}

#[derive(Deserialize)]
#[serde(tag = "action", rename_all = "lowercase")]
enum Line {
    Start {
        id: u64,
        #[serde(rename = "type")]
        kind: u64,
        #[serde(default)]
        text: String,
        #[serde(default)]
        fields: Vec<serde_json::Value>,
    },
    Stop {
        id: u64,
    },
    Result {
        id: u64,
        #[serde(rename = "type")]
        kind: u64,
        #[serde(default)]
        fields: Vec<serde_json::Value>,
    },
    Msg {
        level: u64,
        msg: String,
    },
    #[serde(other)]
    Other,
}

impl Log {
    /// A log that is shown on `out`.
    pub fn new(out: impl Write + Send + 'static) -> Self {
        Self {
            out: Box::new(out),
            running: BTreeMap::new(),
            ended: VecDeque::new(),
            errors: String::new(),
            substituting: Busy::default(),
            building: Busy::default(),
        }
    }

    /// Takes one line of standard error.
    pub fn line(&mut self, line: &[u8]) {
        let text = String::from_utf8_lossy(line);
        match text.strip_prefix("@nix ").map(serde_json::from_str) {
            Some(Ok(line)) => self.event(line),
            // What is no event may be the end of a long one, or a program's own words.
            Some(Err(_)) => {}
            None => {
                self.show(&text);
                if text.trim_start().starts_with("error") {
                    self.error(&text);
                }
            }
        }
    }

    fn event(&mut self, line: Line) {
        match line {
            Line::Start {
                id,
                kind,
                text,
                fields,
            } => {
                if self.running.len() < ACTIVITIES_MAX {
                    let drv = if kind == BUILD {
                        first_bytes(&first_text(&fields), DRV_MAX).to_owned()
                    } else {
                        String::new()
                    };
                    let tail = String::new();
                    if self
                        .running
                        .insert(id, Activity { kind, drv, tail })
                        .is_none()
                    {
                        self.busy(kind).into_iter().for_each(Busy::begin);
                    }
                }
                if matches!(kind, BUILD | COPY_PATH) && !text.is_empty() {
                    self.show(&text);
                }
            }
            Line::Stop { id } => {
                if let Some(activity) = self.running.remove(&id) {
                    self.busy(activity.kind).into_iter().for_each(Busy::end);
                    if activity.kind == BUILD {
                        self.ended.push_back(activity);
                        if self.ended.len() > FAILED_MAX {
                            self.ended.pop_front();
                        }
                    }
                }
            }
            Line::Result { id, kind, fields } => {
                let text = first_text(&fields);
                let activity = self.running.get_mut(&id);
                let name = activity
                    .as_ref()
                    .map_or("", |a| drv_name(&a.drv))
                    .to_owned();
                match kind {
                    BUILD_LOG_LINE => {
                        if let Some(activity) = activity {
                            append(&mut activity.tail, &text, TAIL_MAX);
                        }
                        self.show(&format!("{name}> {text}"));
                    }
                    SET_PHASE => self.show(&format!("{name}: {text}")),
                    _ => {}
                }
            }
            Line::Msg { level, msg } => {
                self.show(&msg);
                if level == 0 {
                    self.error(&msg);
                }
            }
            Line::Other => {}
        }
    }

    fn busy(&mut self, kind: u64) -> Option<&mut Busy> {
        match kind {
            SUBSTITUTE => Some(&mut self.substituting),
            BUILD => Some(&mut self.building),
            _ => None,
        }
    }

    fn error(&mut self, text: &str) {
        append(&mut self.errors, &plain(text), ERRORS_MAX);
    }

    fn show(&mut self, text: &str) {
        for line in text.split('\n') {
            let line: String = line.chars().filter(|c| *c != '\r' && *c != '\0').collect();
            let cut = if line.len() > SHOWN_MAX { " …" } else { "" };
            // Nobody reads: the build goes on.
            let _ = writeln!(self.out, "{}{cut}", first_bytes(&line, SHOWN_MAX));
        }
    }

    /// Messages of level error so far, oldest first, as plain text.
    pub fn errors(&self) -> &str {
        &self.errors
    }

    /// The end of a derivation's log.
    pub fn tail(&self, drv: &str) -> Option<&str> {
        let ended = self.ended.iter().rev().chain(self.running.values());
        let found = ended.into_iter().find(|activity| activity.drv == drv)?;
        Some(&found.tail)
    }

    /// The end of the log of what runs, for a build that is ended from outside.
    pub fn running(&self) -> Option<(&str, &str)> {
        let mut builds = self.running.values().filter(|a| a.kind == BUILD);
        builds
            .next_back()
            .map(|a| (a.drv.as_str(), a.tail.as_str()))
    }

    /// How long substituting and building took, each only if there was any.
    pub fn stages(&self) -> Vec<Stage> {
        [
            (StageName::Substitute, &self.substituting),
            (StageName::Build, &self.building),
        ]
        .into_iter()
        .filter_map(|(name, busy)| busy.stage(name))
        .collect()
    }
}

impl Busy {
    #[expect(clippy::disallowed_methods, reason = "a measurement, not a decision")]
    fn begin(&mut self) {
        if self.running == 0 {
            self.since = Some(Instant::now());
            self.first.get_or_insert_with(Timestamp::now);
        }
        self.running += 1;
    }

    fn end(&mut self) {
        self.running = self.running.saturating_sub(1);
        if self.running == 0 {
            self.total += self
                .since
                .take()
                .map_or(Duration::ZERO, |since| since.elapsed());
        }
    }

    fn stage(&self, name: StageName) -> Option<Stage> {
        let running = self.since.map_or(Duration::ZERO, |since| since.elapsed());
        Some(Stage {
            name,
            start: self.first?.as_millisecond(),
            millis: i64::try_from((self.total + running).as_millis()).unwrap_or(i64::MAX),
        })
    }
}

fn first_text(fields: &[serde_json::Value]) -> String {
    let first = fields.first().and_then(serde_json::Value::as_str);
    first.unwrap_or_default().to_owned()
}

/// `hello-1.0` of `/nix/store/<hash>-hello-1.0.drv`.
fn drv_name(drv: &str) -> &str {
    let base = drv.rsplit('/').next().unwrap_or(drv);
    let name = base.split_once('-').map_or(base, |(_, name)| name);
    name.strip_suffix(".drv").unwrap_or(name)
}

/// Adds a line and drops what is too old.
fn append(text: &mut String, line: &str, max: usize) {
    text.push_str(line);
    text.push('\n');
    if text.len() > 2 * max {
        *text = last_bytes(text, max).to_owned();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Shown(Arc<Mutex<Vec<u8>>>);

    impl Write for Shown {
        fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
            let mut shown = self
                .0
                .lock()
                .map_err(|_| std::io::Error::other("poisoned"))?;
            shown.write(buf)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    const DRV: &str = "/nix/store/0a1b2c3d4f5g6h7i8j9kalbmcndpfqgr-fail.drv";

    fn read(lines: &[String]) -> (Log, String) {
        let shown = Shown::default();
        let mut log = Log::new(shown.clone());
        for line in lines {
            log.line(line.as_bytes());
        }
        let text = String::from_utf8(shown.0.lock().unwrap().clone()).unwrap();
        (log, text)
    }

    fn failing_build() -> Vec<String> {
        [
            format!(r#"@nix {{"action":"start","fields":["{DRV}","",1,1],"id":7,"level":3,"parent":0,"text":"building '{DRV}'","type":105}}"#),
            r#"@nix {"action":"result","fields":["unpackPhase"],"id":7,"type":104}"#.into(),
            r#"@nix {"action":"result","fields":["\u001b[31mbroken\u001b[0m"],"id":7,"type":101}"#.into(),
            r#"@nix {"action":"result","fields":[0,1,0,0],"id":3,"type":105}"#.into(),
            r#"@nix {"action":"stop","id":7}"#.into(),
            format!(r#"@nix {{"action":"msg","level":0,"msg":"\u001b[31;1merror:\u001b[0m Cannot build '{DRV}'."}}"#),
            r#"@nix {"action":"unheard of"}"#.into(),
            "plain words".into(),
        ]
        .into()
    }

    #[test]
    fn a_failing_build_is_shown_and_remembered() {
        let (log, shown) = read(&failing_build());
        assert_eq!(log.errors(), format!("error: Cannot build '{DRV}'.\n"));
        assert_eq!(log.tail(DRV).map(plain).as_deref(), Some("broken\n"));
        assert_eq!(
            plain(&shown),
            format!(
                "building '{DRV}'\nfail: unpackPhase\nfail> broken\nerror: Cannot build '{DRV}'.\nplain words\n"
            )
        );
        assert_eq!(log.stages().len(), 1);
    }

    #[test]
    fn a_derivation_with_an_endless_name_stays_small() {
        let endless = DRV.replace("fail", &"x".repeat(60_000));
        let lines: Vec<String> = failing_build()
            .iter()
            .take(3)
            .map(|line| line.replace(DRV, &endless))
            .collect();
        let (log, shown) = read(&lines);
        assert!(log.running().unwrap().0.len() <= DRV_MAX);
        assert!(shown.lines().last().unwrap().len() <= DRV_MAX + 20);
    }

    #[test]
    fn an_endless_log_stays_small() {
        let mut lines = failing_build();
        lines.truncate(1);
        let line = r#"@nix {"action":"result","fields":["LINE"],"id":7,"type":101}"#;
        lines.extend((0..1000).map(|_| line.replace("LINE", &"x".repeat(1000))));
        let (log, shown) = read(&lines);
        assert!(log.tail(DRV).unwrap().len() <= 2 * TAIL_MAX);
        assert!(shown.lines().all(|line| line.len() < SHOWN_MAX + 10));
    }
}

//! Mistakes of one line that somebody could make in a plan. Each is an expression of the sources and
//! what stands there instead; the text must be there exactly once. Where an expression alone is there
//! twice, the text has more, and the expression stands between double brackets.
//! `cargo run -p firn-operator --example mutants` shows that each is caught.

/// One mistake.
pub struct Mutant {
    /// What goes wrong.
    pub what: &'static str,
    /// Below `operator/src`.
    pub file: &'static str,
    /// The expression.
    pub from: &'static str,
    /// What stands there instead.
    pub to: &'static str,
}

const fn mutant(
    file: &'static str,
    what: &'static str,
    from: &'static str,
    to: &'static str,
) -> Mutant {
    Mutant {
        what,
        file,
        from,
        to,
    }
}

impl Mutant {
    /// The text before the expression, the expression, and the text after it.
    pub fn parts(&self) -> (&'static str, &'static str, &'static str) {
        let split = |text: &'static str, at| text.split_once(at);
        match split(self.from, "[[").and_then(|(before, rest)| Some((before, split(rest, "]]")?))) {
            Some((before, (expression, after))) => (before, expression, after),
            None => ("", self.from, ""),
        }
    }

    /// The text as it stands in the sources.
    pub fn text(&self) -> String {
        let (before, expression, after) = self.parts();
        format!("{before}{expression}{after}")
    }
}

/// All of them.
pub const MUTANTS: [Mutant; 15] = [
    mutant(
        "image/decide.rs",
        "a build begins beside one that runs",
        "observed.runs.iter().rev().find(active)",
        "observed.runs.iter().rev().find(active).filter(|_| false)",
    ),
    mutant(
        "image/decide.rs",
        "a suspended image is built",
        "spec.suspend",
        "false",
    ),
    mutant(
        "image/decide.rs",
        "a user's fix does not lead out of Stalled",
        "rule != Rule::NewWork && self.readable() && (changed || asked_now(self.observed))",
        "false",
    ),
    mutant(
        "image/decide.rs",
        "numbers come from status alone",
        "counter.max(self.observed.highest_number) + 1",
        "counter + 1",
    ),
    mutant(
        "image/decide.rs",
        "tags that changed are not moved",
        ".all(|tag| [[published.tags.contains(tag) || is_kept(tag)]])",
        "true",
    ),
    mutant(
        "image/decide.rs",
        "a failed build is begun again for the same work",
        "self.remembered().filter(|_| !asked)",
        "self.remembered().filter(|_| false)",
    ),
    mutant(
        "image/fold.rs",
        "an older build's result is taken again",
        "run.number > since",
        "run.number > 0",
    ),
    mutant(
        "image/retry.rs",
        "retries are never used up",
        "attempt > retries",
        "attempt > u32::MAX - 1",
    ),
    mutant(
        "image/plan.rs",
        "status is written at rest",
        "(new != old).then(|| Box::new(new))",
        "Some(Box::new(new))",
    ),
    mutant(
        "image/plan.rs",
        "an image that goes gets another build",
        "observed.image.metadata.deletion_timestamp.is_some()",
        "false",
    ),
    mutant(
        "image/status.rs",
        "latestImage is not kept",
        "status.latest_image.clone_from(&fold.latest_image)",
        "status.latest_image = None",
    ),
    mutant(
        "build/progress.rs",
        "a Job begins beside another's pod",
        "[[seen.others.first()]]",
        "None::<&String>",
    ),
    mutant(
        "build/plan.rs",
        "a build whose image is gone gets a Job",
        "let goes = [[orphaned(observed)]] &&",
        "false",
    ),
    mutant(
        "build/queue.rs",
        "the limit of a namespace is forgotten",
        "used(entry) < limits.concurrent_builds_per_namespace",
        "true",
    ),
    mutant(
        "build/report.rs",
        "success is believed whatever the exit code",
        "if [[state.exit_code != 0]] {",
        "false",
    ),
];

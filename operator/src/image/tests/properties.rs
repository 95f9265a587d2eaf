//! What holds in every world that can be reached.

use proptest::prelude::*;

use super::*;

/// Something that happens.
#[derive(Debug, Clone, Copy)]
enum Step {
    Commit(u8),
    LockFile(u8),
    SourceFails,
    Mode(u8),
    Label(u8),
    Tags(u8),
    Ask(u8),
    Suspend(bool),
    Policy(u8),
    EndWell(u8),
    EndUnchanged,
    EndBadly(u8),
    Time(i64),
    HistoryGone,
    /// The operator ends between its actions and its write of status.
    Crash,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (1_u8..5).prop_map(Step::Commit),
        (1_u8..5).prop_map(Step::LockFile),
        Just(Step::SourceFails),
        (0_u8..3).prop_map(Step::Mode),
        (0_u8..3).prop_map(Step::Label),
        (0_u8..3).prop_map(Step::Tags),
        (0_u8..9).prop_map(Step::Ask),
        any::<bool>().prop_map(Step::Suspend),
        (0_u8..3).prop_map(Step::Policy),
        (1_u8..9).prop_map(Step::EndWell),
        Just(Step::EndUnchanged),
        (0_u8..6).prop_map(Step::EndBadly),
        (1_i64..5000).prop_map(Step::Time),
        Just(Step::HistoryGone),
        Just(Step::Crash),
    ]
}

const FAILURES: [Reason; 6] = [
    Reason::BuildFailed,
    Reason::RegistryUnavailable,
    Reason::PushAuthFailed,
    Reason::OutOfMemory,
    Reason::NodeLost,
    Reason::SecretMissing,
];

fn is_active(build: &NixImageBuild) -> bool {
    build
        .status
        .as_ref()
        .is_none_or(|status| status.outcome.is_none())
}

fn happen(world: &mut World, step: Step) {
    let running = world.builds.iter().find(|build| is_active(build)).cloned();
    match step {
        Step::Commit(n) => world.source = resolved(commit(n)),
        Step::LockFile(n) => {
            world.source = resolved(Revision {
                lock_hash: Some(format!("{n:02x}").repeat(32)),
                ..commit(n + 10)
            });
        }
        Step::SourceFails => world.source.observation = unreachable(),
        Step::Mode(n) => world.edit(|spec| {
            spec.trigger.mode = [
                TriggerMode::LockFile,
                TriggerMode::Revision,
                TriggerMode::Manual,
            ][usize::from(n)];
        }),
        Step::Label(n) => world.edit(|spec| {
            spec.output.labels.insert("n".into(), n.to_string());
        }),
        Step::Tags(n) => {
            world.edit(|spec| spec.output.tags = vec![format!("t{n}"), "${shortRev}".into()]);
        }
        Step::Ask(n) => {
            world.annotate(ANNOTATION_BUILD, &n.to_string());
            world.poll();
        }
        Step::Suspend(suspend) => world.edit(|spec| spec.suspend = suspend),
        Step::Policy(n) => world.edit(|spec| {
            spec.run_policy = [
                RunPolicy::Serial,
                RunPolicy::SerialLatestOnly,
                RunPolicy::CancelRunning,
            ][usize::from(n)];
        }),
        Step::EndWell(n) => {
            if let Some(build) = running {
                let retag = build.spec.reasons.contains(&BuildReason::Retag);
                let end = if retag {
                    ended(BuildOutcome::Retagged)
                } else {
                    published(&format!("{n:02x}"))
                };
                world.end(end);
            }
        }
        Step::EndUnchanged => {
            let status = world.image.status.as_ref();
            let known = status.is_some_and(|status| status.published.is_some());
            let builds = running.is_some_and(|b| !b.spec.reasons.contains(&BuildReason::Retag));
            if known && builds {
                world.end(ended(BuildOutcome::NotChanged));
            }
        }
        Step::EndBadly(n) => {
            if running.is_some() {
                world.end(failed(FAILURES[usize::from(n)]));
            }
        }
        Step::Time(seconds) => world.pass(seconds),
        Step::HistoryGone => world.builds.retain(is_active),
        Step::Crash => {
            let plan = plan(&world.observed());
            world.perform(&plan.actions);
        }
    }
}

fn check(world: &World) -> Result<(), TestCaseError> {
    let active = world.builds.iter().filter(|build| is_active(build)).count();
    prop_assert!(active <= 1, "{active} live builds");
    let Some(status) = &world.image.status else {
        return Ok(());
    };
    let observed = status.observed_generation.unwrap_or(-1);
    prop_assert!(Some(observed) <= world.image.metadata.generation);
    let size = serde_json::to_vec(status).map_or(usize::MAX, |json| json.len());
    prop_assert!(size <= 32 * 1024);
    if world.ready().0 == "True" && !world.image.spec.suspend {
        let published = status.published.clone().unwrap_or_default();
        let hash = firn_crd::hash::build_hash(&world.image.spec);
        prop_assert_eq!(published.build_hash, Some(hash), "Ready=True is the truth");
        let image = status.latest_image.clone().unwrap_or_default();
        prop_assert!(
            published
                .digest
                .is_some_and(|digest| image.ends_with(&digest))
        );
    }
    let is = |kind| {
        world
            .condition(kind)
            .is_some_and(|(status, _)| status == "True")
    };
    prop_assert!(!(is(ConditionType::Reconciling) && is(ConditionType::Stalled)));
    if !world.image.spec.suspend {
        let ends = [
            ConditionType::Ready,
            ConditionType::Reconciling,
            ConditionType::Stalled,
        ];
        prop_assert_eq!(ends.into_iter().filter(|kind| is(*kind)).count(), 1);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn every_reachable_world_is_safe_honest_and_settles(steps in prop::collection::vec(step(), 1..40)) {
        let mut world = World::new();
        let mut numbers = 0;
        for step in steps {
            happen(&mut world, step);
            // A new generation is taken in, a request that waited begins its build, the API
            // server's word for it is taken in: a turn each, and one that finds nothing to do.
            let mut rests = false;
            for _ in 0..5 {
                let plan = world.turn();
                check(&world)?;
                rests = plan.actions.is_empty() && plan.status.is_none() && plan.events.is_empty();
                if rests {
                    break;
                }
            }
            prop_assert!(rests, "it does not come to rest");
            let highest = world.status().build_counter.unwrap_or(0);
            prop_assert!(highest >= numbers, "numbers only grow");
            numbers = highest;
            let again = world.turn();
            prop_assert_eq!(again.actions, vec![], "idempotent");
            prop_assert_eq!(again.status, None, "nothing is written at rest");
            prop_assert_eq!(again.events, vec![], "nothing is told twice");
        }
    }

    #[test]
    fn an_image_that_goes_gets_nothing_new(steps in prop::collection::vec(step(), 0..20)) {
        let mut world = World::new();
        for step in steps {
            happen(&mut world, step);
            world.turn();
        }
        world.image.metadata.deletion_timestamp = Some(Time(world.now));
        prop_assert_eq!(world.turn(), Plan::default());
    }

    #[test]
    fn every_world_comes_to_rest_with_its_image_published(steps in prop::collection::vec(step(), 0..30)) {
        let mut world = World::new();
        for step in steps {
            happen(&mut world, step);
            world.turn();
        }
        // From now on all goes well, and a person asks for what a machine would not try again.
        world.edit(|spec| spec.suspend = false);
        world.source = resolved(commit(99));
        world.annotate(ANNOTATION_BUILD, "please");
        for _ in 0..20 {
            world.poll();
            world.turn();
            happen(&mut world, Step::EndWell(7));
            world.pass(7200);
        }
        world.turn();
        prop_assert_eq!(world.ready().0, "True", "{}", world.message());
        prop_assert_eq!(world.turn(), Plan::default());
    }
}

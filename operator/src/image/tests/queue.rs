//! `runPolicy: Serial`: what is seen while a build runs has its turn, whatever ends in between.

use firn_crd::image::QUEUED_REVISIONS_MAX;
use proptest::prelude::*;

use super::*;

/// Build 1 of commit 1 runs.
fn serial() -> World {
    let mut world = World::new();
    world.image.spec.run_policy = RunPolicy::Serial;
    world.image.spec.history.succeeded = 50;
    world.turn();
    world
}

fn see(world: &mut World, n: u8) {
    world.source = resolved(commit(n));
    world.turn();
}

/// The commits that were built, in order.
fn built(world: &World) -> Vec<String> {
    let mut runs = world.observed().runs;
    runs.retain(|run| !run.work.retag);
    runs.into_iter()
        .map(|run| run.work.revision.commit)
        .collect()
}

fn commits(numbers: impl IntoIterator<Item = u8>) -> Vec<String> {
    numbers.into_iter().map(|n| commit(n).commit).collect()
}

fn waiting(world: &World) -> Vec<String> {
    let entries = &world.status().queued_revisions;
    let commit = |revision: &str| revision::commit_of(revision).unwrap().to_owned();
    entries
        .iter()
        .map(|entry| commit(entry.revision.as_deref().unwrap()))
        .collect()
}

fn runs(world: &World) -> bool {
    let mut runs = world.observed().runs.into_iter();
    runs.any(|run| run.outcome().is_none())
}

/// Whatever runs and waits is built.
fn drain(world: &mut World) {
    for _ in 0..40 {
        if runs(world) {
            world.end(published("aa"));
        }
        world.turn();
    }
    assert_eq!(world.turn(), Plan::default());
}

#[test]
fn each_commit_that_was_seen_is_built_in_order() {
    let mut world = serial();
    for n in [2, 3, 3, 2] {
        see(&mut world, n);
    }
    assert_eq!(built(&world), commits([1]));
    assert_eq!(waiting(&world), commits([2, 3, 2]));
    assert!(
        world.message().ends_with("queued after it: 3"),
        "{}",
        world.message()
    );
    assert_eq!(world.turn(), Plan::default(), "nothing is written at rest");
    drain(&mut world);
    assert_eq!(built(&world), commits([1, 2, 3, 2]));
    assert_eq!(waiting(&world), commits([]));
}

#[test]
fn other_policies_keep_the_latest_only() {
    let mut world = World::new();
    world.turn();
    see(&mut world, 2);
    see(&mut world, 3);
    assert_eq!(waiting(&world), commits([]));
    drain(&mut world);
    assert_eq!(built(&world), commits([1, 3]));
}

#[test]
fn of_more_than_can_wait_the_newest_is_built() {
    let mut world = serial();
    for n in 2..20 {
        see(&mut world, n);
    }
    assert_eq!(waiting(&world).len(), QUEUED_REVISIONS_MAX);
    assert_eq!(waiting(&world), commits((2..11).chain([19])));
    drain(&mut world);
    let done = built(&world);
    assert_eq!(done.last(), Some(&commit(19).commit));
}

#[test]
fn what_is_not_built_by_itself_does_not_wait() {
    let mut world = World::new();
    world.image.spec.run_policy = RunPolicy::Serial;
    world.image.spec.trigger.mode = TriggerMode::LockFile;
    world.turn();
    see(&mut world, 2);
    assert_eq!(waiting(&world), commits([]), "the lock file is the same");
    world.source = resolved(Revision {
        lock_hash: Some("20".repeat(32)),
        ..commit(3)
    });
    world.turn();
    assert_eq!(waiting(&world), commits([3]));
}

#[test]
fn a_changed_spec_wants_the_latest_only() {
    type Change = fn(&mut NixImageSpec);
    let changes: [(&str, Change); 2] = [
        ("labels", |spec| {
            spec.output.labels.insert("team".into(), "snow".into());
        }),
        ("policy", |spec| {
            spec.run_policy = RunPolicy::SerialLatestOnly;
        }),
    ];
    for (what, change) in changes {
        let mut world = serial();
        for n in [2, 3, 4] {
            see(&mut world, n);
        }
        world.edit(change);
        drain(&mut world);
        assert_eq!(built(&world), commits([1, 4]), "{what}");
    }
}

#[test]
fn a_failure_is_followed_by_what_waits_and_not_by_a_retry() {
    for reason in [Reason::BuildFailed, Reason::RegistryUnavailable] {
        let mut world = serial();
        see(&mut world, 2);
        see(&mut world, 3);
        world.end(failed(reason));
        world.turn();
        assert_eq!(built(&world), commits([1, 2]), "{reason}");
        world.end(failed(reason));
        world.turn();
        assert_eq!(built(&world), commits([1, 2, 3]), "{reason}");
    }
}

#[test]
fn what_waits_is_built_while_the_source_cannot_be_read() {
    let mut world = serial();
    see(&mut world, 2);
    world.source.observation = unreachable();
    world.end(published("aa"));
    world.turn();
    assert_eq!(built(&world), commits([1, 2]));
    assert_eq!(waiting(&world), commits([2]), "until its build is there");
    world.turn();
    assert_eq!(waiting(&world), commits([]));
}

#[test]
fn a_request_is_left_to_the_latest() {
    let mut world = serial();
    see(&mut world, 2);
    world.annotate(ANNOTATION_BUILD, "now");
    world.poll();
    world.turn();
    world.end(published("aa"));
    assert_eq!(reasons(&world.turn()), [BuildReason::Revision]);
    world.turn();
    world.end(published("bb"));
    world.poll();
    assert_eq!(reasons(&world.turn()), [BuildReason::Manual]);
}

#[derive(Debug, Clone, Copy)]
enum Happens {
    Commit(u8),
    Ends,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// The operator may end between its actions and its write of status, and starts anew with a
    /// source that it has not asked yet.
    #[test]
    fn no_commit_is_lost_or_built_twice(
        steps in prop::collection::vec(
            (prop_oneof![(1_u8..5).prop_map(Happens::Commit), Just(Happens::Ends)], any::<bool>()),
            0..20,
        )
    ) {
        let mut world = serial();
        let mut seen = vec![1];
        for (step, crash) in steps {
            match step {
                Happens::Commit(n) if waiting(&world).len() < QUEUED_REVISIONS_MAX => {
                    if seen.last() != Some(&n) {
                        seen.push(n);
                    }
                    world.source = resolved(commit(n));
                }
                Happens::Commit(_) => {}
                Happens::Ends => {
                    if runs(&world) {
                        world.end(published("aa"));
                    }
                }
            }
            if crash {
                let plan = plan(&world.observed());
                world.perform(&plan.actions);
                let source = world.source.clone();
                world.source.observation = Observation::Pending;
                world.turn();
                world.source = source;
            }
            world.turn();
        }
        drain(&mut world);
        prop_assert_eq!(built(&world), commits(seen));
    }
}

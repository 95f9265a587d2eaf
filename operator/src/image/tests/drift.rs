//! What others did in the registry, and what follows by `verification`.

use firn_crd::policy::OnDrift;

use super::*;
use crate::registry::{Found, Observation as Registry};

/// As `published("aa")` has it.
const OURS: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

/// The registry says where `latest` points.
fn there(digest: bool, latest: Option<&str>) -> Registry {
    Registry::Found(Found {
        digest,
        tags: [("latest".to_owned(), latest.map(ToOwned::to_owned))].into(),
    })
}

fn moved() -> Registry {
    there(true, Some("sha256:bb"))
}

fn verified(on_drift: OnDrift) -> World {
    let mut world = World::new();
    world.image.spec.verification.on_drift = on_drift;
    world.settle();
    world.pass(3600);
    world
}

fn drift(world: &World) -> Option<(String, String)> {
    world.condition(ConditionType::TagDrift)
}

fn says(world: &World) -> String {
    let found = find_condition(&world.status().conditions, ConditionType::TagDrift);
    found.unwrap().message.clone()
}

/// The repair that runs ends well: nobody has looked since.
fn repaired(world: &mut World) {
    world.pass(10);
    world.end(ended(BuildOutcome::Retagged));
    world.registry = Registry::Pending;
}

#[test]
fn each_drift_is_reported_once_and_gone_when_it_is_undone() {
    for (registry, word, available) in [
        (moved(), "TagMoved", "True"),
        (there(true, None), "TagDeleted", "True"),
        (there(false, None), "DigestMissing", "False"),
        (there(false, Some(OURS)), "DigestMissing", "False"),
    ] {
        let mut world = verified(OnDrift::Report);
        world.registry = there(true, Some(OURS));
        assert_eq!(world.turn(), Plan::default(), "nothing is written at rest");
        world.registry = registry;
        let plan = world.turn();
        assert_eq!(words(&plan), ["TagDrift"], "{word}");
        assert_eq!(plan.actions, [], "it is only said");
        assert_eq!(drift(&world), Some(("True".into(), word.into())));
        let at = world.condition(ConditionType::Available).unwrap();
        assert_eq!(at.0, available, "{word}");
        assert_eq!(world.ready().0, "True");
        assert_eq!(world.turn(), Plan::default());

        // A restart: nothing is known, and what was found stays.
        world.registry = Registry::Pending;
        assert_eq!(world.turn(), Plan::default());
        world.registry = there(true, Some(OURS));
        assert_eq!(words(&world.turn()), ["DriftRepaired"]);
        assert_eq!(drift(&world), None);
        let at = world.condition(ConditionType::Available).unwrap();
        assert_eq!(at.0, "True");
    }
}

#[test]
fn a_registry_that_does_not_say_has_no_drift() {
    let silent = Registry::Unknown(SourceFailure::new(Kind::Unreachable, "no answer"));
    let mut world = verified(OnDrift::Repush);
    world.registry = silent.clone();
    let plan = world.turn();
    assert_eq!((plan.actions.len(), plan.events.len()), (0, 0));
    let unknown = ("Unknown".into(), "RegistryUnreachable".into());
    assert_eq!(drift(&world), Some(unknown));
    assert_eq!(world.turn(), Plan::default());
    world.registry = there(true, Some(OURS));
    assert_eq!(words(&world.turn()), Vec::<String>::new());
    assert_eq!(drift(&world), None);

    // What was found is not forgotten for it.
    let mut world = verified(OnDrift::Report);
    world.registry = moved();
    world.turn();
    world.registry = silent;
    assert_eq!(world.turn(), Plan::default());
}

#[test]
fn nobody_looks_unless_asked_to() {
    let mut world = World::settled();
    world.registry = moved();
    assert_eq!(world.turn(), Plan::default());
    assert_eq!(super::super::drift::question(&world.observed()), None);

    let mut world = verified(OnDrift::Report);
    let query = super::super::drift::question(&world.observed()).unwrap();
    assert_eq!(query.digest, OURS);
    assert_eq!((query.tags, query.since), (vec!["latest".to_owned()], 1));
    world.registry = moved();
    world.turn();
    world.edit(|spec| spec.verification.on_drift = OnDrift::Ignore);
    assert_eq!(words(&world.turn()), Vec::<String>::new());
    assert_eq!(drift(&world), None);
}

#[test]
fn tags_are_moved_back_without_a_build() {
    let mut world = verified(OnDrift::Repush);
    world.registry = moved();
    let plan = world.turn();
    assert_eq!(words(&plan), ["TagDrift", "BuildQueued"]);
    assert_eq!(reasons(&plan), [BuildReason::Drift, BuildReason::Retag]);
    assert_eq!(made(&plan).unwrap().spec.output.tags, ["latest"]);
    // While it runs, nothing that the registry says is believed.
    world.registry = there(true, Some("sha256:cc"));
    assert!(world.turn().events.is_empty());
    repaired(&mut world);
    assert_eq!(words(&world.turn()), ["DriftRepaired"]);
    assert_eq!(drift(&world), None);
    assert_eq!(world.ready().0, "True");
    let query = super::super::drift::question(&world.observed()).unwrap();
    assert_eq!(query.since, 2, "it is asked anew");
}

#[test]
fn an_image_that_is_gone_is_built_again_from_what_was_published() {
    let mut world = World::new();
    world.image.spec.verification.on_drift = OnDrift::Repush;
    world.image.spec.trigger.mode = TriggerMode::Manual;
    world.settle();
    world.pass(3600);
    // Nobody asked for this commit yet.
    world.source = resolved(commit(2));
    world.turn();
    world.registry = there(false, None);
    let plan = world.turn();
    assert_eq!(reasons(&plan), [BuildReason::Drift]);
    let git = made(&plan).unwrap().spec.source.git.clone().unwrap();
    assert_eq!(git.commit, commit(1).commit);
    world.pass(60);
    world.end(failed(Reason::RegistryUnavailable));
    world.turn();
    world.pass(120);
    let plan = world.turn();
    assert_eq!(reasons(&plan), [BuildReason::Drift, BuildReason::Retry]);
    world.pass(60);
    world.end(published("aa"));
    world.registry = Registry::Pending;
    let words = words(&world.turn());
    assert_eq!(words, ["ImagePushed", "DriftRepaired"]);
    assert_eq!(world.ready().0, "True");
    world.turn();
    assert_eq!(world.turn(), Plan::default());
}

#[test]
fn a_repair_that_failed_is_needless_once_somebody_else_did_it() {
    for registry in [moved(), there(false, None)] {
        let mut world = verified(OnDrift::Repush);
        world.registry = registry;
        world.turn();
        world.end(failed(Reason::BuildFailed));
        world.turn();
        assert_eq!(world.ready(), ("False".into(), "BuildFailed".into()));
        assert_eq!(world.turn(), Plan::default(), "not tried for ever");
        world.registry = there(true, Some(OURS));
        world.turn();
        assert_eq!(world.ready().0, "True");
        assert_eq!(drift(&world), None);
    }
}

#[test]
fn the_tag_policy_says_whose_tags_are_moved_back() {
    for (policy, registry, moves) in [
        (TagPolicy::Overwrite, moved(), true),
        (TagPolicy::Keep, moved(), false),
        (TagPolicy::Fail, moved(), false),
        (TagPolicy::Keep, there(true, None), true),
        (TagPolicy::Fail, there(true, None), true),
    ] {
        let mut world = verified(OnDrift::Repush);
        world.edit(|spec| spec.output.tag_policy = policy);
        // Whatever the change of policy asks for is done first.
        world.turn();
        if world.builds.iter().any(|build| build.status.is_none()) {
            repaired(&mut world);
            world.turn();
        }
        world.pass(3600);
        world.registry = registry;
        let plan = world.turn();
        assert_eq!(
            made(&plan).is_some(),
            moves,
            "{policy:?} {:?}",
            world.registry
        );
        if !moves {
            assert!(
                says(&world).contains("output.tagPolicy"),
                "{}",
                says(&world)
            );
            assert_eq!(world.turn(), Plan::default());
        }
    }
    // An older image of its own is nobody else's.
    let mut world = verified(OnDrift::Repush);
    world.image.spec.output.tag_policy = TagPolicy::Keep;
    world.source = resolved(commit(2));
    world.turn();
    world.end(published("cc"));
    world.turn();
    world.pass(3600);
    world.turn();
    world.registry = there(true, Some(OURS));
    assert_eq!(
        reasons(&world.turn()),
        [BuildReason::Drift, BuildReason::Retag]
    );
}

#[test]
fn whoever_takes_the_tag_each_time_is_not_answered_for_ever() {
    let mut world = verified(OnDrift::Repush);
    let mut repairs = 0;
    for _ in 0..24 * 3 {
        world.registry = moved();
        if made(&world.turn()).is_some() {
            repairs += 1;
            repaired(&mut world);
            world.turn();
        }
        world.pass(3600);
    }
    assert!(
        (6..=9).contains(&repairs),
        "{repairs} repairs in three days"
    );
    // It says when it goes on, and does so by itself.
    let mut world = verified(OnDrift::Repush);
    let mut plan = Plan::default();
    for _ in 0..4 {
        world.pass(3600);
        world.registry = moved();
        plan = world.turn();
        if made(&plan).is_some() {
            repaired(&mut world);
            world.turn();
        }
    }
    assert!(made(&plan).is_none());
    let again = plan.look_again.expect("a time");
    assert!(
        says(&world).contains(&again.to_string()),
        "{}",
        says(&world)
    );
    world.now = again;
    assert!(made(&world.turn()).is_some());
}

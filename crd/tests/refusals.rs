//! What the API server refuses and accepts, as far as that can be known without one: the schema's
//! bounds and, by `kube-cel`, the rules. `e2e/` asks a real one the same.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests, where a panic is the report"
)]

mod structural;
mod table;

use structural::Schemas;
use table::{Case, accepted, merge, refused};

/// What is said to the creation, or, for an update, to the update of what was created.
fn answer(schemas: &Schemas, case: &Case) -> Vec<String> {
    let created = schemas.complaints(&case.object, None);
    let Some(update) = &case.update else {
        return created;
    };
    assert_eq!(
        created, [""; 0],
        "{}: the object before the update",
        case.name
    );
    let mut updated = case.object.clone();
    merge(&mut updated, update);
    schemas.complaints(&updated, Some(&case.object))
}

#[test]
fn what_must_be_refused_is_refused_with_the_right_words() {
    let schemas = Schemas::lock();
    let cases = refused();
    assert_eq!(cases.len(), 102, "a refusal was added or lost");
    let mut wrong = Vec::new();
    for case in &cases {
        let answer = answer(&schemas, case);
        if case.message.is_empty() || !answer.iter().any(|text| text.contains(&case.message)) {
            wrong.push(format!("{}: {answer:?}", case.name));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_must_be_accepted_is_accepted() {
    let schemas = Schemas::lock();
    for case in accepted() {
        assert_eq!(answer(&schemas, &case), [""; 0], "{}", case.name);
    }
}

#[test]
fn an_accepted_object_is_read_and_written_without_a_change() {
    let schemas = Schemas::lock();
    for case in accepted() {
        schemas.round_trip(&case.object);
    }
}

//! Answers of git servers as they came over the wire, and broken ones.

use expect_test::expect;
use proptest::prelude::*;

use super::*;

const A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
const B: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";

fn message(parts: &[&str]) -> Vec<u8> {
    let mut body = Vec::new();
    for part in parts {
        match *part {
            "0000" => pkt_line::write_flush(&mut body),
            line => pkt_line::write_line(&mut body, line),
        }
    }
    body
}

#[test]
fn version_2_is_understood_with_and_without_the_service_line() {
    let v2 = |body: &[u8]| match parse_advertisement(body) {
        Ok(Advertisement::V2 { object_format }) => object_format,
        other => panic!("{other:?}"),
    };
    // git http-backend 2.39, then GitHub.
    let plain = [
        "version 2",
        "agent=git/2.39.5",
        "ls-refs=unborn",
        "fetch=shallow wait-for-done filter",
        "server-option",
        "object-format=sha1",
        "0000",
    ];
    assert_eq!(v2(&message(&plain)).as_deref(), Some("sha1"));
    let mut with_service = vec!["# service=git-upload-pack", "0000"];
    with_service.extend(plain);
    assert_eq!(v2(&message(&with_service)).as_deref(), Some("sha1"));
}

#[test]
fn version_0_lists_its_refs_with_the_first_answer() {
    let body = message(&[
        "# service=git-upload-pack",
        "0000",
        &format!("{A} HEAD\0multi_ack symref=HEAD:refs/heads/trunk agent=git/2.20"),
        &format!("{A} refs/heads/trunk"),
        &format!("{B} refs/tags/v1"),
        &format!("{A} refs/tags/v1^{{}}"),
        "0000",
    ]);
    let Ok(Advertisement::V0 { refs }) = parse_advertisement(&body) else {
        panic!("not version 0")
    };
    let at = |target| resolve(&refs, &target);
    assert_eq!(
        at(Target::Head),
        Some(("refs/heads/trunk".into(), A.into()))
    );
    assert_eq!(
        at(Target::Tag("v1".into())),
        Some(("refs/tags/v1".into(), A.into()))
    );
    assert_eq!(at(Target::Branch("main".into())), None);
}

#[test]
fn an_empty_repository_has_no_refs() {
    let zero = "0".repeat(40);
    let body = message(&[
        "# service=git-upload-pack",
        "0000",
        &format!("{zero} capabilities^{{}}\0agent=x"),
        "0000",
    ]);
    assert_eq!(
        parse_advertisement(&body),
        Ok(Advertisement::V0 { refs: vec![] })
    );
    assert_eq!(parse_refs(b"0000"), Ok(vec![]));
}

#[test]
fn a_request_asks_for_the_wanted_ref_only() {
    let text = String::from_utf8(request(&Target::Branch("main".into()), Some("sha1"))).unwrap();
    expect![[r"
        0014command=ls-refs
        0017object-format=sha1
        00010009peel
        000csymrefs
        001fref-prefix refs/heads/main
        0000"]]
    .assert_eq(&text);
}

#[test]
fn a_branch_whose_name_only_begins_alike_is_not_taken() {
    let body = message(&[
        &format!("{A} refs/heads/main-old"),
        &format!("{B} refs/heads/main"),
        "0000",
    ]);
    let refs = parse_refs(&body).unwrap();
    assert_eq!(
        resolve(&refs, &Target::Branch("main".into())),
        Some(("refs/heads/main".into(), B.into()))
    );
    assert_eq!(resolve(&refs, &Target::Branch("mai".into())), None);
}

#[test]
fn an_annotated_tag_is_peeled_and_head_is_named() {
    let body = message(&[
        &format!("{A} HEAD symref-target:refs/heads/main"),
        &format!("{A} refs/tags/v1 peeled:{B} later:attribute"),
        "0000",
    ]);
    expect![[r#"
        [
            Ref {
                name: "HEAD",
                oid: "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
                peeled: None,
                symref: Some(
                    "refs/heads/main",
                ),
            },
            Ref {
                name: "refs/tags/v1",
                oid: "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
                peeled: Some(
                    "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb",
                ),
                symref: None,
            },
        ]
    "#]]
    .assert_debug_eq(&parse_refs(&body).unwrap());
}

#[test]
fn what_is_not_gits_is_refused_with_its_place() {
    let error = |body: &[u8]| parse_refs(body).unwrap_err().to_string();
    assert_eq!(
        error(b"<!DOCTYPE html>"),
        "the packet at byte 0 has no valid length"
    );
    assert_eq!(
        error(&message(&["hello", "0000"])),
        "line 1 is not understood"
    );
    assert_eq!(
        error(&message(&[&format!("{A} refs/heads/a")])),
        "the answer ends too early"
    );
    assert_eq!(error(b""), "the answer ends too early");
    assert_eq!(
        error(&message(&["ERR access\x1b[31m denied", "0000"])),
        r#"the server says "access [31m denied""#
    );
}

proptest! {
    #[test]
    fn no_answer_can_break_the_parsers(body in prop::collection::vec(any::<u8>(), 0..500)) {
        let _ = (parse_refs(&body), parse_advertisement(&body));
    }

    #[test]
    fn what_is_resolved_is_an_object_id(words in prop::collection::vec("[a-f0-9 :/a-z]{0,90}", 0..5)) {
        let mut lines: Vec<&str> = words.iter().map(String::as_str).collect();
        lines.push("0000");
        for r in parse_refs(&message(&lines)).unwrap_or_default() {
            let (_, commit) = resolve(std::slice::from_ref(&r), &Target::Branch(r.name.trim_start_matches("refs/heads/").into())).unwrap_or_default();
            prop_assert!(commit.is_empty() || is_object_id(&commit));
        }
    }
}

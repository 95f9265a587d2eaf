//! `git ls-remote`: where refs point, as the git program lists them.

use super::super::http::ANSWER_MAX;
use super::super::ls_refs::{self, Ref};
use super::super::{SourceFailure, Target};
use super::process::Workspace;

/// The refs of the server that may be `target`.
pub(super) async fn list(git: &Workspace<'_>, target: &Target) -> Result<Vec<Ref>, SourceFailure> {
    let arguments = arguments(target);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let listing = git.run(&arguments, ANSWER_MAX).await?;
    Ok(parse(&String::from_utf8_lossy(&listing)))
}

/// Patterns match from the end of a name, so that more may be listed than was asked for.
fn arguments(target: &Target) -> Vec<String> {
    let (kind, patterns) = match target {
        // Of a commit nothing is asked but whether the server is there and the key fits.
        Target::Head | Target::Commit(_) => ("--symref", vec!["HEAD".to_owned()]),
        Target::Branch(name) => ("--heads", vec![name.clone()]),
        Target::Semver(_) => ("--tags", vec![]),
        Target::Tag(name) => ("--tags", vec![name.clone(), format!("{name}^{{}}")]),
    };
    ["ls-remote", "--quiet", kind, "--", "origin"]
        .into_iter()
        .map(str::to_owned)
        .chain(patterns)
        .collect()
}

/// `<id>\t<name>` a line; `ref: <name>\tHEAD` before a symbolic one, `<id>\t<tag>^{}` after an
/// annotated tag. Other lines are none of git's.
fn parse(listing: &str) -> Vec<Ref> {
    let mut refs: Vec<Ref> = Vec::new();
    let mut symbolic = None;
    for line in listing.lines() {
        let Some((value, name)) = line.split_once('\t') else {
            continue;
        };
        if let Some(target) = value.strip_prefix("ref: ") {
            symbolic = Some((name, target));
            continue;
        }
        if !ls_refs::is_object_id(value) {
            continue;
        }
        if let Some(tag) = name.strip_suffix("^{}") {
            if let Some(last) = refs.last_mut().filter(|last| last.name == tag) {
                last.peeled = Some(value.to_owned());
            }
        } else {
            let symref = symbolic.filter(|(from, _)| *from == name);
            refs.push(Ref {
                name: name.to_owned(),
                oid: value.to_owned(),
                peeled: None,
                symref: symref.map(|(_, target)| target.to_owned()),
            });
        }
    }
    refs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_git_lists_is_read() {
        let [one, two] = ["1", "2"].map(|digit| digit.repeat(40));
        let listing = format!(
            "ref: refs/heads/main\tHEAD\n{one}\tHEAD\n{one}\trefs/heads/main\n\
             {two}\trefs/tags/v1\n{one}\trefs/tags/v1^{{}}\nwarning: odd\nxyz\trefs/heads/x\n"
        );
        let refs = parse(&listing);
        let names: Vec<_> = refs.iter().map(|r| r.name.as_str()).collect();
        assert_eq!(names, ["HEAD", "refs/heads/main", "refs/tags/v1"]);
        let at = |target| ls_refs::resolve(&refs, &target);
        assert_eq!(
            at(Target::Head),
            Some(("refs/heads/main".into(), one.clone()))
        );
        assert_eq!(
            at(Target::Tag("v1".into())),
            Some(("refs/tags/v1".into(), one))
        );
        assert_eq!(at(Target::Branch("x".into())), None);
    }
}

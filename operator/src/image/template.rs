//! Tag templates: `main-${shortRev}` → `main-1a2b3c4d5e6f`. Pure.

use jiff::Timestamp;

/// Longest tag, by the distribution specification.
pub const TAG_MAX: usize = 128;
/// Characters of `${shortRev}` and `${lockHash}`.
const SHORT: usize = 12;

/// What the variables stand for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Variables {
    /// Full commit id.
    pub rev: String,
    /// Number of the build.
    pub number: i64,
    /// sha256 of `flake.lock` in hex digits.
    pub lock_hash: Option<String>,
    /// Branch without `refs/heads/`.
    pub branch: Option<String>,
    /// Tag without `refs/tags/`.
    pub tag: Option<String>,
    /// The committer's time.
    pub commit_time: Option<Timestamp>,
}

/// A template that gives no valid tag.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// The variable has no value here.
    #[error("output.tags: {template:?} uses ${{{variable}}}, which {why}")]
    Unknown {
        /// The template.
        template: String,
        /// The variable.
        variable: String,
        /// Why it has none, and what to do.
        why: &'static str,
    },
    /// `${` without `}`.
    #[error("output.tags: {template:?} has no '}}' after '${{'")]
    Unclosed {
        /// The template.
        template: String,
    },
    /// Not a tag.
    #[error(
        "output.tags: {template:?} gives {tag:?}, which is not a valid tag: at most {TAG_MAX} letters, \
         digits, '_', '.' and '-', not starting with '.' or '-'"
    )]
    Invalid {
        /// The template.
        template: String,
        /// What it gives.
        tag: String,
    },
}

/// The tags that `templates` give: sorted, without duplicates.
pub fn expand(templates: &[String], variables: &Variables) -> Result<Vec<String>, TemplateError> {
    let mut tags = templates
        .iter()
        .map(|template| expand_one(template, variables))
        .collect::<Result<Vec<_>, _>>()?;
    tags.sort();
    tags.dedup();
    Ok(tags)
}

fn expand_one(template: &str, variables: &Variables) -> Result<String, TemplateError> {
    let mut tag = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("${") {
        let Some((variable, after)) = after.split_once('}') else {
            return Err(TemplateError::Unclosed {
                template: template.to_owned(),
            });
        };
        tag.push_str(before);
        tag.push_str(
            &variables
                .value(variable)
                .map_err(|why| TemplateError::Unknown {
                    template: template.to_owned(),
                    variable: variable.to_owned(),
                    why,
                })?,
        );
        rest = after;
    }
    tag.push_str(rest);
    if is_tag(&tag) {
        Ok(tag)
    } else {
        Err(TemplateError::Invalid {
            template: template.to_owned(),
            tag,
        })
    }
}

impl Variables {
    fn value(&self, variable: &str) -> Result<String, &'static str> {
        match variable {
            "rev" => Ok(self.rev.clone()),
            "shortRev" => Ok(short(&self.rev)),
            "buildNumber" => Ok(self.number.to_string()),
            "lockHash" => self
                .lock_hash
                .as_deref()
                .map(short)
                .ok_or("is not known: the source has no flake.lock, or it could not be read"),
            "branch" => self
                .branch
                .as_deref()
                .map(as_tag)
                .ok_or("is not known: the source is no branch; use source.git.ref.branch"),
            "tag" => self
                .tag
                .as_deref()
                .map(as_tag)
                .ok_or("is not known: the source is no tag; use source.git.ref.tag"),
            "commitDate" => self
                .commit_time
                .map(|time| time.strftime("%Y%m%d").to_string())
                .ok_or("is not known: the commit's time could not be read"),
            _ => Err(
                "does not exist; there are rev, shortRev, lockHash, branch, tag, buildNumber and commitDate",
            ),
        }
    }
}

/// The beginning of a hash, as people quote it.
pub fn short(hash: &str) -> String {
    hash.chars().take(SHORT).collect()
}

/// A git name with what a tag cannot hold replaced: `feature/x` → `feature-x`.
fn as_tag(name: &str) -> String {
    name.chars()
        .map(|c| if is_tag_char(c) { c } else { '-' })
        .collect()
}

const fn is_tag_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-')
}

fn is_tag(tag: &str) -> bool {
    !tag.is_empty()
        && tag.len() <= TAG_MAX
        && !tag.starts_with(['.', '-'])
        && tag.chars().all(is_tag_char)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables() -> Variables {
        Variables {
            rev: "0123456789abcdef0123456789abcdef01234567".into(),
            number: 17,
            lock_hash: Some("fedcba9876543210".repeat(4)),
            branch: Some("feature/snow".into()),
            tag: None,
            commit_time: Some("2026-11-24T18:34:11Z".parse().unwrap()),
        }
    }

    fn one(template: &str) -> Result<String, String> {
        expand(&[template.to_owned()], &variables())
            .map(|tags| tags.join(","))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn every_variable_is_replaced() {
        assert_eq!(one("latest").unwrap(), "latest");
        assert_eq!(one("${rev}").unwrap(), variables().rev);
        assert_eq!(
            one("r-${shortRev}.${buildNumber}").unwrap(),
            "r-0123456789ab.17"
        );
        assert_eq!(one("${lockHash}").unwrap(), "fedcba987654");
        assert_eq!(one("${branch}-x").unwrap(), "feature-snow-x");
        assert_eq!(one("${commitDate}").unwrap(), "20261124");
    }

    #[test]
    fn a_variable_without_a_value_says_what_to_do() {
        assert!(
            one("${tag}")
                .unwrap_err()
                .contains("use source.git.ref.tag")
        );
        assert!(one("${secret}").unwrap_err().contains("does not exist"));
        assert!(one("${rev").unwrap_err().contains("no '}'"));
    }

    #[test]
    fn what_is_no_tag_is_refused() {
        let long = "x".repeat(TAG_MAX + 1);
        for template in ["", "-x", ".x", "a b", long.as_str()] {
            assert!(
                one(template).unwrap_err().contains("not a valid tag"),
                "{template:?}"
            );
        }
    }

    #[test]
    fn two_templates_may_give_one_tag() {
        let tags = expand(
            &["b".into(), "17".into(), "${buildNumber}".into()],
            &variables(),
        );
        assert_eq!(tags.unwrap(), ["17", "b"]);
    }
}

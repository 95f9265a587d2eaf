//! The header `WWW-Authenticate`: how a registry wants to be asked. Pure.
//! <https://datatracker.ietf.org/doc/html/rfc7235#section-4.1>

use std::collections::BTreeMap;

/// What a registry asks for. Schemes that Firn does not speak are left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Challenge {
    /// Name and password with each request.
    Basic,
    /// A token from a service.
    Bearer {
        /// The service's address.
        realm: String,
        /// What to call the registry there.
        service: Option<String>,
        /// The scopes that this one request needs, separated by spaces.
        scope: Option<String>,
    },
}

/// Parameters of one challenge: more do not occur, and a header is foreign input.
const PARAMETERS_MAX: usize = 16;

/// The best challenge in a header: a token rather than a password. `None`: nothing that Firn speaks.
pub(crate) fn parse(header: &str) -> Option<Challenge> {
    let mut basic = None;
    for (scheme, parameters) in challenges(header) {
        if scheme.eq_ignore_ascii_case("basic") {
            basic = Some(Challenge::Basic);
        } else if scheme.eq_ignore_ascii_case("bearer")
            && let Some(realm) = parameters.get("realm")
        {
            return Some(Challenge::Bearer {
                realm: realm.clone(),
                service: parameters.get("service").cloned(),
                scope: parameters.get("scope").cloned(),
            });
        }
    }
    basic
}

type Parameters = BTreeMap<String, String>;

/// Several challenges may stand in one header, separated by the same comma as their parameters:
/// a word that no `=` follows begins the next one.
fn challenges(header: &str) -> Vec<(&str, Parameters)> {
    let mut found: Vec<(&str, Parameters)> = Vec::new();
    let mut rest = header;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let end = rest.find([' ', '\t', ',', '=']).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        if word.is_empty() {
            return found;
        }
        let Some(value) = after.strip_prefix('=') else {
            found.push((word, Parameters::new()));
            rest = after;
            continue;
        };
        let (value, after) = value_of(value);
        if let Some((_, parameters)) = found.last_mut()
            && parameters.len() < PARAMETERS_MAX
        {
            parameters.insert(word.to_ascii_lowercase(), value);
        }
        rest = after;
    }
}

/// A quoted string, with backslashes, or a bare word.
fn value_of(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([' ', '\t', ',']).unwrap_or(text.len());
        let (word, rest) = text.split_at(end);
        return (word.to_owned(), rest);
    };
    let mut value = String::new();
    let mut characters = quoted.chars();
    while let Some(character) = characters.next() {
        match character {
            '"' => break,
            '\\' => value.extend(characters.next()),
            other => value.push(other),
        }
    }
    (value, characters.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>) -> Challenge {
        Challenge::Bearer {
            realm: realm.to_owned(),
            service: service.map(str::to_owned),
            scope: scope.map(str::to_owned),
        }
    }

    #[test]
    fn headers_as_registries_send_them() {
        for (header, expected) in [
            (
                r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push""#,
                Some(bearer(
                    "https://auth.docker.io/token",
                    Some("registry.docker.io"),
                    Some("repository:a/b:pull,push"),
                )),
            ),
            (r#"Basic realm="Registry, inc.""#, Some(Challenge::Basic)),
            ("basic", Some(Challenge::Basic)),
            (
                r#"Basic realm="x", Bearer realm="https://t", error="invalid_token""#,
                Some(bearer("https://t", None, None)),
            ),
            (r#"Negotiate, Basic realm="x""#, Some(Challenge::Basic)),
            (
                r#"BEARER Realm=https://t , Service="a \"b\"""#,
                Some(bearer("https://t", Some("a \"b\""), None)),
            ),
            ("Bearer", None),
            ("Digest realm=\"x\"", None),
            ("", None),
            ("=,=\"", None),
        ] {
            assert_eq!(parse(header), expected, "{header}");
        }
    }

    proptest! {
        #[test]
        fn any_header_is_a_challenge_or_none(header in "[Bbasicer =,\"\\\\é]{0,40}") {
            let _ = parse(&header);
        }
    }
}

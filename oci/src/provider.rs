//! Every quirk of a particular registry or of what stands in front of one, each with its source.
//! Code elsewhere follows the distribution specification. Pure.

use reqwest::Url;

/// Docker Hub goes by three names: the one in references, the one of its API, and the one in
/// `config.json`. <https://github.com/distribution/reference/blob/main/normalize.go>,
/// <https://github.com/moby/moby/blob/master/registry/config.go>
const HUB: &str = "docker.io";
const HUB_API: &str = "registry-1.docker.io";
const HUB_LOGIN: &str = "index.docker.io";

/// The host that serves the API of a registry.
pub(crate) fn api_host(host: &str) -> &str {
    if usual_host(host) == HUB {
        HUB_API
    } else {
        host
    }
}

/// The one name of a registry that has several.
pub(crate) fn usual_host(host: &str) -> &str {
    if matches!(host, HUB_API | HUB_LOGIN) {
        HUB
    } else {
        host
    }
}

/// A registry behind a proxy that ends TLS and does not tell it so answers with `http://` to what
/// was asked by `https://`. The host is the same, so the scheme can be put right instead of being
/// followed into the open. <https://github.com/distribution/distribution/issues/1089>
pub(crate) fn repair_scheme(location: &mut Url, asked: &Url) {
    let downgraded = asked.scheme() == "https" && location.scheme() == "http";
    let same_place = location.host_str() == asked.host_str()
        && (location.port().is_none() || location.port() == asked.port());
    if downgraded && same_place {
        let port = asked.port();
        // Both schemes are "special", and the host is there: neither call can fail.
        let _ = location.set_scheme("https");
        let _ = location.set_port(port);
    }
}

/// Whether a registry takes a blob in several requests. ECR takes them and keeps the first only
/// (<https://github.com/aws/containers-roadmap/issues/2831>); Artifact Registry and its
/// predecessor have none (<https://cloud.google.com/artifact-registry/docs/reference/docker-api>).
pub(crate) fn takes_chunks(host: &str) -> bool {
    let host = host.split(':').next().unwrap_or(host);
    let is_amazon = host.ends_with(".amazonaws.com") || host.ends_with(".amazonaws.com.cn");
    let is_ecr = host == "public.ecr.aws" || (is_amazon && host.contains(".dkr.ecr"));
    let is_google = host == "gcr.io" || host.ends_with(".gcr.io") || host.ends_with(".pkg.dev");
    !is_ecr && !is_google
}

/// Whether the words of a refused manifest say that its tag is there and may not move. The
/// specification has no code for it.
/// ECR `ImageTagAlreadyExistsException`
/// <https://docs.aws.amazon.com/AmazonECR/latest/APIReference/API_PutImage.html>, Harbor
/// "configured as immutable" <https://goharbor.io/docs/main/working-with-projects/working-with-images/create-tag-immutability-rules/>,
/// Artifact Registry "immutable tags"
/// <https://cloud.google.com/artifact-registry/docs/docker/immutable-tags>.
pub(crate) fn says_tag_is_immutable(words: &str) -> bool {
    let words = words.to_ascii_lowercase();
    words.contains("immutable")
        || words.contains("imagetagalreadyexists")
        || words.contains("tag already exists")
}

/// Whether the words of a refusal are those of Go's HTTP server that was asked without TLS where it
/// speaks TLS. <https://github.com/golang/go/blob/go1.26.0/src/net/http/server.go> (search "HTTPS server")
pub(crate) fn says_tls_is_needed(words: &str) -> bool {
    words.contains("HTTP request to an HTTPS server")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_go_to_nobody_who_loses_them() {
        for (host, expected) in [
            ("123.dkr.ecr.eu-west-1.amazonaws.com", false),
            ("123.dkr.ecr-fips.us-east-1.amazonaws.com", false),
            ("public.ecr.aws", false),
            ("europe-docker.pkg.dev", false),
            ("eu.gcr.io", false),
            ("gcr.io:443", false),
            ("ghcr.io", true),
            ("notgcr.io", true),
            ("registry.example:5000", true),
        ] {
            assert_eq!(takes_chunks(host), expected, "{host}");
        }
    }

    #[test]
    fn only_the_same_place_is_repaired() {
        for (location, asked, expected) in [
            ("http://r.x/u?a=1", "https://r.x/v2/", "https://r.x/u?a=1"),
            ("http://r.x/u", "https://r.x:8443/v2/", "https://r.x:8443/u"),
            ("http://other.x/u", "https://r.x/v2/", "http://other.x/u"),
            ("http://r.x:81/u", "https://r.x/v2/", "http://r.x:81/u"),
            ("http://r.x/u", "http://r.x/v2/", "http://r.x/u"),
        ] {
            let mut location: Url = location.parse().unwrap();
            repair_scheme(&mut location, &asked.parse().unwrap());
            assert_eq!(location.as_str(), expected);
        }
    }
}

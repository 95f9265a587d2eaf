//! Labels, annotations and derived names. Names are derived, never generated, so that a crash at
//! any point is healed by finding what exists already. Pure.

/// Label on everything Firn makes; value [`MANAGED_BY`].
pub const LABEL_MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// Value of [`LABEL_MANAGED_BY`].
pub const MANAGED_BY: &str = "firn";
/// Label: name of the `NixImage` something belongs to.
pub const LABEL_IMAGE: &str = "firn.dev/image";
/// Label: name of the `NixImageBuild` something belongs to.
pub const LABEL_BUILD: &str = "firn.dev/build";
/// Label: platform as a label value, `linux-amd64`.
pub const LABEL_PLATFORM: &str = "firn.dev/platform";
/// Label: the build's key. Two equal keys are the same work.
pub const LABEL_KEY: &str = "firn.dev/key";

/// Annotation: look again now. Any value; echoed in `status.lastHandledReconcileAt`.
pub const ANNOTATION_RECONCILE: &str = "reconcile.firn.dev/requestedAt";
/// Annotation: build whatever the source says. Any value; echoed in `status.lastHandledBuildAt`.
pub const ANNOTATION_BUILD: &str = "build.firn.dev/requestedAt";

/// Annotation of build pods: CA certificates that the whole cluster trusts, PEM. A `downwardAPI`
/// volume makes the file at [`crate::pod::CLUSTER_CA`] of it.
pub const ANNOTATION_CLUSTER_CA: &str = "firn.dev/cluster-ca";

/// Annotation of builds: hash of the spec's fields that change the image.
pub const ANNOTATION_BUILD_HASH: &str = "firn.dev/build-hash";
/// Annotation of builds: hash of the spec's fields that change tags only.
pub const ANNOTATION_TAGS_HASH: &str = "firn.dev/tags-hash";
/// Annotation of builds: which try of the same work this is, from 1.
pub const ANNOTATION_ATTEMPT: &str = "firn.dev/attempt";

/// Label of Jobs that wait for Kueue: its LocalQueue. Kueue resumes them, and may suspend them again.
pub const LABEL_QUEUE: &str = "kueue.x-k8s.io/queue-name";
/// Annotation of builds that are cancelled for a newer one, as `runPolicy` says. Any value.
pub const ANNOTATION_SUPERSEDED: &str = "firn.dev/superseded";

/// Field manager of the controller that owns `NixImage` status.
pub const MANAGER_IMAGE: &str = "firn/image";
/// Field manager of the controller that owns `NixImageBuild` status and Jobs.
pub const MANAGER_BUILD: &str = "firn/build";

/// Longest name of a `NixImage`. A Job is called `<image>-<number>-<suffix>` and its name is a
/// label of at most 63 characters: 47 + 1 + 7 digits + 8 (`-riscv64`, `-publish`).
pub const IMAGE_NAME_MAX: usize = 47;
/// Highest build number: seven digits.
pub const BUILD_NUMBER_MAX: i64 = 9_999_999;

/// `web-17`: the name of build 17 of image `web`.
pub fn build_name(image: &str, number: i64) -> String {
    format!("{image}-{number}")
}

/// The number in a build's name, if it is one of `image`'s.
pub fn build_number(image: &str, build: &str) -> Option<i64> {
    let digits = build.strip_prefix(image)?.strip_prefix('-')?;
    let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    plain.then(|| digits.parse().ok()).flatten()
}

/// `web-17-amd64`: the Job that builds `linux/amd64` for build `web-17`.
pub fn job_name(build: &str, platform: &str) -> String {
    let architecture = platform.rsplit('/').next().unwrap_or(platform);
    format!("{build}-{architecture}")
}

/// `web-17-publish`: the Job that makes the index and moves the tags.
pub fn publish_job_name(build: &str) -> String {
    format!("{build}-publish")
}

/// `firn-web-amd64-1a2b3c4d`: the tag that keeps a platform's manifest until the index names it.
/// One for each platform of an image, not of a build: where tags cannot be deleted no more of them
/// are left behind. The beginning of the owner's UID keeps images of one name apart that share a
/// repository. At most 128 characters, since names are labels.
pub fn temporary_tag(owner: &str, uid: &str, platform: &str) -> String {
    let uid: String = uid
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .take(8)
        .collect();
    format!("firn-{}-{uid}", job_name(owner, platform))
}

/// `linux-amd64`: a platform as a label value.
pub fn platform_label(platform: &str) -> String {
    platform.replace('/', "-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_job_name_fits_a_label() {
        let build = build_name(&"x".repeat(IMAGE_NAME_MAX), BUILD_NUMBER_MAX);
        assert_eq!(job_name(&build, "linux/riscv64").len(), 63);
        assert_eq!(publish_job_name(&build).len(), 63);
    }

    #[test]
    fn a_temporary_tag_tells_images_of_one_name_apart() {
        let tag = |uid| temporary_tag("web", uid, "linux/arm64");
        assert_eq!(tag("1a2b3c4d-5e6f-4000"), "firn-web-arm64-1a2b3c4d");
        assert_ne!(tag("1a2b3c4d-5e6f-4000"), tag("0a2b3c4d-5e6f-4000"));
        let longest = temporary_tag(&"x".repeat(55), "1a2b3c4d", "linux/riscv64");
        assert!(longest.len() <= 128, "{longest}");
    }

    #[test]
    fn a_build_number_is_read_from_its_own_image_only() {
        assert_eq!(build_number("web", "web-17"), Some(17));
        assert_eq!(build_number("web", "web-blue-17"), None);
        assert_eq!(build_number("web", "web-+1"), None);
        assert_eq!(build_number("web", "web-"), None);
        assert_eq!(build_number("web", "shop-1"), None);
    }
}

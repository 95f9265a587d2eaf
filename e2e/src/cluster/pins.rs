//! What the cluster's programs are made of: Go modules and sources, part of this program, so that
//! it works without the clone it came from. Pure.

use std::fmt::Write;

use sha2::{Digest, Sha256};

/// The Kubernetes that is built; `go.mod` says the same.
pub const KUBERNETES: &str = "1.35.4";

/// A file of `e2e/cluster` by its path in there, and its text.
pub type Source = (&'static str, &'static str);

macro_rules! sources {
    ($($path:literal),* $(,)?) => {
        &[$(($path, include_str!(concat!("../../cluster/", $path)))),*]
    };
}

/// Everything that is compiled, sorted.
pub const SOURCES: &[Source] = sources![
    "cmd/coredns/main.go",
    "cmd/gitd/main.go",
    "cmd/kube/main.go",
    "cmd/pause/main.go",
    "cmd/registry/main.go",
    "go.mod",
    "go.sum",
    "runc/go.mod",
    "runc/go.sum",
];

/// Programs that are built by one call of `go build`. Each call is a line of progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// What the progress line says.
    pub name: &'static str,
    /// The folder of the module.
    pub module: &'static str,
    /// Build tags.
    pub tags: &'static str,
    /// Packages; each becomes a program named after its last part.
    pub packages: &'static [&'static str],
}

/// `netgo` and `osusergo` make what goes into images static; `grpcnotrace` lets the linker drop
/// what nothing calls; the rest leaves out what needs C libraries.
const TAGS: &str = "netgo,osusergo,grpcnotrace,no_btrfs,no_devmapper,no_zfs";

/// All programs, those first that fail early if something is missing on the machine.
pub const PARTS: &[Part] = &[
    Part {
        name: "runc",
        module: "runc",
        tags: "seccomp,netgo,osusergo,grpcnotrace",
        packages: &["github.com/opencontainers/runc"],
    },
    Part {
        name: "Git server, registry, pause",
        module: ".",
        tags: TAGS,
        packages: &["./cmd/gitd", "./cmd/pause", "./cmd/registry"],
    },
    Part {
        name: "network plugins",
        module: ".",
        tags: TAGS,
        packages: &[
            "github.com/containernetworking/plugins/plugins/ipam/host-local",
            "github.com/containernetworking/plugins/plugins/main/ptp",
        ],
    },
    Part {
        name: "containerd",
        module: ".",
        tags: TAGS,
        packages: &[
            "github.com/containerd/containerd/v2/cmd/containerd",
            "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2",
            "github.com/containerd/containerd/v2/cmd/ctr",
        ],
    },
    Part {
        name: "crane",
        module: ".",
        tags: TAGS,
        packages: &["github.com/google/go-containerregistry/cmd/crane"],
    },
    Part {
        name: "Kubernetes (7 minutes if nothing of it is cached)",
        module: ".",
        tags: TAGS,
        packages: &["./cmd/kube"],
    },
    Part {
        name: "CoreDNS",
        module: ".",
        tags: TAGS,
        packages: &["./cmd/coredns"],
    },
    Part {
        name: "helm",
        module: ".",
        tags: TAGS,
        packages: &["helm.sh/helm/v4/cmd/helm"],
    },
];

/// The name of the folder that holds the programs: a hash of all that decides what they are.
/// `go_version` is the answer of `go version`.
pub fn programs_key(go_version: &str) -> String {
    let parts = format!("{PARTS:?} {}", linker_flags());
    key(SOURCES
        .iter()
        .copied()
        .chain([("parts", parts.as_str()), ("go", go_version)]))
}

/// A short hash of named texts. Lengths are part of it, so that no two lists look alike.
pub fn key<'a>(texts: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let mut hash = Sha256::new();
    for (name, text) in texts {
        hash.update(format!("{} {name} {} ", name.len(), text.len()));
        hash.update(text);
    }
    hash.finalize()
        .iter()
        .take(8)
        .fold(String::new(), |mut hex, byte| {
            // Writing to a string cannot fail.
            let _ = write!(hex, "{byte:02x}");
            hex
        })
}

/// The version that Kubernetes tells; without it nodes say `v0.0.0-master`.
pub fn linker_flags() -> String {
    let version = "k8s.io/component-base/version";
    let (major, rest) = KUBERNETES.split_once('.').unwrap_or((KUBERNETES, ""));
    let minor = rest.split('.').next().unwrap_or_default();
    format!(
        "-s -w -X {version}.gitVersion=v{KUBERNETES} -X {version}.gitMajor={major} \
         -X {version}.gitMinor={minor} -X {version}.gitTreeState=clean \
         -X {version}.gitCommit=none -X {version}.buildDate=1970-01-01T00:00:00Z"
    )
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn files(folder: &Path, below: &str) -> Vec<String> {
        std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap())
            .flat_map(|entry| {
                let name = format!("{below}{}", entry.file_name().to_str().unwrap());
                if entry.path().is_dir() {
                    files(&entry.path(), &format!("{name}/"))
                } else {
                    vec![name]
                }
            })
            .collect()
    }

    #[test]
    fn every_go_file_of_the_folder_is_a_pin() {
        let folder = Path::new("cluster");
        let mut found = files(folder, "");
        let endings = [".go", ".mod", ".sum"];
        found.retain(|f| endings.iter().any(|e| f.ends_with(e)) && !f.ends_with("_test.go"));
        found.sort();
        assert_eq!(
            SOURCES.iter().map(|(path, _)| *path).collect::<Vec<_>>(),
            found
        );
    }

    #[test]
    fn go_mod_names_the_kubernetes_that_the_version_stamp_names() {
        let (_, go_mod) = SOURCES.iter().find(|(path, _)| *path == "go.mod").unwrap();
        assert!(go_mod.contains(&format!("k8s.io/kubernetes v{KUBERNETES}\n")));
        assert!(linker_flags().contains("gitMajor=1 "));
        assert!(linker_flags().contains("gitMinor=35 "));
    }

    #[test]
    fn every_tool_of_the_modules_is_built() {
        for (path, text) in SOURCES.iter().filter(|(path, _)| path.ends_with("go.mod")) {
            let block = text
                .split_once("\ntool (")
                .map(|(_, rest)| rest.split(')').next().unwrap());
            let single = text
                .lines()
                .filter_map(|line| line.strip_prefix("tool "))
                .filter(|l| *l != "(");
            let tools = block
                .unwrap_or_default()
                .lines()
                .map(str::trim)
                .filter(|l| !l.is_empty());
            let mut count = 0;
            for tool in tools.chain(single) {
                count += 1;
                let built = PARTS.iter().any(|part| part.packages.contains(&tool));
                assert!(built, "{path} names {tool}");
            }
            assert!(count > 0, "{path} has no tools");
        }
    }

    #[test]
    fn a_changed_text_name_or_compiler_is_another_key() {
        let base = key([("a", "bc")]);
        assert_eq!(base, key([("a", "bc")]));
        assert_eq!(base.len(), 16);
        assert_ne!(base, key([("ab", "c")]));
        assert_ne!(base, key([("a", "bd")]));
        assert_ne!(key([("a", "b"), ("c", "d")]), key([("a", "b c1 d")]));
        assert_ne!(programs_key("go1.26"), programs_key("go1.27"));
    }
}

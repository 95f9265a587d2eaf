//! Nix's configuration in a pod: one file, nothing from elsewhere.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use firn_crd::run::Build;

use crate::settings::Settings;

/// Where Nix keeps its things during one container, below the container's own scratch space.
#[derive(Debug, Clone)]
pub struct Home {
    directory: PathBuf,
}

impl Home {
    /// Makes the folders and writes `nix.conf`. `extra` are further settings, one a line: secret
    /// ones may be among them, so the file is for the owner only.
    pub fn create(
        settings: &Settings,
        build: &Build,
        ca: Option<&Path>,
        extra: &str,
    ) -> io::Result<Self> {
        let directory = settings.paths.tmp().join("home");
        fs::create_dir_all(directory.join("nix"))?;
        // libgit2 reads no environment variables; fetch's checkout may belong to another user.
        fs::write(directory.join(".gitconfig"), "[safe]\n\tdirectory = *\n")?;
        let mut text = configuration(build);
        if let Some(ca) = ca {
            let _ = writeln!(text, "ssl-cert-file = {}", ca.display());
        }
        text.push_str(extra);
        let file = directory.join("nix/nix.conf");
        write_private(&file, &text)?;
        // Without these a user other than root silently gets a store somewhere in HOME.
        fs::create_dir_all("/nix/store")?;
        fs::create_dir_all("/nix/var/nix")?;
        Ok(Self { directory })
    }

    /// HOME itself.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The whole environment of a Nix program.
    pub fn environment(&self, settings: &Settings) -> BTreeMap<String, OsString> {
        let mut environment = base_environment(settings, &self.directory);
        environment.insert("NIX_CONF_DIR".into(), self.directory.join("nix").into());
        environment.insert("NIX_USER_CONF_FILES".into(), "/dev/null".into());
        environment.insert("NIX_REMOTE".into(), "local".into());
        environment
    }
}

/// What every program gets that is started.
pub fn base_environment(settings: &Settings, home: &Path) -> BTreeMap<String, OsString> {
    let mut environment: BTreeMap<String, OsString> = settings
        .proxies
        .iter()
        .map(|(name, value)| (name.clone(), value.into()))
        .collect();
    environment.insert("PATH".into(), settings.search_path.clone().into());
    environment.insert("HOME".into(), home.into());
    environment.insert("TMPDIR".into(), settings.paths.tmp().into());
    // Errors are understood by their words.
    environment.insert("LC_ALL".into(), "C".into());
    environment
}

/// Writes a file that only its owner can read.
pub fn write_private(file: &Path, text: &str) -> io::Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    options.open(file)?.write_all(text.as_bytes())
}

/// Each line has its reason in `facts`: what Nix does by itself in an unprivileged pod.
fn configuration(build: &Build) -> String {
    let mut lines = vec![
        "experimental-features = nix-command flakes".to_owned(),
        // For root it would be fatal that the group `nixbld` does not exist.
        "build-users-group =".into(),
        // Said aloud: the default tries, fails, and goes on without a word.
        "sandbox = false".into(),
        "sandbox-fallback = false".into(),
        // Indirect references would be looked up in the internet.
        "flake-registry =".into(),
        "accept-flake-config = false".into(),
        "use-registries = false".into(),
        "max-jobs = auto".into(),
        // A writer of another pod cannot be there; waiting for locks would hide a fault.
        "warn-dirty = false".into(),
        "connect-timeout = 15".into(),
        "download-attempts = 5".into(),
    ];
    let list = |values: &[String]| -> String {
        // A blank would make two of one; the API admits none.
        let clean = values.iter().filter(|v| !v.contains(char::is_whitespace));
        clean.cloned().collect::<Vec<_>>().join(" ")
    };
    lines.push(format!("substituters = {}", list(&build.substituters)));
    lines.push(format!(
        "trusted-public-keys = {}",
        list(&build.trusted_public_keys)
    ));
    lines.push(String::new());
    lines.join("\n")
}

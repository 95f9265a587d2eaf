//! apt's own client on a directory of its own: nothing of the machine's configuration but its
//! Debian mirror and its proxies. Needs neither root nor a chroot.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use super::error::file;
use super::fetch::Mirror;
use super::lock::Package;
use super::{Error, Lock};

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// Where Debian is when the machine names no mirror of it (Ubuntu, say).
const DEFAULT_MIRROR: &str = "http://deb.debian.org/debian";

/// A private apt directory with an up-to-date index of one suite. It is removed in the end: the
/// index is three times as large as the packages.
#[derive(Debug)]
pub(super) struct Apt {
    directory: TempDir,
    suite: String,
    arch: String,
}

impl Apt {
    /// Makes the directory in `cache` and downloads the index.
    pub(super) fn open(cache: &Path, suite: &str, arch: &str) -> Result<Self, Error> {
        if !Path::new(KEYRING).exists() {
            return Err(Error::NoKeyring {
                path: KEYRING.into(),
            });
        }
        let directory = tempfile::tempdir_in(cache).map_err(file("make a folder in", cache))?;
        let path = directory.path();
        for sub in [
            "parts",
            "preferences",
            "trusted",
            "lists/partial",
            "archives/partial",
        ] {
            let sub = path.join(sub);
            fs::create_dir_all(&sub).map_err(file("make", &sub))?;
        }
        let machine = Machine::ask()?;
        let source = format!(
            "deb [arch={arch} signed-by={KEYRING}] {} {suite} main\n",
            machine.mirror
        );
        write(&path.join("status"), "")?;
        write(&path.join("sources.list"), &source)?;
        write(
            &path.join("apt.conf"),
            &configuration(path, arch, &machine.proxies),
        )?;
        let apt = Self {
            directory,
            suite: suite.to_owned(),
            arch: arch.to_owned(),
        };
        apt.run(
            &format!("update the index of {suite} from {}", machine.mirror),
            &["update"],
        )?;
        Ok(apt)
    }

    /// `Date` of the archive's signed index.
    fn archive_date(&self) -> Result<String, Error> {
        let lists = self.directory.path().join("lists");
        let entries = fs::read_dir(&lists).map_err(file("list", &lists))?;
        for entry in entries.filter_map(Result::ok) {
            if entry.file_name().to_string_lossy().ends_with("InRelease") {
                let text = fs::read_to_string(entry.path()).map_err(file("read", &entry.path()))?;
                if let Some(date) = text.lines().find_map(|line| line.strip_prefix("Date: ")) {
                    return Ok(date.to_owned());
                }
            }
        }
        Err(Error::ParseApt {
            line: "no Date in InRelease".to_owned(),
        })
    }

    fn run(&self, what: &str, arguments: &[&str]) -> Result<String, Error> {
        succeed(
            self.program("apt-get").arg("-qq").args(arguments),
            "apt-get",
            what,
        )
    }

    fn program(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .env("APT_CONFIG", self.directory.path().join("apt.conf"))
            .env("LC_ALL", "C");
        command
    }
}

impl Mirror for Apt {
    fn resolve(&self, roots: &[&str]) -> Result<Lock, Error> {
        let mut arguments = vec!["-y", "--print-uris", "install"];
        arguments.extend(roots);
        let output = self.run(&format!("resolve {}", roots.join(" ")), &arguments)?;
        let mut packages: Vec<Package> = output
            .lines()
            .map(print_uris_line)
            .collect::<Result<_, _>>()?;
        packages.sort();
        Ok(Lock {
            suite: self.suite.clone(),
            arch: self.arch.clone(),
            archive_date: self.archive_date()?,
            roots: roots.iter().map(|&r| r.to_owned()).collect(),
            packages,
        })
    }

    fn versions(&self, names: &[&str]) -> Result<BTreeMap<String, Vec<String>>, Error> {
        let output = self
            .program("apt-cache")
            .arg("madison")
            .args(names)
            .output()
            .map_err(|source| Error::StartProgram {
                program: "apt-cache",
                source,
            })?;
        let mut versions: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            let mut words = line.split('|').map(str::trim);
            if let (Some(name), Some(version)) = (words.next(), words.next()) {
                versions
                    .entry(name.to_owned())
                    .or_default()
                    .push(version.to_owned());
            }
        }
        Ok(versions)
    }

    /// apt checks the files against the signed index; the caller checks them against the lock.
    fn download(&self, packages: &[&Package], to: &Path) -> Result<(), Error> {
        let wanted: Vec<String> = packages
            .iter()
            .map(|p| format!("{}={}", p.name, p.version))
            .collect();
        let mut command = self.program("apt-get");
        command
            .arg("-qq")
            .arg("download")
            .args(&wanted)
            .current_dir(to);
        succeed(
            &mut command,
            "apt-get",
            &format!("download {} packages", wanted.len()),
        )
        .map(drop)
    }
}

/// What is taken over from the machine.
struct Machine {
    mirror: String,
    /// Lines of apt's configuration.
    proxies: String,
}

impl Machine {
    fn ask() -> Result<Self, Error> {
        let targets = [
            "indextargets",
            "--format",
            "$(REPO_URI)",
            "Identifier: Packages",
        ];
        // Without any source apt-get fails here; then the default is right.
        let uris = output(Command::new("apt-get").args(targets), "apt-get")?;
        let dump = output(Command::new("apt-config").arg("dump"), "apt-config")?;
        let is_proxy = |line: &&str| {
            let line = line.to_ascii_lowercase();
            line.starts_with("acquire::http::proxy") || line.starts_with("acquire::https::proxy")
        };
        let proxies = dump
            .lines()
            .filter(is_proxy)
            .fold(String::new(), |text, line| text + line + "\n");
        // Say, of snapshot.debian.org, which keeps every version.
        let mirror = std::env::var_os("FIRN_DEBIAN_MIRROR").map_or_else(
            || debian_mirror(&uris).to_owned(),
            |mirror| mirror.to_string_lossy().into_owned(),
        );
        Ok(Self { mirror, proxies })
    }
}

/// The first of the machine's sources that is a mirror of Debian's main archive: its path ends in
/// `debian` by Debian's own rule for mirrors.
fn debian_mirror(uris: &str) -> &str {
    uris.lines()
        .map(|uri| uri.trim_end_matches('/'))
        .find(|uri| uri.ends_with("/debian"))
        .unwrap_or(DEFAULT_MIRROR)
}

fn configuration(directory: &Path, arch: &str, proxies: &str) -> String {
    let dir = directory.display();
    let mut text = String::new();
    // Dir::Etc::parts is not the machine's: its hooks (docker-clean) and extra index targets would
    // come along. Check-Date and Check-Valid-Until: frozen mirrors and machines with a wrong
    // clock; the pins' sha256 is what protects from an old archive.
    let _ = write!(
        text,
        r#"Dir "{dir}";
Dir::State "{dir}"; Dir::State::status "{dir}/status"; Dir::State::lists "{dir}/lists";
Dir::Cache "{dir}"; Dir::Cache::archives "{dir}/archives";
Dir::Etc "{dir}"; Dir::Etc::sourcelist "{dir}/sources.list"; Dir::Etc::sourceparts "-";
Dir::Etc::parts "{dir}/parts"; Dir::Etc::preferencesparts "{dir}/preferences";
Dir::Etc::trustedparts "{dir}/trusted";
APT::Architecture "{arch}"; APT::Architectures {{ "{arch}"; }};
APT::Install-Recommends "false"; APT::Sandbox::User "";
Acquire::Languages "none"; Acquire::ForceHash "sha256"; Acquire::Retries "3";
Acquire::Check-Valid-Until "false"; Acquire::Check-Date "false";
Debug::NoLocking "true";
{proxies}"#
    );
    text
}

/// `'URI' NAME_VERSION_ARCH.deb SIZE SHA256:HEX`.
fn print_uris_line(line: &str) -> Result<Package, Error> {
    let parsed = || {
        let mut words = line.split(' ').skip(1);
        let file = words.next()?.strip_suffix(".deb")?;
        let size = words.next()?.parse().ok()?;
        let sha256 = words.next()?.strip_prefix("SHA256:")?.to_owned();
        let mut parts = file.split('_');
        let (name, version, arch) = (parts.next()?, parts.next()?, parts.next()?);
        let version = version.replace("%3a", ":");
        Some(Package {
            name: name.to_owned(),
            version,
            arch: arch.to_owned(),
            size,
            sha256,
        })
    };
    parsed().ok_or_else(|| Error::ParseApt {
        line: line.to_owned(),
    })
}

fn write(path: &Path, text: &str) -> Result<(), Error> {
    fs::write(path, text).map_err(file("write", path))
}

fn output(command: &mut Command, program: &'static str) -> Result<String, Error> {
    let output = command
        .output()
        .map_err(|source| Error::StartProgram { program, source })?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs `command`; its stdout if it succeeds.
pub(super) fn succeed(
    command: &mut Command,
    program: &'static str,
    what: &str,
) -> Result<String, Error> {
    let output = command
        .output()
        .map_err(|source| Error::StartProgram { program, source })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let stderr = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(Error::Program {
        what: what.to_owned(),
        program,
        stderr,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mirror_is_the_machines_debian_and_no_other_archive() {
        let machine = "https://packages.cloud.google.com/apt/\nhttp://mirror.example/debian/\n\
                       http://mirror.example/debian-security/\n";
        assert_eq!(debian_mirror(machine), "http://mirror.example/debian");
        assert_eq!(
            debian_mirror("http://archive.ubuntu.com/ubuntu/\n"),
            DEFAULT_MIRROR
        );
        assert_eq!(debian_mirror(""), DEFAULT_MIRROR);
    }

    #[test]
    fn a_line_of_print_uris_is_a_package() {
        let line = "'http://deb.debian.org/debian/pool/main/g/git/git_2.53.0-1_amd64.deb' \
                    git_1%3a2.53.0-1_amd64.deb 9409868 SHA256:5482";
        let package = print_uris_line(line).unwrap();
        assert_eq!(
            (package.name.as_str(), package.version.as_str()),
            ("git", "1:2.53.0-1")
        );
        assert_eq!((package.size, package.sha256.as_str()), (9_409_868, "5482"));
        assert!(print_uris_line("'x' git_1_amd64.deb 7 MD5Sum:00").is_err());
    }
}

//! The registry that all push to: distribution, as the embedded cluster has it, on loopback, its
//! storage in memory. It starts anew for each run from a given state, so that no run finds what
//! another has left, and its access log tells what was asked of it.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use firn_oci::Digest;

use crate::wait::{unless_failed, until};

/// Where it listens; nobody else is in the network namespace.
pub const ADDRESS: &str = "127.0.0.1:5000";
/// It is ready in a tenth of a second; a machine that is busy takes longer.
const READY: Duration = Duration::from_secs(20);

/// A running registry.
#[derive(Debug)]
pub struct Registry {
    child: Child,
    folder: PathBuf,
    /// What the interface had carried when it was ready.
    wire_before: u64,
    /// Lines that its log had then.
    said_before: usize,
}

/// What was asked of a registry.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Requests of any kind.
    pub requests: u64,
    /// Blobs that were uploaded, config among them.
    pub uploads: u64,
    /// Their bytes.
    pub uploaded: u64,
    /// Blobs that were mounted from another repository.
    pub mounts: u64,
    /// Bytes of the blobs that were read.
    pub read: u64,
    /// Bytes that went over the interface in both directions, headers and all.
    pub wire: u64,
}

impl Registry {
    /// Starts `program` on `folder`, which holds nothing or what an earlier one left.
    ///
    /// Errors: it does not come up; with what it said.
    pub fn start(program: &Path, folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder)?;
        let config = folder.with_extension("yaml");
        let root = folder.display();
        // Settings of the embedded cluster's registries.
        let text = format!(
            "version: 0.1\nlog: {{level: warn, accesslog: {{disabled: false}}}}\n\
             storage:\n  filesystem: {{rootdirectory: {root}}}\n  delete: {{enabled: true}}\n\
             http: {{addr: \"{ADDRESS}\", secret: of-the-bench, relativeurls: true}}\n"
        );
        fs::write(&config, text)?;
        let log = File::create(folder.with_extension("log"))?;
        let child = Command::new(program)
            .arg("serve")
            .arg(&config)
            .env("OTEL_TRACES_EXPORTER", "none")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("failed to start {}", program.display()))?;
        let mut registry = Self {
            child,
            folder: folder.to_owned(),
            wire_before: 0,
            said_before: 0,
        };
        let ready = until("the registry is up", READY, || {
            let ended = registry.child.try_wait()?.is_some();
            ensure!(!ended, "the registry ended");
            Ok(unless_failed(answer()))
        });
        ready.with_context(|| registry.log().unwrap_or_default())?;
        registry.wire_before = wire()?;
        registry.said_before = registry.log()?.lines().count();
        Ok(registry)
    }

    fn log(&self) -> Result<String> {
        let file = self.folder.with_extension("log");
        fs::read_to_string(&file).with_context(|| format!("failed to read {}", file.display()))
    }

    /// Ends it and tells what was asked of it since it was ready.
    pub fn stop(mut self) -> Result<Traffic> {
        let wire = wire()? - self.wire_before;
        self.end()?;
        let log = self.log()?;
        let asked: Vec<Asked<'_>> = log
            .lines()
            .skip(self.said_before)
            .filter_map(Asked::parse)
            .collect();
        let mut traffic = Traffic {
            requests: asked.len() as u64,
            wire,
            ..Traffic::default()
        };
        let size = |digest: &str| -> Result<u64> {
            let file = stored(&self.folder, digest)?;
            let metadata = fs::metadata(&file);
            Ok(metadata
                .with_context(|| format!("there is no {}", file.display()))?
                .len())
        };
        for digest in asked.iter().filter_map(Asked::uploaded) {
            traffic.uploads += 1;
            traffic.uploaded += size(&digest)?;
        }
        for digest in asked.iter().filter_map(Asked::read) {
            traffic.read += size(digest)?;
        }
        traffic.mounts = asked.iter().filter(|asked| asked.is_mount()).count() as u64;
        Ok(traffic)
    }

    fn end(&mut self) -> Result<()> {
        // What it acknowledged lies in the files; there is nothing to lose.
        self.child.kill().context("failed to end the registry")?;
        self.child.wait().context("failed to end the registry")?;
        Ok(())
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // A failed run's error is told, not this one.
        let _ = self.end();
    }
}

/// Asks whether it is there.
fn answer() -> Result<()> {
    let mut stream = TcpStream::connect(ADDRESS)?;
    stream.write_all(b"GET /v2/ HTTP/1.0\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    ensure!(text.contains(" 200 "), "not yet");
    Ok(())
}

/// Bytes that loopback has carried in this network namespace.
fn wire() -> Result<u64> {
    let text = fs::read_to_string("/proc/net/dev").context("failed to read /proc/net/dev")?;
    let line = text
        .lines()
        .find_map(|line| line.trim().strip_prefix("lo:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok())
        .context("there is no loopback interface")
}

/// The manifest's digest that a stopped registry's storage has under a tag.
pub fn tagged(folder: &Path, repository: &str, tag: &str) -> Result<Digest> {
    let link =
        format!("docker/registry/v2/repositories/{repository}/_manifests/tags/{tag}/current/link");
    let text = fs::read_to_string(folder.join(&link))
        .with_context(|| format!("nothing was pushed: there is no {link}"))?;
    Ok(text.trim().parse()?)
}

/// Where a registry's storage has a blob, by its digest in hexadecimal.
fn stored(folder: &Path, hex: &str) -> Result<PathBuf> {
    let (first, _) = hex.split_at_checked(2).context("a short digest")?;
    Ok(folder.join(format!(
        "docker/registry/v2/blobs/sha256/{first}/{hex}/data"
    )))
}

/// A line of the access log.
#[derive(Debug, PartialEq, Eq)]
struct Asked<'a> {
    method: &'a str,
    path: &'a str,
    query: &'a str,
    status: &'a str,
}

impl<'a> Asked<'a> {
    /// `HOST - - [TIME] "METHOD URL HTTP/1.1" STATUS SIZE …`.
    fn parse(line: &'a str) -> Option<Self> {
        let (_, rest) = line.split_once("] \"")?;
        let (request, rest) = rest.split_once("\" ")?;
        let mut words = request.split(' ');
        let (method, url) = (words.next()?, words.next()?);
        let (path, query) = url.split_once('?').unwrap_or((url, ""));
        Some(Self {
            method,
            path,
            query,
            status: rest.split(' ').next()?,
        })
    }

    /// The digest, in hexadecimal, of a blob whose upload this finished.
    fn uploaded(&self) -> Option<String> {
        let finished = matches!(self.method, "PUT" | "POST")
            && self.status == "201"
            && self.path.contains("/blobs/uploads/")
            && !self.is_mount();
        if !finished {
            return None;
        }
        let digest = self
            .query
            .split('&')
            .find_map(|p| p.strip_prefix("digest="))?;
        let digest = digest.replace("%3A", ":").replace("%3a", ":");
        digest.strip_prefix("sha256:").map(str::to_owned)
    }

    /// The digest, in hexadecimal, of a blob that this read.
    fn read(&self) -> Option<&'a str> {
        let whole = self.method == "GET" && self.status == "200";
        let (_, digest) = self.path.split_once("/blobs/sha256:")?;
        whole.then_some(digest)
    }

    fn is_mount(&self) -> bool {
        let parameters: BTreeSet<&str> = self
            .query
            .split('&')
            .filter_map(|parameter| parameter.split('=').next())
            .collect();
        self.method == "POST" && self.status == "201" && parameters.contains("mount")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_access_log_tells_uploads_and_mounts_apart() {
        let log = "\
time=\"2026\" level=warning msg=\"no [TLS] \"\n\
127.0.0.1 - - [24/Nov/2026:1] \"HEAD /v2/a/blobs/sha256:aa HTTP/1.1\" 404 157 \"\" \"x\"\n\
127.0.0.1 - - [24/Nov/2026:1] \"POST /v2/a/blobs/uploads/ HTTP/1.1\" 202 0 \"\" \"x\"\n\
127.0.0.1 - - [24/Nov/2026:1] \"PUT /v2/a/blobs/uploads/1?_state=x&digest=sha256%3Abb HTTP/1.1\" 201 0 \"\" \"x\"\n\
127.0.0.1 - - [24/Nov/2026:1] \"PUT /v2/a/blobs/uploads/1?digest=sha256%3Acc HTTP/1.1\" 400 0 \"\" \"x\"\n\
127.0.0.1 - - [24/Nov/2026:1] \"POST /v2/b/blobs/uploads/?mount=sha256:bb&from=a HTTP/1.1\" 201 0 \"\" \"x\"\n\
127.0.0.1 - - [24/Nov/2026:1] \"POST /v2/b/blobs/uploads/?mount=sha256:dd&from=a HTTP/1.1\" 202 0 \"\" \"x\"\n\
127.0.0.1 - - [24/Nov/2026:1] \"GET /v2/b/blobs/sha256:ee HTTP/1.1\" 200 9 \"\" \"x\"\n\
127.0.0.1 - - [24/Nov/2026:1] \"PUT /v2/a/manifests/1 HTTP/1.1\" 201 0 \"\" \"x\"\n";
        let asked: Vec<Asked<'_>> = log.lines().filter_map(Asked::parse).collect();
        assert_eq!(asked.len(), 8);
        let uploads: Vec<String> = asked.iter().filter_map(Asked::uploaded).collect();
        assert_eq!(uploads, ["bb"]);
        let read: Vec<&str> = asked.iter().filter_map(Asked::read).collect();
        assert_eq!(read, ["ee"]);
        assert_eq!(asked.iter().filter(|a| a.is_mount()).count(), 1);
    }
}

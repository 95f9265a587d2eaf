//! Sources by ssh against a real sshd, Debian's: the operator polls by its own program, and the ssh
//! of Firn's images connects.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use axum::Router;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use firn_e2e::debian;
use firn_e2e::image;
use firn_e2e::wait::{Seen, eventually, unless_failed, until};
use firn_operator::settings::Network;
use firn_operator::source::{
    Answers as _, Git, ImageKey, Kind, Observation, Query, SourceFailure, Sources, Target,
};
use jiff::Timestamp;
use serde_json::json;

/// sshd is ready in less than a second; a machine that is busy takes longer.
const READY: Duration = Duration::from_secs(30);

/// A running sshd with one repository. It ends with this.
struct Server {
    folder: tempfile::TempDir,
    port: u16,
    child: Child,
    commit: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    fn start() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let work = folder.path().join("work");
        fs::create_dir(&work)?;
        for name in ["host", "other-host", "identity", "stranger"] {
            let key = ["-q", "-t", "ed25519", "-N", "", "-C", name, "-f", name];
            run(Command::new("ssh-keygen")
                .args(key)
                .current_dir(folder.path()))?;
        }
        fs::rename(folder.path().join("host"), work.join("host"))?;
        fs::copy(
            folder.path().join("identity.pub"),
            work.join("authorized_keys"),
        )?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let settings = format!(
            "ListenAddress 127.0.0.1:{port}\nHostKey /tmp/work/host\nPidFile none\n\
             AuthorizedKeysFile /tmp/work/authorized_keys\nStrictModes no\nUsePAM no\n\
             PasswordAuthentication no\nKbdInteractiveAuthentication no\n"
        );
        fs::write(work.join("sshd_config"), settings)?;
        let commit = repository(&work)?;
        let cache = std::env::var_os("FIRN_CACHE").map_or_else(image::default_cache, PathBuf::from);
        let tree = debian::tree(&debian::LOCK.parse()?, &cache)?;
        let script = fs::canonicalize("tests/parts/ssh/sshd.sh")?;
        let child = Command::new("unshare")
            .args(["--mount", "--pid", "--fork", "--kill-child"])
            .args(["--propagation", "private", "sh"])
            .arg(script)
            .arg(&tree.root)
            .arg(&work)
            .stdin(Stdio::null())
            .stderr(fs::File::create(folder.path().join("log"))?)
            .spawn()
            .context("failed to start sshd")?;
        let mut server = Self {
            folder,
            port,
            child,
            commit,
        };
        server.ready()?;
        Ok(server)
    }

    fn ready(&mut self) -> Result<()> {
        until("sshd listens", READY, || {
            let ended = self.child.try_wait()?;
            ensure!(ended.is_none(), "sshd: {ended:?}: {}", self.read("log")?);
            let connected = TcpStream::connect(("127.0.0.1", self.port));
            Ok(unless_failed(connected.map(drop).map_err(Into::into)))
        })
    }

    fn read(&self, name: &str) -> Result<String> {
        let path = self.folder.path().join(name);
        fs::read_to_string(&path).with_context(|| format!("failed to read {}", path.display()))
    }

    /// A line of `known_hosts`: the public key in `file`, as this server's.
    fn known(&self, file: &str) -> Result<String> {
        Ok(format!("[127.0.0.1]:{} {}", self.port, self.read(file)?))
    }

    fn url(&self, name: &str) -> String {
        format!("ssh://git@127.0.0.1:{}/tmp/work/{name}", self.port)
    }
}

fn run(command: &mut Command) -> Result<String> {
    let output = command.output().context("failed to start")?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "{command:?}: {text}");
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

/// A repository in `work`; its only commit.
fn repository(work: &Path) -> Result<String> {
    let source = work.join("source");
    fs::create_dir(&source)?;
    let git = |arguments: &[&str]| {
        let own = ["-c", "user.name=t", "-c", "user.email=t@example.com"];
        run(Command::new("git")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .args(own)
            .args(arguments)
            .current_dir(&source))
    };
    git(&["init", "--quiet", "--initial-branch=main"])?;
    fs::write(source.join("flake.lock"), "locked")?;
    git(&["add", "."])?;
    git(&["commit", "--quiet", "--message", "one"])?;
    git(&["clone", "--quiet", "--bare", ".", "../app.git"])?;
    git(&["rev-parse", "HEAD"])
}

/// An API server that has one Secret.
async fn cluster(identity: &str, known_hosts: &str) -> Result<kube::Client> {
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "key", "namespace": "shop"},
        "data": {"identity": STANDARD.encode(identity), "known_hosts": STANDARD.encode(known_hosts)},
    });
    let answer = (
        [(http::header::CONTENT_TYPE, "application/json")],
        secret.to_string(),
    );
    let routes = Router::new().fallback(async move || answer);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    tokio::spawn(async move { axum::serve(listener, routes).await });
    Ok(kube::Client::try_from(kube::Config::new(url.parse()?))?)
}

/// The operator's program, beside this one.
fn operator() -> Result<PathBuf> {
    let arguments = [
        "build",
        "--offline",
        "--quiet",
        "--package",
        "firn-operator",
    ];
    run(Command::new("cargo").args(arguments))?;
    let own = std::env::current_exe()?;
    let profile = own.ancestors().nth(2).context("no folder of programs")?;
    Ok(profile.join("firn-operator"))
}

async fn poll(
    operator: &Path,
    url: &str,
    identity: &str,
    known_hosts: &str,
) -> Result<Observation> {
    let client = cluster(identity, known_hosts).await?;
    let sources = Sources::new_with_operator(client, &Network::default(), operator.to_owned())?;
    let key = ImageKey {
        namespace: "shop".into(),
        name: "web".into(),
    };
    let query = Query {
        git: Git {
            url: url.into(),
            target: Target::Branch("main".into()),
            dir: ".".into(),
            secret: Some("key".into()),
            ca: None,
            webhook: None,
            interval: Duration::from_secs(300),
            timeout: Duration::from_secs(30),
        },
        paths: vec![],
        known: None,
        asked: None,
    };
    eventually("a poll has ended", Duration::from_secs(60), || async {
        let observed = sources.observe(&key, &query, Timestamp::UNIX_EPOCH);
        Ok(match observed.observation {
            Observation::Pending => Seen::NotYet("none has".into()),
            ended => Seen::Done(ended),
        })
    })
    .await
}

#[tokio::test]
async fn the_operator_polls_by_ssh_whom_the_secret_vouches_for_and_nobody_else() -> Result<()> {
    let server = Server::start()?;
    let operator = operator()?;
    let url = server.url("app.git");
    let (identity, known) = (server.read("identity")?, server.known("host.pub")?);
    let found = poll(&operator, &url, &identity, &known).await?;
    let Observation::Resolved {
        revision,
        incomplete: None,
        ..
    } = found
    else {
        bail!("{found:?}: {}", server.read("log")?)
    };
    assert_eq!(revision.commit, server.commit);
    assert!(revision.lock_hash.is_some());

    let (stranger, other) = (server.read("stranger")?, server.known("other-host.pub")?);
    let elsewhere = known.replace("127.0.0.1", "127.0.0.2");
    let gone = server.url("gone.git");
    let nobody = "ssh://git@127.0.0.1:1/tmp/work/app.git";
    let nameless = "git@host.invalid:app.git";
    for (url, identity, known, kind, word) in [
        (
            &*url,
            &identity,
            &elsewhere,
            Kind::HostKeyUnknown,
            "host key is known",
        ),
        (&url, &identity, &other, Kind::HostKeyUnknown, "has changed"),
        (
            &url,
            &stranger,
            &known,
            Kind::AuthFailed,
            "Permission denied (publickey)",
        ),
        (
            &gone,
            &identity,
            &known,
            Kind::Invalid,
            "not appear to be a git repository",
        ),
        (
            nobody,
            &identity,
            &known,
            Kind::Unreachable,
            "Connection refused",
        ),
        (
            nameless,
            &identity,
            &known,
            Kind::Unreachable,
            "host.invalid",
        ),
    ] {
        let found = poll(&operator, url, identity, known).await?;
        let Observation::Failed {
            failure: SourceFailure {
                kind: got, message, ..
            },
            ..
        } = found
        else {
            bail!("{word}: {found:?}")
        };
        assert_eq!(got, kind, "{message}");
        assert!(message.contains(word), "{message}");
    }
    Ok(())
}

#[test]
fn the_ssh_of_both_images_reaches_a_server_that_it_is_told_to_believe() -> Result<()> {
    let server = Server::start()?;
    let share = tempfile::tempdir()?;
    fs::copy(
        server.folder.path().join("identity"),
        share.path().join("identity"),
    )?;
    fs::write(share.path().join("known_hosts"), server.known("host.pub")?)?;
    let options = firn_crd::ssh::options(Path::new("/tmp/share"));
    let port = server.port.to_string();
    let mut command = vec!["/usr/bin/ssh"];
    command.extend(options.iter().map(String::as_str));
    let upload_pack = "git-upload-pack /tmp/work/app.git </dev/null";
    command.extend(["-p", &port, "git@127.0.0.1", upload_pack]);
    for image in ["operator", "builder"] {
        // Without a client that goes on, the server ends after it has listed its refs.
        let (_, text) = super::images::run_in(image, share.path(), &command);
        assert!(text.contains(&server.commit), "{image}: {text}");
    }
    Ok(())
}

//! What the embedded cluster promises whoever starts it. Each test has a cluster of its own, beside
//! one that may be up.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use firn_e2e::cluster::cgroup::Group;
use firn_e2e::cluster::{Layout, Services, images};
use firn_e2e::wait::{Seen, eventually};
use tokio::process::Command;
use tokio::time::timeout;

/// Longest that a call of `firn-cluster` may take on a busy machine with two cores, programs built.
const CALL: Duration = Duration::from_secs(240);
/// Longest until the kernel has removed what belonged to a process.
const VANISH: Duration = Duration::from_secs(20);

/// A cluster that ends with the test.
struct Own {
    layout: Layout,
}

impl Own {
    /// With the state in a folder called `name`; what an earlier run left there is ended first.
    async fn new(name: &str) -> Self {
        let mut layout = Layout::from_env().unwrap();
        layout.state = layout.cache.join("cluster").join(name);
        let own = Self { layout };
        own.call("down").await;
        own
    }

    fn command(&self, arguments: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_firn-cluster"));
        command
            .args(arguments.split(' '))
            .env("FIRN_CACHE", &self.layout.cache)
            .env("FIRN_STATE", &self.layout.state)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    /// The outcome of a call, good or bad, within [`CALL`].
    async fn attempt(&self, command: &mut Command) -> Output {
        match timeout(CALL, command.output()).await {
            Ok(output) => output.unwrap(),
            Err(_) => {
                self.give_up(&format!("{command:?} took longer than {CALL:?}"))
                    .await
            }
        }
    }

    /// What a call that must succeed wrote: standard output, then standard error.
    async fn call(&self, arguments: &str) -> String {
        let output = self.attempt(&mut self.command(arguments)).await;
        let text = text(&output);
        if !output.status.success() {
            self.give_up(&format!(
                "firn-cluster {arguments}: {}\n{text}",
                output.status
            ))
            .await;
        }
        text
    }

    /// Runs a shell script in the cluster's network.
    async fn inside(&self, script: &str) -> String {
        let output = self
            .attempt(self.command("exec -- sh -euc").arg(script))
            .await;
        let text = text(&output);
        if !output.status.success() {
            self.give_up(&format!("{script}: {}\n{text}", output.status))
                .await;
        }
        text
    }

    async fn give_up(&self, why: &str) -> ! {
        let mut state = String::new();
        for arguments in [
            "status",
            "kubectl get nodes,pods -A -o wide",
            "kubectl get events -A",
            "logs",
        ] {
            let look = timeout(Duration::from_secs(20), self.command(arguments).output()).await;
            state += &look.map_or_else(|_| "no answer".to_owned(), |output| text(&output.unwrap()));
        }
        panic!("{why}\n{state}");
    }

    fn services(&self) -> Services {
        Services::read(&self.layout).unwrap()
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        let mut command = self.command("down");
        // The next run's `down` tells if this one fails.
        let _ = command.as_std_mut().output();
    }
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// The embedded cluster needs root; the summary of `make test` says so where there is none.
fn possible() -> bool {
    rustix::process::geteuid().is_root()
}

#[tokio::test]
async fn a_cluster_that_is_up_is_found_well_and_what_has_ended_is_started_again() {
    if !possible() {
        return;
    }
    let own = Own::new("test-up").await;
    own.call("up --nodes 2").await;
    let again = own.call("up --nodes 2").await;
    assert!(again.contains("up already"), "{again}");
    for (machine, component) in [("control", "apiserver"), ("node-1", "kubelet")] {
        own.call(&format!("signal {machine} {component} kill"))
            .await;
    }
    eventually("the API server has ended", VANISH, || async {
        let status = own.call("status").await;
        let ended = status.matches("HAS ENDED").count() == 2;
        Ok(if ended {
            Seen::Done(())
        } else {
            Seen::NotYet(status)
        })
    })
    .await
    .unwrap();
    let repaired = own.call("up --nodes 2").await;
    assert!(
        repaired.contains("apiserver has ended on control"),
        "{repaired}"
    );
    assert!(
        repaired.contains("kubelet has ended on node-1"),
        "{repaired}"
    );
    from_outside(&own).await;
    own.call("node-off 1").await;
    assert!(!own.call("status").await.contains("node-1"));
    own.call("up --nodes 2").await;
    let status = own.call("status").await;
    assert!(
        status.contains("node-1") && !status.contains("ENDED"),
        "{status}"
    );
    let foreign = own.call("as-foreign").await;
    assert!(foreign.contains("FIRN_E2E_KUBECONFIG="), "{foreign}");
}

/// A kubectl that enters no namespace reaches the cluster, also after the relay was killed, by the
/// same file and at the same port.
async fn from_outside(own: &Own) {
    let kubeconfig = own.call("kubeconfig").await;
    let before = fs::read_to_string(kubeconfig.trim()).unwrap();
    assert!(before.contains("https://127.0.0.1:"), "{before}");
    let nodes = kubectl_outside(own, kubeconfig.trim()).await;
    assert!(
        nodes.status.success() && text(&nodes).contains("node-1"),
        "{}",
        text(&nodes)
    );
    kill(relay(&own.layout).unwrap());
    eventually("the relay has ended", VANISH, || async {
        let status = own.call("status").await;
        let ended = status
            .lines()
            .any(|line| line.starts_with("relay: 127.0.0.1:") && line.ends_with(" HAS ENDED"));
        Ok(if ended {
            Seen::Done(())
        } else {
            Seen::NotYet(status)
        })
    })
    .await
    .unwrap();
    assert!(
        !kubectl_outside(own, kubeconfig.trim())
            .await
            .status
            .success()
    );
    let repaired = own.call("up --nodes 2").await;
    assert!(repaired.contains("the relay has ended"), "{repaired}");
    assert_eq!(fs::read_to_string(kubeconfig.trim()).unwrap(), before);
    let nodes = kubectl_outside(own, kubeconfig.trim()).await;
    assert!(nodes.status.success(), "{}", text(&nodes));
}

async fn kubectl_outside(own: &Own, kubeconfig: &str) -> Output {
    let mut kubectl = Command::new(own.layout.program("kube"));
    kubectl
        .args(["kubectl", "get", "nodes"])
        .env("KUBECONFIG", kubeconfig)
        .kill_on_drop(true);
    own.attempt(&mut kubectl).await
}

#[tokio::test]
async fn services_ask_for_passwords_where_they_should_and_nodes_pull_from_them() {
    if !possible() {
        return;
    }
    let own = Own::new("test-services").await;
    own.call("up").await;
    let services = own.services();
    let files = tempfile::tempdir().unwrap();
    let ca = files.path().join("ca.crt");
    fs::write(&ca, &services.ca_pem).unwrap();
    git(&own, &services, &ca, files.path()).await;
    registries(&own, &services, &ca, files.path()).await;
}

/// A push creates a repository; `/private/` asks for the password; `/nofilter/` sends everything.
async fn git(own: &Own, services: &Services, ca: &Path, files: &Path) {
    let (url, user, password) = (
        &services.git_url,
        &services.git_user,
        &services.git_password,
    );
    let with_password = url.replacen("://", &format!("://{user}:{password}@"), 1);
    let script = format!(
        "export GIT_SSL_CAINFO={ca} GIT_TERMINAL_PROMPT=0 GIT_CONFIG_NOSYSTEM=1 HOME={files}
        cd {files}
        git init -q -b main work && cd work
        head -c 3000000 /dev/urandom > big
        git add . && git -c user.name=a -c user.email=a@b commit -qm x
        git push -q {url}/public.git main
        git push -q {url}/nofilter/public.git main
        git push -q {with_password}/private/secret.git main
        git ls-remote {with_password}/private/secret.git refs/heads/main
        if git ls-remote {url}/private/secret.git 2> refused; then echo READ WITHOUT PASSWORD; fi
        if env -u GIT_SSL_CAINFO git ls-remote {url}/public.git 2> untrusted; then echo TRUSTED BY ALL; fi
        git clone -q --no-checkout --filter=blob:none {url}/public.git ../partial
        git clone -q --no-checkout --filter=blob:none {url}/nofilter/public.git ../whole 2> warning
        cat refused untrusted warning
        for clone in partial whole; do echo $clone $(du -sk ../$clone | cut -f1); done",
        ca = ca.display(),
        files = files.display(),
    );
    let text = own.inside(&script).await;
    assert!(text.contains("refs/heads/main"), "{text}");
    assert!(!text.contains("READ WITHOUT PASSWORD"), "{text}");
    assert!(text.contains("could not read Username"), "{text}");
    assert!(!text.contains("TRUSTED BY ALL"), "{text}");
    assert!(text.contains("certificate"), "{text}");
    let size = |clone: &str| -> u32 {
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(&format!("{clone} ")));
        line.unwrap_or_else(|| panic!("{text}")).parse().unwrap()
    };
    assert!(size("partial") < 1000, "{text}");
    assert!(size("whole") > 2900, "{text}");
    let log = own.call("kubectl -n firn-e2e logs deployment/git").await;
    assert!(log.contains("/private/secret.git/info/refs"), "{log}");
    assert!(!log.contains(password), "{log}");
}

/// Another program than Firn's pushes, and the real kubelet pulls and runs, from both registries.
async fn registries(own: &Own, services: &Services, ca: &Path, files: &Path) {
    let (registry, plain) = (&services.registry, &services.plain);
    let crane = own.layout.bin().join("crane");
    let archive = images::BUSYBOX.replace(['/', ':'], "-");
    let script = format!(
        "export SSL_CERT_FILE={ca} DOCKER_CONFIG={files}/docker HOME={files}
        mkdir {files}/layout && tar -C {files}/layout -xf {archive}
        if {crane} push {files}/layout {registry}/box:1 2> {files}/refused; then echo PUSHED WITHOUT PASSWORD; fi
        echo {password} | {crane} auth login {registry} -u {user} --password-stdin
        {crane} push {files}/layout {registry}/box:1
        {crane} push --insecure {files}/layout {plain}/box:1
        # Layers of their own: nodes have those of box:1 already and would not pull them.
        for host in tls plain; do echo $host > {files}/$host; tar -C {files} -cf {files}/$host.tar $host; done
        {crane} append --base {registry}/box:1 -f {files}/tls.tar -t {registry}/box:2
        {crane} append --insecure --base {plain}/box:1 -f {files}/plain.tar -t {plain}/box:2
        cat {files}/refused",
        ca = ca.display(),
        files = files.display(),
        crane = crane.display(),
        archive = own.layout.images().join(format!("{archive}.tar")).display(),
        user = services.registry_user,
        password = services.registry_password,
    );
    let text = own.inside(&script).await;
    assert!(!text.contains("PUSHED WITHOUT PASSWORD"), "{text}");
    assert!(text.contains("401 Unauthorized"), "{text}");
    own.call(&format!(
        "kubectl create secret docker-registry pull --docker-server={registry} \
         --docker-username={} --docker-password={}",
        services.registry_user, services.registry_password
    ))
    .await;
    for (name, host) in [("tls", registry), ("plain", plain)] {
        let spec = r#"--overrides={"spec":{"imagePullSecrets":[{"name":"pull"}]}}"#;
        let run = format!("kubectl run {name} --image={host}/box:2 --restart=Never {spec}");
        own.call(&format!("{run} --command -- cat /{name}")).await;
        let done = format!(
            "kubectl wait --timeout=60s --for=jsonpath={{.status.phase}}=Succeeded pod/{name}"
        );
        own.call(&done).await;
        assert!(
            own.call(&format!("kubectl logs {name}"))
                .await
                .contains(name)
        );
    }
    let log = own
        .call("kubectl -n firn-e2e logs deployment/registry")
        .await;
    assert!(log.contains("GET /v2/box/manifests/"), "{log}");
}

/// Go's own tests of what only the cluster runs. With the flags of the build, for its cache.
#[tokio::test]
async fn the_git_servers_own_tests_hold() {
    let mut go = Command::new("go");
    go.args(["test", "-trimpath", "-tags", "netgo,osusergo", "./cmd/gitd"])
        .current_dir("cluster")
        .env(
            "GOCACHE",
            Layout::from_env().unwrap().cache.join("go-build"),
        )
        .kill_on_drop(true);
    let output = timeout(CALL, go.output())
        .await
        .expect("go test takes seconds")
        .unwrap();
    assert!(output.status.success(), "{}", text(&output));
}

#[tokio::test]
async fn the_audit_log_tells_who_wrote_what_before_the_writer_knows() {
    if !possible() {
        return;
    }
    let own = Own::new("test-audit").await;
    own.call("up --bare").await;
    own.call("kubectl create secret generic planted --from-literal=key=canary-in-a-secret")
        .await;
    let log = fs::read_to_string(own.layout.audit_log()).unwrap();
    let line = log
        .lines()
        .find(|line| line.contains("/namespaces/default/secrets"))
        .unwrap();
    let event: serde_json::Value = serde_json::from_str(line).unwrap();
    assert_eq!(event["verb"], "create", "{line}");
    assert_eq!(event["stage"], "ResponseComplete", "{line}");
    assert!(
        event["userAgent"].as_str().unwrap().starts_with("kube"),
        "{line}"
    );
    assert!(
        !log.contains("canary-in-a-secret") && !log.contains("Y2FuYXJ5"),
        "{log}"
    );
}

#[tokio::test]
async fn down_leaves_nothing_also_after_crashes() {
    if !possible() {
        return;
    }
    let own = Own::new("test-down").await;
    let before = Machine::look();
    // As it should be.
    own.call("up").await;
    let namespaces = namespaces_of(&own.layout);
    assert_eq!(
        namespaces.len(),
        6,
        "mount, network and PID namespaces of two machines"
    );
    own.call("down").await;
    assert_gone(&own.layout, &before, &namespaces).await;
    // The first process of everything is killed; and a container runtime before that, so that
    // nobody ends its containers.
    own.call("up --nodes 2").await;
    let namespaces = namespaces_of(&own.layout);
    assert_eq!(namespaces.len(), 9);
    own.call("signal node-1 containerd kill").await;
    own.call("exec node-0 -- sh -c true").await;
    kill(first_process(&own.layout, "control").unwrap());
    own.call("down").await;
    assert_gone(&own.layout, &before, &namespaces).await;
    // `up` itself is killed while machines are starting.
    let mut up = own.command("up").stderr(Stdio::null()).spawn().unwrap();
    eventually("the first machine runs", CALL, || async {
        let found = first_process(&own.layout, "control").is_some();
        Ok(if found {
            Seen::Done(())
        } else {
            Seen::NotYet("no process".to_owned())
        })
    })
    .await
    .unwrap();
    up.kill().await.unwrap();
    let namespaces = namespaces_of(&own.layout);
    own.call("down").await;
    assert_gone(&own.layout, &before, &namespaces).await;
}

/// What a cluster could leave on the machine, outside its own files.
#[derive(Debug, PartialEq, Eq)]
struct Machine {
    mounts: BTreeSet<String>,
    links: BTreeSet<String>,
    rules: String,
}

impl Machine {
    fn look() -> Self {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        // Without the numbers in front, which a remount changes.
        let mounts = mounts
            .lines()
            .map(|line| line.splitn(4, ' ').last().unwrap().to_owned());
        let links = fs::read_dir("/sys/class/net").unwrap();
        let links = links.map(|link| link.unwrap().file_name().into_string().unwrap());
        let rules = std::process::Command::new("nft")
            .args(["list", "ruleset"])
            .output()
            .unwrap();
        Self {
            mounts: mounts.collect(),
            links: links.collect(),
            rules: text(&rules),
        }
    }
}

async fn assert_gone(layout: &Layout, before: &Machine, namespaces: &Namespaces) {
    assert!(!layout.state.exists(), "the state folder is still there");
    eventually("nothing is left", VANISH, || async {
        let left: Vec<String> = processes()
            .filter(|process| {
                let command = fs::read(process.join("cmdline")).unwrap_or_default();
                let state = layout.state.to_str().unwrap();
                String::from_utf8_lossy(&command).contains(state)
                    || spaces(process)
                        .iter()
                        .any(|space| namespaces.contains_key(space))
            })
            .map(|process| process.display().to_string())
            .chain(cgroups(layout))
            .collect();
        let now = Machine::look();
        Ok(match (left.is_empty(), now == *before) {
            (true, true) => Seen::Done(()),
            (_, _) => Seen::NotYet(format!("{left:?} are left; {before:#?} became {now:#?}")),
        })
    })
    .await
    .unwrap();
}

/// Control groups of the cluster, in any hierarchy.
fn cgroups(layout: &Layout) -> Vec<String> {
    let name = Group::of(layout).unwrap().path("");
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mounted = mounts.lines().filter(|line| line.contains(" - cgroup"));
    let groups = mounted.map(|line| format!("{}{name}", line.split(' ').nth(4).unwrap()));
    groups.filter(|group| Path::new(group).exists()).collect()
}

fn processes() -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .map(|entry| entry.path());
    entries.filter(|path| path.file_name().unwrap().as_encoded_bytes()[0].is_ascii_digit())
}

/// The namespaces of a process: `mnt:[4026531841]`.
fn spaces(process: &Path) -> BTreeSet<PathBuf> {
    let kinds = ["mnt", "net", "pid"].iter();
    kinds
        .filter_map(|kind| fs::read_link(process.join("ns").join(kind)).ok())
        .collect()
}

/// Namespaces by name, each held open: the kernel gives the number of one that is gone to the next
/// that is made, which may be of another cluster.
type Namespaces = BTreeMap<PathBuf, fs::File>;

/// The namespaces of a cluster's machines.
fn namespaces_of(layout: &Layout) -> Namespaces {
    let machines = ["control", "node-0", "node-1"].iter();
    let firsts = machines.filter_map(|machine| first_process(layout, machine));
    let files = firsts.flat_map(|pid| {
        let folder = Path::new("/proc").join(pid.to_string()).join("ns");
        ["mnt", "net", "pid"].map(|kind| folder.join(kind))
    });
    files
        .filter_map(|file| Some((fs::read_link(&file).ok()?, fs::File::open(&file).ok()?)))
        .collect()
}

fn first_process(layout: &Layout, machine: &str) -> Option<i32> {
    process_in(&layout.state.join(machine).join("init.pid"))
}

fn relay(layout: &Layout) -> Option<i32> {
    process_in(&layout.state.join("relay.pid"))
}

fn process_in(file: &Path) -> Option<i32> {
    let text = fs::read_to_string(file).ok()?;
    text.split(' ').next()?.parse().ok()
}

fn kill(pid: i32) {
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

//! What a cluster's user asks for in a NixImage, laid over a description. Where both say something,
//! the NixImage's word counts: whoever applies it decides what runs. Pure.

use firn_crd::container as wanted;
use firn_crd::files::{Files, User as WantedUser};
use firn_crd::output::LayerProfile as WantedProfile;
use firn_crd::run::{ImageSpec, Strategy as WantedStrategy};

use super::container::{Check, Environment, Names, set_variable};
use super::document::{CopyToRoot, Description, LayerProfile, Program, Strategy, User};

impl Description {
    /// The description with what is asked for.
    #[must_use]
    pub fn with(mut self, asked: &ImageSpec) -> Self {
        let ImageSpec {
            labels,
            annotations,
            // For those who make and compress the layers.
            timestamp: _,
            max_layers: _,
            compression: _,
            level: _,
            head_room,
            strategy,
            profile,
            config,
            files,
        } = asked;
        self.labels.extend(labels.clone());
        self.annotations.extend(annotations.clone());
        if *head_room > 0 {
            self.head_room = *head_room;
        }
        match strategy {
            WantedStrategy::Stable => {}
            WantedStrategy::Popularity => self.strategy = Strategy::Popularity,
            WantedStrategy::BySize => self.strategy = Strategy::BySize,
        }
        match profile {
            WantedProfile::Firn => {}
            WantedProfile::Nix2container => self.profile = LayerProfile::Nix2container,
            WantedProfile::DockerTools => self.profile = LayerProfile::DockerTools,
        }
        self.set_container(config);
        self.set_files(files);
        self
    }

    fn set_container(&mut self, asked: &wanted::Container) {
        let wanted::Container {
            entrypoint,
            cmd,
            env,
            user,
            working_dir,
            exposed_ports,
            volumes,
            stop_signal,
            healthcheck,
        } = asked;
        let config = &mut self.config;
        if entrypoint.is_some() {
            config.entrypoint.clone_from(entrypoint);
            config.cmd = None;
        }
        or_keep(&mut config.cmd, cmd.as_ref());
        or_keep(&mut config.user, user.as_ref());
        or_keep(&mut config.working_dir, working_dir.as_ref());
        or_keep(&mut config.stop_signal, stop_signal.as_ref());
        if !env.is_empty() {
            let mut lines = config.env.lines();
            for variable in env {
                set_variable(&mut lines, format!("{}={}", variable.name, variable.value));
            }
            config.env = Environment::List(lines);
        }
        add(&mut config.exposed_ports, exposed_ports);
        add(&mut config.volumes, volumes);
        if let Some(check) = healthcheck {
            config.healthcheck = Some(Check {
                test: check.test.clone(),
                interval: check.interval.clone(),
                timeout: check.timeout.clone(),
                start_period: check.start_period.clone(),
                start_interval: check.start_interval.clone(),
                retries: check
                    .retries
                    .and_then(|retries| u32::try_from(retries).ok())
                    .unwrap_or_default(),
            });
        }
    }

    fn set_files(&mut self, asked: &Files) {
        let Files {
            tmp,
            ca_certificates,
            users,
            copy_to_root,
            bin_sh,
            usr_bin_env,
        } = asked;
        self.tmp = tmp.or(self.tmp);
        if let Some(wanted) = ca_certificates {
            let has_path = matches!(self.ca_certificates, Some(Program::Path(_)));
            if !(*wanted && has_path) {
                self.ca_certificates = Some(Program::Wanted(*wanted));
            }
        }
        if !users.is_empty() {
            let own = self.users.get_or_insert_default();
            own.retain(|own| users.iter().all(|user| user.name != own.name));
            own.extend(users.iter().map(user));
        }
        if *copy_to_root {
            let contents = self.contents.iter().cloned().map(CopyToRoot::Path);
            self.copy_to_root.extend(contents);
        }
        for (wanted, program) in [
            (*bin_sh, &mut self.bin_sh),
            (*usr_bin_env, &mut self.usr_bin_env),
        ] {
            if wanted && *program == Program::Wanted(false) {
                *program = Program::Wanted(true);
            }
        }
    }
}

fn or_keep<T: Clone>(field: &mut Option<T>, asked: Option<&T>) {
    if let Some(asked) = asked {
        *field = Some(asked.clone());
    }
}

fn add(names: &mut Names, more: &[String]) {
    if more.is_empty() {
        return;
    }
    let mut all = names.list();
    all.extend_from_slice(more);
    *names = Names::List(all);
}

/// Numbers that no user can have become the last that one can, which nobody has.
fn user(user: &WantedUser) -> User {
    let id = |id: i64| u32::try_from(id).unwrap_or(u32::MAX);
    User {
        name: user.name.clone(),
        uid: id(user.uid),
        gid: user.gid.map(id),
        comment: String::new(),
        home: user.home.clone(),
        shell: user.shell.clone(),
    }
}

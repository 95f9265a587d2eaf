//! Why a reconcile could not finish. A failed build, a refused push or a missing Secret is no
//! error: those are outcomes, and part of what is observed (`build::report`).

use std::time::Duration;

/// One run of a controller that could not finish; it is run again.
#[derive(Debug, thiserror::Error, strum::IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum Error {
    /// The API server did not answer in time.
    #[error("failed to {verb} {kind} {name:?}: no answer within {} s", limit.as_secs())]
    TimedOut {
        /// What was asked for.
        verb: &'static str,
        /// Kind of the object.
        kind: &'static str,
        /// Name of the object, or what a list was restricted to.
        name: String,
        /// How long we waited.
        limit: Duration,
    },
    /// The API server refused or could not be reached.
    #[error("failed to {verb} {kind} {name:?}")]
    Call {
        /// What was asked for.
        verb: &'static str,
        /// Kind of the object.
        kind: &'static str,
        /// Name of the object, or what a list was restricted to.
        name: String,
        /// What it said.
        source: Box<kube::Error>,
    },
    /// An object that the API server gave us lacks what each stored object has.
    #[error("{kind} {name:?} has no {field}")]
    Incomplete {
        /// Kind of the object.
        kind: &'static str,
        /// Name of the object.
        name: String,
        /// What is missing.
        field: &'static str,
    },
    /// What was observed is another by now: it is observed again.
    #[error("{kind} {name:?} changed since it was observed")]
    Outdated {
        /// Kind of the object.
        kind: &'static str,
        /// Name of the object.
        name: String,
    },
    /// Another object has the name that a child of ours must have.
    #[error("{kind} {name:?} exists and is not ours: waiting until it is gone")]
    NameTaken {
        /// Kind of the object.
        kind: &'static str,
        /// Its name.
        name: String,
    },
}

impl Error {
    /// The stable word: label of metrics, field of log lines.
    pub fn category(&self) -> &'static str {
        self.into()
    }

    /// The API server's status code, if it answered with one.
    pub fn code(&self) -> Option<u16> {
        match self {
            Self::Call { source, .. } => match source.as_ref() {
                kube::Error::Api(status) => Some(status.code),
                _ => None,
            },
            Self::TimedOut { .. }
            | Self::Incomplete { .. }
            | Self::Outdated { .. }
            | Self::NameTaken { .. } => None,
        }
    }

    /// What the API server says to a request that it will refuse again until something changes:
    /// a quota, an admission rule, a malformed object. `None` for everything else, also when the
    /// operator itself lacks a permission.
    pub fn refusal(&self) -> Option<&str> {
        let Self::Call { source, .. } = self else {
            return None;
        };
        match source.as_ref() {
            kube::Error::Api(status) if matches!(status.code, 403 | 422) => {
                let rbac =
                    status.message.contains("cannot ") && status.message.contains(" resource \"");
                (!rbac).then_some(status.message.as_str())
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    fn refused(code: u16, message: &str) -> Error {
        Error::Call {
            verb: "create",
            kind: "Job",
            name: "web-1-amd64".into(),
            source: Box::new(kube::Error::Api(Box::new(
                Status::failure(message, "Forbidden").with_code(code),
            ))),
        }
    }

    #[test]
    fn a_quota_is_a_refusal_and_a_missing_permission_is_not() {
        let quota = "jobs.batch \"web-1-amd64\" is forbidden: exceeded quota: jobs, requested: 1";
        assert_eq!(refused(403, quota).refusal(), Some(quota));
        let rbac = "jobs.batch is forbidden: User \"firn\" cannot create resource \"jobs\"";
        assert_eq!(refused(403, rbac).refusal(), None);
        assert_eq!(
            refused(500, "etcdserver: request timed out").refusal(),
            None
        );
    }

    #[test]
    fn the_category_names_no_object() {
        assert_eq!(refused(403, "x").category(), "call");
    }
}

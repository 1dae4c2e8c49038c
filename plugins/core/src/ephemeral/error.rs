//! Why there is no program beside a container, and what can be done about it.

use std::time::Duration;

/// What is being done in a container that runs already.
pub(super) const START: &str = "start a program in";

/// Why a program does not run beside a container.
#[derive(Debug, thiserror::Error)]
pub enum EphemeralError {
    /// The policy of the namespace forbids what the program needs.
    #[error("the pod security policy of namespace {namespace} forbids it: {message}")]
    Policy {
        /// The namespace.
        namespace: String,
        /// The API server's words.
        message: String,
    },
    /// The user may not.
    #[error("not allowed to {doing} pod {pod}: {message}")]
    Forbidden {
        /// What was being done.
        doing: &'static str,
        /// The pod.
        pod: String,
        /// Its namespace.
        namespace: String,
        /// The API server's words.
        message: String,
    },
    /// The API refused otherwise, or can't be reached.
    #[error("could not {doing} pod {pod}")]
    Request {
        /// What was being done.
        doing: &'static str,
        /// The pod.
        pod: String,
        /// What the API server, or the way to it, said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The pod can't be watched.
    #[error("could not watch pod {pod}")]
    Watch {
        /// The pod.
        pod: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The pod ended meanwhile.
    #[error("pod {pod} is gone")]
    Gone {
        /// The pod.
        pod: String,
    },
    /// The image can't be had or the program not be started.
    #[error("image {image} could not be started in pod {pod}: {reason}")]
    NotStarted {
        /// The pod.
        pod: String,
        /// The image.
        image: String,
        /// The kubelet's words.
        reason: String,
    },
    /// The program ended as soon as it was started.
    #[error("the program beside pod {pod} ended at once: {reason}")]
    Ended {
        /// The pod.
        pod: String,
        /// How, and its last words.
        reason: String,
    },
    /// The kubelet took too long.
    #[error("container {container} did not start in pod {pod} within {} s", patience.as_secs())]
    TimedOut {
        /// The pod.
        pod: String,
        /// The container's name.
        container: String,
        /// How long was waited.
        patience: Duration,
    },
}

impl EphemeralError {
    /// Whether it concerns one pod at one time only, so that trying again, or
    /// another pod, may go well.
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Request { .. } | Self::Watch { .. } | Self::Gone { .. } | Self::TimedOut { .. } | Self::Ended { .. })
    }

    /// What the user can do.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Policy { namespace, .. } => Some(format!(
                "allow it where you develop: `kubectl label namespace {namespace} pod-security.kubernetes.io/enforce=privileged --overwrite`"
            )),
            Self::Forbidden { namespace, doing: START, .. } => {
                Some(format!("a role in namespace {namespace} must allow: get and create on pods/exec"))
            }
            Self::Forbidden { namespace, .. } => Some(format!(
                "a role in namespace {namespace} must allow: patch on pods/ephemeralcontainers; get and create on pods/attach; get, list and watch on pods"
            )),
            Self::NotStarted { .. } => Some("name an image that the nodes can pull, for their processor".to_owned()),
            Self::TimedOut { pod, .. } => Some(format!("see what `kubectl describe pod {pod}` says about it")),
            _ => None,
        }
    }
}

/// Sorts out what the API server refused.
pub(super) fn of_request(error: kube::Error, namespace: &str, pod: &str, doing: &'static str) -> EphemeralError {
    let (pod, namespace) = (pod.to_owned(), namespace.to_owned());
    match error {
        kube::Error::Api(status) if status.code == 403 && status.message.contains("violates PodSecurity") => {
            EphemeralError::Policy { namespace, message: status.message.clone() }
        }
        kube::Error::Api(status) if status.code == 403 => {
            EphemeralError::Forbidden { doing, pod, namespace, message: status.message.clone() }
        }
        kube::Error::Api(status) if status.code == 404 && status.reason == "NotFound" => EphemeralError::Gone { pod },
        kube::Error::Api(status) => EphemeralError::Request { doing, pod, source: status.message.clone().into() },
        error => EphemeralError::Request { doing, pod, source: Box::new(error) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::core::Status;

    fn refused(code: u16, reason: &str, message: &str) -> EphemeralError {
        let status = Status { code, reason: reason.to_owned(), message: message.to_owned(), ..Status::default() };
        of_request(kube::Error::Api(Box::new(status)), "shop", "web-1", "add an ephemeral container to")
    }

    #[test]
    fn refusals_say_what_would_help() {
        let errors = [
            refused(403, "Forbidden", r#"pods "web-1" is forbidden: violates PodSecurity "baseline:latest": non-default capabilities"#),
            refused(403, "Forbidden", r#"pods "web-1" is forbidden: User "dev" cannot patch resource "pods/ephemeralcontainers""#),
            refused(404, "NotFound", r#"pods "web-1" not found"#),
            refused(422, "Invalid", "spec.ephemeralContainers[0].image: Required value"),
        ];
        let lines: Vec<String> = errors.iter().map(|error| format!("{error}\n  {}", error.hint().unwrap_or_default())).collect();
        insta::assert_snapshot!(lines.join("\n"));
    }
}

//! `--prompt`: which of the pods?

use devloop_core::error::ErrorHint;
use devloop_core::logs::{Choice, Scope, list_pods};
use devloop_core::ui::Ui;
use devloop_core::{CommandError, ErrorContext, Result};
use futures::future::try_join_all;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use regex::Regex;
use std::io::IsTerminal;

/// Labels that name an application, the first that pods have being asked for;
/// stern asks for the values of the first.
const APPLICATION: [&str; 3] = ["app.kubernetes.io/instance", "app.kubernetes.io/name", "app"];

/// Asks which applications or pods; narrows the scopes to them.
///
/// # Errors
/// When nobody can be asked, there is nothing to choose from, or the answer makes no sense.
pub(crate) async fn ask(scopes: &mut [Scope], choice: &Choice, ui: &Ui) -> Result<()> {
    if !std::io::stdin().is_terminal() {
        return Err(CommandError::usage("--prompt needs a terminal")).hint("name the pods, or choose them with --selector");
    }
    let pods: Vec<Pod> = try_join_all(scopes.iter().map(|scope| list_pods(scope, choice))).await?.concat();
    let (label, choices) = choices(&pods);
    if choices.is_empty() {
        return Err(CommandError::new("there are no pods to choose from"));
    }
    ui.say(label.map_or("Pods:".to_owned(), |label| format!("Pods by {label}:")));
    for (index, name) in choices.iter().enumerate() {
        ui.say(format!("{:>4}  {name}", index + 1));
    }
    ui.say("Which? (numbers, or `all`)");
    let answer = tokio::task::spawn_blocking(|| {
        let mut answer = String::new();
        std::io::stdin().read_line(&mut answer).map(|_| answer)
    });
    let answer = answer.await.context("could not read the answer")?.context("could not read the answer")?;
    let chosen = chosen(&answer, &choices)?;
    let names: Vec<Regex> =
        names(&pods, label, &chosen).iter().filter_map(|name| Regex::new(&format!("^{}$", regex::escape(name))).ok()).collect();
    for scope in scopes {
        match label {
            Some(label) => {
                let wanted = format!("{label} in ({})", chosen.join(","));
                scope.labels = Some(scope.labels.take().map_or(wanted.clone(), |before| format!("{before},{wanted}")));
            }
            None => scope.names.clone_from(&names),
        }
    }
    Ok(())
}

/// What can be chosen from: the values of a label that pods have, else their names.
fn choices(pods: &[Pod]) -> (Option<&'static str>, Vec<String>) {
    let values = |label: &str| pods.iter().filter_map(|pod| pod.labels().get(label).cloned()).collect::<Vec<_>>();
    let label = APPLICATION.into_iter().find(|label| !values(label).is_empty());
    let mut all = label.map_or_else(|| pods.iter().map(ResourceExt::name_any).collect(), values);
    all.sort();
    all.dedup();
    (label, all)
}

fn chosen(answer: &str, choices: &[String]) -> Result<Vec<String>> {
    if answer.trim() == "all" {
        return Ok(choices.to_vec());
    }
    let numbers: Option<Vec<usize>> =
        answer.split([',', ' ']).map(str::trim).filter(|word| !word.is_empty()).map(|word| word.parse().ok()).collect();
    let found = numbers.and_then(|numbers| {
        numbers.into_iter().map(|number| choices.get(number.checked_sub(1)?).cloned()).collect::<Option<Vec<String>>>()
    });
    found
        .filter(|found| !found.is_empty())
        .ok_or_else(|| CommandError::usage(format!("{:?} is none of them", answer.trim())))
        .hint(format!("answer with numbers from 1 to {}", choices.len()))
}

fn names(pods: &[Pod], label: Option<&str>, chosen: &[String]) -> Vec<String> {
    if label.is_some() {
        return Vec::new();
    }
    pods.iter().map(ResourceExt::name_any).filter(|name| chosen.contains(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn applications_are_asked_for_before_pods_and_answers_are_numbers() {
        let pod = |name: &str, app: Option<&str>| {
            let mut pod = Pod::default();
            pod.metadata.name = Some(name.into());
            pod.metadata.labels = app.map(|app| [("app".to_owned(), app.to_owned())].into());
            pod
        };
        let pods = [pod("web-2", Some("web")), pod("web-1", Some("web")), pod("job", None)];
        assert_eq!(choices(&pods), (Some("app"), vec!["web".to_owned()]));
        let (label, all) = choices(&pods[2..]);
        assert_eq!((label, all), (None, vec!["job".to_owned()]));
        let all = ["a".to_owned(), "b".to_owned()];
        assert_eq!(chosen(" 2, 1\n", &all).unwrap(), ["b", "a"]);
        assert_eq!(chosen("all\n", &all).unwrap(), all);
        for answer in ["", "0", "3", "a"] {
            assert_eq!(chosen(answer, &all).unwrap_err().status().code(), 2, "{answer}");
        }
    }
}

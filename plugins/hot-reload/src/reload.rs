//! What makes an app take note of changed files. Pure.

use crate::plan::Item;
use devloop_core::detect::{Runtime, guess_action};
use devloop_core::patterns::Patterns;
use devloop_core::project::{ReloadAction, ReloadRule};
use devloop_core::{CommandError, Result};
use std::collections::BTreeSet;
use std::path::Path;

/// The rules of a service.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rules {
    rules: Vec<(Option<Patterns>, ReloadAction)>,
}

/// All that is to be done about some changed files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reload {
    /// Where the app is to be started again: the paths in the container that
    /// ask for it, none when the user does.
    pub(crate) restart: Option<Vec<String>>,
    /// What else, each once.
    pub(crate) calls: BTreeSet<ReloadAction>,
}

impl Rules {
    /// # Errors
    /// When a pattern can't be read.
    pub(crate) fn new(root: &Path, rules: &[ReloadRule]) -> Result<Self> {
        let compile = |rule: &ReloadRule| {
            let patterns = (!rule.on.is_empty()).then(|| Patterns::new(root, rule.on.iter().map(String::as_str))).transpose();
            Ok((patterns.map_err(CommandError::usage)?, rule.action.clone()))
        };
        Ok(Self { rules: rules.iter().map(compile).collect::<Result<_>>()? })
    }

    fn action(&self, runtime: Runtime, path: &str, item: &Item) -> ReloadAction {
        let ruled = self.rules.iter().find(|(patterns, _)| patterns.as_ref().is_none_or(|patterns| patterns.fit(&item.local)));
        ruled.map_or_else(|| guess_action(runtime, path), |(_, action)| action.clone())
    }

    /// What is to be done about changed files in a container of this runtime.
    pub(crate) fn decide<'a>(&self, runtime: Runtime, changed: impl IntoIterator<Item = (&'a String, &'a Item)>) -> Reload {
        let mut reload = Reload::default();
        for (path, item) in changed {
            match self.action(runtime, path, item) {
                ReloadAction::None => {}
                ReloadAction::Restart => reload.restart.get_or_insert_default().push(path.clone()),
                call => drop(reload.calls.insert(call)),
            }
        }
        if reload.restart.is_some() {
            // Meant for the program that is replaced: it would hit the new one.
            reload.calls.retain(|call| !matches!(call, ReloadAction::Signal(_)));
        }
        reload
    }
}

impl Reload {
    /// Whether there is nothing to do.
    pub(crate) fn is_empty(&self) -> bool {
        self.restart.is_none() && self.calls.is_empty()
    }
}

/// What a call is, for people.
pub(crate) fn describe(call: &ReloadAction) -> String {
    match call {
        ReloadAction::None => "nothing".to_owned(),
        ReloadAction::Restart => "restart".to_owned(),
        ReloadAction::Signal(name) => format!("SIG{name}"),
        ReloadAction::Http(call) => format!("{} {}", call.method, call.path),
        ReloadAction::Exec(command) => command.join(" "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use devloop_core::project::HttpCall;

    fn item(local: &str) -> Item {
        Item { local: local.into(), root: "/w".into(), is_there: true }
    }

    fn decide(rules: &[ReloadRule], runtime: Runtime, names: &[&str]) -> Reload {
        let changed: Vec<(String, Item)> = names.iter().map(|name| (format!("/app/{name}"), item(&format!("/w/{name}")))).collect();
        Rules::new(Path::new("/w"), rules).unwrap().decide(runtime, changed.iter().map(|(path, item)| (path, item)))
    }

    #[test]
    fn the_first_rule_that_fits_decides_and_a_guess_where_none_does() {
        let call = ReloadAction::Http(HttpCall { path: "/r".to_owned(), port: 1, method: "POST".to_owned() });
        let rules = [
            ReloadRule { on: vec!["settings.py".to_owned()], action: ReloadAction::Signal("HUP".to_owned()) },
            ReloadRule { on: vec!["*.tmpl".to_owned(), "settings.py".to_owned()], action: call.clone() },
        ];
        assert_eq!(decide(&rules, Runtime::Python, &["settings.py"]).calls, [ReloadAction::Signal("HUP".to_owned())].into());
        let both = decide(&rules, Runtime::Python, &["settings.py", "a.tmpl", "b.tmpl", "app.py"]);
        assert_eq!(both, Reload { restart: Some(vec!["/app/app.py".to_owned()]), calls: [call].into() });
        assert!(decide(&rules, Runtime::Python, &["page.html"]).is_empty());
    }

    #[test]
    fn a_rule_without_patterns_is_for_all() {
        let rules = [ReloadRule { on: Vec::new(), action: ReloadAction::None }];
        assert!(decide(&rules, Runtime::Python, &["app.py"]).is_empty());
    }
}

//! What the user should know although watching goes on.

use std::fmt;
use std::path::{Path, PathBuf};

/// So many folders are named; the others are counted.
const NAMED_FOLDERS: usize = 3;

/// A limit of the kernel, per user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchLimit {
    /// How many folders are watched.
    Folders,
    /// How many watchers there are.
    Watchers,
}

impl WatchLimit {
    fn describe(self) -> &'static str {
        match self {
            Self::Folders => "watched folders",
            Self::Watchers => "file watchers",
        }
    }

    /// The kernel's name for it, as sysctl(8) takes it.
    fn setting(self) -> &'static str {
        match self {
            Self::Folders => "fs.inotify.max_user_watches",
            Self::Watchers => "fs.inotify.max_user_instances",
        }
    }

    /// What is enough for almost everybody.
    fn generous(self) -> u64 {
        match self {
            Self::Folders => 1_048_576,
            Self::Watchers => 1024,
        }
    }

    /// What it is on this machine.
    pub(super) fn value(self) -> Option<u64> {
        let file = Path::new("/proc/sys").join(self.setting().replace('.', "/"));
        std::fs::read_to_string(file).ok()?.trim().parse().ok()
    }
}

/// A limit was reached, so that folders are polled instead of watched. Its text
/// says which, [`WatchWarning::hint`] what helps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchWarning {
    /// The limit.
    pub limit: WatchLimit,
    /// Its value, if the system tells it.
    pub value: Option<u64>,
    /// The folders that are polled, with all below that is not watched.
    pub polled: Vec<PathBuf>,
}

impl WatchWarning {
    /// The command that raises the limit, and the way around it.
    #[must_use]
    pub fn hint(&self) -> String {
        let value = self.limit.generous().max(self.value.unwrap_or_default().saturating_mul(2));
        let command =
            format!("raise it with `sudo sysctl {}={value}`: what is polled is then watched, without a restart", self.limit.setting());
        match self.limit {
            WatchLimit::Folders => format!("{command}; or list folders that need no watching in .devloopignore"),
            WatchLimit::Watchers => command,
        }
    }
}

impl fmt::Display for WatchWarning {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.value.map(|value| format!(" = {value}")).unwrap_or_default();
        let mut named: Vec<String> = self.polled.iter().take(NAMED_FOLDERS).map(|folder| folder.display().to_string()).collect();
        match self.polled.len().saturating_sub(NAMED_FOLDERS) {
            0 => {}
            1 => named.push("1 more folder".to_owned()),
            others => named.push(format!("{others} more folders")),
        }
        let last = named.pop().unwrap_or_default();
        let folders = if named.is_empty() { last } else { format!("{} and {last}", named.join(", ")) };
        write!(
            formatter,
            "the system's limit of {} is reached ({}{value}): changes below {folders} are polled for every half a second or, among many files, every few seconds",
            self.limit.describe(),
            self.limit.setting(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_what_is_reached_and_what_helps() {
        let text = |limit, value, folders: usize| {
            let polled = ["/src/a", "/src/b", "/src/c", "/src/d", "/src/e"][..folders].iter().map(PathBuf::from).collect();
            let warning = WatchWarning { limit, value, polled };
            format!("{warning}\n{}", warning.hint())
        };
        insta::assert_snapshot!(text(WatchLimit::Folders, Some(8192), 1));
        insta::assert_snapshot!(text(WatchLimit::Folders, Some(2_000_000), 5));
        insta::assert_snapshot!(text(WatchLimit::Watchers, None, 2));
    }
}

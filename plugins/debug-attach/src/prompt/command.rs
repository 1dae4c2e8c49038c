//! What the user asks for, as pdb has it. Pure.

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Command {
    Help,
    Step(Step),
    Where,
    List,
    /// To an older frame, or to a newer one.
    Select(i8),
    Evaluate(String),
    /// All are shown where there is no place.
    Break(Option<String>),
    /// All of them where there is no number.
    Clear(Option<usize>),
    Quit,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Continue,
    Next,
    Into,
    Out,
}

impl Step {
    /// The adapter's name of it.
    pub(super) const fn request(self) -> &'static str {
        match self {
            Self::Continue => "continue",
            Self::Next => "next",
            Self::Into => "stepIn",
            Self::Out => "stepOut",
        }
    }
}

impl Command {
    /// Whatever is no command is evaluated.
    pub(super) fn parse(line: &str) -> Self {
        let line = line.trim();
        let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let rest = rest.trim();
        match (word, rest) {
            ("b" | "break", "") => Self::Break(None),
            // `b = 1` is a statement.
            ("b" | "break", place) if !place.starts_with('=') => Self::Break(Some(place.to_owned())),
            ("cl" | "clear", "") => Self::Clear(None),
            ("cl" | "clear", number) if number.parse::<usize>().is_ok() => Self::Clear(number.parse().ok()),
            ("p" | "pp", expression) if !expression.is_empty() && !expression.starts_with('=') => Self::Evaluate(expression.to_owned()),
            ("c" | "cont" | "continue", "") => Self::Step(Step::Continue),
            ("n" | "next", "") => Self::Step(Step::Next),
            ("s" | "step", "") => Self::Step(Step::Into),
            ("r" | "return", "") => Self::Step(Step::Out),
            ("w" | "where" | "bt", "") => Self::Where,
            ("l" | "list", "") => Self::List,
            ("u" | "up", "") => Self::Select(1),
            ("d" | "down", "") => Self::Select(-1),
            ("q" | "quit" | "exit", "") => Self::Quit,
            ("h" | "help" | "?", _) => Self::Help,
            _ => Self::Evaluate(line.strip_prefix('!').unwrap_or(line).trim().to_owned()),
        }
    }

    /// Whether an empty line means it again.
    pub(super) const fn is_repeated(&self) -> bool {
        matches!(self, Self::Step(_) | Self::Select(_) | Self::Where | Self::List)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_told_from_what_is_evaluated() {
        let evaluate = |text: &str| Command::Evaluate(text.to_owned());
        let cases = [
            ("b app.py:12", Command::Break(Some("app.py:12".to_owned()))),
            (" b ", Command::Break(None)),
            ("b = 1", evaluate("b = 1")),
            ("cl 2", Command::Clear(Some(2))),
            ("cl x", evaluate("cl x")),
            ("n", Command::Step(Step::Next)),
            ("n + 1", evaluate("n + 1")),
            ("p  n", evaluate("n")),
            ("p", evaluate("p")),
            ("!n = 3", evaluate("n = 3")),
            ("up", Command::Select(1)),
            ("quit", Command::Quit),
            ("help c", Command::Help),
        ];
        for (line, wanted) in cases {
            assert_eq!(Command::parse(line), wanted, "{line}");
        }
    }
}

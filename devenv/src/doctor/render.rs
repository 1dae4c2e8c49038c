//! Findings for people: a line each, more about those that are problems.

use super::finding::{Finding, Group, Severity, usable};

/// So wide is the text below a problem.
const WIDTH: usize = 96;
const INDENT: &str = "           ";

/// All findings by group, then what follows from them.
pub(crate) fn render(findings: &[Finding]) -> String {
    let mut text = String::new();
    for group in Group::ALL {
        let of_group: Vec<&Finding> = findings.iter().filter(|finding| finding.group == group).collect();
        if of_group.is_empty() {
            continue;
        }
        text.push_str(group.title());
        text.push('\n');
        for finding in of_group {
            render_one(finding, &mut text);
        }
        text.push('\n');
    }
    text.push_str(&summary(findings));
    text
}

fn render_one(finding: &Finding, text: &mut String) {
    let word = match finding.severity {
        Severity::Ok => "ok",
        Severity::Unknown => "unknown",
        Severity::Warning => "warning",
        Severity::Blocks => "BLOCKS",
    };
    let engines: Vec<&str> = finding.engines.iter().map(|engine| engine.name()).collect();
    let affected = match (finding.severity, engines.as_slice()) {
        (Severity::Ok, _) | (_, []) => String::new(),
        (_, engines) => format!(" [{}]", engines.join(", ")),
    };
    text.push_str(&format!("  {word:<8} {}{affected}\n", finding.title));
    for line in finding.explanation.iter().flat_map(|explanation| wrap(explanation)) {
        text.push_str(&format!("{INDENT}{line}\n"));
    }
    for (index, line) in finding.fix.iter().flat_map(|fix| wrap(fix)).enumerate() {
        let label = if index == 0 { "Fix: " } else { "     " };
        text.push_str(&format!("{INDENT}{label}{line}\n"));
    }
}

fn summary(findings: &[Finding]) -> String {
    let count = |severity| findings.iter().filter(|finding| finding.severity == severity).count();
    let usable: Vec<&str> = usable(findings).iter().map(|engine| engine.name()).collect();
    let blocks = match (count(Severity::Blocks), usable.as_slice()) {
        (_, []) => "No engine can bring up a cluster".to_owned(),
        (0, engines) => format!("Clusters can be brought up with: {}", engines.join(", ")),
        (broken, engines) => format!("{broken} of what runs is broken; clusters can be brought up with: {}", engines.join(", ")),
    };
    format!(
        "{blocks} ({} ok, {} to look at, {} unknown)",
        count(Severity::Ok),
        count(Severity::Warning) + count(Severity::Blocks),
        count(Severity::Unknown)
    )
}

/// Breaks at spaces, but not in a command, so that it can be copied.
fn wrap(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let mut in_command = false;
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if in_command || line.chars().count() + 1 + word.chars().count() <= WIDTH => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
        in_command ^= word.matches('`').count() % 2 == 1;
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_stays_on_its_line() {
        let command = format!("`{}`", ["kubectl"; 20].join(" "));
        let lines = wrap(&format!("{} {command} or {}", ["word"; 30].join(" "), ["word"; 30].join(" ")));
        assert!(lines.iter().any(|line| line.contains(&command)), "{lines:?}");
        assert!(lines.iter().filter(|line| !line.contains('`')).all(|line| line.len() <= WIDTH));
        assert!(wrap("").is_empty());
    }
}

//! From the text of a Dockerfile to its instructions: comments, continued lines
//! and here-documents (<https://docs.docker.com/reference/dockerfile/>).

use super::Mistake;

/// An instruction with what follows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// Of its first line, from 1.
    pub(super) number: usize,
    /// In upper case.
    pub(super) instruction: String,
    /// All on one line.
    pub(super) rest: String,
    /// The content of its here-documents, in their order.
    pub(super) heredocs: Vec<String>,
}

/// The instructions, and the character that continues lines and quotes others.
pub(super) fn split(text: &str) -> Result<(Vec<Line>, char), Mistake> {
    let escape = escape_directive(text)?;
    let mut physical = text.lines().enumerate().map(|(index, line)| (index + 1, line.trim_end_matches('\r')));
    let mut lines = Vec::new();
    while let Some((number, first)) = physical.next() {
        if is_blank_or_comment(first) {
            continue;
        }
        let mut joined = String::new();
        let mut piece = first;
        while let Some(front) = piece.trim_end().strip_suffix(escape) {
            joined.push_str(front);
            // Comments, and empty lines, may stand between the parts of a line.
            let Some((_, next)) = physical.by_ref().find(|(_, line)| !is_blank_or_comment(line)) else {
                piece = "";
                break;
            };
            piece = next;
        }
        joined.push_str(piece);
        let joined = joined.trim();
        let (word, rest) = joined.split_once(char::is_whitespace).unwrap_or((joined, ""));
        let instruction = word.to_ascii_uppercase();
        let mut heredocs = Vec::new();
        if ["RUN", "COPY", "ADD"].contains(&instruction.as_str()) {
            for heredoc in rest.split_whitespace().filter_map(heredoc) {
                heredocs.push(read_heredoc(&mut physical, &heredoc, number)?);
            }
        }
        lines.push(Line { number, instruction, rest: rest.trim().to_owned(), heredocs });
    }
    Ok((lines, escape))
}

fn is_blank_or_comment(line: &str) -> bool {
    let line = line.trim_start();
    line.is_empty() || line.starts_with('#')
}

/// `# escape=` and the like stand before everything else.
fn escape_directive(text: &str) -> Result<char, Mistake> {
    for (index, line) in text.lines().enumerate() {
        let Some((name, value)) = line.trim().strip_prefix('#').and_then(|line| line.split_once('=')) else { break };
        let name = name.trim().to_ascii_lowercase();
        if name == "escape" {
            return match value.trim() {
                "\\" => Ok('\\'),
                "`" => Ok('`'),
                other => Err(Mistake::new(index + 1, format!("the escape character can't be {other:?}, only \\ or `"))),
            };
        }
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            break;
        }
    }
    Ok('\\')
}

/// The mark that ends a here-document.
struct Heredoc {
    mark: String,
    /// `<<-`: tabs before the mark are no part of it.
    strip_tabs: bool,
}

/// Whether a word is the beginning of a here-document: `<<EOF`, `3<<-"EOF"`.
fn heredoc(word: &str) -> Option<Heredoc> {
    let rest = word.trim_start_matches(|character: char| character.is_ascii_digit()).strip_prefix("<<")?;
    let (strip_tabs, rest) = rest.strip_prefix('-').map_or((false, rest), |rest| (true, rest));
    let mark = rest.trim_matches(['"', '\'']);
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'.';
    (!mark.is_empty() && mark.bytes().all(fits)).then(|| Heredoc { mark: mark.to_owned(), strip_tabs })
}

/// Whether a word is the beginning of a here-document.
pub(super) fn is_heredoc(word: &str) -> bool {
    heredoc(word).is_some()
}

fn read_heredoc<'a>(lines: &mut impl Iterator<Item = (usize, &'a str)>, heredoc: &Heredoc, number: usize) -> Result<String, Mistake> {
    let mut content = String::new();
    for (_, line) in lines {
        let compared = if heredoc.strip_tabs { line.trim_start_matches('\t') } else { line };
        if compared == heredoc.mark {
            return Ok(content);
        }
        content.push_str(line);
        content.push('\n');
    }
    Err(Mistake::new(number, format!("the here-document {} has no end", heredoc.mark)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        let (lines, _) = split(text).unwrap();
        lines.iter().map(|line| format!("{} {} | {} | {:?}\n", line.number, line.instruction, line.rest, line.heredocs)).collect()
    }

    #[test]
    fn lines_are_joined_and_comments_left_out() {
        let text = "# syntax=docker/dockerfile:1\n\n# web\nFROM debian\nRUN a && \\\n  # why\n\n  b \\  \n  c\r\ncopy x y\nENV A=1 \\";
        insta::assert_snapshot!(shown(text), @r"
        4 FROM | debian | []
        5 RUN | a &&   b   c | []
        10 COPY | x y | []
        11 ENV | A=1 | []
        ");
        insta::assert_snapshot!(shown("# escape=`\nRUN a `\n b\nWORKDIR C:\\x\\"), @r"
        2 RUN | a  b | []
        4 WORKDIR | C:\x\ | []
        ");
    }

    #[test]
    fn heredocs_are_read_to_their_ends() {
        let text = "RUN <<EOF\nFROM x\nEOF\nCOPY <<-\"A\" <<B /x/\n1\n\tA\n2\nB\nRUN echo $((1<<A))\nUSER x";
        insta::assert_snapshot!(shown(text), @r#"
        1 RUN | <<EOF | ["FROM x\n"]
        4 COPY | <<-"A" <<B /x/ | ["1\n", "2\n"]
        9 RUN | echo $((1<<A)) | []
        10 USER | x | []
        "#);
        assert_eq!(split("RUN <<EOF\nx").unwrap_err().to_string(), "line 1: the here-document EOF has no end");
        assert_eq!(split("# escape=x\nFROM a").unwrap_err().line, 1);
    }
}

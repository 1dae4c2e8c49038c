//! A flame graph as an SVG image: a box for each function below the one that called it,
//! as wide as the time spent in it and in what it called
//! (<https://www.brendangregg.com/flamegraphs.html>). Pure.

use super::symbolize::Names;
use devloop_core::agent::tools::Stack;
use std::collections::BTreeMap;
use std::fmt::Write;

const WIDTH: f64 = 1200.0;
const ROW: f64 = 17.0;
const MARGIN: f64 = 10.0;
const HEAD: f64 = 40.0;
/// Narrower boxes are left out.
const NARROWEST: f64 = 0.3;
/// Of a letter.
const LETTER: f64 = 7.2;

/// A function with all that it called.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Node {
    count: u64,
    children: BTreeMap<String, Node>,
}

/// The image; `title` is above it.
pub(super) fn svg(title: &str, stacks: &[Stack], names: &Names) -> String {
    let root = tree(stacks, names);
    let depth = f64::from(u32::try_from(depth(&root)).unwrap_or(u32::MAX));
    let height = HEAD + depth * ROW + MARGIN;
    let mut image = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"monospace\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fafafa\"/>\n<text x=\"{MARGIN}\" y=\"24\" font-size=\"16\">{}</text>\n",
        escape(title)
    );
    let scale = (WIDTH - 2.0 * MARGIN) / number(root.count.max(1));
    draw(&mut image, "all", &root, (MARGIN, HEAD), scale, root.count.max(1));
    image.push_str("</svg>\n");
    image
}

fn tree(stacks: &[Stack], names: &Names) -> Node {
    let mut root = Node::default();
    for stack in stacks {
        let count = u64::from(stack.count);
        root.count += count;
        let mut node = &mut root;
        for address in stack.addresses.iter().rev() {
            for frame in names.at(*address).into_iter().rev() {
                node = node.children.entry(frame.function).or_default();
                node.count += count;
            }
        }
    }
    root
}

fn depth(node: &Node) -> usize {
    1 + node.children.values().map(depth).max().unwrap_or(0)
}

fn draw(image: &mut String, name: &str, node: &Node, (x, y): (f64, f64), scale: f64, all: u64) {
    let width = number(node.count) * scale;
    if width < NARROWEST {
        return;
    }
    let percent = number(node.count) * 100.0 / number(all);
    // Writing to a string does not fail.
    let _ = writeln!(
        image,
        "<g><title>{} ({} samples, {percent:.1} %)</title><rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{}\" fill=\"{}\" stroke=\"#fafafa\" stroke-width=\"0.5\"/>{}</g>",
        escape(name),
        node.count,
        ROW - 1.0,
        colour(name),
        label(name, (x, y), width)
    );
    let mut left = x;
    for (name, child) in &node.children {
        draw(image, name, child, (left, y + ROW), scale, all);
        left += number(child.count) * scale;
    }
}

fn label(name: &str, (x, y): (f64, f64), width: f64) -> String {
    let mut room = width - 6.0;
    let text: String = name
        .chars()
        .take_while(|_| {
            room -= LETTER;
            room >= 0.0
        })
        .collect();
    // Less than that tells nothing.
    if text.chars().count() < 3 {
        return String::new();
    }
    format!("<text x=\"{:.1}\" y=\"{:.1}\">{}</text>", x + 3.0, y + 12.0, escape(&text))
}

/// Warm ones, the same for a function each time.
fn colour(name: &str) -> String {
    let hash = name.bytes().fold(2_166_136_261_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(16_777_619));
    format!("hsl({},75%,{}%)", hash % 45 + 5, hash / 64 % 14 + 62)
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// More samples than fit it exactly are not to be had.
#[expect(clippy::cast_precision_loss, reason = "numbers of samples are small")]
fn number(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::tools::symbolize::Frame;

    fn frame(function: &str) -> Frame {
        Frame { function: function.to_owned(), file: Some("/src/web.rs".to_owned()), line: 7 }
    }

    /// `main` calls `read`, and `handle` with `parse` inlined into it.
    pub(in crate::tools) fn names() -> Names {
        Names::of([(1, vec![frame("main")]), (2, vec![frame("read")]), (3, vec![frame("parse"), frame("handle")])].into())
    }

    pub(in crate::tools) fn stacks() -> Vec<Stack> {
        let stack = |addresses: &[u64], count| Stack {
            thread: 1,
            name: "web".to_owned(),
            state: 'R',
            addresses: addresses.to_vec(),
            is_whole: true,
            count,
        };
        vec![stack(&[2, 1], 7), stack(&[3, 1], 3)]
    }

    #[test]
    fn boxes_are_as_wide_as_the_time_and_below_their_callers() {
        insta::assert_snapshot!(svg("web, 1 s <cpu>", &stacks(), &names()));
    }

    #[test]
    fn nothing_is_an_image_too() {
        let image = svg("web", &[], &names());
        assert!(image.ends_with("</svg>\n") && !image.contains("<g>"), "{image}");
    }
}

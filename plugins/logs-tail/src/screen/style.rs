//! Colours of the printed output, on the screen. Pure.

use crate::lines::level::Level;
use ratatui::style::{Color, Modifier, Style};

/// The colour of a level.
pub(crate) fn of_level(level: Level) -> Style {
    of_sgr(level.sgr()).add_modifier(Modifier::BOLD)
}

/// What an SGR parameter stands for (ECMA-48, 8.3.117, with xterm's additions);
/// what isn't known changes nothing.
pub(crate) fn of_sgr(parameters: &str) -> Style {
    let numbers: Vec<u8> = parameters.split([';', ':']).filter_map(|part| part.parse().ok()).collect();
    let mut style = Style::new();
    let mut rest = numbers.as_slice();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        style = match first {
            1 => style.add_modifier(Modifier::BOLD),
            2 => style.add_modifier(Modifier::DIM),
            3 => style.add_modifier(Modifier::ITALIC),
            4 => style.add_modifier(Modifier::UNDERLINED),
            7 => style.add_modifier(Modifier::REVERSED),
            30..=37 => style.fg(Color::Indexed(first - 30)),
            40..=47 => style.bg(Color::Indexed(first - 40)),
            90..=97 => style.fg(Color::Indexed(first - 90 + 8)),
            100..=107 => style.bg(Color::Indexed(first - 100 + 8)),
            38 | 48 => {
                let (color, taken) = match after {
                    [5, index, ..] => (Color::Indexed(*index), 2),
                    [2, red, green, blue, ..] => (Color::Rgb(*red, *green, *blue), 4),
                    _ => return style,
                };
                rest = &after[taken..];
                if *first == 38 { style.fg(color) } else { style.bg(color) }
            }
            _ => style,
        };
    }
    style
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_colours() {
        assert_eq!(of_sgr("96"), Style::new().fg(Color::Indexed(14)));
        assert_eq!(of_sgr("1;38;2;1;2;3;4"), Style::new().fg(Color::Rgb(1, 2, 3)).add_modifier(Modifier::BOLD | Modifier::UNDERLINED));
        assert_eq!(of_sgr("38;5;200"), Style::new().fg(Color::Indexed(200)));
        assert_eq!(of_sgr("38;5"), Style::new());
        assert_eq!(of_sgr("999;x"), Style::new());
    }
}

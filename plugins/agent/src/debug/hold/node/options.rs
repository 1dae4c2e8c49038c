//! Where Node opens its inspector, by its options
//! (<https://nodejs.org/api/cli.html#--inspect-porthostport>). Pure.

/// Without any.
const PORT: u16 = 9229;
const OPTIONS: [&str; 5] = ["--inspect", "--inspect-brk", "--inspect-wait", "--inspect-port", "--debug-port"];

/// The port, from the arguments of the process and from its `NODE_OPTIONS`; the
/// former count.
pub(super) fn endpoint(arguments: &[Vec<u8>], variable: &[u8]) -> u16 {
    let variable = String::from_utf8_lossy(variable).into_owned();
    let arguments: Vec<String> = arguments.iter().skip(1).map(|argument| String::from_utf8_lossy(argument).into_owned()).collect();
    // Options end where the program's name comes.
    let options = arguments.iter().map(String::as_str).take_while(|argument| argument.starts_with('-'));
    variable.split_ascii_whitespace().chain(options).filter_map(port).last().unwrap_or(PORT)
}

/// Of an option with a value: `--inspect=[host:]port`. Of 0 nobody knows what became.
fn port(option: &str) -> Option<u16> {
    let (name, value) = option.split_once('=')?;
    let port = value.rsplit(':').next()?.parse().ok()?;
    (OPTIONS.contains(&name) && port != 0).then_some(port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_option_counts_and_arguments_of_the_program_do_not() {
        let of = |arguments: &str, variable: &str| {
            let arguments: Vec<Vec<u8>> = arguments.split(' ').map(|word| word.as_bytes().to_vec()).collect();
            endpoint(&arguments, variable.as_bytes())
        };
        assert_eq!(of("node --enable-source-maps server.js --inspect=1", ""), 9229);
        assert_eq!(of("node --inspect=0.0.0.0:9300 server.js", "--inspect-port=9400"), 9300);
        assert_eq!(of("node --inspect server.js", "--max-old-space-size=100 --inspect-port=9400"), 9400);
        assert_eq!(of("node --inspect=[::1]:9301 a.js", ""), 9301);
        assert_eq!(of("node --inspect=0 a.js", ""), 9229);
    }
}

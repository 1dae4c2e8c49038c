//! Where a Java virtual machine's debug agent listens, by its options. Pure.

/// Variables that hold options, too, in the order in which they are read.
const VARIABLES: [&str; 3] = [TOOL_OPTIONS, "JDK_JAVA_OPTIONS", "_JAVA_OPTIONS"];
/// That of them which all machines know.
pub(crate) const TOOL_OPTIONS: &str = "JAVA_TOOL_OPTIONS";
const NAMES: [&str; 2] = ["-agentlib:jdwp=", "-Xrunjdwp:"];

/// What the options say of the debug agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Jdwp {
    /// It listens on this port.
    Port(u16),
    /// It listens on one that it chose itself.
    Any,
}

/// From the arguments of the process and from its variables.
pub(crate) fn jdwp(arguments: &[Vec<u8>], variables: &[Vec<u8>]) -> Option<Jdwp> {
    let in_variables = VARIABLES.iter().filter_map(|name| variable(variables, name)).collect::<Vec<_>>().join(" ");
    let arguments: Vec<String> = arguments.iter().skip(1).map(|argument| String::from_utf8_lossy(argument).into_owned()).collect();
    // What follows the class or the archive is the program's.
    let options = arguments.iter().map(String::as_str).take_while(|argument| *argument != "-jar");
    let all = in_variables.split_ascii_whitespace().chain(options);
    all.filter_map(|option| NAMES.iter().find_map(|name| option.strip_prefix(name))).filter_map(listening).last()
}

/// The value of a variable.
pub(crate) fn variable(variables: &[Vec<u8>], name: &str) -> Option<String> {
    let values = variables.iter().filter_map(|variable| variable.strip_prefix(name.as_bytes())?.strip_prefix(b"="));
    values.map(|value| String::from_utf8_lossy(value).into_owned()).next()
}

/// Of `transport=dt_socket,server=y,suspend=n,address=*:5005`.
fn listening(options: &str) -> Option<Jdwp> {
    let value =
        |name: &str| options.split(',').find_map(|option| option.split_once('=').filter(|(key, _)| *key == name).map(|(_, value)| value));
    if value("server") != Some("y") {
        return None;
    }
    let port = value("address").and_then(|address| address.rsplit(':').next()?.parse().ok()).unwrap_or(0);
    Some(if port == 0 { Jdwp::Any } else { Jdwp::Port(port) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(arguments: &str, variables: &[&str]) -> Option<Jdwp> {
        let bytes = |text: &str| text.as_bytes().to_vec();
        let arguments: Vec<Vec<u8>> = arguments.split(' ').map(bytes).collect();
        let variables: Vec<Vec<u8>> = variables.iter().map(|text| bytes(text)).collect();
        jdwp(&arguments, &variables)
    }

    #[test]
    fn it_is_found_in_arguments_and_variables() {
        let agent = "-agentlib:jdwp=transport=dt_socket,server=y,suspend=n,address";
        assert_eq!(of(&format!("java {agent}=*:5005 -jar app.jar"), &[]), Some(Jdwp::Port(5005)));
        assert_eq!(of(&format!("java {agent}=8000 Main"), &[]), Some(Jdwp::Port(8000)));
        assert_eq!(of("java -Xrunjdwp:server=y,transport=dt_socket Main", &[]), Some(Jdwp::Any));
        let variable = format!("JAVA_TOOL_OPTIONS=-Xmx64m {agent}=127.0.0.1:5006");
        assert_eq!(of("java -jar app.jar", &["PATH=/bin", &variable]), Some(Jdwp::Port(5006)));
        assert_eq!(of("java -jar app.jar -agentlib:jdwp=server=y,address=1", &["OTHER=-agentlib:jdwp=server=y,address=2"]), None);
        assert_eq!(of("java -agentlib:jdwp=transport=dt_socket,server=n,address=ide:5005 Main", &[]), None);
    }
}

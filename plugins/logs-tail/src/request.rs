//! What is asked for, once the arguments are checked.

use crate::args::Args;
use crate::args::choose::ChooseArgs;
use crate::args::range::RangeArgs;
use crate::query::Query;
use crate::setup::{Setup, size};
use devloop_core::args::ClusterArgs;
use devloop_core::error::ErrorHint;
use devloop_core::logs::{CONNECTIONS, Choice, Condition, LogOptions, Since};
use devloop_core::{CommandError, Result};
use jiff::{SignedDuration, Timestamp};
use regex::Regex;
use std::time::Duration;

/// How far ahead a cluster's clock may be.
const CLOCKS_APART: SignedDuration = SignedDuration::from_mins(5);

/// A valid request.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) queries: Vec<Query>,
    pub(crate) places: Places,
    pub(crate) options: LogOptions,
    pub(crate) follow: bool,
    /// Lines come from standard input, not from a cluster.
    pub(crate) reads_stdin: bool,
    /// What comes is looked through on the whole screen.
    pub(crate) has_screen: bool,
    /// The user is asked which pods.
    pub(crate) asks: bool,
    pub(crate) setup: Setup,
}

/// Where pods are looked for.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    /// One for each context.
    pub(crate) clusters: Vec<ClusterArgs>,
    /// None for the context's own.
    pub(crate) namespaces: Option<Vec<String>>,
    pub(crate) all_namespaces: bool,
    pub(crate) labels: Option<String>,
    pub(crate) fields: Option<String>,
}

impl Request {
    /// `template` is what the template's file holds, `colors` whether stdout
    /// shows colours, `now` what durations are counted from.
    pub(crate) fn new(args: Args, template: Option<&str>, colors: bool, now: Timestamp) -> Result<Self> {
        let choose = args.choose;
        let is_narrowed = choose.selector.is_some();
        let mut queries: Vec<Query> = Vec::new();
        for text in &choose.targets {
            let query = Query::parse(text, is_narrowed)?;
            if queries.iter().all(|known| known.describe() != query.describe()) {
                queries.push(query);
            }
        }
        if choose.all_namespaces && args.cluster.namespace.is_some() {
            return Err(CommandError::usage("--all-namespaces and --namespace exclude each other"));
        }
        let asks = choose.prompt;
        let setup = Setup::new(&args.lines, &args.output, template, colors)?;
        let range = &args.range;
        let mut options = options(range, now)?;
        options.choice = choice(&choose)?;
        options.via = args.via.via;
        options.filter = setup.early.clone();
        // What is over needs no waiting for.
        let is_over = options.until.is_some_and(|until| until <= now);
        Ok(Self {
            queries,
            places: places(choose, args.cluster),
            options,
            follow: !(range.no_follow || range.previous || is_over),
            reads_stdin: args.lines.stdin,
            has_screen: args.output.ui,
            asks,
            setup,
        })
    }
}

fn places(choose: ChooseArgs, cluster: ClusterArgs) -> Places {
    let list = |text: &str| text.split(',').filter(|part| !part.is_empty()).map(str::to_owned).collect::<Vec<_>>();
    let clusters = match cluster.context.as_deref().map(list) {
        Some(contexts) if contexts.len() > 1 => {
            contexts.into_iter().map(|context| ClusterArgs { context: Some(context), ..cluster.clone() }).collect()
        }
        _ => vec![cluster.clone()],
    };
    let node = choose.node.map(|node| format!("spec.nodeName={node}"));
    let fields: Vec<String> = choose.field_selector.into_iter().chain(node).collect();
    Places {
        clusters,
        namespaces: cluster.namespace.as_deref().map(list).filter(|namespaces| !namespaces.is_empty()),
        all_namespaces: choose.all_namespaces,
        labels: choose.selector,
        fields: (!fields.is_empty()).then(|| fields.join(",")),
    }
}

fn options(range: &RangeArgs, now: Timestamp) -> Result<LogOptions> {
    let since = match (&range.since, &range.since_time) {
        (Some(text), _) => Some(Since::Ago(parse_since(text)?)),
        (None, Some(text)) => Some(Since::At(parse_time("--since-time", text)?)),
        (None, None) => None,
    };
    let until = range.until.as_deref().map(|text| parse_until(text, now)).transpose()?;
    let begin = since.map(|since| match since {
        Since::Ago(duration) => now.checked_sub(duration).unwrap_or(Timestamp::MIN),
        Since::At(time) => time,
    });
    if let (Some(begin), Some(until)) = (begin, until)
        && begin > until
    {
        return Err(CommandError::usage(format!("no line is after {begin} and before {until}")))
            .hint("--until is to be later than --since or --since-time");
    }
    if begin.is_some_and(|begin| begin.duration_since(now) > CLOCKS_APART) {
        return Err(CommandError::usage("no line is from the future")).hint("--since-time is to be in the past; what comes is read anyway");
    }
    let window = if range.unordered { None } else { Some(parse_window(&range.window)?) };
    if range.max_log_requests == 0 {
        return Err(CommandError::usage("--max-log-requests 0 would read nothing"));
    }
    Ok(LogOptions {
        since,
        until,
        // -1 is all of it, as for kubectl and stern.
        tail: range.tail.and_then(|lines| u32::try_from(lines).ok()),
        head: range.head,
        all: range.all,
        previous: range.previous,
        events: range.events,
        window,
        connections: usize::try_from(range.max_log_requests).unwrap_or(CONNECTIONS),
        held_limit: size("--spill", &range.spill)?,
        ..LogOptions::default()
    })
}

fn choice(choose: &ChooseArgs) -> Result<Choice> {
    let states: Vec<_> = choose.container_state.iter().map(|state| state.state()).collect();
    Ok(Choice {
        pods: Vec::new(),
        exclude_pods: regexes("--exclude-pod", &choose.exclude_pod)?,
        containers: regexes("--container", &choose.container)?,
        exclude_containers: regexes("--exclude-container", &choose.exclude_container)?,
        without_init: !choose.init_containers,
        without_ephemeral: !choose.ephemeral_containers,
        // One that fits all is as good as no wish.
        states: states.into_iter().collect::<Option<Vec<_>>>().unwrap_or_default(),
        condition: choose.pod_condition.as_deref().map(parse_condition).transpose()?,
    })
}

fn regexes(flag: &str, patterns: &[String]) -> Result<Vec<Regex>> {
    patterns.iter().map(|pattern| Regex::new(pattern).map_err(|error| CommandError::usage(format!("{flag}: {error}")))).collect()
}

fn parse_condition(text: &str) -> Result<Condition> {
    let (name, value) = text.split_once('=').unwrap_or((text, "true"));
    let is_true = match value {
        "true" => Some(true),
        "false" => Some(false),
        _ => None,
    };
    match is_true {
        Some(is_true) if !name.is_empty() => Ok(Condition { name: name.to_owned(), is_true }),
        _ => Err(CommandError::usage(format!("--condition {text:?} is no condition"))).hint("write it like ready or ready=false"),
    }
}

fn parse_since(text: &str) -> Result<SignedDuration> {
    let wrong = || CommandError::usage(format!("--since {text:?} is not a duration"));
    let duration = text.parse::<SignedDuration>().map_err(|error| wrong().caused_by(error)).hint("write it like 30s, 5m or 1h30m")?;
    if duration < SignedDuration::from_secs(1) {
        return Err(CommandError::usage(format!("--since {text:?} is less than a second"))).hint("the API counts whole seconds");
    }
    Ok(duration)
}

fn parse_time(flag: &str, text: &str) -> Result<Timestamp> {
    text.parse::<Timestamp>()
        .map_err(|error| CommandError::usage(format!("{flag} {text:?} is not a time")).caused_by(error))
        .hint("write it like 2026-01-02T03:04:05Z")
}

fn parse_until(text: &str, now: Timestamp) -> Result<Timestamp> {
    match text.parse::<SignedDuration>() {
        Ok(ago) => now.checked_sub(ago).map_err(|error| CommandError::usage(format!("--until {text:?} is too long ago")).caused_by(error)),
        Err(_) => parse_time("--until", text).hint("or like 5m, for five minutes ago"),
    }
}

fn parse_window(text: &str) -> Result<Duration> {
    let duration = text.parse::<SignedDuration>().ok().and_then(|duration| Duration::try_from(duration).ok());
    duration.ok_or_else(|| CommandError::usage(format!("--window {text:?} is not a duration")).with_hint("write it like 150ms or 1s"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use devloop_core::logs::ContainerState;

    fn request(arguments: &str) -> Result<Request> {
        let args = Args::try_parse_from(std::iter::once("kubectl-logs_tail").chain(arguments.split(' '))).unwrap();
        Request::new(args, None, false, "2026-01-02T00:00:00Z".parse().unwrap())
    }

    #[test]
    fn arguments_become_a_request() {
        let request = request("web sts/db web --since 1h30m --tail 5 -c app -c proxy -t -o json -n a,b --context x,y --node n --field-selector status.phase=Running").unwrap();
        assert_eq!(request.queries.iter().map(Query::describe).collect::<Vec<_>>(), ["\"web\"", "statefulset/db"]);
        assert_eq!(request.options.since, Some(Since::Ago(SignedDuration::from_mins(90))));
        assert_eq!(request.options.choice.containers.len(), 2);
        assert_eq!(request.places.clusters.iter().map(|cluster| cluster.context.clone().unwrap()).collect::<Vec<_>>(), ["x", "y"]);
        assert_eq!(request.places.namespaces.unwrap(), ["a", "b"]);
        assert_eq!(request.places.fields.unwrap(), "status.phase=Running,spec.nodeName=n");
        assert!(request.follow && !request.reads_stdin);
        assert_eq!(request.options.window, Some(Duration::from_millis(150)));
    }

    #[test]
    fn a_range_can_end_and_what_is_over_is_not_followed() {
        let before = request("web --since-time 2026-01-01T00:00:00Z --until 5m --unordered").unwrap();
        assert!(!before.follow && before.options.window.is_none());
        assert_eq!(before.options.until.unwrap().to_string(), "2026-01-01T23:55:00Z");
        assert!(request("web --until 2026-01-02T00:00:01Z").unwrap().follow);
        assert!(!request("web --previous").unwrap().follow);
        let states = |text: &str| request(&format!("web --container-state {text}")).unwrap().options.choice.states;
        assert_eq!(states("running,waiting"), [ContainerState::Running, ContainerState::Waiting]);
        assert!(states("running,all").is_empty());
        let choice = request("-A --init-containers=false --condition ready=false").unwrap().options.choice;
        assert!(choice.without_init && !choice.without_ephemeral && choice.condition.is_some_and(|condition| !condition.is_true));
    }

    #[test]
    fn what_cannot_be_meant_is_a_usage_error() {
        let wrong = [
            "web --since soon",
            "web --since 0s",
            "web --since=-5m",
            "web --since-time yesterday",
            "web --since-time 2026-01-03T00:00:00Z",
            "web --until never",
            "web --since 1m --until 5m",
            "web --window soon",
            "web --max-log-requests 0",
            "web --spill much",
            "web --condition ready=maybe",
            "web -c (",
            "web -A -n a",
            "deploy/web -l app=web",
            "a/b/c",
        ];
        for arguments in wrong {
            assert_eq!(request(arguments).unwrap_err().status().code(), 2, "{arguments}");
        }
        for arguments in [vec!["x"], vec!["x", "web", "--tail", "-2"], vec!["x", "web", "--head", "1", "--tail", "1"]] {
            assert!(Args::try_parse_from(&arguments).is_err(), "{arguments:?}");
        }
    }
}

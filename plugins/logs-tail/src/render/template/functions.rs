//! The functions of templates, under stern's names and with its results. Pure.

use super::layout::go_layout;
use crate::lines::level::Level;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::Value;

/// All of them.
pub(super) const NAMES: [&str; 23] = [
    "json",
    "color",
    "parseJSON",
    "tryParseJSON",
    "extractJSONParts",
    "tryExtractJSONParts",
    "extjson",
    "prettyJSON",
    "toRFC3339Nano",
    "toUTC",
    "toTimestamp",
    "levelColor",
    "bunyanLevelColor",
    "colorBlack",
    "colorRed",
    "colorGreen",
    "colorYellow",
    "colorBlue",
    "colorMagenta",
    "colorCyan",
    "colorWhite",
    "colorCustom",
    "msg",
];

/// Calls one of [`NAMES`].
///
/// # Errors
/// When it can't do with the values: says why.
pub(super) fn call(name: &str, arguments: &[Value], colors: bool) -> Result<Value, String> {
    let argument = |index: usize| arguments.get(index).ok_or_else(|| format!("{name} takes more values"));
    let string = |index: usize| match argument(index)? {
        Value::String(text) => Ok(text.clone()),
        other => Err(format!("{name} takes a string, not {other}")),
    };
    Ok(match name {
        "json" => argument(0)?.to_string().into(),
        "color" => sgr(&string(0)?, &text(argument(1)?), colors),
        "colorCustom" => {
            let codes: Vec<String> = arguments.iter().skip(1).map(text).collect();
            sgr(&codes.join(";"), &text(argument(0)?), colors)
        }
        "parseJSON" => parse_object(&string(0)?)?,
        "tryParseJSON" => parse_object(&string(0)?).unwrap_or(Value::Null),
        "extractJSONParts" => parts(&parse_object(&string(0)?)?, &arguments[1..]),
        "tryExtractJSONParts" => match parse_object(&string(0)?) {
            Ok(object) => parts(&object, &arguments[1..]),
            Err(_) => string(0)?.into(),
        },
        "extjson" => super::super::json::message(string(0)?.as_bytes()).into(),
        "prettyJSON" => {
            let object = match argument(0)? {
                Value::String(text) => parse_object(text).ok(),
                other => Some(other.clone()),
            };
            match object {
                Some(object) => serde_json::to_string_pretty(&object).map_err(|error| error.to_string())?.into(),
                None => argument(0)?.clone(),
            }
        }
        "toRFC3339Nano" | "toUTC" => rfc3339(time(argument(0)?)?).into(),
        "toTimestamp" => {
            let zone = match arguments.get(2) {
                Some(zone) if !["", "UTC"].contains(&text(zone).as_str()) => {
                    TimeZone::get(&text(zone)).map_err(|error| error.to_string())?
                }
                _ => TimeZone::UTC,
            };
            go_layout(&string(1)?, &time(argument(0)?)?.to_zoned(zone)).into()
        }
        "levelColor" => {
            let Value::String(level) = argument(0)? else { return Ok("".into()) };
            match Level::parse(level.as_bytes()) {
                Some(known) if !level.as_bytes()[0].is_ascii_digit() => sgr(known.sgr(), level, colors),
                _ => level.clone().into(),
            }
        }
        "bunyanLevelColor" => match argument(0)?.as_f64() {
            Some(number) => {
                let shown = text(argument(0)?);
                // Below 30 is debug in stern.
                match Level::from_number((number as u32).max(20)) {
                    Some(level) => sgr(level.sgr(), &shown, colors),
                    None => shown.into(),
                }
            }
            None => "".into(),
        },
        "msg" => {
            let object = match argument(0)? {
                Value::String(text) => parse_object(text).unwrap_or(Value::Null),
                other => other.clone(),
            };
            ["msg", "message", "M", "@message"].iter().find_map(|key| object.get(key)).cloned().unwrap_or_else(|| arguments[0].clone())
        }
        _ => {
            let names = ["Black", "Red", "Green", "Yellow", "Blue", "Magenta", "Cyan", "White"];
            let color = name.strip_prefix("color").and_then(|name| names.iter().position(|known| *known == name));
            match color {
                Some(index) => sgr(&(30 + index).to_string(), &text(argument(0)?), colors),
                None => return Err(format!("no function {name:?}")),
            }
        }
    })
}

/// A value as Go prints it.
pub(super) fn text(value: &Value) -> String {
    match value {
        Value::Null => "<no value>".into(),
        Value::String(text) => text.clone(),
        Value::Array(values) => format!("[{}]", values.iter().map(text).collect::<Vec<_>>().join(" ")),
        Value::Object(map) => {
            let pairs: Vec<String> = map.iter().map(|(key, value)| format!("{key}:{}", text(value))).collect();
            format!("map[{}]", pairs.join(" "))
        }
        other => other.to_string(),
    }
}

fn sgr(codes: &str, text: &str, colors: bool) -> Value {
    if colors && !codes.is_empty() && codes.bytes().all(|byte| byte.is_ascii_digit() || byte == b';') {
        format!("\u{1b}[{codes}m{text}\u{1b}[0m").into()
    } else {
        text.into()
    }
}

fn parse_object(text: &str) -> Result<Value, String> {
    match serde_json::from_str(text) {
        Ok(object @ Value::Object(_)) => Ok(object),
        Ok(_) => Err("the message is JSON, but no object".into()),
        Err(error) => Err(format!("the message is no JSON: {error}")),
    }
}

fn parts(object: &Value, keys: &[Value]) -> Value {
    let parts: Vec<String> = keys.iter().map(|key| object.get(text(key)).map_or_else(|| "<nil>".into(), text)).collect();
    parts.join(", ").into()
}

fn rfc3339(timestamp: Timestamp) -> String {
    timestamp.to_string()
}

/// Text in RFC 3339, or seconds since 1970: also in milli-, micro- and nanoseconds.
fn time(value: &Value) -> Result<Timestamp, String> {
    let wrong = || format!("{value} is no time");
    let text = match value {
        Value::String(text) => match text.parse::<Timestamp>() {
            Ok(timestamp) => return Ok(timestamp),
            Err(_) => text.clone(),
        },
        Value::Number(number) => number.to_string(),
        _ => return Err(wrong()),
    };
    // As text, because a float holds no nanoseconds of today.
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
    let whole: i128 = whole.parse().map_err(|_| wrong())?;
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(wrong());
    }
    let unit = match whole.unsigned_abs() {
        0..100_000_000_000 => 1_000_000_000,
        100_000_000_000..100_000_000_000_000 => 1_000_000,
        100_000_000_000_000..100_000_000_000_000_000 => 1_000,
        _ => 1,
    };
    let part = format!("{fraction:0<9.9}").parse::<i128>().unwrap_or_default() * unit / 1_000_000_000;
    let nanoseconds = whole.checked_mul(unit).ok_or_else(wrong)? + if whole < 0 { -part } else { part };
    Timestamp::from_nanosecond(nanoseconds).map_err(|_| wrong())
}

//! Values of a Go program in a line, as Go writes them. Pure.

use serde_json::Value;

/// Where pointers and structs lead deeper than was asked for.
const MORE: &str = "…";

/// A variable of Delve's (`service/api.Variable`, whose kinds are those of Go's
/// `reflect.Kind`).
pub(super) fn text(variable: &Value) -> String {
    if let Some(reason) = variable["unreadable"].as_str().filter(|reason| !reason.is_empty()) {
        // An empty description of the place: the compiler did not keep it.
        return if reason.contains("empty OP stack") { "(optimized out)".to_owned() } else { format!("({reason})") };
    }
    let value = variable["value"].as_str().unwrap_or_default();
    let children = variable["children"].as_array().map(Vec::as_slice).unwrap_or_default();
    let length = usize::try_from(variable["len"].as_u64().unwrap_or_default()).unwrap_or(usize::MAX);
    let is_nil = variable["base"].as_u64() == Some(0);
    let type_name = short(variable["type"].as_str().unwrap_or_default());
    let list = |items: Vec<String>, whole: usize| {
        let cut = (items.len() < whole).then(|| MORE.to_owned());
        items.into_iter().chain(cut).collect::<Vec<_>>().join(", ")
    };
    match variable["kind"].as_u64().unwrap_or_default() {
        // Array, slice.
        17 | 23 if is_nil && length == 0 => "nil".to_owned(),
        17 | 23 => format!("{type_name}[{}]", list(children.iter().map(text).collect(), length)),
        // Channel, unsafe pointer.
        18 | 26 => type_name.to_owned(),
        // Function.
        19 => if value.is_empty() { "nil" } else { value }.to_owned(),
        // Interface.
        20 => children.first().map_or_else(|| "nil".to_owned(), text),
        // Map.
        21 => {
            let pairs = children.chunks(2).map(|pair| format!("{}: {}", text(&pair[0]), pair.get(1).map(text).unwrap_or_default()));
            format!("{type_name}{{{}}}", list(pairs.collect(), length))
        }
        // Pointer.
        22 => match children.first() {
            Some(child) if child["addr"].as_u64() == Some(0) => "nil".to_owned(),
            Some(child) if child["onlyAddr"] == true => format!("&{}{{{MORE}}}", short(child["type"].as_str().unwrap_or_default())),
            Some(child) => format!("&{}", text(child)),
            None => "nil".to_owned(),
        },
        // String.
        24 => {
            let cut = if value.len() < length { MORE } else { "" };
            format!("{value:?}{cut}")
        }
        // Struct.
        25 => {
            let fields = children.iter().map(|field| format!("{}: {}", field["name"].as_str().unwrap_or_default(), text(field)));
            format!("{type_name}{{{}}}", list(fields.collect(), length))
        }
        // An invalid one is an interface's that holds nothing.
        0 if value.is_empty() => "nil".to_owned(),
        _ => value.to_owned(),
    }
}

/// `net/http.Request` is `http.Request` to whoever reads Go.
fn short(type_name: &str) -> &str {
    let prefix = type_name.find(['[', '{', '(', '*', ' ']).unwrap_or(type_name.len());
    type_name[..prefix].rfind('/').map_or(type_name, |slash| &type_name[slash + 1..])
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn int(value: &str) -> Value {
        json!({"kind": 2, "value": value})
    }

    #[test]
    fn values_are_written_as_in_go() {
        let string = json!({"kind": 24, "value": "a\"b", "len": 3});
        let order = json!({"kind": 25, "type": "example.com/shop/cart.Order", "len": 3, "children": [
            {"name": "id", "kind": 2, "value": "7"},
            {"name": "name", "kind": 24, "value": "tea", "len": 9},
        ]});
        let cases = [
            (int("-3"), "-3"),
            (json!({"kind": 1, "value": "true"}), "true"),
            (string.clone(), r#""a\"b""#),
            (order.clone(), r#"cart.Order{id: 7, name: "tea"…, …}"#),
            (json!({"kind": 22, "children": [order]}), r#"&cart.Order{id: 7, name: "tea"…, …}"#),
            (json!({"kind": 22, "children": [{"addr": 0}]}), "nil"),
            (json!({"kind": 22, "children": [{"addr": 9, "onlyAddr": true, "type": "net/http.Request"}]}), "&http.Request{…}"),
            (json!({"kind": 23, "type": "[]int", "len": 3, "base": 9, "children": [int("1"), int("2")]}), "[]int[1, 2, …]"),
            (json!({"kind": 23, "type": "[]int", "len": 0, "base": 0, "children": []}), "nil"),
            (json!({"kind": 21, "type": "map[string]int", "len": 1, "children": [string, int("1")]}), r#"map[string]int{"a\"b": 1}"#),
            (json!({"kind": 20, "children": [{"kind": 0, "value": ""}]}), "nil"),
            (json!({"kind": 19, "value": "main.run"}), "main.run"),
            (json!({"kind": 2, "unreadable": "(empty OP stack)"}), "(optimized out)"),
            (json!({"kind": 2, "unreadable": "could not read"}), "(could not read)"),
            (json!({}), "nil"),
        ];
        for (variable, wanted) in cases {
            assert_eq!(text(&variable), wanted, "{variable}");
        }
        assert_eq!(short("map[string]net/http.Header"), "map[string]net/http.Header");
    }
}

//! Which request gets which answer.

use std::process;

use serde_json::json;

use crate::{catalog, files, greeting::GREETING, reply::Reply, settings::Settings};

/// Answers one request; `path` is as it came, without the query.
pub(crate) fn answer(settings: &Settings, method: &str, path: &str) -> Reply {
    if !matches!(method, "GET" | "HEAD") {
        return Reply::problem(405, "only GET and HEAD are served");
    }
    match path {
        // Nothing to wait for once the configuration is read: alive is ready.
        "/healthz" | "/readyz" => Reply::text(200, "ok\n"),
        "/api/version" => Reply::json(200, &json!({"message": GREETING, "version": env!("CARGO_PKG_VERSION"), "pid": process::id()})),
        "/api/items" => Reply::json(200, &catalog::listing(&settings.config)),
        _ => static_file(settings, path),
    }
}

fn static_file(settings: &Settings, path: &str) -> Reply {
    match files::read(&settings.static_root, path) {
        Ok(Some(file)) => Reply::new(200, file.content_type, file.bytes),
        Ok(None) => Reply::problem(404, "not found"),
        Err(error) => Reply { error: Some(error.to_string()), ..Reply::problem(500, "cannot read the file") },
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_json::Value;

    use super::*;
    use crate::config::Config;

    fn settings(root: &tempfile::TempDir) -> Settings {
        Settings {
            listen: String::new(),
            static_root: root.path().to_owned(),
            config: Config { currency: "CHF".to_owned(), banner: "Sale".to_owned() },
        }
    }

    fn body(reply: &Reply) -> Value {
        serde_json::from_slice(&reply.body).unwrap()
    }

    #[test]
    fn the_api_shows_the_greeting_and_the_configuration() {
        let root = tempfile::tempdir().unwrap();
        let settings = settings(&root);
        let version = body(&answer(&settings, "GET", "/api/version"));
        assert_eq!(version["message"], GREETING);
        assert_eq!(version["pid"], process::id());
        let items = body(&answer(&settings, "GET", "/api/items"));
        assert_eq!((&items["currency"], &items["banner"]), (&json!("CHF"), &json!("Sale")));
        assert_eq!(items["items"][0], json!({"id": 1, "name": "Notebook", "price_cents": 450}));
    }

    #[test]
    fn a_static_file_is_read_anew_for_each_request() {
        let root = tempfile::tempdir().unwrap();
        let settings = settings(&root);
        assert_eq!(answer(&settings, "GET", "/").status, 404);
        for text in ["one", "two"] {
            fs::write(root.path().join("index.html"), text).unwrap();
            assert_eq!(answer(&settings, "GET", "/"), Reply::new(200, "text/html; charset=utf-8", text));
        }
    }

    #[test]
    fn only_reading_is_served() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(answer(&settings(&root), "DELETE", "/api/items").status, 405);
        assert_eq!(answer(&settings(&root), "HEAD", "/healthz").status, 200);
    }
}

//! Whole projects, with what is decided about them and why.

use super::*;

fn running(mut remote: Remote, executable: &str, argv: &str, cwd: &str) -> Remote {
    let argv: Vec<String> = argv.split('|').map(str::to_owned).collect();
    remote.process = Some(RemoteProcess { executable: executable.into(), main_argv: argv.clone(), argv, cwd: cwd.into() });
    remote
}

/// The devloop.yaml, or the error as it is printed.
fn worked_out(local: &Local, remote: &Remote) -> String {
    match detect(local, remote) {
        Ok(detected) => {
            let text = render_yaml(&detected);
            assert_eq!(crate::project::parse_text(&text).unwrap(), [detected.service], "{text}");
            text
        }
        Err(error) => crate::ui::render_error(&error.into()),
    }
}

const RUST: &str = r#"FROM rust:1.90 AS builder
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/src/target cargo build --release --bin shop && cp target/release/shop /shop

FROM scratch
COPY --from=builder /shop /app/shop
COPY static /srv/static
USER 65532
ENTRYPOINT ["/app/shop"]
"#;

const GO: &str = r#"FROM golang:1.25 AS build
WORKDIR /src
COPY go.mod ./
RUN go mod download
COPY . .
ARG TARGETOS TARGETARCH
RUN CGO_ENABLED=0 GOOS=$TARGETOS go build -tags netgo -ldflags '-s -w' -o /out/ ./cmd/...
FROM gcr.io/distroless/static
COPY --from=build /out/web /web
COPY --from=build /out/worker /worker
COPY --from=build /src/templates /templates
COPY --from=build /src/generated /generated
ENTRYPOINT ["/web"]
"#;

#[test]
fn a_rust_service_by_its_dockerfile() {
    let files = [("Dockerfile", RUST), ("Cargo.toml", ""), ("src/main.rs", ""), ("static/index.html", "")];
    let local = Local::of(&files).with_cargo("shop-server", "shop");
    insta::assert_snapshot!(worked_out(&local, &Remote::of("me/shop:1", "deploy/shop")));
}

#[test]
fn a_go_service_by_its_dockerfile() {
    let files = [("Dockerfile", GO), ("go.mod", ""), ("cmd/web/main.go", ""), ("cmd/worker/main.go", ""), ("templates/a.html", "")];
    let local = Local::of(&files).with_go("example.com/shop", "cmd/web").with_go("example.com/shop", "cmd/worker");
    let remote = Remote::of("shop", "deploy/shop");
    let both = [
        worked_out(&local, &running(remote.clone(), "/web", "/web", "/")),
        worked_out(&local, &running(remote, "/worker", "/worker", "/")),
    ];
    insta::assert_snapshot!(both.join("\n"));
}

#[test]
fn a_program_that_is_built_in_the_image_itself() {
    let text = "FROM golang:1.25\nWORKDIR /src\nCOPY . .\nRUN go build -o bin/web .\nCMD [\"/src/bin/web\"]\n";
    let local = Local::of(&[("Dockerfile", text), ("go.mod", ""), ("main.go", "")]).with_go("example.com/web", "");
    insta::assert_snapshot!(worked_out(&local, &Remote::of("web", "deploy/web")));
}

#[test]
fn a_python_service_by_its_dockerfile() {
    let text = "FROM python:3.12-slim\nWORKDIR /app\nCOPY requirements.txt .\nRUN pip install -r requirements.txt\nCOPY . .\n\
        CMD gunicorn -b 0.0.0.0:8000 shop.web:app\n";
    let local = Local::of(&[("Dockerfile", text), ("requirements.txt", ""), ("shop/web.py", ""), ("shop/templates/a.html", "")]);
    let argv = "python3.12|/usr/local/bin/gunicorn|-b|0.0.0.0:8000|shop.web:app";
    let remote = running(Remote::of("shop", "sts/shop"), "/usr/local/bin/python3.12", argv, "/app");
    insta::assert_snapshot!(worked_out(&local, &remote));
}

#[test]
fn a_script_and_a_server_of_pages_by_their_dockerfiles() {
    let shell = "FROM alpine\nCOPY --chmod=755 bin/serve /usr/local/bin/\nENTRYPOINT [\"/bin/sh\", \"/usr/local/bin/serve\"]\n";
    let script = Local::of(&[("Dockerfile", shell), ("bin/serve", "")]);
    let nginx =
        "FROM nginx:1.27\nCOPY nginx.conf /etc/nginx/nginx.conf\nCOPY conf/*.conf /etc/nginx/conf.d/\nCOPY html /usr/share/nginx/html\n";
    let pages = Local::of(&[("Dockerfile", nginx), ("nginx.conf", ""), ("conf/a.conf", ""), ("html/index.html", "")]);
    let both = [
        worked_out(&script, &Remote::of("script", "pod/script")),
        worked_out(&pages, &running(Remote::of("pages", "deploy/pages"), "/usr/sbin/nginx", "nginx: master process nginx", "/")),
    ];
    insta::assert_snapshot!(both.join("\n"));
}

#[test]
fn without_a_dockerfile_the_process_tells() {
    let python = Local::of(&[("src/shop/web.py", ""), ("src/shop/__init__.py", ""), ("tests/web.py", "")]);
    let node = Local::of(&[("package.json", r#"{"scripts": {"start": "NODE_ENV=dev node server.js"}}"#), ("server.js", "")]);
    let rust = Local::of(&[("Cargo.toml", "")]).with_cargo("shop", "shop").with_cargo("tools", "lint");
    let script = Local::of(&[("deploy/entrypoint.sh", "")]);
    let pages = Local::of(&[("public/index.html", ""), ("public/docs/index.html", ""), ("default.conf", "server { root /srv/www; }")]);
    let shop = |executable: &str, argv: &str, cwd: &str| running(Remote::of("shop", "deploy/shop"), executable, argv, cwd);
    let all = [
        worked_out(&python, &shop("/usr/bin/python3.11", "python3|-m|uvicorn|shop.web:app", "/code/src")),
        worked_out(&node, &shop("/usr/local/bin/node", "npm start", "/usr/src/app")),
        worked_out(&rust, &shop("/app/shop", "/app/shop|-v", "/")),
        worked_out(&script, &shop("/bin/busybox", "sh|/entrypoint.sh", "/")),
        worked_out(&pages, &shop("/usr/sbin/nginx", "nginx: master process", "/")),
    ];
    insta::assert_snapshot!(all.join("\n"));
}

#[test]
fn what_can_not_be_told_is_said_with_the_choices() {
    let image = Remote::of("me/shop:1", "deploy/shop");
    let dockerfiles = Local::of(&[("a/Dockerfile", ""), ("b/Dockerfile", "")]);
    let broken = Local::of(&[("Dockerfile", "FROM a\nCOPPY b c\n")]);
    let mut twice = Local::of(&[("Cargo.toml", "")]).with_cargo("shop", "shop").with_cargo("shop-old", "shop");
    let apps = Local::of(&[("one/app.py", ""), ("two/app.py", "")]);
    let python = running(image.clone(), "/usr/bin/python3", "python|app.py", "/app");
    let native = running(image.clone(), "/shop", "/shop", "/");
    let mut all =
        vec![worked_out(&dockerfiles, &image), worked_out(&broken, &image), worked_out(&twice, &native), worked_out(&apps, &python)];
    twice.cargo.clear();
    twice.unseen.push("x/Cargo.toml: expected a value".to_owned());
    all.push(worked_out(&twice, &native));
    all.push(worked_out(&Local::of(&[]), &image));
    insta::assert_snapshot!(all.join("\n"));
    // Where the command is run decides.
    let mut here = apps;
    here.start = "two".into();
    assert_eq!(detect(&here, &python).unwrap().service.sync[0].from, PathBuf::from("two"));
}

/// The examples have a devloop.yaml each; this is what is worked out without it.
#[tokio::test]
async fn the_examples_are_worked_out() {
    let examples = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../devenv/examples");
    let processes = [
        ("go-web", "/app/web", "/app/web", "/"),
        ("node-web", "/usr/local/bin/node", "node|src/server.js", "/app"),
        ("python-web", "/usr/local/bin/python3.13", "python3|/app/src/app.py", "/"),
        ("shell-loop", "/bin/busybox", "/bin/sh|/app/serve.sh", "/"),
        ("shop", "/app/shop", "/app/shop", "/"),
        ("static-site", "/usr/sbin/nginx", "nginx: master process nginx -g daemon off;", "/"),
    ];
    for (name, executable, argv, cwd) in processes {
        let local = look(&examples.join(name)).await.unwrap();
        assert_eq!(local.unseen, [""; 0], "{name}");
        let remote = running(Remote::of(name, &format!("deploy/{name}")), executable, argv, cwd);
        insta::assert_snapshot!(name, worked_out(&local, &remote));
        // Before anything is known of the process, the image has to do.
        if name != "shop" {
            assert!(detect(&local, &Remote::of(name, "deploy/x")).is_ok(), "{name}");
        }
    }
}

use super::*;
use proptest::prelude::*;

fn shown(text: &str) -> String {
    match parse(text) {
        Err(mistake) => mistake.to_string(),
        Ok(stages) => stages.iter().map(show_stage).collect::<Vec<_>>().join("\n"),
    }
}

fn show_stage(stage: &Stage) -> String {
    let mut text = format!("FROM {:?} as {:?}, runs {:?} {:?}\n", stage.base, stage.name, stage.entrypoint, stage.cmd);
    for step in &stage.steps {
        let action = match &step.action {
            Action::Workdir(path) => format!("workdir {path}"),
            Action::Run { script, workdir } => format!("run in {workdir}: {}", script.replace('\n', " // ")),
            Action::Unclear { text, why } => format!("unclear {text}: {why}"),
            Action::Copy(copy) => format!(
                "copy {:?} {:?} -> {}{}{}{} {:?} {}",
                copy.from,
                copy.sources,
                copy.to,
                if copy.into_folder { "/" } else { "" },
                if copy.unpacks { " unpacks" } else { "" },
                if copy.keeps_parents { " parents" } else { "" },
                copy.exclude,
                copy.assumes.as_deref().unwrap_or_default()
            ),
        };
        text.push_str(&format!("  {} {action}\n", step.line));
    }
    text
}

#[test]
fn stages_and_copies_are_read() {
    insta::assert_snapshot!(shown(
        r#"# syntax=docker/dockerfile:1
ARG GO=1.25
FROM --platform=$BUILDPLATFORM golang:${GO} AS Build
ARG TARGETARCH
ARG APP=web
WORKDIR /src
COPY go.mod go.sum ./
RUN --mount=type=cache,target=/root/.cache \
    go mod download
COPY . .
ENV OUT=/out/$APP
RUN CGO_ENABLED=0 go build -o $OUT ./cmd/${APP}

FROM build AS lint
WORKDIR sub
RUN ["go", "vet"]
COPY --link x y

FROM gcr.io/distroless/static
COPY --from=build --chown=65532:65532 --chmod=0755 $OUT /web
COPY --from=BUILD /out/web /bin/
COPY --from=0 /src/a /a
COPY --from=nginx:1 /etc/nginx /etc/nginx
COPY --exclude=*.md --parents ["my docs", "/docs/"]
ADD https://example.com/x.tar.gz rel
COPY <<EOF /etc/app.conf
FROM here
EOF
USER 65532
EXPOSE 8080
ENTRYPOINT ["/web"]
CMD ["--port", "8080"]
"#
    ));
}

#[test]
fn the_last_entry_point_and_command_count() {
    let text = "FROM a AS b\nENTRYPOINT [\"x\"]\nCMD [\"1\"]\nFROM b\nCMD python app.py\nFROM b\nENTRYPOINT y";
    insta::assert_snapshot!(shown(text));
}

#[test]
fn variables_are_put_in() {
    let text = "ARG V=1\nFROM x:$V\nARG V\nARG NONE\nARG D=/d-$V\nENV A=/a B=\"$A/b c\" C='$A'\nENV OLD the rest\nENV E=$A\nWORKDIR $D\n\
        COPY $E/${C} \"$OLD\"\nCOPY $NONE /x\nWORKDIR $NONE\nCOPY a b\nCOPY a /b";
    insta::assert_snapshot!(shown(text));
}

#[test]
fn mistakes_name_their_line() {
    let mistakes = [
        "",
        "# only this",
        "COPY a b",
        "FROM",
        "FROM a AS",
        "FROM a\nCOPPY a b",
        "FROM a\n\nCOPY a",
        "FROM a\nENV X",
        "FROM a\nENV X=1 Y",
        "FROM a\nWORKDIR",
        "FROM a\nARG",
        "FROM a\nRUN <<EOF",
    ];
    insta::assert_snapshot!(mistakes.map(shown).join("\n"));
}

const LINE: &str = "(FROM [a-z]{1,3}( AS [ab])?|COPY (--from=[ab0-3] )?[a-z$*.]{1,4} [/a-z.]{1,4}|RUN [a-z<>$\\\\ ]{0,9}|ARG [A-Z]=?\
    |ENV [A-Z]=\\$[A-Z{}:-]{0,6}|WORKDIR [/.$A]{1,5}|[# a-zA-Z\\\\\"\\[]{0,9})";

proptest! {
    #[test]
    fn any_text_is_read_or_refused(lines in proptest::collection::vec(LINE, 0..9)) {
        match parse(&lines.join("\n")) {
            Ok(stages) => {
                // An earlier stage only: so following them comes to an end.
                for (index, stage) in stages.iter().enumerate() {
                    for step in &stage.steps {
                        if let Action::Copy(copy) = &step.action {
                            prop_assert!(!matches!(copy.from, Origin::Stage(from) if from >= index));
                            prop_assert!(copy.to.starts_with('/') && !copy.sources.is_empty());
                        }
                    }
                    prop_assert!(!matches!(stage.base, Origin::Stage(from) if from >= index));
                }
            }
            Err(mistake) => prop_assert!(mistake.line >= 1),
        }
    }
}

//! The document as a whole: its version, its list of services, and the choices
//! that YAML writes as a map with one key.

use super::parse::text;
use super::{API_VERSION, Build, ProjectError, Service};
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use std::path::Path;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Document {
    #[serde(deserialize_with = "api_version")]
    #[expect(dead_code, reason = "checked while it is read")]
    api_version: (),
    #[serde(deserialize_with = "services")]
    services: Vec<Service>,
}

/// Parses the text of a project file; `path` is for messages.
pub(super) fn parse(path: &Path, text: &str) -> Result<Vec<Service>, ProjectError> {
    let document: Document = serde_yaml_ng::from_str(text).map_err(|error| {
        let (line, column) = error.location().map_or((1, 1), |location| (location.line(), location.column()));
        let message = error.to_string();
        // The location is said once, in front, in the form editors jump to.
        let message = message.rsplit_once(" at line ").map_or(message.as_str(), |(front, _)| front).to_owned();
        ProjectError::Invalid { path: path.to_owned(), line, column, message }
    })?;
    Ok(document.services)
}

fn api_version<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(), D::Error> {
    text(
        deserializer,
        |version| {
            if version == API_VERSION { Ok(()) } else { Err(format!("version {version:?} is not known; known: {API_VERSION}")) }
        },
    )
}

/// Reads the list of services. That two have the same name is found while the
/// second one is read, so that the message carries its line.
fn services<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Service>, D::Error> {
    struct List;
    impl<'de> Visitor<'de> for List {
        type Value = Vec<Service>;
        fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            formatter.write_str("a list of services")
        }
        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
            let mut services = Vec::new();
            while let Some(service) = list.next_element_seed(Next(&services))? {
                services.push(service);
            }
            if services.is_empty() { Err(A::Error::custom("no service is listed")) } else { Ok(services) }
        }
    }

    struct Next<'a>(&'a [Service]);
    impl<'de> DeserializeSeed<'de> for Next<'_> {
        type Value = Service;
        fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Service, D::Error> {
            deserializer.deserialize_map(self)
        }
    }
    impl<'de> Visitor<'de> for Next<'_> {
        type Value = Service;
        fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            formatter.write_str("a service")
        }
        fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Service, A::Error> {
            let service = Service::deserialize(MapAccessDeserializer::new(map))?;
            if self.0.iter().any(|earlier| earlier.name == service.name) {
                return Err(A::Error::custom(format!("two services are named {:?}", service.name)));
            }
            if let Some(image) = &service.image
                && self.0.iter().filter_map(|earlier| earlier.image.as_ref()).any(|earlier| earlier.name == image.name)
            {
                return Err(A::Error::custom(format!("two services have an image named {:?}", image.name)));
            }
            service.check().map_err(A::Error::custom)?;
            Ok(service)
        }
    }

    deserializer.deserialize_seq(List)
}

const BUILDERS: &[&str] = &["cargo", "go", "node", "python", "command", "dockerfile"];

impl<'de> Deserialize<'de> for Build {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        /// A map with one key, as YAML writes a choice; serde's own form for
        /// enums would be a `!cargo` tag.
        struct Choice;
        impl<'de> Visitor<'de> for Choice {
            type Value = Build;
            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(formatter, "a build by one of {}", BUILDERS.join(", "))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Build, A::Error> {
                let build = match map.next_key::<String>()?.as_deref() {
                    Some("cargo") => Build::Cargo(map.next_value()?),
                    Some("go") => Build::Go(map.next_value()?),
                    Some("node") => Build::Node(map.next_value()?),
                    Some("python") => Build::Python(map.next_value()?),
                    Some("command") => Build::Command(map.next_value()?),
                    Some("dockerfile") => Build::Dockerfile(map.next_value()?),
                    Some(other) => return Err(A::Error::unknown_field(other, BUILDERS)),
                    None => return Err(A::Error::custom(format!("it is not said by what it is built: one of {}", BUILDERS.join(", ")))),
                };
                match map.next_key::<String>()? {
                    Some(second) => Err(A::Error::custom(format!("a service has one build; {second:?} is a second one"))),
                    None => Ok(build),
                }
            }
        }
        deserializer.deserialize_map(Choice)
    }
}

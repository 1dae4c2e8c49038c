//! What processor a program is built for.

use crate::error::{CommandError, Result};
use crate::image::local_architecture;

/// A processor that pods may run on, under Linux.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Platform {
    architecture: String,
}

/// Go's names, and what Rust has for them
/// (<https://doc.rust-lang.org/rustc/platform-support.html>).
const KNOWN: [(&str, &str); 7] = [
    ("386", "i686"),
    ("amd64", "x86_64"),
    ("arm64", "aarch64"),
    ("loong64", "loongarch64"),
    ("ppc64le", "powerpc64le"),
    ("riscv64", "riscv64gc"),
    ("s390x", "s390x"),
];

impl Platform {
    /// This machine's.
    pub fn local() -> Self {
        Self { architecture: local_architecture().to_owned() }
    }

    /// Reads `linux/arm64`, or the architecture alone.
    ///
    /// # Errors
    /// When nothing here can build for it.
    pub fn parse(text: &str) -> Result<Self> {
        let architecture = text.strip_prefix("linux/").unwrap_or(text);
        let architecture = architecture.strip_suffix("/v8").filter(|name| *name == "arm64").unwrap_or(architecture);
        if KNOWN.iter().any(|(known, _)| *known == architecture) {
            return Ok(Self { architecture: architecture.to_owned() });
        }
        let known: Vec<String> = KNOWN.iter().map(|(known, _)| format!("linux/{known}")).collect();
        Err(CommandError::usage(format!("{text:?} is no platform that can be built for")).with_hint(format!("one of {}", known.join(", "))))
    }

    /// As Go and images name it.
    pub fn architecture(&self) -> &str {
        &self.architecture
    }

    /// Whether it is this machine's.
    pub fn is_local(&self) -> bool {
        *self == Self::local()
    }

    /// The target that rustc builds for.
    pub(super) fn triple(&self) -> String {
        let name = KNOWN.iter().find(|(known, _)| *known == self.architecture).map_or(std::env::consts::ARCH, |(_, name)| name);
        format!("{name}-unknown-linux-gnu")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platforms_have_the_names_that_images_have() {
        assert_eq!(Platform::parse("linux/arm64").unwrap().triple(), "aarch64-unknown-linux-gnu");
        assert_eq!(Platform::parse("linux/arm64/v8").unwrap(), Platform::parse("arm64").unwrap());
        assert!(Platform::parse(Platform::local().architecture()).unwrap().is_local());
        assert_eq!(Platform::local().triple(), format!("{}-unknown-linux-gnu", std::env::consts::ARCH));
        for bad in ["", "linux", "windows/amd64", "linux/x86_64", "linux/amd64/v3"] {
            assert_eq!(Platform::parse(bad).unwrap_err().status().code(), 2, "{bad}");
        }
    }
}

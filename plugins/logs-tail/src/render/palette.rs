//! Which colour a pod and a container have: the same in every run, and the same
//! as in stern. Pure.

/// Pairs for pod and container, as SGR parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Palette {
    pairs: Vec<(String, String)>,
    /// Whether containers have colours of their own, whatever their pod's.
    by_container: bool,
}

/// stern's own: bright for the pod, the same colour for its containers.
const PAIRS: [(&str, &str); 6] = [("96", "36"), ("92", "32"), ("95", "35"), ("93", "33"), ("94", "34"), ("91", "31")];

impl Palette {
    /// From colours as people give them: SGR parameters between commas, none for
    /// stern's.
    ///
    /// # Errors
    /// When one is no colour, or there are not as many of both.
    pub(crate) fn new(pods: &[String], containers: &[String], by_container: bool) -> Result<Self, String> {
        if pods.is_empty() {
            if !containers.is_empty() {
                return Err("--container-colors needs --pod-colors".into());
            }
            return Ok(Self { by_container, ..Self::default() });
        }
        let containers = if containers.is_empty() { pods } else { containers };
        if containers.len() != pods.len() {
            return Err(format!("there are {} pod colours and {} container colours; give as many of both", pods.len(), containers.len()));
        }
        if let Some(wrong) = pods.iter().chain(containers).find(|sgr| !is_sgr(sgr)) {
            return Err(format!("{wrong:?} is no colour; write SGR parameters, such as 91 or 38;2;255;97;136"));
        }
        let trim = |sgr: &String| sgr.trim().to_owned();
        Ok(Self { pairs: pods.iter().map(trim).zip(containers.iter().map(trim)).collect(), by_container })
    }

    /// The colours of a pod and of one of its containers.
    pub(crate) fn colors(&self, pod: &str, container: &str) -> (&str, &str) {
        let of_pod = &self.pairs[self.index(pod)];
        let of_container = if self.by_container { &self.pairs[self.index(container)] } else { of_pod };
        (&of_pod.0, &of_container.1)
    }

    fn index(&self, name: &str) -> usize {
        // FNV-1 with 32 bits, as stern has it: names keep their colours.
        let hash = name.bytes().fold(0x811c_9dc5_u32, |hash, byte| hash.wrapping_mul(0x0100_0193) ^ u32::from(byte));
        hash as usize % self.pairs.len()
    }
}

impl Default for Palette {
    fn default() -> Self {
        Self { pairs: PAIRS.iter().map(|(pod, container)| ((*pod).to_owned(), (*container).to_owned())).collect(), by_container: false }
    }
}

fn is_sgr(text: &str) -> bool {
    let text = text.trim();
    !text.is_empty() && text.len() <= 64 && text.split(';').all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_the_colours_that_stern_gives_them() {
        // FNV-1 of "a" is 0x050c5d7e: 84696446 % 6 is 2.
        let palette = Palette::default();
        assert_eq!(palette.colors("a", "b"), ("95", "35"));
        let apart = Palette::new(&[], &[], true).unwrap();
        assert_eq!(apart.colors("a", "b").0, "95");
        assert_ne!(apart.colors("a", "b").1, apart.colors("a", "a").1);
    }

    #[test]
    fn given_colours_are_checked() {
        let colors = |text: &str| text.split(',').map(str::to_owned).collect::<Vec<_>>();
        let palette = Palette::new(&colors("38;2;1;2;3"), &[], false).unwrap();
        assert_eq!(palette.colors("x", "y"), ("38;2;1;2;3", "38;2;1;2;3"));
        assert!(Palette::new(&colors("31,red"), &[], false).is_err());
        assert!(Palette::new(&colors("31,32"), &colors("33"), false).is_err());
        assert!(Palette::new(&[], &colors("33"), false).is_err());
        assert!(Palette::new(&colors("31;"), &[], false).is_err());
    }
}

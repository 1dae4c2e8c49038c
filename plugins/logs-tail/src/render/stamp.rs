//! When a line was written, as people want to read it. Pure.

use jiff::Timestamp;
use jiff::fmt::strtime;
use jiff::tz::TimeZone;

/// How, and in which zone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) form: StampForm,
    pub(crate) zone: TimeZone,
}

/// How a time is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum StampForm {
    /// RFC 3339 with nanoseconds.
    Default,
    /// `01-02 15:04:05`.
    Short,
    /// As in `strftime`.
    Custom(String),
}

impl StampForm {
    /// `default`, `short`, or a pattern with `%`.
    ///
    /// # Errors
    /// When it is none of them.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        match text {
            "default" => Ok(Self::Default),
            "short" => Ok(Self::Short),
            pattern if pattern.contains('%') => {
                let epoch = Timestamp::UNIX_EPOCH.to_zoned(TimeZone::UTC);
                strtime::format(pattern, &epoch).map_err(|error| error.to_string())?;
                Ok(Self::Custom(pattern.to_owned()))
            }
            _ => Err("it is neither default, short, nor a pattern such as %H:%M:%S%.3f".into()),
        }
    }
}

impl Stamp {
    /// A time as text.
    pub(crate) fn text(&self, timestamp: Timestamp) -> String {
        let zoned = timestamp.to_zoned(self.zone.clone());
        let pattern = match &self.form {
            StampForm::Default if zoned.offset().is_zero() => "%Y-%m-%dT%H:%M:%S.%9fZ",
            StampForm::Default => "%Y-%m-%dT%H:%M:%S.%9f%:z",
            StampForm::Short => "%m-%d %H:%M:%S",
            StampForm::Custom(pattern) => pattern,
        };
        // Checked when it was made.
        strtime::format(pattern, &zoned).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_asked() {
        let text = |form: &str, offset: i8| {
            let stamp = Stamp { form: StampForm::parse(form).unwrap(), zone: jiff::tz::offset(offset).to_time_zone() };
            stamp.text("2026-01-02T03:04:05.067Z".parse().unwrap())
        };
        assert_eq!(text("default", 0), "2026-01-02T03:04:05.067000000Z");
        assert_eq!(text("default", 9), "2026-01-02T12:04:05.067000000+09:00");
        assert_eq!(text("short", 0), "01-02 03:04:05");
        assert_eq!(text("%H:%M:%S%.3f", 0), "03:04:05.067");
        assert!(StampForm::parse("shrot").is_err() && StampForm::parse("%!").is_err());
    }
}

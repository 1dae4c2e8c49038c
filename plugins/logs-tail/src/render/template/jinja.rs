//! Templates in Jinja. Pure.

use super::functions::{NAMES, call};
use minijinja::value::{Rest, Serde, Value};
use minijinja::{Environment, Error, ErrorKind, UndefinedBehavior};

/// The template's name in its environment.
const NAME: &str = "template";

/// A template.
#[derive(Debug)]
pub(crate) struct Jinja {
    environment: Environment<'static>,
}

impl Jinja {
    pub(super) fn parse(text: &str, colors: bool) -> Result<Self, String> {
        let mut environment = Environment::new();
        // Not every line has every field.
        environment.set_undefined_behavior(UndefinedBehavior::Chainable);
        for name in NAMES {
            let function = move |arguments: Rest<Value>| -> Result<Value, Error> {
                let arguments: Result<Vec<serde_json::Value>, _> = arguments.iter().map(serde_json::to_value).collect();
                let invalid = |problem: String| Error::new(ErrorKind::InvalidOperation, problem);
                let result = call(name, &arguments.map_err(|error| invalid(error.to_string()))?, colors).map_err(invalid)?;
                Ok(Value::from(Serde(result)))
            };
            environment.add_function(name, function);
            environment.add_filter(name, function);
        }
        environment.add_template_owned(NAME, text.to_owned()).map_err(|error| explain(&error, text))?;
        // An unknown filter or function is only found when it is used.
        let template = environment.get_template(NAME).map_err(|error| explain(&error, text))?;
        let context = serde_json::json!({ "message": "", "Message": "{}", "fields": {} });
        if let Err(error) = template.render(Value::from(Serde(context)))
            && matches!(error.kind(), ErrorKind::UnknownFilter | ErrorKind::UnknownFunction | ErrorKind::UnknownTest)
        {
            return Err(explain(&error, text));
        }
        Ok(Self { environment })
    }

    pub(super) fn render(&self, values: &serde_json::Value) -> Result<String, String> {
        let template = self.environment.get_template(NAME).map_err(|error| error.to_string())?;
        template.render(Value::from(Serde(values))).map_err(|error| error.detail().unwrap_or("it can't be filled in").to_owned())
    }
}

fn explain(error: &Error, text: &str) -> String {
    let problem = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
    match error.range() {
        Some(range) => format!("{problem}\n{}", crate::lines::expression::pointer(text, range.start)),
        None => problem,
    }
}

//! `--store-prefix`: the folder of a recording in the store, as an operator words it. Resolved once per recording, and kept
//! with it: later wordings move nothing.

use std::collections::BTreeMap;
use std::str::FromStr;

use serde_json::Value;

use crate::clock::rfc3339;
use crate::media::Micros;

use super::keys::{self, NOBODY, Name};

/// Components that a prefix may have.
const DEPTH_MAX: usize = 8;

/// What stands in a component for something that each recording has of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Variable {
    Tenant,
    RecordingId,
    BotId,
    /// UTC day of tick 0.
    Date,
    /// A key of the bot's metadata.
    Metadata(String),
}

/// A component: text around one variable at most, so that two recordings never come to the same one.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Component {
    before: String,
    variable: Option<Variable>,
    after: String,
}

/// A worded prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prefix(Vec<Component>);

/// What a prefix is resolved with.
#[derive(Clone, Copy, Debug)]
pub struct About<'a> {
    /// Who the recording is.
    pub name: &'a Name,
    /// Recall's `bot.id`.
    pub bot_id: Option<&'a str>,
    /// Absolute time of tick 0.
    pub origin: Micros,
    /// Metadata as the bot sent it.
    pub metadata: &'a BTreeMap<String, Value>,
}

impl FromStr for Prefix {
    type Err = String;

    fn from_str(text: &str) -> Result<Prefix, String> {
        let mut components = Vec::new();
        for part in text.split('/').filter(|part| !part.is_empty()) {
            components.push(component(part)?);
        }
        let is_id = |component: &Component| component.variable == Some(Variable::RecordingId);
        if !components.iter().any(is_id) {
            // Two recordings never share a folder.
            components.push(component("{recording_id}")?);
        }
        match components.len() {
            1..=DEPTH_MAX => Ok(Prefix(components)),
            _ => Err(format!("a prefix has at most {DEPTH_MAX} folders")),
        }
    }
}

fn component(part: &str) -> Result<Component, String> {
    let plain = |text: &str| {
        let fits = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.=".contains(&byte));
        if fits {
            Ok(text.to_owned())
        } else {
            Err(format!("`{text}`: folders are made of letters, digits, _ - . and ="))
        }
    };
    let (before, variable, after) = match part.split_once('{') {
        None => (part, None, ""),
        Some((before, rest)) => {
            let (name, after) = rest.split_once('}').ok_or_else(|| format!("`{part}`: a `}}` is missing"))?;
            (before, Some(variable(name)?), after)
        }
    };
    if after.contains('{') {
        return Err(format!("`{part}`: one variable in a folder; put a `/` between two"));
    }
    if before.starts_with(['_', '.'])
        || (variable.is_none() && (part.ends_with("-webcam") || part.ends_with("-screenshare")))
    {
        return Err(format!("`{part}`: such names are tilecast's own"));
    }
    Ok(Component { before: plain(before)?, variable, after: plain(after)? })
}

fn variable(name: &str) -> Result<Variable, String> {
    match name {
        "tenant" => Ok(Variable::Tenant),
        "recording_id" => Ok(Variable::RecordingId),
        "bot_id" => Ok(Variable::BotId),
        "date" => Ok(Variable::Date),
        name => match name.strip_prefix("metadata.").filter(|key| !key.is_empty()) {
            Some(key) => Ok(Variable::Metadata(key.to_owned())),
            None => Err(format!("`{{{name}}}`: there are tenant, recording_id, bot_id, date and metadata.KEY")),
        },
    }
}

impl Prefix {
    fn has(&self, variable: &Variable) -> bool {
        self.0.iter().any(|component| component.variable.as_ref() == Some(variable))
    }

    /// Whether it keeps tenants apart.
    pub fn has_tenant(&self) -> bool {
        self.has(&Variable::Tenant)
    }

    /// Whether it can be resolved only once tick 0 is known.
    pub fn has_date(&self) -> bool {
        self.has(&Variable::Date)
    }

    /// The folder, where it follows from the name alone.
    pub fn by_name(&self, name: &Name) -> Option<String> {
        let of_name = |variable: &Variable| matches!(variable, Variable::Tenant | Variable::RecordingId);
        let known = self.0.iter().filter_map(|component| component.variable.as_ref()).all(of_name);
        let about = About { name, bot_id: None, origin: Micros(0), metadata: &BTreeMap::new() };
        known.then(|| self.resolve(about))
    }

    /// The folder of this recording. What is not known is `_`, what is no plain name is hashed.
    pub fn resolve(&self, about: About<'_>) -> String {
        let safe = |text: Option<&str>| text.map_or_else(|| NOBODY.to_owned(), keys::component);
        let value = |variable: &Variable| match variable {
            Variable::Tenant => safe(about.name.tenant.as_deref()),
            Variable::RecordingId => keys::recording(&about.name.id),
            Variable::BotId => safe(about.bot_id),
            Variable::Date => rfc3339(about.origin).chars().take(10).collect(),
            Variable::Metadata(key) => match about.metadata.get("bot").and_then(|bot| bot.get(key)) {
                None | Some(Value::Null) => NOBODY.to_owned(),
                Some(Value::String(text)) => keys::component(text),
                Some(other) => keys::component(&other.to_string()),
            },
        };
        let folder = |component: &Component| {
            let value = component.variable.as_ref().map(value).unwrap_or_default();
            format!("{}{value}{}", component.before, component.after)
        };
        self.0.iter().map(folder).collect::<Vec<_>>().join("/")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(text: &str, name: &Name, metadata: Value) -> String {
        let metadata = BTreeMap::from([("bot".to_owned(), metadata)]);
        let origin = Micros(1_767_312_000_000_000);
        let about = About { name, bot_id: Some("b-1"), origin, metadata: &metadata };
        text.parse::<Prefix>().unwrap().resolve(about)
    }

    #[test]
    fn what_an_operator_words_becomes_a_folder() {
        let acme = Name::new(Some("acme"), "r~2");
        for (text, folder) in [
            ("", "r~2"),
            ("{recording_id}", "r~2"),
            ("media/{tenant}/", "media/acme/r~2"),
            ("day={date}/{tenant}/{recording_id}/x", "day=2026-01-02/acme/r~2/x"),
            ("{bot_id}/{metadata.customer}", "b-1/ACME/r~2"),
            ("{metadata.n}/{metadata.none}", "7/_/r~2"),
            // A value that is no plain name never leads anywhere else.
            ("{metadata.evil}/c", "x3a7bd3e2360a3d29/c/r~2"),
        ] {
            let metadata = serde_json::json!({ "customer": "ACME", "n": 7, "evil": "../../etc" });
            let resolved = resolve(text, &acme, metadata);
            match text.contains("evil") {
                true => assert!(resolved.starts_with('x') && resolved.ends_with("/c/r~2") && !resolved.contains("..")),
                false => assert_eq!(resolved, folder, "{text}"),
            }
        }
        assert_eq!(resolve("{tenant}", &Name::new(None, "r"), Value::Null), "_/r");
        assert_eq!(resolve("{tenant}", &Name::new(Some("_"), "r"), Value::Null).len(), "x0123456789abcdef/r".len());
    }

    #[test]
    fn a_wording_that_would_lead_elsewhere_is_refused() {
        for bad in [
            "{foo}",
            "{tenant",
            "{tenant}{bot_id}",
            "a b",
            "../x",
            "_live",
            ".x",
            "1-webcam",
            "{metadata.}",
            "a/b/c/d/e/f/g/h",
        ] {
            assert!(bad.parse::<Prefix>().is_err(), "{bad}");
        }
    }

    #[test]
    fn by_its_name_alone_where_that_will_do() {
        let by_name = |text: &str| text.parse::<Prefix>().unwrap().by_name(&Name::new(Some("acme"), "r"));
        assert_eq!(by_name("{tenant}").as_deref(), Some("acme/r"));
        assert_eq!(by_name("{date}"), None);
        assert!("{date}".parse::<Prefix>().unwrap().has_date() && !"".parse::<Prefix>().unwrap().has_tenant());
    }
}

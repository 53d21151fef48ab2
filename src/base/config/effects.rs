//! Keys that ask for protection that is missing, and keys that are set but have no effect.

use super::{
    ConfigError, Key, Properties,
    key::Effect,
    keys,
    parse::{self, Value},
};

impl Key {
    /// The missing protection that this value asks for, or `None` if nothing is missing.
    pub fn missing_protection(&self, value: &Value) -> Option<&'static str> {
        match (self.effect, value) {
            (Effect::Protects(missing), _) if !self.is_unset_or_default(value) => Some(missing),
            (Effect::ProtectsAbove(max, missing), Value::Integer(n)) if *n > max => Some(missing),
            _ => None,
        }
    }

    /// Whether this value has no effect yet, or not all of its effect.
    pub fn ignores(&self, value: &Value) -> bool {
        match (self.effect, value) {
            (Effect::Protects(_) | Effect::ProtectsAbove(..), _) => {
                self.missing_protection(value).is_some()
            }
            (Effect::Ignored, _) => !self.is_unset_or_default(value),
            (Effect::UsedOnly(used), Value::Text(text)) => {
                !text.is_empty() && !used.contains(&text.as_str())
            }
            (Effect::UsedOnly(used), Value::List(entries)) => {
                entries.iter().any(|entry| !used.contains(&entry.as_str()))
            }
            _ => false,
        }
    }

    fn is_unset_or_default(&self, value: &Value) -> bool {
        let default = self.default_text().map(|text| parse::value(self, self.name, text));
        value.text().is_empty() || default.is_some_and(|default| default.as_ref() == Ok(value))
    }
}

/// Refuses broker configs that ask for protection that is missing. Otherwise, the broker would
/// allow access that the operator meant to prevent.
pub(super) fn check_protection(configs: &Properties) -> Result<(), ConfigError> {
    for (name, text) in configs {
        let Some(key) = keys::find_broker(name) else { continue };
        let missing = parse::value(key, name, text).ok().and_then(|v| key.missing_protection(&v));
        if let Some(missing) = missing {
            let shown = if key.is_sensitive() { "[hidden]" } else { text };
            return Err(ConfigError::config(format!(
                "{name}={shown} asks for protection that Sordini does not have yet: {missing}. \
                 Remove {name} to go without it"
            )));
        }
    }
    Ok(())
}

/// The names of the given configs that have no effect yet. `find` returns the row of a name.
/// Unknown names and values that are not allowed are left out.
pub fn ignored_configs<'a>(
    configs: impl IntoIterator<Item = (&'a str, &'a str)>,
    find: impl Fn(&str) -> Option<&'static Key>,
) -> Vec<&'a str> {
    let is_ignored = |(name, text): &(&str, &str)| {
        let Some(key) = find(name) else { return false };
        parse::value(key, name, text).is_ok_and(|value| key.ignores(&value))
    };
    configs.into_iter().filter(is_ignored).map(|(name, _)| name).collect()
}

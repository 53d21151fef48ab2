//! The values in force of every broker key.

use std::collections::BTreeMap;

use super::{
    ConfigError, Properties,
    key::{Default, Type},
    keys,
    parse::{self, Value},
};

/// The value of every broker key. A key without a value has no entry. Prefixed names
/// (`listener.name.<listener>.`) have entries if they are set.
#[derive(Clone, Debug)]
pub struct Values {
    by_name: BTreeMap<String, Value>,
}

impl Values {
    /// Takes each key's value from the first layer that has it, or else its default. Unknown names
    /// have no value here. Fails if a value is not allowed or a required key is missing.
    pub fn resolve(layers: &[&Properties]) -> Result<Self, ConfigError> {
        let mut by_name = BTreeMap::new();
        for (name, key) in keys::broker() {
            let text = layers.iter().find_map(|layer| layer.get(*name)).map(String::as_str);
            match text.or(key.default_text()) {
                Some(text) => {
                    by_name.insert((*name).to_owned(), parse::value(key, name, text)?);
                }
                // A missing list is treated as empty.
                None if key.default == Default::Required && key.kind != Type::List => {
                    return Err(ConfigError::config(format!(
                        "Missing required configuration \"{name}\" which has no default value."
                    )));
                }
                None => {}
            }
        }
        for layer in layers {
            for (name, text) in layer.iter() {
                if by_name.contains_key(name) {
                    continue;
                }
                if let Some(key) = keys::find_broker(name) {
                    by_name.insert(name.clone(), parse::value(key, key.name, text)?);
                }
            }
        }
        Ok(Self { by_name })
    }

    /// Replaces the value of an integer key that has a default.
    pub(super) fn set_i64(&mut self, name: &str, value: i64) {
        self.by_name.insert(name.to_owned(), Value::Integer(value));
    }

    pub fn get(&self, name: &str) -> Option<&Value> {
        self.by_name.get(name)
    }

    /// An integer key's value, if it has one.
    pub fn long(&self, name: &str) -> Option<i64> {
        match self.get(name)? {
            Value::Integer(value) => Some(*value),
            other => unreachable!("{name} is an integer in the table, not {other:?}"),
        }
    }

    /// The value of an integer key that has a default.
    pub fn i64(&self, name: &str) -> i64 {
        let value = self.long(name);
        value.unwrap_or_else(|| unreachable!("{name} has a default in the table"))
    }

    /// The value of an INT or SHORT key that has a default.
    pub fn i32(&self, name: &str) -> i32 {
        let value = i32::try_from(self.i64(name));
        value.unwrap_or_else(|_| unreachable!("{name} is an INT in the table"))
    }

    /// The value of a SHORT key that has a default.
    pub fn i16(&self, name: &str) -> i16 {
        let value = i16::try_from(self.i64(name));
        value.unwrap_or_else(|_| unreachable!("{name} is a SHORT in the table"))
    }

    /// The value of a DOUBLE key, which has a default.
    pub fn f64(&self, name: &str) -> f64 {
        match self.get(name) {
            Some(Value::Decimal(value)) => *value,
            other => unreachable!("{name} is a DOUBLE in the table, not {other:?}"),
        }
    }

    pub fn bool(&self, name: &str) -> bool {
        match self.get(name) {
            Some(Value::Boolean(value)) => *value,
            other => unreachable!("{name} is a BOOLEAN in the table, not {other:?}"),
        }
    }

    pub fn text(&self, name: &str) -> Option<&str> {
        match self.get(name)? {
            Value::Text(value) => Some(value),
            other => unreachable!("{name} is a STRING in the table, not {other:?}"),
        }
    }

    pub fn list(&self, name: &str) -> Option<&[String]> {
        match self.get(name)? {
            Value::List(value) => Some(value),
            other => unreachable!("{name} is a LIST in the table, not {other:?}"),
        }
    }
}

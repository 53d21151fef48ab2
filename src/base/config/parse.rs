//! Java's .properties syntax, and the types and checks of values in Kafka's `ConfigDef`.

use super::{
    ConfigError,
    key::{Key, Type, Valid, java_double},
};

/// A value of a key's type.
#[derive(Clone, PartialEq, Debug)]
pub enum Value {
    Boolean(bool),
    Text(String),
    Integer(i64),
    Decimal(f64),
    List(Vec<String>),
}

impl Value {
    /// The value as Kafka prints it (`ConfigDef.convertToString`).
    pub fn text(&self) -> String {
        match self {
            Self::Boolean(value) => value.to_string(),
            Self::Text(value) => value.clone(),
            Self::Integer(value) => value.to_string(),
            Self::Decimal(value) => java_double(*value),
            Self::List(entries) => entries.join(","),
        }
    }
}

/// A pair of a properties file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Property {
    /// The line on which it begins, counted from 1.
    pub line: usize,
    pub name: String,
    pub value: String,
}

/// Reads the pairs of a properties file, in order. A key that is there twice is returned twice.
///
/// The bytes are UTF-8, or else ISO-8859-1, which is what Java reads.
pub fn properties(bytes: &[u8]) -> Result<Vec<Property>, ConfigError> {
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => bytes.iter().map(|byte| char::from(*byte)).collect(),
    };
    let mut pairs = Vec::new();
    let mut lines = natural_lines(&text).enumerate();
    while let Some((number, line)) = lines.next() {
        if line.is_empty() || line.starts_with(['#', '!']) {
            continue;
        }
        let mut logical = line.to_owned();
        while ends_in_open_escape(&logical) {
            logical.pop();
            logical.push_str(lines.next().map_or("", |(_, line)| line));
        }
        let line = number + 1;
        let (name, value) = split_pair(&logical);
        let unescape = |text| {
            let located = |error: ConfigError| format!("line {line}: {}", error.message);
            unescape(text).map_err(|error| ConfigError::config(located(error)))
        };
        pairs.push(Property { line, name: unescape(name)?, value: unescape(value)? });
    }
    Ok(pairs)
}

const BLANKS: [char; 3] = [' ', '\t', '\u{c}'];

fn natural_lines(text: &str) -> impl Iterator<Item = &str> {
    text.split('\n')
        .flat_map(|line| line.strip_suffix('\r').unwrap_or(line).split('\r'))
        .map(|line| line.trim_start_matches(BLANKS))
}

fn ends_in_open_escape(line: &str) -> bool {
    line.bytes().rev().take_while(|byte| *byte == b'\\').count() % 2 == 1
}

/// The key ends at the first `=`, `:` or blank that is not escaped.
fn split_pair(line: &str) -> (&str, &str) {
    let mut escaped = false;
    let end = line.char_indices().find(|(_, c)| {
        let ends = !escaped && (matches!(c, '=' | ':') || BLANKS.contains(c));
        escaped = !escaped && *c == '\\';
        ends
    });
    let Some((end, _)) = end else { return (line, "") };
    let rest = line[end..].trim_start_matches(BLANKS);
    let rest = rest.strip_prefix(['=', ':']).unwrap_or(rest);
    (&line[..end], rest.trim_start_matches(BLANKS))
}

fn unescape(text: &str) -> Result<String, ConfigError> {
    let mut units: Vec<u16> = Vec::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        let c = match c {
            '\\' => match chars.next() {
                Some('t') => '\t',
                Some('n') => '\n',
                Some('r') => '\r',
                Some('f') => '\u{c}',
                Some('u') => {
                    units.push(unicode_escape(&mut chars)?);
                    continue;
                }
                Some(other) => other,
                None => continue,
            },
            other => other,
        };
        units.extend_from_slice(c.encode_utf16(&mut [0; 2]));
    }
    Ok(String::from_utf16_lossy(&units))
}

/// The four hexadecimal digits after `\u`: a UTF-16 code unit, possibly one of a surrogate pair.
fn unicode_escape(chars: &mut std::str::Chars<'_>) -> Result<u16, ConfigError> {
    let digits: String = chars.take(4).collect();
    let is_complete = digits.len() == 4 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    let unit = is_complete.then(|| u16::from_str_radix(&digits, 16).ok()).flatten();
    unit.ok_or_else(|| ConfigError::config("Malformed \\uxxxx encoding.".to_owned()))
}

/// Parses a value and checks it against its key's row. Errors name the key as `name`.
pub fn value(key: &Key, name: &str, text: &str) -> Result<Value, ConfigError> {
    let value = typed(key.kind, name, text)?;
    let value = match (key.valid, value) {
        (
            Valid::ListMayBeEmpty
            | Valid::ListNotEmpty
            | Valid::ListOf(_)
            | Valid::ListNotEmptyOf(_),
            Value::List(entries),
        ) => Value::List(without_duplicates(entries)),
        (_, value) => value,
    };
    check(key.valid, name, &value)?;
    Ok(value)
}

/// Removes repeated entries (KIP-1161).
fn without_duplicates(entries: Vec<String>) -> Vec<String> {
    let mut once: Vec<String> = Vec::with_capacity(entries.len());
    for entry in entries {
        if !once.contains(&entry) {
            once.push(entry);
        }
    }
    once
}

/// Parses a value of a type (`ConfigDef.parseType` of Kafka).
fn typed(kind: Type, name: &str, text: &str) -> Result<Value, ConfigError> {
    let trimmed = trim(text);
    let not_a_number = || invalid(name, text, &format!("Not a number of type {}", kind.name()));
    let integer = |min: i64, max: i64| {
        let digits = trimmed.strip_prefix('+').unwrap_or(trimmed);
        let is_signed_twice = digits.len() < trimmed.len() && digits.starts_with(['-', '+']);
        let parsed = digits.parse::<i64>().ok().filter(|_| !is_signed_twice);
        let parsed = parsed.filter(|value| (min..=max).contains(value));
        parsed.map(Value::Integer).ok_or_else(not_a_number)
    };
    match kind {
        Type::Boolean => match trimmed {
            _ if trimmed.eq_ignore_ascii_case("true") => Ok(Value::Boolean(true)),
            _ if trimmed.eq_ignore_ascii_case("false") => Ok(Value::Boolean(false)),
            _ => Err(invalid(name, text, "Expected value to be either true or false")),
        },
        Type::Int => integer(i64::from(i32::MIN), i64::from(i32::MAX)),
        Type::Short => integer(i64::from(i16::MIN), i64::from(i16::MAX)),
        Type::Long => integer(i64::MIN, i64::MAX),
        Type::Double => java_decimal(trimmed).map(Value::Decimal).ok_or_else(not_a_number),
        Type::List if trimmed.is_empty() => Ok(Value::List(Vec::new())),
        Type::List => Ok(Value::List(split_list(trimmed))),
        Type::String | Type::Class | Type::Password => Ok(Value::Text(trimmed.to_owned())),
    }
}

/// Trims like Java's `String.trim`.
fn trim(text: &str) -> &str {
    text.trim_matches(|c: char| c <= ' ')
}

/// The items in the value of APPEND and SUBTRACT (Java's `String.split`): empty ones at the end do
/// not count. An empty text has one empty item.
pub fn list_items(text: &str) -> impl Iterator<Item = &str> {
    let end = if text.is_empty() { text } else { text.trim_end_matches(',') };
    let is_none = end.is_empty() && !text.is_empty();
    end.split(',').filter(move |_| !is_none)
}

fn split_list(text: &str) -> Vec<String> {
    text.split(',').map(|entry| trim(entry).to_owned()).collect()
}

/// Parses like Java's `Double.parseDouble`: a suffix `d` or `f` is allowed, and `NaN` and
/// `Infinity` are case-sensitive.
fn java_decimal(text: &str) -> Option<f64> {
    match text.strip_prefix(['+', '-']).unwrap_or(text) {
        "NaN" => return Some(f64::NAN),
        "Infinity" if text.starts_with('-') => return Some(f64::NEG_INFINITY),
        "Infinity" => return Some(f64::INFINITY),
        _ => {}
    }
    let digits = text.strip_suffix(['d', 'D', 'f', 'F']).unwrap_or(text);
    let is_plain = digits
        .bytes()
        .all(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b'e' | b'E' | b'+' | b'-'));
    digits.parse().ok().filter(|_| is_plain)
}

pub(super) fn invalid(name: &str, text: &str, why: &str) -> ConfigError {
    ConfigError::config(format!("Invalid value {text} for configuration {name}: {why}"))
}

fn check(valid: Valid, name: &str, value: &Value) -> Result<(), ConfigError> {
    let refuse = |why: &str| Err(invalid(name, &value.text(), why));
    match (valid, value) {
        (Valid::AtLeast(min) | Valid::Between(min, _), Value::Integer(n)) if *n < min => {
            refuse(&format!("Value must be at least {min}"))
        }
        (Valid::Between(_, max), Value::Integer(n)) if *n > max => {
            refuse(&format!("Value must be no more than {max}"))
        }
        (Valid::BetweenDecimals(min, _), Value::Decimal(n)) if *n < min => {
            refuse(&format!("Value must be at least {min}"))
        }
        (Valid::BetweenDecimals(_, max), Value::Decimal(n)) if *n > max => {
            refuse(&format!("Value must be no more than {max}"))
        }
        (Valid::GzipLevel, Value::Integer(n)) if !(1..=9).contains(n) && *n != -1 => {
            refuse("Value must be between 1 and 9 or equal to -1")
        }
        (Valid::NonEmpty, Value::Text(text)) if text.is_empty() => {
            refuse("String must be non-empty")
        }
        (Valid::OneOf(allowed), Value::Text(text)) => one_of(allowed, name, text),
        (Valid::OneOfIgnoringCase(allowed), Value::Text(text)) => {
            match allowed.iter().any(|allowed| allowed.eq_ignore_ascii_case(text)) {
                true => Ok(()),
                false => refuse(&format!(
                    "String must be one of (case insensitive): {}",
                    allowed.join(", ")
                )),
            }
        }
        (Valid::AutoOffsetReset, Value::Text(text)) => auto_offset_reset(name, text),
        (_, Value::List(entries)) => check_list(valid, name, entries),
        _ => Ok(()),
    }
}

fn one_of(allowed: &[&str], name: &str, text: &str) -> Result<(), ConfigError> {
    match allowed.contains(&text) {
        true => Ok(()),
        false => {
            let why = format!("String must be one of: {}", allowed.join(", "));
            Err(invalid(name, text, &why))
        }
    }
}

fn check_list(valid: Valid, name: &str, entries: &[String]) -> Result<(), ConfigError> {
    let (allowed, may_be_empty): (&[&str], bool) = match valid {
        Valid::ListMayBeEmpty => (&[], true),
        Valid::ListNotEmpty => (&[], false),
        Valid::ListOf(allowed) => (allowed, true),
        Valid::ListNotEmptyOf(allowed) => (allowed, false),
        Valid::ThrottledReplicas => return throttled_replicas(name, entries),
        Valid::Voters => return voters(name, entries),
        Valid::BootstrapServers => return bootstrap_servers(name, entries),
        _ => return Ok(()),
    };
    if entries.is_empty() && !may_be_empty {
        let allowed = match allowed {
            [] => "any non-empty value".to_owned(),
            allowed => format!("[{}]", allowed.join(", ")),
        };
        return Err(ConfigError::config(format!(
            "Configuration '{name}' must not be empty. Valid values include: {allowed}"
        )));
    }
    for entry in entries {
        if entry.is_empty() {
            let message = format!("Configuration '{name}' values must not be empty.");
            return Err(ConfigError::config(message));
        }
        if !allowed.is_empty() {
            one_of(allowed, name, entry)?;
        }
    }
    Ok(())
}

fn throttled_replicas(name: &str, entries: &[String]) -> Result<(), ConfigError> {
    let is_replica = |entry: &String| match entry.split_once(':') {
        Some((partition, broker)) => [partition, broker]
            .iter()
            .all(|id| !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_digit())),
        None => entry.is_empty(),
    };
    if entries.concat() == "*" || entries.iter().all(is_replica) {
        return Ok(());
    }
    let why = format!(
        "{name} must be the literal '*' or a list of replicas in the following format: \
         [partitionId]:[brokerId],[partitionId]:[brokerId],..."
    );
    Err(invalid(name, &format!("[{}]", entries.join(", ")), &why))
}

fn voters(name: &str, entries: &[String]) -> Result<(), ConfigError> {
    const FORM: &str = "Each entry should be in the form `{id}@{host}:{port}`.";
    for entry in entries {
        let id_and_address = entry.split_once('@').filter(|(id, _)| id.parse::<i32>().is_ok());
        let Some((_, address)) = id_and_address else {
            let message = format!("Invalid configuration value for {name}. {FORM}");
            return Err(ConfigError::config(message));
        };
        if host_and_port(address).is_none() {
            return Err(ConfigError::config(format!(
                "Failed to parse host name from entry {entry} for the configuration {name}. {FORM}"
            )));
        }
    }
    Ok(())
}

fn bootstrap_servers(name: &str, entries: &[String]) -> Result<(), ConfigError> {
    match entries.iter().find(|entry| host_and_port(entry).is_none()) {
        None => Ok(()),
        Some(entry) => Err(ConfigError::config(format!(
            "Failed to parse host name from {entry} for the configuration {name}. \
             Each entry should be in the form \"{{host}}:{{port}}\""
        ))),
    }
}

fn auto_offset_reset(name: &str, text: &str) -> Result<(), ConfigError> {
    let is_strategy = match text.strip_prefix("by_duration:") {
        Some(duration) => is_duration(duration),
        None => matches!(text, "earliest" | "latest"),
    };
    if is_strategy {
        return Ok(());
    }
    let why = format!(
        "Invalid value `{text}` for configuration {name}. The value must be either 'earliest', \
         'latest' or of the format 'by_duration:<PnDTnHnMn.nS>'."
    );
    Err(invalid(name, text, &why))
}

/// Whether the text is an ISO 8601 duration that is not negative: `PnDTnHnMn.nS`.
fn is_duration(text: &str) -> bool {
    let Some(rest) = text.strip_prefix(['P', 'p']) else { return false };
    let upper = rest.to_ascii_uppercase();
    let (days, time) = match upper.split_once('T') {
        Some((_, "")) => return false,
        Some((days, time)) => (days, time),
        None => (upper.as_str(), ""),
    };
    !upper.is_empty() && units_in_order(days, "D") && units_in_order(time, "HMS")
}

fn units_in_order(mut text: &str, units: &str) -> bool {
    let mut units = units.chars();
    while !text.is_empty() {
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, rest) = text.split_at(end);
        let Some(unit) = rest.chars().next() else { return false };
        let may_have_fraction = unit == 'S';
        let is_number =
            number.parse::<f64>().is_ok() && (may_have_fraction || !number.contains('.'));
        if !is_number || !units.any(|allowed| allowed == unit) {
            return false;
        }
        text = &rest[1..];
    }
    true
}

/// Splits `host:port`. An IPv6 host has brackets, which are removed. `None` if the text is invalid.
pub fn host_and_port(address: &str) -> Option<(&str, u16)> {
    let (host, port) = address.rsplit_once(':')?;
    let host = match host.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']')?,
        None if host.contains(':') => return None,
        None => host,
    };
    Some((host, port.parse().ok()?)).filter(|(host, _)| !host.is_empty())
}

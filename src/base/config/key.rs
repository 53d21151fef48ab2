//! A row of the key table, and how Java prints doubles.

use std::fmt;

/// The types of `org.apache.kafka.common.config.ConfigDef.Type`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Type {
    Boolean,
    String,
    Int,
    Short,
    Long,
    Double,
    List,
    Class,
    Password,
}

impl Type {
    /// The name in Kafka's error messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Boolean => "BOOLEAN",
            Self::String => "STRING",
            Self::Int => "INT",
            Self::Short => "SHORT",
            Self::Long => "LONG",
            Self::Double => "DOUBLE",
            Self::List => "LIST",
            Self::Class => "CLASS",
            Self::Password => "PASSWORD",
        }
    }

    /// The id in DescribeConfigs (KIP-569).
    pub fn wire_id(self) -> i8 {
        match self {
            Self::Boolean => 1,
            Self::String => 2,
            Self::Int => 3,
            Self::Short => 4,
            Self::Long => 5,
            Self::Double => 6,
            Self::List => 7,
            Self::Class => 8,
            Self::Password => 9,
        }
    }
}

/// The value of a key that is not set.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Default {
    Is(&'static str),
    /// No value. Another key, or the code that reads it, decides.
    Null,
    /// The key has to be set by the operator or by `defaults`. A missing list is treated as empty.
    Required,
}

/// Which values of a key's type are allowed.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Valid {
    Any,
    AtLeast(i64),
    Between(i64, i64),
    BetweenDecimals(f64, f64),
    /// 1 to 9, or -1.
    GzipLevel,
    OneOf(&'static [&'static str]),
    OneOfIgnoringCase(&'static [&'static str]),
    NonEmpty,
    /// A list of different entries that are not empty. The list itself may be empty.
    ListMayBeEmpty,
    ListNotEmpty,
    ListOf(&'static [&'static str]),
    ListNotEmptyOf(&'static [&'static str]),
    ThrottledReplicas,
    AutoOffsetReset,
    Voters,
    BootstrapServers,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Importance {
    High,
    Medium,
    Low,
}

/// Whether a broker's key can change while the broker runs, and for which scope (KIP-226).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    ReadOnly,
    PerBroker,
    ClusterWide,
}

/// What Sordini does with a key that is set.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Effect {
    Used,
    /// Only these values have an effect. Others are accepted, and the start logs a warning.
    UsedOnly(&'static [&'static str]),
    /// The value is checked but has no effect yet. The start logs a warning if the key is set.
    Ignored,
    /// Any value but the default or an empty one asks for protection that is missing, so the start
    /// is refused. The text names what is missing.
    Protects(&'static str),
    /// Values above this ask for protection that is missing, as in `Protects`.
    ProtectsAbove(i64, &'static str),
}

/// A row of the key table.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    pub name: &'static str,
    pub kind: Type,
    pub default: Default,
    pub valid: Valid,
    pub importance: Importance,
    pub mode: Mode,
    pub effect: Effect,
    /// DescribeConfigs lists the key only if it is set.
    pub is_hidden: bool,
    pub doc: &'static str,
}

impl Key {
    pub fn default_text(&self) -> Option<&'static str> {
        match self.default {
            Default::Is(text) => Some(text),
            Default::Null | Default::Required => None,
        }
    }

    pub fn is_listed(&self) -> bool {
        !self.is_hidden
    }

    pub fn is_sensitive(&self) -> bool {
        self.kind == Type::Password
    }
}

impl fmt::Display for Valid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => Ok(()),
            Self::AtLeast(min) => write!(f, "at least {min}"),
            Self::Between(min, max) => write!(f, "{min} to {max}"),
            Self::BetweenDecimals(min, max) => write!(f, "{min} to {max}"),
            Self::GzipLevel => f.write_str("1 to 9, or -1"),
            Self::OneOf(allowed) => f.write_str(&allowed.join(", ")),
            Self::OneOfIgnoringCase(allowed) => {
                write!(f, "{} (in any case)", allowed.join(", "))
            }
            Self::NonEmpty => f.write_str("not empty"),
            Self::ListMayBeEmpty => f.write_str("different entries"),
            Self::ListNotEmpty => f.write_str("different entries, at least one"),
            Self::ListOf(allowed) => write!(f, "of {}", allowed.join(", ")),
            Self::ListNotEmptyOf(allowed) => {
                write!(f, "of {}, at least one", allowed.join(", "))
            }
            Self::ThrottledReplicas => f.write_str("* or partition:broker, ..."),
            Self::AutoOffsetReset => f.write_str("latest, earliest, by_duration:PnDTnHnMn.nS"),
            Self::Voters => f.write_str("id@host:port, ..."),
            Self::BootstrapServers => f.write_str("host:port, ..."),
        }
    }
}

/// A double as Java's `Double.toString` prints it.
pub fn java_double(value: f64) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "Infinity" } else { "-Infinity" }.to_owned();
    }
    let magnitude = value.abs();
    if magnitude == 0.0 || (1e-3..1e7).contains(&magnitude) {
        return format!("{value:?}");
    }
    let text = format!("{value:e}");
    match text.split_once('e') {
        Some((digits, exponent)) if digits.contains('.') => format!("{digits}E{exponent}"),
        Some((digits, exponent)) => format!("{digits}.0E{exponent}"),
        None => text,
    }
}

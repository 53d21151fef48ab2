//! Kafka's error codes, -1 to 133, with their names and default messages (Kafka's `Errors`).
//!
//! [`ErrorCode`] is the message crate's enum, because it has every code of Kafka 4.3.1. It has
//! neither Kafka's names nor the messages, and no variant for "no error", which is [`NONE`].

mod text;

pub use kafka_protocol::error::ResponseError as ErrorCode;

/// The code of "no error".
pub const NONE: i16 = 0;

fn row(code: i16) -> Option<&'static (&'static str, &'static str)> {
    text::NAMES_AND_MESSAGES.get(usize::try_from(i32::from(code) + 1).ok()?)
}

/// The name of a code in Kafka, such as `UNKNOWN_TOPIC_OR_PARTITION` or `NONE`. Codes that Kafka
/// 4.3.1 does not have are `UNKNOWN`.
pub fn name(code: i16) -> &'static str {
    row(code).map_or("UNKNOWN", |(name, _)| name)
}

/// Kafka's default message for a code. Empty for [`NONE`].
pub fn default_message(code: i16) -> &'static str {
    row(code).map_or("", |(_, message)| message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_of_kafka_has_a_name() {
        for code in (-1..=133).filter(|code| *code != NONE) {
            let error = ErrorCode::try_from_code(code).expect("not zero");
            assert!(!matches!(error, ErrorCode::Unknown(_)), "{code} has no name");
            assert_eq!(error.code(), code);
        }
        assert!(matches!(ErrorCode::try_from_code(134), Some(ErrorCode::Unknown(134))));
        assert_eq!(ErrorCode::try_from_code(NONE), None);
    }

    #[test]
    fn names_are_those_of_the_codes() {
        for code in (-1..=133).filter(|code| *code != NONE) {
            let crates = format!("{:?}", ErrorCode::try_from_code(code).expect("not zero"));
            assert_eq!(name(code).replace('_', "").to_lowercase(), crates.to_lowercase());
            assert!(default_message(code).ends_with('.'), "{code}");
        }
        assert_eq!((name(NONE), default_message(NONE)), ("NONE", ""));
        assert_eq!((name(134), name(-2), name(i16::MIN)), ("UNKNOWN", "UNKNOWN", "UNKNOWN"));
        assert_eq!(default_message(3), "This server does not host this topic-partition.");
    }
}

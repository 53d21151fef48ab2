//! Kafka's error codes, -1 to 133, with their names and default messages (Kafka's `Errors`).
//!
//! The message crate's table is complete for Kafka 4.3.1 and `code`, `from` and `Display` cover what
//! a broker needs, so it is used as it is. It has no variant for "no error": that is [`NONE`].

pub use kafka_protocol::error::ResponseError as ErrorCode;

/// The code of "no error".
pub const NONE: i16 = 0;

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
}

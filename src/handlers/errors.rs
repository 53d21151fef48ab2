//! The only place that knows both domain errors and Kafka's error codes.

pub use kafka_protocol::error::ResponseError as ErrorCode;

/// The code on the wire of "no error".
pub const NONE: i16 = 0;

//! Messages with versions that the message crate lacks, declared with [`wire!`](crate::wire). Each
//! type replaces the crate's type of the same name in all versions, so that a handler uses only one
//! type. It has the crate's traits, so that the handler table treats all types alike.
//!
//! Invariant: the bytes are those of Kafka's Java classes. The tests compare them with bytes that
//! these classes wrote.

mod add_raft_voter;
mod broker_heartbeat;
mod describe_log_dirs;
mod list_offsets;
mod offset_commit;
mod offset_fetch;
mod write_txn_markers;

pub use add_raft_voter::*;
pub use broker_heartbeat::*;
pub use describe_log_dirs::*;
pub use list_offsets::*;
pub use offset_commit::*;
pub use offset_fetch::*;
pub use write_txn_markers::*;

/// Implements the message crate's traits for a message that `wire!` declares. The header version is
/// 1 for requests and 0 for responses, and one more in flexible versions.
macro_rules! message {
    (request $name:ident, $min:literal..=$max:literal) => {
        message!(@ $name, $min..=$max, 1);
    };
    (response $name:ident, $min:literal..=$max:literal) => {
        message!(@ $name, $min..=$max, 0);
    };
    (@ $name:ident, $min:literal..=$max:literal, $plain:literal) => {
        impl kafka_protocol::protocol::Message for $name {
            const VERSIONS: kafka_protocol::protocol::VersionRange =
                kafka_protocol::protocol::VersionRange { min: $min, max: $max };
            const DEPRECATED_VERSIONS: Option<kafka_protocol::protocol::VersionRange> = None;
        }

        impl kafka_protocol::protocol::HeaderVersion for $name {
            fn header_version(version: i16) -> i16 {
                $plain + i16::from(Self::is_flexible(version))
            }
        }

        impl kafka_protocol::protocol::Decodable for $name {
            fn decode<B: kafka_protocol::protocol::buf::ByteBuf>(
                buf: &mut B,
                version: i16,
            ) -> anyhow::Result<Self> {
                if !($min..=$max).contains(&version) {
                    return Err($crate::protocol::WireError::UnsupportedVersion(version).into());
                }
                let whole = buf.peek_bytes(0..buf.remaining());
                let mut reader = $crate::protocol::schema::Reader::new(whole);
                let value =
                    <Self as $crate::protocol::schema::Field>::read(&mut reader, false, version)?;
                buf.advance(buf.remaining() - reader.remaining());
                Ok(value)
            }
        }

        impl kafka_protocol::protocol::Encodable for $name {
            fn encode<B: kafka_protocol::protocol::buf::ByteBufMut>(
                &self,
                buf: &mut B,
                version: i16,
            ) -> anyhow::Result<()> {
                if !($min..=$max).contains(&version) {
                    return Err($crate::protocol::WireError::UnsupportedVersion(version).into());
                }
                let mut bytes = bytes::BytesMut::new();
                $crate::protocol::schema::WireMessage::encode(self, &mut bytes, version);
                buf.put_slice(&bytes);
                Ok(())
            }

            fn compute_size(&self, version: i16) -> anyhow::Result<usize> {
                let mut bytes = bytes::BytesMut::new();
                $crate::protocol::schema::WireMessage::encode(self, &mut bytes, version);
                Ok(bytes.len())
            }
        }
    };
}
use message;

#[cfg(test)]
mod tests;

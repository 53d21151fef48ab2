//! [`Principal`]: the identity of a client (Kafka's `KafkaPrincipal`), and its form in an Envelope
//! (`DefaultPrincipalData`).

use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::protocol::StrBytes;

use super::{
    WireError,
    schema::{Field, Reader, WireMessage},
};
use crate::wire;

/// The only version of `DefaultPrincipalData`.
const VERSION: i16 = 0;

wire! {
    /// The identity of a client.
    pub struct Principal (flexible 0..) {
        /// `User`, unless a principal builder of another broker chose another type.
        principal_type: StrBytes, in 0..;
        name: StrBytes, in 0..;
        /// Whether a delegation token authenticated the client.
        token_authenticated: bool, in 0..;
    }
}

impl Principal {
    /// `User:ANONYMOUS`, the principal of clients without authentication.
    pub fn anonymous() -> Self {
        Self {
            principal_type: StrBytes::from_static_str("User"),
            name: StrBytes::from_static_str("ANONYMOUS"),
            token_authenticated: false,
        }
    }

    /// The bytes that an Envelope carries: a version, then the fields. Kafka's
    /// `DefaultKafkaPrincipalBuilder.serialize`.
    pub fn serialize(&self) -> Bytes {
        let mut out = BytesMut::new();
        out.put_i16(VERSION);
        self.encode(&mut out, VERSION);
        out.freeze()
    }

    /// Reads what [`serialize`](Self::serialize) writes. As in Kafka, further bytes are ignored.
    ///
    /// # Errors
    /// The version is not 0, or a field is missing, null or malformed. Kafka replaces bytes of
    /// strings that are not UTF-8; here they are an error.
    pub fn deserialize(bytes: &[u8]) -> Result<Self, WireError> {
        // The copy lets go of the frame, which is larger than the principal.
        let mut reader = Reader::new(Bytes::copy_from_slice(bytes));
        match reader.i16()? {
            VERSION => Self::read(&mut reader, false, VERSION),
            version => Err(WireError::UnsupportedVersion(version)),
        }
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.principal_type, self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anonymous_has_the_bytes_of_kafka() {
        assert_eq!(&Principal::anonymous().serialize()[..], b"\0\0\x05User\x0aANONYMOUS\0\0");
        assert_eq!(Principal::anonymous().to_string(), "User:ANONYMOUS");
    }

    #[test]
    fn principals_are_read_as_they_were_written() {
        let principal = Principal {
            principal_type: StrBytes::from_static_str("User"),
            name: StrBytes::from_static_str("CN=j\u{fc}rgen,O=x"),
            token_authenticated: true,
        };
        let mut bytes = principal.serialize().to_vec();
        for cut in 0..bytes.len() {
            assert!(Principal::deserialize(&bytes[..cut]).is_err(), "{cut}");
        }
        bytes.push(7);
        assert_eq!(Principal::deserialize(&bytes), Ok(principal));
        bytes[1] = 1;
        assert_eq!(Principal::deserialize(&bytes), Err(WireError::UnsupportedVersion(1)));
    }
}

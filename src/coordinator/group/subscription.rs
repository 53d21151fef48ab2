//! The topics in the JoinGroup metadata of a consumer. All versions of
//! `ConsumerProtocolSubscription` begin with the fields of version 0, so the metadata is decoded as
//! version 0.

use bytes::Bytes;

use crate::protocol::schema::{Reader, WireError};

/// Decodes the topics of a subscription.
pub fn subscribed_topics(metadata: Bytes) -> Result<Vec<String>, WireError> {
    let mut reader = Reader::new(metadata);
    let version = reader.i16()?;
    if version < 0 {
        return Err(WireError::UnsupportedVersion(version));
    }
    let count = reader.i32()?;
    let mut topics = Vec::new();
    for _ in 0..count {
        let len = usize::try_from(reader.i16()?).map_err(|_| WireError::UnexpectedNull)?;
        let name = reader.take(len)?;
        topics.push(std::str::from_utf8(&name).map_err(|_| WireError::NotUtf8)?.to_owned());
    }
    Ok(topics)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_are_read_from_any_version() {
        let mut bytes = vec![0, 3, 0, 0, 0, 2, 0, 1, b'a', 0, 2, b'b', b'c'];
        bytes.extend([0xff, 0xff, 0xff, 0xff, 9, 9]);
        assert_eq!(subscribed_topics(bytes.into()), Ok(vec!["a".into(), "bc".into()]));
        assert!(subscribed_topics(Bytes::from_static(&[0, 0, 0x7f, 0xff, 0xff, 0xff])).is_err());
        assert!(subscribed_topics(Bytes::new()).is_err());
    }
}

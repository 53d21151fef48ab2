//! Control records: the types and keys of all, in the format of Kafka's `ControlRecordTypeSchema`,
//! and the value of transaction markers (`EndTxnMarker`). The values of the others are in `quorum`.

/// The version in which keys and values are written.
const VERSION: i16 = 0;

/// A control record's type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ControlRecordType {
    Abort,
    Commit,
    LeaderChange,
    SnapshotHeader,
    SnapshotFooter,
    KraftVersion,
    KraftVoters,
    /// A type that is not supported. Readers skip such records.
    Unknown(i16),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    #[error("{0} bytes are too few for a control record")]
    TooShort(usize),
    #[error("control record version {0} is negative")]
    BadVersion(i16),
}

impl ControlRecordType {
    pub fn from_id(id: i16) -> Self {
        match id {
            0 => Self::Abort,
            1 => Self::Commit,
            2 => Self::LeaderChange,
            3 => Self::SnapshotHeader,
            4 => Self::SnapshotFooter,
            5 => Self::KraftVersion,
            6 => Self::KraftVoters,
            other => Self::Unknown(other),
        }
    }

    pub fn id(self) -> i16 {
        match self {
            Self::Abort => 0,
            Self::Commit => 1,
            Self::LeaderChange => 2,
            Self::SnapshotHeader => 3,
            Self::SnapshotFooter => 4,
            Self::KraftVersion => 5,
            Self::KraftVoters => 6,
            Self::Unknown(other) => other,
        }
    }

    /// The record's key: version and type.
    pub fn to_key(self) -> [u8; 4] {
        let [a, b] = VERSION.to_be_bytes();
        let [c, d] = self.id().to_be_bytes();
        [a, b, c, d]
    }

    /// Reads a key. Later versions may only add fields, so bytes after the type are ignored.
    pub fn from_key(key: &[u8]) -> Result<Self, ControlError> {
        let rest = after_version(key)?;
        let id = rest.first_chunk().ok_or(ControlError::TooShort(key.len()))?;
        Ok(Self::from_id(i16::from_be_bytes(*id)))
    }
}

/// The value of a COMMIT or ABORT record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndTxnMarker {
    pub coordinator_epoch: i32,
}

impl EndTxnMarker {
    pub fn to_value(self) -> Vec<u8> {
        [&VERSION.to_be_bytes()[..], &self.coordinator_epoch.to_be_bytes()].concat()
    }

    pub fn from_value(value: &[u8]) -> Result<Self, ControlError> {
        let rest = after_version(value)?;
        let epoch = rest.first_chunk().ok_or(ControlError::TooShort(value.len()))?;
        Ok(Self { coordinator_epoch: i32::from_be_bytes(*epoch) })
    }
}

/// The bytes of a key or value after its version.
fn after_version(bytes: &[u8]) -> Result<&[u8], ControlError> {
    let (version, rest) = bytes.split_first_chunk().ok_or(ControlError::TooShort(bytes.len()))?;
    match i16::from_be_bytes(*version) {
        version if version < 0 => Err(ControlError::BadVersion(version)),
        _ => Ok(rest),
    }
}

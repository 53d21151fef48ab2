//! One metadata record, and the frame that Kafka puts around it in the log: frame version, API key
//! and version as unsigned varints, then the body (`AbstractApiMessageSerde`).

use bytes::{Bytes, BytesMut};

use super::records::*;
use crate::protocol::schema::{Field, Reader, WireError, WireMessage, put_unsigned_varint};

const FRAME_VERSION: u32 = 1;

/// Why a metadata record cannot be decoded.
#[derive(Debug, thiserror::Error, PartialEq, Eq, Clone, Copy)]
pub enum RecordError {
    #[error("frame version {0} is not supported")]
    UnsupportedFrame(u32),
    #[error("record type {0} is unknown")]
    UnknownType(u32),
    #[error("record type {api_key} has no version {version}")]
    UnsupportedVersion { api_key: i16, version: u32 },
    #[error(transparent)]
    Wire(#[from] WireError),
}

macro_rules! metadata_records {
    ($($key:literal $name:ident($record:ident) 0..=$max:literal;)*) => {
        /// A record of `__cluster_metadata`.
        #[derive(Clone, Debug, PartialEq)]
        pub enum MetadataRecord { $($name($record),)* }

        impl MetadataRecord {
            pub fn api_key(&self) -> i16 {
                match self { $(Self::$name(_) => $key,)* }
            }

            /// The record's name in Kafka, as `kafka-dump-log` prints its type.
            pub fn name(&self) -> &'static str {
                match self { $(Self::$name(_) => stringify!($record),)* }
            }

            fn encode_body(&self, out: &mut BytesMut, version: i16) {
                match self { $(Self::$name(record) => record.encode(out, version),)* }
            }

            fn decode_body(
                api_key: u32,
                version: u32,
                reader: &mut Reader,
            ) -> Result<Self, RecordError> {
                match api_key {
                    $($key if version <= $max => {
                        Ok(Self::$name(<$record as Field>::read(reader, false, version as i16)?))
                    })*
                    $($key => Err(RecordError::UnsupportedVersion { api_key: $key, version }),)*
                    other => Err(RecordError::UnknownType(other)),
                }
            }
        }

        $(impl From<$record> for MetadataRecord {
            fn from(record: $record) -> Self {
                Self::$name(record)
            }
        })*
    };
}

metadata_records! {
    0 RegisterBroker(RegisterBrokerRecord) 0..=4;
    1 UnregisterBroker(UnregisterBrokerRecord) 0..=0;
    2 Topic(TopicRecord) 0..=0;
    3 Partition(PartitionRecord) 0..=2;
    4 Config(ConfigRecord) 0..=0;
    5 PartitionChange(PartitionChangeRecord) 0..=2;
    7 FenceBroker(FenceBrokerRecord) 0..=0;
    8 UnfenceBroker(UnfenceBrokerRecord) 0..=0;
    9 RemoveTopic(RemoveTopicRecord) 0..=0;
    10 DelegationToken(DelegationTokenRecord) 0..=0;
    11 UserScramCredential(UserScramCredentialRecord) 0..=0;
    12 FeatureLevel(FeatureLevelRecord) 0..=0;
    14 ClientQuota(ClientQuotaRecord) 0..=0;
    15 ProducerIds(ProducerIdsRecord) 0..=0;
    17 BrokerRegistrationChange(BrokerRegistrationChangeRecord) 0..=3;
    18 AccessControlEntry(AccessControlEntryRecord) 0..=0;
    19 RemoveAccessControlEntry(RemoveAccessControlEntryRecord) 0..=0;
    20 NoOp(NoOpRecord) 0..=0;
    21 ZkMigrationState(ZkMigrationStateRecord) 0..=0;
    22 RemoveUserScramCredential(RemoveUserScramCredentialRecord) 0..=0;
    23 BeginTransaction(BeginTransactionRecord) 0..=0;
    24 EndTransaction(EndTransactionRecord) 0..=0;
    25 AbortTransaction(AbortTransactionRecord) 0..=0;
    26 RemoveDelegationToken(RemoveDelegationTokenRecord) 0..=0;
    27 RegisterController(RegisterControllerRecord) 0..=0;
    28 ClearElr(ClearElrRecord) 0..=0;
}

impl MetadataRecord {
    /// The version in which Kafka 4.3.1 writes the record at its newest `metadata.version`. A
    /// `BrokerRegistrationChangeRecord` gets the lowest version that has its fields.
    pub fn version(&self) -> i16 {
        match self {
            Self::RegisterBroker(_) => 4,
            Self::Partition(_) | Self::PartitionChange(_) => 2,
            Self::BrokerRegistrationChange(change) => {
                if change.cordoned_log_dirs.is_some() {
                    3
                } else if !change.log_dirs.is_empty() {
                    2
                } else {
                    i16::from(change.in_controlled_shutdown != 0)
                }
            }
            _ => 0,
        }
    }

    /// Appends the record with its frame to `out`.
    pub fn encode(&self, out: &mut BytesMut) {
        let version = self.version();
        put_unsigned_varint(out, FRAME_VERSION);
        put_unsigned_varint(out, self.api_key() as u32);
        put_unsigned_varint(out, version as u32);
        self.encode_body(out, version);
    }

    pub fn to_bytes(&self) -> Bytes {
        let mut out = BytesMut::new();
        self.encode(&mut out);
        out.freeze()
    }

    /// Decodes a record with its frame. Fails if bytes follow it.
    pub fn decode(bytes: Bytes) -> Result<Self, RecordError> {
        let mut reader = Reader::new(bytes);
        let frame = reader.unsigned_varint()?;
        if frame != FRAME_VERSION {
            return Err(RecordError::UnsupportedFrame(frame));
        }
        let api_key = reader.unsigned_varint()?;
        let version = reader.unsigned_varint()?;
        let record = Self::decode_body(api_key, version, &mut reader)?;
        match reader.remaining() {
            0 => Ok(record),
            left => Err(WireError::TrailingBytes(left).into()),
        }
    }
}

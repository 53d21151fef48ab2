//! Control records: their types, keys and values, in the formats of Kafka's
//! `ControlRecordTypeSchema`, `EndTxnMarker`, `LeaderChangeMessage`, `SnapshotHeaderRecord`,
//! `SnapshotFooterRecord`, `KRaftVersionRecord` and `VotersRecord`.

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
    #[error("control record structure is not valid")]
    BadStructure,
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
        let mut fields = Fields { rest: key, whole: key.len() };
        fields.version()?;
        Ok(Self::from_id(fields.i16()?))
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
        let mut fields = Fields { rest: value, whole: value.len() };
        fields.version()?;
        Ok(Self { coordinator_epoch: fields.i32()? })
    }
}

/// The value of a LEADER_CHANGE record, version 0 (voters without directory ids).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaderChange {
    pub leader_id: i32,
    pub voters: Vec<i32>,
    pub granting_voters: Vec<i32>,
}

impl LeaderChange {
    pub fn to_value(&self) -> Vec<u8> {
        let mut out = VERSION.to_be_bytes().to_vec();
        out.extend_from_slice(&self.leader_id.to_be_bytes());
        for voters in [&self.voters, &self.granting_voters] {
            write_unsigned(&mut out, voters.len() as u32 + 1);
            for voter in voters {
                out.extend_from_slice(&voter.to_be_bytes());
                out.push(NO_TAGGED_FIELDS);
            }
        }
        out.push(NO_TAGGED_FIELDS);
        out
    }

    pub fn from_value(value: &[u8]) -> Result<Self, ControlError> {
        let mut fields = Fields { rest: value, whole: value.len() };
        let with_directories = fields.version()? >= 1;
        let leader_id = fields.i32()?;
        let mut voters = || -> Result<Vec<i32>, ControlError> {
            let count = fields.unsigned()?.saturating_sub(1);
            let mut voters = vec![];
            for _ in 0..count {
                voters.push(fields.i32()?);
                if with_directories {
                    fields.take(16)?;
                }
                fields.skip_tagged()?;
            }
            Ok(voters)
        };
        Ok(Self { leader_id, voters: voters()?, granting_voters: voters()? })
    }
}

/// The value of a SNAPSHOT_HEADER record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SnapshotHeader {
    /// When the last record in the snapshot was appended, in milliseconds since 1970.
    pub last_contained_log_timestamp: i64,
}

impl SnapshotHeader {
    pub fn to_value(self) -> Vec<u8> {
        let mut out = VERSION.to_be_bytes().to_vec();
        out.extend_from_slice(&self.last_contained_log_timestamp.to_be_bytes());
        out.push(NO_TAGGED_FIELDS);
        out
    }

    pub fn from_value(value: &[u8]) -> Result<Self, ControlError> {
        let mut fields = Fields { rest: value, whole: value.len() };
        fields.version()?;
        Ok(Self { last_contained_log_timestamp: i64::from_be_bytes(fields.array()?) })
    }
}

/// The value of a SNAPSHOT_FOOTER record, which has no fields. The record ends a snapshot.
pub fn snapshot_footer_value() -> Vec<u8> {
    [&VERSION.to_be_bytes()[..], &[NO_TAGGED_FIELDS]].concat()
}

/// The value of a KRAFT_VERSION record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KraftVersion {
    pub kraft_version: i16,
}

impl KraftVersion {
    pub fn to_value(self) -> Vec<u8> {
        let mut out = VERSION.to_be_bytes().to_vec();
        out.extend_from_slice(&self.kraft_version.to_be_bytes());
        out.push(NO_TAGGED_FIELDS);
        out
    }

    pub fn from_value(value: &[u8]) -> Result<Self, ControlError> {
        let mut fields = Fields { rest: value, whole: value.len() };
        fields.version()?;
        Ok(Self { kraft_version: fields.i16()? })
    }
}

/// A voter in a KRAFT_VOTERS record (KIP-853).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Voter {
    pub id: i32,
    pub directory_id: uuid::Uuid,
    pub endpoints: Vec<VoterEndpoint>,
    pub kraft_version_min: i16,
    pub kraft_version_max: i16,
}

/// Where a voter listens: listener name, host, port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VoterEndpoint {
    pub name: String,
    pub host: String,
    pub port: u16,
}

/// The value of a KRAFT_VOTERS record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Voters {
    pub voters: Vec<Voter>,
}

impl Voters {
    pub fn to_value(&self) -> Vec<u8> {
        let mut out = VERSION.to_be_bytes().to_vec();
        write_unsigned(&mut out, self.voters.len() as u32 + 1);
        for voter in &self.voters {
            out.extend_from_slice(&voter.id.to_be_bytes());
            out.extend_from_slice(voter.directory_id.as_bytes());
            write_unsigned(&mut out, voter.endpoints.len() as u32 + 1);
            for endpoint in &voter.endpoints {
                for text in [&endpoint.name, &endpoint.host] {
                    write_unsigned(&mut out, text.len() as u32 + 1);
                    out.extend_from_slice(text.as_bytes());
                }
                out.extend_from_slice(&endpoint.port.to_be_bytes());
                out.push(NO_TAGGED_FIELDS);
            }
            out.extend_from_slice(&voter.kraft_version_min.to_be_bytes());
            out.extend_from_slice(&voter.kraft_version_max.to_be_bytes());
            // The version range and the voter are two structures, so each has tagged fields.
            out.extend_from_slice(&[NO_TAGGED_FIELDS; 2]);
        }
        out.push(NO_TAGGED_FIELDS);
        out
    }

    pub fn from_value(value: &[u8]) -> Result<Self, ControlError> {
        let mut fields = Fields { rest: value, whole: value.len() };
        fields.version()?;
        let mut voters = vec![];
        for _ in 0..fields.unsigned()?.saturating_sub(1) {
            let id = fields.i32()?;
            let directory_id = uuid::Uuid::from_bytes(fields.array()?);
            let mut endpoints = vec![];
            for _ in 0..fields.unsigned()?.saturating_sub(1) {
                let (name, host) = (fields.string()?, fields.string()?);
                let port = u16::from_be_bytes(fields.array()?);
                fields.skip_tagged()?;
                endpoints.push(VoterEndpoint { name, host, port });
            }
            let (kraft_version_min, kraft_version_max) = (fields.i16()?, fields.i16()?);
            fields.skip_tagged()?;
            fields.skip_tagged()?;
            voters.push(Voter {
                id,
                directory_id,
                endpoints,
                kraft_version_min,
                kraft_version_max,
            });
        }
        Ok(Self { voters })
    }
}

/// The count of tagged fields if there are none (KIP-482).
const NO_TAGGED_FIELDS: u8 = 0;

fn write_unsigned(out: &mut Vec<u8>, mut value: u32) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Reads the fields of a key or value in order.
struct Fields<'a> {
    rest: &'a [u8],
    /// Bytes of the whole key or value, for errors.
    whole: usize,
}

impl<'a> Fields<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], ControlError> {
        let (taken, rest) =
            self.rest.split_at_checked(count).ok_or(ControlError::TooShort(self.whole))?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], ControlError> {
        Ok(self.take(N)?.try_into().expect("taken to length"))
    }

    fn i16(&mut self) -> Result<i16, ControlError> {
        self.array().map(i16::from_be_bytes)
    }

    fn i32(&mut self) -> Result<i32, ControlError> {
        self.array().map(i32::from_be_bytes)
    }

    fn version(&mut self) -> Result<i16, ControlError> {
        let version = self.i16()?;
        if version < 0 { Err(ControlError::BadVersion(version)) } else { Ok(version) }
    }

    fn unsigned(&mut self) -> Result<u32, ControlError> {
        let mut value = 0;
        for shift in [0, 7, 14, 21, 28] {
            let [byte] = self.array()?;
            value |= u32::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(ControlError::BadStructure)
    }

    fn string(&mut self) -> Result<String, ControlError> {
        let length = self.unsigned()?.checked_sub(1).ok_or(ControlError::BadStructure)?;
        let text = self.take(length as usize)?;
        String::from_utf8(text.to_vec()).map_err(|_| ControlError::BadStructure)
    }

    fn skip_tagged(&mut self) -> Result<(), ControlError> {
        for _ in 0..self.unsigned()? {
            self.unsigned()?;
            let size = self.unsigned()? as usize;
            self.take(size)?;
        }
        Ok(())
    }
}

//! The header of a record batch, and a batch as header plus shared payload, in the layout of
//! Kafka's `DefaultRecordBatch`. The CRC does not cover base offset, length and leader epoch, so a
//! broker assigns offsets without a change of the CRC.

use bytes::Bytes;

/// Size of the header in bytes. The first record follows it.
pub const HEADER_LEN: usize = 61;
/// Size of base offset and length in bytes, which `batch_length` does not include.
pub const LOG_OVERHEAD: usize = 12;
/// The CRC covers everything from the attributes on.
pub(crate) const CRC_START: usize = 21;

/// "No timestamp", in batches and records.
pub const NO_TIMESTAMP: i64 = -1;
pub const NO_PRODUCER_ID: i64 = -1;
pub const NO_SEQUENCE: i32 = -1;

pub(super) const COMPRESSION_MASK: i16 = 0x07;
pub(super) const LOG_APPEND_TIME: i16 = 0x08;
pub(super) const TRANSACTIONAL: i16 = 0x10;
pub(super) const CONTROL: i16 = 0x20;
pub(super) const DELETE_HORIZON: i16 = 0x40;

/// Why bytes are not a valid batch.
#[derive(Debug, thiserror::Error, PartialEq, Eq, Clone, Copy)]
pub enum BatchError {
    #[error("{0} bytes are too few for a record batch header")]
    TooShort(usize),
    #[error("batch length {0} is out of bounds")]
    BadLength(i32),
    #[error("magic {0} is not supported")]
    UnsupportedMagic(i8),
    #[error("compression codec {0} is unknown")]
    UnknownCompression(i16),
    #[error("stored CRC {stored:#010x} differs from computed CRC {computed:#010x}")]
    CrcMismatch { stored: u32, computed: u32 },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

impl Compression {
    #[cfg(test)]
    pub const ALL: [Self; 5] = [Self::None, Self::Gzip, Self::Snappy, Self::Lz4, Self::Zstd];

    pub fn from_attributes(attributes: i16) -> Result<Self, BatchError> {
        match attributes & COMPRESSION_MASK {
            0 => Ok(Self::None),
            1 => Ok(Self::Gzip),
            2 => Ok(Self::Snappy),
            3 => Ok(Self::Lz4),
            4 => Ok(Self::Zstd),
            other => Err(BatchError::UnknownCompression(other)),
        }
    }

    /// The bits that name the codec in a batch's attributes.
    pub fn attributes(self) -> i16 {
        match self {
            Self::None => 0,
            Self::Gzip => 1,
            Self::Snappy => 2,
            Self::Lz4 => 3,
            Self::Zstd => 4,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimestampType {
    CreateTime,
    LogAppendTime,
}

/// The 61 bytes before a batch's records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchHeader {
    pub base_offset: i64,
    /// Bytes after this field.
    pub batch_length: i32,
    pub leader_epoch: i32,
    pub magic: i8,
    pub crc: u32,
    pub attributes: i16,
    pub last_offset_delta: i32,
    pub base_timestamp: i64,
    pub max_timestamp: i64,
    pub producer_id: i64,
    pub producer_epoch: i16,
    pub base_sequence: i32,
    pub record_count: i32,
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("sliced to length")
}

impl BatchHeader {
    /// Reads a header. Fails if `bytes` has less than a header, if the magic is not 2, or if the
    /// batch length is less than a header. Nothing else is checked: the batch may be longer than
    /// `bytes`.
    pub fn parse(bytes: &[u8]) -> Result<Self, BatchError> {
        if bytes.len() < LOG_OVERHEAD + 5 {
            return Err(BatchError::TooShort(bytes.len()));
        }
        let batch_length = i32::from_be_bytes(field(bytes, 8));
        let magic = bytes[16] as i8;
        if magic != 2 {
            return Err(BatchError::UnsupportedMagic(magic));
        }
        if bytes.len() < HEADER_LEN {
            return Err(BatchError::TooShort(bytes.len()));
        }
        if batch_length < (HEADER_LEN - LOG_OVERHEAD) as i32 {
            return Err(BatchError::BadLength(batch_length));
        }
        Ok(Self {
            base_offset: i64::from_be_bytes(field(bytes, 0)),
            batch_length,
            leader_epoch: i32::from_be_bytes(field(bytes, 12)),
            magic,
            crc: u32::from_be_bytes(field(bytes, 17)),
            attributes: i16::from_be_bytes(field(bytes, 21)),
            last_offset_delta: i32::from_be_bytes(field(bytes, 23)),
            base_timestamp: i64::from_be_bytes(field(bytes, 27)),
            max_timestamp: i64::from_be_bytes(field(bytes, 35)),
            producer_id: i64::from_be_bytes(field(bytes, 43)),
            producer_epoch: i16::from_be_bytes(field(bytes, 51)),
            base_sequence: i32::from_be_bytes(field(bytes, 53)),
            record_count: i32::from_be_bytes(field(bytes, 57)),
        })
    }

    pub fn to_bytes(&self) -> [u8; HEADER_LEN] {
        let mut out = [0; HEADER_LEN];
        out[0..8].copy_from_slice(&self.base_offset.to_be_bytes());
        out[8..12].copy_from_slice(&self.batch_length.to_be_bytes());
        out[12..16].copy_from_slice(&self.leader_epoch.to_be_bytes());
        out[16] = self.magic as u8;
        out[17..21].copy_from_slice(&self.crc.to_be_bytes());
        out[21..23].copy_from_slice(&self.attributes.to_be_bytes());
        out[23..27].copy_from_slice(&self.last_offset_delta.to_be_bytes());
        out[27..35].copy_from_slice(&self.base_timestamp.to_be_bytes());
        out[35..43].copy_from_slice(&self.max_timestamp.to_be_bytes());
        out[43..51].copy_from_slice(&self.producer_id.to_be_bytes());
        out[51..53].copy_from_slice(&self.producer_epoch.to_be_bytes());
        out[53..57].copy_from_slice(&self.base_sequence.to_be_bytes());
        out[57..61].copy_from_slice(&self.record_count.to_be_bytes());
        out
    }

    /// Size of the whole batch in bytes, including the header.
    pub fn size(&self) -> usize {
        self.batch_length as usize + LOG_OVERHEAD
    }

    pub fn last_offset(&self) -> i64 {
        self.base_offset + i64::from(self.last_offset_delta)
    }

    /// Whether the offsets are not negative, and there is an offset after the last one.
    pub fn has_valid_offsets(&self) -> bool {
        let delta = i64::from(self.last_offset_delta);
        self.base_offset >= 0 && delta >= 0 && self.base_offset.checked_add(delta + 1).is_some()
    }

    /// The sequence number of the last record. Sequence numbers continue with 0 after `i32::MAX`.
    pub fn last_sequence(&self) -> i32 {
        if self.base_sequence == NO_SEQUENCE {
            return NO_SEQUENCE;
        }
        let last = i64::from(self.base_sequence) + i64::from(self.last_offset_delta);
        (last % (i64::from(i32::MAX) + 1)) as i32
    }

    pub fn compression(&self) -> Result<Compression, BatchError> {
        Compression::from_attributes(self.attributes)
    }

    pub fn timestamp_type(&self) -> TimestampType {
        match self.attributes & LOG_APPEND_TIME {
            0 => TimestampType::CreateTime,
            _ => TimestampType::LogAppendTime,
        }
    }

    /// Whether the batch has a producer id. As -1, any other negative id means none.
    pub fn has_producer_id(&self) -> bool {
        self.producer_id > NO_PRODUCER_ID
    }

    pub fn is_transactional(&self) -> bool {
        self.attributes & TRANSACTIONAL != 0
    }

    pub fn is_control(&self) -> bool {
        self.attributes & CONTROL != 0
    }

    /// Whether the base timestamp is a delete horizon (KIP-534).
    pub fn has_delete_horizon(&self) -> bool {
        self.attributes & DELETE_HORIZON != 0
    }

    /// The time in milliseconds since 1970 from which compaction may remove the tombstones or the
    /// marker of the batch (KIP-534). Compaction sets it.
    pub fn delete_horizon(&self) -> Option<i64> {
        self.has_delete_horizon().then_some(self.base_timestamp)
    }
}

/// A batch: a header that callers may change, and a payload that is a slice of the bytes from which
/// it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    pub header: BatchHeader,
    /// Everything after the header's 61 bytes, compressed if the attributes say so.
    pub payload: Bytes,
}

impl Batch {
    /// Splits the first batch off `bytes`. Fails if the header is not valid or the batch is cut
    /// short. The CRC is not checked.
    pub fn split_first(bytes: &mut Bytes) -> Result<Self, BatchError> {
        let header = BatchHeader::parse(bytes)?;
        if header.size() > bytes.len() {
            return Err(BatchError::BadLength(header.batch_length));
        }
        let mut whole = bytes.split_to(header.size());
        let payload = whole.split_off(HEADER_LEN);
        Ok(Self { header, payload })
    }

    pub fn size(&self) -> usize {
        HEADER_LEN + self.payload.len()
    }

    /// The batch without its records, as compaction leaves it to keep the offsets and the sequence
    /// numbers (Kafka's `DefaultRecordBatch.writeEmptyHeader`). It has no codec and no delete
    /// horizon.
    pub fn without_records(&self) -> Self {
        let header = BatchHeader {
            batch_length: (HEADER_LEN - LOG_OVERHEAD) as i32,
            attributes: self.header.attributes & (LOG_APPEND_TIME | TRANSACTIONAL | CONTROL),
            base_timestamp: NO_TIMESTAMP,
            record_count: 0,
            ..self.header
        };
        let mut batch = Self { header, payload: Bytes::new() };
        batch.header.crc = batch.computed_crc();
        batch
    }

    /// Computes the CRC of the current header and payload.
    pub fn computed_crc(&self) -> u32 {
        let header = crc32c::crc32c(&self.header.to_bytes()[CRC_START..]);
        crc32c::crc32c_append(header, &self.payload)
    }

    /// Fails if the CRC in the header is not the computed one.
    pub fn verify_crc(&self) -> Result<(), BatchError> {
        let (stored, computed) = (self.header.crc, self.computed_crc());
        if stored == computed {
            return Ok(());
        }
        Err(BatchError::CrcMismatch { stored, computed })
    }
}

//! Record batches of the metadata log: metadata records without keys, and control records.
//! Layout: Kafka's `DefaultRecord`, `ControlRecordType` and `common/message/LeaderChangeMessage`.

use bytes::{BufMut, Bytes, BytesMut};
use uuid::Uuid;

use crate::{
    metadata::{MetadataRecord, RecordError},
    protocol::schema::WireError,
    records::{Batch, BatchError, BatchHeader, Compression, ControlRecordType},
    wire,
};

const CONTROL: i16 = 0x20;
const HEADER_LEN: usize = crate::records::batch::HEADER_LEN;

#[derive(Debug, thiserror::Error, PartialEq, Clone)]
pub enum FormatError {
    #[error(transparent)]
    Batch(#[from] BatchError),
    #[error("metadata batches are never compressed, this one is")]
    Compressed,
    #[error("a record's length or varint is out of bounds")]
    BadRecord,
    #[error("the batch's count says {expected} records, it holds {found}")]
    BadCount { expected: i32, found: usize },
    #[error(transparent)]
    Record(#[from] RecordError),
    #[error(transparent)]
    Control(#[from] WireError),
}

wire! {
    /// The first record of a leader's epoch.
    pub struct LeaderChangeMessage (flexible 0..) {
        version: i16, in 0..;
        leader_id: i32 = -1, in 0..;
        voters: Vec<Voter>, in 0..;
        granting_voters: Vec<Voter>, in 0..;
    }
    /// A voter of the quorum.
    pub struct Voter (flexible 0..) {
        voter_id: i32, in 0..;
        voter_directory_id: Uuid, in 1..;
    }
    /// The first record of a snapshot. Raft's index of the last batch that the snapshot includes,
    /// and of the last batch of voters, are in tagged fields, which Kafka skips.
    pub struct SnapshotHeader (flexible 0..) {
        version: i16, in 0..;
        last_contained_log_timestamp: i64, in 0..;
        raft_index: i64 = -1, in 0.., tag 10000;
        voters_index: i64 = -1, in 0.., tag 10001;
        voters_epoch: i32 = -1, in 0.., tag 10002;
    }
    /// The last record of a snapshot.
    pub struct SnapshotFooter (flexible 0..) {
        version: i16, in 0..;
    }
}

/// The decoded content of a batch of the metadata log or of a snapshot.
#[derive(Debug, Clone, PartialEq)]
pub enum Contents {
    Records(Vec<MetadataRecord>),
    Control(Vec<Control>),
}

/// A control record's type and value.
#[derive(Debug, Clone, PartialEq)]
pub struct Control {
    pub kind: ControlRecordType,
    pub value: Bytes,
}

/// The fields of a batch header that the writer chooses.
#[derive(Default)]
pub struct Stamp {
    pub base_offset: i64,
    pub epoch: i32,
    /// Milliseconds since the Unix epoch.
    pub append_ms: i64,
}

pub fn encode_records(stamp: &Stamp, records: &[MetadataRecord]) -> Bytes {
    let mut body = BytesMut::with_capacity(HEADER_LEN + records.len() * 64);
    body.put_bytes(0, HEADER_LEN);
    let mut value = BytesMut::new();
    for (delta, record) in records.iter().enumerate() {
        value.clear();
        record.encode(&mut value);
        put_record(&mut body, delta as i32, None, &value);
    }
    finish(stamp, 0, records.len() as i32, body)
}

pub fn encode_control(stamp: &Stamp, controls: &[Control]) -> Bytes {
    let mut body = BytesMut::with_capacity(HEADER_LEN + 64);
    body.put_bytes(0, HEADER_LEN);
    for (delta, control) in controls.iter().enumerate() {
        put_record(&mut body, delta as i32, Some(&control.kind.to_key()[..]), &control.value);
    }
    finish(stamp, CONTROL, controls.len() as i32, body)
}

fn put_record(out: &mut BytesMut, delta: i32, key: Option<&[u8]>, value: &[u8]) {
    let mut record = BytesMut::with_capacity(value.len() + 16);
    record.put_u8(0); // attributes
    put_varint(&mut record, 0); // timestamp delta
    put_varint(&mut record, delta);
    put_varint(&mut record, key.map_or(-1, |key| key.len() as i32));
    record.put_slice(key.unwrap_or_default());
    put_varint(&mut record, value.len() as i32);
    record.put_slice(value);
    put_varint(&mut record, 0); // headers
    put_varint(out, record.len() as i32);
    out.put_slice(&record);
}

/// Puts the header before the records in `body`, whose first `HEADER_LEN` bytes are kept free.
fn finish(stamp: &Stamp, attributes: i16, count: i32, body: BytesMut) -> Bytes {
    let payload = body.freeze().slice(HEADER_LEN..);
    let header = BatchHeader {
        base_offset: stamp.base_offset,
        batch_length: (HEADER_LEN + payload.len() - crate::records::batch::LOG_OVERHEAD) as i32,
        leader_epoch: stamp.epoch,
        magic: 2,
        crc: 0,
        attributes,
        last_offset_delta: count - 1,
        base_timestamp: stamp.append_ms,
        max_timestamp: stamp.append_ms,
        producer_id: -1,
        producer_epoch: -1,
        base_sequence: -1,
        record_count: count,
    };
    let mut batch = Batch { header, payload };
    batch.header.crc = batch.computed_crc();
    let mut out = BytesMut::with_capacity(batch.size());
    out.put_slice(&batch.header.to_bytes());
    out.put_slice(&batch.payload);
    out.freeze()
}

/// Decodes a batch whose CRC was checked.
pub fn decode(batch: &Batch) -> Result<Contents, FormatError> {
    if batch.header.compression()? != Compression::None {
        return Err(FormatError::Compressed);
    }
    if batch.header.is_control() {
        return Ok(Contents::Control(decode_control(batch)?));
    }
    let mut payload = batch.payload.clone();
    let (mut records, mut found) = (Vec::new(), 0);
    while !payload.is_empty() {
        let (_, value) = take_record(&mut payload)?;
        found += 1;
        match MetadataRecord::decode(value) {
            Ok(record) => records.push(record),
            // The record is from a newer controller. If it matters, that controller refuses to
            // register this node as a broker.
            Err(error @ (RecordError::UnknownType(_) | RecordError::UnsupportedVersion { .. })) => {
                tracing::warn!(offset = batch.header.base_offset, %error, "metadata is skipped")
            }
            Err(error) => return Err(error.into()),
        }
    }
    check_count(batch, found)?;
    Ok(Contents::Records(records))
}

fn check_count(batch: &Batch, found: usize) -> Result<(), FormatError> {
    let expected = batch.header.record_count;
    if expected != found as i32 {
        return Err(FormatError::BadCount { expected, found });
    }
    Ok(())
}

fn decode_control(batch: &Batch) -> Result<Vec<Control>, FormatError> {
    let mut payload = batch.payload.clone();
    let mut controls = Vec::new();
    while !payload.is_empty() {
        let (key, value) = take_record(&mut payload)?;
        let kind = ControlRecordType::from_key(&key.ok_or(FormatError::BadRecord)?);
        controls.push(Control { kind: kind.map_err(|_| FormatError::BadRecord)?, value });
    }
    check_count(batch, controls.len())?;
    Ok(controls)
}

/// The control records of a batch. Empty if it has metadata records.
pub fn controls(batch: &Batch) -> Result<Vec<Control>, FormatError> {
    if batch.header.is_control() { decode_control(batch) } else { Ok(Vec::new()) }
}

/// The id of the leader that a batch names. `None` unless it is the first batch of an epoch.
pub fn leader_of(bytes: &Bytes) -> Option<i32> {
    let batch = Batch::split_first(&mut bytes.clone()).ok()?;
    let controls = controls(&batch).ok()?;
    let change = controls.iter().find(|control| control.kind == ControlRecordType::LeaderChange)?;
    // The value begins with the version (2 bytes) and the leader's id (4 bytes).
    let id = change.value.get(2..6)?;
    Some(i32::from_be_bytes(id.try_into().ok()?))
}

/// Takes the next record: its key and its value. Its headers are skipped.
fn take_record(payload: &mut Bytes) -> Result<(Option<Bytes>, Bytes), FormatError> {
    let len = usize::try_from(take_varint(payload)?).map_err(|_| FormatError::BadRecord)?;
    let mut record = take(payload, len)?;
    take(&mut record, 1)?;
    take_varlong(&mut record)?;
    take_varint(&mut record)?;
    let key = match take_varint(&mut record)? {
        -1 => None,
        len => {
            let len = usize::try_from(len).map_err(|_| FormatError::BadRecord)?;
            Some(take(&mut record, len)?)
        }
    };
    let len = usize::try_from(take_varint(&mut record)?).map_err(|_| FormatError::BadRecord)?;
    Ok((key, take(&mut record, len)?))
}

fn take(bytes: &mut Bytes, len: usize) -> Result<Bytes, FormatError> {
    if len > bytes.len() {
        return Err(FormatError::BadRecord);
    }
    Ok(bytes.split_to(len))
}

fn put_varint(out: &mut BytesMut, value: i32) {
    let zigzag = ((value << 1) ^ (value >> 31)) as u32;
    crate::protocol::schema::put_unsigned_varint(out, zigzag);
}

fn take_varint(bytes: &mut Bytes) -> Result<i32, FormatError> {
    i32::try_from(take_varlong(bytes)?).map_err(|_| FormatError::BadRecord)
}

fn take_varlong(bytes: &mut Bytes) -> Result<i64, FormatError> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = take(bytes, 1)?[0];
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok((value >> 1) as i64 ^ -((value & 1) as i64));
        }
    }
    Err(FormatError::BadRecord)
}

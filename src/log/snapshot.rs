//! `.snapshot` files: the state of a log's producers at an offset (Kafka's `ProducerSnapshot`
//! schema, version 1). A CRC-32C covers everything after it.

use super::{
    FormatError,
    producers::{BatchMeta, ProducerEntry},
};

const VERSION: i16 = 1;
const CRC_AT: usize = 2;
const ENTRIES_AT: usize = 6;
const ENTRY_LEN: usize = 46;
const NONE: i64 = -1;

pub fn encode<'a>(entries: impl ExactSizeIterator<Item = (i64, &'a ProducerEntry)>) -> Vec<u8> {
    let mut out = Vec::with_capacity(ENTRIES_AT + 4 + entries.len() * ENTRY_LEN);
    out.extend_from_slice(&VERSION.to_be_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&(entries.len() as i32).to_be_bytes());
    for (producer_id, entry) in entries {
        let last = entry.last_batch();
        out.extend_from_slice(&producer_id.to_be_bytes());
        out.extend_from_slice(&entry.epoch.to_be_bytes());
        out.extend_from_slice(&last.map_or(-1, |last| last.last_sequence).to_be_bytes());
        out.extend_from_slice(&last.map_or(NONE, |last| last.last_offset).to_be_bytes());
        out.extend_from_slice(&last.map_or(0, |last| last.offset_delta).to_be_bytes());
        out.extend_from_slice(&entry.last_timestamp.to_be_bytes());
        out.extend_from_slice(&entry.coordinator_epoch.to_be_bytes());
        out.extend_from_slice(&entry.current_txn_first_offset.unwrap_or(NONE).to_be_bytes());
    }
    let crc = crc32c::crc32c(&out[ENTRIES_AT..]);
    out[CRC_AT..ENTRIES_AT].copy_from_slice(&crc.to_be_bytes());
    out
}

struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let (field, rest) = self.0.split_first_chunk().expect("the length was checked");
        self.0 = rest;
        *field
    }

    fn i32(&mut self) -> i32 {
        i32::from_be_bytes(self.take())
    }

    fn i64(&mut self) -> i64 {
        i64::from_be_bytes(self.take())
    }
}

/// Decodes the ids of producers with their states. Fails on an unknown version, a wrong CRC or a
/// wrong length.
pub fn decode(bytes: &[u8]) -> Result<Vec<(i64, ProducerEntry)>, FormatError> {
    let (head, body) = bytes
        .split_at_checked(ENTRIES_AT + 4)
        .ok_or_else(|| FormatError::new("is too short for a producer snapshot"))?;
    let mut head = Fields(head);
    let version = i16::from_be_bytes(head.take());
    if version != VERSION {
        return Err(FormatError::new(format!("has the unknown version {version}")));
    }
    let (stored, computed) =
        (u32::from_be_bytes(head.take()), crc32c::crc32c(&bytes[ENTRIES_AT..]));
    if stored != computed {
        let message = format!("has the CRC {stored:#010x}, but its content has {computed:#010x}");
        return Err(FormatError::new(message));
    }
    if usize::try_from(head.i32()).ok() != Some(body.len() / ENTRY_LEN)
        || !body.len().is_multiple_of(ENTRY_LEN)
    {
        return Err(FormatError::new("has a count that does not fit its length"));
    }
    Ok(body.chunks_exact(ENTRY_LEN).map(|entry| decode_entry(Fields(entry))).collect())
}

fn decode_entry(mut fields: Fields<'_>) -> (i64, ProducerEntry) {
    let producer_id = fields.i64();
    let epoch = i16::from_be_bytes(fields.take());
    let last_sequence = fields.i32();
    let last_offset = fields.i64();
    let offset_delta = fields.i32();
    let timestamp = fields.i64();
    let coordinator_epoch = fields.i32();
    let txn = fields.i64();
    let mut entry = ProducerEntry { epoch, coordinator_epoch, ..ProducerEntry::default() };
    if last_offset >= 0 {
        entry.push(epoch, BatchMeta { last_sequence, last_offset, offset_delta, timestamp });
    }
    entry.last_timestamp = timestamp;
    entry.current_txn_first_offset = (txn >= 0).then_some(txn);
    (producer_id, entry)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Written by Apache Kafka 4.3.1 for one idempotent producer.
    const KAFKAS: [u8; 56] = [
        0, 1, 0xc0, 0x88, 0xbd, 0xf2, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7, 0xe6, 0,
        0, 0, 0, 0, 0, 7, 0xe6, 0, 0, 0, 6, 0, 0, 1, 0xa1, 0xfe, 0x2b, 0x7f, 0xb4, 0xff, 0xff,
        0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
    ];

    #[test]
    fn reads_and_writes_what_kafka_wrote() {
        let entries = decode(&KAFKAS).expect("decodes");
        let (producer_id, entry) = &entries[0];
        let last = entry.last_batch().expect("has a batch");
        assert_eq!((*producer_id, entry.epoch, entry.coordinator_epoch), (0, 0, -1));
        assert_eq!((last.last_sequence, last.last_offset, last.offset_delta), (2022, 2022, 6));
        assert_eq!(encode(entries.iter().map(|(id, entry)| (*id, entry))), KAFKAS);
    }

    #[test]
    fn damaged_snapshot_is_rejected() {
        for at in 0..KAFKAS.len() {
            let mut damaged = KAFKAS;
            damaged[at] ^= 0x10;
            assert!(decode(&damaged).is_err(), "byte {at}");
            assert!(decode(&KAFKAS[..at]).is_err(), "length {at}");
        }
    }

    proptest! {
        #[test]
        fn round_trips(producers in prop::collection::vec(
            (any::<(i64, i16, i32, i64, i32)>(), 0..1i64 << 60, any::<bool>(), 0..9i32), 0..9)
        ) {
            let entries: Vec<(i64, ProducerEntry)> = producers
                .into_iter()
                .map(|((id, epoch, coordinator_epoch, timestamp, last_sequence), offset, txn, delta)| {
                    let mut entry = ProducerEntry { coordinator_epoch, ..Default::default() };
                    entry.current_txn_first_offset = txn.then_some(offset);
                    let last_offset = offset;
                    let meta = BatchMeta { last_sequence, last_offset, offset_delta: delta, timestamp };
                    entry.push(epoch, meta);
                    (id, entry)
                })
                .collect();
            let bytes = encode(entries.iter().map(|(id, entry)| (*id, entry)));
            prop_assert_eq!(decode(&bytes), Ok(entries));
        }
    }
}

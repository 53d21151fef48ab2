//! Batches and directories for tests.

use bytes::Bytes;

use crate::records::{
    Batch, BatchHeader,
    batch::{HEADER_LEN, LOG_OVERHEAD, NO_PRODUCER_ID, NO_SEQUENCE},
};

/// A batch of `count` records whose payload is just `size` bytes.
pub fn batch(base_offset: i64, count: i32, size: usize) -> Batch {
    let header = BatchHeader {
        base_offset,
        batch_length: (HEADER_LEN - LOG_OVERHEAD + size) as i32,
        leader_epoch: 0,
        magic: 2,
        crc: 0,
        attributes: 0,
        last_offset_delta: count - 1,
        base_timestamp: 1000 + base_offset,
        max_timestamp: 1000 + base_offset,
        producer_id: NO_PRODUCER_ID,
        producer_epoch: -1,
        base_sequence: NO_SEQUENCE,
        record_count: count,
    };
    let payload = Bytes::from(vec![base_offset as u8; size]);
    sealed(Batch { header, payload })
}

/// Sets the CRC of a batch to the one that fits it.
pub fn sealed(mut batch: Batch) -> Batch {
    batch.header.crc = batch.computed_crc();
    batch
}

/// Turns a batch into one of a producer with an id.
pub fn of_producer(mut batch: Batch, id: i64, epoch: i16, sequence: i32) -> Batch {
    batch.header.producer_id = id;
    batch.header.producer_epoch = epoch;
    batch.header.base_sequence = sequence;
    sealed(batch)
}

pub fn bytes_of(batch: &Batch) -> Vec<u8> {
    [&batch.header.to_bytes()[..], &batch.payload].concat()
}

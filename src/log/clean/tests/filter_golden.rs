//! Comparisons with the bytes that `MemoryRecords.filterTo` of Apache Kafka 4.3.1 wrote.
//!
//! The batch has the base offset 70 and five records, the fourth without a value:
//! - original: as Kafka's builder writes it.
//! - values: the second and the third record stay.
//! - horizon: the second and the fourth record stay, and the batch gets a delete horizon.
//! - after: the second record stays when the horizon of the batch before has passed.
//! - empty: no record stays, but the batch does.
//!
//! The marker is the original, then with a horizon, then without its record.

use bytes::Bytes;

use super::*;
use crate::{log::clean::LastRecord, log::testing::bytes_of};

/// A batch with CreateTime, and what Kafka made of it.
const CREATE_TIME: [&str; 5] = [
    "00000000000000460000006e0000000c02c2eda35800100000000400000000000003e800000000000023\
     280000000000000fa0000300000009000000051000000002610231003000c70102066b65790a76616c75\
     65060268023102680100001200c03e0402620232000c0063060001001200807d080263023300",
    "0000000000000046000000530000000c028f7f55df001000000004000000000000038400000000000013\
     880000000000000fa0000300000009000000022e000002066b65790a76616c7565060268023102680100\
     0012008840040262023200",
    "00000000000000460000005a0000000c02dff12e3a0050000000040000018bd50bc40000000000000003\
     b60000000000000fa0000300000009000000023800f781ded0fa6202066b65790a76616c756506026802\
     31026801000016009381ded0fa6206000100",
    "00000000000000460000004e0000000c020eb7c9c90050000000040000018bd50bc40000000000000003\
     840000000000000fa0000300000009000000013800f781ded0fa6202066b65790a76616c756506026802\
     310268010000",
    "0000000000000046000000310000000c025da65fff001000000004ffffffffffffffff00000000000023\
     280000000000000fa000030000000900000000",
];

/// A batch with LogAppendTime, and what Kafka made of it.
const LOG_APPEND_TIME: [&str; 5] = [
    "00000000000000460000006e0000000c021cde7b6800180000000400000000000003e8000000000001e2\
     400000000000000fa0000300000009000000051000000002610231003000c70102066b65790a76616c75\
     65060268023102680100001200c03e0402620232000c0063060001001200807d080263023300",
    "0000000000000046000000520000000c02f78d3bb9001800000004000000000001e240000000000001e2\
     400000000000000fa0000300000009000000022e000002066b65790a76616c7565060268023102680100\
     00100000040262023200",
    "00000000000000460000005a0000000c020429e07d0058000000040000018bd50bc400000000000001e2\
     400000000000000fa0000300000009000000023800ff86cfd0fa6202066b65790a76616c756506026802\
     3102680100001600ff86cfd0fa6206000100",
    "00000000000000460000004e0000000c02f84e7c480058000000040000018bd50bc400000000000001e2\
     400000000000000fa0000300000009000000013800ff86cfd0fa6202066b65790a76616c756506026802\
     310268010000",
    "0000000000000046000000310000000c022da0df3c001800000004ffffffffffffffff000000000001e2\
     400000000000000fa000030000000900000000",
];

/// A marker, and what Kafka made of it.
const MARKER: [&str; 3] = [
    "000000000000004b000000420000000c023c6782e6003000000000000000000000030900000000000003\
     090000000000000fa00003ffffffff000000012000000008000000000c00000000000800",
    "000000000000004b000000470000000c02b1e160950070000000000000018bd50bc40000000000000003\
     090000000000000fa00003ffffffff000000012a00ed83ded0fa620008000000000c00000000000800",
    "000000000000004b000000310000000c02716be479003000000000ffffffffffffffff00000000000003\
     090000000000000fa00003ffffffff00000000",
];

fn unhex(text: &str) -> Bytes {
    let digit = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).expect("is hexadecimal");
    (0..text.len()).step_by(2).map(digit).collect()
}

fn batch_of(text: &str) -> Batch {
    let batch = Batch::split_first(&mut unhex(text)).expect("is a batch");
    batch.verify_crc().expect("the CRC fits");
    batch
}

/// A map in which later records replace the keys.
fn replacing(keys: &[&str]) -> OffsetMap {
    map_of(&keys.iter().map(|key| (*key, 900)).collect::<Vec<_>>())
}

#[track_caller]
fn assert_rebuilt(map: &OffsetMap, rules: FilterRules, batch: &Batch, expected: &str) {
    let mut filter = Filter::new(map, rules);
    let last = LastRecord { last_data_offset: Some(74), epoch: 3 };
    filter.set_last_records([(4000, last)].into());
    let rebuilt = rebuilt(&mut filter, batch);
    assert_eq!(Bytes::from(bytes_of(&rebuilt)), unhex(expected));
}

#[test]
fn rebuilt_batches_have_the_bytes_of_kafka() {
    for [original, values, horizon, after, empty] in [CREATE_TIME, LOG_APPEND_TIME] {
        let batch = batch_of(original);
        let rules = rules(1000);
        assert_rebuilt(&replacing(&["a", "", "c"]), rules, &batch, values);
        assert_rebuilt(&replacing(&["a", "b", "c"]), rules, &batch, horizon);
        let later = FilterRules { now_ms: NOW + RETENTION, ..rules };
        assert_rebuilt(&replacing(&["a"]), later, &batch_of(horizon), after);
        assert_rebuilt(&replacing(&["a", "key", "b", "", "c"]), rules, &batch, empty);
    }
}

#[test]
fn rebuilt_markers_have_the_bytes_of_kafka() {
    let [original, horizon, empty] = MARKER.map(batch_of);
    let map = map_of(&[]);
    assert_rebuilt(&map, rules(1000), &original, MARKER[1]);
    let end = FilterRules { range_end: 76, now_ms: NOW + RETENTION, ..rules(1000) };
    assert_rebuilt(&map, end, &horizon, MARKER[2]);
    assert_eq!(Filter::new(&map, end).apply(&empty), Ok(super::super::Filtered::AsIs));
}

#[test]
fn compressed_batches_have_the_records_of_kafka() {
    let plain = batch_of(CREATE_TIME[0]);
    let expected = batch_of(CREATE_TIME[2]);
    for compression in Compression::ALL {
        let payload = crate::records::compress(compression, None, &plain.payload);
        let mut batch =
            Batch { payload: payload.expect("can be compressed").into(), ..plain.clone() };
        batch.header.attributes |= compression.attributes();
        let map = replacing(&["a", "b", "c"]);
        let new = rebuilt(&mut Filter::new(&map, rules(1000)), &batch);
        assert_eq!(new.uncompressed_payload(1000).expect("can be read"), expected.payload);
        let attributes = expected.header.attributes | compression.attributes();
        let (crc, batch_length) = (new.header.crc, new.header.batch_length);
        let header =
            crate::records::BatchHeader { attributes, crc, batch_length, ..expected.header };
        assert_eq!(new.header, header);
    }
}

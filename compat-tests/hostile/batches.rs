//! Malformed record batches in Produce requests.

use std::time::{Duration, Instant};

use super::{broker::Broker, shared::client::Client};

const PATIENCE: Duration = Duration::from_secs(10);

/// The bytes of a batch with one record (key null, value `v`), to be changed before the CRC is set.
struct Batch(Vec<u8>);

impl Batch {
    fn new() -> Self {
        let record: &[u8] = &[14, 0, 0, 0, 1, 2, b'v', 0];
        let mut batch = vec![0; 61];
        batch[16] = 2; // magic
        batch[27..35].copy_from_slice(&1_700_000_000_000i64.to_be_bytes());
        batch[35..43].copy_from_slice(&1_700_000_000_000i64.to_be_bytes());
        batch[43..51].fill(0xff); // producer id
        batch[51..53].fill(0xff); // producer epoch
        batch[53..57].fill(0xff); // base sequence
        batch[60] = 1; // records
        batch.extend(record);
        Self(batch).with_length()
    }

    fn set(mut self, at: usize, bytes: &[u8]) -> Self {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
        self
    }

    fn with_length(self) -> Self {
        let length = (self.0.len() as i32 - 12).to_be_bytes();
        self.set(8, &length)
    }

    fn with_crc(self) -> Vec<u8> {
        let crc = crc32c::crc32c(&self.0[21..]).to_be_bytes();
        self.set(17, &crc).0
    }
}

/// Produces these bytes. Returns the error code.
fn produce(client: &mut Client, topic: &str, records: Vec<u8>) -> i16 {
    client.produce_bytes((topic, 0), records).expect("answered").err().unwrap_or(0)
}

/// A case: its description, the error code of Apache Kafka 4.3.1, and the bytes.
type Case = (&'static str, i16, Vec<u8>);

fn good() -> Vec<u8> {
    Batch::new().with_crc()
}

fn headers() -> Vec<Case> {
    vec![
        ("wrong CRC", 2, Batch::new().set(17, &[1, 2, 3, 4]).0),
        ("a changed byte", 2, {
            let mut bytes = good();
            bytes[66] ^= 1;
            bytes
        }),
        ("magic 0", 87, Batch::new().set(16, &[0]).with_crc()),
        ("magic 1", 87, Batch::new().set(16, &[1]).with_crc()),
        ("magic 3", 2, Batch::new().set(16, &[3]).with_crc()),
        ("magic -1", 2, Batch::new().set(16, &[0xff]).with_crc()),
        ("length 0", 2, Batch::new().set(8, &[0; 4]).with_crc()),
        ("length -1", 2, Batch::new().set(8, &[0xff; 4]).with_crc()),
        ("length huge", -1, Batch::new().set(8, &[0x7f, 0xff, 0xff, 0xff]).with_crc()),
        ("length one less", 2, Batch::new().set(8, &[0, 0, 0, 56]).with_crc()),
        ("length one more", 87, Batch::new().set(8, &[0, 0, 0, 58]).with_crc()),
        ("record count 2", 87, Batch::new().set(57, &[0, 0, 0, 2]).with_crc()),
        ("record count 0", 87, Batch::new().set(57, &[0, 0, 0, 0]).with_crc()),
        ("record count -1", 87, Batch::new().set(57, &[0xff; 4]).with_crc()),
        ("record count huge", 87, Batch::new().set(57, &[0x7f, 0xff, 0xff, 0xff]).with_crc()),
        ("last offset delta 1", 87, Batch::new().set(23, &[0, 0, 0, 1]).with_crc()),
        ("last offset delta -1", 87, Batch::new().set(23, &[0xff; 4]).with_crc()),
        ("base offset 5", 87, Batch::new().set(7, &[5]).with_crc()),
    ]
}

fn contents() -> Vec<Case> {
    let cut = |len: usize| good()[..len].to_vec();
    vec![
        ("codec 5", -1, Batch::new().set(21, &[0, 5]).with_crc()),
        ("codec 7", -1, Batch::new().set(21, &[0, 7]).with_crc()),
        ("gzip that is none", -1, Batch::new().set(21, &[0, 1]).with_crc()),
        ("control batch", 87, Batch::new().set(21, &[0, 0x20]).with_crc()),
        ("LogAppendTime", 0, Batch::new().set(21, &[0, 8]).with_crc()),
        ("record length huge", 87, Batch::new().set(61, &[0xfe]).with_crc()),
        ("record length 0", 87, Batch::new().set(61, &[0]).with_crc()),
        ("offset delta 1 in record", 0, Batch::new().set(64, &[2]).with_crc()),
        ("value length huge", 87, Batch::new().set(66, &[0x7e]).with_crc()),
        (
            "timestamp far ahead",
            32,
            Batch::new()
                .set(27, &4_000_000_000_000i64.to_be_bytes())
                .set(35, &4_000_000_000_000i64.to_be_bytes())
                .with_crc(),
        ),
        ("max timestamp wrong", 0, Batch::new().set(35, &5i64.to_be_bytes()).with_crc()),
        ("sequence without producer", 0, Batch::new().set(53, &[0; 4]).with_crc()),
        ("producer without sequence", 87, Batch::new().set(43, &[0; 10]).with_crc()),
        ("two batches", 87, [good(), good()].concat()),
        ("a batch and a byte", 0, [good(), vec![0]].concat()),
        ("half a header", 87, cut(30)),
        ("a byte short", 87, cut(68)),
        ("no bytes", 87, Vec::new()),
    ]
}

#[test]
fn bad_batches_have_kafkas_error_codes() {
    const TOPIC: &str = "hostile-batches";
    let mut broker = Broker::start();
    let mut client = broker.connect();
    client.metadata(TOPIC).expect("creates the topic");
    let until = Instant::now() + PATIENCE;
    let mut first = 3;
    while first == 3 && Instant::now() < until {
        first = produce(&mut client, TOPIC, good());
    }
    assert_eq!(first, 0, "a good batch is taken");

    let mut differences = Vec::new();
    for (what, expected, bytes) in headers().into_iter().chain(contents()) {
        let error_code = produce(&mut client, TOPIC, bytes);
        if error_code != expected {
            differences.push(format!("{what}: {error_code}, Kafka answers {expected}"));
        }
    }
    assert!(differences.is_empty(), "{differences:#?}");
    broker.assert_running();
}

//! The encoding of Fetch responses. It is written by hand, because the message crate would copy the
//! records. Here they go from their file to the socket without a copy.

use std::{collections::BTreeMap, sync::Arc};

use anyhow::{Result, bail};
use bytes::{BufMut, BytesMut};

use crate::{
    base::TopicId,
    handlers::{
        ReplyBuffer, WireReply,
        brokers::Node,
        error_counts::{each, error_codes},
    },
    log::LogSlice,
    protocol::schema::put_unsigned_varint,
};

/// A Fetch response with partitions of topics.
pub struct FetchReply {
    pub error_code: i16,
    pub session_id: i32,
    pub topics: Vec<TopicReply>,
    /// The addresses of the leaders that partitions name, by broker id.
    pub nodes: BTreeMap<i32, Node>,
}

error_codes!(FetchReply: |it| each!(it.topics, partitions).chain([it.error_code]));

/// A topic of the response.
pub struct TopicReply {
    pub name: Arc<str>,
    pub id: TopicId,
    pub partitions: Vec<PartitionReply>,
}

/// A partition of the response. Fields of other versions than the encoded one are left out.
pub struct PartitionReply {
    pub index: i32,
    pub error_code: i16,
    pub high_watermark: i64,
    pub last_stable_offset: i64,
    pub log_start: i64,
    /// Where the follower's log diverges: the last epoch that matches, and its end offset.
    pub diverging: Option<(i32, i64)>,
    /// The current leader and its epoch, if the error means that the client's metadata is old.
    pub current_leader: Option<(i32, i32)>,
    /// The replica that the consumer should read from (KIP-392).
    pub preferred: Option<i32>,
    /// Producer id and first offset of aborted transactions. Null unless the fetch is
    /// `read_committed`.
    pub aborted: Option<Vec<(i64, i64)>>,
    pub records: Option<LogSlice>,
}

/// The first flexible version (KIP-482).
const FLEXIBLE: i16 = 12;
/// The first version with the addresses of leaders (KIP-951).
const NODE_ENDPOINTS: i16 = 16;
/// The first version that names topics by id (KIP-516).
const TOPIC_IDS: i16 = 13;

impl WireReply for FetchReply {
    fn header_version(version: i16) -> i16 {
        i16::from(version >= FLEXIBLE)
    }

    fn write(self, version: i16, out: &mut ReplyBuffer) -> Result<()> {
        if !(4..=18).contains(&version) {
            bail!("Fetch version {version} is not served");
        }
        out.head.put_i32(0); // throttle time
        if version >= 7 {
            out.head.put_i16(self.error_code);
            out.head.put_i32(self.session_id);
        }
        put_array_len(&mut out.head, version, self.topics.len());
        for topic in self.topics {
            topic.write(version, out);
        }
        match self.nodes.is_empty() || version < NODE_ENDPOINTS {
            true => put_no_tags(&mut out.head, version),
            false => put_nodes(&mut out.head, &self.nodes),
        }
        Ok(())
    }
}

impl TopicReply {
    fn write(self, version: i16, out: &mut ReplyBuffer) {
        match version {
            TOPIC_IDS.. => out.head.put_slice(self.id.as_bytes()),
            FLEXIBLE.. => {
                put_unsigned_varint(&mut out.head, self.name.len() as u32 + 1);
                out.head.put_slice(self.name.as_bytes());
            }
            _ => {
                out.head.put_i16(self.name.len() as i16);
                out.head.put_slice(self.name.as_bytes());
            }
        }
        put_array_len(&mut out.head, version, self.partitions.len());
        for partition in self.partitions {
            partition.write(version, out);
        }
        put_no_tags(&mut out.head, version);
    }
}

impl PartitionReply {
    fn write(self, version: i16, out: &mut ReplyBuffer) {
        let head = &mut out.head;
        head.put_i32(self.index);
        head.put_i16(self.error_code);
        head.put_i64(self.high_watermark);
        head.put_i64(self.last_stable_offset);
        if version >= 5 {
            head.put_i64(self.log_start);
        }
        self.write_aborted(version, head);
        if version >= 11 {
            head.put_i32(self.preferred.unwrap_or(-1));
        }
        let len = self.records.as_ref().map_or(0, |slice| slice.len);
        match version {
            FLEXIBLE.. => put_unsigned_varint(head, len as u32 + 1),
            _ => head.put_i32(len as i32),
        }
        if let Some(tags) = self.tags(version) {
            self.write_records(out);
            out.head.put_slice(&tags);
        } else {
            self.write_records(out);
        }
    }

    fn write_records(self, out: &mut ReplyBuffer) {
        if let Some(slice) = self.records.filter(|slice| slice.len > 0) {
            out.push_file(slice.file, slice.position, slice.len);
        }
    }

    fn write_aborted(&self, version: i16, head: &mut BytesMut) {
        match &self.aborted {
            None if version >= FLEXIBLE => head.put_u8(0),
            None => head.put_i32(-1),
            Some(aborted) => {
                put_array_len(head, version, aborted.len());
                for (producer_id, first_offset) in aborted {
                    head.put_i64(*producer_id);
                    head.put_i64(*first_offset);
                    put_no_tags(head, version);
                }
            }
        }
    }

    /// The tagged fields with their count. `None` in versions without tagged fields.
    fn tags(&self, version: i16) -> Option<BytesMut> {
        if version < FLEXIBLE {
            return None;
        }
        let mut tags = BytesMut::new();
        let count = self.diverging.iter().len() + self.current_leader.iter().len();
        put_unsigned_varint(&mut tags, count as u32);
        if let Some((epoch, end_offset)) = self.diverging {
            tags.put_slice(&[0, 13]); // tag 0 with 13 bytes: epoch, offset, no tags
            tags.put_i32(epoch);
            tags.put_i64(end_offset);
            tags.put_u8(0);
        }
        if let Some((leader, epoch)) = self.current_leader {
            tags.put_slice(&[1, 9]); // tag 1 with 9 bytes: leader, epoch, no tags
            tags.put_i32(leader);
            tags.put_i32(epoch);
            tags.put_u8(0);
        }
        Some(tags)
    }
}

/// Writes the addresses of leaders as the only tagged field of the response.
fn put_nodes(out: &mut BytesMut, nodes: &BTreeMap<i32, Node>) {
    let mut field = BytesMut::new();
    put_array_len(&mut field, FLEXIBLE, nodes.len());
    for (id, node) in nodes {
        field.put_i32(*id);
        put_unsigned_varint(&mut field, node.host.len() as u32 + 1);
        field.put_slice(node.host.as_bytes());
        field.put_i32(node.port);
        match &node.rack {
            Some(rack) => {
                put_unsigned_varint(&mut field, rack.len() as u32 + 1);
                field.put_slice(rack.as_bytes());
            }
            None => field.put_u8(0),
        }
        field.put_u8(0); // no tags
    }
    out.put_slice(&[1, 0]); // one tag, of number 0
    put_unsigned_varint(out, field.len() as u32);
    out.put_slice(&field);
}

fn put_array_len(out: &mut BytesMut, version: i16, len: usize) {
    match version {
        FLEXIBLE.. => put_unsigned_varint(out, len as u32 + 1),
        _ => out.put_i32(len as i32),
    }
}

fn put_no_tags(out: &mut BytesMut, version: i16) {
    if version >= FLEXIBLE {
        out.put_u8(0);
    }
}

#[cfg(test)]
mod tests {
    use kafka_protocol::{
        messages::{
            BrokerId, FetchResponse, ResponseHeader, TopicName,
            fetch_response::{
                AbortedTransaction, EpochEndOffset, FetchableTopicResponse, LeaderIdAndEpoch,
                NodeEndpoint, PartitionData,
            },
        },
        protocol::{Encodable, StrBytes},
    };

    use super::*;
    use crate::{
        handlers::Part,
        log::{
            Disk, RealDisk,
            disk::{OpenMode, read_exact_at, write_all_at},
        },
    };

    const RECORDS: &[u8] = b"these are the records of a partition";

    fn slice(dir: &tempfile::TempDir) -> LogSlice {
        let file = RealDisk.open(&dir.path().join("log"), OpenMode::Create).expect("opens");
        write_all_at(&*file, b"before", 0).expect("writes");
        write_all_at(&*file, RECORDS, 6).expect("writes");
        LogSlice {
            file,
            position: 6,
            len: RECORDS.len(),
            first_batch_size: RECORDS.len(),
            segment_base_offset: 0,
        }
    }

    fn reply(records: Option<LogSlice>) -> FetchReply {
        let partition = |index, records: Option<LogSlice>| PartitionReply {
            index,
            error_code: index as i16,
            high_watermark: 10,
            last_stable_offset: 9,
            log_start: 2,
            diverging: records.is_none().then_some((3, 4)),
            current_leader: records.is_none().then_some((5, 6)),
            preferred: records.is_none().then_some(4),
            aborted: records.is_some().then(|| vec![(7, 8)]),
            records,
        };
        let topic = TopicReply {
            name: "topic".into(),
            id: TopicId::from_u128(1),
            partitions: vec![partition(0, records), partition(1, None)],
        };
        let node = |host: &str, rack: Option<&str>| Node {
            host: host.to_owned(),
            port: 9092,
            rack: rack.map(str::to_owned),
        };
        let nodes = BTreeMap::from([(5, node("there", None)), (6, node("here", Some("r")))]);
        FetchReply { error_code: 0, session_id: 77, topics: vec![topic], nodes }
    }

    /// The response of [`reply`] as a message of the crate, with the fields of `version` only.
    fn expected(version: i16) -> FetchResponse {
        let since =
            |first: i16, value: i64, absent: i64| if version >= first { value } else { absent };
        let partition = |index: i32, full: bool| {
            let mut data = PartitionData::default()
                .with_partition_index(index)
                .with_error_code(index as i16)
                .with_high_watermark(10)
                .with_last_stable_offset(9)
                .with_log_start_offset(since(5, 2, -1))
                .with_preferred_read_replica(BrokerId(
                    since(11, if full { -1 } else { 4 }, -1) as i32
                ))
                .with_aborted_transactions(full.then(|| {
                    vec![
                        AbortedTransaction::default()
                            .with_producer_id(7.into())
                            .with_first_offset(8),
                    ]
                }))
                .with_records(Some(match full {
                    true => bytes::Bytes::from_static(RECORDS),
                    false => bytes::Bytes::new(),
                }));
            if version >= FLEXIBLE && !full {
                let diverging = EpochEndOffset::default().with_epoch(3).with_end_offset(4);
                let leader =
                    LeaderIdAndEpoch::default().with_leader_id(BrokerId(5)).with_leader_epoch(6);
                data = data.with_diverging_epoch(diverging).with_current_leader(leader);
            }
            data
        };
        let mut topic = FetchableTopicResponse::default()
            .with_partitions(vec![partition(0, true), partition(1, false)]);
        match version {
            TOPIC_IDS.. => topic.topic_id = TopicId::from_u128(1),
            _ => topic.topic = TopicName(StrBytes::from_static_str("topic")),
        }
        let node = |id, host, rack: Option<&'static str>| {
            NodeEndpoint::default()
                .with_node_id(BrokerId(id))
                .with_host(StrBytes::from_static_str(host))
                .with_port(9092)
                .with_rack(rack.map(StrBytes::from_static_str))
        };
        let nodes = vec![node(5, "there", None), node(6, "here", Some("r"))];
        FetchResponse::default()
            .with_session_id(since(7, 77, 0) as i32)
            .with_responses(vec![topic])
            .with_node_endpoints(if version >= NODE_ENDPOINTS { nodes } else { Vec::new() })
    }

    fn flat(buffer: ReplyBuffer) -> Vec<u8> {
        let (parts, tail) = buffer.into_parts();
        let mut out = Vec::new();
        for part in parts {
            match part {
                Part::Memory(bytes) => out.extend_from_slice(&bytes),
                Part::File { file, position, len } => {
                    let mut piece = vec![0; len];
                    read_exact_at(&*file, &mut piece, position).expect("reads");
                    out.extend_from_slice(&piece);
                }
            }
        }
        out.extend_from_slice(&tail);
        out
    }

    #[test]
    fn encodes_like_message_crate() {
        let dir = tempfile::tempdir().expect("a directory");
        for version in 4..=18 {
            let buffer =
                ReplyBuffer::encode(reply(Some(slice(&dir))), version, 42).expect("encodes");
            let mut body = BytesMut::new();
            ResponseHeader::default()
                .with_correlation_id(42)
                .encode(&mut body, FetchReply::header_version(version))
                .expect("encodes");
            expected(version).encode(&mut body, version).expect("encodes");
            let mut frame = (body.len() as u32).to_be_bytes().to_vec();
            frame.extend_from_slice(&body);
            assert_eq!(flat(buffer), frame, "version {version}");
        }
    }
}

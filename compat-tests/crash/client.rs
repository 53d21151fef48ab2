//! A client for a few APIs on one blocking connection.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use kafka_protocol::{
    messages::{
        ApiVersionsRequest, BrokerId, CreateTopicsRequest, DeleteRecordsRequest,
        DeleteTopicsRequest, DescribeGroupsRequest, FetchRequest, FindCoordinatorRequest, GroupId,
        InitProducerIdRequest, JoinGroupRequest, MetadataRequest, MetadataResponse,
        OffsetCommitRequest, OffsetFetchRequest, ProduceRequest, ProducerId, RequestHeader,
        ResponseHeader, SyncGroupRequest, TopicName,
        create_topics_request::{CreatableTopic, CreatableTopicConfig},
        delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic},
        delete_topics_request::DeleteTopicState,
        fetch_request::{FetchPartition, FetchTopic},
        join_group_request::JoinGroupRequestProtocol,
        metadata_request::MetadataRequestTopic,
        offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic},
        offset_fetch_request::OffsetFetchRequestTopic,
        produce_request::{PartitionProduceData, TopicProduceData},
        sync_group_request::SyncGroupRequestAssignment,
    },
    protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes},
};
use sordini::records::Batch;

/// The longest time for a response, even of a busy broker.
const ANSWER_MAX: Duration = Duration::from_secs(20);
const FETCH_BYTES: i32 = 1 << 20;

pub type Code = i16;

pub struct Client {
    stream: TcpStream,
    correlation_id: i32,
}

/// One partition of a Fetch response.
pub struct Fetched {
    pub code: Code,
    pub records: Bytes,
    pub high_watermark: i64,
    pub log_start: i64,
}

/// The id, generation and so on of a member of a classic group.
pub struct Member {
    pub id: String,
    pub generation: i32,
}

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

fn topic_name(name: &str) -> TopicName {
    TopicName(text(name))
}

fn group_id(name: &str) -> GroupId {
    GroupId(text(name))
}

fn broken(why: impl ToString) -> io::Error {
    io::Error::other(why.to_string())
}

impl Client {
    pub fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER_MAX))?;
        Ok(Self { stream, correlation_id: 0 })
    }

    pub fn stream(&mut self) -> &mut TcpStream {
        &mut self.stream
    }

    pub fn send<R: Request>(&mut self, version: i16, request: &R) -> io::Result<()> {
        self.correlation_id += 1;
        let header = RequestHeader::default()
            .with_request_api_key(R::KEY)
            .with_request_api_version(version)
            .with_correlation_id(self.correlation_id)
            .with_client_id(Some(text("crash")));
        let mut frame = BytesMut::new();
        header.encode(&mut frame, R::header_version(version)).map_err(broken)?;
        request.encode(&mut frame, version).map_err(broken)?;
        let mut sized = (frame.len() as u32).to_be_bytes().to_vec();
        sized.extend_from_slice(&frame);
        self.stream.write_all(&sized)
    }

    pub fn receive<R: Request>(&mut self, version: i16) -> io::Result<R::Response> {
        let mut size = [0; 4];
        self.stream.read_exact(&mut size)?;
        let mut frame = vec![0; u32::from_be_bytes(size) as usize];
        self.stream.read_exact(&mut frame)?;
        let mut frame = Bytes::from(frame);
        ResponseHeader::decode(&mut frame, R::Response::header_version(version)).map_err(broken)?;
        R::Response::decode(&mut frame, version).map_err(broken)
    }

    fn call<R: Request>(&mut self, version: i16, request: &R) -> io::Result<R::Response> {
        self.send(version, request)?;
        self.receive::<R>(version)
    }

    pub fn api_versions(&mut self) -> io::Result<()> {
        self.call(0, &ApiVersionsRequest::default()).map(drop)
    }

    pub fn create_topic(
        &mut self,
        name: &str,
        partitions: i32,
        configs: &[(&str, &str)],
    ) -> io::Result<Code> {
        let configs = configs.iter().map(|(key, value)| {
            CreatableTopicConfig::default().with_name(text(key)).with_value(Some(text(value)))
        });
        let topic = CreatableTopic::default()
            .with_name(topic_name(name))
            .with_num_partitions(partitions)
            .with_replication_factor(1)
            .with_configs(configs.collect());
        let request =
            CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(30_000);
        Ok(self.call(7, &request)?.topics[0].error_code)
    }

    pub fn delete_topic(&mut self, name: &str) -> io::Result<Code> {
        let topic = DeleteTopicState::default().with_name(Some(topic_name(name)));
        let request =
            DeleteTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(30_000);
        Ok(self.call(6, &request)?.responses[0].error_code)
    }

    pub fn metadata(&mut self, topic: &str) -> io::Result<MetadataResponse> {
        let topic = MetadataRequestTopic::default().with_name(Some(topic_name(topic)));
        self.call(12, &MetadataRequest::default().with_topics(Some(vec![topic])))
    }

    pub fn init_producer_id(&mut self) -> io::Result<(i64, i16)> {
        let request = InitProducerIdRequest::default()
            .with_transactional_id(None)
            .with_producer_id(ProducerId(-1))
            .with_producer_epoch(-1);
        let answer = self.call(4, &request)?;
        assert_eq!(answer.error_code, 0, "a producer id is given");
        Ok((answer.producer_id.0, answer.producer_epoch))
    }

    pub fn send_produce(&mut self, to: (&str, i32), acks: i16, batch: &Batch) -> io::Result<()> {
        let mut records = Vec::with_capacity(batch.size());
        batch.write_to(&mut records);
        let partition = PartitionProduceData::default()
            .with_index(to.1)
            .with_records(Some(Bytes::from(records)));
        let topic = TopicProduceData::default()
            .with_name(topic_name(to.0))
            .with_partition_data(vec![partition]);
        let request = ProduceRequest::default()
            .with_acks(acks)
            .with_timeout_ms(30_000)
            .with_topic_data(vec![topic]);
        self.send(9, &request)
    }

    /// Receives a Produce response. Returns the base offset, or the error code.
    pub fn receive_produce(&mut self) -> io::Result<Result<i64, Code>> {
        let answer = self.receive::<ProduceRequest>(9)?;
        let partition = &answer.responses[0].partition_responses[0];
        match partition.error_code {
            0 => Ok(Ok(partition.base_offset)),
            code => Ok(Err(code)),
        }
    }

    pub fn produce(
        &mut self,
        to: (&str, i32),
        acks: i16,
        batch: &Batch,
    ) -> io::Result<Result<i64, Code>> {
        self.send_produce(to, acks, batch)?;
        self.receive_produce()
    }

    pub fn fetch(&mut self, from: (&str, i32), offset: i64) -> io::Result<Fetched> {
        self.send_fetch(from, offset, 0)?;
        self.receive_fetch()
    }

    pub fn send_fetch(
        &mut self,
        from: (&str, i32),
        offset: i64,
        max_wait_ms: i32,
    ) -> io::Result<()> {
        let partition = FetchPartition::default()
            .with_partition(from.1)
            .with_current_leader_epoch(-1)
            .with_fetch_offset(offset)
            .with_partition_max_bytes(FETCH_BYTES);
        let topic =
            FetchTopic::default().with_topic(topic_name(from.0)).with_partitions(vec![partition]);
        let request = FetchRequest::default()
            .with_replica_id(BrokerId(-1))
            .with_max_wait_ms(max_wait_ms)
            .with_min_bytes(1)
            .with_max_bytes(FETCH_BYTES)
            .with_session_epoch(-1)
            .with_topics(vec![topic]);
        self.send(12, &request)
    }

    pub fn receive_fetch(&mut self) -> io::Result<Fetched> {
        let mut answer = self.receive::<FetchRequest>(12)?;
        let partition = answer.responses.remove(0).partitions.remove(0);
        Ok(Fetched {
            code: partition.error_code,
            records: partition.records.unwrap_or_default(),
            high_watermark: partition.high_watermark,
            log_start: partition.log_start_offset,
        })
    }

    /// Deletes records before an offset. Returns the new log start offset, or the error code.
    pub fn delete_records(
        &mut self,
        from: (&str, i32),
        before: i64,
    ) -> io::Result<Result<i64, Code>> {
        let partition =
            DeleteRecordsPartition::default().with_partition_index(from.1).with_offset(before);
        let topic = DeleteRecordsTopic::default()
            .with_name(topic_name(from.0))
            .with_partitions(vec![partition]);
        let request =
            DeleteRecordsRequest::default().with_topics(vec![topic]).with_timeout_ms(30_000);
        let answer = self.call(2, &request)?;
        let partition = &answer.topics[0].partitions[0];
        match partition.error_code {
            0 => Ok(Ok(partition.low_watermark)),
            code => Ok(Err(code)),
        }
    }

    /// Sends FindCoordinator. Returns the error code, which is 0 once the coordinator is available.
    pub fn find_coordinator(&mut self, group: &str) -> io::Result<Code> {
        let request = FindCoordinatorRequest::default().with_coordinator_keys(vec![text(group)]);
        Ok(self.call(4, &request)?.coordinators[0].error_code)
    }

    /// Joins a group as its only member, with a static id (`group.instance.id`), and syncs.
    pub fn join(&mut self, group: &str, instance: &str) -> io::Result<Result<Member, Code>> {
        let protocol = JoinGroupRequestProtocol::default()
            .with_name(text("range"))
            .with_metadata(Bytes::from_static(b"m"));
        let request = JoinGroupRequest::default()
            .with_group_id(group_id(group))
            .with_session_timeout_ms(60_000)
            .with_rebalance_timeout_ms(60_000)
            .with_group_instance_id(Some(text(instance)))
            .with_protocol_type(text("consumer"))
            .with_protocols(vec![protocol]);
        let joined = self.call(7, &request)?;
        if joined.error_code != 0 {
            return Ok(Err(joined.error_code));
        }
        let assignment = SyncGroupRequestAssignment::default()
            .with_member_id(joined.member_id.clone())
            .with_assignment(Bytes::from_static(b"assigned"));
        let request = SyncGroupRequest::default()
            .with_group_id(group_id(group))
            .with_generation_id(joined.generation_id)
            .with_member_id(joined.member_id.clone())
            .with_group_instance_id(Some(text(instance)))
            .with_protocol_type(Some(text("consumer")))
            .with_protocol_name(Some(text("range")))
            .with_assignments(vec![assignment]);
        let synced = self.call(5, &request)?;
        assert_eq!(synced.error_code, 0, "the only member is given its assignment");
        let id = joined.member_id.to_string();
        Ok(Ok(Member { id, generation: joined.generation_id }))
    }

    pub fn commit(
        &mut self,
        group: &str,
        member: &Member,
        instance: &str,
        of: (&str, i32),
        offset: i64,
    ) -> io::Result<Code> {
        let partition = OffsetCommitRequestPartition::default()
            .with_partition_index(of.1)
            .with_committed_offset(offset)
            .with_committed_metadata(Some(text(&format!("at {offset}"))));
        let topic = OffsetCommitRequestTopic::default()
            .with_name(topic_name(of.0))
            .with_partitions(vec![partition]);
        let request = OffsetCommitRequest::default()
            .with_group_id(group_id(group))
            .with_generation_id_or_member_epoch(member.generation)
            .with_member_id(text(&member.id))
            .with_group_instance_id(Some(text(instance)))
            .with_topics(vec![topic]);
        let answer = self.call(8, &request)?;
        Ok(answer.topics[0].partitions[0].error_code)
    }

    /// Returns the committed offset and its metadata.
    pub fn committed(
        &mut self,
        group: &str,
        of: (&str, i32),
    ) -> io::Result<Result<(i64, String), Code>> {
        let topic = OffsetFetchRequestTopic::default()
            .with_name(topic_name(of.0))
            .with_partition_indexes(vec![of.1]);
        let request = OffsetFetchRequest::default()
            .with_group_id(group_id(group))
            .with_topics(Some(vec![topic]));
        let answer = self.call(7, &request)?;
        if answer.error_code != 0 {
            return Ok(Err(answer.error_code));
        }
        let partition = &answer.topics[0].partitions[0];
        let metadata = partition.metadata.as_ref().map(ToString::to_string);
        Ok(Ok((partition.committed_offset, metadata.unwrap_or_default())))
    }

    /// Returns the group's state, and the ids and assignments of its members.
    pub fn describe_group(&mut self, group: &str) -> io::Result<(String, Vec<(String, Bytes)>)> {
        let request = DescribeGroupsRequest::default().with_groups(vec![group_id(group)]);
        let answer = self.call(5, &request)?;
        let described = &answer.groups[0];
        let members = described.members.iter();
        let members =
            members.map(|it| (it.member_id.to_string(), it.member_assignment.clone())).collect();
        Ok((described.group_state.to_string(), members))
    }
}

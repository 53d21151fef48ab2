//! A blocking client on one TCP connection. It can send requests before it has received the
//! responses to earlier ones.

use std::{
    collections::VecDeque,
    io::{self, ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use kafka_protocol::{
    messages::{
        ApiVersionsRequest, CreateTopicsRequest, DeleteRecordsRequest, DeleteTopicsRequest,
        FetchRequest, FindCoordinatorRequest, InitProducerIdRequest, MetadataRequest,
        MetadataResponse, ProduceRequest, ProducerId, RequestHeader, ResponseHeader,
        delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic},
        delete_topics_request::DeleteTopicState,
    },
    protocol::{Decodable, Encodable, HeaderVersion, Request},
};
use sordini::records::Batch;

use super::requests::{self, text, topic_name};

/// The longest time for a response, even of a busy broker.
const ANSWER_MAX: Duration = Duration::from_secs(20);
const FETCH_BYTES: i32 = 1 << 20;
pub const FETCH_VERSION: i16 = 12;

pub type Code = i16;

pub struct Client {
    stream: TcpStream,
    /// The correlation id of the last request.
    correlation_id: i32,
    /// The correlation ids of the requests without a response yet, oldest first.
    unanswered: VecDeque<i32>,
}

/// What the broker sent, or that it sent nothing.
#[derive(Debug, PartialEq, Eq)]
pub enum Reply {
    /// A frame, without its size.
    Frame(Bytes),
    Closed,
    /// The connection ended within a frame.
    Incomplete,
    /// Neither a frame nor a close within the allowed time.
    Silence,
}

/// One partition of a Fetch response.
pub struct Fetched {
    pub code: Code,
    pub records: Bytes,
    pub high_watermark: i64,
    pub log_start: i64,
}

fn broken(why: impl ToString) -> io::Error {
    io::Error::other(why.to_string())
}

impl Client {
    pub fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER_MAX))?;
        Ok(Self { stream, correlation_id: 0, unanswered: VecDeque::new() })
    }

    pub fn stream(&mut self) -> &mut TcpStream {
        &mut self.stream
    }

    /// Sends bytes as they are.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Waits up to `wait` for the first byte of a frame, and then for the rest of it.
    pub fn read(&mut self, wait: Duration) -> Reply {
        self.stream.set_read_timeout(Some(wait)).expect("a socket option");
        let mut size = [0; 4];
        match self.stream.read_exact(&mut size) {
            Ok(()) => {}
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                return Reply::Silence;
            }
            Err(_) => return Reply::Closed,
        }
        self.stream.set_read_timeout(Some(ANSWER_MAX)).expect("a socket option");
        let mut frame = vec![0; u32::from_be_bytes(size) as usize];
        match self.stream.read_exact(&mut frame) {
            Ok(()) => Reply::Frame(frame.into()),
            Err(_) => Reply::Incomplete,
        }
    }

    /// Whether the broker closes the connection before it sends anything.
    pub fn is_closed(&mut self) -> bool {
        self.read(ANSWER_MAX) == Reply::Closed
    }

    pub fn send<R: Request>(&mut self, version: i16, request: &R) -> io::Result<()> {
        self.send_unanswered(version, request)?;
        self.unanswered.push_back(self.correlation_id);
        Ok(())
    }

    /// Sends a request that has no response.
    fn send_unanswered<R: Request>(&mut self, version: i16, request: &R) -> io::Result<()> {
        self.correlation_id += 1;
        let header = RequestHeader::default()
            .with_request_api_key(R::KEY)
            .with_request_api_version(version)
            .with_correlation_id(self.correlation_id)
            .with_client_id(Some(text("test")));
        let mut frame = BytesMut::zeroed(4);
        header.encode(&mut frame, R::header_version(version)).map_err(broken)?;
        request.encode(&mut frame, version).map_err(broken)?;
        let size = frame.len() as u32 - 4;
        frame[..4].copy_from_slice(&size.to_be_bytes());
        self.write(&frame)
    }

    /// Receives the response to the oldest request without one. A response to another request is an
    /// error.
    pub fn receive<R: Request>(&mut self, version: i16) -> io::Result<R::Response> {
        match self.read(ANSWER_MAX) {
            Reply::Frame(frame) => self.decode::<R>(version, frame),
            Reply::Closed | Reply::Incomplete => Err(ErrorKind::ConnectionReset.into()),
            Reply::Silence => Err(ErrorKind::TimedOut.into()),
        }
    }

    /// Decodes the response to the oldest request without one.
    pub fn decode<R: Request>(
        &mut self,
        version: i16,
        mut frame: Bytes,
    ) -> io::Result<R::Response> {
        let header = ResponseHeader::decode(&mut frame, R::Response::header_version(version));
        let id = header.map_err(broken)?.correlation_id;
        let expected = self.unanswered.pop_front();
        if Some(id) != expected {
            return Err(broken(format!("a response to request {id}, not to {expected:?}")));
        }
        R::Response::decode(&mut frame, version).map_err(broken)
    }

    pub fn call<R: Request>(&mut self, version: i16, request: &R) -> io::Result<R::Response> {
        self.send(version, request)?;
        self.receive::<R>(version)
    }

    pub fn send_api_versions(&mut self) -> io::Result<()> {
        self.send(0, &ApiVersionsRequest::default())
    }

    /// Receives an ApiVersions response. It is an error if the response has an error code.
    pub fn receive_api_versions(&mut self) -> io::Result<()> {
        match self.receive::<ApiVersionsRequest>(0)?.error_code {
            0 => Ok(()),
            code => Err(broken(format!("ApiVersions: error {code}"))),
        }
    }

    pub fn api_versions(&mut self) -> io::Result<()> {
        self.send_api_versions()?;
        self.receive_api_versions()
    }

    pub fn create_topic(
        &mut self,
        name: &str,
        partitions: i32,
        configs: &[(&str, &str)],
    ) -> io::Result<Code> {
        let request = requests::create_topic(name, partitions, 1, configs).with_timeout_ms(30_000);
        Ok(self.call::<CreateTopicsRequest>(7, &request)?.topics[0].error_code)
    }

    pub fn delete_topic(&mut self, name: &str) -> io::Result<Code> {
        let topic = DeleteTopicState::default().with_name(Some(topic_name(name)));
        let request =
            DeleteTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(30_000);
        Ok(self.call(6, &request)?.responses[0].error_code)
    }

    /// Requests the metadata of a topic. Creates the topic if the broker allows that.
    pub fn metadata(&mut self, topic: &str) -> io::Result<MetadataResponse> {
        self.call::<MetadataRequest>(12, &requests::metadata(topic))
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
        self.send_records(to, acks, records.into())
    }

    fn send_records(&mut self, to: (&str, i32), acks: i16, records: Bytes) -> io::Result<()> {
        let request = requests::produce(to.0, acks, [(to.1, records)]).with_timeout_ms(30_000);
        match acks {
            0 => self.send_unanswered::<ProduceRequest>(9, &request),
            _ => self.send::<ProduceRequest>(9, &request),
        }
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

    /// Produces bytes that need not be a batch.
    pub fn produce_bytes(
        &mut self,
        to: (&str, i32),
        records: Vec<u8>,
    ) -> io::Result<Result<i64, Code>> {
        self.send_records(to, 1, records.into())?;
        self.receive_produce()
    }

    pub fn fetch(&mut self, from: (&str, i32), offset: i64) -> io::Result<Fetched> {
        self.send_fetch(from, offset, 0)?;
        self.receive_fetch()
    }

    pub fn send_fetch(
        &mut self,
        (topic, partition): (&str, i32),
        offset: i64,
        max_wait_ms: i32,
    ) -> io::Result<()> {
        let request = requests::fetch(topic, [(partition, offset)], FETCH_BYTES)
            .with_max_wait_ms(max_wait_ms)
            .with_max_bytes(FETCH_BYTES);
        self.send::<FetchRequest>(FETCH_VERSION, &request)
    }

    pub fn receive_fetch(&mut self) -> io::Result<Fetched> {
        let mut answer = self.receive::<FetchRequest>(FETCH_VERSION)?;
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
        (topic, partition): (&str, i32),
        before: i64,
    ) -> io::Result<Result<i64, Code>> {
        let partition =
            DeleteRecordsPartition::default().with_partition_index(partition).with_offset(before);
        let topic = DeleteRecordsTopic::default()
            .with_name(topic_name(topic))
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
        let request = requests::find_coordinator(group);
        Ok(self.call::<FindCoordinatorRequest>(4, &request)?.coordinators[0].error_code)
    }
}

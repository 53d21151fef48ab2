//! Each API asks the authorizer for the checks that its row of the API table declares, and for no
//! others. A client that may do nothing gets Kafka's error codes and changes nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use kafka_protocol::messages::{
    ApiKey, EnvelopeRequest, ListGroupsRequest, MetadataRequest, OffsetFetchRequest, TopicName,
};

use super::{
    Node, Recorder, Rule,
    requests::{self, Sent, TOPIC, create_topic, to_controller},
    sample,
};
use crate::{
    handlers::{ErrorCode, find},
    peers,
    protocol::{Api, Principal, api::APIS, checks::*},
};

/// The checks that were asked, by API.
type Asked = BTreeMap<i16, Vec<Check>>;

/// The error codes in the responses to a client that may do nothing (`KafkaApis` and
/// `ControllerApis` of Kafka 4.3.1). The names of the codes lack their end
/// `_AUTHORIZATION_FAILED`. ListGroups leaves out what the client may not see.
const DENIED: &str = "
    AddOffsetsToTxn TRANSACTIONAL_ID
    AddPartitionsToTxn CLUSTER TRANSACTIONAL_ID
    AddRaftVoter CLUSTER
    AllocateProducerIds CLUSTER
    AlterConfigs CLUSTER GROUP TOPIC
    AlterPartition CLUSTER
    AlterPartitionReassignments CLUSTER
    AlterReplicaLogDirs CLUSTER
    AssignReplicasToDirs CLUSTER
    BrokerHeartbeat CLUSTER
    BrokerRegistration CLUSTER
    ConsumerGroupDescribe GROUP
    ConsumerGroupHeartbeat GROUP
    ControllerRegistration CLUSTER
    CreateAcls CLUSTER
    CreatePartitions TOPIC
    CreateTopics TOPIC
    DeleteAcls CLUSTER
    DeleteGroups GROUP
    DeleteRecords TOPIC
    DeleteTopics TOPIC
    DescribeAcls CLUSTER
    DescribeClientQuotas CLUSTER
    DescribeCluster CLUSTER
    DescribeConfigs CLUSTER GROUP TOPIC
    DescribeGroups GROUP
    DescribeLogDirs CLUSTER
    DescribeProducers TOPIC
    DescribeQuorum CLUSTER
    DescribeTopicPartitions TOPIC
    DescribeTransactions TRANSACTIONAL_ID
    DescribeUserScramCredentials CLUSTER
    ElectLeaders CLUSTER
    EndTxn TRANSACTIONAL_ID
    Envelope CLUSTER
    Fetch CLUSTER TOPIC
    FetchSnapshot CLUSTER
    FindCoordinator CLUSTER GROUP TRANSACTIONAL_ID
    Heartbeat GROUP
    IncrementalAlterConfigs CLUSTER GROUP TOPIC
    InitProducerId CLUSTER TRANSACTIONAL_ID
    JoinGroup GROUP
    LeaveGroup GROUP
    ListConfigResources CLUSTER
    ListOffsets TOPIC
    ListPartitionReassignments CLUSTER
    Metadata TOPIC
    OffsetCommit GROUP
    OffsetDelete GROUP
    OffsetFetch GROUP
    OffsetForLeaderEpoch TOPIC
    Produce TOPIC TRANSACTIONAL_ID
    RemoveRaftVoter CLUSTER
    SyncGroup GROUP
    TxnOffsetCommit TRANSACTIONAL_ID
    UnregisterBroker CLUSTER
    UpdateFeatures CLUSTER
    UpdateRaftVoter CLUSTER
    WriteTxnMarkers CLUSTER
";
/// The error codes in the responses about offsets of a group that the client may use, and of topics
/// that it may not.
const DENIED_TOPICS: &str = "
    OffsetCommit TOPIC
    OffsetDelete TOPIC
    OffsetFetch TOPIC
    TxnOffsetCommit TOPIC
";

fn rows(table: &str) -> Vec<&str> {
    table.lines().map(str::trim).filter(|row| !row.is_empty()).collect()
}

/// The error codes that were counted after `before`, in the form of [`DENIED`].
async fn errors_since(node: &Node, before: &BTreeSet<String>) -> Vec<String> {
    let mut errors: BTreeMap<String, String> = BTreeMap::new();
    for line in node.error_counts().await.difference(before) {
        let mut quoted = line.split('"');
        let (api, error) = (quoted.nth(1).expect("api"), quoted.nth(1).expect("error"));
        let row = errors.entry(api.to_owned()).or_insert_with(|| api.to_owned());
        row.push(' ');
        row.push_str(error.trim_end_matches("_AUTHORIZATION_FAILED"));
    }
    errors.into_values().collect()
}

/// Starts a node with a topic of one record, and a group with an offset.
async fn start() -> Node {
    let node = Node::start().await;
    node.create_data().await;
    begin_transaction(&node).await;
    node
}

/// Begins a transaction with the topic.
async fn begin_transaction(node: &Node) {
    let find = requests::find_coordinator(1, "transaction");
    assert_eq!(node.ask(6, &find).await.coordinators[0].error_code, 0);
    let mut producer = node.ask(4, &requests::init_producer()).await;
    while producer.error_code == ErrorCode::CoordinatorLoadInProgress.code() {
        tokio::time::sleep(Duration::from_millis(10)).await;
        producer = node.ask(4, &requests::init_producer()).await;
    }
    assert_eq!(producer.error_code, 0);
    let added = node.ask(5, &requests::add_partitions(producer.producer_id)).await;
    let topic = &added.results_by_transaction[0].topic_results[0];
    assert_eq!(topic.results_by_partition[0].partition_error_code, 0);
}

impl Node {
    /// The requests with an existing topic and group.
    fn requests(&self) -> Vec<Sent> {
        let image = self.server.broker().metadata();
        requests::requests(image.topic(TOPIC).expect("the topic").id)
    }

    /// Sends a request with this rule and adds the checks to `asked`.
    async fn record(&self, rule: Rule, sent: Sent, asked: &mut Asked) -> Option<Bytes> {
        let api = i16::from_be_bytes([sent.frame[0], sent.frame[1]]);
        let recorder = Recorder::new(rule);
        let response = self.send(sent, Some(Arc::clone(&recorder) as _)).await;
        asked.entry(api).or_default().append(&mut recorder.asked.lock());
        response
    }
}

/// A sample of each API and version for each kind of listener that serves it.
fn samples() -> Vec<Sent> {
    let mut all = Vec::new();
    for api in APIS.iter().filter(|api| find(api.key).is_some()) {
        for version in api.versions() {
            let served = [false, true].into_iter().filter(|it| api.scope.is_served(*it));
            all.extend(served.map(|to_controller| sample(api, version, to_controller)));
        }
    }
    all
}

/// The differences between the checks that the API table declares and those that were asked.
fn differences<'a>(
    declared: impl IntoIterator<Item = (ApiKey, &'a [Check])>,
    asked: &Asked,
) -> Vec<String> {
    let mut differences = Vec::new();
    for (api, declared) in declared {
        let asked = asked.get(&(api as i16)).map_or(&[][..], Vec::as_slice);
        let missing = declared.iter().filter(|check| !asked.contains(check));
        differences.extend(missing.map(|it| format!("{api:?} does not ask for {it:?}")));
        let mut others: Vec<_> = asked.iter().filter(|check| !declared.contains(check)).collect();
        others.dedup();
        differences.extend(others.iter().map(|it| format!("{api:?} does not declare {it:?}")));
    }
    differences
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handlers_ask_for_exactly_the_declared_checks() {
    let mut asked = Asked::new();
    for rule in [Rule::AllowAll, Rule::DenyCluster, Rule::DenyAll] {
        let node = start().await;
        for sent in node.requests().into_iter().chain(samples()) {
            node.record(rule, sent, &mut asked).await;
        }
        node.stop().await;
    }
    let declared = APIS.iter().map(|api| (api.key, api.checks));
    assert_eq!(differences(declared, &asked), [""; 0]);
}

#[test]
fn missing_and_undeclared_checks_are_differences() {
    let declared: [(ApiKey, &[Check]); 2] =
        [(ApiKey::Produce, &[TOPIC_WRITE]), (ApiKey::ListGroups, &[GROUP_DESCRIBE])];
    let mut asked = Asked::from([
        (ApiKey::Produce as i16, vec![TOPIC_WRITE, TOPIC_WRITE]),
        (ApiKey::ListGroups as i16, vec![GROUP_DESCRIBE]),
    ]);
    assert_eq!(differences(declared, &asked), [""; 0]);
    asked.insert(ApiKey::Produce as i16, vec![TOPIC_READ]);
    asked.remove(&(ApiKey::ListGroups as i16));
    let found = differences(declared, &asked);
    let texts = [
        "Produce does not ask for Check { resource: Topic, operation: Write }",
        "Produce does not declare Check { resource: Topic, operation: Read }",
        "ListGroups does not ask for Check { resource: Group, operation: Describe }",
    ];
    assert_eq!(found, texts);
}

/// What denied requests must not change.
async fn state(node: &Node) -> String {
    let image = node.server.broker().metadata();
    let topics: Vec<_> =
        image.topics.iter().map(|it| (it.name.to_string(), it.partitions.len())).collect();
    let offsets = [-2, -1].map(requests::list_offsets);
    let mut ends = Vec::new();
    for request in &offsets {
        ends.push(node.ask(7, request).await.topics[0].partitions[0].offset);
    }
    let groups = node.ask(4, &ListGroupsRequest::default()).await.groups;
    let committed = node.ask(9, &requests::fetch_offsets(None)).await.groups;
    format!("{topics:?} {ends:?} {groups:?} {committed:?} {:?} {:?}", image.configs, image.brokers)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn denied_requests_get_the_errors_of_kafka_and_change_nothing() {
    let node = start().await;
    let (before, counts) = (state(&node).await, node.error_counts().await);
    let mut asked = Asked::new();
    for sent in node.requests() {
        node.record(Rule::DenyAll, sent, &mut asked).await;
    }
    assert_eq!(state(&node).await, before);
    let has_request = |api: &&Api| asked.contains_key(&(api.key as i16));
    let others = APIS.iter().filter(|api| !api.checks.is_empty() && !has_request(api));
    let others: Vec<&Api> = others.collect();
    for api in others {
        for to_controller in [false, true].into_iter().filter(|it| api.scope.is_served(*it)) {
            let sent = sample(api, api.max, to_controller);
            node.record(Rule::DenyAll, sent, &mut asked).await;
        }
    }
    assert_eq!(errors_since(&node, &counts).await, rows(DENIED));
    assert_eq!(state(&node).await, before);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn offsets_of_denied_topics_are_refused() {
    let node = start().await;
    let (before, counts) = (state(&node).await, node.error_counts().await);
    let mut asked = Asked::new();
    for sent in requests::offset_requests() {
        node.record(Rule::DenyTopics, sent, &mut asked).await;
    }
    assert_eq!(errors_since(&node, &counts).await, rows(DENIED_TOPICS));
    let all = requests::to_broker(9, &requests::fetch_offsets(None));
    let frame = node.record(Rule::DenyTopics, all, &mut asked).await.expect("answered");
    let fetched = peers::decode::<OffsetFetchRequest>(9, frame).expect("decodes");
    assert!(fetched.groups[0].topics.is_empty(), "{fetched:?}");
    assert_eq!(state(&node).await, before);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_omit_what_the_client_may_not_describe() {
    let node = start().await;
    let mut asked = Asked::new();
    let all_topics = MetadataRequest::default().with_topics(None);
    let sent = requests::to_broker(9, &all_topics);
    let frame = node.record(Rule::DenyAll, sent, &mut asked).await.expect("answered");
    let metadata = peers::decode::<MetadataRequest>(9, frame).expect("decodes");
    assert!(metadata.topics.is_empty() && !metadata.brokers.is_empty(), "{metadata:?}");
    let all_groups = ListGroupsRequest::default();
    let sent = requests::to_broker(4, &all_groups);
    let frame = node.record(Rule::DenyAll, sent, &mut asked).await.expect("answered");
    let groups = peers::decode::<ListGroupsRequest>(4, frame).expect("decodes");
    assert!(groups.groups.is_empty(), "{groups:?}");
    assert_eq!(node.ask(4, &all_groups).await.groups.len(), 1);
    let topics = node.ask(9, &all_topics).await.topics;
    assert!(topics.iter().any(|it| it.name == Some(TopicName(requests::text(TOPIC)))));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn envelopes_without_a_valid_principal_are_refused() {
    let node = Node::start().await;
    let valid = Some(Principal::anonymous().serialize());
    let other_version = Bytes::from_static(b"\0\x01\x05User\x0aANONYMOUS\0\0");
    let cut = Bytes::from_static(b"\0\0\x05User");
    let refused = ErrorCode::PrincipalDeserializationFailure.code();
    let principals = [
        (None, refused),
        (Some(Bytes::new()), refused),
        (Some(cut), refused),
        (Some(other_version), refused),
        (valid, 0),
    ];
    for (principal, error) in principals {
        let request = EnvelopeRequest::default()
            .with_request_data(requests::to_broker(7, &create_topic("created")).frame)
            .with_request_principal(principal.clone())
            .with_client_host_address(Bytes::from_static(&[127, 0, 0, 1]));
        let frame = node.send(to_controller(0, &request), None).await.expect("answered");
        let response = peers::decode::<EnvelopeRequest>(0, frame).expect("decodes");
        assert_eq!(response.error_code, error, "{principal:?}");
        assert_eq!(response.response_data.is_some(), error == 0, "{principal:?}");
    }
    node.stop().await;
}

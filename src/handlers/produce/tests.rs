//! Tests of Produce: metrics, decompression limits and duplicates in a request.

use super::*;

fn topic(name: &'static str, indexes: &[i32], records: &'static [u8]) -> TopicProduceData {
    let data = |index: &i32| {
        PartitionProduceData::default()
            .with_index(*index)
            .with_records(Some(Bytes::from_static(records)))
    };
    TopicProduceData::default()
        .with_name(TopicName(StrBytes::from_static_str(name)))
        .with_partition_data(indexes.iter().map(data).collect())
}

#[test]
fn a_topic_counts_what_reaches_it_and_what_fails_unexpectedly() {
    let counted = |refusal: Option<PartitionError>| {
        let metrics = TopicMetrics::default();
        count(&metrics, refusal.as_ref());
        (metrics.produce_requests.get(), metrics.failed_produce_requests.get())
    };
    let refusal = |code: ErrorCode| PartitionError::from(code);
    assert_eq!(counted(None), (1, 0));
    assert_eq!(counted(Some(refusal(ErrorCode::OutOfOrderSequenceNumber))), (1, 1));
    assert_eq!(counted(Some(refusal(ErrorCode::InvalidTimestamp))), (1, 1));
    assert_eq!(counted(Some(refusal(ErrorCode::NotLeaderOrFollower))), (1, 0));
    assert_eq!(counted(Some(refusal(ErrorCode::MessageTooLarge))), (1, 0));
    let missing = refusal(ErrorCode::UnknownTopicOrPartition);
    assert_eq!(counted(Some(PartitionError { before_log: true, ..missing })), (0, 0));
}

#[test]
fn large_compressed_requests_are_validated_off_workers() {
    let weight = |codec: u8, len: usize, partitions: usize| {
        let mut records = vec![0; len];
        records[ATTRIBUTES_AT + 1] = codec;
        let records = Bytes::from(records);
        let data = PartitionProduceData::default().with_records(Some(records));
        let topic = TopicProduceData::default().with_partition_data(vec![data.clone(); partitions]);
        decompression_weight(&ProduceRequest::default().with_topic_data(vec![topic]))
    };
    assert_eq!(weight(0, 1 << 20, 9), 0);
    assert_eq!(weight(7, 1 << 20, 9), 0);
    for (codec, len) in [(1, 32 << 10), (2, 256 << 10), (3, 256 << 10), (4, 32 << 10)] {
        assert_eq!(weight(codec, len, 1), LONG_DECOMPRESSION);
        assert_eq!(weight(codec, len / 16, 16), LONG_DECOMPRESSION);
    }
}

#[test]
fn last_batch_of_repeated_partition_is_kept() {
    let topics = vec![
        topic("a", &[0, 1, 0], b"first"),
        topic("none", &[], b""),
        topic("b", &[0], b"first"),
        topic("a", &[2, 1], b"second"),
    ];
    let merged: Vec<_> = merged(topics)
        .into_iter()
        .map(|topic| {
            let partitions = topic.partition_data.into_iter();
            let data = partitions.map(|data| (data.index, data.records.unwrap_or_default()));
            (topic.name.to_string(), data.collect::<Vec<_>>())
        })
        .collect();
    let (first, second) = (Bytes::from_static(b"first"), Bytes::from_static(b"second"));
    let a = vec![(0, first.clone()), (1, second.clone()), (2, second)];
    assert_eq!(merged, [("a".to_owned(), a), ("b".to_owned(), vec![(0, first)])]);
}

//! The Fetch response: choosing the partitions of a fetch session, and encoding.

use std::{collections::BTreeMap, sync::Arc};

use divan::Bencher;
use sordini::{
    base::TopicId,
    fetch_sessions::{PartitionRequest, PartitionResult, SessionCache, SessionRequest},
    handlers::{
        ReplyBuffer,
        fetch_reply::{FetchReply, PartitionReply, TopicReply},
    },
    log::{LogConfig, LogSlice, RealDisk},
};

use crate::{
    NOW_MS, batch,
    log::{dir, open},
};

const VERSION: i16 = 18;

fn reply(partitions: usize, slice: &LogSlice) -> FetchReply {
    let partition = |index| PartitionReply {
        index,
        error_code: 0,
        high_watermark: 63,
        last_stable_offset: 63,
        log_start: 0,
        diverging: None,
        current_leader: None,
        preferred: None,
        aborted: None,
        records: Some(slice.clone()),
    };
    let topic = TopicReply {
        name: "topic".into(),
        id: TopicId::from_u128(1),
        partitions: (0..partitions as i32).map(partition).collect(),
    };
    FetchReply { error_code: 0, session_id: 1, topics: vec![topic], nodes: BTreeMap::new() }
}

#[divan::bench(args = [6, 1000], sample_size = 20)]
fn encode_reply(bencher: Bencher, partitions: usize) {
    let dir = dir();
    let mut log = open(Arc::new(RealDisk), dir.path(), LogConfig::default());
    log.append(&mut [batch(63, 1024)], 0, NOW_MS).expect("appends");
    let slice = log.view().read(0, 1 << 20, i64::MAX, true).expect("reads");
    bencher
        .with_inputs(|| reply(partitions, &slice))
        .bench_values(|reply| ReplyBuffer::encode(reply, VERSION, 1).expect("encodes"));
}

fn session_request(epoch: i32, session_id: i32, partitions: i32) -> SessionRequest {
    let partition = |partition| PartitionRequest {
        topic: Some("topic".into()),
        topic_id: TopicId::from_u128(1),
        partition,
        fetch_offset: 0,
        log_start_offset: -1,
        max_bytes: 1 << 20,
        current_leader_epoch: -1,
        last_fetched_epoch: -1,
    };
    SessionRequest {
        session_id,
        epoch,
        uses_topic_ids: true,
        is_from_follower: false,
        partitions: (0..partitions).map(partition).collect(),
        forgotten: Vec::new(),
    }
}

const SESSION: i32 = 7;

/// An incremental fetch in which one partition has changed.
#[divan::bench(args = [100, 10_000], sample_size = 20)]
fn session_with_one_changed(bencher: Bencher, partitions: i32) {
    let mut cache = SessionCache::new(1);
    let name_of = |_| Some("topic".into());
    let full = session_request(0, 0, partitions);
    let fetch = cache.begin(full, &name_of, NOW_MS, SESSION).expect("begins");
    let same = PartitionResult {
        is_error: false,
        high_watermark: 0,
        log_start_offset: 0,
        records_len: 0,
        is_redirect: false,
    };
    let mut results = vec![same; partitions as usize];
    cache.finish(fetch, &results, NOW_MS);
    let mut epoch = 0;
    bencher.bench_local(|| {
        epoch += 1;
        // The session moves a changed partition to its end. This one is there already, so the
        // results stay in the order of the session.
        results[partitions as usize - 1].high_watermark += 1;
        let request = session_request(epoch, SESSION, 0);
        let fetch = cache.begin(request, &name_of, NOW_MS, 1).expect("begins");
        let answer = cache.finish(fetch, &results, NOW_MS);
        assert_eq!(answer.answered.len(), 1);
    });
}

//! A read-process-write worker. Its inputs are the natural numbers. A transaction writes the next
//! inputs to some partitions, and commits the offset after them. The worker begins where the
//! committed offset is, so that a lost or repeated transaction shows.
//!
//! Some transactions are aborted, and some time out. Some are left by a worker that is then
//! replaced by another one with the same transactional id. Some EndTxn requests arrive twice, the
//! second time when the worker may have begun its next transaction.

use std::{collections::BTreeMap, time::Duration};

use kafka_protocol::protocol::Request;
use sordini::{peers::Address, protocol::ErrorCode, records::Producer};
use tokio::time::{Instant, sleep};

use crate::{
    admin::TOPICS,
    client::Client,
    history::{Place, Transaction, WrongOffset},
    requests,
    transaction_requests::{self, Reaction, Versions, reaction},
};

/// The versions of AddPartitionsToTxn and AddOffsetsToTxn that clients send.
const ADD_PARTITIONS: i16 = 3;
const ADD_OFFSETS: i16 = 3;
const OFFSET_FETCH: i16 = 8;
/// The transaction timeout of most workers, in milliseconds. No run takes so long.
const LONG_TIMEOUT_MS: u64 = 600_000;
/// The range of the transaction timeout of the others, in milliseconds.
const SHORT_TIMEOUT_MS: (u64, u64) = (500, 1_500);
/// A transaction is aborted at most this long after its timeout.
const ABORTED_AFTER_MS: u64 = 700;
/// The range of the delay of a request that arrives late, in microseconds.
const LATE_US: (u64, u64) = (10_000, 2_000_000);
/// The range of the pause between two transactions, in milliseconds.
const PAUSE_MS: (u64, u64) = (20, 200);

/// An InitProducerId request without a response may still arrive within this time. It then fences
/// the producer.
const LATE_INIT_MAX: Duration = Duration::from_secs(20);

/// Why a worker does not commit a transaction.
#[derive(Debug)]
enum Failure {
    /// An error after which the worker aborts the transaction.
    Abortable,
    /// An error after which the worker needs a new producer epoch.
    NeedsEpoch,
    /// The worker has ended. Another one replaces it.
    WorkerEnded,
}

struct Worker {
    client: Client,
    /// The transactional id and the name of the group.
    id: String,
    versions: Versions,
    producer: Producer,
    timeout_ms: u64,
    /// The next sequence number of each partition in this epoch.
    sequences: BTreeMap<Place, i32>,
    /// Number of transactions so far.
    number: u64,
    /// The committed offset, if the worker knows it.
    committed: Option<i64>,
    /// Whether a request of this epoch may still arrive late. Below transaction version 2, only
    /// another epoch protects the next transactions from it.
    has_late_request: bool,
    /// When an InitProducerId request last had no response.
    late_init: Option<Instant>,
    /// Whether the worker has ended a transaction in another way since its last commit. It does so
    /// at most once in a row, because commits are its progress.
    owes_commit: bool,
}

/// Runs a worker. The name of `client` is its transactional id.
pub async fn run(client: Client, versions: Versions) {
    let mut worker = Worker {
        id: client.name.clone(),
        client,
        versions,
        producer: Producer { id: -1, epoch: -1 },
        timeout_ms: LONG_TIMEOUT_MS,
        sequences: BTreeMap::new(),
        number: 0,
        committed: None,
        has_late_request: false,
        late_init: None,
        owes_commit: false,
    };
    loop {
        worker.init(None).await;
        while let Ok(()) = worker.transaction().await {
            if worker.has_late_request && !worker.versions.bumps_epoch() {
                worker.init(Some(worker.producer)).await;
            }
        }
    }
}

impl Worker {
    /// Sends a request and waits for the response.
    async fn ask<R: Request>(
        &mut self,
        to: &Address,
        version: i16,
        request: &R,
    ) -> Option<R::Response> {
        let answer = self.client.ask(to, version, request).await;
        self.has_late_request |= answer.is_none();
        answer
    }

    /// Handles the error code of a response (`None`: no response). Returns true if there is no
    /// error, false if the request must be sent again.
    async fn is_done(&mut self, code: Option<i16>) -> Result<bool, Failure> {
        let Some(code) = code else { return Ok(false) };
        let Some(reaction) = reaction(code) else { return Ok(true) };
        self.client.history.lock().refused(code);
        match reaction {
            Reaction::Retry => {
                let moved = [ErrorCode::NotCoordinator, ErrorCode::CoordinatorNotAvailable];
                if moved.iter().any(|it| it.code() == code) {
                    self.client.forget_coordinator();
                }
                self.client.rest().await;
                Ok(false)
            }
            Reaction::Abort => Err(Failure::Abortable),
            Reaction::Restart => Err(Failure::NeedsEpoch),
        }
    }

    /// Gets a new producer epoch, and ends the transaction of the former one. `last` is the former
    /// producer if this worker had it.
    async fn init(&mut self, mut last: Option<Producer>) {
        self.timeout_ms = match self.client.rng.one_in(3) {
            true => self.client.rng.between(SHORT_TIMEOUT_MS.0, SHORT_TIMEOUT_MS.1),
            false => LONG_TIMEOUT_MS,
        };
        self.client.history.lock().transactions.allow_abort(&self.id);
        loop {
            let coordinator = self.client.transaction_coordinator(&self.id).await;
            let request = transaction_requests::init(&self.id, self.timeout_ms as i32, last);
            let answer = self.ask(&coordinator, self.versions.init, &request).await;
            if answer.is_none() {
                self.late_init = Some(Instant::now());
            }
            match self.is_done(answer.as_ref().map(|it| it.error_code)).await {
                Ok(true) => {
                    let answer = answer.expect("it has no error");
                    self.client.history.lock().transactions.all_ended(&self.id);
                    self.take_producer(answer.producer_id.0, answer.producer_epoch);
                    return;
                }
                Ok(false) => {}
                // Another worker has replaced the former producer, or its epoch was raised.
                Err(_) => {
                    last = None;
                    self.client.rest().await;
                }
            }
        }
    }

    fn take_producer(&mut self, id: i64, epoch: i16) {
        if self.producer != (Producer { id, epoch }) {
            self.sequences.clear();
            self.has_late_request = false;
        }
        self.producer = Producer { id, epoch };
    }

    /// Runs one transaction. Returns an error if the worker needs a new producer epoch.
    async fn transaction(&mut self) -> Result<(), Failure> {
        let pause = self.client.rng.between(PAUSE_MS.0, PAUSE_MS.1);
        sleep(Duration::from_millis(pause)).await;
        let first = self.committed_offset().await.max(0);
        let (name, transaction) = self.begin(first);
        match self.process(&name, &transaction).await {
            Ok(()) => {}
            Err(Failure::Abortable) => return self.abort(&name).await,
            Err(Failure::NeedsEpoch) => return Err(Failure::NeedsEpoch),
            Err(Failure::WorkerEnded) => {
                self.replace(&name, &transaction).await;
                return Ok(());
            }
        }
        match self.client.rng.between(0, 15) {
            0 if !self.owes_commit => {
                self.owes_commit = true;
                self.abort(&name).await
            }
            1 if !self.owes_commit && self.timeout_ms < LONG_TIMEOUT_MS => {
                self.owes_commit = true;
                sleep(Duration::from_millis(self.timeout_ms + ABORTED_AFTER_MS)).await;
                self.commit(&name, &transaction).await
            }
            2..=3 => {
                self.end_late(true, &name).await;
                self.commit(&name, &transaction).await
            }
            _ => self.commit(&name, &transaction).await,
        }
    }

    /// The committed offset, or -1 if there is none. Retries until a broker returns the offset that
    /// this worker and the committed log have. A broker that does not know yet that it no longer
    /// coordinates the group may return an older one.
    async fn committed_offset(&mut self) -> i64 {
        let (topic, _) = TOPICS[0];
        let request = requests::committed_offset(&self.id, (topic, 0)).with_require_stable(true);
        loop {
            let coordinator = self.client.coordinator(&self.id).await;
            let answer = self.ask(&coordinator, OFFSET_FETCH, &request).await;
            let group = answer.and_then(|mut it| it.groups.pop());
            let Some(mut group) = group else { continue };
            let partition = group.topics.pop().and_then(|mut it| it.partitions.pop());
            let code = match (group.error_code, &partition) {
                (0, Some(partition)) => partition.error_code,
                (code, _) => code,
            };
            if !self.is_done(Some(code)).await.unwrap_or(false) {
                continue;
            }
            let Some(found) = partition.map(|it| it.committed_offset) else { continue };
            if self.check_committed(&coordinator, found) {
                return found;
            }
            self.client.forget_coordinator();
            self.client.rest().await;
        }
    }

    /// Whether an offset that a broker returned is the one that this worker and the committed log
    /// have. Records a wrong one for the checks.
    fn check_committed(&self, coordinator: &Address, found: i64) -> bool {
        let mut history = self.client.history.lock();
        let logged = history.transactions.offsets.get(&self.id).copied().unwrap_or(-1);
        if found == logged && self.committed.is_none_or(|committed| committed == found) {
            return true;
        }
        let (host, group) = (coordinator.host.clone(), self.id.clone());
        let expected = self.committed.unwrap_or(logged);
        let wrong = WrongOffset { host, group, found, expected };
        history.wrong_offsets.push(wrong);
        false
    }

    /// Begins a transaction: chooses its inputs and partitions.
    fn begin(&mut self, first: i64) -> (String, Transaction) {
        self.number += 1;
        let name = format!("{}/{}", self.id, self.number);
        let count = self.client.rng.between(1, 3) as i64;
        let mut places: Vec<Place> = TOPICS
            .iter()
            .flat_map(|(topic, count)| {
                (0..*count).map(|partition| ((*topic).to_owned(), partition))
            })
            .collect();
        if self.client.rng.one_in(2) {
            let left_out = self.client.rng.between(0, places.len() as u64 - 1);
            places.remove(left_out as usize);
        }
        let transaction = Transaction {
            worker: self.id.clone(),
            producer: self.producer,
            marker_epoch: self.producer.epoch + i16::from(self.versions.bumps_epoch()),
            places,
            inputs: first..first + count,
            may_commit: false,
            may_abort: self.timeout_ms < LONG_TIMEOUT_MS
                || self.late_init.is_some_and(|at| at.elapsed() < LATE_INIT_MAX),
            is_acknowledged: false,
        };
        let transactions = &mut self.client.history.lock().transactions;
        transactions.transactions.insert(name.clone(), transaction.clone());
        (name, transaction)
    }

    /// Writes the records and the offset of a transaction.
    async fn process(&mut self, name: &str, transaction: &Transaction) -> Result<(), Failure> {
        if !self.versions.bumps_epoch() {
            self.add_partitions(&transaction.places).await?;
        }
        let values = transaction.values(name);
        for place in &transaction.places {
            self.may_end()?;
            let middle = self.client.rng.between(0, values.len() as u64) as usize;
            for part in [&values[..middle], &values[middle..]] {
                if !part.is_empty() {
                    self.produce(place, part).await?;
                }
            }
        }
        self.may_end()?;
        if !self.versions.bumps_epoch() {
            self.add_offsets().await?;
        }
        self.commit_offset(self.producer, transaction.inputs.end, name).await?;
        self.may_end()
    }

    /// Ends the worker sometimes.
    fn may_end(&mut self) -> Result<(), Failure> {
        if self.client.rng.one_in(60) && !self.owes_commit {
            self.owes_commit = true;
            return Err(Failure::WorkerEnded);
        }
        Ok(())
    }

    async fn add_partitions(&mut self, places: &[Place]) -> Result<(), Failure> {
        let request = transaction_requests::add_partitions(&self.id, self.producer, places);
        loop {
            let coordinator = self.client.transaction_coordinator(&self.id).await;
            let answer = self.ask(&coordinator, ADD_PARTITIONS, &request).await;
            let code = answer.map(|it| {
                let topics = it.results_by_topic_v3_and_below.iter();
                let mut results = topics.flat_map(|topic| &topic.results_by_partition);
                let failed = results.find(|it| it.partition_error_code != 0);
                failed.map_or(0, |it| it.partition_error_code)
            });
            if self.is_done(code).await? {
                return Ok(());
            }
        }
    }

    async fn add_offsets(&mut self) -> Result<(), Failure> {
        let request = transaction_requests::add_offsets(&self.id, self.producer);
        loop {
            let coordinator = self.client.transaction_coordinator(&self.id).await;
            let answer = self.ask(&coordinator, ADD_OFFSETS, &request).await;
            if self.is_done(answer.map(|it| it.error_code)).await? {
                return Ok(());
            }
        }
    }

    async fn produce(&mut self, place: &Place, values: &[String]) -> Result<(), Failure> {
        let sequence = self.sequences.get(place).copied().unwrap_or(0);
        let batch = (values, sequence);
        let request = transaction_requests::produce(&self.id, self.producer, place, batch);
        loop {
            let (leader, _) = self.client.leader(place).await;
            let answer = self.ask(&leader, self.versions.produce, &request).await;
            let answer = answer.and_then(|mut it| it.responses.pop()?.partition_responses.pop());
            let mut code = answer.map(|it| it.error_code);
            if code == Some(ErrorCode::DuplicateSequenceNumber.code()) {
                code = Some(0);
            }
            if code == Some(ErrorCode::OutOfOrderSequenceNumber.code()) {
                let wrong = format!("{} for {place:?} is next, but refused", values[0]);
                self.client.history.lock().wrong.push(wrong);
            }
            if self.is_done(code).await? {
                self.sequences.insert(place.clone(), sequence + values.len() as i32);
                return Ok(());
            }
            self.client.forget_leader(place);
        }
    }

    async fn commit_offset(
        &mut self,
        producer: Producer,
        offset: i64,
        name: &str,
    ) -> Result<(), Failure> {
        let place = (TOPICS[0].0.to_owned(), 0);
        let offset = (offset, name);
        let request = transaction_requests::commit_offset(&self.id, producer, &place, offset);
        loop {
            let coordinator = self.client.coordinator(&self.id).await;
            let answer = self.ask(&coordinator, self.versions.commit_offset, &request).await;
            let answer = answer.and_then(|mut it| it.topics.pop()?.partitions.pop());
            if self.is_done(answer.map(|it| it.error_code)).await? {
                return Ok(());
            }
        }
    }

    async fn commit(&mut self, name: &str, transaction: &Transaction) -> Result<(), Failure> {
        self.allow_commit(name);
        // If the commit is refused, the transaction may still be committed: a broker that no longer
        // coordinates it may have refused it.
        self.committed = None;
        let (id, epoch) = self.end(self.producer, true).await?;
        self.committed = Some(transaction.inputs.end);
        self.owes_commit = false;
        self.acknowledge(name);
        if self.versions.bumps_epoch() {
            self.take_producer(id, epoch);
        }
        Ok(())
    }

    fn acknowledge(&self, name: &str) {
        let mut history = self.client.history.lock();
        let known = history.transactions.transactions.get_mut(name).expect("it was begun");
        known.is_acknowledged = true;
        history.transactions.acknowledged.push(name.to_owned());
        history.note_progress(&self.id);
    }

    async fn abort(&mut self, name: &str) -> Result<(), Failure> {
        {
            let mut history = self.client.history.lock();
            let known = history.transactions.transactions.get_mut(name).expect("it was begun");
            known.may_abort = true;
        }
        if self.client.rng.one_in(4) {
            self.end_late(false, name).await;
        }
        let (id, epoch) = self.end(self.producer, false).await?;
        if self.versions.bumps_epoch() {
            self.take_producer(id, epoch);
        }
        Ok(())
    }

    fn allow_commit(&mut self, name: &str) {
        let mut history = self.client.history.lock();
        let known = history.transactions.transactions.get_mut(name).expect("it was begun");
        known.may_commit = true;
    }

    /// Sends EndTxn until there is a response. Returns the producer in it.
    async fn end(&mut self, producer: Producer, commits: bool) -> Result<(i64, i16), Failure> {
        let request = transaction_requests::end(&self.id, producer, commits);
        loop {
            let coordinator = self.client.transaction_coordinator(&self.id).await;
            let answer = self.ask(&coordinator, self.versions.end, &request).await;
            if self.is_done(answer.as_ref().map(|it| it.error_code)).await? {
                let answer = answer.expect("it has no error");
                return Ok((answer.producer_id.0, answer.producer_epoch));
            }
        }
    }

    /// Sends an EndTxn request that arrives late.
    async fn end_late(&mut self, commits: bool, name: &str) {
        if commits {
            self.allow_commit(name);
        }
        let coordinator = self.client.transaction_coordinator(&self.id).await;
        let request = transaction_requests::end(&self.id, self.producer, commits);
        let after_us = self.client.rng.between(LATE_US.0, LATE_US.1);
        self.client.send_late(&coordinator, self.versions.end, &request, after_us).await;
        self.has_late_request = true;
    }

    /// Continues as another worker with the same transactional id. The former one then tries to go
    /// on, which its coordinator and the partitions must refuse.
    async fn replace(&mut self, name: &str, transaction: &Transaction) {
        let former = self.producer;
        self.init(None).await;
        let end = transaction.inputs.end;
        let offset = self.commit_offset(former, end, name).await;
        let ended = self.end(former, true).await;
        if offset.is_ok() || ended.is_ok() {
            let wrong = format!("{name} goes on after its producer {former:?} was fenced");
            self.client.history.lock().wrong.push(wrong);
        }
    }
}

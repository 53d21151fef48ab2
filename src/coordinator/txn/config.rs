//! The configuration of the transaction coordinator.

/// Settings with Kafka's defaults (`TransactionStateManagerConfig`, `TransactionLogConfig`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TxnConfig {
    /// `transaction.max.timeout.ms`
    pub max_timeout_ms: i32,
    /// `transactional.id.expiration.ms`
    pub id_expiration_ms: i64,
    /// `transaction.abort.timed.out.transaction.cleanup.interval.ms`
    pub abort_interval_ms: i64,
    /// `transaction.remove.expired.transaction.cleanup.interval.ms`
    pub expiry_interval_ms: i64,
    /// `transaction.state.log.num.partitions`
    pub topic_num_partitions: i32,
    /// How long a reply waits until its records are committed: `request.timeout.ms`.
    pub commit_timeout_ms: u64,
    /// The most bytes of one append: `max.message.bytes` of `__transaction_state`.
    pub max_batch_bytes: usize,
}

impl Default for TxnConfig {
    fn default() -> Self {
        Self {
            max_timeout_ms: 15 * 60 * 1_000,
            id_expiration_ms: 7 * 24 * 60 * 60 * 1_000,
            abort_interval_ms: 10_000,
            expiry_interval_ms: 60 * 60 * 1_000,
            topic_num_partitions: 50,
            commit_timeout_ms: 30_000,
            max_batch_bytes: 1_048_588,
        }
    }
}

//! The transactions of producers in a partition: guards, first batches and markers.

use std::sync::Arc;

use super::{Acks, AppendError, Appended, Origin, Partition};
use crate::{
    base::environment::now_ms,
    records::{Batch, Producer, TransactionVersion, TxnMarker, Verification, VerificationGuard},
};

impl Partition {
    /// Returns the guard that a producer's first batch in a transaction needs, or `None` if its
    /// transaction is open in the partition. A handler takes the guard before it asks the
    /// transaction coordinator, and passes it to the append after the coordinator has agreed. In
    /// between, an appended batch or marker of the producer, a newer epoch, and a truncation void
    /// it. `sequence` is that of the batch, or -1 if it has none.
    ///
    /// Fails if this replica does not lead, or if the producer's last seen epoch is newer.
    pub fn verification_guard(
        &self,
        producer: Producer,
        sequence: i32,
        version: TransactionVersion,
    ) -> Result<Option<VerificationGuard>, AppendError> {
        self.lock().verification_guard(producer, sequence, version, now_ms())
    }

    /// Appends a client's batches as [`Self::append`] does. The batches may begin a transaction if
    /// `verification` allows it.
    pub fn append_verified(
        self: &Arc<Self>,
        verification: Verification,
        batches: &mut [Batch],
        acks: Acks,
        now_ms: i64,
    ) -> Result<Appended, AppendError> {
        let origin = Origin::Client(verification);
        let append = |core: &mut super::Core| core.append_from(origin, batches, acks, now_ms);
        self.append_with(self.lock(), now_ms, append)
    }

    /// Appends the marker that ends a producer's transaction. Fails as [`Self::append`] does, or if
    /// the marker's producer epoch or coordinator epoch is not current.
    pub fn append_marker(
        self: &Arc<Self>,
        marker: &TxnMarker,
        acks: Acks,
        now_ms: i64,
    ) -> Result<Appended, AppendError> {
        self.append_with(self.lock(), now_ms, |core| core.append_marker(marker, acks, now_ms))
    }

    /// Checks a marker whose transaction version is unknown, so that it is not appended: fails as
    /// an append of it would for another reason.
    pub fn check_epoch_of_marker(&self, producer: Producer, acks: Acks) -> Result<(), AppendError> {
        self.lock().check_epoch_of_marker(producer, acks)
    }

    /// The result of the append of a marker that is not committed yet; see
    /// [`super::Core::uncommitted_marker`].
    pub fn uncommitted_marker(&self, marker: &TxnMarker) -> Option<Appended> {
        self.lock().uncommitted_marker(marker)
    }

    /// Checks that a coordinator may write batches in a producer's transaction: this replica leads
    /// in the given generation ([`super::View::leadership_generation`]), and the transaction is
    /// open or `verification` allows to begin it.
    pub fn check_transaction(
        &self,
        leadership_generation: u64,
        producer: Producer,
        verification: Verification,
    ) -> Result<(), AppendError> {
        self.lock_in(leadership_generation)?.check_transaction(producer, verification)
    }

    /// Checks that a coordinator may write a marker: this replica leads in the given generation,
    /// and the marker's producer epoch and coordinator epoch are current.
    pub fn check_marker(
        &self,
        leadership_generation: u64,
        marker: &TxnMarker,
    ) -> Result<(), AppendError> {
        self.lock_in(leadership_generation)?.check_marker(marker)
    }
}

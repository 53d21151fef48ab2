//! The cluster's state: KRaft's metadata records, the image that they add up to, and the changes
//! that they make.
//!
//! Owns the records' format and the meaning of each record. Must not know who decides on a record
//! (`controller`), how it is replicated (`quorum`), or what a broker does about it (`broker`).
//!
//! Invariants: `Image::apply` is the only way that an image changes; replaying the records of
//! `Image::records` on an empty image gives an equal image; `diff` yields what `apply` would have.

pub mod change;
pub mod entities;
pub mod image;
pub mod record;
pub mod records;
mod sharded;
pub mod snapshot;
pub mod topics;
pub mod transaction;

#[cfg(test)]
mod golden;
#[cfg(test)]
mod tests;

pub use change::{Change, PartitionChange};
pub use entities::{
    BrokerImage, Config, ConfigResource, ConfigResourceType, ControllerImage, QuotaEntity,
};
pub use image::Image;
pub use record::{MetadataRecord, RecordError};
pub use topics::{PartitionImage, TopicImage};
pub use transaction::TransactionFilter;

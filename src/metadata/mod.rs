//! The cluster's metadata: KRaft's records, the image (the state that results from them), and the
//! changes that a record makes to the image.
//!
//! This folder defines the format and the meaning of each record. It does not depend on the code
//! that decides on records (`controller`), replicates them (`quorum`) or acts on them (`broker`).
//!
//! Invariants:
//! - Only `Image::apply` changes the content of an image.
//! - Applying the records of `Image::records` to an empty image yields an equal image.
//! - `diff` describes all differences of two images with the same changes that `apply` returns.

pub mod change;
mod diff;
pub mod entities;
pub mod image;
pub mod record;
pub mod records;
mod sharded;
mod snapshot;
pub mod topics;
pub mod transaction;

#[cfg(test)]
mod golden;
#[cfg(test)]
mod tests;

pub use change::{Change, PartitionChange};
pub use diff::diff;
pub use entities::{
    BrokerImage, Config, ConfigResource, ConfigResourceType, ControllerImage, QuotaEntity,
};
pub use image::Image;
pub use record::{MetadataRecord, RecordError};
pub use sharded::ShardedMap;
pub use topics::{PartitionImage, TopicImage};
pub use transaction::TransactionFilter;

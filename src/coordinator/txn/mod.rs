//! The transaction coordinator as a pure shard.

pub mod messages;

pub use self::messages::TxnError;

//! Consumer groups (KIP-848). Members send heartbeats; the coordinator computes the assignments.
//!
//! A consumer group is a [`ConsumerGroup`], which its records determine. A heartbeat is decided on
//! that state and gives records; nothing of a group is kept elsewhere, except what
//! [`LiveConsumerGroup`] says of the topics that it has followed.
//!
//! - `heartbeat.rs` has the steps of a heartbeat in their order, and `join.rs` finds its member.
//! - `classic/` serves the members that use the classic protocol (JoinGroup, SyncGroup, Heartbeat).
//! - `update.rs` has what both change about a member and its group, `target.rs` computes the target
//!   assignment, `reconcile.rs` the next assignment of a member.
//! - `leave.rs` removes members, `sessions.rs` has the timers.
//! - `upgrade.rs` makes a consumer group of a classic group with members, `downgrade.rs` the reverse.
//! - `regex.rs` decides when regular expressions are resolved, `resolution.rs` is that work, which is
//!   done beside the shard.
//!
//! Invariants:
//! - A partition is in the assignment of one member, or pending revocation by one member.
//! - Epochs of groups never fall, nor does the epoch of a member until it rejoins or leaves.

pub mod classic;
pub mod commit;
mod delete;
mod describe;
mod downgrade;
mod hash;
mod heartbeat;
mod join;
mod leave;
pub mod live;
pub mod member;
pub mod messages;
pub mod reconcile;
pub mod records;
mod regex;
pub mod resolution;
mod sessions;
pub mod state;
mod target;
mod update;
mod upgrade;
pub mod values;

pub use self::{
    live::LiveConsumerGroup,
    records::{ConsumerChange, ConsumerRecord},
    state::ConsumerGroup,
};

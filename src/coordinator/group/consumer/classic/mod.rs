//! Members of consumer groups that use the classic protocol. They join, sync and send heartbeats as
//! in a classic group, while the coordinator computes the assignments. The generation of such a
//! member is its member epoch. No member is the leader.
//!
//! REBALANCE_IN_PROGRESS tells a classic member to join again. Its JoinGroup reports the partitions
//! that it owns, and SyncGroup returns the partitions that it may use.

mod heartbeat;
mod join;
mod member;
mod sync;

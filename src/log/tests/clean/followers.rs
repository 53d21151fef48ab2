//! Followers that copy a log while it is compacted. A copy has no producer snapshots of its source,
//! so the state of its producers comes from the batches that compaction has left.

use super::*;
use crate::{
    base::planted_bugs::{Bug, plant},
    log::{LogView, ProducerEntry},
};

/// The state of a replica that all replicas have in common.
#[derive(Debug, PartialEq)]
struct Replicated {
    log_end: i64,
    table: Table,
    /// Per producer: its epoch, and the last offset and sequence number of its last batch.
    producers: BTreeMap<i64, (i16, Option<(i64, i32)>)>,
    open_transactions: BTreeSet<(i64, i64)>,
}

impl Replicated {
    fn of(log: &Log) -> Self {
        let producer = |(id, entry): (i64, &ProducerEntry)| {
            let last = entry.last_batch().map(|last| (last.last_offset, last.last_sequence));
            (id, (entry.epoch, last))
        };
        Self {
            log_end: log.log_end(),
            table: committed_table(log),
            producers: log.producers().map(producer).collect(),
            open_transactions: log.open_transactions().collect(),
        }
    }
}

pub fn new_follower() -> Log {
    open(&FaultyDisk::default(), small(), start(true, 0)).0
}

/// Fetches once, at most `bytes` or one batch. Returns an error if the leader has nothing at the
/// follower's log end, although its own one is higher.
pub fn fetch(leader: &LogView, follower: &mut Log, bytes: usize) -> Result<(), String> {
    let (next, end) = (follower.log_end(), leader.log_end());
    if next == end {
        return Ok(());
    }
    let slice = leader.read(next, bytes, end, true).expect("reads");
    let mut response = vec![0; slice.len];
    read_exact_at(&*slice.file, &mut response, slice.position).expect("reads");
    let (mut response, mut batches) = (bytes::Bytes::from(response), Vec::new());
    while let Ok(batch) = Batch::split_first(&mut response) {
        batch.verify_crc().expect("is sound");
        if batch.header.last_offset() >= next {
            batches.push(batch);
        }
    }
    follower.append_verbatim(&batches, NOW).expect("appends");
    match batches.is_empty() {
        true => Err(format!("a follower at {next} gets nothing of {end}")),
        false => Ok(()),
    }
}

/// Fetches until the follower has the leader's log end. Returns a difference as an error.
pub fn catch_up(leader: &Log, follower: &mut Log) -> Result<(), String> {
    let view = leader.view();
    while follower.log_end() < view.log_end() {
        fetch(&view, follower, 300)?;
    }
    let (found, expected) = (Replicated::of(follower), Replicated::of(leader));
    match found == expected {
        true => Ok(()),
        false => Err(format!("{found:?} instead of {expected:?}")),
    }
}

fn history() -> Log {
    let (mut log, _) = open(&FaultyDisk::default(), small(), start(true, 0));
    write_history(&mut log);
    log
}

/// The follower has stopped at any offset of the log, often within a gap that compaction makes.
#[test]
fn follower_continues_within_any_gap() {
    let original = history();
    let (before, end) = (original.view(), original.log_end());
    let (cleaned, _) = clean_all(history(), NOW);
    let bases: Vec<i64> = batches_of(&cleaned).iter().map(|it| it.header.base_offset).collect();
    let mut gaps = 0;
    let mut stopped = new_follower();
    while stopped.log_end() < end {
        fetch(&before, &mut stopped, 1).expect("has more");
        gaps += usize::from(!bases.contains(&stopped.log_end()));
        let mut follower = new_follower();
        while follower.log_end() < stopped.log_end() {
            fetch(&before, &mut follower, 1).expect("has more");
        }
        let expected = Replicated::of(&original);
        catch_up(&cleaned, &mut follower).unwrap_or_else(|what| panic!("{what}"));
        assert_eq!(Replicated::of(&follower), expected);
    }
    assert!(gaps > 5, "{gaps}");
}

#[test]
fn follower_copies_what_rounds_have_left() {
    let mut leader = history();
    for round in 0..3 {
        let mut follower = new_follower();
        catch_up(&leader, &mut follower).unwrap_or_else(|what| panic!("round {round}: {what}"));
        // The copy is compacted like the original.
        let (cleaned, _) = clean_all(follower, NOW + round * 2 * RETENTION_MS);
        (leader, _) = clean_all(leader, NOW + round * 2 * RETENTION_MS);
        assert_eq!(Replicated::of(&cleaned), Replicated::of(&leader));
    }
}

/// Copies a cleaned log of which the last batches have no records any more. `last` writes them.
fn copy_of_cleaned(last: impl Fn(&mut Log)) -> Result<(), String> {
    let (mut log, _) = open(&FaultyDisk::default(), small(), start(true, 0));
    put(&mut log, plain(&[("a", Some("old")), ("b", Some("old"))]));
    last(&mut log);
    log.roll(log.log_end(), NOW).expect("rolls");
    // The tombstones go in the second round.
    let (log, _) = clean_all(log, NOW);
    let (log, _) = clean_all(log, NOW + RETENTION_MS);
    assert_eq!(committed_table(&log), Table::new());
    assert_eq!(log.log_end(), log.view().active_base_offset(), "the active segment is empty");
    catch_up(&log, &mut new_follower())
}

#[test]
fn planted_loss_of_an_empty_batch_is_found() {
    let at_the_end = |log: &mut Log| {
        put(log, plain(&[("a", None), ("b", None)]));
    };
    let of_a_producer = |log: &mut Log| {
        put(log, of(5, 0, &[("a", None), ("b", None)]));
        put(log, plain(&[("c", None)]));
    };
    for (bug, at_end_is_found, of_producer_is_found) in [
        (None, false, false),
        (Some(Bug::ForgottenRoundEnd), true, true),
        (Some(Bug::ForgottenSequence), false, true),
    ] {
        plant(bug);
        let found = (copy_of_cleaned(at_the_end), copy_of_cleaned(of_a_producer));
        plant(None);
        let is_found = (found.0.is_err(), found.1.is_err());
        assert_eq!(is_found, (at_end_is_found, of_producer_is_found), "{bug:?}: {found:?}");
    }
}

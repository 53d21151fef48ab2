//! A simulation of several nodes in one process: the real code on simulated disks, links and
//! clocks. A seed decides the schedule and the faults. Invariants are checked at every step.
//!
//! Each seed runs in a process of its own, so that seeds do not influence each other.
//! `SIMULATION_SEEDS=FROM,COUNT` chooses the seeds of the test `seeds`; `scripts/simulate` sets it.
//! To trace one seed: `SIMULATION_SEED=N SIMULATION_TRACE=FILE SIMULATION_LOG=sordini=debug cargo
//! test --test simulation -- --ignored --nocapture one_seed`.

mod admin;
mod check;
mod children;
mod client;
mod committed;
mod committed_reads;
mod compacted;
mod consume;
mod consumer_groups;
mod consumer_history;
mod consumers;
mod coordinator_probe;
mod faults;
mod history;
mod leaders;
mod machines;
mod members;
mod membership;
mod network;
mod node;
mod pipelined;
mod points;
mod produce;
mod random;
#[path = "../shared/requests.rs"]
#[allow(dead_code, reason = "each test program uses a part")]
mod requests;
mod rounds;
mod run;
mod serve;
mod trace;
mod transaction_requests;
mod transactional;
mod transactions;
mod wire;

use std::{
    collections::{BTreeMap, BTreeSet},
    env, thread,
};

use tracing_subscriber::EnvFilter;

use children::{Child, run_all};

/// The seeds of a normal test run. They cover every kind of run: slow disks, faults at points of
/// transactions, a slow leader, several faults, one fault at a time, and a quorum that voters leave.
const SEEDS: [u64; 6] = [4, 6, 7, 8, 9, 10];
/// Number of seeds within which a planted bug must be found. The first one has found it before.
const PATIENCE: u64 = 30;

/// Runs one seed and prints, for the parent process, the violation and the hash of the trace.
#[test]
#[ignore = "started by the others, with a seed"]
fn one_seed() {
    let seed = env::var("SIMULATION_SEED").expect("a seed").parse().expect("a number");
    if env::var_os("SIMULATION_LOG").is_some() {
        let filter = EnvFilter::from_env("SIMULATION_LOG");
        tracing_subscriber::fmt().with_env_filter(filter).without_time().init();
    }
    // In a new thread: logging has drawn random numbers from the generator of this thread.
    let outcome = thread::spawn(move || run::run(seed)).join().expect("it does not panic itself");
    if let Some(wrong) = &outcome.wrong {
        for line in &outcome.last {
            println!("{line}");
        }
        println!("WRONG {wrong}");
    }
    println!("{}", outcome.summary);
    println!("HASH {:016x}", outcome.hash);
}

/// Runs seeds, and the last one of them twice: the same seed must give the same trace.
#[test]
fn seeds() {
    let seeds = env::var("SIMULATION_SEEDS").map_or(SEEDS.to_vec(), |asked| {
        let (from, count) = asked.split_once(',').expect("FROM,COUNT");
        let from: u64 = from.parse().expect("a number");
        (from..from + count.parse::<u64>().expect("a number")).collect()
    });
    let last = *seeds.last().expect("a seed");
    let (mut failed, mut hashes) = (BTreeSet::new(), BTreeSet::new());
    run_all([last].iter().chain(&seeds).map(|seed| Child::new(*seed)), |child, outcome| {
        if outcome.hash.is_none() || outcome.wrong.is_some() {
            eprintln!("seed {}:\n{}", child.seed, outcome.output);
            failed.insert(child.seed);
        }
        if child.seed == last {
            hashes.insert(outcome.hash);
        }
    });
    assert!(failed.is_empty(), "seeds {failed:?} of {seeds:?}");
    assert_eq!(hashes.len(), 1, "the traces of seed {last} differ");
    eprintln!("{} seeds from {} to {last}: nothing found", seeds.len(), seeds[0]);
}

/// Runs each bug with its first seed, and those that were not found with the next one.
#[test]
fn planted_bugs_are_found() {
    let mut missing: BTreeMap<_, _> =
        node::BUGS.iter().map(|(bug, _, first)| (*bug, *first)).collect();
    for attempt in 0..PATIENCE {
        let children = missing.iter().map(|(bug, first)| (first + attempt, Some(*bug)));
        let children: Vec<_> = children.map(|(seed, bug)| Child { seed, bug }).collect();
        run_all(children, |Child { seed, bug }, outcome| {
            if let (Some(bug), Some(wrong)) = (bug, outcome.wrong) {
                eprintln!("{bug}: found with seed {seed}: {wrong}");
                missing.remove(bug);
            }
        });
    }
    assert!(missing.is_empty(), "no seed found {:?}", missing.keys());
}

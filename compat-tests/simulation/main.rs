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

use std::{env, thread};

use tracing_subscriber::EnvFilter;

use children::{Child, run_all};

/// The seeds of a normal test run. They cover every kind of run.
const SEEDS: (u64, u64) = (4, 7);
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

#[test]
fn seeds() {
    let (from, count) = env::var("SIMULATION_SEEDS").map_or(SEEDS, |asked| {
        let (from, count) = asked.split_once(',').expect("FROM,COUNT");
        (from.parse().expect("a number"), count.parse().expect("a number"))
    });
    let mut failed = Vec::new();
    run_all((from..from + count).map(Child::new), |child, outcome| {
        if outcome.hash.is_none() || outcome.wrong.is_some() {
            eprintln!("seed {}:\n{}", child.seed, outcome.output);
            failed.push(child.seed);
        }
        true
    });
    assert!(failed.is_empty(), "seeds {failed:?} of {from}..{}", from + count);
    eprintln!("{count} seeds from {from}: nothing found");
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let mut hashes = Vec::new();
    run_all([Child::new(7), Child::new(7)], |_, outcome| {
        hashes.push(outcome.hash.expect("the run has come to its end"));
        true
    });
    assert_eq!(hashes[0], hashes[1]);
}

#[test]
fn planted_bugs_are_found() {
    for (bug, _, first) in node::BUGS {
        let mut found = None;
        run_all(
            (first..first + PATIENCE).map(|seed| Child { seed, bug: Some(bug) }),
            |child, outcome| {
                if let Some(wrong) = outcome.wrong {
                    found.get_or_insert((child.seed, wrong));
                }
                found.is_none()
            },
        );
        let (seed, wrong) = found.unwrap_or_else(|| panic!("no seed found {bug}"));
        eprintln!("{bug}: found with seed {seed}: {wrong}");
    }
}

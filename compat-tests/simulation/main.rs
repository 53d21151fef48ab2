//! A cluster of nodes in one process under a scheduler that a seed decides: the real code, on
//! simulated disks, links and clocks, with faults; invariants are checked at every step.
//!
//! Each seed runs in a process of its own, so that nothing is left over from another one.

mod admin;
mod chance;
mod check;
mod client;
mod cluster;
mod committed;
mod consume;
mod faults;
mod history;
mod network;
mod node;
mod produce;
mod run;
mod serve;
mod trace;
mod wire;

use std::env;

use tracing_subscriber::EnvFilter;

/// What the parent reads: whether the seed passed, and the hash of its trace.
#[test]
#[ignore = "started by the others, with a seed"]
fn one_seed() {
    let seed = env::var("SIMULATION_SEED").expect("a seed").parse().expect("a number");
    if env::var_os("SIMULATION_LOG").is_some() {
        let filter = EnvFilter::from_env("SIMULATION_LOG");
        tracing_subscriber::fmt().with_env_filter(filter).without_time().init();
    }
    let outcome = run::run(seed);
    if let Some(wrong) = &outcome.wrong {
        for line in &outcome.last {
            println!("{line}");
        }
        println!("WRONG {wrong}");
    }
    println!("{}", outcome.summary);
    println!("HASH {:016x}", outcome.hash);
}

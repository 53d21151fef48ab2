//! A cluster of nodes in one process under a scheduler that a seed decides: the real code, on
//! simulated disks, links and clocks, with faults; invariants are checked at every step.
//!
//! Each seed runs in a process of its own, so that nothing is left over from another one.

mod chance;
mod cluster;
mod network;
mod node;
mod serve;
mod trace;
mod wire;

use cluster::Cluster;

#[test]
#[ignore = "started by the others, with a seed"]
fn one_seed() {
    let seed = std::env::var("SIMULATION_SEED").expect("a seed").parse().expect("a number");
    if std::env::var_os("SIMULATION_LOG").is_some() {
        tracing_subscriber::fmt()
            .with_env_filter(tracing_subscriber::EnvFilter::from_env("SIMULATION_LOG"))
            .without_time()
            .init();
    }
    let mut cluster = Cluster::new(3, seed);
    for node in &mut cluster.nodes {
        node.start();
    }
    for i in 0..10_000 {
        cluster.tick();
        if i % 1000 == 999 {
            for node in &cluster.nodes {
                println!(
                    "{i} n{} started {} failure {:?} quorum {:?}",
                    node.id,
                    node.is_started(),
                    node.start_failure(),
                    node.broker().map(|b| b.quorum.status().leader_id)
                );
            }
        }
        if cluster.nodes.iter().all(|n| n.is_started()) {
            println!("all at {i}");
            break;
        }
    }
    println!("hash {:016x}", cluster.wire.lock().trace.hash());
}

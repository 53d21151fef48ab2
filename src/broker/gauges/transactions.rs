//! Metrics of the transactions that this broker coordinates.

use crate::{
    coordinator::{
        TxnCounters,
        txn::{
            messages::{TxnOutcome, TxnSurvey},
            state::TxnState,
        },
    },
    telemetry::{Kind, Scrape},
};

/// Collects the numbers of transactional ids and of markers that wait.
pub fn collect_survey(survey: &TxnSurvey, scrape: &mut Scrape) {
    let name = "kafka_server_transactional_ids";
    let mut family = scrape.family(name, "Transactional ids by state", Kind::Gauge);
    for state in TxnState::ALL.map(TxnState::name) {
        let count = survey.states.get(state).copied().unwrap_or_default();
        family.sample(&[("state", state)], count as f64);
    }
    let (name, help) =
        ("kafka_server_transaction_markers_waiting", "Partitions that wait for a marker");
    scrape.gauge(name, help, &[], survey.waiting_markers as f64);
    let name = "kafka_server_late_transactions";
    let help = "Transactions that are open five minutes after their timeout";
    scrape.gauge(name, help, &[], survey.late as f64);
}

/// Collects the numbers of ended transactions.
pub fn collect_counters(counters: &TxnCounters, scrape: &mut Scrape) {
    let name = "kafka_server_transactions_ended_total";
    let mut family = scrape.family(name, "Ended transactions by outcome", Kind::Counter);
    for outcome in TxnOutcome::ALL {
        family.sample(&[("outcome", outcome.name())], counters.ended(outcome) as f64);
    }
    let (name, help) =
        ("kafka_server_transactions_completed_total", "Ended transactions with all markers");
    scrape.counter(name, help, &[], counters.completed() as f64);
    let name = "kafka_server_transaction_completion_seconds_total";
    let help = "Time from the end to the last marker of completed transactions";
    scrape.counter(name, help, &[], counters.completion_ms() as f64 / 1000.0);
}

//! What operators see of a node: logs (by `tracing`), metrics in the text format of Prometheus, and
//! the HTTP port that serves the metrics and the health of the node.
//!
//! Must not know: partitions, groups, requests. The code that has these keeps handles that
//! [`Metrics`] gives it, or registers a collector or a survey, which each scrape calls.
//!
//! Invariants:
//! - A handle is created once, and counting with it is an atomic addition.
//! - Nothing is sampled or buffered, so memory grows with the number of series and not with
//!   traffic.
//! - Nothing is global but the log subscriber.

pub mod http;
mod loggers;
mod logging;
pub mod metrics;
mod startup;

pub use http::{Health, NotReady, serve};
pub use loggers::{LevelChange, LevelError, LogLevel, Loggers, ROOT};
pub use logging::{InvalidFilter, init_tracing, json_line};
pub use metrics::{
    ApiMetrics, CloseReason, Histogram, Kind, Labels, Metrics, Parked, Scrape, SurveyResult,
    TopicMetrics,
};
pub use startup::{LOG_INTERVAL, StartProgress};

//! What an operator sees: logs by `tracing`, metrics in Prometheus' text format, and the HTTP port
//! that serves them with the broker's health.
//!
//! Must not know: partitions, groups, requests. They keep the handles that [`Metrics`] gives them,
//! or register a collector or a survey that is asked at each scrape.
//!
//! Invariants: a handle is made once and counting through it is an atomic addition; nothing is
//! sampled or buffered, so memory grows with the number of series and not with traffic; nothing is
//! global but the log subscriber.

pub mod http;
mod loggers;
mod logging;
pub mod metrics;

pub use http::{Health, NotReady, serve};
pub use loggers::{LevelChange, LevelError, LogLevel, Loggers, ROOT};
pub use logging::{InvalidFilter, init_tracing, json_line};
pub use metrics::{
    ApiMetrics, CloseReason, Histogram, Kind, Labels, Metrics, Parked, Scrape, SurveyResult,
    TopicMetrics,
};

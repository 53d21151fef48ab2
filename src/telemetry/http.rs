//! The HTTP port: metrics for Prometheus, and what orchestrators and operators ask for: whether the
//! process lives (`/livez`), whether it is ready (`/readyz`), and both in one word (`/health`).

use super::Metrics;
use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::Response;
use axum::routing::get;
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::net::TcpListener;

const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";

const INDEX: &str = "\
/metrics  metrics in the text format of Prometheus
/livez    200 while the process works, also while it starts
/readyz   200 when this node serves all that it should; 503 with the reasons otherwise
/health   200 while this node serves, with \"degraded\" and the reasons if not in full; 503 otherwise
";

/// One thing that keeps a node from being ready.
#[derive(Debug, Clone, PartialEq)]
pub struct NotReady {
    reason: &'static str,
    details: Vec<(&'static str, Value)>,
}

impl NotReady {
    pub fn new(reason: &'static str) -> Self {
        Self { reason, details: vec![] }
    }

    /// Adds facts, such as the progress of a recovery.
    pub fn with(self, details: impl IntoIterator<Item = (&'static str, Value)>) -> Self {
        Self { details: details.into_iter().collect(), ..self }
    }

    fn members(&self) -> impl Iterator<Item = (String, Value)> {
        self.details.iter().map(|(name, value)| ((*name).to_string(), value.clone()))
    }

    fn to_json(&self) -> Value {
        let reason = ("reason".to_string(), self.reason.into());
        Value::Object([reason].into_iter().chain(self.members()).collect())
    }
}

/// The state of a node.
#[derive(Debug, Clone, PartialEq)]
pub struct Health {
    /// The code of `/livez`. False means that only a restart can help.
    pub is_alive: bool,
    /// The code of `/health`.
    pub is_healthy: bool,
    /// A node without any is ready.
    pub reasons: Vec<NotReady>,
}

impl Health {
    pub fn ready() -> Self {
        Self { is_alive: true, is_healthy: true, reasons: vec![] }
    }

    /// Alive, but not of use.
    pub fn unhealthy(reason: NotReady) -> Self {
        Self { is_alive: true, is_healthy: false, reasons: vec![reason] }
    }

    fn livez(&self) -> (StatusCode, Value) {
        let status = if self.is_alive { "alive" } else { "failed" };
        (code(self.is_alive), json!({ "status": status }))
    }

    fn readyz(&self) -> (StatusCode, Value) {
        if self.reasons.is_empty() && self.is_healthy {
            return (StatusCode::OK, json!({ "status": "ready" }));
        }
        let body = json!({ "status": "not_ready", "reasons": self.reasons_json() });
        (StatusCode::SERVICE_UNAVAILABLE, body)
    }

    /// A node that serves is 200 here even if it is not ready in full: what restarts it on any other
    /// code must not do so because a disk is full.
    fn health(&self) -> (StatusCode, Value) {
        let body = match (self.is_healthy, &self.reasons[..]) {
            (true, []) => json!({ "status": "ok" }),
            (true, _) => json!({ "status": "degraded", "reasons": self.reasons_json() }),
            (false, []) => json!({ "status": "failed" }),
            (false, [first, ..]) => {
                let status = ("status".to_string(), first.reason.into());
                Value::Object([status].into_iter().chain(first.members()).collect())
            }
        };
        (code(self.is_healthy), body)
    }

    fn reasons_json(&self) -> Vec<Value> {
        self.reasons.iter().map(NotReady::to_json).collect()
    }
}

fn code(is_good: bool) -> StatusCode {
    if is_good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

/// Returns the present health. It is called for each request, so it must be quick.
pub type HealthCheck = Arc<dyn Fn() -> Health + Send + Sync>;

#[derive(Clone)]
struct Port {
    metrics: Arc<Metrics>,
    health: HealthCheck,
}

impl Port {
    fn health(&self) -> Health {
        (self.health)()
    }
}

/// Answers on `listener` until it is dropped. Errors of single connections are not logged.
pub async fn serve(
    listener: TcpListener,
    metrics: Arc<Metrics>,
    health: HealthCheck,
) -> std::io::Result<()> {
    let router = Router::new()
        .route("/metrics", get(answer_metrics))
        .route("/", get(async || answer(StatusCode::OK, TEXT, INDEX.to_string())))
        .route("/livez", get(async |State(port): State<Port>| json(port.health().livez())))
        .route("/readyz", get(async |State(port): State<Port>| json(port.health().readyz())))
        .route("/health", get(async |State(port): State<Port>| json(port.health().health())))
        .method_not_allowed_fallback(async || {
            let text = "method not allowed: this port answers GET and HEAD\n".to_string();
            answer(StatusCode::METHOD_NOT_ALLOWED, TEXT, text)
        })
        .fallback(async || {
            let text = format!("not found; this port has:\n{INDEX}");
            answer(StatusCode::NOT_FOUND, TEXT, text)
        })
        .with_state(Port { metrics, health });
    axum::serve(listener, router).await
}

async fn answer_metrics(State(port): State<Port>) -> Response {
    match port.metrics.scrape().await {
        Ok(text) => answer(StatusCode::OK, METRICS_TYPE, text),
        Err(error) => {
            tracing::error!(%error, "rendering the metrics failed");
            answer(StatusCode::INTERNAL_SERVER_ERROR, TEXT, "no metrics\n".to_string())
        }
    }
}

fn json((code, body): (StatusCode, Value)) -> Response {
    answer(code, JSON, body.to_string())
}

fn answer(code: StatusCode, content_type: &'static str, body: String) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = code;
    let content_type = header::HeaderValue::from_static(content_type);
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    async fn request(port: u16, line: &str) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let request = format!("{line} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    async fn start(health: HealthCheck) -> (u16, tokio::task::JoinHandle<std::io::Result<()>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let metrics = Metrics::new();
        metrics.api(0).requests.increment(3);
        (port, tokio::spawn(serve(listener, metrics, health)))
    }

    /// Asserts the code and the whole body.
    async fn assert_answer(port: u16, path: &str, code: u16, body: &str) {
        let answer = request(port, &format!("GET {path}")).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {code} ")), "{answer}");
        assert_eq!(answer.split_once("\r\n\r\n").unwrap().1, body, "{path}");
    }

    #[tokio::test]
    async fn metrics_and_health_answer() {
        let is_up = Arc::new(AtomicBool::new(false));
        let up = Arc::clone(&is_up);
        let (port, server) = start(Arc::new(move || match up.load(Ordering::Relaxed) {
            true => Health::ready(),
            false => {
                Health::unhealthy(NotReady::new("starting").with([("logs_remaining", 7.into())]))
            }
        }))
        .await;
        let answer = request(port, "GET /metrics").await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(answer.contains("content-type: text/plain; version=0.0.4"), "{answer}");
        assert!(answer.contains("kafka_server_requests_total{api=\"Produce\"} 3\n"), "{answer}");

        let health = r#"{"logs_remaining":7,"status":"starting"}"#;
        assert_answer(port, "/health", 503, health).await;
        assert_answer(port, "/livez", 200, r#"{"status":"alive"}"#).await;
        let ready =
            r#"{"reasons":[{"logs_remaining":7,"reason":"starting"}],"status":"not_ready"}"#;
        assert_answer(port, "/readyz", 503, ready).await;
        is_up.store(true, Ordering::Relaxed);
        assert_answer(port, "/health", 200, r#"{"status":"ok"}"#).await;
        assert_answer(port, "/livez", 200, r#"{"status":"alive"}"#).await;
        assert_answer(port, "/readyz", 200, r#"{"status":"ready"}"#).await;
        let answer = request(port, "GET /health").await;
        assert!(answer.contains("content-type: application/json"), "{answer}");
        server.abort();
    }

    #[tokio::test]
    async fn degraded_and_failed_nodes_say_why() {
        let is_alive = Arc::new(AtomicBool::new(true));
        let alive = Arc::clone(&is_alive);
        let (port, server) = start(Arc::new(move || {
            let is_alive = alive.load(Ordering::Relaxed);
            let reasons = vec![NotReady::new("fenced"), NotReady::new("offline_partitions")];
            Health { is_alive, is_healthy: is_alive, reasons }
        }))
        .await;
        let reasons = r#"[{"reason":"fenced"},{"reason":"offline_partitions"}]"#;
        let body = format!(r#"{{"reasons":{reasons},"status":"degraded"}}"#);
        assert_answer(port, "/health", 200, &body).await;
        let body = format!(r#"{{"reasons":{reasons},"status":"not_ready"}}"#);
        assert_answer(port, "/readyz", 503, &body).await;
        is_alive.store(false, Ordering::Relaxed);
        assert_answer(port, "/livez", 503, r#"{"status":"failed"}"#).await;
        assert_answer(port, "/health", 503, r#"{"status":"fenced"}"#).await;
        server.abort();
    }

    #[tokio::test]
    async fn other_paths_and_methods_have_a_body() {
        let (port, server) = start(Arc::new(Health::ready)).await;
        assert_answer(port, "/", 200, INDEX).await;
        assert_answer(port, "/other", 404, &format!("not found; this port has:\n{INDEX}")).await;
        let answer = request(port, "POST /metrics").await;
        assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
        assert!(answer.ends_with("GET and HEAD\n"), "{answer}");
        server.abort();
    }
}

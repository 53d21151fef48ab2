//! The HTTP port: metrics for Prometheus (`/metrics`), and probes for orchestrators and operators:
//! whether the process works (`/livez`), whether the node is ready (`/readyz`), and a summary of
//! both (`/health`).

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

/// One reason why a node is not ready.
#[derive(Debug, Clone, PartialEq)]
pub struct NotReady {
    reason: &'static str,
    details: Vec<(&'static str, Value)>,
}

impl NotReady {
    pub fn new(reason: &'static str) -> Self {
        Self { reason, details: vec![] }
    }

    /// Adds details, such as the progress of a recovery. They replace earlier ones.
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

/// The health of a node.
#[derive(Debug, Clone, PartialEq)]
pub struct Health {
    /// Whether `/health` returns 200 (else 503).
    pub is_healthy: bool,
    /// Why the node is not ready. A healthy node without any reason is ready.
    pub reasons: Vec<NotReady>,
}

impl Health {
    pub fn ready() -> Self {
        Self { is_healthy: true, reasons: vec![] }
    }

    /// A node that is alive but does not serve.
    pub fn unhealthy(reason: NotReady) -> Self {
        Self { is_healthy: false, reasons: vec![reason] }
    }

    fn readyz(&self) -> (StatusCode, Value) {
        if self.reasons.is_empty() && self.is_healthy {
            return (StatusCode::OK, json!({ "status": "ready" }));
        }
        let body = json!({ "status": "not_ready", "reasons": self.reasons_json() });
        (StatusCode::SERVICE_UNAVAILABLE, body)
    }

    /// The response of `/health`. A node that serves returns 200 even if it is not fully ready. An
    /// orchestrator may restart the node on any other code, and must not do so because, for
    /// example, a disk is full.
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

/// The source of a node's health, which the broker implements. Each probe calls it on a worker
/// thread. An implementation must not wait for a disk, nor for a lock that is held during disk
/// operations.
pub trait HealthCheck: Send + Sync {
    /// Whether `/livez` returns 200. False means that only a restart can help.
    fn is_alive(&self) -> bool;
    fn health(&self) -> Health;
}

#[derive(Clone)]
struct Port {
    metrics: Arc<Metrics>,
    health: Arc<dyn HealthCheck>,
}

fn livez(is_alive: bool) -> (StatusCode, Value) {
    let status = if is_alive { "alive" } else { "failed" };
    (code(is_alive), json!({ "status": status }))
}

/// Serves the HTTP port on `listener` until the future is dropped. Errors of single connections are
/// not logged.
pub async fn serve(
    listener: TcpListener,
    metrics: Arc<Metrics>,
    health: Arc<dyn HealthCheck>,
) -> std::io::Result<()> {
    let router = Router::new()
        .route("/metrics", get(answer_metrics))
        .route("/", get(async || answer(StatusCode::OK, TEXT, INDEX.to_string())))
        .route("/livez", get(async |State(port): State<Port>| json(livez(port.health.is_alive()))))
        .route("/readyz", get(async |State(port): State<Port>| json(port.health.health().readyz())))
        .route("/health", get(async |State(port): State<Port>| json(port.health.health().health())))
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
    use parking_lot::Mutex;
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

    struct Node {
        is_alive: AtomicBool,
        health: Mutex<Health>,
    }

    impl Node {
        fn new(health: Health) -> Arc<Self> {
            Arc::new(Self { is_alive: true.into(), health: Mutex::new(health) })
        }

        fn set_health(&self, health: Health) {
            *self.health.lock() = health;
        }
    }

    impl HealthCheck for Node {
        fn is_alive(&self) -> bool {
            self.is_alive.load(Ordering::Relaxed)
        }

        fn health(&self) -> Health {
            self.health.lock().clone()
        }
    }

    async fn start(health: Arc<Node>) -> (u16, tokio::task::JoinHandle<std::io::Result<()>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let metrics = Metrics::new();
        metrics.api(0).requests.increment(3);
        (port, tokio::spawn(serve(listener, metrics, health)))
    }

    /// Asserts the status code and the whole body.
    async fn assert_answer(port: u16, path: &str, code: u16, body: &str) {
        let answer = request(port, &format!("GET {path}")).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {code} ")), "{answer}");
        assert_eq!(answer.split_once("\r\n\r\n").unwrap().1, body, "{path}");
    }

    #[tokio::test]
    async fn metrics_and_health_answer() {
        let reason = NotReady::new("starting").with([("logs_remaining", 7.into())]);
        let node = Node::new(Health::unhealthy(reason));
        let (port, server) = start(Arc::clone(&node)).await;
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
        node.set_health(Health::ready());
        assert_answer(port, "/health", 200, r#"{"status":"ok"}"#).await;
        assert_answer(port, "/livez", 200, r#"{"status":"alive"}"#).await;
        assert_answer(port, "/readyz", 200, r#"{"status":"ready"}"#).await;
        let answer = request(port, "GET /health").await;
        assert!(answer.contains("content-type: application/json"), "{answer}");
        server.abort();
    }

    #[tokio::test]
    async fn degraded_and_failed_nodes_say_why() {
        let reasons = vec![NotReady::new("fenced"), NotReady::new("offline_partitions")];
        let degraded = Health { is_healthy: true, reasons };
        let node = Node::new(degraded.clone());
        let (port, server) = start(Arc::clone(&node)).await;
        let reasons = r#"[{"reason":"fenced"},{"reason":"offline_partitions"}]"#;
        let body = format!(r#"{{"reasons":{reasons},"status":"degraded"}}"#);
        assert_answer(port, "/health", 200, &body).await;
        let body = format!(r#"{{"reasons":{reasons},"status":"not_ready"}}"#);
        assert_answer(port, "/readyz", 503, &body).await;
        node.is_alive.store(false, Ordering::Relaxed);
        node.set_health(Health { is_healthy: false, ..degraded });
        assert_answer(port, "/livez", 503, r#"{"status":"failed"}"#).await;
        assert_answer(port, "/health", 503, r#"{"status":"fenced"}"#).await;
        server.abort();
    }

    #[tokio::test]
    async fn other_paths_and_methods_have_a_body() {
        let (port, server) = start(Node::new(Health::ready())).await;
        assert_answer(port, "/", 200, INDEX).await;
        assert_answer(port, "/other", 404, &format!("not found; this port has:\n{INDEX}")).await;
        let answer = request(port, "POST /metrics").await;
        assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
        assert!(answer.ends_with("GET and HEAD\n"), "{answer}");
        server.abort();
    }
}

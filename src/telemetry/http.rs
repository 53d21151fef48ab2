//! The HTTP port: `GET /metrics` for Prometheus, `GET /health` for whoever starts and watches the
//! broker.

use super::Metrics;
use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::Response;
use axum::routing::get;
use std::sync::Arc;
use tokio::net::TcpListener;

const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Whether the broker can serve, and what it says of itself.
#[derive(Debug, Clone, PartialEq)]
pub struct Health {
    /// Decides between the answers 200 and 503.
    pub is_healthy: bool,
    /// One word, such as `ok`, `starting`, `stopping`.
    pub status: String,
    /// Further members of the JSON object, such as the progress of a recovery.
    pub details: Vec<(String, serde_json::Value)>,
}

impl Health {
    pub fn ok() -> Self {
        Self { is_healthy: true, status: "ok".to_string(), details: vec![] }
    }

    pub fn not_ok(status: impl Into<String>) -> Self {
        Self { is_healthy: false, status: status.into(), details: vec![] }
    }

    fn to_json(&self) -> String {
        let mut object = serde_json::Map::new();
        object.insert("status".to_string(), self.status.clone().into());
        object.extend(self.details.iter().cloned());
        serde_json::Value::from(object).to_string()
    }
}

/// Tells the present health; called for each request, so it must be quick.
pub type HealthCheck = Arc<dyn Fn() -> Health + Send + Sync>;

#[derive(Clone)]
struct Port {
    metrics: Arc<Metrics>,
    health: HealthCheck,
}

/// Answers on `listener` until it is dropped. Errors of single connections are not told.
pub async fn serve(
    listener: TcpListener,
    metrics: Arc<Metrics>,
    health: HealthCheck,
) -> std::io::Result<()> {
    let router = Router::new()
        .route("/metrics", get(answer_metrics))
        .route("/health", get(answer_health))
        .with_state(Port { metrics, health });
    axum::serve(listener, router).await
}

async fn answer_metrics(State(port): State<Port>) -> Response {
    match port.metrics.scrape().await {
        Ok(text) => answer(StatusCode::OK, METRICS_TYPE, text),
        Err(error) => {
            tracing::error!(%error, "rendering the metrics failed");
            answer(StatusCode::INTERNAL_SERVER_ERROR, "text/plain", String::new())
        }
    }
}

async fn answer_health(State(port): State<Port>) -> Response {
    let health = (port.health)();
    let code = if health.is_healthy { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    answer(code, "application/json", health.to_json())
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

    #[tokio::test]
    async fn metrics_and_health_answer() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let is_up = Arc::new(AtomicBool::new(false));
        let up = Arc::clone(&is_up);
        let health: HealthCheck = Arc::new(move || {
            if up.load(Ordering::Relaxed) {
                return Health::ok();
            }
            let details = vec![("partitions_left".to_string(), 7.into())];
            Health { details, ..Health::not_ok("starting") }
        });
        let metrics = Metrics::new();
        metrics.api(0).requests.increment(3);
        let server = tokio::spawn(serve(listener, metrics, health));

        let answer = request(port, "GET /metrics").await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(answer.contains("content-type: text/plain; version=0.0.4"), "{answer}");
        assert!(answer.contains("kafka_server_requests_total{api=\"Produce\"} 3\n"), "{answer}");

        let answer = request(port, "GET /health").await;
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
        assert!(answer.ends_with(r#"{"partitions_left":7,"status":"starting"}"#), "{answer}");
        is_up.store(true, Ordering::Relaxed);
        let answer = request(port, "GET /health").await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(answer.contains("content-type: application/json"), "{answer}");
        assert!(answer.ends_with(r#"{"status":"ok"}"#), "{answer}");

        assert!(request(port, "GET /other").await.starts_with("HTTP/1.1 404 "));
        assert!(request(port, "POST /metrics").await.starts_with("HTTP/1.1 405 "));
        server.abort();
    }
}

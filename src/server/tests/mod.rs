//! Tests of a whole node without sockets: requests go to its handlers directly.

mod authorization;
mod requests;
mod transactional_offsets;
mod transactions;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use kafka_protocol::{
    messages::RequestHeader,
    protocol::{Encodable, Request, StrBytes},
};
use parking_lot::Mutex;
use tokio::{runtime::Handle, time::timeout};

use self::requests::{GROUP, Sent, TOPIC};
use super::{Environment, Server};
use crate::{
    base::config::{Config, SecurityProtocol},
    handlers::{self, Authorizer, Client, ConnectionContext, ErrorCode, Outcome},
    peers,
    protocol::{
        Api,
        checks::{Check, ResourceType},
        frame::{Incoming, parse_header},
        shape::sample::Sample,
    },
};

/// What a [`Recorder`] allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    AllowAll,
    /// Deny what is checked on the cluster, and allow the rest.
    DenyCluster,
    /// Deny what is checked on topics, and allow the rest.
    DenyTopics,
    DenyAll,
}

/// An authorizer that records every check.
struct Recorder {
    rule: Rule,
    asked: Mutex<Vec<Check>>,
}

impl Recorder {
    fn new(rule: Rule) -> Arc<Self> {
        Arc::new(Self { rule, asked: Mutex::default() })
    }
}

impl Authorizer for Recorder {
    fn allows(&self, _: &Client, check: Check, _: &str) -> bool {
        self.asked.lock().push(check);
        match self.rule {
            Rule::AllowAll => true,
            Rule::DenyCluster => check.resource != ResourceType::Cluster,
            Rule::DenyTopics => check.resource != ResourceType::Topic,
            Rule::DenyAll => false,
        }
    }

    fn allows_on_any(&self, client: &Client, check: Check) -> bool {
        self.allows(client, check, "")
    }

    fn operations(&self, _: &Client, _: ResourceType, _: &str) -> i32 {
        0
    }
}

/// A running broker and controller.
struct Node {
    server: Server,
    _data: tempfile::TempDir,
}

impl Node {
    async fn start() -> Self {
        Self::start_with([]).await
    }

    /// Starts a node with these properties.
    async fn start_with<const N: usize>(properties: [(&str, &str); N]) -> Self {
        let data = tempfile::tempdir().expect("a directory");
        let defaults = [
            ("node.id", "3"),
            ("process.roles", "broker,controller"),
            ("controller.listener.names", "CONTROLLER"),
            ("controller.quorum.bootstrap.servers", "127.0.0.1:1"),
            ("listeners", "PLAINTEXT://127.0.0.1:0"),
            ("http.listener", "none"),
            ("offsets.topic.num.partitions", "1"),
            ("offsets.topic.replication.factor", "1"),
            ("transaction.state.log.num.partitions", "1"),
            ("transaction.state.log.replication.factor", "1"),
            ("transaction.state.log.min.isr", "1"),
            ("log.dirs", data.path().to_str().expect("UTF-8")),
        ];
        let properties = defaults.into_iter().chain(properties);
        let properties: BTreeMap<String, String> =
            properties.map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        let config = Config::new(properties, "localhost").expect("a valid configuration");
        let environment = Environment { listens: false, ..Environment::real(Handle::current()) };
        let server = Server::start_in(config, environment, |_| ()).await.expect("starts");
        Self { server, _data: data }
    }

    /// Creates the topic [`TOPIC`] with one record, and the group [`GROUP`] with an offset.
    async fn create_data(&self) {
        let created = self.ask(7, &requests::create_topic(TOPIC)).await;
        assert_eq!(created.topics[0].error_code, 0, "{created:?}");
        let produced = self.ask(9, &requests::produce(false)).await;
        assert_eq!(produced.responses[0].partition_responses[0].error_code, 0, "{produced:?}");
        let find = requests::find_coordinator(0, GROUP);
        assert_eq!(self.ask(6, &find).await.coordinators[0].error_code, 0);
        // The coordinator may still be loading. As clients do, send the request again then.
        let loading = ErrorCode::CoordinatorLoadInProgress.code();
        let mut code = loading;
        for _ in 0..1_000 {
            let committed = self.ask(9, &requests::commit_offset()).await;
            code = committed.topics[0].partitions[0].error_code;
            if code != loading {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(code, 0);
    }

    async fn stop(self) {
        self.server.stop().await.expect("stops");
    }

    /// Sends a request as a client of a broker listener that may do everything.
    async fn ask<R: Request>(&self, version: i16, request: &R) -> R::Response {
        let response = self.send(requests::to_broker(version, request), None).await;
        peers::decode::<R>(version, response.expect("a response in memory")).expect("decodes")
    }

    /// Sends a request and returns the response without its size field. `None` if there is no
    /// response, or if records of files are a part of it.
    async fn send(&self, sent: Sent, authorizer: Option<Arc<dyn Authorizer>>) -> Option<Bytes> {
        let whole = sent.frame;
        let mut body = whole.clone();
        let Ok(Incoming::Request(header)) = parse_header(&mut body) else {
            panic!("not the header of a request")
        };
        let client = Client::anonymous(SocketAddr::from(([127, 0, 0, 1], 1)));
        let mut session = ConnectionContext {
            client: Client { authorizer, ..client },
            listener: Arc::from("PLAINTEXT"),
            security_protocol: SecurityProtocol::Plaintext,
            on_controller_listener: sent.to_controller_listener,
            software: None,
            presence: None,
        };
        let answered = async {
            let broker = self.server.broker();
            match handlers::handle(broker, &mut session, &header, (whole, body)).await {
                Ok(Outcome::Now(reply)) => reply.into_frame(),
                Ok(Outcome::Later(rest)) => rest.await.ok()?.into_frame(),
                Ok(Outcome::Silent) | Err(_) => None,
            }
        };
        let name = format!("{} {}", header.api.name, header.version);
        timeout(Duration::from_secs(60), answered).await.expect(&name)
    }

    /// The number of responses with each error code so far: a line of the metrics for each API and
    /// code.
    async fn error_counts(&self) -> BTreeSet<String> {
        let text = self.server.broker().metrics.scrape().await.expect("rendered");
        let counts = text.lines().filter(|it| it.starts_with("kafka_server_request_errors_total{"));
        counts.map(str::to_owned).collect()
    }
}

/// A small sample of a request, as in [`Sample::small`].
fn sample(api: &Api, version: i16, to_controller_listener: bool) -> Sent {
    let header = RequestHeader::default()
        .with_request_api_key(api.key as i16)
        .with_request_api_version(version)
        .with_client_id(Some(StrBytes::from_static_str("test")));
    let mut frame = BytesMut::new();
    header.encode(&mut frame, api.key.request_header_version(version)).expect("encodes");
    frame.extend_from_slice(&Sample::small(api.key, version).body);
    Sent { to_controller_listener, frame: frame.freeze() }
}

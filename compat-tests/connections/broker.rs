//! A broker in the process of the tests.

use std::{collections::BTreeMap, net::SocketAddr};

use sordini::{
    base::config::Config,
    records::{Batch, BatchBuilder, BatchOptions},
    server::{Environment, Server},
};
use tokio::runtime::{Builder, Handle, Runtime};

use super::{TOPIC, shared::client::Client};

/// A running broker. Its data directory is removed when it is dropped.
pub struct Broker {
    pub server: Server,
    pub address: SocketAddr,
    pub data: tempfile::TempDir,
}

pub async fn start(settings: &[(&str, &str)]) -> Broker {
    start_with(settings, Handle::current()).await
}

/// Starts a broker whose quorum runs on the runtime `control`.
pub async fn start_with(settings: &[(&str, &str)], control: Handle) -> Broker {
    start_in(settings, Environment::real(control)).await
}

pub async fn start_in(settings: &[(&str, &str)], environment: Environment) -> Broker {
    let data = tempfile::tempdir().expect("a directory");
    let mut properties: BTreeMap<String, String> = BTreeMap::from([
        ("node.id".to_owned(), "1".to_owned()),
        ("process.roles".to_owned(), "broker,controller".to_owned()),
        ("controller.listener.names".to_owned(), "CONTROLLER".to_owned()),
        ("controller.quorum.bootstrap.servers".to_owned(), "127.0.0.1:1".to_owned()),
        ("listeners".to_owned(), "PLAINTEXT://127.0.0.1:0".to_owned()),
        ("http.listener".to_owned(), "none".to_owned()),
        ("log.dirs".to_owned(), data.path().display().to_string()),
    ]);
    properties.extend(settings.iter().map(|(key, value)| ((*key).into(), (*value).into())));
    let config = Config::new(properties, "localhost").expect("a valid configuration");
    let server = Server::start_in(config, environment, |_| ()).await.expect("starts");
    let address = server.addresses()[0].1;
    Broker { server, address, data }
}

impl Broker {
    pub fn client(&self) -> Client {
        Client::connect(self.address).expect("connects")
    }

    /// Creates the topic with one partition, and returns the client that did.
    pub fn client_with_topic(&self) -> Client {
        let mut client = self.client();
        assert_eq!(client.create_topic(TOPIC, 1, &[]).expect("answered"), 0);
        client
    }
}

pub fn runtime(workers: usize) -> Runtime {
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(workers).enable_all().build().expect("a runtime")
}

/// A batch of one record.
pub fn batch(value: &[u8]) -> Batch {
    let mut builder = BatchBuilder::new(BatchOptions::default());
    builder.append(1_000, None, Some(value), &[]);
    builder.build()
}

//! The broker under attack: a process of Sordini, or, for manual comparison, the running broker at
//! the address in `HOSTILE_BROKER` (such as `127.0.0.1:9092`).

use std::{env, fs, net::SocketAddr, time::Duration};

use super::shared::{
    client::{Client, Reply},
    process::{Process, Site},
};

/// Kafka's defaults, which other tests change to save time.
const DEFAULTS: [&str; 2] =
    ["offsets.topic.num.partitions=50", "group.initial.rebalance.delay.ms=3000"];

pub struct Broker {
    address: SocketAddr,
    /// The process. `None` for a broker that this test has not started.
    process: Option<Process>,
    _site: Option<Site>,
}

impl Broker {
    pub fn start() -> Self {
        if let Ok(address) = env::var("HOSTILE_BROKER") {
            let address = address.parse().expect("HOSTILE_BROKER is an address and a port");
            return Self { address, process: None, _site: None };
        }
        let site = Site::new(&DEFAULTS);
        Self { address: site.address, process: Some(site.start()), _site: Some(site) }
    }

    pub fn assert_running(&mut self) {
        if let Some(process) = &mut self.process {
            assert_eq!(process.ended(), None, "the broker has ended: {}", process.log());
        }
    }

    pub fn connect(&self) -> Client {
        Client::connect(self.address).expect("the broker accepts connections")
    }

    /// Sends bytes on a new connection and waits for the reaction.
    pub fn send(&self, bytes: &[u8], wait: Duration) -> Reply {
        let mut connection = self.connect();
        // The broker may close the connection before it has read all bytes.
        let _ = connection.write(bytes);
        connection.read(wait)
    }

    /// Resets the peak of resident memory to the current value, and returns that in bytes. `None`
    /// if the broker is not a process of this test.
    pub fn reset_peak_rss(&self) -> Option<u64> {
        let pid = self.process.as_ref()?.id();
        fs::write(format!("/proc/{pid}/clear_refs"), "5").ok()?;
        self.peak_rss()
    }

    /// The peak of resident memory since the last reset, in bytes.
    pub fn peak_rss(&self) -> Option<u64> {
        self.process.as_ref()?.memory_kib("VmHWM").map(|kib| kib * 1024)
    }
}

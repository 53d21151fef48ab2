//! The broker under attack: a process of Sordini, or, for manual comparison, the running broker at
//! the address in `HOSTILE_BROKER` (such as `127.0.0.1:9092`).

use std::{
    env, fs,
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

pub struct Broker {
    pub address: SocketAddr,
    process: Option<Child>,
    _dir: Option<tempfile::TempDir>,
}

/// The reaction of the broker to some bytes.
#[derive(Debug, PartialEq, Eq)]
pub enum Reply {
    Frame(Vec<u8>),
    Closed,
    /// Neither a response nor a close within the allowed time.
    Silence,
}

impl Broker {
    pub fn start() -> Self {
        if let Ok(address) = env::var("HOSTILE_BROKER") {
            let address = address.parse().expect("HOSTILE_BROKER is an address and a port");
            return Self { address, process: None, _dir: None };
        }
        let dir = tempfile::tempdir().expect("a directory for the broker's data");
        let unused = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = unused.local_addr().expect("it has an address");
        drop(unused);
        let process = Command::new(env!("CARGO_BIN_EXE_sordini"))
            .arg("serve")
            .args(["--override", &format!("listeners=PLAINTEXT://{address}")])
            .args(["--override", &format!("log.dirs={}", dir.path().display())])
            .args(["--override", "http.listener=none"])
            .current_dir(dir.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the broker starts");
        let mut broker = Self { address, process: Some(process), _dir: Some(dir) };
        broker.wait_until_ready();
        broker
    }

    fn wait_until_ready(&mut self) {
        let until = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(self.address).is_err() {
            self.assert_running();
            assert!(Instant::now() < until, "the broker does not listen");
            thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn assert_running(&mut self) {
        if let Some(process) = &mut self.process {
            let ended = process.try_wait().expect("its state can be asked");
            assert_eq!(ended, None, "the broker has ended");
        }
    }

    pub fn connect(&self) -> Connection {
        let stream = TcpStream::connect(self.address).expect("the broker accepts connections");
        stream.set_nodelay(true).expect("a socket option");
        Connection { stream }
    }

    /// Sends bytes on a new connection and waits for the reaction.
    pub fn send(&self, bytes: &[u8], wait: Duration) -> Reply {
        let mut connection = self.connect();
        if !connection.write(bytes) {
            return connection.read(wait);
        }
        connection.read(wait)
    }

    /// Resets the peak of resident memory to the current value, and returns that in bytes. `None`
    /// if the broker is not a process of this test.
    pub fn reset_peak_rss(&self) -> Option<u64> {
        let pid = self.process.as_ref()?.id();
        fs::write(format!("/proc/{pid}/clear_refs"), "5").ok()?;
        self.peak_rss()
    }

    /// The peak of resident memory since the last reset, in bytes (VmHWM).
    pub fn peak_rss(&self) -> Option<u64> {
        let pid = self.process.as_ref()?.id();
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
        let kib: u64 = line.split_ascii_whitespace().nth(1)?.parse().ok()?;
        Some(kib * 1024)
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            // Both fail if the process has already ended. The test has then reported that.
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

pub struct Connection {
    stream: TcpStream,
}

impl Connection {
    /// Writes bytes. Returns false if the broker closed the connection before all were written.
    pub fn write(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    /// Reads one frame and returns it without its size.
    pub fn read(&mut self, wait: Duration) -> Reply {
        self.stream.set_read_timeout(Some(wait)).expect("a socket option");
        let mut size = [0; 4];
        match self.stream.read_exact(&mut size) {
            Ok(()) => {}
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                return Reply::Silence;
            }
            Err(_) => return Reply::Closed,
        }
        let mut frame = vec![0; u32::from_be_bytes(size) as usize];
        self.stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a socket option");
        match self.stream.read_exact(&mut frame) {
            Ok(()) => Reply::Frame(frame),
            Err(e) => panic!("a reply that ends early: {e}"),
        }
    }
}

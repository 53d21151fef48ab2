//! A broker process that tests start, stop and kill, with the same directories for all its runs.

use std::{
    fs,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use super::client::Client;

const READY_MAX: Duration = Duration::from_secs(30);
const STOP_MAX: Duration = Duration::from_secs(20);

/// The directories, address and settings of a broker, which all its processes share.
pub struct Site {
    pub dir: PathBuf,
    pub address: SocketAddr,
    log_dirs: Vec<PathBuf>,
    overrides: Vec<String>,
    _temporary: Option<tempfile::TempDir>,
}

impl Site {
    pub fn new(overrides: &[&str]) -> Self {
        let temporary = tempfile::tempdir().expect("a temporary directory");
        let mut site = Self::at(temporary.path(), overrides);
        site._temporary = Some(temporary);
        site
    }

    /// Uses `dir`, which the caller must remove.
    pub fn at(dir: &Path, overrides: &[&str]) -> Self {
        let unused = TcpListener::bind("127.0.0.1:0").expect("a free port");
        Self {
            dir: dir.to_owned(),
            address: unused.local_addr().expect("it has an address"),
            log_dirs: vec![dir.join("data")],
            overrides: overrides.iter().map(|it| it.to_string()).collect(),
            _temporary: None,
        }
    }

    pub fn with_log_dirs(mut self, names: &[&str]) -> Self {
        self.log_dirs = names.iter().map(|name| self.dir.join(name)).collect();
        self
    }

    pub fn log_dir(&self) -> &Path {
        &self.log_dirs[0]
    }

    fn stderr_path(&self) -> PathBuf {
        self.dir.join("stderr")
    }

    /// Starts a process with a new log file.
    pub fn spawn(&self) -> Process {
        let dirs: Vec<_> = self.log_dirs.iter().map(|dir| dir.display().to_string()).collect();
        let stderr = fs::File::create(self.stderr_path()).expect("a file for its log");
        let own = || env!("CARGO_BIN_EXE_sordini").into();
        let mut command = Command::new(std::env::var_os("SORDINI_BIN").unwrap_or_else(own));
        command.arg("serve");
        let own = [
            format!("listeners=PLAINTEXT://{}", self.address),
            format!("log.dirs={}", dirs.join(",")),
            "http.listener=none".to_owned(),
            "offsets.topic.num.partitions=3".to_owned(),
            "group.initial.rebalance.delay.ms=0".to_owned(),
        ];
        for setting in own.iter().chain(&self.overrides) {
            command.args(["--override", setting]);
        }
        let spawned = Instant::now();
        let child = command.stdout(Stdio::null()).stderr(stderr).spawn().expect("it starts");
        Process { child, address: self.address, stderr: self.stderr_path(), spawned }
    }

    /// Starts a process and waits until it responds to requests.
    pub fn start(&self) -> Process {
        let mut process = self.spawn();
        if let Err(status) = process.wait_ready() {
            panic!("the broker has ended ({status}): {}", process.log());
        }
        process
    }
}

pub struct Process {
    child: Child,
    address: SocketAddr,
    stderr: PathBuf,
    spawned: Instant,
}

impl Process {
    /// Waits for the first response. Returns the time since the process started, or its exit status
    /// if it ended instead.
    pub fn wait_ready(&mut self) -> Result<Duration, ExitStatus> {
        loop {
            if let Some(status) = self.ended() {
                return Err(status);
            }
            if let Ok(mut client) = Client::connect(self.address)
                && client.api_versions().is_ok()
            {
                return Ok(self.spawned.elapsed());
            }
            assert!(self.spawned.elapsed() < READY_MAX, "not ready: {}", self.log());
            thread::sleep(Duration::from_millis(2));
        }
    }

    pub fn client(&self) -> Client {
        Client::connect(self.address).expect("the broker accepts connections")
    }

    pub fn log(&self) -> String {
        fs::read_to_string(&self.stderr).expect("its log can be read")
    }

    /// Kills the process with SIGKILL.
    pub fn kill(mut self) {
        self.child.kill().expect("it can be killed");
        self.child.wait().expect("it ends");
    }

    /// Sends SIGTERM. Returns the exit status and how long the shutdown took.
    pub fn terminate(mut self) -> (ExitStatus, Duration) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it is signalled");
        let asked = Instant::now();
        (self.wait_ended(), asked.elapsed())
    }

    pub fn stop(self) {
        let stderr = self.stderr.clone();
        let (status, _) = self.terminate();
        let log = fs::read_to_string(stderr).unwrap_or_default();
        assert!(status.success(), "a clean stop: {status}: {log}");
    }

    pub fn wait_ended(&mut self) -> ExitStatus {
        let since = Instant::now();
        loop {
            if let Some(status) = self.ended() {
                return status;
            }
            assert!(since.elapsed() < STOP_MAX, "it does not end: {}", self.log());
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// The exit status of the process, if it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("its state can be asked")
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The resident memory of the process in KiB.
    pub fn rss_kib(&self) -> u64 {
        self.memory_kib("VmRSS").unwrap_or(0)
    }

    /// Reads a line of `/proc/PID/status` that is in KiB.
    pub fn memory_kib(&self, name: &str) -> Option<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id())).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.split_ascii_whitespace().next()?.parse().ok()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail if the process has already ended. The test has then reported that.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

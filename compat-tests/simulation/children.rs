//! Runs each seed in its own process, several at a time: as many as processors, at most 8.

use std::{
    env,
    process::{Command, Output, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::Duration,
};

use parking_lot::Mutex;

/// Time limit of one process. A run needs far less, even on a busy machine.
const CHILD_MAX: Duration = Duration::from_secs(600);

#[derive(Clone, Copy)]
pub struct Child {
    pub seed: u64,
    /// The bug to plant, a name in `node::BUGS`.
    pub bug: Option<&'static str>,
}

/// What a child printed.
pub struct Outcome {
    pub hash: Option<String>,
    pub wrong: Option<String>,
    pub output: String,
}

impl Child {
    pub fn new(seed: u64) -> Self {
        Self { seed, bug: None }
    }

    fn run(self) -> Outcome {
        let mut command = Command::new(env::current_exe().expect("this program has a path"));
        command
            .args(["--exact", "one_seed", "--ignored", "--nocapture"])
            .env("SIMULATION_SEED", self.seed.to_string())
            .env_remove("SIMULATION_TRACE")
            .stdin(Stdio::null());
        if let Some(bug) = self.bug {
            command.env("SIMULATION_BUG", bug);
        }
        let output = output_in_time(&mut command);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (printed, errors) = (text(&output.stdout), text(&output.stderr));
        let line = |mark: &str| {
            let found = printed.lines().find_map(|line| line.strip_prefix(mark));
            found.map(str::to_owned)
        };
        Outcome {
            hash: line("HASH "),
            wrong: line("WRONG "),
            output: format!("{errors}\n{printed}"),
        }
    }
}

/// Waits for the child. Kills it after `CHILD_MAX`, because it is in an endless loop.
fn output_in_time(command: &mut Command) -> Output {
    let (stdout, stderr) = (Stdio::piped(), Stdio::piped());
    let child = command.stdout(stdout).stderr(stderr).spawn().expect("this program starts");
    let id = child.id().to_string();
    let (ended, waiting) = mpsc::channel::<()>();
    let watch = thread::spawn(move || {
        if waiting.recv_timeout(CHILD_MAX) == Err(RecvTimeoutError::Timeout) {
            // Fails if the child has just ended.
            let _ = Command::new("kill").args(["-9", &id]).status();
        }
    });
    let output = child.wait_with_output().expect("it is a child of this process");
    drop(ended);
    watch.join().expect("it does not panic");
    output
}

/// Runs the children and calls `done` for each one as it ends.
pub fn run_all(children: impl IntoIterator<Item = Child>, done: impl FnMut(Child, Outcome) + Send) {
    let waiting: Vec<_> = children.into_iter().collect();
    let waiting = Mutex::new(waiting.into_iter());
    let done = Mutex::new(done);
    let work = || {
        loop {
            let Some(child) = waiting.lock().next() else { return };
            let outcome = child.run();
            (done.lock())(child, outcome);
        }
    };
    let at_once = thread::available_parallelism().map_or(1, |count| count.get().min(8));
    thread::scope(|scope| {
        for _ in 0..at_once {
            scope.spawn(work);
        }
    });
}

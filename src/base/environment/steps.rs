//! Long work of a simulated machine. It runs on a thread of its own, so that other tasks of the
//! simulation can run while it pauses. Only one of the two threads runs at a time, so a run can be
//! repeated. If the machine crashes, the thread never continues.

use std::{
    cell::RefCell,
    sync::mpsc::{self, Receiver, Sender},
    thread,
    time::Duration,
};

use tokio::runtime::Handle;

use super::{Panicked, Simulated, simulate, wait, without_panic};
use crate::base::planted_bugs::{plant, planted};

/// How a step of the work has ended. The simulated machine goes with the thread that runs.
enum Step<T> {
    Paused(Duration, Option<Simulated>),
    /// `None` after a panic.
    Ended(Option<T>, Option<Simulated>),
}

type Pause = Box<dyn Fn(Duration)>;

thread_local! {
    /// Pauses the work of this thread. `None` on other threads.
    static PAUSE: RefCell<Option<Pause>> = const { RefCell::new(None) };
}

/// Runs the work step by step, and lets simulated time pass between the steps.
pub async fn run<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Panicked> {
    let (ended, steps) = mpsc::channel();
    let (resume, resumed) = mpsc::channel();
    let (runtime, bug) = (Handle::current(), planted());
    thread::spawn(move || {
        plant(bug);
        wait_for_turn(&resumed);
        let paused: Sender<Step<T>> = ended.clone();
        PAUSE.set(Some(Box::new(move |duration| {
            let _ = paused.send(Step::Paused(duration, simulate(None)));
            wait_for_turn(&resumed);
        })));
        let done = {
            let _runtime = runtime.enter();
            without_panic(work)
        };
        drop(runtime);
        let _ = ended.send(Step::Ended(done, simulate(None)));
    });
    loop {
        let _ = resume.send(simulate(None));
        match steps.recv().map_err(|_| Panicked)? {
            Step::Paused(duration, machine) => {
                simulate(machine);
                wait(duration).await;
            }
            Step::Ended(done, machine) => {
                simulate(machine);
                return done.ok_or(Panicked);
            }
        }
    }
}

fn wait_for_turn(resumed: &Receiver<Option<Simulated>>) {
    match resumed.recv() {
        Ok(machine) => drop(simulate(machine)),
        // The machine has crashed. Its locks and files must stay as they are.
        Err(_) => loop {
            thread::park();
        },
    }
}

/// Pauses if this thread runs long work.
pub fn pause(duration: Duration) {
    PAUSE.with_borrow(|pause| {
        if let Some(pause) = pause {
            pause(duration);
        }
    });
}

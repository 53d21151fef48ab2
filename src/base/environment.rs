//! What a process takes from its machine besides disks and network: the time, random numbers, and
//! threads that may block.
//!
//! A simulation replaces these per thread: it sets the time, random numbers follow from its seed,
//! and blocking work runs in tasks of the same thread. Nothing else here is global. Only tests and
//! builds with the feature `simulation` can be simulated.

#[cfg(any(test, feature = "simulation"))]
mod steps;

use std::{
    fs, io,
    panic::{AssertUnwindSafe, catch_unwind},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::{
    runtime::{Handle, RuntimeFlavor},
    sync::mpsc,
};
use uuid::Uuid;

use super::random::Random;

/// Linux's id of this boot of the machine.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// The simulated machine of the node whose code runs on this thread.
#[derive(Clone, Debug)]
pub struct Simulated {
    /// This node's clock, in milliseconds since the Unix epoch.
    pub now_ms: i64,
    pub random: Random,
    /// How often the machine has been started.
    pub boots: u32,
    /// If true, every operation that waits for the disk takes up to 2 s, and one in ten takes 10 s.
    pub has_slow_disk: bool,
}

#[cfg(any(test, feature = "simulation"))]
thread_local! {
    static SIMULATED: std::cell::RefCell<Option<Simulated>> =
        const { std::cell::RefCell::new(None) };
}

/// Replaces this thread's machine by a simulated one, or with `None` restores the real one. Returns
/// the simulated machine that was there before.
#[cfg(any(test, feature = "simulation"))]
pub fn simulate(machine: Option<Simulated>) -> Option<Simulated> {
    SIMULATED.replace(machine)
}

/// The result of `look` on this thread's simulated machine. `None` if it has none.
#[cfg(any(test, feature = "simulation"))]
fn simulated<T>(look: impl FnOnce(&mut Simulated) -> T) -> Option<T> {
    SIMULATED.with_borrow_mut(|machine| machine.as_mut().map(look))
}

/// Without the feature, no thread has a simulated machine.
#[cfg(not(any(test, feature = "simulation")))]
fn simulated<T>(_: impl FnOnce(&mut Simulated) -> T) -> Option<T> {
    None
}

/// Milliseconds since the Unix epoch, as Kafka's timestamps count them.
pub fn now_ms() -> i64 {
    simulated(|machine| machine.now_ms).unwrap_or_else(|| {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH);
        since_epoch.map_or(0, |elapsed| elapsed.as_millis() as i64)
    })
}

/// A new random UUID (version 4).
pub fn new_uuid() -> Uuid {
    let drawn = simulated(|machine| (machine.random.next_u64(), machine.random.next_u64()));
    drawn.map_or_else(Uuid::new_v4, |(high, low)| {
        uuid::Builder::from_random_bytes(Uuid::from_u64_pair(high, low).into_bytes()).into_uuid()
    })
}

/// The id of this boot of the machine, or `None` if it is unknown.
pub fn boot_id() -> Option<String> {
    let here = || fs::read_to_string(BOOT_ID).ok().map(|id| id.trim().to_owned());
    simulated(|machine| format!("boot-{}", machine.boots)).map_or_else(here, Some)
}

/// The work on a blocking thread has panicked, so it is not complete.
#[derive(Debug, thiserror::Error)]
#[error("work on a blocking thread has panicked")]
pub struct Panicked;

/// Runs work that may wait for the disk, and waits for its result without blocking other tasks.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Panicked> {
    if is_simulated() {
        // Other tasks run first, as they do while a real thread works.
        tokio::task::yield_now().await;
        let (before, after) = simulated_disk_delays();
        wait(before).await;
        let done = work();
        wait(after).await;
        return Ok(done);
    }
    tokio::task::spawn_blocking(work).await.map_err(|_| Panicked)
}

/// As [`blocking`], for work that may take minutes and pauses by [`sleep_on_thread`]. A simulation
/// lets time pass and runs other tasks in these pauses.
pub async fn blocking_long<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Panicked> {
    #[cfg(any(test, feature = "simulation"))]
    if is_simulated() {
        tokio::task::yield_now().await;
        let (before, after) = simulated_disk_delays();
        wait(before).await;
        let done = steps::run(work).await;
        wait(after).await;
        return done;
    }
    blocking(work).await
}

/// Runs work that may wait for the disk, without waiting for it.
pub fn spawn_blocking(work: impl FnOnce() + Send + 'static) {
    if is_simulated() {
        tokio::spawn(async {
            wait(simulated_disk_delays().0).await;
            work();
        });
    } else {
        tokio::task::spawn_blocking(work);
    }
}

/// The delays of one operation of the simulated disk, before and after its effect.
fn simulated_disk_delays() -> (Duration, Duration) {
    let delays_ms = simulated(|machine| {
        machine.has_slow_disk.then(|| {
            let total = match machine.random.next_u64() {
                drawn if drawn.is_multiple_of(10) => 10_000,
                drawn => drawn % 2_000,
            };
            let before = machine.random.next_u64() % (total + 1);
            (before, total - before)
        })
    });
    let (before, after) = delays_ms.flatten().unwrap_or_default();
    (Duration::from_millis(before), Duration::from_millis(after))
}

async fn wait(delay: Duration) {
    if !delay.is_zero() {
        tokio::time::sleep(delay).await;
    }
}

/// A job of a disk thread. It returns a function that handles the result.
type Job = Box<dyn FnOnce() -> Completion + Send>;
type Completion = Box<dyn FnOnce() + Send>;

/// A thread for work that may wait for the disk. Jobs run one after the other, in the order in
/// which they were queued. In a single-threaded runtime, a task runs them instead, so that a run
/// can be repeated. The thread ends when its handle is dropped.
#[derive(Debug)]
pub struct DiskThread {
    jobs: mpsc::UnboundedSender<Job>,
    /// Milliseconds that each job takes in a single-threaded runtime, in addition to the delays of
    /// the simulated disk.
    #[cfg(test)]
    pub delay_ms: std::sync::Arc<std::sync::atomic::AtomicU64>,
}

impl DiskThread {
    pub fn start(name: &str) -> io::Result<Self> {
        let (jobs, queue) = mpsc::unbounded_channel::<Job>();
        let thread = Self {
            jobs,
            #[cfg(test)]
            delay_ms: Default::default(),
        };
        if is_single_threaded() {
            thread.run_in_task(queue);
        } else {
            let run = move || run_on_thread(queue);
            std::thread::Builder::new().name(name.to_owned()).spawn(run)?;
        }
        Ok(thread)
    }

    fn run_in_task(&self, mut queue: mpsc::UnboundedReceiver<Job>) {
        #[cfg(test)]
        let delay_ms = self.delay_ms.clone();
        tokio::spawn(async move {
            while let Some(job) = queue.recv().await {
                let (before, after) = simulated_disk_delays();
                #[cfg(test)]
                let (before, after) = {
                    let half_ms = delay_ms.load(std::sync::atomic::Ordering::Relaxed) / 2;
                    let half = Duration::from_millis(half_ms);
                    (before + half, after + half)
                };
                wait(before).await;
                if let Some(complete) = without_panic(job) {
                    wait(after).await;
                    without_panic(complete);
                }
            }
        });
    }

    /// Queues work and does not wait for it. `complete` receives the result on the same thread. A
    /// simulation lets time pass between the two. Neither may panic: the thread would continue with
    /// the next job, and the caller would get no error.
    pub fn spawn<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
        complete: impl FnOnce(T) + Send + 'static,
    ) {
        let job = move || -> Completion {
            let done = work();
            Box::new(move || complete(done))
        };
        // The receiver ends only with its runtime, and then there is no caller.
        let _ = self.jobs.send(Box::new(job));
    }
}

fn run_on_thread(mut queue: mpsc::UnboundedReceiver<Job>) {
    while let Some(job) = queue.blocking_recv() {
        without_panic(|| job()());
    }
}

/// The result of the work. `None` if it panicked.
pub fn without_panic<T>(work: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(work)).ok()
}

/// Whether all tasks run on one thread, so that a run can be repeated.
pub fn is_single_threaded() -> bool {
    Handle::current().runtime_flavor() == RuntimeFlavor::CurrentThread
}

/// Runs blocking work in the current task. The runtime moves other tasks to other threads
/// meanwhile.
pub fn in_place<T>(work: impl FnOnce() -> T) -> T {
    if is_simulated() { work() } else { tokio::task::block_in_place(work) }
}

/// Pauses this blocking thread. A simulation pauses only [`blocking_long`].
pub fn sleep_on_thread(duration: Duration) {
    #[cfg(any(test, feature = "simulation"))]
    if is_simulated() {
        return steps::pause(duration);
    }
    std::thread::sleep(duration);
}

/// Whether this thread belongs to a simulation.
pub fn is_simulated() -> bool {
    simulated(|_| ()).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_simulated_machine_repeats_itself() {
        let random = Random::new(1);
        let machine = Simulated { now_ms: 7, random, boots: 2, has_slow_disk: false };
        simulate(Some(machine.clone()));
        let first = (now_ms(), new_uuid(), new_uuid());
        simulate(Some(machine));
        assert_eq!(first, (now_ms(), new_uuid(), new_uuid()));
        assert_ne!(first.1, first.2);
        assert_eq!(first.1.get_version_num(), 4);
        assert_eq!(boot_id().as_deref(), Some("boot-2"));
        simulate(None);
        assert!(now_ms() > 1_700_000_000_000);
        assert_ne!(new_uuid(), first.1);
    }

    #[tokio::test(start_paused = true)]
    async fn long_work_lets_simulated_time_pass() {
        let random = Random::new(1);
        simulate(Some(Simulated { now_ms: 7, random, boots: 0, has_slow_disk: false }));
        let began = tokio::time::Instant::now();
        let seconds = move || began.elapsed().as_secs();
        let other = tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(3)).await;
            simulated(|machine| machine.now_ms += 100);
        });
        let work = move || {
            let mut seen = vec![(now_ms(), seconds())];
            for _ in 0..2 {
                sleep_on_thread(Duration::from_secs(2));
                seen.push((now_ms(), seconds()));
            }
            seen
        };
        let seen = blocking_long(work).await.expect("does not panic");
        assert_eq!(seen, [(7, 0), (7, 2), (107, 4)]);
        other.await.expect("does not panic");
        assert!(blocking_long(|| panic!("planted by a test")).await.is_err());
        assert_eq!(now_ms(), 107, "the machine is back");
        simulate(None);
    }
}

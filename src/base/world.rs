//! What a process takes from its machine besides disks and network: the time, chance, and threads
//! that may block.
//!
//! A simulation puts its own in their place, thread by thread: time that it advances, chance that
//! its seed decides, and work that is done where it is asked for. Nothing else here is global.

use std::{
    cell::RefCell,
    fs, io,
    panic::{AssertUnwindSafe, catch_unwind},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::{
    runtime::{Handle, RuntimeFlavor},
    sync::{mpsc, oneshot},
};
use uuid::Uuid;

/// Where Linux tells one run of the machine from another.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// The machine of the node that a simulation runs at the moment.
#[derive(Clone, Debug)]
pub struct Simulated {
    /// Milliseconds since the epoch, as this node's clock has them.
    pub now_ms: i64,
    /// The state of a splitmix64 generator.
    pub chance: u64,
    /// How often the machine has been started.
    pub boots: u32,
    pub bug: Option<Bug>,
    /// Every operation that waits for the disk takes up to two seconds, and one in ten takes ten.
    pub has_slow_disk: bool,
}

/// A bug that a simulation plants to see that it is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// A follower does not tell its leader what it has, and so keeps what the leader lacks.
    SkipTruncation,
    /// An append is acknowledged before those in sync have it.
    EarlyAck,
    /// A leader counts without a replica before the controller knows.
    StaleIsr,
    /// A process takes the place of its predecessor, whose session lives, with what that had.
    MissingFence,
    /// Appends are not told that the replica does not lead any more.
    LostWaiter,
}

/// Whether the simulation that this thread belongs to has planted the bug.
pub fn has_bug(bug: Bug) -> bool {
    simulated(|machine| machine.bug == Some(bug)).unwrap_or(false)
}

thread_local! {
    static SIMULATED: RefCell<Option<Simulated>> = const { RefCell::new(None) };
}

/// Puts a simulated machine in the place of the real one for this thread, or takes it away; what
/// was there before is given back.
pub fn simulate(machine: Option<Simulated>) -> Option<Simulated> {
    SIMULATED.replace(machine)
}

fn simulated<T>(look: impl FnOnce(&mut Simulated) -> T) -> Option<T> {
    SIMULATED.with_borrow_mut(|machine| machine.as_mut().map(look))
}

/// Milliseconds since the epoch, as Kafka's timestamps count them.
pub fn now_ms() -> i64 {
    simulated(|machine| machine.now_ms).unwrap_or_else(|| {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH);
        since_epoch.map_or(0, |elapsed| elapsed.as_millis() as i64)
    })
}

/// An id that nobody else has.
pub fn new_uuid() -> Uuid {
    let drawn = simulated(|machine| (machine.next(), machine.next()));
    drawn.map_or_else(Uuid::new_v4, |(high, low)| {
        uuid::Builder::from_random_bytes(Uuid::from_u64_pair(high, low).into_bytes()).into_uuid()
    })
}

/// What tells this run of the machine from others, if that is known.
pub fn boot_id() -> Option<String> {
    let here = || fs::read_to_string(BOOT_ID).ok().map(|id| id.trim().to_owned());
    simulated(|machine| format!("boot-{}", machine.boots)).map_or_else(here, Some)
}

impl Simulated {
    fn next(&mut self) -> u64 {
        self.chance = self.chance.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.chance;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

/// The work on a thread that may block did not come to its end: it has panicked.
#[derive(Debug, thiserror::Error)]
#[error("work on a blocking thread has panicked")]
pub struct Panicked;

/// Does work that may wait for the disk, without holding up other tasks.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Panicked> {
    if is_simulated() {
        // Others get their turn first, as they do while a thread works.
        tokio::task::yield_now().await;
        simulate_disk_delay().await;
        return Ok(work());
    }
    tokio::task::spawn_blocking(work).await.map_err(|_| Panicked)
}

/// Has work that may wait for the disk done, without waiting for it.
pub fn spawn_blocking(work: impl FnOnce() + Send + 'static) {
    if is_simulated() {
        tokio::spawn(async {
            simulate_disk_delay().await;
            work();
        });
    } else {
        tokio::task::spawn_blocking(work);
    }
}

/// Waits for as long as the simulated disk takes for one operation.
async fn simulate_disk_delay() {
    let delay_ms = simulated(|machine| {
        machine.has_slow_disk.then(|| match machine.next() {
            drawn if drawn.is_multiple_of(10) => 10_000,
            drawn => drawn % 2_000,
        })
    });
    if let Some(delay_ms) = delay_ms.flatten() {
        tokio::time::sleep(Duration::from_millis(delay_ms)).await;
    }
}

type Job = Box<dyn FnOnce() + Send>;

/// A thread of its own for work that may wait for the disk. Jobs run one after the other, in the
/// order in which they were given. A single-threaded runtime runs them in a task, so that a run can
/// be repeated. The thread ends when its handle is dropped.
#[derive(Debug)]
pub struct DiskThread(mpsc::UnboundedSender<Job>);

impl DiskThread {
    pub fn start(name: &str) -> io::Result<Self> {
        let (jobs, mut queue) = mpsc::unbounded_channel::<Job>();
        // A job that panics drops the sender of its result, by which its caller learns of it.
        let run = |job: Job| drop(catch_unwind(AssertUnwindSafe(job)));
        if is_single_threaded() {
            tokio::spawn(async move {
                while let Some(job) = queue.recv().await {
                    simulate_disk_delay().await;
                    run(job);
                }
            });
        } else {
            std::thread::Builder::new().name(name.to_owned()).spawn(move || {
                while let Some(job) = queue.blocking_recv() {
                    run(job);
                }
            })?;
        }
        Ok(Self(jobs))
    }

    /// Queues a job and does not wait for it.
    pub fn spawn(&self, work: impl FnOnce() + Send + 'static) {
        // The receiver ends only with its runtime, and then no caller is left either.
        let _ = self.0.send(Box::new(work));
    }

    /// Queues a job and waits for its result. The job runs even if the caller stops waiting.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Panicked> {
        let (reply, result) = oneshot::channel();
        self.spawn(move || drop(reply.send(work())));
        result.await.map_err(|_| Panicked)
    }
}

/// Whether all tasks run on one thread, so that a run can be repeated.
pub fn is_single_threaded() -> bool {
    Handle::current().runtime_flavor() == RuntimeFlavor::CurrentThread
}

/// Does work that may take its time where the task is; other tasks go elsewhere meanwhile.
pub fn in_place<T>(work: impl FnOnce() -> T) -> T {
    if is_simulated() { work() } else { tokio::task::block_in_place(work) }
}

/// Whether this thread belongs to a simulation.
pub fn is_simulated() -> bool {
    SIMULATED.with_borrow(Option::is_some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_simulated_machine_repeats_itself() {
        let machine = Simulated { now_ms: 7, chance: 1, boots: 2, bug: None, has_slow_disk: false };
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
}

//! A partition core that a writer task owns, behind a mailbox with a limit in bytes.

use std::sync::Arc;

use arc_swap::ArcSwap;
use sordini::{
    partition::{Acks, Core, View},
    records::Batch,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use crate::NOW_MS;

/// The most bytes that may wait in one mailbox.
const ROOM_BYTES: usize = 4 << 20;

pub struct Mailbox {
    calls: mpsc::UnboundedSender<Call>,
    room: Arc<Semaphore>,
    /// The current view for readers, as a partition publishes it.
    _view: Arc<ArcSwap<View>>,
}

struct Call {
    batch: Batch,
    _room: OwnedSemaphorePermit,
    /// Receives the first offset of the batch.
    reply: oneshot::Sender<i64>,
}

impl Mailbox {
    /// Starts the writer task, which appends up to `group_max` batches at once.
    pub fn new(core: Core, group_max: usize) -> Self {
        let (calls, received) = mpsc::unbounded_channel();
        let view = Arc::new(ArcSwap::from_pointee(core.view()));
        tokio::spawn(write(core, received, view.clone(), group_max));
        Self { calls, room: Arc::new(Semaphore::new(ROOM_BYTES)), _view: view }
    }

    pub async fn append(&self, batch: Batch) -> i64 {
        let room = self.room.clone().acquire_many_owned(batch.size() as u32);
        let room = room.await.expect("is never closed");
        let (reply, answer) = oneshot::channel();
        let call = Call { batch, _room: room, reply };
        self.calls.send(call).unwrap_or_else(|_| panic!("the writer ended"));
        answer.await.expect("the writer answers")
    }
}

async fn write(
    mut core: Core,
    mut calls: mpsc::UnboundedReceiver<Call>,
    view: Arc<ArcSwap<View>>,
    group_max: usize,
) {
    let (mut group, mut batches) = (Vec::new(), Vec::new());
    while calls.recv_many(&mut group, group_max).await > 0 {
        let mut replies = Vec::with_capacity(group.len());
        for Call { batch, _room, reply } in group.drain(..) {
            batches.push(batch);
            replies.push((reply, _room));
        }
        core.append(&mut batches, Acks::All, NOW_MS).expect("appends");
        view.store(Arc::new(core.view()));
        for (batch, (reply, _)) in batches.drain(..).zip(replies) {
            let _ = reply.send(batch.header.base_offset); // the producer may be gone
        }
    }
}

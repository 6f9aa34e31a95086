//! The JSON of large events, which another thread renders so that the shard is not held up. Knows
//! no connections.

use std::{
    cell::RefCell,
    collections::VecDeque,
    fmt,
    pin::Pin,
    rc::Rc,
    sync::{Arc, Weak},
    task::{Context, Poll},
    time::Duration,
};

use futures_util::{
    FutureExt,
    future::{LocalBoxFuture, Shared, WeakShared},
};
use tokio::sync::Mutex;

use super::inbox::Delivery;
use crate::{
    event::{Event, JsonFrame, NoJson},
    memory::{MemoryExceeded, with_memory},
    scheduler::TenantWork,
    tally::Tally,
};

/// Longest time that a resuming connection waits for the memory that rendering takes.
const MEMORY_TIMEOUT: Duration = Duration::from_secs(2);

/// Longest time that a tenant's deliveries wait for that memory. They hold inbox permits
/// meanwhile.
const DELIVERY_MEMORY_TIMEOUT: Duration = Duration::from_millis(200);

/// Number of recent renderings that can be reused while a connection waits for them or holds
/// their frames: connections that resume at the same time often need the same events.
const RECENT_MAX: usize = 16;

type Outcome = Result<Arc<JsonFrame>, NoJson>;

/// The events rendered most recently for resuming connections of one tenant on one shard.
#[derive(Debug, Clone, Default)]
pub(super) struct ReplayedJson {
    recent: Rc<RefCell<VecDeque<Recent>>>,
    /// Held while an event is rendered, so that deliveries and calls of the tenant wait for at
    /// most one such rendering.
    one_at_a_time: Rc<Mutex<()>>,
}

#[derive(Debug)]
struct Recent {
    offset: u64,
    rendering: Option<WeakShared<LocalBoxFuture<'static, Outcome>>>,
    frame: Weak<JsonFrame>,
}

impl ReplayedJson {
    /// Returns the event's frame if a connection still holds it. Otherwise another thread renders
    /// it, once for all connections that wait for it.
    pub(super) fn render(
        &self,
        event: &Arc<Event>,
        work: impl FnOnce() -> TenantWork,
        tally: &Arc<Tally>,
    ) -> RenderingJson {
        let offset = event.position().offset;
        let recent = self.recent.borrow();
        let known = recent.iter().find(|known| known.offset == offset);
        if let Some(frame) = known.and_then(|known| known.frame.upgrade()) {
            return RenderingJson::Done(frame);
        }
        let rendering = known.and_then(|known| known.rendering.as_ref()?.upgrade());
        drop(recent);
        RenderingJson::UnderWay(rendering.unwrap_or_else(|| {
            let rendering = self
                .clone()
                .rendered(Arc::clone(event), work(), Arc::clone(tally));
            let rendering = rendering.boxed_local().shared();
            self.remember(offset, rendering.downgrade());
            rendering
        }))
    }

    fn remember(
        &self,
        offset: u64,
        rendering: Option<WeakShared<LocalBoxFuture<'static, Outcome>>>,
    ) {
        let mut recent = self.recent.borrow_mut();
        recent.retain(|known| known.offset != offset);
        if recent.len() == RECENT_MAX {
            recent.pop_front();
        }
        recent.push_back(Recent {
            offset,
            rendering,
            frame: Weak::new(),
        });
    }

    async fn rendered(self, event: Arc<Event>, work: TenantWork, tally: Arc<Tally>) -> Outcome {
        let _turn = self.one_at_a_time.lock().await;
        let (account, offset) = (Arc::clone(event.account()), event.position().offset);
        let render = move |_: &_| unless_no_memory(JsonFrame::of(&event).map(Arc::new));
        let run = async |job| work.offload(job).await;
        let rendered = with_memory(&account, MEMORY_TIMEOUT, render, run).await;
        // If the process is ending, the event is not rendered either.
        let frame = rendered.unwrap_or(Err(MemoryExceeded))??;
        tally.json_replayed.add(1);
        let mut recent = self.recent.borrow_mut();
        if let Some(known) = recent.iter_mut().find(|known| known.offset == offset) {
            known.frame = Arc::downgrade(&frame);
        }
        Ok(frame)
    }
}

/// A large event on its way to a resuming connection.
pub(super) enum RenderingJson {
    UnderWay(Shared<LocalBoxFuture<'static, Outcome>>),
    Done(Arc<JsonFrame>),
}

impl RenderingJson {
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Outcome> {
        match self {
            Self::UnderWay(rendering) => Pin::new(rendering).poll(context),
            Self::Done(frame) => Poll::Ready(Ok(Arc::clone(frame))),
        }
    }
}

impl fmt::Debug for RenderingJson {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("RenderingJson")
    }
}

/// Has another thread render an event that is being delivered, unless another shard has it
/// rendered meanwhile. Returns true if this call rendered it. If there is no memory, the cell is
/// left empty, and the caller gives up on the JSON.
pub(super) async fn render_delivered(
    event: &Arc<Event>,
    delivery: &Arc<Delivery>,
    index: usize,
    work: &TenantWork,
) -> bool {
    let render = {
        let (event, delivery) = (Arc::clone(event), Arc::clone(delivery));
        move |_: &_| {
            let delivered = delivery.events().get(index);
            let Some(delivered) = delivered.filter(|delivered| !delivered.json().is_filled())
            else {
                return Ok(false);
            };
            let mut made = false;
            let frame = delivered.json().frame(&event, || made = true);
            unless_no_memory(frame).map(|frame| made && frame.is_ok())
        }
    };
    let run = async |job| work.offload(job).await;
    let made = with_memory(event.account(), DELIVERY_MEMORY_TIMEOUT, render, run).await;
    made.and_then(Result::ok).unwrap_or_default()
}

/// Turns a lack of memory into the error on which the caller retries.
fn unless_no_memory<T>(result: Result<T, NoJson>) -> Result<Result<T, NoJson>, MemoryExceeded> {
    match result {
        Err(NoJson::NoMemory) => Err(MemoryExceeded),
        other => Ok(other),
    }
}

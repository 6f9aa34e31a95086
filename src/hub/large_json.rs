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

use super::inbox::SharedDelivery;
use crate::{
    event::{Event, JsonFrame, NoJson},
    memory::{MemoryExceeded, run_with_memory},
    scheduler::TenantWork,
    tally::ShardTally,
};

/// Longest time that a resuming connection waits for the memory that rendering takes.
const MEMORY_TIMEOUT: Duration = Duration::from_secs(2);

/// Longest time that a tenant's deliveries wait for that memory. They hold inbox permits
/// meanwhile.
const DELIVERY_MEMORY_TIMEOUT: Duration = Duration::from_millis(200);

/// Number of recent renderings that can be reused while a connection waits for them or holds
/// their frames: connections that resume at the same time often need the same events.
const RECENT_MAX: usize = 16;

type RenderResult = Result<Arc<JsonFrame>, NoJson>;

/// The events rendered most recently for resuming connections of one tenant on one shard.
#[derive(Debug, Clone, Default)]
pub(super) struct ReplayJsonCache {
    recent: Rc<RefCell<VecDeque<RecentRendering>>>,
    /// Held while an event is rendered, so that deliveries and calls of the tenant wait for at
    /// most one such rendering.
    one_at_a_time: Rc<Mutex<()>>,
}

#[derive(Debug)]
struct RecentRendering {
    offset: u64,
    rendering: Option<WeakShared<LocalBoxFuture<'static, RenderResult>>>,
    frame: Weak<JsonFrame>,
}

impl ReplayJsonCache {
    /// Returns the event's frame if a connection still holds it. Otherwise another thread renders
    /// it, once for all connections that wait for it.
    pub(super) fn render(
        &self,
        event: &Arc<Event>,
        work: impl FnOnce() -> TenantWork,
        tally: &Arc<ShardTally>,
    ) -> JsonRendering {
        let offset = event.position().offset;
        let recent = self.recent.borrow();
        let known = recent.iter().find(|known| known.offset == offset);
        if let Some(frame) = known.and_then(|known| known.frame.upgrade()) {
            return JsonRendering::Done(frame);
        }
        let rendering = known.and_then(|known| known.rendering.as_ref()?.upgrade());
        drop(recent);
        JsonRendering::UnderWay(rendering.unwrap_or_else(|| {
            let rendering =
                self.clone()
                    .render_offloaded(Arc::clone(event), work(), Arc::clone(tally));
            let rendering = rendering.boxed_local().shared();
            self.remember_rendering(offset, rendering.downgrade());
            rendering
        }))
    }

    fn remember_rendering(
        &self,
        offset: u64,
        rendering: Option<WeakShared<LocalBoxFuture<'static, RenderResult>>>,
    ) {
        let mut recent = self.recent.borrow_mut();
        recent.retain(|known| known.offset != offset);
        if recent.len() == RECENT_MAX {
            recent.pop_front();
        }
        recent.push_back(RecentRendering {
            offset,
            rendering,
            frame: Weak::new(),
        });
    }

    async fn render_offloaded(
        self,
        event: Arc<Event>,
        work: TenantWork,
        tally: Arc<ShardTally>,
    ) -> RenderResult {
        let _turn = self.one_at_a_time.lock().await;
        let (account, offset) = (Arc::clone(event.account()), event.position().offset);
        let render =
            move |_: &_| separate_memory_error(JsonFrame::render_event(&event).map(Arc::new));
        let run = async |job| work.offload(job).await;
        let rendered = run_with_memory(&account, MEMORY_TIMEOUT, render, run).await;
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
pub(super) enum JsonRendering {
    UnderWay(Shared<LocalBoxFuture<'static, RenderResult>>),
    Done(Arc<JsonFrame>),
}

impl JsonRendering {
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<RenderResult> {
        match self {
            Self::UnderWay(rendering) => Pin::new(rendering).poll(context),
            Self::Done(frame) => Poll::Ready(Ok(Arc::clone(frame))),
        }
    }
}

impl fmt::Debug for JsonRendering {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("RenderingJson")
    }
}

/// Has another thread render an event that is being delivered, unless another shard has it
/// rendered meanwhile. Returns true if this call rendered it. If there is no memory, the cell is
/// left empty, and the caller gives up on the JSON.
pub(super) async fn render_for_delivery(
    event: &Arc<Event>,
    delivery: &Arc<SharedDelivery>,
    index: usize,
    work: &TenantWork,
) -> bool {
    let render = {
        let (event, delivery) = (Arc::clone(event), Arc::clone(delivery));
        move |_: &_| {
            let delivered = delivery.events().get(index);
            let Some(delivered) = delivered.filter(|delivered| !delivered.json_cell().is_filled())
            else {
                return Ok(false);
            };
            let mut made = false;
            let frame = delivered.json_cell().get_or_render(&event, || made = true);
            separate_memory_error(frame).map(|frame| made && frame.is_ok())
        }
    };
    let run = async |job| work.offload(job).await;
    let made = run_with_memory(event.account(), DELIVERY_MEMORY_TIMEOUT, render, run).await;
    made.and_then(Result::ok).unwrap_or_default()
}

/// Turns a lack of memory into the error on which the caller retries.
fn separate_memory_error<T>(
    result: Result<T, NoJson>,
) -> Result<Result<T, NoJson>, MemoryExceeded> {
    match result {
        Err(NoJson::NoMemory) => Err(MemoryExceeded),
        other => Ok(other),
    }
}

//! Tasks that wait until their tenant is granted a quantum.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, HashMap},
    fmt::Debug,
    future::poll_fn,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
};

use sidewire_protocol::TenantName;
use tokio::{sync::Mutex, time::Instant};

use super::{Cost, DeficitQueue, FLOWS_PER_TURN, Flow};

/// Something that waits to be scheduled.
pub trait Waiter: Debug {
    /// Wakes it to check whether it may work now.
    fn wake(&self);
}

/// A shard's flows of work done by tasks: one for each tenant, and some for work of a tenant that
/// is not yet known.
#[derive(Debug)]
pub struct WorkQueue {
    queue: RefCell<DeficitQueue<WorkFlow>>,
    tenants: RefCell<HashMap<TenantName, Rc<WorkFlow>>>,
    /// Wakes the task that runs the shard's turns.
    waker: RefCell<Option<Waker>>,
    /// True if flows with a backlog come first in this turn.
    is_bulks_turn: Cell<bool>,
}

/// The flow of work for one tenant, or for no particular tenant.
#[derive(Debug, Default)]
pub struct WorkFlow {
    tenant: Option<TenantName>,
    flow: Flow,
    /// Waiters by the numbers of their tickets, which are the order of service.
    waiting: RefCell<BTreeMap<u64, Rc<dyn Waiter>>>,
    last_ticket: Cell<u64>,
    /// Held while work is offloaded to another thread.
    pub(super) offloaded: Arc<Mutex<()>>,
}

impl Default for WorkQueue {
    fn default() -> Self {
        Self {
            queue: RefCell::new(DeficitQueue::new(|work| &work.flow)),
            tenants: RefCell::default(),
            waker: RefCell::default(),
            is_bulks_turn: Cell::default(),
        }
    }
}

impl WorkQueue {
    /// Returns the work of a tenant.
    #[must_use]
    pub fn tenant_work(self: &Rc<Self>, name: &TenantName) -> TenantWork {
        let mut tenants = self.tenants.borrow_mut();
        let flow = tenants.get(name).cloned().unwrap_or_else(|| {
            let flow = Rc::new(WorkFlow {
                tenant: Some(name.clone()),
                ..WorkFlow::default()
            });
            tenants.insert(name.clone(), Rc::clone(&flow));
            flow
        });
        TenantWork {
            queue: Rc::clone(self),
            flow,
        }
    }

    /// Returns a new flow for work of no particular tenant, scheduled like a tenant's.
    #[must_use]
    pub fn tenantless_work(self: &Rc<Self>) -> TenantWork {
        TenantWork {
            queue: Rc::clone(self),
            flow: Rc::default(),
        }
    }

    /// Returns true if no flow waits or has a debt.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.queue.borrow().is_empty()
    }

    /// Returns the total cost charged so far.
    #[must_use]
    pub fn total_charged(&self) -> Cost {
        self.queue.borrow().total_charged()
    }

    /// Returns true if the queue is idle and knows no tenant.
    #[cfg(any(test, feature = "testing"))]
    pub fn is_forgotten(&self) -> bool {
        self.is_idle() && self.tenants.borrow().is_empty()
    }

    /// Registers the task to wake when this queue is no longer idle.
    pub fn register_waker(&self, context: &Context<'_>) {
        self.waker.replace(Some(context.waker().clone()));
    }

    /// Begins a turn: grants flows their quanta, and wakes the first waiting task of each flow
    /// that has some quota left.
    pub fn begin_turn(&self) {
        // The first to be woken gets the time, since nothing is charged yet. So flows with a
        // backlog come first in every second turn.
        let is_bulks_turn = !self.is_bulks_turn.get();
        self.is_bulks_turn.set(is_bulks_turn);
        let mut queue = self.queue.borrow_mut();
        queue.begin_turn();
        let mut woken = 0;
        for _ in 0..queue.len() {
            if woken == FLOWS_PER_TURN {
                break;
            }
            let bulk = match is_bulks_turn {
                true => queue.next_bulk(|_| true),
                false => None,
            };
            let Some(work) = bulk.or_else(|| queue.next(|_| true)) else {
                break;
            };
            let has_waiting = work.wake_first();
            woken += usize::from(has_waiting);
            queue.put_back(Rc::clone(&work), has_waiting);
            self.forget_unused(&work);
        }
    }

    fn activate(&self, flow: &Rc<WorkFlow>) {
        self.queue.borrow_mut().activate(flow);
        self.wake();
    }

    fn charge(&self, flow: &Rc<WorkFlow>, cost: Cost) {
        self.queue.borrow_mut().charge(flow, cost);
        self.wake();
    }

    /// Wakes the task that runs the shard's turns, if it is idle.
    pub fn wake(&self) {
        // Only once for each time that it was idle: a task that yields between two turns must not
        // be woken before all other tasks have run.
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// Forgets a tenant if only the caller still refers to it.
    fn forget_unused(&self, flow: &Rc<WorkFlow>) {
        // One reference is the caller's, and one the map's.
        if Rc::strong_count(flow) == 2
            && let Some(tenant) = &flow.tenant
        {
            self.tenants.borrow_mut().remove(tenant);
        }
    }
}

impl WorkFlow {
    /// Wakes the first waiter. Returns false if there is none.
    fn wake_first(&self) -> bool {
        let waiting = self.waiting.borrow();
        let first = waiting.values().next();
        first.inspect(|first| first.wake()).is_some()
    }
}

/// A handle to a shard's work for one tenant.
#[derive(Debug)]
pub struct TenantWork {
    queue: Rc<WorkQueue>,
    pub(super) flow: Rc<WorkFlow>,
}

impl TenantWork {
    /// Waits until work may be done for the tenant. Its tasks are served one after another, in
    /// the order in which they began to wait.
    pub async fn wait_for_quantum(&self) {
        let mut waiting = AwaitedQuantum::default();
        poll_fn(|context| self.poll_quantum(&mut waiting, context)).await;
    }

    /// Polls like [`Self::wait_for_quantum`]. The caller keeps `awaited` while this is pending.
    pub fn poll_quantum(&self, awaited: &mut AwaitedQuantum, context: &Context<'_>) -> Poll<()> {
        let may_start = match &awaited.0 {
            Some((place, _)) => place.is_next(),
            None => self.may_start(),
        };
        if may_start {
            awaited.0 = None;
            return Poll::Ready(());
        }
        // Not checked again now: the rest of this turn is for tasks that have waited.
        let (_, task) = awaited.0.get_or_insert_with(|| {
            let task = Rc::<WaitingTask>::default();
            (
                self.enqueue_waiter(Rc::clone(&task) as Rc<dyn Waiter>),
                task,
            )
        });
        task.0.replace(Some(context.waker().clone()));
        Poll::Pending
    }

    /// Runs a future. Each poll first waits for the tenant's quantum and is charged the time that
    /// it took, at least `cost_min`.
    pub async fn run<F: Future>(&self, future: Pin<&mut F>, cost_min: Cost) -> F::Output {
        let (mut future, mut awaited) = (future, AwaitedQuantum::default());
        poll_fn(|context| {
            ready!(self.poll_quantum(&mut awaited, context));
            let begun = Instant::now();
            let polled = future.as_mut().poll(context);
            let took = Cost::from_duration(begun.elapsed());
            self.charge(took.max(cost_min));
            polled
        })
        .await
    }

    /// Returns true if work may begin at once: no task of the tenant waits, its quantum is not
    /// used up, and more is left of the turn than the half that is kept for tasks that have
    /// waited.
    fn may_start(&self) -> bool {
        self.has_quota()
            && self.flow.waiting.borrow().is_empty()
            && self.queue.queue.borrow().has_spare_time()
    }

    /// Returns true if something is left of the tenant's quantum.
    #[must_use]
    pub fn has_quota(&self) -> bool {
        self.flow.flow.has_quota()
    }

    /// Returns what is left of the tenant's quantum.
    #[must_use]
    pub fn quota(&self) -> Cost {
        self.flow.flow.quota()
    }

    /// Charges the tenant for work that was done.
    pub fn charge(&self, cost: Cost) {
        self.queue.charge(&self.flow, cost);
    }

    /// Returns true if work may be done now: at once, or because the ticket in `place` is next.
    /// If not, the caller joins the queue, and `waiter` is woken when it is scheduled.
    pub fn may_work(
        &self,
        place: &mut Option<WorkTicket>,
        waiter: impl FnOnce() -> Rc<dyn Waiter>,
    ) -> bool {
        match place {
            Some(place) => place.is_next(),
            None if self.may_start() => true,
            None => {
                *place = Some(self.enqueue_waiter(waiter()));
                false
            }
        }
    }

    /// Joins the end of the tenant's queue. `waiter` is woken when it is scheduled.
    pub fn enqueue_waiter(&self, waiter: Rc<dyn Waiter>) -> WorkTicket {
        let number = self.flow.last_ticket.get() + 1;
        self.flow.last_ticket.set(number);
        self.flow.waiting.borrow_mut().insert(number, waiter);
        self.queue.activate(&self.flow);
        WorkTicket(Box::new(TicketState {
            queue: Rc::clone(&self.queue),
            flow: Rc::clone(&self.flow),
            number,
        }))
    }
}

impl Drop for TenantWork {
    fn drop(&mut self) {
        self.queue.forget_unused(&self.flow);
    }
}

/// A ticket in the queue of those that wait to work for a tenant. Dropping it wakes the next one.
#[derive(Debug)]
pub struct WorkTicket(Box<TicketState>);

/// Boxed, so that a connection without a ticket stays small.
#[derive(Debug)]
struct TicketState {
    queue: Rc<WorkQueue>,
    flow: Rc<WorkFlow>,
    number: u64,
}

impl WorkTicket {
    /// Returns true if the holder may work now: this is the tenant's first ticket, and something
    /// is left of the tenant's quantum and of the turn.
    #[must_use]
    pub fn is_next(&self) -> bool {
        let TicketState {
            queue,
            flow,
            number,
        } = &*self.0;
        flow.flow.has_quota()
            && queue.queue.borrow().has_time()
            && flow.waiting.borrow().keys().next() == Some(number)
    }
}

impl Drop for WorkTicket {
    fn drop(&mut self) {
        let TicketState { flow, number, .. } = &*self.0;
        flow.waiting.borrow_mut().remove(number);
        if flow.flow.has_quota() {
            flow.wake_first();
        }
    }
}

/// State of a task while it waits for its tenant's quantum.
#[derive(Debug, Default)]
pub struct AwaitedQuantum(Option<(WorkTicket, Rc<WaitingTask>)>);

/// The waker of a waiting task.
#[derive(Debug, Default)]
struct WaitingTask(RefCell<Option<Waker>>);

impl Waiter for WaitingTask {
    fn wake(&self) {
        if let Some(waker) = self.0.take() {
            waker.wake();
        }
    }
}

//! Fairness, conservation of cost, and absence of starvation, for the queue alone and for tasks
//! that wait in one.

use std::{
    cell::{Cell, RefCell},
    pin::pin,
    rc::Rc,
    sync::mpsc,
};

use futures_util::future::poll_immediate;
use proptest::prelude::*;
use sidewire_protocol::TenantName;
use tokio::task::{spawn_local, yield_now};

use super::*;
use crate::connection::testing::{ConnectionFixture, settle, simulate};

/// A flow with a backlog of steps of equal cost.
#[derive(Debug)]
struct Backlog {
    flow: Flow,
    step: Cost,
    steps: Cell<usize>,
    served: Cell<Cost>,
}

impl Backlog {
    fn new(step: u64, steps: usize) -> Rc<Self> {
        Rc::new(Self {
            flow: Flow::default(),
            step: Cost::from_nanos(step),
            steps: Cell::new(steps),
            served: Cell::default(),
        })
    }
}

fn queue_of(flows: &[Rc<Backlog>]) -> DeficitQueue<Backlog> {
    let mut queue = DeficitQueue::new(|backlog: &Backlog| &backlog.flow);
    for flow in flows {
        queue.activate(flow);
    }
    queue
}

/// Serves a turn. Returns its cost.
fn serve_turn(queue: &mut DeficitQueue<Backlog>) -> Cost {
    let mut cost = Cost::ZERO;
    queue.begin_turn();
    while let Some(backlog) = queue.next(|_| true) {
        while backlog.flow.has_quota() && backlog.steps.get() > 0 {
            backlog.steps.set(backlog.steps.get() - 1);
            backlog.served.set(backlog.served.get() + backlog.step);
            queue.charge(&backlog, backlog.step);
            cost += backlog.step;
        }
        let has_more = backlog.steps.get() > 0;
        queue.put_back(backlog, has_more);
    }
    cost
}

proptest! {
    /// For any cost of a step up to a quantum: two flows with a backlog have always been served
    /// equally, within two quanta and a step.
    #[test]
    fn flows_with_a_backlog_are_served_equally_whatever_their_steps_cost(
        steps in prop::collection::vec(1_u64..128_000, 2..20),
        turns in 1..200_usize,
    ) {
        let flows: Vec<_> = steps.iter().map(|step| Backlog::new(*step, usize::MAX)).collect();
        let mut queue = queue_of(&flows);
        // None of them is sparse any more.
        for _ in 0..40 {
            serve_turn(&mut queue);
        }
        let before: Vec<_> = flows.iter().map(|flow| flow.served.get()).collect();
        for _ in 0..turns {
            serve_turn(&mut queue);
            let served = flows.iter().zip(&before).map(|(flow, before)| flow.served.get() - *before);
            let least = served.clone().min().unwrap();
            let most = served.max().unwrap();
            let step = Cost::from_nanos(*steps.iter().max().unwrap());
            prop_assert!(most <= least + QUANTUM.times(2) + step, "{least:?} {most:?}");
        }
    }

    /// A turn is bounded, and everything is served eventually.
    #[test]
    fn a_turn_is_bounded_and_no_flow_starves(
        backlogs in prop::collection::vec((1_u64..300_000, 0..50_usize), 1..30),
    ) {
        let flows: Vec<_> = backlogs.iter().map(|(step, steps)| Backlog::new(*step, *steps)).collect();
        let mut queue = queue_of(&flows);
        let step = Cost::from_nanos(300_000);
        let mut total = Cost::ZERO;
        let mut turns = 0;
        while !queue.is_empty() {
            let cost = serve_turn(&mut queue);
            prop_assert!(cost <= QUANTUM.times(FLOWS_PER_TURN) + QUANTUM + step);
            total += cost;
            turns += 1;
            prop_assert!(turns < 10_000);
        }
        let backlog = backlogs.iter().map(|(step, steps)| Cost::from_nanos(*step).times(*steps));
        prop_assert_eq!(total, backlog.fold(Cost::ZERO, |sum, cost| sum + cost));
        prop_assert!(flows.iter().all(|flow| flow.flow.has_quota()));
    }
}

#[test]
fn a_new_flow_is_served_before_the_backlogs_of_the_others() {
    let loud: Vec<_> = (0..100).map(|_| Backlog::new(100_000, 1000)).collect();
    let mut queue = queue_of(&loud);
    // None of them is sparse any more.
    for _ in 0..50 {
        serve_turn(&mut queue);
    }
    for _ in 0..50 {
        let quiet = Backlog::new(10_000, 1);
        queue.activate(&quiet);
        serve_turn(&mut queue);
        assert_eq!(quiet.steps.get(), 0);
    }
}

#[test]
fn a_stream_of_new_flows_leaves_half_of_each_turn_to_the_others() {
    let loud = Backlog::new(100_000, 1000);
    let mut queue = queue_of(std::slice::from_ref(&loud));
    serve_turn(&mut queue);
    let before = loud.served.get();
    for turn in 1..=20 {
        for _ in 0..100 {
            queue.activate(&Backlog::new(128_000, 1));
        }
        serve_turn(&mut queue);
        assert!(loud.served.get() >= before + QUANTUM.times(turn) - Cost::from_nanos(100_000));
    }
}

#[test]
fn a_lone_flow_gets_one_quantum_per_turn() {
    let alone = Backlog::new(1000, usize::MAX);
    let mut queue = queue_of(std::slice::from_ref(&alone));
    assert_eq!(serve_turn(&mut queue), QUANTUM);
}

fn name(tenant: &str) -> TenantName {
    TenantName::parse(tenant).unwrap()
}

/// The work done, in order.
type Journal = Rc<RefCell<Vec<String>>>;

/// Runs a task for the tenant with this many steps of this cost.
fn task(fixture: &ConnectionFixture, journal: &Journal, tenant: &str, steps: usize, cost: Cost) {
    let (shard, journal) = (Rc::clone(&fixture.shard), Rc::clone(journal));
    let name = name(tenant);
    spawn_local(async move {
        let work = shard.hub.work_queue().tenant_work(&name);
        for _ in 0..steps {
            work.wait_for_quantum().await;
            journal.borrow_mut().push(name.as_str().to_owned());
            work.charge(cost);
        }
    });
}

#[test]
fn many_tasks_of_a_tenant_run_after_one_of_another_once_their_quantum_is_used() {
    simulate(async {
        let (fixture, journal) = (ConnectionFixture::new(), Journal::default());
        for _ in 0..20 {
            task(&fixture, &journal, "loud", 1, Cost::from_nanos(32_000));
        }
        task(&fixture, &journal, "quiet", 1, Cost::from_nanos(10));
        settle().await;
        let done = journal.take();
        assert_eq!(done.len(), 21);
        assert_eq!(done.iter().position(|name| name == "quiet"), Some(4));
        assert!(fixture.shard.hub.work_queue().is_forgotten());
    });
}

#[test]
fn a_step_of_several_quanta_is_paid_for_before_the_next() {
    simulate(async {
        let (fixture, journal) = (ConnectionFixture::new(), Journal::default());
        task(&fixture, &journal, "loud", 2, QUANTUM.times(5));
        task(&fixture, &journal, "quiet", 4, QUANTUM);
        settle().await;
        let done = journal.take();
        assert_eq!(done, ["loud", "quiet", "quiet", "quiet", "quiet", "loud"]);
        assert!(fixture.shard.hub.work_queue().is_forgotten());
    });
}

#[test]
fn the_quanta_granted_to_tasks_of_many_tenants_in_a_turn_are_bounded() {
    simulate(async {
        let (fixture, journal) = (ConnectionFixture::new(), Journal::default());
        for tenant in 0..50 {
            task(&fixture, &journal, &format!("t{tenant}"), 2, QUANTUM);
        }
        let mut before = 0;
        while before < 100 {
            yield_now().await;
            let done = journal.borrow().len();
            assert!(done - before <= 2 * FLOWS_PER_TURN, "{before} {done}");
            before = done;
        }
        let done = journal.take();
        // Each has been served before any is served a third time.
        for tenant in 0..50 {
            let tenant = format!("t{tenant}");
            assert_eq!(done.iter().filter(|it| **it == tenant).count(), 2);
        }
    });
}

#[test]
fn tasks_of_new_tenants_leave_half_of_each_turn_to_those_with_a_debt() {
    simulate(async {
        let (fixture, journal) = (ConnectionFixture::new(), Journal::default());
        // In debt after the first of two.
        task(&fixture, &journal, "loud", 2, QUANTUM.times(4));
        yield_now().await;
        let mut new = 0;
        while journal.borrow().iter().filter(|it| **it == "loud").count() < 2 {
            for _ in 0..10 {
                task(&fixture, &journal, &format!("new{new}"), 1, QUANTUM);
                new += 1;
            }
            yield_now().await;
            assert!(new < 300, "it starves");
        }
    });
}

#[test]
fn a_scheduled_future_is_charged_the_cost_of_each_poll() {
    simulate(async {
        let (fixture, journal) = (ConnectionFixture::new(), Journal::default());
        let work = fixture.shard.hub.work_queue().tenantless_work();
        let before = fixture.shard.hub.work_queue().total_charged();
        let future = async {
            journal.borrow_mut().push("first".to_owned());
            yield_now().await;
            journal.borrow_mut().push("second".to_owned());
        };
        let future = pin!(future);
        let mut run = pin!(work.run(future, QUANTUM.times(3)));
        assert!(poll_immediate(&mut run).await.is_none());
        assert_eq!(*journal.borrow(), ["first"]);
        // It has been woken, and pays its debt before it goes on.
        assert!(poll_immediate(&mut run).await.is_none());
        assert_eq!(*journal.borrow(), ["first"]);
        run.await;
        let charged = fixture.shard.hub.work_queue().total_charged() - before;
        assert_eq!(charged, QUANTUM.times(6));
        assert_eq!(*journal.borrow(), ["first", "second"]);
    });
}

#[test]
fn each_tenant_has_one_offloaded_step_at_a_time() {
    simulate(async {
        let fixture = ConnectionFixture::new();
        let of = |tenant| fixture.shard.hub.work_queue().tenant_work(&name(tenant));
        let (first, second, of_other) = (of("acme"), of("acme"), of("other"));
        let (release, released) = mpsc::channel();
        let mut slow = pin!(first.offload(move || released.recv()));
        assert!(poll_immediate(&mut slow).await.is_none());
        assert_eq!(of_other.offload(|| 1).await, Some(1));
        let mut next = pin!(second.offload(|| 2));
        assert!(poll_immediate(&mut next).await.is_none());
        release.send(3).unwrap();
        assert_eq!(slow.await, Some(Ok(3)));
        assert_eq!(next.await, Some(2));
    });
}

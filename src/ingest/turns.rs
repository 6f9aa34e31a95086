//! The turns of tenants whose backends call on one shard: when so much has been done for
//! one of them, however many connections its backends have, everybody else goes before its
//! next. Knows no calls, and nothing of what is done.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    panic::resume_unwind,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::{Mutex, Notify},
    task::{spawn_blocking, yield_now},
    time::Instant,
};

use crate::{hub::ShardHub, protocol::TenantName};

/// How much is done for a tenant in a turn, in quarters of a microsecond.
pub(super) const WORK_A_TURN: usize = 512;

/// For so long one whose backends have called may call again, and is not to wait then.
const CALLS_AGAIN_WITHIN: Duration = Duration::from_mins(1);

/// The tenants for which something was done in this turn, or is to be.
#[derive(Debug, Default)]
pub struct Turns {
    tenants: RefCell<HashMap<TenantName, Rc<Tenant>>>,
    callers: RefCell<Callers>,
    /// Wakes who ends the turns.
    begun: Notify,
}

/// Whether several tenants call.
#[derive(Debug, Default)]
struct Callers {
    last: Option<TenantName>,
    /// When the last was another than the one before.
    changed: Option<Instant>,
}

/// What the calls of a tenant have in common.
#[derive(Debug, Default)]
struct Tenant {
    /// What was done for it and no turn has made up for yet.
    done: Cell<usize>,
    /// Who holds it is the next to have something done.
    next: Mutex<()>,
    /// Its turn is over.
    over: Notify,
    /// Who holds it has something done that takes long, elsewhere.
    elsewhere: Arc<Mutex<()>>,
}

impl Turns {
    /// Ends each turn when everybody has had theirs.
    pub async fn run(&self) {
        loop {
            self.begun.notified().await;
            loop {
                yield_now().await;
                if !self.end_turn() {
                    break;
                }
            }
        }
    }

    /// Whether there is more to come, for what was done already.
    fn end_turn(&self) -> bool {
        let mut goes_on = false;
        self.tenants.borrow_mut().retain(|_, tenant| {
            let left = tenant.done.get().saturating_sub(WORK_A_TURN);
            tenant.done.set(left);
            tenant.over.notify_one();
            goes_on |= left > 0;
            left > 0 || Rc::strong_count(tenant) > 1
        });
        goes_on
    }

    /// The turns of a call for the tenant.
    pub(super) fn of<'a>(&'a self, hub: &'a ShardHub, name: &'a TenantName) -> Turn<'a> {
        self.callers.borrow_mut().calls(name);
        Turn {
            hub,
            entry: self.entry(name),
        }
    }

    /// Does what takes too long for the shard on another thread, of each tenant one piece
    /// at a time. `None` where the process is ending.
    pub async fn elsewhere<T: Send + 'static>(
        &self,
        name: &TenantName,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        self.entry(name).elsewhere(work).await
    }

    fn entry<'a>(&'a self, name: &'a TenantName) -> Entry<'a> {
        let mut tenants = self.tenants.borrow_mut();
        let tenant = match tenants.get(name) {
            Some(tenant) => Rc::clone(tenant),
            None => Rc::clone(tenants.entry(name.clone()).or_default()),
        };
        Entry {
            turns: self,
            name,
            tenant,
        }
    }

    /// Whether there is nobody who would have to wait for this tenant.
    fn is_alone(&self, hub: &ShardHub, name: &TenantName) -> bool {
        self.tenants.borrow().len() == 1
            && hub.has_none_beside(name)
            && !self.callers.borrow_mut().are_several()
    }
}

impl Callers {
    fn calls(&mut self, name: &TenantName) {
        if self.last.as_ref() != Some(name) {
            self.changed = self.last.is_some().then(Instant::now);
            self.last = Some(name.clone());
        }
    }

    fn are_several(&mut self) -> bool {
        self.changed
            .take_if(|at| at.elapsed() >= CALLS_AGAIN_WITHIN);
        self.changed.is_some()
    }
}

/// A tenant that stays among the tenants for as long as this is held.
#[derive(Debug)]
struct Entry<'a> {
    turns: &'a Turns,
    name: &'a TenantName,
    tenant: Rc<Tenant>,
}

impl Entry<'_> {
    async fn elsewhere<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let held = Arc::clone(&self.tenant.elsewhere).lock_owned().await;
        // Held by the thread: it goes on when nobody waits for it any more.
        let done = spawn_blocking(move || {
            let done = work();
            drop(held);
            done
        });
        match done.await {
            Ok(done) => Some(done),
            Err(error) => match error.try_into_panic() {
                Ok(panic) => resume_unwind(panic),
                Err(_) => None,
            },
        }
    }
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        // Ours, and that of the map.
        if self.tenant.done.get() == 0 && Rc::strong_count(&self.tenant) == 2 {
            self.turns.tenants.borrow_mut().remove(self.name);
        }
    }
}

/// A call's part in the turns of its tenant.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    hub: &'a ShardHub,
    entry: Entry<'a>,
}

impl Turn<'_> {
    /// Waits until something may be done for the tenant, its calls in the order in which
    /// they came. One that is alone waits for nobody.
    pub(super) async fn comes(&self) {
        let Entry {
            turns,
            name,
            tenant,
        } = &self.entry;
        let done = &tenant.done;
        if turns.is_alone(self.hub, name) {
            done.set(0);
            return;
        }
        let _next = tenant.next.lock().await;
        while done.get() >= WORK_A_TURN {
            tenant.over.notified().await;
        }
    }

    /// Says that so much was done.
    pub(super) fn did(&self, work: usize) {
        let done = &self.entry.tenant.done;
        done.set(done.get().saturating_add(work));
        self.entry.turns.begun.notify_one();
    }

    /// Does what takes too long for the shard on another thread, of each tenant one piece
    /// at a time. `None` where the process is ending.
    pub(super) async fn elsewhere<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        self.entry.elsewhere(work).await
    }
}

#[cfg(test)]
mod tests {
    use std::{pin::pin, sync::mpsc};

    use futures_util::future::poll_immediate;
    use tokio::{task::spawn_local, time::sleep};

    use super::*;
    use crate::{
        connection::testing::{Bench, settle, simulate},
        hub::Membership,
        outbox::Outbox,
        protocol::UserName,
    };

    fn name(tenant: &str) -> TenantName {
        TenantName::parse(tenant).unwrap()
    }

    /// What was done, in order.
    type Journal = Rc<RefCell<Vec<String>>>;

    /// A call for the tenant that takes so many steps of so much work.
    fn call(bench: &Bench, journal: &Journal, tenant: &str, steps: usize, work: usize) {
        let (shard, journal) = (Rc::clone(&bench.shard), Rc::clone(journal));
        let name = name(tenant);
        spawn_local(async move {
            let turn = shard.turns.of(&shard.hub, &name);
            for _ in 0..steps {
                turn.comes().await;
                journal.borrow_mut().push(name.as_str().to_owned());
                turn.did(work);
            }
        });
    }

    /// A client of the tenant.
    fn connect(bench: &Bench, tenant: &str) -> Membership {
        let outbox = Rc::new(Outbox::new(&bench.shard.outboxes));
        let user = UserName::parse("ann").unwrap();
        bench.shard.hub.join(&name(tenant), &user, outbox).unwrap()
    }

    fn is_empty(bench: &Bench) -> bool {
        bench.shard.turns.tenants.borrow().is_empty()
    }

    #[test]
    fn a_tenants_many_calls_come_after_anothers_one_when_they_have_had_their_turn() {
        simulate(async {
            let (bench, journal) = (Bench::new(), Journal::default());
            let _client = connect(&bench, "quiet");
            for _ in 0..20 {
                call(&bench, &journal, "loud", 1, WORK_A_TURN / 4);
            }
            call(&bench, &journal, "quiet", 1, 10);
            settle().await;
            let done = journal.take();
            assert_eq!(done.len(), 21);
            assert_eq!(done.iter().position(|name| name == "quiet"), Some(4));
            assert!(is_empty(&bench));
        });
    }

    #[test]
    fn what_takes_several_turns_at_once_is_made_up_for() {
        simulate(async {
            let (bench, journal) = (Bench::new(), Journal::default());
            let _client = connect(&bench, "quiet");
            call(&bench, &journal, "loud", 2, 5 * WORK_A_TURN);
            call(&bench, &journal, "quiet", 4, WORK_A_TURN);
            settle().await;
            let done = journal.take();
            assert_eq!(done, ["loud", "quiet", "quiet", "quiet", "quiet", "loud"]);
            assert!(is_empty(&bench));
        });
    }

    #[test]
    fn a_tenant_that_is_alone_waits_for_nobody() {
        simulate(async {
            let (bench, journal) = (Bench::new(), Journal::default());
            let _client = connect(&bench, "acme");
            call(&bench, &journal, "acme", 100, WORK_A_TURN);
            yield_now().await;
            assert_eq!(journal.borrow().len(), 100);
            settle().await;
            assert!(is_empty(&bench));
            // Now there is one of another's who might wait.
            call(&bench, &journal, "other", 100, WORK_A_TURN);
            yield_now().await;
            assert_eq!(journal.borrow().len(), 101);
        });
    }

    #[test]
    fn whose_backends_have_called_within_a_minute_is_not_to_wait_when_they_call_again() {
        simulate(async {
            let (bench, journal) = (Bench::new(), Journal::default());
            call(&bench, &journal, "quiet", 1, 10);
            settle().await;
            for done_at_once in [1, 10] {
                journal.take();
                call(&bench, &journal, "loud", 10, WORK_A_TURN);
                yield_now().await;
                assert_eq!(journal.borrow().len(), done_at_once);
                settle().await;
                assert_eq!(journal.borrow().len(), 10);
                sleep(CALLS_AGAIN_WITHIN).await;
            }
        });
    }

    #[test]
    fn each_tenant_has_one_thing_done_elsewhere_at_a_time() {
        simulate(async {
            let bench = Bench::new();
            let (acme, other) = (name("acme"), name("other"));
            let of = |name| bench.shard.turns.of(&bench.shard.hub, name);
            let (first, second, of_other) = (of(&acme), of(&acme), of(&other));
            let (release, released) = mpsc::channel();
            let mut slow = pin!(first.elsewhere(move || released.recv()));
            assert!(poll_immediate(&mut slow).await.is_none());
            assert_eq!(of_other.elsewhere(|| 1).await, Some(1));
            let mut next = pin!(second.elsewhere(|| 2));
            assert!(poll_immediate(&mut next).await.is_none());
            assert!(second.entry.tenant.elsewhere.try_lock().is_err());
            release.send(3).unwrap();
            assert_eq!(slow.await, Some(Ok(3)));
            assert_eq!(next.await, Some(2));
        });
    }
}

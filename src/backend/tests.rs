//! Questions and when they are sent, refused and given up.

mod http;

use std::{
    rc::Rc,
    sync::atomic::{AtomicBool, Ordering},
};

use hyper::StatusCode;
use tokio::{
    task::{JoinHandle, spawn_local},
    time::sleep,
};

use super::{
    breaker::{FAILURES_MAX, OPEN_MIN},
    testing::{FakeTransport, target},
    *,
};
use crate::{
    connection::testing::{settle, simulate},
    http::FetchError,
    telemetry::Metrics,
};

const TIMEOUT: Duration = Duration::from_secs(2);

/// What became of a question: the time since the start, and its answer or the failure.
type Results = Arc<Mutex<Vec<(String, Duration, Result<Bytes, String>)>>>;

struct TestQuestion {
    tenant: TenantName,
    name: String,
    is_wanted: Arc<AtomicBool>,
    results: Results,
    start: Instant,
}

impl Question for TestQuestion {
    fn tenant(&self) -> &TenantName {
        &self.tenant
    }

    fn is_wanted(&self) -> bool {
        self.is_wanted.load(Ordering::Relaxed)
    }

    fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(&self.name).unwrap()
    }

    fn answered(self: Box<Self>, answer: Result<Bytes, AskError>) -> Result<(), InvalidAnswer> {
        let is_invalid = answer.as_ref().is_ok_and(|answer| answer == "invalid");
        let answer = answer.map_err(|error| error.to_string());
        let after = self.start.elapsed();
        let result = (self.name.clone(), after, answer);
        self.results.lock().unwrap().push(result);
        match is_invalid {
            true => Err(InvalidAnswer("it says so".to_owned())),
            false => Ok(()),
        }
    }
}

struct Fixture {
    backend: Rc<Backend>,
    transport: Arc<FakeTransport>,
    results: Results,
    start: Instant,
    metrics: Metrics,
    running: JoinHandle<()>,
}

impl Drop for Fixture {
    fn drop(&mut self) {
        self.running.abort();
    }
}

fn settings(url: &str, concurrency: usize) -> BackendSettings {
    BackendSettings {
        target: Some(target(url)),
        timeout: TIMEOUT,
        concurrency,
    }
}

impl Fixture {
    fn new(concurrency: usize) -> Self {
        let transport = Arc::new(FakeTransport::default());
        let metrics = Metrics::new(false, false);
        let backend = Rc::new(Backend::new(
            transport.clone(),
            settings("http://localhost/", concurrency),
            Arc::clone(&metrics.backend),
        ));
        let asking = Rc::clone(&backend);
        Self {
            backend,
            transport,
            results: Results::default(),
            start: Instant::now(),
            metrics,
            running: spawn_local(async move { asking.run().await }),
        }
    }

    fn ask(&self, tenant: &str, name: &str) -> Result<(), AskError> {
        self.ask_while(tenant, name, Arc::new(true.into()))
    }

    fn ask_while(
        &self,
        tenant: &str,
        name: &str,
        is_wanted: Arc<AtomicBool>,
    ) -> Result<(), AskError> {
        self.backend.ask(Box::new(TestQuestion {
            tenant: TenantName::parse(tenant).unwrap(),
            name: name.to_owned(),
            is_wanted,
            results: Arc::clone(&self.results),
            start: self.start,
        }))
    }

    /// Returns the names of the questions that were sent since the last call, and never answers
    /// them.
    async fn sent(&self) -> Vec<String> {
        settle().await;
        let sent = std::iter::from_fn(|| self.transport.next_now());
        sent.map(|it| it.json.as_str().unwrap().to_owned())
            .collect()
    }

    /// Returns the results since the last call.
    async fn results(&self) -> Vec<(String, Duration, Result<Bytes, String>)> {
        settle().await;
        std::mem::take(&mut self.results.lock().unwrap())
    }

    /// Opens the breaker.
    async fn fail_until_open(&self) {
        for number in 0..FAILURES_MAX {
            self.ask("a", &number.to_string()).unwrap();
            self.transport
                .next()
                .await
                .fail(StatusCode::SERVICE_UNAVAILABLE);
        }
        settle().await;
        self.results.lock().unwrap().clear();
    }

    fn counted(&self, result: &str) -> u64 {
        self.series(&format!(
            "sidewire_backend_questions_total{{result=\"{result}\"}}"
        ))
    }

    fn series(&self, series: &str) -> u64 {
        self.metrics.value(series)
    }
}

fn is_open(refused: Result<(), AskError>) -> Option<Duration> {
    match refused {
        Err(AskError::Open { retry_after }) => Some(retry_after),
        _ => None,
    }
}

#[test]
fn tenants_are_served_one_after_another_while_questions_wait() {
    simulate(async {
        let fixture = Fixture::new(2);
        for name in ["a1", "a2", "a3", "a4"] {
            fixture.ask("a", name).unwrap();
        }
        settle().await;
        for (tenant, name) in [("b", "b1"), ("c", "c1")] {
            fixture.ask(tenant, name).unwrap();
        }
        settle().await;
        let mut order = Vec::new();
        while let Some(posted) = fixture.transport.next_now() {
            assert!(fixture.transport.under_way() <= 2);
            order.push(posted.json.as_str().unwrap().to_owned());
            posted.answer("ok");
            settle().await;
        }
        assert_eq!(order, ["a1", "a2", "a3", "b1", "c1", "a4"]);
        assert_eq!(fixture.counted("answered"), 6);
    });
}

#[test]
fn a_question_is_given_up_while_it_waits_or_when_the_backend_takes_too_long() {
    simulate(async {
        let fixture = Fixture::new(1);
        fixture.ask("a", "sent").unwrap();
        fixture.ask("a", "waits").unwrap();
        assert_eq!(fixture.sent().await, ["sent"]);
        sleep(TIMEOUT * 2).await;
        let waited = Err("other questions took too long".to_owned());
        let timed_out = Err("no answer within 2s".to_owned());
        let expected = [
            ("waits".to_owned(), TIMEOUT / 2, waited),
            ("sent".to_owned(), TIMEOUT, timed_out),
        ];
        assert_eq!(fixture.results().await, expected);
        assert_eq!(fixture.transport.under_way(), 0);
        assert_eq!(
            ["timed_out", "too_many"].map(|it| fixture.counted(it)),
            [1, 1]
        );
    });
}

#[test]
fn nobody_waits_for_a_backend_that_is_down_and_one_question_tries_it_again() {
    simulate(async {
        let fixture = Fixture::new(64);
        for number in 0..FAILURES_MAX {
            fixture.ask("a", &number.to_string()).unwrap();
        }
        assert_eq!(fixture.sent().await.len(), 5);
        sleep(TIMEOUT).await;
        assert_eq!(fixture.results().await.len(), 5);
        assert_eq!(is_open(fixture.ask("b", "b")), Some(OPEN_MIN));
        assert_eq!(fixture.series("sidewire_backend_breaker_open"), 1);
        sleep(OPEN_MIN).await;
        fixture.ask("b", "probe").unwrap();
        fixture.ask("b", "beside").unwrap();
        let probe = fixture.transport.next().await;
        assert!(fixture.sent().await.is_empty());
        let refused = &fixture.results().await[0];
        assert_eq!(refused.0, "beside");
        probe.fail(StatusCode::BAD_GATEWAY);
        settle().await;
        assert_eq!(is_open(fixture.ask("b", "b")), Some(OPEN_MIN * 2));
        sleep(OPEN_MIN * 2).await;
        fixture.ask("b", "probe").unwrap();
        fixture.transport.next().await.answer("ok");
        settle().await;
        assert_eq!(fixture.series("sidewire_backend_breaker_open"), 0);
        for name in ["1", "2"] {
            fixture.ask("b", name).unwrap();
        }
        assert_eq!(fixture.sent().await, ["1", "2"]);
        assert_eq!(fixture.counted("not_asked"), 3);
    });
}

#[test]
fn wrong_answers_show_that_the_backend_is_up() {
    simulate(async {
        let fixture = Fixture::new(64);
        for _ in 0..FAILURES_MAX * 2 {
            fixture.ask("a", "q").unwrap();
            fixture.transport.next().await.fail(StatusCode::NOT_FOUND);
            fixture.ask("a", "q").unwrap();
            fixture.transport.next().await.answer("invalid");
            fixture.ask("a", "q").unwrap();
            let posted = fixture.transport.next().await;
            posted.fail_with(FetchError::TooBig(1));
        }
        fixture.ask("a", "q").unwrap();
        settle().await;
        let results = ["status", "invalid", "too_big"].map(|it| fixture.counted(it));
        assert_eq!(results, [u64::from(FAILURES_MAX) * 2; 3]);
    });
}

#[test]
fn what_nobody_waits_for_is_not_asked() {
    simulate(async {
        let fixture = Fixture::new(1);
        let is_wanted = Arc::new(AtomicBool::new(true));
        fixture.ask("a", "first").unwrap();
        let first = fixture.transport.next().await;
        fixture
            .ask_while("a", "left", Arc::clone(&is_wanted))
            .unwrap();
        fixture.ask("a", "last").unwrap();
        is_wanted.store(false, Ordering::Relaxed);
        first.answer("ok");
        assert_eq!(fixture.sent().await, ["last"]);
    });
}

#[test]
fn a_tenant_with_many_questions_makes_room_for_others() {
    simulate(async {
        let fixture = Fixture::new(1);
        fixture.ask("a", "sent").unwrap();
        settle().await;
        for number in 0..QUESTIONS_WAITING_MAX {
            fixture.ask("a", &number.to_string()).unwrap();
        }
        let refused = fixture.ask("a", "one more");
        assert!(matches!(refused, Err(AskError::TooMany)));
        fixture.ask("b", "b").unwrap();
        let evicted = &fixture.results().await[0];
        assert_eq!(evicted.0, "999");
        assert_eq!(evicted.2, Err("too many questions wait".to_owned()));
        assert_eq!(
            fixture.series("sidewire_backend_questions_waiting"),
            QUESTIONS_WAITING_MAX as u64
        );
        assert_eq!(fixture.counted("too_many"), 2);
    });
}

#[test]
fn questions_that_nobody_waits_for_make_room_first() {
    simulate(async {
        let fixture = Fixture::new(1);
        let is_wanted = Arc::new(AtomicBool::new(true));
        fixture.ask("a", "sent").unwrap();
        settle().await;
        for number in 0..QUESTIONS_WAITING_MAX {
            fixture
                .ask_while("a", &number.to_string(), Arc::clone(&is_wanted))
                .unwrap();
        }
        is_wanted.store(false, Ordering::Relaxed);
        fixture.ask("a", "one more").unwrap();
        assert_eq!(fixture.series("sidewire_backend_questions_waiting"), 1);
    });
}

#[test]
fn another_url_is_another_backend_and_none_answers_nothing() {
    simulate(async {
        let fixture = Fixture::new(64);
        fixture.fail_until_open().await;
        assert!(is_open(fixture.ask("a", "q")).is_some());
        fixture.backend.configure(settings("http://localhost/", 64));
        assert!(is_open(fixture.ask("a", "q")).is_some(), "it is the same");
        fixture
            .backend
            .configure(settings("http://localhost/other", 1));
        for name in ["sent", "waits"] {
            fixture.ask("a", name).unwrap();
        }
        assert_eq!(fixture.sent().await, ["sent"]);
        fixture.backend.configure(BackendSettings {
            target: None,
            ..settings("http://localhost/", 64)
        });
        let results = fixture.results().await;
        assert_eq!(results[0].0, "waits");
        assert_eq!(results[0].2, Err("no backend is configured".to_owned()));
        let refused = fixture.ask("a", "q");
        assert!(matches!(refused, Err(AskError::NotConfigured)));
    });
}

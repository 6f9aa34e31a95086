//! Judgements over a backend that answers when the test says so.

use std::rc::Rc;

use hyper::StatusCode;
use serde_json::{Value, json};
use tokio::{
    task::{JoinHandle, spawn_local},
    time::sleep,
};

use super::*;
use crate::{
    backend::testing::{FakeTransport, PostedQuestion, target},
    connection::testing::{settle, simulate},
    limits::tests::user_key,
    memory::MemoryLimits,
};

const TTL: Duration = Duration::from_secs(60);
const NEGATIVE_TTL: Duration = Duration::from_secs(5);

struct Fixture {
    authorizer: Rc<SubscribeAuthorizer>,
    transport: Arc<FakeTransport>,
    account: Arc<MemoryAccount>,
    metrics: Metrics,
    running: JoinHandle<()>,
}

impl Drop for Fixture {
    fn drop(&mut self) {
        self.running.abort();
    }
}

fn settings() -> AuthorizerSettings {
    AuthorizerSettings {
        backend: BackendSettings {
            target: Some(target("http://localhost/")),
            timeout: Duration::from_secs(2),
            concurrency: 64,
        },
        ttl: TTL,
        negative_ttl: NEGATIVE_TTL,
        entries: 1000,
    }
}

fn user(text: &str) -> UserKey {
    let (tenant, user) = text.split_once('/').unwrap();
    user_key(tenant, user)
}

fn topics(texts: &[&str]) -> Vec<Topic> {
    texts.iter().map(|it| Topic::parse(it).unwrap()).collect()
}

impl Fixture {
    fn new() -> Self {
        Self::with(settings())
    }

    fn with(settings: AuthorizerSettings) -> Self {
        let transport = Arc::new(FakeTransport::default());
        let (account, metrics) = (Arc::default(), Metrics::new(false, false));
        let authorizer = Rc::new(SubscribeAuthorizer::new(
            settings,
            transport.clone(),
            Arc::clone(&account),
            Arc::new(RandomSource::from_seed(1)),
            &metrics,
        ));
        let asking = Rc::clone(&authorizer);
        Self {
            authorizer,
            transport,
            account,
            metrics,
            running: spawn_local(async move { asking.run().await }),
        }
    }

    /// Begins a Subscribe; it ends with the denied topic, if any, or the failure.
    fn subscribe(&self, who: &str, texts: &[&str]) -> JoinHandle<Result<Option<String>, NoAnswer>> {
        let authorizer = Rc::clone(&self.authorizer);
        let (who, topics) = (user(who), topics(texts));
        spawn_local(async move {
            let mut judgement = authorizer.judge(&who, &topics);
            loop {
                match judgement {
                    Judgement::Allowed => return Ok(None),
                    Judgement::Denied(topic) => return Ok(Some(topic.to_string())),
                    Judgement::Failed(failure) => return Err(failure),
                    Judgement::Pending(pending) => {
                        judgement = authorizer.conclude(&who, &topics, pending.await);
                    }
                }
            }
        })
    }

    /// Subscribes, with this answer if there is a question. Returns the denied topic.
    async fn subscribe_answered(
        &self,
        who: &str,
        texts: &[&str],
        answer: &Value,
    ) -> Option<String> {
        let subscribing = self.subscribe(who, texts);
        settle().await;
        if let Some(posted) = self.transport.next_now() {
            posted.answer(answer.to_string());
        }
        subscribing.await.unwrap().unwrap()
    }

    /// Returns true if the Subscribe needs no question.
    async fn is_known(&self, who: &str, text: &str) -> bool {
        let before = self.transport.count();
        drop(self.subscribe(who, &[text]));
        settle().await;
        if let Some(posted) = self.transport.next_now() {
            posted.fail(StatusCode::NOT_FOUND);
        }
        settle().await;
        self.transport.count() == before
    }

    async fn next(&self) -> PostedQuestion {
        self.transport.next().await
    }

    fn held(&self) -> u64 {
        self.account.held_bytes(MemoryUse::Authorization)
    }
}

#[test]
fn only_topics_that_are_not_known_are_asked_about() {
    simulate(async {
        let fixture = Fixture::new();
        let first = fixture.subscribe("acme/ann", &["project:2", "project:1"]);
        let posted = fixture.next().await;
        let expected =
            json!({"tenant": "acme", "user": "ann", "topics": ["project:1", "project:2"]});
        assert_eq!(posted.json, expected);
        posted.answer(r#"{"allow": ["project:*"]}"#);
        assert_eq!(first.await.unwrap(), Ok(None));
        let second = fixture.subscribe("acme/ann", &["project:2", "sprint:1", "project:*"]);
        let posted = fixture.next().await;
        assert_eq!(posted.json["topics"], json!(["project:*", "sprint:1"]));
        posted.answer(r#"{"allow": ["sprint:1", "project:3"]}"#);
        assert_eq!(second.await.unwrap(), Ok(Some("project:*".to_owned())));
        assert!(fixture.is_known("acme/ann", "sprint:1").await);
        assert!(
            !fixture.is_known("acme/ann", "project:3").await,
            "not asked"
        );
        for (source, count) in [("cache", 2), ("backend", 5)] {
            let series = format!("sidewire_authorized_topics_total{{source=\"{source}\"}}");
            assert_eq!(fixture.metrics.value(&series), count);
        }
    });
}

#[test]
fn the_first_topic_in_the_order_of_the_request_is_named() {
    simulate(async {
        let fixture = Fixture::new();
        let asked = ["project:3", "project:1", "project:2"];
        let allow = json!({"allow": ["project:3"]});
        let denied = fixture.subscribe_answered("acme/ann", &asked, &allow).await;
        assert_eq!(denied.as_deref(), Some("project:1"));
    });
}

#[test]
fn an_answer_is_for_one_user_of_one_tenant() {
    simulate(async {
        let fixture = Fixture::new();
        let allow = json!({"allow": ["project:*"]});
        let answered = fixture.subscribe_answered("acme/ann", &["project:1"], &allow);
        assert_eq!(answered.await, None);
        for who in ["acme/bob", "other/ann"] {
            assert!(!fixture.is_known(who, "project:1").await, "{who}");
        }
        assert!(fixture.is_known("acme/ann", "project:1").await);
    });
}

#[test]
fn answers_are_kept_for_their_time_and_refusals_for_a_shorter_one() {
    simulate(async {
        let fixture = Fixture::new();
        let hour = Duration::from_hours(1);
        for (member, ttl) in [
            (json!({}), TTL),
            (json!({"ttl_s": 10}), Duration::from_secs(10)),
            (json!({"ttl_s": 999_999}), hour),
        ] {
            let mut answer = json!({"allow": ["project:1"]});
            answer
                .as_object_mut()
                .unwrap()
                .extend(member.as_object().unwrap().clone());
            let asked = ["project:1", "project:2"];
            let denied = fixture
                .subscribe_answered("acme/ann", &asked, &answer)
                .await;
            assert_eq!(denied.as_deref(), Some("project:2"), "{answer}");
            sleep(NEGATIVE_TTL - Duration::from_millis(1)).await;
            assert!(fixture.is_known("acme/ann", "project:2").await);
            sleep(Duration::from_millis(1)).await;
            assert!(!fixture.is_known("acme/ann", "project:2").await);
            sleep(ttl - NEGATIVE_TTL - Duration::from_millis(1)).await;
            assert!(fixture.is_known("acme/ann", "project:1").await);
            sleep(Duration::from_millis(1)).await;
            assert!(!fixture.is_known("acme/ann", "project:1").await);
        }
        assert!(!fixture.authorizer.sweep());
        assert_eq!(fixture.held(), 0);
        assert_eq!(fixture.metrics.value("sidewire_authorization_answers"), 0);
    });
}

#[test]
fn an_answer_that_is_not_to_be_kept_counts_for_its_question_only() {
    simulate(async {
        let fixture = Fixture::new();
        let first = fixture.subscribe("acme/ann", &["project:1"]);
        let second = fixture.subscribe("acme/ann", &["project:1"]);
        fixture
            .next()
            .await
            .answer(r#"{"allow": ["project:1"], "ttl_s": 0}"#);
        assert_eq!(first.await.unwrap(), Ok(None));
        assert_eq!(second.await.unwrap(), Ok(None));
        assert!(!fixture.is_known("acme/ann", "project:1").await);
    });
}

#[test]
fn equal_questions_are_asked_once() {
    simulate(async {
        let fixture = Fixture::new();
        let same: Vec<_> = (0..100)
            .map(|number| match number % 2 {
                0 => fixture.subscribe("acme/ann", &["project:1", "project:2"]),
                _ => fixture.subscribe("acme/ann", &["project:2", "project:1"]),
            })
            .collect();
        settle().await;
        let others = [
            fixture.subscribe("acme/ann", &["project:1"]),
            fixture.subscribe("acme/bob", &["project:1", "project:2"]),
        ];
        settle().await;
        assert_eq!(fixture.transport.count(), 3);
        fixture.next().await.answer(r#"{"allow": ["project:2"]}"#);
        for subscribing in same {
            let denied = subscribing.await.unwrap();
            assert_eq!(denied, Ok(Some("project:1".to_owned())));
        }
        assert!(others.iter().all(|it| !it.is_finished()));
    });
}

#[test]
fn a_failure_grants_nothing_and_is_not_remembered() {
    simulate(async {
        let fixture = Fixture::new();
        let unanswered = Err(NoAnswer::Unanswered {
            retry_after: RETRY_AFTER,
        });
        let fail: [fn(PostedQuestion); 4] = [
            |posted| posted.fail(StatusCode::FOUND),
            |posted| posted.answer(r#"{"allowed": ["project:1"]}"#),
            |posted| posted.answer("oops"),
            // It is never answered.
            drop,
        ];
        for fail in fail {
            let subscribing = fixture.subscribe("acme/ann", &["project:1"]);
            fail(fixture.next().await);
            assert_eq!(subscribing.await.unwrap(), unanswered);
        }
        let failed = "sidewire_authorizations_total{result=\"failed\"}";
        assert_eq!(fixture.metrics.value(failed), 4);
        assert!(!fixture.is_known("acme/ann", "project:1").await);
    });
}

#[test]
fn what_is_revoked_is_asked_about_again() {
    simulate(async {
        let fixture = Fixture::new();
        let allow = json!({"allow": ["project:*", "sprint:*"]});
        let asked = ["project:1", "project:2", "project:*", "sprint:1"];
        for (forgotten, known) in [
            ("project:1", [false, true, false, true]),
            ("project:*", [false, false, false, true]),
            ("sprint:*", [true, true, true, false]),
            ("sprint:2", [true, true, true, true]),
        ] {
            let answered = fixture.subscribe_answered("acme/ann", &asked, &allow);
            assert_eq!(answered.await, None);
            for who in ["acme/bob", "other/ann"] {
                fixture.authorizer.forget(&user(who), &topics(&asked));
            }
            fixture
                .authorizer
                .forget(&user("acme/ann"), &topics(&[forgotten]));
            for (topic, known) in asked.into_iter().zip(known) {
                let found = fixture.is_known("acme/ann", topic).await;
                assert_eq!(found, known, "{topic} without {forgotten}");
            }
        }
    });
}

#[test]
fn an_answer_to_a_question_before_a_revocation_is_discarded() {
    simulate(async {
        for revoked in ["project:1", "project:*"] {
            let fixture = Fixture::new();
            let before = fixture.subscribe("acme/ann", &["project:1", "sprint:1"]);
            let posted = fixture.next().await;
            fixture
                .authorizer
                .forget(&user("acme/ann"), &topics(&[revoked]));
            // An equal question is not the same any more.
            let after = fixture.subscribe("acme/ann", &["project:1", "sprint:1"]);
            let newer = fixture.next().await;
            posted.answer(r#"{"allow": ["project:1", "sprint:1"]}"#);
            let again = fixture.next().await;
            assert_eq!(again.json["topics"], json!(["project:1"]));
            assert!(!before.is_finished() && !after.is_finished());
            assert!(fixture.is_known("acme/ann", "sprint:1").await);
            newer.answer(r#"{"allow": ["sprint:1"]}"#);
            let denied = Ok(Some("project:1".to_owned()));
            assert_eq!(after.await.unwrap(), denied);
            again.answer(r#"{"allow": []}"#);
            assert_eq!(before.await.unwrap(), denied);
        }
    });
}

#[test]
fn a_revocation_between_the_answer_and_its_use_counts() {
    simulate(async {
        let fixture = Fixture::new();
        let (who, asked) = (user("acme/ann"), topics(&["project:1"]));
        let Judgement::Pending(pending) = fixture.authorizer.judge(&who, &asked) else {
            panic!("nothing is known")
        };
        fixture.next().await.answer(r#"{"allow": ["project:1"]}"#);
        let answer = pending.await;
        fixture.authorizer.forget(&who, &asked);
        let judgement = fixture.authorizer.conclude(&who, &asked, answer);
        assert!(matches!(judgement, Judgement::Pending(_)), "{judgement:?}");
    });
}

#[test]
fn another_backend_is_asked_about_everything() {
    simulate(async {
        let fixture = Fixture::new();
        let allow = json!({"allow": ["project:1"]});
        let answered = fixture.subscribe_answered("acme/ann", &["project:1"], &allow);
        assert_eq!(answered.await, None);
        let shorter = AuthorizerSettings {
            ttl: TTL / 2,
            ..settings()
        };
        fixture.authorizer.configure(shorter);
        assert!(fixture.is_known("acme/ann", "project:1").await);
        let under_way = fixture.subscribe("acme/ann", &["project:2"]);
        let posted = fixture.next().await;
        let mut other = settings();
        other.backend.target = Some(target("http://localhost/other"));
        fixture.authorizer.configure(other);
        assert!(!fixture.is_known("acme/ann", "project:1").await);
        posted.answer(r#"{"allow": ["project:2"]}"#);
        fixture.next().await.answer(r#"{"allow": []}"#);
        assert_eq!(under_way.await.unwrap(), Ok(Some("project:2".to_owned())));
    });
}

#[test]
fn without_a_backend_everything_is_allowed() {
    simulate(async {
        let fixture = Fixture::new();
        let under_way = fixture.subscribe("acme/ann", &["project:2"]);
        let posted = fixture.next().await;
        let mut none = settings();
        none.backend.target = None;
        fixture.authorizer.configure(none);
        posted.answer(r#"{"allow": []}"#);
        assert_eq!(under_way.await.unwrap(), Ok(None));
        assert!(fixture.is_known("acme/ann", "project:1").await);
    });
}

#[test]
fn fewer_entries_are_kept_after_a_reload() {
    simulate(async {
        let fixture = Fixture::new();
        let asked: Vec<_> = (0..100).map(|number| format!("project:{number}")).collect();
        let asked: Vec<_> = asked.iter().map(String::as_str).collect();
        let allow = json!({"allow": ["project:*"]});
        let answered = fixture.subscribe_answered("acme/ann", &asked, &allow);
        assert_eq!(answered.await, None);
        assert_eq!(fixture.held(), 100 * CACHED_ANSWER_BYTES as u64);
        let fewer = AuthorizerSettings {
            entries: 10,
            ..settings()
        };
        fixture.authorizer.configure(fewer);
        assert_eq!(fixture.held(), 10 * CACHED_ANSWER_BYTES as u64);
        let evicted = "sidewire_authorization_answers_evicted_total";
        assert_eq!(fixture.metrics.value(evicted), 90);
    });
}

#[test]
fn a_question_is_counted_as_memory_until_it_is_answered() {
    simulate(async {
        let fixture = Fixture::new();
        let subscribing = fixture.subscribe("acme/ann", &["project:1"]);
        settle().await;
        assert!(fixture.held() > QUESTION_BYTES as u64);
        subscribing.abort();
        sleep(Duration::from_secs(3)).await;
        assert_eq!(fixture.held(), 0);
        fixture
            .account
            .set_limits(MemoryLimits { max: 0, window: 0 });
        let refused = fixture.subscribe("acme/ann", &["project:2"]).await;
        assert_eq!(refused.unwrap(), Err(NoAnswer::NoMemory));
    });
}

#[test]
fn nobody_waits_when_the_breaker_is_open() {
    simulate(async {
        let fixture = Fixture::new();
        for number in 0..5 {
            let topic = format!("project:{number}");
            let subscribing = fixture.subscribe("acme/ann", &[&topic]);
            fixture.next().await.fail(StatusCode::SERVICE_UNAVAILABLE);
            assert!(subscribing.await.unwrap().is_err());
        }
        let began = Instant::now();
        let refused = fixture.subscribe("acme/bob", &["project:1"]).await.unwrap();
        assert!(matches!(refused, Err(NoAnswer::Unanswered { .. })));
        assert_eq!(began.elapsed(), Duration::ZERO);
        assert_eq!(fixture.transport.count(), 5);
    });
}

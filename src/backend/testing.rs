//! A backend for tests, which answers when the test says so.

use std::{
    future::pending,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use hyper::StatusCode;
use serde_json::Value;
use tokio::{sync::oneshot, task::yield_now};

use super::{BackendTarget, BackendTransport, TransportError};
use crate::{config::BackendUrl, http::FetchError};

/// Carries questions to the test.
#[derive(Debug, Default)]
pub(crate) struct FakeTransport {
    posted: Mutex<Vec<PostedQuestion>>,
    /// The number of questions so far.
    count: AtomicUsize,
    under_way: Arc<AtomicUsize>,
}

/// A question that the test has to answer. If it is dropped, it is never answered.
#[derive(Debug)]
pub(crate) struct PostedQuestion {
    pub(crate) json: Value,
    reply: oneshot::Sender<Result<Bytes, TransportError>>,
}

struct UnderWay(Arc<AtomicUsize>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl BackendTransport for FakeTransport {
    fn post(
        &self,
        _: &Arc<BackendTarget>,
        question: Bytes,
    ) -> BoxFuture<'static, Result<Bytes, TransportError>> {
        let (reply, answer) = oneshot::channel();
        let json = serde_json::from_slice(&question).unwrap();
        let posted = PostedQuestion { json, reply };
        self.posted.lock().unwrap().push(posted);
        self.count.fetch_add(1, Ordering::Relaxed);
        self.under_way.fetch_add(1, Ordering::Relaxed);
        let under_way = UnderWay(Arc::clone(&self.under_way));
        Box::pin(async move {
            let _under_way = under_way;
            match answer.await {
                Ok(answer) => answer,
                Err(_) => pending().await,
            }
        })
    }
}

impl FakeTransport {
    /// Waits for the next question, which comes without time passing.
    pub(crate) async fn next(&self) -> PostedQuestion {
        for _ in 0..1000 {
            if let Some(posted) = self.next_now() {
                return posted;
            }
            yield_now().await;
        }
        panic!("no question comes");
    }

    /// Returns the next question, if there is one.
    pub(crate) fn next_now(&self) -> Option<PostedQuestion> {
        let mut posted = self.posted.lock().unwrap();
        (!posted.is_empty()).then(|| posted.remove(0))
    }

    /// Returns the number of questions so far.
    pub(crate) fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Returns the number of questions that the relay waits for.
    pub(crate) fn under_way(&self) -> usize {
        self.under_way.load(Ordering::Relaxed)
    }
}

impl PostedQuestion {
    /// Answers with status 200.
    pub(crate) fn answer(self, body: impl Into<Bytes>) {
        drop(self.reply.send(Ok(body.into())));
    }

    /// Answers with another status.
    pub(crate) fn fail(self, status: StatusCode) {
        self.fail_with(FetchError::Status(status));
    }

    pub(crate) fn fail_with(self, error: FetchError) {
        drop(self.reply.send(Err(TransportError(error))));
    }
}

/// Returns a target on this machine.
pub(crate) fn target(url: &str) -> Arc<BackendTarget> {
    let url = BackendUrl::parse(url).unwrap();
    Arc::new(BackendTarget::new(url, None).unwrap())
}

//! The client when the relay no longer accepts its token.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tokio::join;

use super::{
    tests::{connect, disconnected},
    *,
};
use crate::{
    Credential,
    testing::{Listener, Pipes, options, pipes},
};

const UNAUTHORIZED: &str = "HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n";

/// Creates a client with a token that the fake relay refuses, and a source that fails
/// `failures` times and then returns a good one. The counter is the number of calls.
fn client(failures: usize) -> (RelayClient<Pipes>, Listener, Arc<AtomicUsize>) {
    let (pipes, listener) = pipes();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let source = move || -> FetchingToken {
        let has_failed = count.fetch_add(1, Ordering::Relaxed) < failures;
        Box::pin(async move {
            if has_failed {
                return Err("the login server is down".into());
            }
            Ok(Credential::new("a-token"))
        })
    };
    let options = options().with_token("stale").with_fresh_token(source);
    (RelayClient::with_connector(options, pipes), listener, asked)
}

/// Answers the next attempt with 401, which does not stop the client.
async fn unauthorized(client: &mut RelayClient<Pipes>, listener: &mut Listener) {
    let ((reason, _), ()) = join!(disconnected(client), listener.refuse(UNAUTHORIZED));
    assert!(reason.contains("401"), "{reason}");
}

#[tokio::test(start_paused = true)]
async fn a_refused_token_is_replaced() {
    let (mut client, mut listener, asked) = client(0);
    unauthorized(&mut client, &mut listener).await;
    connect(&mut client, &mut listener).await;
    assert_eq!(asked.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn a_token_that_expires_is_replaced() {
    let (mut client, mut listener, asked) = client(0);
    unauthorized(&mut client, &mut listener).await;
    let mut peer = connect(&mut client, &mut listener).await;
    peer.close(4001, "token expired").await;
    disconnected(&mut client).await;
    connect(&mut client, &mut listener).await;
    assert_eq!(asked.load(Ordering::Relaxed), 2);
}

#[tokio::test(start_paused = true)]
async fn a_disconnect_for_another_reason_fetches_no_token() {
    let (mut client, mut listener, asked) = client(0);
    unauthorized(&mut client, &mut listener).await;
    for _ in 0..2 {
        drop(connect(&mut client, &mut listener).await);
        disconnected(&mut client).await;
    }
    assert_eq!(asked.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn a_failing_token_source_is_asked_again() {
    let (mut client, mut listener, asked) = client(2);
    unauthorized(&mut client, &mut listener).await;
    for _ in 0..2 {
        let (reason, _) = disconnected(&mut client).await;
        assert_eq!(reason, "cannot get a new token: the login server is down");
    }
    connect(&mut client, &mut listener).await;
    assert_eq!(asked.load(Ordering::Relaxed), 3);
}

#[tokio::test(start_paused = true)]
async fn three_refusals_in_a_row_stop_the_client() {
    let (mut client, mut listener, asked) = client(0);
    unauthorized(&mut client, &mut listener).await;
    // An accepted handshake resets the count.
    drop(connect(&mut client, &mut listener).await);
    disconnected(&mut client).await;
    for _ in 0..2 {
        unauthorized(&mut client, &mut listener).await;
    }
    let (stopped, ()) = join!(client.next_event(), listener.refuse(UNAUTHORIZED));
    assert!(
        matches!(stopped, Err(ClientError::Unauthorized(_))),
        "{stopped:?}"
    );
    assert_eq!(asked.load(Ordering::Relaxed), 3);
}

#[tokio::test(start_paused = true)]
async fn a_missing_token_is_fetched_first() {
    let (pipes, mut listener) = pipes();
    let source = || -> FetchingToken { Box::pin(async { Ok(Credential::new("a-token")) }) };
    let mut options = options().with_fresh_token(source);
    options.token = None;
    let mut client = RelayClient::with_connector(options, pipes);
    connect(&mut client, &mut listener).await;
}

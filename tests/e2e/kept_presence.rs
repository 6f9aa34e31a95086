//! The client library keeps the presence of its user over a connection that is lost.

use std::sync::Arc;

use serde_json::{Value, json};
use sidewire_client::{ConnectFuture, Connector, RelayAddress, RelayClient};
use tokio::{
    io::{DuplexStream, copy_bidirectional, duplex},
    net::TcpStream,
    sync::Notify,
};

use crate::{
    client::TestClient,
    support::{TestRelay, token},
    vocabulary::TestSchema,
};

/// The number of the generic schema's presence payload.
const PRESENCE: u32 = 34;

/// Connects through a pipe that the test can cut.
#[derive(Clone, Default)]
struct CutPipe(Arc<Notify>);

impl Connector for CutPipe {
    type Stream = DuplexStream;

    fn connect(&self, address: RelayAddress) -> ConnectFuture<DuplexStream> {
        let cut = Arc::clone(&self.0);
        Box::pin(async move {
            let mut relay = TcpStream::connect(address.to_string()).await?;
            let (ours, mut theirs) = duplex(64 * 1024);
            tokio::spawn(async move {
                tokio::select! {
                    _ = copy_bidirectional(&mut theirs, &mut relay) => {}
                    () = cut.notified() => {}
                }
            });
            Ok(ours)
        })
    }
}

/// Runs `ann` until `bob` receives a message of presence, and returns its JSON.
async fn seen_by(bob: &mut TestClient, ann: &mut RelayClient<CutPipe>, relay: &TestRelay) -> Value {
    let running = async { while ann.next_event().await.is_ok() {} };
    let event = tokio::select! {
        () = running => panic!("the client stopped"),
        event = bob.event() => event,
    };
    assert_eq!(event.position, None);
    relay.json(&event.envelope)["presence"].clone()
}

#[tokio::test]
async fn a_withdrawal_shows_and_a_lost_connection_does_not() {
    let relay = TestRelay::serving(TestSchema::Generic, |_| {});
    let mut bob = relay.connect_binary("acme", "bob").await;
    bob.subscribe(&["room:1"]).await;
    let pipe = CutPipe::default();
    let options = relay.options().with_token(token("acme", "ann"));
    let mut ann = RelayClient::with_connector(options, pipe.clone());
    ann.subscribe(["room:1"]);
    let here = relay.envelope(json!({"presence": {"type": "here", "topics": ["room:1"]}}));
    let gone = relay.envelope(json!({"presence": {"absent": true}}));
    let shown = json!({"type": "here", "topics": ["room:1"], "userId": "ann"});
    let absent = json!({"type": "here", "topics": ["room:1"], "userId": "ann", "absent": true});

    ann.set_presence(PRESENCE, here.clone());
    assert_eq!(seen_by(&mut bob, &mut ann, &relay).await, shown);
    ann.withdraw_presence(PRESENCE, gone);
    assert_eq!(seen_by(&mut bob, &mut ann, &relay).await, absent);
    ann.set_presence(PRESENCE, here);
    assert_eq!(seen_by(&mut bob, &mut ann, &relay).await, shown);
    pipe.0.notify_one();
    // Sent again over the next connection, before the lost one is shown as absent.
    assert_eq!(seen_by(&mut bob, &mut ann, &relay).await, shown);

    bob.nothing_more().await;
    ann.close().await;
    drop(bob);
    assert!(relay.stop().await);
}

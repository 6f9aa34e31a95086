//! A JSON client built on tungstenite and serde_json alone; its knowledge of the protocol
//! comes from the contract.

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{
        Error, Message,
        client::IntoClientRequest,
        handshake::client::{Request, Response},
    },
};

use crate::support::{PATIENCE, TestRelay, token};

/// A connection of such a client.
pub struct JsonClient {
    socket: WebSocketStream<TcpStream>,
    next_id: u32,
}

/// Returns the request that a browser sends for `new WebSocket(url, subprotocols)`.
pub fn browsers_request(relay: &TestRelay, subprotocols: &str) -> Request {
    let url = format!("ws://{}/ws", relay.addresses.client);
    let mut request = url.into_client_request().unwrap();
    let headers = request.headers_mut();
    headers.insert("sec-websocket-protocol", subprotocols.parse().unwrap());
    headers.insert("origin", "https://app.example.com".parse().unwrap());
    request
}

impl JsonClient {
    /// Opens a connection as a browser does: `["sidewire.v1.json", "bearer." + token]`.
    pub async fn open(relay: &TestRelay, tenant: &str, user: &str) -> Self {
        Self::open_with(relay, &token(tenant, user)).await
    }

    /// Opens a connection of the tenant `acme` that is subscribed to the topics, by the generic
    /// schema.
    pub async fn subscribed(relay: &TestRelay, user: &str, topics: &[&str]) -> Self {
        let mut client = Self::open(relay, "acme", user).await;
        client.subscribe(json!({"topics": topics})).await;
        client
    }

    /// Opens a connection with this token.
    pub async fn open_with(relay: &TestRelay, token: &str) -> Self {
        let offer = format!("sidewire.v1.json, bearer.{token}");
        let (client, response) = Self::ask(relay, browsers_request(relay, &offer))
            .await
            .unwrap();
        assert_eq!(
            response.headers()["sec-websocket-protocol"],
            "sidewire.v1.json"
        );
        client
    }

    /// Performs the handshake.
    pub async fn ask(relay: &TestRelay, request: Request) -> Result<(Self, Response), Error> {
        let stream = TcpStream::connect(relay.addresses.client).await.unwrap();
        let (socket, response) = client_async(request, stream).await?;
        let client = Self { socket, next_id: 1 };
        Ok((client, response))
    }

    /// Sends an envelope with a new message id, which it returns.
    pub async fn say(&mut self, mut envelope: Value) -> String {
        let id = format!("request-{}", self.next_id);
        self.next_id += 1;
        envelope["messageId"] = json!(id);
        self.send(Message::text(envelope.to_string())).await;
        id
    }

    /// Sends a message as it is.
    pub async fn send(&mut self, message: Message) {
        let sent = timeout(PATIENCE, self.socket.send(message)).await;
        sent.unwrap().unwrap();
    }

    /// Receives the next envelope. tungstenite answers the relay's pings.
    pub async fn envelope(&mut self) -> Value {
        match self.message().await {
            Message::Text(text) => {
                let envelope: Value = serde_json::from_str(&text).unwrap();
                assert!(envelope["messageId"].is_string(), "{envelope}");
                assert!(envelope["timestamp"].is_string(), "{envelope}");
                envelope
            }
            other => panic!("no text frame: {other:?}"),
        }
    }

    /// Receives the next event, and returns its contents.
    pub async fn event(&mut self) -> Value {
        let envelope = self.envelope().await;
        assert!(envelope["position"]["offset"].is_string(), "{envelope}");
        envelope
    }

    /// Subscribes and waits for the confirmation.
    pub async fn subscribe(&mut self, subscribe: Value) -> Value {
        let id = self.say(json!({"subscribe": subscribe})).await;
        let mut envelope = self.envelope().await;
        let confirmed = envelope["subscriptionConfirmed"].take();
        assert_eq!(confirmed["requestMessageId"], id, "{envelope}");
        confirmed
    }

    /// Receives the relay's error about a refused message.
    pub async fn refused(&mut self) -> Value {
        let mut envelope = self.envelope().await;
        let error = envelope["error"].take();
        assert!(error["errorCode"].is_string(), "{envelope}");
        error
    }

    /// Asserts that nothing is queued, and returns the Pong that proves it.
    pub async fn nothing_more(&mut self) -> Value {
        self.say(json!({"ping": {"timestamp": "5"}})).await;
        let mut envelope = self.envelope().await;
        let pong = envelope["pong"].take();
        assert_eq!(pong["clientTimestamp"], "5", "{envelope}");
        pong
    }

    /// Waits for the Close frame, and returns its code and reason. `before` gets the
    /// envelopes before it.
    pub async fn closed(&mut self, mut before: impl FnMut(Value)) -> (u16, String) {
        loop {
            match self.message().await {
                Message::Close(Some(close)) => {
                    return (close.code.into(), close.reason.to_string());
                }
                Message::Text(text) => before(serde_json::from_str(&text).unwrap()),
                other => panic!("{other:?}"),
            }
        }
    }

    /// Receives the next message, or returns why there is none.
    pub async fn next(&mut self) -> Result<Message, Error> {
        let next = self.socket.next().await;
        next.unwrap_or(Err(Error::ConnectionClosed))
    }

    async fn message(&mut self) -> Message {
        loop {
            let next = timeout(PATIENCE, self.next()).await;
            match next.expect("something arrives").unwrap() {
                Message::Ping(_) => {}
                message => return message,
            }
        }
    }
}

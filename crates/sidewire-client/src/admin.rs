//! The administrative calls of the relay's ingest listener, and the metrics of its ops listener, as
//! tools for operators use them.

use bytes::Bytes;
use hyper::Method;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{
    calls::{CallFailure, ListenerCaller, build_query, tenant_path, user_path},
    options::Credential,
};

/// Makes administrative calls to one relay.
#[derive(Debug)]
pub struct AdminClient(ListenerCaller);

/// What the relay knows about a tenant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TenantInfo {
    /// The tenant.
    pub tenant: String,
    /// Number of connections.
    pub connections: u64,
    /// Number of users with at least one connection.
    pub users: u64,
    /// Number of distinct subscribed topics.
    pub topics: u64,
    /// The bounds of the log.
    pub log: LogBounds,
}

/// The bounds of a tenant's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogBounds {
    /// The position of the newest event.
    pub head: LogPosition,
    /// The position after which the log has every event.
    pub tail: LogPosition,
}

/// A position in a tenant's log, as the relay writes it in JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogPosition {
    /// The epoch, 32 hexadecimal digits.
    pub epoch: String,
    /// The offset, a decimal number.
    pub offset: String,
}

/// A page of a tenant's connections.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionPage {
    /// The connections.
    pub connections: Vec<ConnectionInfo>,
    /// Where the next page begins; `None` if this is the last one.
    pub next: Option<String>,
}

/// A connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionInfo {
    /// The id, as in the relay's log.
    pub id: String,
    /// The user.
    pub user: String,
    /// `websocket`.
    pub transport: String,
    /// `protobuf` or `json`.
    pub encoding: String,
    /// When the client was admitted, in Unix seconds.
    pub since: i64,
    /// Number of subscriptions.
    pub topics: u64,
    /// What waits to be written.
    pub outbox: OutboxInfo,
    /// The address of the client.
    pub address: String,
}

/// What waits to be written to a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutboxInfo {
    /// Number of frames.
    pub frames: u64,
    /// Number of bytes.
    pub bytes: u64,
}

/// The connections that a page lists.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConnectionQuery {
    /// Only those of this user.
    pub user: Option<String>,
    /// Only those that get events of this topic.
    pub topic: Option<String>,
    /// Most connections of the page, up to 1,000.
    pub limit: usize,
    /// `next` of the page before.
    pub after: Option<String>,
}

/// A page of the users who are present on some topics.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PresencePage {
    /// The topics.
    pub topics: Vec<TopicPresence>,
    /// The presence messages by their ids, as JSON envelopes.
    pub messages: serde_json::Value,
    /// Where the next page begins; `None` if this is the last one.
    pub next: Option<String>,
}

/// The users who are present on a topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicPresence {
    /// The topic.
    pub topic: String,
    /// The users.
    pub users: Vec<PresentUser>,
}

/// A user who is present on a topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PresentUser {
    /// The user.
    pub user: String,
    /// Number of its connections that are present.
    pub connections: u64,
    /// Since when, in Unix seconds.
    pub since: i64,
    /// True if all of these connections have ended.
    pub lingering: bool,
    /// The ids of its messages.
    pub messages: Vec<String>,
}

impl AdminClient {
    /// Creates a client of the listener at `http://host:port` or `unix:PATH`.
    ///
    /// # Errors
    ///
    /// When the URL is not one of these, or the key is not a valid header value.
    pub fn new(url: &str, key: Option<&Credential>) -> Result<Self, CallFailure> {
        ListenerCaller::new(url, key).map(Self)
    }

    /// Returns what the relay knows about a tenant.
    ///
    /// # Errors
    ///
    /// When the call fails. The relay refuses it with 404 if the tenant has neither connections nor
    /// events.
    pub async fn tenant(&self, tenant: &str) -> Result<TenantInfo, CallFailure> {
        self.get(&tenant_path(tenant, "")).await
    }

    /// Returns a page of a tenant's connections.
    ///
    /// # Errors
    ///
    /// When the call fails.
    pub async fn connections(
        &self,
        tenant: &str,
        query: &ConnectionQuery,
    ) -> Result<ConnectionPage, CallFailure> {
        let limit = query.limit.to_string();
        let parameters = [
            ("user", query.user.as_deref()),
            ("topic", query.topic.as_deref()),
            ("limit", Some(&*limit)),
            ("after", query.after.as_deref()),
        ];
        let parameters = parameters.into_iter();
        let query = build_query(parameters.filter_map(|(name, value)| Some((name, value?))));
        self.get(&(tenant_path(tenant, "/connections") + &query))
            .await
    }

    /// Returns a page of the users who are present on the topics, which begins at `after`.
    ///
    /// # Errors
    ///
    /// When the call fails.
    pub async fn presence(
        &self,
        tenant: &str,
        topics: &[&str],
        after: Option<&str>,
    ) -> Result<PresencePage, CallFailure> {
        let topics = topics.iter().map(|topic| ("topic", *topic));
        let query = build_query(topics.chain(after.map(|after| ("after", after))));
        self.get(&(tenant_path(tenant, "/presence") + &query)).await
    }

    /// Closes all connections of a user, and returns their number. `reconnect`: true if the clients
    /// are to come back with new tokens.
    ///
    /// # Errors
    ///
    /// When the call fails.
    pub async fn disconnect(
        &self,
        tenant: &str,
        user: &str,
        reconnect: bool,
    ) -> Result<u64, CallFailure> {
        #[derive(Deserialize)]
        struct Closed {
            closed: u64,
        }
        let reconnect = reconnect.then_some(("reconnect", "true"));
        let answer: Closed = self
            .delete(tenant, user, "connections", &build_query(reconnect))
            .await?;
        Ok(answer.closed)
    }

    /// Ends the subscriptions of a user to these topics, and returns their number.
    ///
    /// # Errors
    ///
    /// When the call fails.
    pub async fn end_subscriptions(
        &self,
        tenant: &str,
        user: &str,
        topics: &[&str],
    ) -> Result<u64, CallFailure> {
        #[derive(Deserialize)]
        struct Revoked {
            revoked: u64,
        }
        let query = build_query(topics.iter().map(|topic| ("topic", *topic)));
        let answer: Revoked = self.delete(tenant, user, "subscriptions", &query).await?;
        Ok(answer.revoked)
    }

    /// Returns the metrics, if the listener is that for operators.
    ///
    /// # Errors
    ///
    /// When the call fails.
    pub async fn metrics(&self) -> Result<String, CallFailure> {
        let (_, body) = self.0.call(Method::GET, "/metrics", None).await?;
        String::from_utf8(body.into())
            .map_err(|_| CallFailure::Protocol("its metrics are not UTF-8".to_owned()))
    }

    async fn get<T: DeserializeOwned>(&self, target: &str) -> Result<T, CallFailure> {
        let (_, body) = self.0.call(Method::GET, target, None).await?;
        parse(&body)
    }

    async fn delete<T: DeserializeOwned>(
        &self,
        tenant: &str,
        user: &str,
        what: &str,
        query: &str,
    ) -> Result<T, CallFailure> {
        let target = user_path(tenant, user, what) + query;
        let (_, body) = self.0.call(Method::DELETE, &target, None).await?;
        parse(&body)
    }
}

fn parse<T: DeserializeOwned>(body: &Bytes) -> Result<T, CallFailure> {
    serde_json::from_slice(body)
        .map_err(|error| CallFailure::Protocol(format!("its answer is malformed: {error}")))
}

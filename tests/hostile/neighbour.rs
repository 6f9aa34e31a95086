//! The healthy client beside the hostile ones: it receives all of its events, in order and
//! in time, whatever they do.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use serde_json::{Value, json};
use sidewire_protocol::schema::Schema;
use sidewire_testing::{
    protobuf,
    relay::INGEST_KEY,
    socket::Socket,
    websocket::{BINARY, binary},
};
use tokio::time::{MissedTickBehavior, interval};

use crate::{
    campaign::{Pace, connect},
    forge::{Site, TENANT, token},
    handshakes::tokenless,
    http::Request,
};

/// Number of events published at a time.
const ROUND: u64 = 5;

/// The time between two rounds.
const PAUSE: Duration = Duration::from_millis(10);

const TOPIC: &str = "healthy:1";

pub(crate) struct Neighbour {
    schema: Schema,
    client: Socket,
    backend: Socket,
    published: u64,
    offset: u64,
}

impl Neighbour {
    /// Connects a subscribed client.
    pub(crate) async fn arrive(site: &Site, user: &str) -> Result<Self, String> {
        let mut client = connect(site.client).await?;
        let authorization = format!("Bearer {}", token(user));
        let handshake = tokenless().and("Authorization", authorization).bytes();
        let subscribe = protobuf::bytes(10, &protobuf::text(16, &topic(user)));
        client.send(&handshake).await;
        client.send(&binary(&subscribe)).await;
        let answer = client.answer(true).await?.map(|answer| answer.status);
        let confirmation = client.frame().await?.map(|frame| frame.opcode);
        if (answer, confirmation) != (Some(101), Some(BINARY)) {
            return Err(format!("{user} got {answer:?} and {confirmation:?}"));
        }
        Ok(Self {
            schema: Schema::bundled().unwrap(),
            client,
            backend: connect(site.ingest).await?,
            published: 0,
            offset: 0,
        })
    }

    /// Publishes and receives until it is asked to stop. Returns the number of events.
    pub(crate) async fn live(
        mut self,
        user: &str,
        pace: Pace,
        stop: Arc<AtomicBool>,
    ) -> Result<u64, String> {
        let mut ticks = interval(PAUSE);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !stop.load(Ordering::Relaxed) {
            ticks.tick().await;
            let (round, _) = pace.time(self.round(user)).await;
            round.map_err(|error| format!("{user}, after {} events: {error}", self.published))?;
        }
        Ok(self.published)
    }

    async fn round(&mut self, user: &str) -> Result<(), String> {
        let first = self.published;
        for number in first..first + ROUND {
            let body = json!({"workItemDeleted": {"userId": user}, "timestamp": number + 1});
            let target = format!("/v1/tenants/{TENANT}/events?topic={}", topic(user));
            let request = Request::new("POST", target)
                .and("Authorization", format!("Bearer {INGEST_KEY}"))
                .and("Content-Type", "application/json")
                .with_body(body.to_string());
            self.backend.send(&request.bytes()).await;
        }
        for number in first..first + ROUND {
            self.receive(number).await?;
            match self.backend.answer(true).await? {
                Some(answer) if answer.status == 200 => self.published += 1,
                other => return Err(format!("published: {other:?}")),
            }
        }
        Ok(())
    }

    async fn receive(&mut self, number: u64) -> Result<(), String> {
        let frame = self.client.frame().await?.ok_or("it was closed")?;
        let event: Value = self
            .schema
            .envelope_to_json(&frame.payload)
            .map_err(|error| error.to_string())?;
        let offset = event["position"]["offset"].as_str().map(str::parse::<u64>);
        let Some(Ok(offset)) = offset else {
            return Err(format!("{event}"));
        };
        let stamp = (number + 1).to_string();
        if event["timestamp"] != stamp.as_str() || offset <= self.offset {
            return Err(format!("{event}, not {stamp}, after {}", self.offset));
        }
        self.offset = offset;
        Ok(())
    }
}

fn topic(user: &str) -> String {
    format!("{TOPIC}-{user}")
}

//! A quiet tenant beside one whose Subscribes the relay asks a backend about, and beside the same
//! Subscribes without a backend.

use std::{
    convert::Infallible,
    net::TcpListener,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use http_body_util::{BodyExt as _, Full};
use hyper::{Request, Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use sidewire_client::{RelayConnection, RelayMessage};
use sidewire_testing::{
    relay::{Relay, options, token},
    setting,
};
use tokio::{
    runtime::Builder,
    time::{MissedTickBehavior, interval, sleep},
};

use super::{
    KEPT_OFF_MAX, LOUD, Measured, Quiet, SECONDS, SPREAD_MAX, let_others_go_first, median,
    one_shard_with, run_on, spread, waited_for_core,
};
use crate::site::assert_unharmed;

/// Number of clients that subscribe, and the interval between two Subscribes of one: 1,000 a
/// second together.
const SUBSCRIBERS: u64 = 50;
const PAUSE: Duration = Duration::from_millis(50);

/// Time that the backend takes to answer.
const ANSWER_AFTER: Duration = Duration::from_millis(20);

const PAIRS: usize = 7;

/// Maximum by which asking the backend may raise the p99 of the quiet tenant.
const EXTRA_MAX: Duration = Duration::from_micros(500);

#[tokio::test]
async fn questions_to_a_backend_do_not_delay_events() {
    let cores = thread::available_parallelism().unwrap().get();
    let backend = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/subscribe", backend.local_addr().unwrap());
    let is_over = Arc::new(AtomicBool::default());
    let answering = on_a_thread(cores - 1, answer_questions(backend, Arc::clone(&is_over)));
    let no_rates = "user_burst = 1000000\ntenant_burst = 1000000";
    run_on(0);
    let asking = Relay::serve(one_shard_with(
        no_rates,
        &format!("[auth.subscribe]\nurl = \"{url}\""),
    ));
    let plain = Relay::serve(one_shard_with(no_rates, ""));
    run_on(cores - 1);
    let seconds: Option<f64> = setting("SIDEWIRE_NOISY_SECONDS");
    let phase = Duration::from_secs_f64(seconds.unwrap_or(SECONDS));
    let mut sides = [Side::new(&asking).await, Side::new(&plain).await];
    for _ in 0..setting("SIDEWIRE_NOISY_ROUNDS").map_or(1, |_: usize| PAIRS) {
        for (side, relay) in sides.iter_mut().zip([&asking, &plain]) {
            side.measure(relay, phase, cores - 1).await;
        }
    }
    let p99 = sides.each_ref().map(|it| median(&it.phases, |it| it.p99));
    let p50 = sides.each_ref().map(|it| median(&it.phases, |it| it.p50));
    let spread = spread(&sides[1].phases);
    let kept_off = sides.each_ref().map(|it| it.kept_off / it.measured_for);
    let [asked, unasked] = sides.each_ref().map(|side| side.confirmed);
    println!(
        "a quiet tenant beside {asked} Subscribes that a backend allows after {ANSWER_AFTER:?}, and \
         beside {unasked} without one: p99 {:?} and {:?}, p50 {:?} and {:?}; phases without one \
         within {spread:.2} times; off its core for {:.0} % and {:.0} %",
        p99[0],
        p99[1],
        p50[0],
        p50[1],
        kept_off[0] * 100.0,
        kept_off[1] * 100.0,
    );
    assert!(asked > 0 && unasked > 0);
    let answered = asking.metric("sidewire_backend_questions_total{result=\"answered\"}");
    assert!(answered >= asked as f64, "{answered} of {asked}");
    let is_sound = spread <= SPREAD_MAX && kept_off.iter().all(|it| *it <= KEPT_OFF_MAX);
    if seconds.is_some() && cores > 1 && is_sound {
        let phases = sides.each_ref().map(|it| &it.phases);
        assert!(p99[0] <= p99[1] + EXTRA_MAX, "{phases:?}");
    } else {
        println!("the machine has too much else to do to judge by that");
    }
    drop(sides);
    is_over.store(true, Ordering::Relaxed);
    assert_unharmed(asking).await;
    assert_unharmed(plain).await;
    answering.join().unwrap();
}

/// A relay, and what was measured beside its Subscribes.
struct Side {
    quiet: Quiet,
    client_url: String,
    phases: Vec<Measured>,
    /// Number of Subscribes that were confirmed.
    confirmed: u64,
    /// Number of seconds that were measured, and those of them in which the relay and this thread
    /// were kept off their cores.
    measured_for: f64,
    kept_off: f64,
}

impl Side {
    async fn new(relay: &Relay) -> Self {
        Self {
            quiet: Quiet::connect(relay).await,
            client_url: relay.client_url(),
            phases: Vec::new(),
            confirmed: 0,
            measured_for: 0.0,
            kept_off: 0.0,
        }
    }

    async fn measure(&mut self, relay: &Relay, phase: Duration, core: usize) {
        let confirmed = Arc::new(AtomicU64::default());
        let is_over = Arc::new(AtomicBool::default());
        let subscribing = {
            let (url, confirmed) = (self.client_url.clone(), Arc::clone(&confirmed));
            let is_over = Arc::clone(&is_over);
            on_a_thread(core, async move {
                let clients = (0..SUBSCRIBERS)
                    .map(|number| subscribe_on_and_on(url.clone(), number, &confirmed, &is_over));
                futures_util::future::join_all(clients).await;
            })
        };
        while confirmed.load(Ordering::Relaxed) < SUBSCRIBERS {
            sleep(Duration::from_millis(5)).await;
        }
        let waited_before = waited_for_core(relay);
        self.phases.push(self.quiet.measure(phase).await);
        self.kept_off += waited_for_core(relay) - waited_before;
        self.measured_for += phase.as_secs_f64();
        is_over.store(true, Ordering::Relaxed);
        tokio::task::spawn_blocking(move || subscribing.join().unwrap())
            .await
            .unwrap();
        self.confirmed += confirmed.load(Ordering::Relaxed);
    }
}

/// Runs a future on a thread of its own, on this core, while no other wants the core.
fn on_a_thread(
    core: usize,
    future: impl Future<Output = ()> + Send + 'static,
) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        run_on(core);
        let_others_go_first();
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(future);
    })
}

/// Subscribes to one new topic after another. Each Subscribe must be confirmed.
async fn subscribe_on_and_on(
    url: String,
    number: u64,
    confirmed: &AtomicU64,
    is_over: &AtomicBool,
) {
    let options = options(&url, &token(LOUD, &format!("user-{number}")));
    let mut client = RelayConnection::open(&options).await.unwrap();
    let mut pace = interval(PAUSE);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut topics = 0..;
    while let Some(topic) = topics.next()
        && !is_over.load(Ordering::Relaxed)
    {
        pace.tick().await;
        client.subscribe([format!("board:{topic}")]).await.unwrap();
        match client.receive().await.unwrap() {
            RelayMessage::SubscriptionConfirmed(_) => confirmed.fetch_add(1, Ordering::Relaxed),
            other => panic!("{other:?}"),
        };
    }
}

/// Answers every question after a while, with everything that was asked.
async fn answer_questions(listener: TcpListener, is_over: Arc<AtomicBool>) {
    listener.set_nonblocking(true).unwrap();
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    let serving = async {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let service = service_fn(answer_question);
            let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            tokio::spawn(async { drop(connection.await) });
        }
    };
    tokio::select! {
        () = serving => {}
        () = async {
            while !is_over.load(Ordering::Relaxed) {
                sleep(Duration::from_millis(10)).await;
            }
        } => {}
    }
}

async fn answer_question(
    request: Request<Incoming>,
) -> Result<Response<Full<bytes::Bytes>>, Infallible> {
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let question: Value = serde_json::from_slice(&body).unwrap();
    sleep(ANSWER_AFTER).await;
    // Nothing is remembered, so that each Subscribe is asked about.
    let answer = json!({"allow": question["topics"], "ttl_s": 0});
    Ok(Response::new(Full::from(answer.to_string())))
}

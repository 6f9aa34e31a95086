//! Many tokens of one client: all at once, more than it may send, until the relay closes the
//! connection, and in the middle of a replay.

use std::collections::HashSet;

use sidewire_protocol::wire::{Authenticated, ErrorResponse};
use sidewire_testing::socket::Socket;

use super::{
    PACED_BURST, PACED_TENANT, REFUSALS_MAX, Renewal, Wanted, authenticate, replay,
    stage::{is_closed, join, next},
};
use crate::{
    campaign::Mutator,
    forge::{Forge, Site, TENANT, token_of},
};

/// Number of tokens that are sent at once.
const AT_ONCE: usize = 20;

/// What is sent, and how it is answered.
#[derive(Debug, Clone, Copy)]
pub(super) enum Pattern {
    /// Bad tokens at once: each is refused.
    BadAtOnce,
    /// Bad tokens, those of others and good ones at once: only good ones are accepted.
    MixedAtOnce,
    /// Bad tokens until the relay closes the connection with 4005.
    UntilClosed,
    /// More good tokens than the user may send messages.
    TooMany,
    /// A bad token and a good one in the middle of a replay, which stays complete.
    DuringReplay,
}

pub(super) fn repeated() -> Vec<Mutator<Renewal>> {
    let patterns = [
        ("bad tokens at once", Pattern::BadAtOnce),
        ("good and bad tokens at once", Pattern::MixedAtOnce),
        ("bad tokens without an end", Pattern::UntilClosed),
        ("more good tokens than the user may send", Pattern::TooMany),
        ("tokens during a replay", Pattern::DuringReplay),
    ];
    let mutators = patterns.map(|(name, pattern)| {
        Mutator::new(name, move |forge: &mut Forge| {
            let good = forge.site.token.clone();
            let bad = loop {
                let bad = forge.mutated(good.as_bytes());
                if bad != good.as_bytes() && str::from_utf8(&bad).is_ok() {
                    break bad;
                }
            };
            Renewal::of_token(forge, bad, Wanted::Repeated(pattern))
        })
    });
    mutators.into()
}

impl Pattern {
    pub(super) async fn run(self, site: &Site, case: &Renewal) -> Result<(), String> {
        match self {
            Self::BadAtOnce => {
                let answers = send_at_once(site, case, |_| case.token.clone()).await?;
                check_answers(&answers, |_| false)
            }
            Self::MixedAtOnce => {
                let other = token_of(TENANT, "wendy", &["secret:*"]).into_bytes();
                let good = site.token.clone().into_bytes();
                let tokens = [case.token.clone(), other, good];
                let answers = send_at_once(site, case, |number| tokens[number % 3].clone()).await?;
                check_answers(&answers, |number| number % 3 == 2)
            }
            Self::UntilClosed => be_closed(site, case).await,
            Self::TooMany => exceed_rate(site, case).await,
            Self::DuringReplay => replay::renew(site, case).await,
        }
    }
}

/// Returns true if the token came too early: while another is being verified, or over a rate.
pub(super) fn is_too_early(error: &ErrorResponse) -> bool {
    error.error_code == "RATE_LIMIT_EXCEEDED" && error.retry_after_ms.is_some()
}

/// An answer, with the number of its request.
type Numbered = (usize, Result<Authenticated, ErrorResponse>);

fn topic_of(case: &Renewal) -> String {
    format!("project:{}", case.message_id)
}

/// Sends tokens in one go, and returns the answers.
async fn send_at_once(
    site: &Site,
    case: &Renewal,
    token: impl Fn(usize) -> Vec<u8>,
) -> Result<Vec<Numbered>, String> {
    let mut socket = join(site, case.encoding, &site.token, &topic_of(case)).await?;
    let frame = |number: usize| {
        let envelope = authenticate(case.encoding, &number.to_string(), &token(number));
        case.encoding.frame(&envelope)
    };
    let frames: Vec<_> = (0..AT_ONCE).map(frame).collect();
    socket.send(&frames.concat()).await;
    let mut answers = Vec::new();
    for _ in 0..AT_ONCE {
        answers.push(answer(&mut socket, case).await?);
    }
    Ok(answers)
}

/// Reads the answer to one of the numbered requests.
async fn answer(socket: &mut Socket, case: &Renewal) -> Result<Numbered, String> {
    let envelope = next(socket, case.encoding, &case.token).await?;
    let (id, answer) = match (envelope.authenticated, envelope.error) {
        (Some(renewed), None) => (renewed.request_message_id.clone(), Ok(renewed)),
        (None, Some(error)) => (error.request_message_id.clone(), Err(error)),
        other => return Err(format!("answered with {other:?}")),
    };
    let number = id.parse().map_err(|_| format!("an answer to {id:?}"))?;
    Ok((number, answer))
}

/// Checks that each token is answered once: a good one with a success, another with its refusal,
/// or either as too early, but for the first, which is bad.
fn check_answers(answers: &[Numbered], is_good: impl Fn(usize) -> bool) -> Result<(), String> {
    let mut numbers = HashSet::new();
    for (number, answer) in answers {
        let as_wanted = match answer {
            Ok(_) => is_good(*number),
            Err(error) if *number == 0 => error.error_code == "AUTHENTICATION_FAILED",
            Err(error) if is_too_early(error) => true,
            Err(error) => {
                let codes = ["AUTHENTICATION_FAILED", "AUTHORIZATION_FAILED"];
                !is_good(*number) && codes.contains(&error.error_code.as_str())
            }
        };
        if !as_wanted || !numbers.insert(*number) {
            return Err(format!("{answer:?} to number {number}"));
        }
    }
    Ok(())
}

/// Sends bad tokens until the relay has enough of them.
async fn be_closed(site: &Site, case: &Renewal) -> Result<(), String> {
    let mut socket = join(site, case.encoding, &site.token, &topic_of(case)).await?;
    let envelope = authenticate(case.encoding, "7", &case.token);
    let enough = 2 * REFUSALS_MAX as usize;
    let frames = case.encoding.frame(&envelope).repeat(enough);
    socket.send(&frames).await;
    for _ in 0..REFUSALS_MAX {
        if let (_, Ok(renewed)) = answer(&mut socket, case).await? {
            return Err(format!("{renewed:?} to a bad token"));
        }
    }
    is_closed(&mut socket, 4005).await
}

/// Sends good tokens of a user who may send few messages, on two connections.
async fn exceed_rate(site: &Site, case: &Renewal) -> Result<(), String> {
    let token = token_of(PACED_TENANT, &case.message_id, &["project:*"]);
    let mut sockets = [
        join(site, case.encoding, &token, &topic_of(case)).await?,
        join(site, case.encoding, &token, &topic_of(case)).await?,
    ];
    for number in 0..PACED_BURST + 4 {
        let envelope = authenticate(case.encoding, &number.to_string(), token.as_bytes());
        let socket = &mut sockets[number % 2];
        socket.send(&case.encoding.frame(&envelope)).await;
        let (answered, answer) = answer(socket, case).await?;
        let as_wanted = match &answer {
            Ok(_) => number < PACED_BURST,
            Err(error) => number >= PACED_BURST && is_too_early(error),
        };
        if !as_wanted || answered != number {
            return Err(format!("{answer:?} to number {number}"));
        }
    }
    Ok(())
}

//! The renewal of a token, step by step.

use proptest::prelude::*;

use super::*;
use crate::testing::token_until;

/// The relay's time at the start of each test, in Unix seconds.
const TIME: i64 = 1_800_000_000;

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

struct Fixture {
    renewal: TokenRenewal,
    now: Instant,
    random: RandomSource,
}

impl Fixture {
    /// Creates the renewal of a token that expires after this many seconds, once the relay's time
    /// is known.
    fn new(remaining: i64) -> Self {
        let token = token_until(TIME + remaining);
        let mut fixture = Self {
            renewal: TokenRenewal::new(Some(&token), true),
            now: Instant::now(),
            random: RandomSource::from_seed(1),
        };
        let Self {
            renewal,
            now,
            random,
        } = &mut fixture;
        renewal.on_relay_time(TIME, *now, random);
        fixture
    }

    /// Waits until a new token is asked for, and returns how long that took.
    fn wait(&mut self) -> Duration {
        let wake_at = self.renewal.wake_at().unwrap();
        let waited = wake_at.saturating_duration_since(self.now);
        self.now = self.now.max(wake_at);
        let source = || -> FetchingToken { Box::pin(pending()) };
        self.renewal.begin_if_due(&source, self.now);
        assert!(matches!(self.renewal.step, RenewalStep::Fetch(_)));
        waited
    }

    fn fetched(&mut self, token: Credential) -> Option<Credential> {
        let failed = self.renewal.on_fetched(Ok(token), self.now, &self.random);
        assert!(failed.is_none(), "{failed:?}");
        match self.renewal.request()? {
            ControlMessage::Authenticate(it) => Some(Credential::new(it.token)),
            other => panic!("{other:?}"),
        }
    }

    /// Waits, and sends the new token.
    fn renew(&mut self, token: &Credential) {
        self.wait();
        assert_eq!(self.fetched(token.clone()).as_ref(), Some(token));
        self.renewal.on_sent("request".to_owned());
    }

    fn authenticated(&mut self, expires_at: i64, time: i64) -> Option<Credential> {
        let answer = wire::Authenticated {
            expires_at,
            request_message_id: "request".to_owned(),
            ..Default::default()
        };
        let (now, random) = (self.now, &self.random);
        self.renewal.on_authenticated(&answer, time, now, random)
    }

    fn refused(&mut self, code: &str, retry_after_ms: Option<u64>) -> Option<FailedRenewal> {
        let error = wire::ErrorResponse {
            error_code: code.to_owned(),
            request_message_id: "request".to_owned(),
            retry_after_ms,
            ..Default::default()
        };
        self.renewal.on_refused(&error, self.now, &self.random)
    }
}

proptest! {
    #[test]
    fn a_token_is_renewed_in_the_last_fifth_of_its_time_and_not_more_than_5_minutes_early(
        remaining in 1_u64..10_000_000,
        seed: u64,
    ) {
        let random = RandomSource::from_seed(seed);
        let expires_at = TIME + i64::try_from(remaining).unwrap();
        let remaining = seconds(remaining - 1);
        let lead = remaining - delay_until_due(expires_at, TIME, &random);
        let longest = (remaining / 5).min(seconds(300));
        prop_assert!(lead <= longest && lead >= longest / 2, "{lead:?}");
    }

    #[test]
    fn no_expiry_and_no_time_of_the_relay_overflows(expires_at: i64, time: i64, seed: u64) {
        let delay = delay_until_due(expires_at, time, &RandomSource::from_seed(seed));
        prop_assert!(delay <= seconds(REMAINING_MAX));
        let _ = Instant::now() + delay;
    }

    #[test]
    fn the_expiry_is_read_from_any_text_without_a_panic(text: String, claims: String) {
        expiry_of(&Credential::new(text));
        let claims = BASE64_URL_SAFE_NO_PAD.encode(claims);
        expiry_of(&Credential::new(format!("h.{claims}.s")));
    }

    /// Whatever the source returns and the relay answers, new tokens are asked for at most as
    /// often as the delays after failures and the interval between renewals allow.
    #[test]
    fn nothing_makes_a_loop(
        remaining in -100_i64..1_000,
        rounds in prop::collection::vec((0_u8..5, -100_i64..100), 1..60),
    ) {
        let mut fixture = Fixture::new(remaining);
        let begun = fixture.now;
        let count = u32::try_from(rounds.len()).unwrap();
        for (answer, remaining) in rounds {
            let relay_time = TIME + i64::try_from((fixture.now - begun).as_secs()).unwrap();
            fixture.wait();
            let token = token_until(TIME + 1_000_000 + remaining);
            match answer {
                0 => {
                    let error = Err("the login server is down".into());
                    let (now, random) = (fixture.now, &fixture.random);
                    prop_assert!(fixture.renewal.on_fetched(error, now, random).is_some());
                }
                1 => {
                    let old = fixture.renewal.token.clone().unwrap();
                    prop_assert_eq!(fixture.fetched(old), None);
                }
                answer => {
                    if fixture.fetched(token).is_none() {
                        continue;
                    }
                    fixture.renewal.on_sent("request".to_owned());
                    if answer == 2 {
                        prop_assert!(fixture.refused("AUTHENTICATION_FAILED", None).is_some());
                    } else {
                        let expires_at = relay_time + remaining;
                        prop_assert!(fixture.authenticated(expires_at, relay_time).is_some());
                    }
                }
            }
        }
        // The first attempt may come at once, and every other one after half of a second at least.
        prop_assert!(fixture.now - begun >= RETRY_FIRST / 2 * (count - 1));
    }
}

#[test]
fn the_expiry_is_read_from_the_token() {
    let expiry = |claims: &str| {
        let claims = BASE64_URL_SAFE_NO_PAD.encode(claims);
        expiry_of(&Credential::new(format!("header.{claims}.signature")))
    };
    assert_eq!(expiry(r#"{"exp":1700000000}"#), Some(1_700_000_000));
    assert_eq!(expiry(r#"{"exp":1700000000.9}"#), Some(1_700_000_000));
    assert_eq!(expiry(r#"{"exp":1.7e9}"#), Some(1_700_000_000));
    for other in [
        "{}",
        "[]",
        r#"{"exp":"1700000000"}"#,
        r#"{"exp":1e300}"#,
        "{",
    ] {
        assert_eq!(expiry(other), None, "{other}");
    }
    assert_eq!(expiry_of(&Credential::new("opaque")), None);
}

#[test]
fn a_token_without_an_end_or_a_source_is_not_renewed() {
    let (now, random) = (Instant::now(), RandomSource::from_seed(1));
    for (token, has_source) in [
        (Some(Credential::new("opaque")), true),
        (Some(token_until(TIME)), false),
        (None, true),
    ] {
        let mut renewal = TokenRenewal::new(token.as_ref(), has_source);
        renewal.on_relay_time(TIME, now, &random);
        assert_eq!(renewal.wake_at(), None, "{token:?}");
    }
}

#[test]
fn the_time_of_the_relay_counts_and_not_that_of_the_machine() {
    // By the clock of this machine, or by any other, this token expired long ago.
    let token = token_until(1_000);
    let (now, random) = (Instant::now(), RandomSource::from_seed(1));
    let mut renewal = TokenRenewal::new(Some(&token), true);
    assert_eq!(renewal.wake_at(), None);
    renewal.on_relay_time(100, now, &random);
    let delay = renewal.wake_at().unwrap() - now;
    assert!(delay >= seconds(719) && delay <= seconds(810), "{delay:?}");
    renewal.on_relay_time(990, now, &random);
    assert_eq!(renewal.wake_at().unwrap() - now, delay);
}

#[test]
fn the_next_renewal_follows_the_expiry_that_the_relay_answers() {
    let mut fixture = Fixture::new(1_000);
    let token = token_until(TIME + 9_999);
    fixture.renew(&token);
    assert_eq!(
        fixture.authenticated(TIME + 2_000, TIME + 1_000),
        Some(token)
    );
    let waited = fixture.wait();
    assert!(
        waited >= seconds(799) && waited <= seconds(900),
        "{waited:?}"
    );
}

#[test]
fn a_token_without_an_end_ends_the_renewals() {
    let mut fixture = Fixture::new(1_000);
    let token = Credential::new("opaque");
    fixture.renew(&token);
    assert_eq!(fixture.authenticated(0, TIME), Some(token));
    assert_eq!(fixture.renewal.wake_at(), None);
}

#[test]
fn a_token_that_does_not_expire_later_is_not_sent() {
    let mut fixture = Fixture::new(1_000);
    fixture.wait();
    for token in [token_until(TIME + 1_000), token_until(TIME + 500)] {
        assert_eq!(fixture.fetched(token), None);
        let waited = fixture.wait();
        assert!(waited <= seconds(2), "{waited:?}");
    }
    let newer = token_until(TIME + 1_001);
    assert_eq!(fixture.fetched(newer.clone()), Some(newer));
}

#[test]
fn a_source_without_a_newer_token_is_asked_again_and_is_no_failure() {
    let mut fixture = Fixture::new(1_000);
    for _ in 0..10 {
        fixture.wait();
        let fetched = Err(NoNewerToken.into());
        let (now, random) = (fixture.now, &fixture.random);
        let failed = fixture.renewal.on_fetched(fetched, now, random);
        assert!(failed.is_none(), "{failed:?}");
        assert!(fixture.renewal.request().is_none());
    }
    assert!(fixture.wait() >= seconds(30));
}

#[test]
fn failures_are_retried_after_growing_delays() {
    let mut fixture = Fixture::new(1_000);
    fixture.wait();
    for longest in [1, 2, 4, 8, 16, 32, 60, 60] {
        let fetched = Err("the login server is down".into());
        let (now, random) = (fixture.now, &fixture.random);
        let failed = fixture.renewal.on_fetched(fetched, now, random).unwrap();
        let text = failed.reason.to_string();
        assert_eq!(text, "cannot get a new token: the login server is down");
        let waited = fixture.wait();
        assert_eq!(Some(waited), failed.retry_in);
        assert!(waited >= seconds(longest) / 2 && waited <= seconds(longest));
    }
}

#[test]
fn a_token_that_is_wrong_is_replaced_after_a_delay() {
    for code in ["AUTHENTICATION_FAILED", "AUTHORIZATION_FAILED"] {
        let mut fixture = Fixture::new(1_000);
        fixture.renew(&token_until(TIME + 2_000));
        assert!(fixture.refused(code, None).unwrap().retry_in.is_some());
        assert!(fixture.wait() <= seconds(1));
        assert_eq!(fixture.renewal.into_unused(), None);
    }
}

#[test]
fn a_token_that_is_refused_for_another_reason_is_sent_again() {
    for code in ["RATE_LIMIT_EXCEEDED", "INTERNAL_ERROR"] {
        let mut fixture = Fixture::new(1_000);
        let token = token_until(TIME + 2_000);
        fixture.renew(&token);
        let failed = fixture.refused(code, Some(7_000)).unwrap();
        assert!(failed.retry_in.unwrap() >= seconds(7), "{failed:?}");
        fixture.now = fixture.renewal.wake_at().unwrap();
        let source = || -> FetchingToken { panic!("it is asked for another token") };
        fixture.renewal.begin_if_due(&source, fixture.now);
        assert!(fixture.renewal.request().is_some());
        fixture.renewal.on_sent("request".to_owned());
        assert_eq!(fixture.authenticated(TIME + 2_000, TIME), Some(token));
        assert_eq!(fixture.renewal.into_unused(), None);
    }
}

#[test]
fn a_relay_that_does_not_know_authenticate_is_asked_once() {
    let mut fixture = Fixture::new(1_000);
    let token = token_until(TIME + 2_000);
    fixture.renew(&token);
    let failed = fixture.refused("VALIDATION_ERROR", None).unwrap();
    assert_eq!(failed.retry_in, None);
    assert_eq!(fixture.renewal.wake_at(), None);
    assert_eq!(fixture.renewal.into_unused(), Some(token));
}

#[test]
fn answers_to_other_requests_change_nothing() {
    let mut fixture = Fixture::new(1_000);
    fixture.wait();
    let token = token_until(TIME + 2_000);
    fixture.fetched(token.clone()).unwrap();
    fixture.renewal.on_sent("another".to_owned());
    assert_eq!(fixture.authenticated(TIME + 2_000, TIME), None);
    assert!(fixture.refused("AUTHENTICATION_FAILED", None).is_none());
    assert_eq!(fixture.renewal.into_unused(), Some(token));
}

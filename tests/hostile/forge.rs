//! The inputs of mutators: random values derived from the run's seed, and valid tokens,
//! keys and envelopes.

use std::{net::SocketAddr, sync::Arc};

use rand::{RngExt, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use serde_json::{Value, json};
use sidewire_testing::{
    protobuf,
    relay::{INGEST_KEY, Relay, SECRET},
    token,
};

pub(crate) const ISSUER: &str = "https://id.example";
pub(crate) const AUDIENCE: &str = "sidewire";

/// The only web origin that may connect.
pub(crate) const ORIGIN: &str = "https://app.example";

/// The tenant of all clients, including the healthy ones.
pub(crate) const TENANT: &str = "acme";

/// The tenant that hostile backends publish to, and the only one of [`LIMITED_KEY`].
pub(crate) const INGEST_TENANT: &str = "hostile";
pub(crate) const LIMITED_KEY: &str = "limited-ingest-key-0123456789";

/// Expiry of the tokens, which is after any run.
const EXPIRY: u64 = 4_000_000_000;

/// Addresses and valid credentials of the relays.
#[derive(Debug, Clone)]
pub(crate) struct Site {
    pub(crate) client: SocketAddr,
    pub(crate) ingest: SocketAddr,
    /// The address for clients of the relay with the generic schema.
    pub(crate) generic: SocketAddr,
    pub(crate) token: String,
}

impl Site {
    /// Returns the site of these relays, of which the second has the generic schema.
    pub(crate) fn of(relay: &Relay, generic: &Relay) -> Arc<Self> {
        Arc::new(Self {
            client: relay.client,
            ingest: relay.ingest,
            generic: generic.client,
            token: token("mallory"),
        })
    }
}

pub(crate) fn good_claims(user: &str) -> Value {
    json!({
        "iss": ISSUER, "aud": AUDIENCE, "exp": EXPIRY,
        "tenant_id": TENANT, "user_id": user,
        "topics": ["project:*", "sprint:*", "work_item:*", "odd_kind:*", "healthy:*"],
    })
}

/// Returns a valid token.
pub(crate) fn token(user: &str) -> String {
    signed(r#"{"alg":"HS256"}"#, good_claims(user).to_string())
}

/// Returns a valid token of a tenant's user, for these topics.
pub(crate) fn token_of(tenant: &str, user: &str, topics: &[&str]) -> String {
    let mut claims = good_claims(user);
    claims["tenant_id"] = json!(tenant);
    claims["topics"] = json!(topics);
    signed(r#"{"alg":"HS256"}"#, claims.to_string())
}

/// Returns a token with this header and these claims, signed with the relay's key.
pub(crate) fn signed(header: impl AsRef<[u8]>, claims: impl AsRef<[u8]>) -> String {
    token::signed(SECRET.as_bytes(), header, claims)
}

/// The source of one case: the same seed makes the same case.
pub(crate) struct Forge {
    pub(crate) rng: StdRng,
    pub(crate) site: Arc<Site>,
    /// Unique among all cases of the run.
    pub(crate) message_id: String,
}

impl Forge {
    pub(crate) fn new(site: &Arc<Site>, seed: u64, family: &str, index: u64) -> Self {
        let mut state = seed;
        for byte in family.bytes().chain(index.to_le_bytes()) {
            state = (state ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        Self {
            rng: StdRng::seed_from_u64(state),
            site: Arc::clone(site),
            message_id: format!("{family}-{index}"),
        }
    }

    pub(crate) fn pick<T: Clone>(&mut self, choices: &[T]) -> T {
        choices.choose(&mut self.rng).unwrap().clone()
    }

    /// Returns a number from 0 to `end`, exclusive.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        self.rng.random_range(0..end)
    }

    pub(crate) fn between(&mut self, first: usize, last: usize) -> usize {
        self.rng.random_range(first..=last)
    }

    pub(crate) fn flag(&mut self) -> bool {
        self.rng.random()
    }

    pub(crate) fn number(&mut self) -> u64 {
        self.rng.random()
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.rng.random()).collect()
    }

    /// Returns lower-case letters.
    pub(crate) fn word(&mut self, len: usize) -> String {
        (0..len)
            .map(|_| char::from(self.rng.random_range(b'a'..=b'z')))
            .collect()
    }

    /// Returns one of a small set of ids, so that a connection has few topics.
    pub(crate) fn id(&mut self) -> String {
        format!("id-{}", self.below(50))
    }

    /// Returns positions at which to cut `len` bytes into pieces.
    pub(crate) fn cuts(&mut self, len: usize, pieces: usize) -> Vec<usize> {
        let mut cuts: Vec<_> = (1..pieces).map(|_| self.below(len + 1)).collect();
        cuts.sort_unstable();
        cuts
    }

    /// Returns the bytes with one to four faults.
    pub(crate) fn mutated(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut mutated = bytes.to_vec();
        for _ in 0..self.between(1, 4) {
            self.mutate(&mut mutated);
        }
        mutated
    }

    fn mutate(&mut self, bytes: &mut Vec<u8>) {
        let place = self.below(bytes.len() + 1);
        match (self.below(7), bytes.get_mut(place)) {
            (0, Some(byte)) => *byte = self.rng.random(),
            (1, Some(byte)) => *byte ^= 1 << self.rng.random_range(0..8),
            (2, _) => bytes.insert(place, self.rng.random()),
            (3, Some(_)) => drop(bytes.remove(place)),
            (4, _) => bytes.truncate(place),
            (5, _) => {
                let len = self.below(bytes.len() - place + 1);
                let copy = bytes[place..place + len].to_vec();
                bytes.splice(place..place, copy);
            }
            (_, _) => {
                let more = self.below(9);
                bytes.extend(self.bytes(more));
            }
        }
    }

    /// Returns an unusual text that is valid UTF-8.
    pub(crate) fn odd_text(&mut self) -> String {
        const ODD: [&str; 10] = [
            "", "*", ":", "\0", "\u{7f}", "\u{85}", "\u{202e}", "👾", "%00", "\u{feff}",
        ];
        let parts = self.between(1, 4);
        (0..parts)
            .map(|_| match self.flag() {
                true => self.pick(&ODD).to_owned(),
                false => self.word(3),
            })
            .collect()
    }

    /// Returns a valid event for a backend to publish, with a random id and topic.
    pub(crate) fn event(&mut self) -> Vec<u8> {
        let item = [
            protobuf::text(1, &self.id()),
            protobuf::text(3, &self.id()),
            protobuf::text(7, &self.word(8)),
        ];
        let created = [protobuf::bytes(1, &item.concat()), protobuf::text(2, "ann")];
        [
            protobuf::text(1, &self.message_id),
            protobuf::bytes(2, &created.concat()),
        ]
        .concat()
    }

    /// Returns the header line of a key that may publish.
    pub(crate) fn ingest_key(&mut self) -> &'static str {
        self.pick(&[INGEST_KEY, LIMITED_KEY])
    }
}

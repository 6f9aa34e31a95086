//! The id of a call, by which its sender finds what the relay has logged about it.

use std::{cell::Cell, fmt};

use hyper::{
    HeaderMap,
    header::{HeaderName, HeaderValue},
};

/// The header in which a backend may send the id of a call, and in which each answer has it.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Longest id that is taken from a backend, in bytes.
const BYTES_MAX: usize = 128;

/// The id of a call: printable ASCII without spaces, at most 128 bytes.
#[derive(Debug, Clone)]
pub struct RequestId(HeaderValue);

impl RequestId {
    /// Returns the value of the answer's header.
    #[must_use]
    pub fn into_header(self) -> HeaderValue {
        self.0
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.to_str().unwrap_or_default())
    }
}

/// The ids of the calls to one shard. Stays on the shard's thread, so that an id takes no lock.
#[derive(Debug)]
pub struct RequestIds {
    /// The number of the next id: the second of the start, the shard in 8 bits, and a counter.
    next: Cell<u64>,
}

impl RequestIds {
    /// Creates the ids of a shard of a relay whose start was at this time, in Unix seconds.
    #[must_use]
    pub fn new(started: i64, shard: usize) -> Self {
        let (second, shard) = (started.cast_unsigned() << 32, shard as u64 & 0xff);
        Self {
            next: Cell::new(second | shard << 24),
        }
    }

    /// Returns the id that the backend has given the call, or another one if it has given none that
    /// can be used.
    #[must_use]
    pub fn of_call(&self, headers: &HeaderMap) -> RequestId {
        let given = headers.get(X_REQUEST_ID).filter(|id| is_valid(id));
        RequestId(given.cloned().unwrap_or_else(|| self.take_next()))
    }

    fn take_next(&self) -> HeaderValue {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let number = self.next.get();
        self.next.set(number.wrapping_add(1));
        let mut id = [b'0'; 16];
        for (place, digit) in id.iter_mut().rev().enumerate() {
            let nibble = number >> (4 * place) & 0xf;
            *digit = DIGITS.get(nibble as usize).copied().unwrap_or(b'0');
        }
        // Cannot fail: these are digits.
        HeaderValue::from_bytes(&id).unwrap_or_else(|_| HeaderValue::from_static("0"))
    }
}

fn is_valid(id: &HeaderValue) -> bool {
    let id = id.as_bytes();
    (1..=BYTES_MAX).contains(&id.len()) && id.iter().all(u8::is_ascii_graphic)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids() -> RequestIds {
        RequestIds::new(1, 7)
    }

    fn id_of(given: &[u8]) -> String {
        let mut headers = HeaderMap::new();
        headers.insert(X_REQUEST_ID, HeaderValue::from_bytes(given).unwrap());
        ids().of_call(&headers).to_string()
    }

    #[test]
    fn the_id_of_the_backend_is_kept_if_it_is_printable_and_not_long() {
        let longest = "x".repeat(128);
        for given in [
            "a",
            "0af7651916cd43dd8448eb211c80319c",
            "{\"a\":1}",
            &longest,
        ] {
            assert_eq!(id_of(given.as_bytes()), given);
        }
    }

    #[test]
    fn a_call_without_a_usable_id_gets_one_that_no_other_call_has() {
        let ids = ids();
        let [first, second] = [(); 2].map(|()| ids.of_call(&HeaderMap::new()).to_string());
        let (upper, lower) = first.split_at(8);
        assert_eq!((upper, lower), ("00000001", "07000000"));
        assert_eq!(second, "0000000107000001");
        let too_long = "x".repeat(129);
        for given in [&b""[..], b"a b", b"\xc3\xa4", too_long.as_bytes()] {
            assert_eq!(id_of(given), first);
        }
        let other = RequestIds::new(1, 8);
        assert_ne!(other.of_call(&HeaderMap::new()).to_string(), first);
    }
}

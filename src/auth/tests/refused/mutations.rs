//! Valid tokens, randomly mutated.

use std::collections::{HashMap, HashSet};

use rand::{RngExt, SeedableRng, rngs::StdRng, seq::IndexedRandom};

use super::*;

#[test]
fn no_mutation_of_a_valid_token_is_accepted() {
    let verifier = verifier();
    let originals = Algorithm::ALL.map(good_token);
    let known: HashSet<&str> = originals.iter().map(String::as_str).collect();
    let mut rng = StdRng::seed_from_u64(0x51de_3172);
    let mut reasons: HashMap<&str, usize> = HashMap::new();
    let mut tried = 0;
    while tried < mutations() {
        let mut token = originals.choose(&mut rng).unwrap().clone().into_bytes();
        for _ in 0..rng.random_range(1..=3) {
            mutate(&mut token, &originals, &mut rng);
        }
        let token = String::from_utf8_lossy(&token).into_owned();
        if known.contains(token.as_str()) {
            continue;
        }
        tried += 1;
        let verdict = reason(verifier.verify(&token, now()));
        assert_ne!(verdict, "accepted", "{token}");
        *reasons.entry(verdict).or_default() += 1;
    }
    // The mutations get as far as the signature, not only to the first dot.
    assert!(reasons["bad_signature"] > 2_000, "{reasons:?}");
    assert!(reasons["malformed"] > 2_000, "{reasons:?}");
}

/// Number of mutations tried; set to a million before a release.
fn mutations() -> usize {
    let wanted = std::env::var("SIDEWIRE_TOKEN_MUTATIONS");
    wanted.map_or(20_000, |text| text.parse().unwrap())
}

fn mutate(token: &mut Vec<u8>, originals: &[String], rng: &mut StdRng) {
    const ALPHABET: &[u8] = b"ABCXYZabcxyz019-_.=+/ \xff";
    let place = rng.random_range(0..token.len().max(1)).min(token.len());
    let byte = *ALPHABET.choose(rng).unwrap();
    match rng.random_range(0..8) {
        0 if place < token.len() => token[place] = byte,
        1 if place < token.len() => token[place] ^= 1 << rng.random_range(0..7),
        2 => token.insert(place, byte),
        3 if place < token.len() => drop(token.remove(place)),
        4 => token.truncate(place),
        5 if place + 1 < token.len() => token.swap(place, place + 1),
        6 => splice(
            token,
            originals.choose(rng).unwrap(),
            rng.random_range(0..3),
        ),
        _ => {
            if let Some(last) = token.last_mut() {
                *last = byte;
            }
        }
    }
}

/// Replaces one part of the token with the same part of another token.
fn splice(token: &mut Vec<u8>, other: &str, part: usize) {
    let mut parts: Vec<Vec<u8>> = token
        .split(|byte| *byte == b'.')
        .map(<[u8]>::to_vec)
        .collect();
    if let Some(slot) = parts.get_mut(part) {
        *slot = split(other)[part].as_bytes().to_vec();
    }
    *token = parts.join(&b'.');
}

//! The connections of `sidewire tail`, one per token, and how much each received.

use std::{path::Path, sync::Arc};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use futures_util::future::select_all;
use serde_json::Value;
use sidewire_client::{
    ClientError, ClientEvent, ClientOptions, Credential, RelayClient, TokenSource,
};
use sidewire_protocol::{Topic, random::RandomSource};

use super::{TailArgs, token_file::TokenFile};
use crate::cli::{CommandFailure, TOKEN_VARIABLE, client_tls, credential_of};

/// The claim that names the user of a token.
const USER_CLAIM: &str = "user_id";

/// A client that follows the topics.
pub(super) struct Follower {
    /// The user of the client, if there are several clients.
    pub(super) user: Option<String>,
    client: RelayClient,
    /// Number of received events.
    pub(super) events: u64,
    /// Total size of their envelopes in bytes.
    pub(super) bytes: u64,
    /// Number of gaps in the events.
    pub(super) gaps: u64,
}

/// All clients.
pub(super) struct Followers {
    followers: Vec<Follower>,
    /// The index of the client that is polled first, rotated for fairness.
    first: usize,
}

impl Followers {
    /// Creates one client for each token file, or a single one if no file is named.
    pub(super) fn from_args(args: &TailArgs, url: &str) -> Result<Self, CommandFailure> {
        let random = Arc::new(RandomSource::from_system().map_err(CommandFailure::new)?);
        let follower = |file: Option<&Path>, is_named: bool| {
            let token = credential_of(file, TOKEN_VARIABLE)?;
            let user = file.filter(|_| is_named).map(|file| {
                let user = token.as_ref().and_then(user_of);
                user.unwrap_or_else(|| file.display().to_string())
            });
            Ok::<_, CommandFailure>(Follower {
                user,
                client: build_client(args, url, Arc::clone(&random), token, file)?,
                events: 0,
                bytes: 0,
                gaps: 0,
            })
        };
        let is_named = args.token_files.len() > 1;
        let files = args.token_files.iter();
        let followers = match args.token_files.as_slice() {
            [] => vec![follower(None, false)?],
            _ => files
                .map(|file| follower(Some(file), is_named))
                .collect::<Result<_, _>>()?,
        };
        Ok(Self {
            followers,
            first: 0,
        })
    }

    /// Waits for the next event of any client, and returns it with the client's index.
    /// Cancel-safe.
    pub(super) async fn next_event(&mut self) -> (usize, Result<ClientEvent, ClientError>) {
        let count = self.followers.len();
        let (last, first) = self.followers.split_at_mut(self.first);
        let in_turn = first.iter_mut().chain(last);
        let waiting = in_turn.map(|follower| Box::pin(follower.client.next_event()));
        let (event, turn, _) = select_all(waiting).await;
        let index = (self.first + turn) % count;
        self.first = (index + 1) % count;
        (index, event)
    }

    pub(super) fn get_mut(&mut self, index: usize) -> Option<&mut Follower> {
        self.followers.get_mut(index)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Follower> {
        self.followers.iter()
    }

    pub(super) async fn close(self) {
        for follower in self.followers {
            follower.client.close().await;
        }
    }
}

fn build_client(
    args: &TailArgs,
    url: &str,
    random: Arc<RandomSource>,
    token: Option<Credential>,
    token_file: Option<&Path>,
) -> Result<RelayClient, CommandFailure> {
    let mut options = ClientOptions::new(url, random);
    let source = token.as_ref().zip(token_file);
    let source = source.and_then(|(token, path)| TokenFile::open(path, token));
    options.fresh_token = source.map(|source| Arc::new(source) as Arc<dyn TokenSource>);
    options.token = token;
    options.user_id.clone_from(&args.user);
    options.tls = client_tls(url, args.ca_file.as_deref())?;
    let mut client = RelayClient::new(options);
    if let Some(since) = args.since {
        client.start_from(since.into());
    }
    client.subscribe(args.topics.iter().map(Topic::as_str));
    Ok(client)
}

/// Returns the user that a token names, for display only: the relay verifies the token.
fn user_of(token: &Credential) -> Option<String> {
    let claims = token.reveal().split('.').nth(1)?;
    let claims = BASE64_URL_SAFE_NO_PAD.decode(claims).ok()?;
    let claims: Value = serde_json::from_slice(&claims).ok()?;
    match claims.get(USER_CLAIM)? {
        Value::String(user) => Some(user.clone()),
        Value::Number(user) => Some(user.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(claims: &str) -> Credential {
        let claims = BASE64_URL_SAFE_NO_PAD.encode(claims);
        Credential::new(format!("header.{claims}.signature"))
    }

    #[test]
    fn the_user_is_read_from_the_token() {
        assert_eq!(user_of(&token(r#"{"user_id":"ann"}"#)).unwrap(), "ann");
        assert_eq!(user_of(&token(r#"{"user_id":7}"#)).unwrap(), "7");
        for other in [r#"{"user_id":[]}"#, r#"{"sub":"ann"}"#, "[]", "{"] {
            assert_eq!(user_of(&token(other)), None, "{other}");
        }
        assert_eq!(user_of(&Credential::new("opaque")), None);
    }
}

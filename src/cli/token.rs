//! `sidewire token`: signs a token for a client.

use std::{io, time::Duration};

use clap::ArgGroup;
use sidewire_protocol::{TenantName, Topic, UserName, clock::Clock};

use super::{
    CommandFailure, sample_bundled,
    signing::{KEYS, SigningArgs},
    write_result,
};
use crate::auth::{NewToken, check_user_name};

/// The claims of the token and the key that it is signed with.
#[derive(Debug, clap::Args)]
#[command(
    after_help = help(),
    group = ArgGroup::new("signing key").args(KEYS).required(true)
)]
pub struct TokenArgs {
    /// The tenant that the client belongs to.
    #[arg(long, value_parser = TenantName::parse)]
    pub tenant: TenantName,
    /// The user that the client is, within its tenant.
    #[arg(long, value_parser = user)]
    pub user: UserName,
    /// A topic that the client may subscribe to, or `kind:*` for all of a kind; repeatable.
    /// Without any, the client may subscribe to everything in its tenant.
    #[arg(long = "topic", value_name = "KIND:ID", value_parser = Topic::parse, verbatim_doc_comment)]
    pub topics: Vec<Topic>,
    /// A topic that the client is subscribed to when it connects, or `kind:*`; repeatable.
    /// The token must allow it to subscribe to that topic.
    #[arg(long, value_name = "KIND:ID", value_parser = Topic::parse, verbatim_doc_comment)]
    pub subscribe: Vec<Topic>,
    /// Lifetime of the token, from now.
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = duration)]
    pub expires: Duration,
    /// The signing of the token.
    #[command(flatten)]
    pub signing: SigningArgs,
}

/// Signs and prints the token.
pub(super) fn run(args: &TokenArgs) -> Result<(), CommandFailure> {
    let token = mint_token(args, &Clock::system())?;
    write_result(&mut io::stdout(), &token).map(drop)
}

fn mint_token(args: &TokenArgs, clock: &Clock) -> Result<String, CommandFailure> {
    let token = new_token(args, clock);
    let key = args.signing.signing_key()?;
    let key = key.ok_or_else(|| {
        CommandFailure::new("neither --secret-file nor --private-key-file is given")
    })?;
    key.mint(&token, &args.signing.token_rules())
        .map_err(CommandFailure::new)
}

fn new_token(args: &TokenArgs, clock: &Clock) -> NewToken {
    NewToken {
        tenant: args.tenant.clone(),
        user: args.user.clone(),
        expires_at: Some(clock.since_unix_epoch().saturating_add(args.expires)),
        topics: (!args.topics.is_empty()).then(|| args.topics.clone()),
        subscribe: (!args.subscribe.is_empty()).then(|| args.subscribe.clone()),
    }
}

fn user(text: &str) -> Result<UserName, String> {
    let user = UserName::parse(text).map_err(|error| error.to_string())?;
    check_user_name(&user)?;
    Ok(user)
}

fn duration(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if duration.as_secs() == 0 {
        return Err("must be at least 1 s".to_owned());
    }
    Ok(duration)
}

fn help() -> String {
    let topic = sample_bundled().sample_topic;
    format!(
        "Examples:
  sidewire token --tenant acme --user alice --secret-file jwt.secret
  sidewire token --tenant acme --user alice --topic {topic} --expires 15m --secret-file jwt.secret
  sidewire token --tenant acme --user alice --subscribe {topic} --secret-file jwt.secret
  sidewire token --tenant acme --user alice --algorithm ES256 --private-key-file key.pem

The token goes to standard output."
    )
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::auth::Algorithm;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        args: TokenArgs,
    }

    fn parse(flags: &str) -> Result<TokenArgs, clap::Error> {
        let words = "token --tenant t --user u".split(' ');
        Command::try_parse_from(words.chain(flags.split(' '))).map(|command| command.args)
    }

    #[test]
    fn a_token_is_valid_for_an_hour_by_default() {
        for (flags, seconds) in [
            ("--secret-file s", 3600),
            ("--secret-file s --expires 15m", 900),
        ] {
            assert_eq!(parse(flags).unwrap().expires.as_secs(), seconds, "{flags}");
        }
        assert!(parse("--secret-file s --expires 0s").is_err());
        assert!(parse("--secret-file s --expires soon").is_err());
    }

    #[test]
    fn exactly_one_key_signs_and_a_private_key_needs_an_algorithm() {
        for flags in [
            "--kid k",
            "--secret-file s --private-key-file p --algorithm ES256",
            "--private-key-file p",
            "--secret-file s --algorithm none",
        ] {
            assert!(parse(flags).is_err(), "{flags}");
        }
        let args = parse("--private-key-file p --algorithm EdDSA").unwrap();
        assert_eq!(args.signing.algorithm, Some(Algorithm::EdDSA));
    }

    #[test]
    fn no_token_is_minted_for_a_user_that_every_relay_refuses() {
        let words = "token --tenant t --user * --secret-file s".split(' ');
        let error = Command::try_parse_from(words).err().unwrap().to_string();
        assert!(error.contains("cannot be a user name"), "{error}");
    }

    #[test]
    fn a_topic_may_be_a_whole_kind_but_must_be_valid() {
        let args = parse("--secret-file s --topic kind:* --topic kind:1").unwrap();
        assert_eq!(args.topics.len(), 2);
        assert!(parse("--secret-file s --topic kind").is_err());
    }

    #[test]
    fn a_token_may_subscribe_to_topics_that_it_grants() {
        let mint = |flags: &str| {
            let key = crate::auth::Secret::new([b'a'; 32]);
            let key = crate::auth::SigningKey::from_secret(Algorithm::HS256, None, &key).unwrap();
            let token = new_token(&parse(flags).unwrap(), &Clock::simulated(Duration::ZERO));
            key.mint(&token, &crate::auth::TokenRules::default())
        };
        assert!(mint("--secret-file s --subscribe kind:1 --subscribe kind:*").is_ok());
        assert!(mint("--secret-file s --topic kind:* --subscribe kind:1").is_ok());
        let error = mint("--secret-file s --topic kind:1 --subscribe kind:*").unwrap_err();
        assert_eq!(
            error.to_string(),
            "the token cannot subscribe to kind:*, which is not granted by the token"
        );
    }
}

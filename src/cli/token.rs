//! The flags of `sidewire token`, which signs a token for a client.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{
    ArgGroup,
    builder::{PossibleValuesParser, TypedValueParser},
};

use super::{Failure, sample, write_result};
use crate::{
    auth::{Algorithm, NewToken, Secret, SigningKey, TokenRules, read_file},
    clock::Clock,
    protocol::{TenantName, Topic, UserName},
};

/// What the token says and what it is signed with.
#[derive(Debug, clap::Args)]
#[command(
    after_help = help(),
    group = ArgGroup::new("signing key").args(["secret_file", "private_key_file"]).required(true)
)]
pub struct Args {
    /// The tenant that the client belongs to.
    #[arg(long, value_parser = TenantName::parse)]
    pub tenant: TenantName,
    /// Who the client is, inside its tenant.
    #[arg(long, value_parser = UserName::parse)]
    pub user: UserName,
    /// A topic that the client may subscribe to, or `kind:*` for all of a kind; repeatable.
    /// Without any: everything in its tenant.
    #[arg(long = "topic", value_name = "KIND:ID", value_parser = Topic::parse, verbatim_doc_comment)]
    pub topics: Vec<Topic>,
    /// How long it is valid from now on.
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = duration)]
    pub expires: Duration,
    /// The secret that the relay has too, for HS256, HS384 and HS512.
    #[arg(long, value_name = "FILE")]
    pub secret_file: Option<PathBuf>,
    /// The private key (PEM), for the other algorithms.
    #[arg(long, value_name = "FILE", requires = "algorithm")]
    pub private_key_file: Option<PathBuf>,
    /// How to sign [default: HS256].
    #[arg(long, value_parser = algorithms())]
    pub algorithm: Option<Algorithm>,
    /// The key's name, put into the token's header.
    #[arg(long)]
    pub kid: Option<String>,
    /// Who issues it (claim `iss`).
    #[arg(long)]
    pub issuer: Option<String>,
    /// For whom it is (claim `aud`).
    #[arg(long)]
    pub audience: Option<String>,
}

/// Signs, and prints the token.
pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let token = mint(args, &Clock::system())?;
    write_result(&mut io::stdout(), &token).map(drop)
}

/// The claims have the names that the relay looks for by default.
fn mint(args: &Args, clock: &Clock) -> Result<String, Failure> {
    let token = NewToken {
        tenant: args.tenant.clone(),
        user: args.user.clone(),
        expires_at: Some(clock.since_unix_epoch().saturating_add(args.expires)),
        topics: (!args.topics.is_empty()).then(|| args.topics.clone()),
    };
    let rules = TokenRules {
        issuer: args.issuer.clone(),
        audience: args.audience.clone(),
        ..TokenRules::default()
    };
    signing_key(args)?
        .mint(&token, &rules)
        .map_err(Failure::new)
}

fn signing_key(args: &Args) -> Result<SigningKey, Failure> {
    let algorithm = args.algorithm.unwrap_or(Algorithm::HS256);
    let kid = args.kid.clone();
    let in_file = |path: &Path, error| Failure::new(format!("{}: {error}", path.display()));
    match (&args.secret_file, &args.private_key_file) {
        (Some(path), _) => {
            let secret = Secret::read(path).map_err(Failure::new)?;
            SigningKey::from_secret(algorithm, kid, &secret).map_err(|error| in_file(path, error))
        }
        (None, Some(path)) => {
            let pem = read_file(path).map_err(Failure::new)?;
            SigningKey::from_private_key_pem(algorithm, kid, &pem)
                .map_err(|error| in_file(path, error))
        }
        (None, None) => Err(Failure::new(
            "neither --secret-file nor --private-key-file is given",
        )),
    }
}

fn algorithms() -> impl TypedValueParser<Value = Algorithm> {
    PossibleValuesParser::new(Algorithm::ALL.map(Algorithm::as_str))
        .try_map(|name| name.parse::<Algorithm>())
}

fn duration(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if duration.as_secs() == 0 {
        return Err("is shorter than a second".to_owned());
    }
    Ok(duration)
}

fn help() -> String {
    let topic = sample().sample_topic;
    format!(
        "Examples:
  sidewire token --tenant acme --user alice --secret-file jwt.secret
  sidewire token --tenant acme --user alice --topic {topic} --expires 15m --secret-file jwt.secret
  sidewire token --tenant acme --user alice --algorithm ES256 --private-key-file key.pem

The token goes to standard output."
    )
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        args: Args,
    }

    fn parse(flags: &str) -> Result<Args, clap::Error> {
        let words = "token --tenant t --user u".split(' ');
        Command::try_parse_from(words.chain(flags.split(' '))).map(|command| command.args)
    }

    #[test]
    fn a_token_lives_for_an_hour_unless_told_otherwise() {
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
        assert_eq!(args.algorithm, Some(Algorithm::EdDSA));
    }

    #[test]
    fn a_topic_may_be_a_whole_kind_but_must_be_a_topic() {
        let args = parse("--secret-file s --topic kind:* --topic kind:1").unwrap();
        assert_eq!(args.topics.len(), 2);
        assert!(parse("--secret-file s --topic kind").is_err());
    }
}

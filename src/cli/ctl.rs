//! `sidewire ctl`: makes the administrative calls of the ingest listener, and prints the answers
//! for people, or as JSON.

use std::io::{self, Write};

use clap::Subcommand;
use serde::Serialize;
use serde_json::json;
use sidewire_client::{AdminClient, CallFailure, ConnectionInfo, ConnectionQuery, LogPosition};
use sidewire_protocol::{TenantName, Topic, UserName, clock::Clock};

use super::{
    CommandFailure,
    connection_columns::{HEADINGS, NUMBERS, PAGE, age, cells},
    ingest_access::{AdminArgs, call_failure},
    plain_text::plain_text,
    text_table::text_table,
    write_result,
};

/// The flags of `sidewire ctl`.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub struct CtlArgs {
    /// What to do.
    #[command(subcommand)]
    pub action: CtlAction,
    /// Where the relay is.
    #[command(flatten)]
    pub access: AdminArgs,
    /// Print JSON: one value in one line, or a line for each connection.
    #[arg(long, global = true)]
    pub json: bool,
}

/// The actions.
#[derive(Debug, Subcommand)]
pub enum CtlAction {
    /// Show a tenant: its connections, users, topics and log.
    Tenant {
        /// The tenant.
        #[arg(value_parser = TenantName::parse)]
        tenant: TenantName,
    },
    /// List the connections of a tenant.
    Connections {
        /// The tenant.
        #[arg(value_parser = TenantName::parse)]
        tenant: TenantName,
        /// Only the connections of this user.
        #[arg(long, value_parser = UserName::parse)]
        user: Option<UserName>,
        /// Only the connections that get events of this topic.
        #[arg(long, value_name = "KIND:ID", value_parser = Topic::parse)]
        topic: Option<Topic>,
        /// Most connections to list.
        #[arg(
            long,
            value_name = "COUNT",
            default_value_t = 1_000,
            value_parser = clap::value_parser!(u32).range(1..)
        )]
        limit: u32,
    },
    /// List the users who are present on topics.
    Presence {
        /// The tenant.
        #[arg(value_parser = TenantName::parse)]
        tenant: TenantName,
        /// The topics, at most 100.
        #[arg(value_name = "KIND:ID", value_parser = Topic::parse, required = true)]
        topics: Vec<Topic>,
    },
    /// Close all connections of a user.
    Disconnect {
        /// The tenant.
        #[arg(value_parser = TenantName::parse)]
        tenant: TenantName,
        /// The user.
        #[arg(value_parser = UserName::parse)]
        user: UserName,
        /// Have the clients come back at once, with new tokens.
        #[arg(long)]
        reconnect: bool,
    },
    /// End subscriptions of a user, who may subscribe again.
    Revoke {
        /// The tenant.
        #[arg(value_parser = TenantName::parse)]
        tenant: TenantName,
        /// The user.
        #[arg(value_parser = UserName::parse)]
        user: UserName,
        /// The topics; kind:* ends the subscriptions to all topics of the kind.
        #[arg(value_name = "KIND:ID", value_parser = Topic::parse, required = true)]
        topics: Vec<Topic>,
    },
}

const HELP: &str = "Examples:
  sidewire ctl tenant acme --key-file ingest.key
  sidewire ctl connections acme --user ann --config sidewire.toml --key-file ingest.key
  sidewire ctl connections acme --topic order:7 --json
  sidewire ctl presence acme room:1 room:2
  sidewire ctl disconnect acme ann
  sidewire ctl disconnect acme ann --reconnect --url unix:/run/sidewire/ingest.sock
  sidewire ctl revoke acme ann order:7

Exit status: 0 if the call succeeded; 2 if the arguments are wrong; 3 if the key is not accepted; 1
if anything else failed.";

/// Carries out the action, and prints the answer.
pub(super) async fn main(args: CtlArgs) -> Result<(), CommandFailure> {
    let mut out = io::stdout();
    run(&args, &Clock::system(), &mut out).await
}

/// Carries out the action, and writes the answer to `out`. The clock says how long connections
/// have been open.
///
/// # Errors
///
/// When the config or the key cannot be read, the relay cannot be reached or refuses, or `out`
/// cannot be written to.
pub async fn run(
    args: &CtlArgs,
    clock: &Clock,
    out: &mut impl Write,
) -> Result<(), CommandFailure> {
    let config = args.access.load_config()?;
    let client = args.access.client(&config)?;
    let text = match &args.action {
        CtlAction::Tenant { tenant } => show_tenant(&client, tenant, args.json).await,
        CtlAction::Connections {
            tenant,
            user,
            topic,
            limit,
        } => {
            let query = ConnectionQuery {
                user: user.as_ref().map(UserName::to_string),
                topic: topic.as_ref().map(Topic::to_string),
                limit: usize::try_from(*limit).unwrap_or(usize::MAX),
                after: None,
            };
            let (connections, is_all) = list_connections(&client, tenant, query).await?;
            if !is_all {
                tracing::info!(
                    limit,
                    "there may be more connections; raise --limit to see them"
                );
            }
            if args.json {
                let lines = connections.iter().map(json_line);
                Ok(lines.collect::<Result<Vec<_>, _>>()?.join("\n"))
            } else {
                Ok(connection_table(&connections, clock.unix_seconds()))
            }
        }
        CtlAction::Presence { tenant, topics } => {
            list_presence(&client, tenant, topics, clock, args.json).await
        }
        CtlAction::Disconnect {
            tenant,
            user,
            reconnect,
        } => {
            let closed = client
                .disconnect(tenant.as_str(), user.as_str(), *reconnect)
                .await
                .map_err(change_failure)?;
            match args.json {
                true => json_line(&json!({"closed": closed})),
                false => Ok(format!(
                    "closed {} of {}",
                    count(closed, "connection"),
                    plain_text(user.as_str())
                )),
            }
        }
        CtlAction::Revoke {
            tenant,
            user,
            topics,
        } => {
            let topics: Vec<_> = topics.iter().map(Topic::as_str).collect();
            let revoked = client
                .end_subscriptions(tenant.as_str(), user.as_str(), &topics)
                .await
                .map_err(change_failure)?;
            match args.json {
                true => json_line(&json!({"revoked": revoked})),
                false => Ok(format!(
                    "ended {} of {}",
                    count(revoked, "subscription"),
                    plain_text(user.as_str())
                )),
            }
        }
    }?;
    if !text.is_empty() {
        write_result(out, &text)?;
    }
    Ok(())
}

async fn show_tenant(
    client: &AdminClient,
    tenant: &TenantName,
    json: bool,
) -> Result<String, CommandFailure> {
    let info = client.tenant(tenant.as_str()).await.map_err(call_failure)?;
    if json {
        return json_line(&info);
    }
    let position = |at: &LogPosition| {
        let text = format!("{}:{}", at.epoch, at.offset);
        plain_text(&text).into_owned()
    };
    Ok(format!(
        "connections  {}\nusers        {}\ntopics       {}\nlog head     {}\nlog tail     {}",
        info.connections,
        info.users,
        info.topics,
        position(&info.log.head),
        position(&info.log.tail),
    ))
}

/// Reads the connections page by page, up to the limit of the query. Returns them, and true if
/// these are all.
async fn list_connections(
    client: &AdminClient,
    tenant: &TenantName,
    mut query: ConnectionQuery,
) -> Result<(Vec<ConnectionInfo>, bool), CommandFailure> {
    let limit = query.limit;
    let mut connections = Vec::new();
    loop {
        query.limit = limit.saturating_sub(connections.len()).min(PAGE);
        if query.limit == 0 {
            return Ok((connections, false));
        }
        let page = client
            .connections(tenant.as_str(), &query)
            .await
            .map_err(call_failure)?;
        connections.extend(page.connections);
        query.after = page.next;
        if query.after.is_none() {
            return Ok((connections, true));
        }
    }
}

/// Returns a table of connections. `now` is the time in Unix seconds.
fn connection_table(connections: &[ConnectionInfo], now: i64) -> String {
    let rows = connections.iter().map(|it| cells(it, now).to_vec());
    text_table(&HEADINGS, &NUMBERS, &rows.collect::<Vec<_>>())
}

async fn list_presence(
    client: &AdminClient,
    tenant: &TenantName,
    topics: &[Topic],
    clock: &Clock,
    json: bool,
) -> Result<String, CommandFailure> {
    let topics: Vec<_> = topics.iter().map(Topic::as_str).collect();
    let (mut rows, mut lines, mut after) = (Vec::new(), Vec::new(), None);
    loop {
        let page = client
            .presence(tenant.as_str(), &topics, after.as_deref())
            .await
            .map_err(call_failure)?;
        for topic in &page.topics {
            rows.extend(topic.users.iter().map(|user| {
                vec![
                    plain_text(&topic.topic).into_owned(),
                    plain_text(&user.user).into_owned(),
                    user.connections.to_string(),
                    age(user.since, clock.unix_seconds()),
                    if user.lingering { "lingering" } else { "" }.to_owned(),
                ]
            }));
        }
        lines.push(json_line(&page)?);
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    if json {
        return Ok(lines.join("\n"));
    }
    let headings = ["TOPIC", "USER", "CONNECTIONS", "PRESENT FOR", ""];
    Ok(text_table(&headings, &[2], &rows))
}

/// Returns the failure of a call that changes something.
fn change_failure(error: CallFailure) -> CommandFailure {
    if error.may_have_taken_effect() {
        let message = format!("{error}; the call may have taken effect");
        return CommandFailure::new(message);
    }
    call_failure(error)
}

fn count(number: u64, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{plural}")
}

fn json_line(value: &impl Serialize) -> Result<String, CommandFailure> {
    serde_json::to_string(value).map_err(CommandFailure::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_connection_is_not_plural() {
        assert_eq!(count(1, "connection"), "1 connection");
        assert_eq!(count(0, "connection"), "0 connections");
    }
}

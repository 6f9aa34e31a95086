//! What a reload does: the file is read again, what can change is changed in one
//! step, and what cannot is named. A file with an error changes nothing.

use std::{path::Path, sync::Arc, time::Duration};

use tokio::{task::spawn_blocking, time::timeout};

use super::{
    Server,
    parts::{log_schema, log_warnings, publish_timeouts},
};
use crate::{
    auth::Authenticator,
    config::{Config, ConfigError},
    ops::SchemaReload,
    relay::{Live, Relay},
    schema::Schema,
    setup,
};

/// How long reading all files may take: one of them may be a pipe, or lie on a machine
/// that does not answer.
const READ_TIMEOUT: Duration = Duration::from_secs(10);

/// A file that is good, as far as the relay can follow it.
struct Read {
    live: Live,
    /// The keys of which it goes on with the old value.
    fixed: Vec<&'static str>,
}

/// Why nothing changes.
enum Refusal {
    /// The config, or a file that it names, has an error.
    Config(ConfigError),
    /// The schema has one, or cannot take the place of the one that serves.
    Schema(ConfigError),
}

impl From<ConfigError> for Refusal {
    fn from(error: ConfigError) -> Self {
        Self::Config(error)
    }
}

impl Server {
    /// Reads the config file again, and the files that it names. Gives what holds from
    /// now on, or `None` where the file has an error, which is logged.
    pub async fn reload(&mut self, path: &Path) -> Option<Arc<Live>> {
        let running = self.relay.live.load_full();
        let path = path.to_owned();
        // The files may lie where to read them takes a while, or never ends.
        let read = timeout(READ_TIMEOUT, spawn_blocking(move || read(&path, &running)));
        match read.await {
            Ok(Ok(Ok(read))) => {
                for key in &read.fixed {
                    tracing::warn!(
                        key,
                        "the config file changes what needs a restart; the old value stays"
                    );
                }
                let live = self.apply(read.live).await;
                let now = self.relay.clock.unix_seconds();
                self.relay.metrics.reloaded(Some(now));
                tracing::info!("the config is reloaded");
                Some(live)
            }
            Ok(Ok(Err(refusal))) => {
                let error = match refusal {
                    Refusal::Config(error) => error,
                    Refusal::Schema(error) => {
                        self.relay.metrics.schema_reloaded(SchemaReload::Refused);
                        error
                    }
                };
                self.relay.metrics.reloaded(None);
                tracing::error!("the config is not reloaded, and nothing has changed: {error}");
                None
            }
            Err(_) => {
                self.relay.metrics.reloaded(None);
                tracing::error!(
                    "the config is not reloaded, and nothing has changed: its files cannot be read within {READ_TIMEOUT:?}"
                );
                None
            }
            // A fault of the relay's, which is counted and logged as such.
            Ok(Err(_)) => {
                self.relay.metrics.reloaded(None);
                None
            }
        }
    }

    /// Puts the new in the place of the old, and tells those who go by a copy.
    async fn apply(&mut self, live: Live) -> Arc<Live> {
        let live = Arc::new(live);
        let old = self.relay.live.swap(Arc::clone(&live));
        self.schema_applied(&old.schema, &live.schema);
        configure(&self.relay, &live);
        self.key_sets.follow(&self.relay, &self.shards);
        self.shards.reloaded().await;
        live
    }

    /// Counts and logs which schema serves now.
    fn schema_applied(&self, old: &Arc<Schema>, new: &Arc<Schema>) {
        let metrics = &self.relay.metrics;
        if Arc::ptr_eq(old, new) {
            metrics.schema_reloaded(SchemaReload::Unchanged);
            log_schema(new, "the schema is unchanged");
        } else {
            metrics.schema_serves(new.revision());
            metrics.schema_reloaded(SchemaReload::Applied);
            log_schema(new, "the schema is reloaded");
            log_warnings(new);
        }
    }
}

/// Tells the parts that hold what they need of the config themselves. What is read
/// through [`Relay::live`] at the moment of its use needs no word here.
fn configure(relay: &Relay, live: &Live) {
    let (limits, ingest) = (&live.config.limits, &live.config.ingest);
    relay.publisher.configure(
        publish_timeouts(ingest),
        limits.tenants,
        live.config.memory_limits(),
    );
    relay.limits.configure(&live.config);
    relay.metrics.authentication_required(
        matches!(live.authenticator, Authenticator::Tokens(_)),
        !live.ingest_keys.is_empty(),
    );
}

/// Reads the file by itself, then puts the running values of what needs a restart into it
/// and checks what results.
fn read(path: &Path, running: &Live) -> Result<Read, Refusal> {
    let in_file = |error: setup::SetupError| error.in_file(path);
    let load_schema = |config: &Config| {
        let schema = setup::schema(config).map_err(in_file);
        schema.map(Arc::new).map_err(Refusal::Schema)
    };
    let config = Config::load(path)?;
    let schema = load_schema(&config)?;
    let mut live = setup::live(config, schema).map_err(in_file)?;
    let section = live.config.schema.clone();
    let fixed = live.config.keep_fixed(&running.config);
    if !fixed.is_empty() {
        // What stays as it is has to go together with what is new, and names files.
        live.config.check().map_err(|error| error.merged(path))?;
        let schema = if live.config.schema == section {
            live.schema
        } else {
            load_schema(&live.config)?
        };
        live = setup::live(live.config, schema).map_err(in_file)?;
    }
    live.schema = setup::successor(&running.schema, live.schema, &live.config)
        .map_err(|error| Refusal::Schema(error.in_file(path)))?;
    live.authenticator.adopt_key_sets(&running.authenticator);
    Ok(Read { live, fixed })
}

//! Reloads the configuration: reads the file again, applies the keys that can change in one
//! step, and logs those that cannot. A file with an error changes nothing.

use std::{path::Path, sync::Arc, time::Duration};

use sidewire_protocol::schema::Schema;
use tokio::{task::spawn_blocking, time::timeout};

use super::{
    RelayServer,
    startup::{log_schema, log_warnings},
};
use crate::{
    config::{Config, ConfigError},
    relay::LiveSettings,
    setup,
    telemetry::SchemaReloadResult,
};

/// Time limit for reading all files: one of them may be a pipe, or lie on a network file system
/// that does not respond.
const READ_TIMEOUT: Duration = Duration::from_secs(10);

/// A valid configuration, without the changes that need a restart.
struct ReloadedConfig {
    live: LiveSettings,
    /// The changed keys that need a restart and keep their old value.
    fixed: Vec<&'static str>,
}

/// The error for which a reload is refused.
enum ReloadRefusal {
    /// The config, or a file that it names, has an error.
    Config(ConfigError),
    /// The schema has an error, or is not compatible with the one in force.
    Schema(ConfigError),
}

impl From<ConfigError> for ReloadRefusal {
    fn from(error: ConfigError) -> Self {
        Self::Config(error)
    }
}

impl RelayServer {
    /// Reads the config file and the files that it names again. Returns the new settings, or
    /// `None` if there is an error, which is logged.
    pub async fn reload(&mut self, path: &Path) -> Option<Arc<LiveSettings>> {
        let running = self.relay.live_shared();
        let path = path.to_owned();
        // Reading can take long or block for ever, depending on where the files lie.
        let read = timeout(
            READ_TIMEOUT,
            spawn_blocking(move || read_config(&path, &running)),
        );
        match read.await {
            Ok(Ok(Ok(read))) => {
                for key in &read.fixed {
                    tracing::warn!(
                        key,
                        "this config key cannot change without a restart; the old value stays"
                    );
                }
                let live = self.apply_settings(read.live).await;
                let now = self.relay.clock.unix_seconds();
                self.relay.metrics.config_reloaded(Some(now));
                setup::log_certificate_problem(&live, now);
                tracing::info!("config reloaded");
                Some(live)
            }
            Ok(Ok(Err(refusal))) => {
                let error = match refusal {
                    ReloadRefusal::Config(error) => error,
                    ReloadRefusal::Schema(error) => {
                        self.relay
                            .metrics
                            .schema_reloaded(SchemaReloadResult::Refused);
                        error
                    }
                };
                self.relay.metrics.config_reloaded(None);
                tracing::error!("the config is not reloaded, and nothing has changed: {error}");
                None
            }
            Err(_) => {
                self.relay.metrics.config_reloaded(None);
                tracing::error!(
                    "the config is not reloaded, and nothing has changed: its files could not be read within {READ_TIMEOUT:?}"
                );
                None
            }
            // The task panicked, which is counted and logged elsewhere.
            Ok(Err(_)) => {
                self.relay.metrics.config_reloaded(None);
                None
            }
        }
    }

    /// Replaces the settings everywhere.
    async fn apply_settings(&mut self, live: LiveSettings) -> Arc<LiveSettings> {
        let old = self.relay.replace_settings(live);
        let live = self.relay.live_shared();
        self.schema_applied(&old.schema, &live.schema);
        self.key_sets.restart_tasks(&self.relay, &self.shards);
        self.shards.notify_reloaded().await;
        live
    }

    /// Counts and logs the schema that is in force now.
    fn schema_applied(&self, old: &Arc<Schema>, new: &Arc<Schema>) {
        let metrics = &self.relay.metrics;
        if Arc::ptr_eq(old, new) {
            metrics.schema_reloaded(SchemaReloadResult::Unchanged);
            log_schema(new, "schema unchanged");
        } else {
            metrics.set_schema_revision(new.revision());
            metrics.schema_reloaded(SchemaReloadResult::Applied);
            log_schema(new, "schema reloaded");
            log_warnings(new);
        }
    }
}

/// Reads and checks the file by itself, then replaces the values that need a restart by the
/// running ones and checks the result.
fn read_config(path: &Path, running: &LiveSettings) -> Result<ReloadedConfig, ReloadRefusal> {
    let in_file = |error: setup::SetupError| error.in_file(path);
    let load_schema = |config: &Config| {
        let schema = setup::load_schema(config).map_err(in_file);
        schema.map(Arc::new).map_err(ReloadRefusal::Schema)
    };
    let config = Config::load(path)?;
    let schema = load_schema(&config)?;
    let mut live = setup::load_live(config, schema).map_err(in_file)?;
    let section = live.config.schema.clone();
    let fixed = live.config.keep_fixed(&running.config);
    if !fixed.is_empty() {
        // The values that stay must be consistent with the new ones, and may name other files.
        live.config
            .check()
            .map_err(|error| error.in_merged_config(path))?;
        let schema = if live.config.schema == section {
            live.schema
        } else {
            load_schema(&live.config)?
        };
        live = setup::load_live(live.config, schema).map_err(in_file)?;
    }
    live.schema = setup::compatible_schema(&running.schema, live.schema, &live.config)
        .map_err(|error| ReloadRefusal::Schema(error.in_file(path)))?;
    live.authenticator.adopt_key_sets(&running.authenticator);
    Ok(ReloadedConfig { live, fixed })
}

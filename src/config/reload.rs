//! The keys that a running relay cannot change: one table lists the keys that need a
//! restart; all other keys take effect at a reload.

use super::Config;

/// A key that keeps its value until the relay is restarted.
struct FixedKey {
    key: &'static str,
    /// Replaces the new value with the running one; returns true if they differ.
    keep: fn(&mut Config, &Config) -> bool,
}

macro_rules! fixed {
    ($section:ident . $field:ident) => {
        FixedKey {
            key: concat!(stringify!($section), ".", stringify!($field)),
            keep: |new, running| {
                let differs = new.$section.$field != running.$section.$field;
                new.$section.$field.clone_from(&running.$section.$field);
                differs
            },
        }
    };
}

const FIXED: [FixedKey; 23] = [
    fixed!(client.listen),
    // Only turning TLS on or off needs a restart; a reload reads the certificate files again.
    FixedKey {
        key: "client.tls",
        keep: |new, running| {
            let differs = new.client.tls.is_some() != running.client.tls.is_some();
            if differs {
                new.client.tls.clone_from(&running.client.tls);
            }
            differs
        },
    },
    fixed!(client.send_buffer),
    fixed!(client.receive_buffer),
    // The rest of the section is kept with it, since one mode refuses what the other needs.
    FixedKey {
        key: "auth.mode",
        keep: |new, running| {
            let differs = new.auth.mode != running.auth.mode;
            if differs {
                new.auth.clone_from(&running.auth);
            }
            differs
        },
    },
    // The rest of the section is kept with each of these two keys, since different envelopes
    // have different files.
    FixedKey {
        key: "schema.bundled",
        keep: |new, running| {
            let differs = !new.schema.has_same_bundled(&running.schema);
            if differs {
                new.schema.clone_from(&running.schema);
            }
            differs
        },
    },
    FixedKey {
        key: "schema.envelope",
        keep: |new, running| {
            let differs = new.schema.envelope != running.schema.envelope;
            if differs {
                new.schema.clone_from(&running.schema);
            }
            differs
        },
    },
    fixed!(limits.shards),
    fixed!(replay.enabled),
    fixed!(replay.events),
    fixed!(replay.bytes),
    fixed!(replay.age),
    fixed!(replay.process_bytes),
    fixed!(ingest.listen),
    fixed!(ingest.socket_mode),
    fixed!(ingest.socket_group),
    fixed!(ingest.message_id_age),
    fixed!(ingest.message_ids_max),
    fixed!(ingest.message_id_bytes_max),
    fixed!(ops.listen),
    fixed!(ops.socket_mode),
    fixed!(ops.socket_group),
    fixed!(log.format),
];

impl Config {
    /// Keeps the running value of each key that needs a restart, and returns the keys that the
    /// new configuration would change. The result may contradict itself; the caller must
    /// [check](Self::check) it.
    pub fn keep_fixed(&mut self, running: &Self) -> Vec<&'static str> {
        FIXED
            .iter()
            .filter(|fixed| (fixed.keep)(self, running))
            .map(|fixed| fixed.key)
            .collect()
    }
}

/// Returns the keys that need a restart.
#[cfg(test)]
pub(super) fn fixed_keys() -> Vec<&'static str> {
    FIXED.iter().map(|fixed| fixed.key).collect()
}

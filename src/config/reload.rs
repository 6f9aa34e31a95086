//! What of a configuration a relay that runs can take over. One table has the keys
//! for which it must be started again; all others take effect at once.

use super::Config;

/// A key that keeps its value for as long as the relay runs.
struct Fixed {
    key: &'static str,
    /// Puts the running value in the place of the new one; whether they differ.
    keep: fn(&mut Config, &Config) -> bool,
}

macro_rules! fixed {
    ($section:ident . $field:ident) => {
        Fixed {
            key: concat!(stringify!($section), ".", stringify!($field)),
            keep: |new, running| {
                let differs = new.$section.$field != running.$section.$field;
                new.$section.$field.clone_from(&running.$section.$field);
                differs
            },
        }
    };
}

const FIXED: [Fixed; 23] = [
    fixed!(client.listen),
    // The files of a certificate that is shown already are read again.
    Fixed {
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
    // The rest of the section goes with it: what one mode needs, the other refuses.
    Fixed {
        key: "auth.mode",
        keep: |new, running| {
            let differs = new.auth.mode != running.auth.mode;
            if differs {
                new.auth.clone_from(&running.auth);
            }
            differs
        },
    },
    // The rest of the section goes with each of the two: the files of one envelope are
    // not those of another.
    Fixed {
        key: "schema.bundled",
        keep: |new, running| {
            let differs = !new.schema.has_same_bundled(&running.schema);
            if differs {
                new.schema.clone_from(&running.schema);
            }
            differs
        },
    },
    Fixed {
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
    /// Keeps the running value of each key that cannot change while the relay runs,
    /// and gives those that were to change. What results may contradict itself, which
    /// is for the caller to [check](Self::check).
    pub fn keep_fixed(&mut self, running: &Self) -> Vec<&'static str> {
        FIXED
            .iter()
            .filter(|fixed| (fixed.keep)(self, running))
            .map(|fixed| fixed.key)
            .collect()
    }
}

/// The keys that need a restart.
#[cfg(test)]
pub(super) fn fixed_keys() -> Vec<&'static str> {
    FIXED.iter().map(|fixed| fixed.key).collect()
}

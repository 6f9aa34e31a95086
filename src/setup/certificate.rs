//! Warns of a certificate that clients refuse, or soon will. The relay serves it nevertheless: the
//! other listeners work, and a new certificate needs only a reload.

use std::{
    path::Path,
    time::{Duration, UNIX_EPOCH},
};

use crate::{config::ConfigWarning, relay::LiveSettings, tls::ChainValidity};

/// Time before a certificate expires from which on there is a warning; that of the alert
/// `SidewireCertificateExpires`.
const EARLY: i64 = 14 * 24 * 60 * 60;

/// What to do about such a certificate.
const HINT: &str = "replace the certificate, and its key if that is new, and reload the relay";

/// Returns a warning for `sidewire check` about the certificate of the client listener. The
/// settings were loaded from `config_file`; `now` is the time in Unix seconds.
pub(crate) fn certificate_warning(
    live: &LiveSettings,
    config_file: &Path,
    now: i64,
) -> Option<ConfigWarning> {
    let message = certificate_problem(live, now)?;
    let key = "client.tls.cert_file";
    Some(ConfigWarning::at_key(config_file, key, message, HINT))
}

/// Logs a warning about the certificate of the client listener. `now` is the time in Unix seconds.
pub(crate) fn log_certificate_problem(live: &LiveSettings, now: i64) {
    if let Some(message) = certificate_problem(live, now) {
        tracing::warn!(hint = HINT, "client.tls.cert_file: {message}");
    }
}

/// Says that the certificate is not valid yet, has expired, or expires within two weeks.
fn certificate_problem(live: &LiveSettings, now: i64) -> Option<String> {
    let ChainValidity {
        not_before,
        not_after,
    } = live.certificate?;
    let path = live.config.client.tls.as_ref()?.cert_file.display();
    let date = |seconds| {
        let since_epoch = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
        humantime::format_rfc3339_seconds(UNIX_EPOCH + since_epoch)
    };
    if not_after <= now {
        let expired = date(not_after);
        Some(format!("{path} expired at {expired}, so clients refuse it"))
    } else if now < not_before {
        let valid = date(not_before);
        Some(format!(
            "{path} is valid from {valid} on, so clients refuse it until then"
        ))
    } else if not_after - now <= EARLY {
        Some(format!("{path} expires at {}", date(not_after)))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use sidewire_protocol::schema::Schema;

    use super::*;
    use crate::config::{Config, TlsFiles};

    #[test]
    fn a_certificate_that_clients_refuse_or_soon_will_has_a_warning() {
        // 2029-01-01T00:00:00Z.
        const BEGIN: i64 = 1_861_920_000;
        // 2030-01-01T00:00:00Z.
        const EXPIRY: i64 = 1_893_456_000;
        const DAY: i64 = 24 * 60 * 60;
        let mut config = Config::default();
        config.client.tls = Some(TlsFiles {
            cert_file: "tls.crt".into(),
            key_file: "tls.key".into(),
        });
        let mut live = LiveSettings::open(config, Arc::new(Schema::bundled().unwrap()));
        let warning = |live: &LiveSettings, now| {
            let warning = certificate_warning(live, Path::new("sidewire.toml"), now);
            warning.map(|warning| warning.to_string())
        };
        assert_eq!(warning(&live, EXPIRY), None, "it states no time");
        live.certificate = Some(ChainValidity {
            not_before: BEGIN,
            not_after: EXPIRY,
        });
        assert_eq!(warning(&live, BEGIN), None);
        assert_eq!(warning(&live, EXPIRY - 15 * DAY), None);
        for (now, says) in [
            (
                BEGIN - 1,
                "tls.crt is valid from 2029-01-01T00:00:00Z on, so",
            ),
            (EXPIRY - 14 * DAY, "tls.crt expires at 2030-01-01T00:00:00Z"),
            (EXPIRY, "tls.crt expired at 2030-01-01T00:00:00Z, so"),
        ] {
            let warning = warning(&live, now).unwrap();
            assert!(warning.contains(says), "{warning}");
        }
    }
}

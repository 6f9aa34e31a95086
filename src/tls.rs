//! TLS for clients and servers: builds rustls configurations from PEM files. Knows nothing about
//! sockets or the relay's configuration.

use std::sync::Arc;

use rustls::{
    ClientConfig, ConfigBuilder, ConfigSide, RootCertStore, ServerConfig, WantsVerifier,
    crypto::aws_lc_rs,
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{self, PemObject},
    },
    version::{TLS12, TLS13},
};

/// ALPN name of the only protocol that is spoken over TLS (RFC 7301).
const HTTP_1_1: &[u8] = b"http/1.1";

/// Maximum amount of outgoing data that rustls buffers, in bytes: one record. A client that does
/// not read may lose as much, and it must read as much within one write deadline.
pub const WRITE_BUFFER_BYTES_MAX: usize = 16 * 1024;

/// An error in a certificate, key or TLS configuration.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The file is not a PEM file.
    #[error("is not a PEM file: {0}")]
    Pem(String),
    /// The file contains no certificate.
    #[error("has no certificate (CERTIFICATE)")]
    NoCertificate,
    /// The file contains no unencrypted private key.
    #[error("has no private key (PRIVATE KEY, RSA PRIVATE KEY or EC PRIVATE KEY)")]
    NoPrivateKey,
    /// The key does not belong to the certificate.
    #[error("is not the key of the first certificate in cert_file")]
    KeyMismatch,
    /// A certificate or key cannot be used.
    #[error("cannot be used: {0}")]
    Unusable(#[from] rustls::Error),
    /// The system has no trusted root certificates. Contains the errors of loading them, each
    /// after a semicolon.
    #[error("no root certificates found; set SSL_CERT_FILE or SSL_CERT_DIR{0}")]
    NoRoots(String),
}

/// Reads the certificates of a PEM file, in file order.
///
/// # Errors
///
/// If the file is malformed or contains no certificate.
pub fn parse_certificates(file: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certificates = CertificateDer::pem_slice_iter(file)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| TlsError::Pem(error.to_string()))?;
    if certificates.is_empty() {
        return Err(TlsError::NoCertificate);
    }
    Ok(certificates)
}

/// The time within which all certificates of a chain are valid, in Unix seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChainValidity {
    /// The time from which on the last of them is valid.
    pub not_before: i64,
    /// The time at which the first of them expires.
    pub not_after: i64,
}

impl ChainValidity {
    /// Returns the validity of a chain; `None` if none of its certificates states one.
    #[must_use]
    pub fn of(chain: &[CertificateDer<'_>]) -> Option<Self> {
        let parsed = chain
            .iter()
            .filter_map(|certificate| x509_parser::parse_x509_certificate(certificate).ok());
        let validities = parsed.map(|(_, certificate)| {
            let validity = certificate.validity();
            Self {
                not_before: validity.not_before.timestamp(),
                not_after: validity.not_after.timestamp(),
            }
        });
        validities.reduce(|one, other| Self {
            not_before: one.not_before.max(other.not_before),
            not_after: one.not_after.min(other.not_after),
        })
    }
}

/// Reads the private key of a PEM file.
///
/// # Errors
///
/// If the file is malformed or contains no private key.
pub fn parse_private_key(file: &[u8]) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_slice(file).map_err(|error| match error {
        pem::Error::NoItemsFound => TlsError::NoPrivateKey,
        error => TlsError::Pem(error.to_string()),
    })
}

/// Returns the TLS configuration of a listener. `chain` begins with the listener's own
/// certificate, to which `key` belongs.
///
/// # Errors
///
/// If one of the two cannot be used, or they do not belong together.
pub fn server_config(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<Arc<ServerConfig>, TlsError> {
    let mut config = with_tls_versions(ServerConfig::builder_with_provider(crypto_provider()))?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => TlsError::KeyMismatch,
            error => error.into(),
        })?;
    config.alpn_protocols = vec![HTTP_1_1.to_vec()];
    // Sessions are resumed with tickets that the clients keep, so that the relay holds no state
    // of clients that have disconnected.
    config.ticketer = aws_lc_rs::Ticketer::new()?;
    Ok(Arc::new(config))
}

/// Returns the TLS configuration of a client, which trusts the certificates of the PEM file
/// `roots`, or those that the system trusts (`SSL_CERT_FILE` overrides them).
///
/// # Errors
///
/// If there is no certificate to trust, or one from `roots` cannot be used.
pub fn client_config(roots: Option<&[u8]>) -> Result<Arc<ClientConfig>, TlsError> {
    let mut store = RootCertStore::empty();
    match roots {
        Some(file) => {
            for certificate in parse_certificates(file)? {
                store.add(certificate)?;
            }
        }
        None => {
            let found = rustls_native_certs::load_native_certs();
            // The system may have certificates that rustls cannot use.
            store.add_parsable_certificates(found.certs);
            if store.is_empty() {
                let reasons = found.errors.iter().map(|error| format!("; {error}"));
                return Err(TlsError::NoRoots(reasons.collect()));
            }
        }
    }
    let mut config = with_tls_versions(ClientConfig::builder_with_provider(crypto_provider()))?
        .with_root_certificates(store)
        .with_no_client_auth();
    config.alpn_protocols = vec![HTTP_1_1.to_vec()];
    Ok(Arc::new(config))
}

fn crypto_provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

fn with_tls_versions<S: ConfigSide>(
    builder: ConfigBuilder<S, rustls::WantsVersions>,
) -> Result<ConfigBuilder<S, WantsVerifier>, rustls::Error> {
    builder.with_protocol_versions(&[&TLS13, &TLS12])
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, date_time_ymd, generate_simple_self_signed};

    use super::*;

    fn certified() -> (String, String) {
        let made = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        (made.cert.pem(), made.signing_key.serialize_pem())
    }

    fn config(cert: &str, key: &str) -> Result<Arc<ServerConfig>, TlsError> {
        server_config(
            parse_certificates(cert.as_bytes())?,
            parse_private_key(key.as_bytes())?,
        )
    }

    #[test]
    fn a_certificate_with_its_key_serves_clients_that_speak_http_1() {
        let (cert, key) = certified();
        let config = config(&cert, &key).unwrap();
        assert_eq!(config.alpn_protocols, [HTTP_1_1]);
        assert_eq!(config.max_early_data_size, 0);
        assert!(config.ticketer.enabled());
    }

    #[test]
    fn the_key_of_another_certificate_is_refused() {
        let ((cert, _), (_, key)) = (certified(), certified());
        assert!(matches!(config(&cert, &key), Err(TlsError::KeyMismatch)));
    }

    #[test]
    fn a_file_without_a_certificate_or_a_key_is_refused() {
        let (cert, key) = certified();
        assert!(matches!(config(&key, &key), Err(TlsError::NoCertificate)));
        assert!(matches!(config("", &key), Err(TlsError::NoCertificate)));
        assert!(matches!(config(&cert, &cert), Err(TlsError::NoPrivateKey)));
        let torn = cert.replace("-----END", "-----ENDE");
        assert!(matches!(config(&torn, &key), Err(TlsError::Pem(_))));
        let block = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert!(matches!(config(block, &key), Err(TlsError::Unusable(_))));
    }

    #[test]
    fn a_chain_is_valid_while_all_of_its_certificates_are() {
        let der = |first, last| {
            let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
            params.not_before = date_time_ymd(first, 1, 1);
            params.not_after = date_time_ymd(last, 1, 1);
            let key = KeyPair::generate().unwrap();
            params.self_signed(&key).unwrap().der().clone()
        };
        let (early, late) = (der(2010, 2030), der(2020, 2040));
        let both = Some(ChainValidity {
            // 2020-01-01T00:00:00Z.
            not_before: 1_577_836_800,
            // 2030-01-01T00:00:00Z.
            not_after: 1_893_456_000,
        });
        assert_eq!(ChainValidity::of(&[early.clone(), late.clone()]), both);
        assert_eq!(ChainValidity::of(&[late, early]), both);
        assert_eq!(ChainValidity::of(&[]), None);
    }

    #[test]
    fn a_client_needs_trusted_certificates() {
        let (cert, key) = certified();
        assert!(client_config(Some(cert.as_bytes())).is_ok());
        let refused = client_config(Some(key.as_bytes()));
        assert!(matches!(refused, Err(TlsError::NoCertificate)));
    }
}

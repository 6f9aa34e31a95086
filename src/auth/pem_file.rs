//! Finds the one key in a PEM file (RFC 7468). Does not know the key's algorithm.

use pem::Pem;

use super::KeyError;

/// A block that OpenSSL writes before an elliptic-curve key; the key repeats its content.
const PARAMETERS: &str = "EC PARAMETERS";

/// Returns the DER bytes of the public key in a PEM file: a SubjectPublicKeyInfo, or
/// for RSA a PKCS#1 RSAPublicKey.
pub(super) fn public_key(file: &[u8]) -> Result<Vec<u8>, KeyError> {
    let block = only_block(file)?;
    match block.tag() {
        "PUBLIC KEY" | "RSA PUBLIC KEY" => Ok(block.into_contents()),
        "CERTIFICATE" | "TRUSTED CERTIFICATE" | "X509 CERTIFICATE" => Err(KeyError::Certificate),
        tag if tag.ends_with("PRIVATE KEY") => Err(KeyError::PrivateKey),
        _ => Err(KeyError::PemKind),
    }
}

/// Returns the DER bytes of the private key in a PEM file: PKCS#8, or the older format of the
/// key's type.
pub(super) fn private_key(file: &[u8]) -> Result<Vec<u8>, KeyError> {
    let block = only_block(file)?;
    let encrypted = block
        .headers()
        .get("Proc-Type")
        .is_some_and(|kind| kind.contains("ENCRYPTED"));
    match block.tag() {
        "ENCRYPTED PRIVATE KEY" => Err(KeyError::EncryptedKey),
        _ if encrypted => Err(KeyError::EncryptedKey),
        "PRIVATE KEY" | "RSA PRIVATE KEY" | "EC PRIVATE KEY" => Ok(block.into_contents()),
        tag if tag.ends_with("PUBLIC KEY") => Err(KeyError::PublicKey),
        "CERTIFICATE" => Err(KeyError::PublicKey),
        _ => Err(KeyError::PemKind),
    }
}

/// Returns true if the bytes look like a PEM file, probably given as a secret by mistake.
pub(super) fn looks_like_pem(bytes: &[u8]) -> bool {
    let mark = b"-----BEGIN ";
    bytes.windows(mark.len()).any(|window| window == mark)
}

fn only_block(file: &[u8]) -> Result<Pem, KeyError> {
    let mut blocks = pem::parse_many(file).map_err(|_| KeyError::NoPem)?;
    blocks.retain(|block| block.tag() != PARAMETERS);
    let count = blocks.len();
    match (blocks.pop(), count) {
        (Some(block), 1) => Ok(block),
        (None, _) => Err(KeyError::NoPem),
        (Some(_), _) => Err(KeyError::PemBlocks(count)),
    }
}

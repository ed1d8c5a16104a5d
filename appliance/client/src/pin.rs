//! The pinned certificate. Invariant: the certificate is accepted by its fingerprint alone (no authority, no name, no
//! clock), and the handshake must still prove that the server holds its key.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use data_encoding::HEXLOWER;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, OtherError, SignatureScheme};
use sha2::{Digest, Sha256};
use thiserror::Error;

/// SHA-256 of a certificate in DER. Text: 64 hexadecimal digits; read in either case and with colons between bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; 32]);

/// A text that is no fingerprint.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("fingerprint {0:?} is not valid: give the 64 hexadecimal digits that the appliance's console shows")]
pub struct BadFingerprint(String);

impl Fingerprint {
    /// The fingerprint of this certificate.
    pub fn of(der: &[u8]) -> Self {
        Fingerprint(Sha256::digest(der).into())
    }

    /// One that no certificate has, as far as anybody knows.
    pub(crate) const fn nobody() -> Self {
        Fingerprint([0; 32])
    }
}

impl FromStr for Fingerprint {
    type Err = BadFingerprint;

    fn from_str(text: &str) -> Result<Self, BadFingerprint> {
        let refuse = || BadFingerprint(text.chars().take(140).collect());
        let plain: String = text
            .trim()
            .chars()
            .filter(|c| *c != ':')
            .collect::<String>()
            .to_ascii_lowercase();
        let bytes = HEXLOWER.decode(plain.as_bytes()).map_err(|_| refuse())?;
        bytes.try_into().map(Fingerprint).map_err(|_| refuse())
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&HEXLOWER.encode(&self.0))
    }
}

/// The server showed another certificate than the pinned one.
#[derive(Debug, Clone, Error)]
#[error("the certificate's fingerprint is {presented} and not {expected}")]
pub(crate) struct Mismatch {
    pub(crate) expected: Fingerprint,
    pub(crate) presented: Fingerprint,
}

#[derive(Debug)]
struct Pin {
    expected: Fingerprint,
    provider: Arc<CryptoProvider>,
}

/// A TLS configuration that accepts exactly the certificate with this fingerprint.
pub(crate) fn tls_config(expected: Fingerprint) -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let pin = Arc::new(Pin {
        expected,
        provider: provider.clone(),
    });
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(pin)
        .with_no_client_auth();
    Ok(config)
}

impl ServerCertVerifier for Pin {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let presented = Fingerprint::of(end_entity);
        if presented == self.expected {
            return Ok(ServerCertVerified::assertion());
        }
        let mismatch = Mismatch {
            expected: self.expected,
            presented,
        };
        Err(CertificateError::Other(OtherError(Arc::new(mismatch))).into())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            cert,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            cert,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// The mismatch that made a connection fail, if one did, dug out of the layers that wrapped it.
pub(crate) fn mismatch_in<'e>(error: &'e (dyn std::error::Error + 'static)) -> Option<&'e Mismatch> {
    let mut current = Some(error);
    while let Some(error) = current {
        // An `io::Error` gives its content's source as its own, and so hides the content.
        let content = error
            .downcast_ref::<std::io::Error>()
            .and_then(|io| io.get_ref())
            .map(|inner| inner as &(dyn std::error::Error + 'static));
        for candidate in [Some(error), content].into_iter().flatten() {
            if let Some(rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(other)))) =
                candidate.downcast_ref()
                && let Some(mismatch) = other.downcast_ref()
            {
                return Some(mismatch);
            }
        }
        current = match content {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_is_read_in_the_forms_that_tools_print() {
        let plain = "0f8fad5bd9cb469fa16570867728950e0f8fad5bd9cb469fa16570867728950e";
        let pairs: Vec<String> = plain
            .as_bytes()
            .chunks(2)
            .map(|p| String::from_utf8_lossy(p).to_uppercase())
            .collect();
        for text in [
            plain.to_owned(),
            plain.to_uppercase(),
            pairs.join(":"),
            format!(" {plain}\n"),
        ] {
            assert_eq!(text.parse::<Fingerprint>().unwrap().to_string(), plain);
        }
        for text in ["", "0f8f", &plain[1..], &format!("{plain}00"), "zz"] {
            assert!(text.parse::<Fingerprint>().is_err(), "{text}");
        }
    }
}

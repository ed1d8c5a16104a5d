//! The appliance's certificate and key. Invariant: made once, at the first start, and kept: clients pin its fingerprint.

use std::path::Path;
use std::sync::Arc;

use data_encoding::HEXLOWER;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::store::{self, StoreError};

const CERTIFICATE: &str = "certificate.pem";
const KEY: &str = "key.pem";

/// The certificate could not be made, read or used.
#[derive(Debug, Error)]
pub enum IdentityError {
    /// A file.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A new one could not be made.
    #[error("cannot make a certificate")]
    Make(#[source] rcgen::Error),
    /// What is stored is no certificate or key.
    #[error("{0} holds no PEM of its kind")]
    Unreadable(&'static str),
    /// The TLS library refused it.
    #[error("the certificate cannot be used for TLS")]
    Tls(#[source] rustls::Error),
}

/// The appliance's certificate, ready for TLS.
pub struct Identity {
    /// How to serve with it.
    pub tls: Arc<ServerConfig>,
    /// SHA-256 of it in DER, in lower-case hexadecimal digits.
    pub fingerprint: String,
}

impl Identity {
    /// The one in this directory; makes it if there is none.
    pub fn ensure(directory: &Path) -> Result<Self, IdentityError> {
        let (certificate_file, key_file) = (directory.join(CERTIFICATE), directory.join(KEY));
        // The certificate is written last, so one that is there has its key.
        let (certificate, key) = match (store::read(&certificate_file)?, store::read(&key_file)?) {
            (Some(certificate), Some(key)) => (certificate, key),
            _ => {
                let (certificate, key) = make().map_err(IdentityError::Make)?;
                store::replace(&key_file, key.as_bytes(), 0o600)?;
                store::replace(&certificate_file, certificate.as_bytes(), 0o644)?;
                tracing::info!("made the appliance's certificate");
                (certificate.into_bytes(), key.into_bytes())
            }
        };
        let certificate =
            CertificateDer::from_pem_slice(&certificate).map_err(|_| IdentityError::Unreadable(CERTIFICATE))?;
        let key = PrivateKeyDer::from_pem_slice(&key).map_err(|_| IdentityError::Unreadable(KEY))?;
        let fingerprint = HEXLOWER.encode(&Sha256::digest(&certificate));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut tls = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(IdentityError::Tls)?
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .map_err(IdentityError::Tls)?;
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Identity {
            tls: Arc::new(tls),
            fingerprint,
        })
    }
}

/// A new certificate and its key, in PEM: self-signed, ECDSA P-256. Clients know it by its fingerprint, so it names no
/// address. It is made once, at a start whose clock may be years off, and some clients compare dates (`curl --cacert`,
/// Prometheus): so it is valid from long ago, and without an end, for which RFC 5280 (section 4.1.2.5) has the end of 9999.
fn make() -> Result<(String, String), rcgen::Error> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut params = CertificateParams::new(["cistern".to_owned(), "localhost".to_owned()])?;
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, "Cistern appliance");
    params.distinguished_name = name;
    params.not_before = rcgen::date_time_ymd(2000, 1, 1);
    params.not_after = rcgen::date_time_ymd(9999, 12, 31);
    let certificate = params.self_signed(&key)?;
    Ok((certificate.pem(), key.serialize_pem()))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rustls::RootCertStore;
    use rustls::client::WebPkiServerVerifier;
    use rustls::client::danger::ServerCertVerifier;
    use rustls::pki_types::{ServerName, UnixTime};

    use super::*;

    /// As `curl --cacert` and Prometheus look at it.
    #[test]
    fn a_client_that_is_given_the_certificate_takes_it_whatever_the_clock_says() {
        let (certificate, _) = make().unwrap();
        let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(certificate.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let in_year = |year: u64| {
            let now = UnixTime::since_unix_epoch(Duration::from_secs((year - 1970) * 31_556_952));
            verifier.verify_server_cert(&certificate, &[], &name, &[], now)
        };
        for year in [2001, 2020, 2037, 2039, 2106, 2500, 9998] {
            assert!(in_year(year).is_ok(), "{year}: {:?}", in_year(year));
        }
        assert!(in_year(1998).is_err(), "nothing was compared");
    }

    #[test]
    fn the_certificate_stays_the_same_over_restarts() {
        let dir = tempfile::tempdir().unwrap();
        let first = Identity::ensure(dir.path()).unwrap().fingerprint;
        assert_eq!(first.len(), 64);
        assert_eq!(Identity::ensure(dir.path()).unwrap().fingerprint, first);
    }

    #[test]
    fn a_start_that_was_cut_off_before_the_certificate_makes_both_anew() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(KEY), "half").unwrap();
        assert!(Identity::ensure(dir.path()).is_ok());
        std::fs::write(dir.path().join(CERTIFICATE), "no PEM").unwrap();
        assert!(matches!(
            Identity::ensure(dir.path()),
            Err(IdentityError::Unreadable(CERTIFICATE))
        ));
    }
}

//! TLS: from "encrypted, whoever it is" to "this host, vouched for by that authority".

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, RootCertStore, SignatureScheme};

/// What is asked of the server's certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verify {
    /// Nothing.
    Nothing,
    /// A known authority vouches for it, whichever name it is for.
    Chain,
    /// The same, and it is for this host.
    Full,
}

/// The authorities that are known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Roots {
    /// The operating system's.
    System,
    /// Those of a PEM file.
    File(PathBuf),
}

/// Why there is no TLS: for the log.
pub type Result<T> = std::result::Result<T, String>;

/// The client's side of a TLS session with `host`, before the first byte.
///
/// # Errors
/// The certificates or the name are not usable.
pub fn client(verify: Verify, roots: &Roots, host: &str) -> Result<ClientConnection> {
    let provider = Arc::new(ring::default_provider());
    let verifier = verifier(verify, roots, &provider)?;
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("TLS: {error}"))?
        .dangerous() // The name rustls gives to any verifier but its own; what each checks stands below.
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    let name = ServerName::try_from(host.to_owned())
        .map_err(|_| format!("{host:?} is not a name that a certificate can be for"))?;
    ClientConnection::new(Arc::new(config), name).map_err(|error| format!("TLS: {error}"))
}

fn verifier(verify: Verify, roots: &Roots, provider: &Arc<CryptoProvider>) -> Result<Arc<dyn ServerCertVerifier>> {
    if verify == Verify::Nothing {
        return Ok(Arc::new(Unverified(Arc::clone(provider))));
    }
    let roots = Arc::new(load(roots)?);
    let full = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(provider))
        .build()
        .map_err(|error| format!("the root certificates are not usable: {error}"))?;
    Ok(if verify == Verify::Full { full } else { Arc::new(AnyName(full)) })
}

fn load(roots: &Roots) -> Result<RootCertStore> {
    let mut store = RootCertStore::empty();
    match roots {
        Roots::File(path) => read_pem(path, &mut store)?,
        Roots::System => {
            // A machine may carry certificates that rustls does not like; those it likes are enough.
            store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    if store.is_empty() {
        return Err("there are no root certificates to check the server's against".to_owned());
    }
    Ok(store)
}

fn read_pem(path: &Path, store: &mut RootCertStore) -> Result<()> {
    let unusable = |why: &dyn std::fmt::Display| format!("root certificates {}: {why}", path.display());
    for certificate in CertificateDer::pem_file_iter(path).map_err(|error| unusable(&error))? {
        store.add(certificate.map_err(|error| unusable(&error))?).map_err(|error| unusable(&error))?;
    }
    Ok(())
}

/// Encrypted, but with whom is not asked. Signatures are checked all the same, so that the key
/// that was shown is the one that is used.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// A known authority vouches for the certificate, whichever name it is for.
#[derive(Debug)]
struct AnyName(Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for AnyName {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        // The name is compared last, once the chain was found to be good.
        match self.0.verify_server_cert(certificate, intermediates, name, ocsp, now) {
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

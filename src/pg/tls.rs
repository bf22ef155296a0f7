//! TLS as `sslmode` asks for it.

use rustls::ClientConnection;

use super::config::{SslMode, SslRoot};
use super::error::{Error, Result};
use crate::net::tls::{self, Roots, Verify};

/// The client's side of a TLS session with `host`, before the first byte.
pub(super) fn client(mode: SslMode, root: &SslRoot, host: &str) -> Result<ClientConnection> {
    let roots = match root {
        SslRoot::File(path) => Roots::File(path.clone()),
        SslRoot::System | SslRoot::Unset => Roots::System,
    };
    tls::client(verify(mode, root), &roots, host).map_err(|why| Error::config(format!("{why} (sslrootcert)")))
}

fn verify(mode: SslMode, root: &SslRoot) -> Verify {
    match mode {
        SslMode::Disable | SslMode::Prefer => Verify::Nothing,
        // libpq verifies the chain under `require` too when it is told of a root certificate.
        SslMode::Require if *root == SslRoot::Unset => Verify::Nothing,
        SslMode::Require | SslMode::VerifyCa => Verify::Chain,
        SslMode::VerifyFull => Verify::Full,
    }
}

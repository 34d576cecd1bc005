//! Certificates of a CA of a test's own, made by the `openssl` program.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use unibus_nats::config::TlsFiles;

use crate::Scratch;

/// A CA, and what it has signed.
#[derive(Debug)]
pub struct Authority {
    folder: Scratch,
}

impl Authority {
    /// A new one.
    ///
    /// # Panics
    /// Without `openssl`.
    #[must_use]
    pub fn new() -> Self {
        let authority = Self { folder: Scratch::new() };
        let subject = ["-subj", "/CN=CA of a test", "-days", "2"];
        let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
        let files = ["-keyout", "ca.key", "-out", "ca.pem"];
        authority.openssl([&["req", "-x509"][..], &key, &files, &subject].concat());
        authority
    }

    /// Its certificate.
    #[must_use]
    pub fn certificate(&self) -> PathBuf {
        self.folder.join("ca.pem")
    }

    /// Signs a new certificate of a server for that host: `IP:127.0.0.1`, `DNS:localhost`.
    ///
    /// # Panics
    /// When it cannot be made.
    #[must_use]
    pub fn sign(&self, host: &str) -> TlsFiles {
        let name: String = host.chars().filter(char::is_ascii_alphanumeric).collect();
        let [key, request, signed] = ["key", "csr", "pem"].map(|end| format!("{name}.{end}"));
        let extension = format!("subjectAltName={host}\nextendedKeyUsage=serverAuth\n");
        fs::write(self.folder.join("extension"), extension).unwrap();
        let curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
        let files = ["-keyout", &key, "-out", &request, "-subj", "/CN=server of a test"];
        self.openssl([&["req"][..], &curve, &files].concat());
        let signer = ["x509", "-req", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2"];
        self.openssl([&signer[..], &["-in", &request, "-out", &signed, "-extfile", "extension"]].concat());
        TlsFiles { certificate: self.folder.join(&signed), key: self.folder.join(&key), ca: None }
    }

    fn openssl(&self, arguments: Vec<&str>) {
        let run = Command::new("openssl").args(arguments).current_dir(self.folder.path()).output();
        let run = run.expect("no `openssl`: install it");
        assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    }
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}

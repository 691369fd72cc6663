//! Certificates that are issued at the first handshake for their name.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::sign::CertifiedKey;

use super::Identity;

/// The number of certificates that are kept; above it, one is issued for each handshake.
const KEPT: usize = 256;

/// The function that issues a certificate for a name, if it is for it.
type Issue = Box<dyn Fn(&str) -> Option<Identity> + Send + Sync>;

/// The certificates of one authority, by name.
pub(super) struct OnDemandCertificates {
    issue: Issue,
    kept: Mutex<HashMap<Box<str>, Arc<CertifiedKey>>>,
}

impl OnDemandCertificates {
    pub(super) fn new(issue: impl Fn(&str) -> Option<Identity> + Send + Sync + 'static) -> Self {
        Self { issue: Box::new(issue), kept: Mutex::default() }
    }

    /// Returns the certificate for `name`; `None` if none is issued for it.
    pub(super) fn find(&self, name: &str) -> Option<Arc<CertifiedKey>> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(key) = kept.get(name) {
            return Some(Arc::clone(key));
        }
        let key = (self.issue)(name)?.key;
        if kept.len() < KEPT {
            kept.insert(name.into(), Arc::clone(&key));
        }
        Some(key)
    }
}

impl fmt::Debug for OnDemandCertificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OnDemandCertificates").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    #[test]
    fn a_certificate_is_issued_once_and_not_for_every_name() {
        let issued = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&issued);
        let certificates = OnDemandCertificates::new(move |name| {
            counted.fetch_add(1, Ordering::Relaxed);
            let key = KeyPair::generate().ok()?;
            let params = CertificateParams::new([name.to_owned()]).ok()?;
            let leaf = params.self_signed(&key).ok().filter(|_| name.starts_with('a'))?;
            Identity::from_der(vec![leaf.der().to_vec()], key.serialize_der()).ok()
        });
        let first = certificates.find("a.example").expect("issued");
        assert!(Arc::ptr_eq(&first, &certificates.find("a.example").expect("kept")));
        assert!(certificates.find("b.example").is_none());
        assert_eq!(issued.load(Ordering::Relaxed), 2);
    }
}

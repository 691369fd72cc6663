//! Reports on the certificates in force: their expiry, and warnings before it.

use std::time::SystemTime;

use crate::telemetry::metrics::Metrics;
use crate::tls::{Certificate, Validity};

/// Sets the metric of each, and warns of those that are worth nothing any more, or soon.
pub(super) fn report(certificates: &[Certificate], metrics: &Metrics) {
    metrics.clear_certificates();
    for (certificate, label) in certificates.iter().zip(labels(certificates)) {
        metrics.certificate(&label, certificate.not_after);
        let file = certificate.file.as_deref().map(|file| tracing::field::display(file.display()));
        let names = certificate.names.join(", ");
        let not_after = httpdate::fmt_http_date(certificate.not_after);
        match certificate.validity(SystemTime::now()) {
            Validity::Valid => {}
            Validity::NotYet(until) => {
                let not_before = httpdate::fmt_http_date(certificate.not_before);
                tracing::error!(file, names, not_before, in_s = until.as_secs(), "tls.certificate_not_valid_yet");
            }
            Validity::Expires(left) => {
                tracing::warn!(file, names, not_after, left_s = left.as_secs(), "tls.certificate_expires");
            }
            Validity::Expired(ago) => {
                tracing::error!(file, names, not_after, ago_s = ago.as_secs(), "tls.certificate_expired");
            }
        }
    }
}

/// A name for each, which no other has: Secrets all call their files alike.
fn labels(certificates: &[Certificate]) -> Vec<String> {
    let plain: Vec<String> = certificates.iter().map(Certificate::label).collect();
    let is_shared = |label: &String| plain.iter().filter(|other| *other == label).count() > 1;
    let unique = |(certificate, label): (&Certificate, &String)| match certificate.names.first() {
        Some(name) if is_shared(label) => format!("{label} ({name})"),
        _ => label.clone(),
    };
    certificates.iter().zip(&plain).map(unique).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate(file: &str, name: &str) -> Certificate {
        Certificate {
            file: Some(file.into()),
            names: vec![name.to_owned()],
            not_before: SystemTime::UNIX_EPOCH,
            not_after: SystemTime::UNIX_EPOCH,
            fingerprint: [0; 32],
            for_names: Vec::new(),
        }
    }

    #[test]
    fn files_of_one_name_are_told_apart() {
        let certificates = [
            certificate("/a/tls.crt", "a.example"),
            certificate("/b/tls.crt", "b.example"),
            certificate("/c.pem", "c"),
        ];
        assert_eq!(labels(&certificates), ["tls.crt (a.example)", "tls.crt (b.example)", "c.pem"]);
    }
}

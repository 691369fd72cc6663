//! What is told of the certificates in force: when they expire, and in time.

use std::time::{Duration, SystemTime};

use crate::telemetry::metrics::Metrics;
use crate::tls::Certificate;

/// How long before its end a certificate is worth a warning.
const NOTICE: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// How it stands with a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Sound,
    Expires(Duration),
    Expired(Duration),
}

/// Sets the metric of each, and warns of those that are worth nothing any more, or soon.
pub(super) fn tell(certificates: &[Certificate], metrics: &Metrics) {
    metrics.forget_certificates();
    for (certificate, label) in certificates.iter().zip(labels(certificates)) {
        metrics.certificate(&label, certificate.not_after);
        let file = certificate.file.as_deref().map(|file| tracing::field::display(file.display()));
        let names = certificate.names.join(", ");
        let not_after = httpdate::fmt_http_date(certificate.not_after);
        match standing(certificate.not_after, SystemTime::now()) {
            Standing::Sound => {}
            Standing::Expires(left) => {
                tracing::warn!(file, names, not_after, left_s = left.as_secs(), "tls.certificate_expires");
            }
            Standing::Expired(ago) => {
                tracing::error!(file, names, not_after, ago_s = ago.as_secs(), "tls.certificate_expired");
            }
        }
    }
}

fn standing(not_after: SystemTime, now: SystemTime) -> Standing {
    match not_after.duration_since(now) {
        Ok(left) if left > NOTICE => Standing::Sound,
        Ok(left) => Standing::Expires(left),
        Err(past) => Standing::Expired(past.duration()),
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

    #[test]
    fn a_week_before_its_end_a_certificate_is_worth_a_warning() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        let second = Duration::from_secs(1);
        assert_eq!(standing(now + NOTICE + second, now), Standing::Sound);
        assert_eq!(standing(now + NOTICE, now), Standing::Expires(NOTICE));
        assert_eq!(standing(now, now), Standing::Expires(Duration::ZERO));
        assert_eq!(standing(now - second, now), Standing::Expired(second));
    }
}

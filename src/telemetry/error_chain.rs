//! The form of errors in log lines: the text of an error and those of its causes, in one value.

use std::error::Error;
use std::fmt;

/// An error displayed with every [source](Error::source) behind it, separated by `: `. A cause whose text is already
/// included is left out.
///
/// The only form in which a log line carries an error. A field of type `&dyn Error` keeps its causes in the human
/// format only: the JSON formatter of tracing-subscriber 0.3 does not implement `record_error` and writes the output of
/// [`Display`](fmt::Display). A field displayed without `Chain` loses the causes in both formats.
#[derive(Clone, Copy, Debug)]
pub struct Chain<'a>(pub &'a dyn Error);

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = self.0.to_string();
        let mut cause = self.0.source();
        while let Some(error) = cause {
            let next = error.to_string();
            if !text.contains(&next) {
                text.push_str(": ");
                text.push_str(&next);
            }
            cause = error.source();
        }
        f.write_str(&text)
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot read {0}")]
    struct Reading(&'static str, #[source] io::Error);

    #[derive(Debug, thiserror::Error)]
    #[error("no start: {0}")]
    struct Start(#[source] Reading);

    #[test]
    fn every_cause_is_written_once() {
        let refused = || io::Error::from_raw_os_error(111);
        assert_eq!(Chain(&refused()).to_string(), "Connection refused (os error 111)");
        let reading = Reading("a.pem", refused());
        assert_eq!(Chain(&reading).to_string(), "cannot read a.pem: Connection refused (os error 111)");
        let start = Start(Reading("a.pem", refused()));
        assert_eq!(Chain(&start).to_string(), "no start: cannot read a.pem: Connection refused (os error 111)");
    }
}

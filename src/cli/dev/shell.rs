//! Words of commands that are printed for a shell.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use crate::telemetry::is_control;

/// Returns `word` as it is typed into a shell: as it is, in single quotes where a shell would read it otherwise, or with
/// escapes (`$'…'`, POSIX.1-2024 §2.2.4) if it has characters that would act on the terminal, or is not UTF-8.
pub(super) fn quoted(word: impl AsRef<OsStr>) -> String {
    let bytes = word.as_ref().as_bytes();
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"_@%+=:,./-".contains(byte);
    match str::from_utf8(bytes) {
        Ok(text) if !text.is_empty() && bytes.iter().all(is_plain) => text.to_owned(),
        Ok(text) if !text.contains(is_control) => format!("'{}'", text.replace('\'', "'\\''")),
        _ => {
            let escape =
                |byte: &u8| if is_plain(byte) { char::from(*byte).to_string() } else { format!("\\{byte:03o}") };
            format!("$'{}'", bytes.iter().map(escape).collect::<String>())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_shell_reads_each_word_as_it_was() {
        let word = |bytes: &'static [u8]| (OsStr::from_bytes(bytes), quoted(OsStr::from_bytes(bytes)));
        let plain =
            [&b"/home/ann/.local/share/ca.pem"[..], b"", b"/a b/$HOME", b"it's", b"`id`;\"x\"", "/\u{e9}".as_bytes()];
        let escaped = [&b"/a\x1b[2J\nb'7"[..], b"/\xff\\", "/\u{202e}0".as_bytes()];
        let runs = plain.iter().map(|word| ("sh", *word)).chain(escaped.iter().map(|word| ("bash", *word)));
        for (shell, bytes) in runs {
            let (original, quoted) = word(bytes);
            let read = Command::new(shell).args(["-c", &format!("printf %s {quoted}")]).output().expect("a shell");
            assert_eq!(OsStr::from_bytes(&read.stdout), original, "{quoted}");
            assert!(!quoted.contains(is_control), "{quoted:?}");
        }
        assert_eq!(quoted("/plain/path-1.pem"), "/plain/path-1.pem");
        assert_eq!(quoted("it's"), r"'it'\''s'");
    }
}

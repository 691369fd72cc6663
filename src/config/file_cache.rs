//! The files that one load of the configuration uses, each read once.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::{fmt, fs, io};

/// A cache of file contents for one load: everything that is made of it sees the same bytes, also where a file is replaced
/// meanwhile or is a pipe.
#[derive(Default)]
pub struct FileCache(RefCell<BTreeMap<PathBuf, io::Result<Rc<[u8]>>>>);

impl FileCache {
    /// Returns the contents of `file`, as they were when it was first asked for; so is the error.
    pub fn read(&self, file: &Path) -> io::Result<Rc<[u8]>> {
        let mut known = self.0.borrow_mut();
        if !known.contains_key(file) {
            known.insert(file.into(), fs::read(file).map(Rc::from));
        }
        known[file].as_ref().map(Rc::clone).map_err(copy)
    }

    /// Returns the files that were asked for, in order.
    pub fn paths(&self) -> Vec<PathBuf> {
        self.0.borrow().keys().cloned().collect()
    }
}

impl fmt::Debug for FileCache {
    /// Without the contents: private keys are among them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("FileCache").field(&self.paths()).finish()
    }
}

fn copy(error: &io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(code) => io::Error::from_raw_os_error(code),
        None => io::Error::new(error.kind(), error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_once() {
        let folder = tempfile::TempDir::new().expect("a folder");
        let (there, missing) = (folder.path().join("there"), folder.path().join("missing"));
        fs::write(&there, "first").expect("write");
        let cache = FileCache::default();
        let is_missing = || cache.read(&missing).expect_err("missing").to_string();
        assert_eq!(&*cache.read(&there).expect("there"), b"first");
        let error = is_missing();
        fs::write(&there, "second").expect("write");
        fs::write(&missing, "too late").expect("write");
        assert_eq!(&*cache.read(&there).expect("there"), b"first");
        assert_eq!(is_missing(), error);
        assert_eq!(cache.read(&missing).expect_err("missing").kind(), io::ErrorKind::NotFound);
        assert_eq!(cache.paths(), [missing.clone(), there.clone()]);
        assert_eq!(&*FileCache::default().read(&there).expect("there"), b"second");
    }
}

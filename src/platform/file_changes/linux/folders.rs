//! The folders in which a change can alter what a path leads to.

use std::collections::{BTreeSet, VecDeque};
use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};

/// The symbolic links that are followed in one path; the kernel follows as many (`path_resolution(7)`).
const LINKS_MOST: usize = 40;

/// Returns for each of `files` the folder that it lies in, and those of every symbolic link on the way. Where a folder is
/// missing, the nearest above it is taken, in which it will appear.
pub(super) fn folders<'a>(files: impl Iterator<Item = &'a Path>) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    for file in files {
        walk(file, &mut found);
    }
    found
}

fn walk(file: &Path, found: &mut BTreeSet<PathBuf>) {
    let mut at = PathBuf::from(".");
    let mut rest = steps(file);
    let mut links = 0;
    while let Some(step) = rest.pop_front() {
        // `at` is no link: above it is what lies before it in the path.
        if step == ".." && matches!(at.components().next_back(), Some(Component::Normal(_))) {
            at.pop();
            continue;
        }
        // An absolute step replaces what is there.
        let next = at.join(&step);
        if let Ok(target) = next.read_link() {
            found.insert(at.clone());
            links += 1;
            if links > LINKS_MOST {
                return;
            }
            for step in steps(&target).into_iter().rev() {
                rest.push_front(step);
            }
        } else if rest.is_empty() || !next.exists() {
            found.insert(at);
            return;
        } else {
            at = next;
        }
    }
}

fn steps(path: &Path) -> VecDeque<OsString> {
    let steps = path.components().filter(|step| *step != Component::CurDir);
    steps.map(|step| step.as_os_str().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use tempfile::TempDir;

    use super::*;

    #[test]
    fn the_folders_of_every_link_on_the_way_are_found() {
        let dir = TempDir::new().expect("a folder");
        let root = dir.path().canonicalize().expect("it exists");
        let at = |name: &str| root.join(name);
        let of = |name: &str| -> Vec<PathBuf> { folders([at(name).as_path()].into_iter()).into_iter().collect() };
        for folder in ["etc/..2024", "secrets", "plain"] {
            fs::create_dir_all(at(folder)).expect("a folder");
        }
        fs::write(at("plain/file"), "").expect("write");
        assert_eq!(of("plain/file"), [at("plain")]);
        // As a ConfigMap is mounted.
        fs::write(at("etc/..2024/file"), "").expect("write");
        symlink("..2024", at("etc/..data")).expect("link");
        symlink("..data/file", at("etc/file")).expect("link");
        assert_eq!(of("etc/file"), [at("etc"), at("etc/..2024")]);
        // Elsewhere, by an absolute link and one that is a folder in the middle of the path.
        fs::write(at("secrets/key"), "").expect("write");
        symlink(at("secrets"), at("live")).expect("link");
        symlink(at("live/key"), at("plain/key")).expect("link");
        assert_eq!(of("plain/key"), [root.clone(), at("plain"), at("secrets")]);
        assert_eq!(of("live/../plain/file"), [root.clone(), at("plain")]);
        // A missing file will appear in the nearest folder above it.
        assert_eq!(of("plain/missing"), [at("plain")]);
        assert_eq!(of("nowhere/to/be/found"), std::slice::from_ref(&root));
        symlink("dangling", at("plain/dangling")).expect("link");
        assert_eq!(of("plain/dangling"), [at("plain")]);
        symlink("round", at("round")).expect("link");
        assert_eq!(of("round"), [root]);
    }
}

//! The part of the environment that belongs to the user of a command rather than to the proxy: folders, programs, screen.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Folders in which programs for administrators are, which the `PATH` of a user may lack.
const ADMINISTRATION: [&str; 2] = ["/usr/sbin", "/sbin"];

/// The environment of the user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserEnvironment {
    /// The home folder (`HOME`).
    pub home: Option<PathBuf>,
    /// The folder for the data of programs (`XDG_DATA_HOME`, or the system's default below the home folder).
    pub data: Option<PathBuf>,
    /// The folders of programs (`PATH`), and those for administrators.
    pub programs: Vec<PathBuf>,
    /// The user who runs the command as another one (`SUDO_USER`).
    pub sudo_user: Option<String>,
    /// Set if a browser can show a window.
    pub has_screen: bool,
}

impl UserEnvironment {
    /// Returns the environment of this process.
    pub fn of_process() -> Self {
        Self::of(|name| std::env::var_os(name).filter(|value| !value.is_empty()))
    }

    /// Returns the environment in which `variable` finds the variables that are not empty.
    fn of(variable: impl Fn(&str) -> Option<OsString>) -> Self {
        // The specification of XDG has relative paths ignored.
        let folder = |name: &str| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let home = folder("HOME");
        let default = if cfg!(target_os = "macos") { "Library/Application Support" } else { ".local/share" };
        let data = folder("XDG_DATA_HOME").or_else(|| Some(home.as_ref()?.join(default)));
        let path = variable("PATH").unwrap_or_default();
        // Not the working folder, which may be another person's.
        let programs = std::env::split_paths(&path).filter(|folder| folder.is_absolute());
        let programs = programs.chain(ADMINISTRATION.map(PathBuf::from)).collect();
        // `BROWSER` names one that needs no window.
        let shows = ["DISPLAY", "WAYLAND_DISPLAY", "BROWSER"];
        let has_screen = cfg!(target_os = "macos") || shows.iter().any(|name| variable(name).is_some());
        let sudo_user = variable("SUDO_USER").map(|name| name.to_string_lossy().into_owned());
        Self { home, data, programs, sudo_user, has_screen }
    }

    /// Returns the path of the program `name`, which is searched in the folders of programs.
    pub fn program(&self, name: &str) -> Option<PathBuf> {
        find_program(&self.programs, name)
    }
}

/// Returns the path of the file `name` in the first of `folders` that has it.
pub fn find_program<P: AsRef<Path>>(folders: &[P], name: &str) -> Option<PathBuf> {
    folders.iter().map(|folder| folder.as_ref().join(name)).find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(variables: &[(&str, &str)]) -> UserEnvironment {
        UserEnvironment::of(|name| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| OsString::from(value))
        })
    }

    #[test]
    fn the_data_folder_is_the_named_one_or_below_the_home_folder() {
        let data = |variables: &[_]| environment(variables).data;
        assert_eq!(data(&[("XDG_DATA_HOME", "/data"), ("HOME", "/home/ann")]), Some("/data".into()));
        for relative in [&[("XDG_DATA_HOME", "data"), ("HOME", "/home/ann")][..], &[("HOME", "/home/ann")]] {
            assert!(data(relative).is_some_and(|path| path.starts_with("/home/ann")));
        }
        assert_eq!(data(&[]), None);
        assert_eq!(data(&[("HOME", "here")]), None);
    }

    #[test]
    fn programs_for_administrators_are_found_too() {
        let programs = environment(&[("PATH", "/opt/bin::bin:/usr/bin")]).programs;
        assert_eq!(programs, ["/opt/bin", "/usr/bin", "/usr/sbin", "/sbin"].map(PathBuf::from));
        let found = environment(&[("PATH", concat!(env!("CARGO_MANIFEST_DIR"), "/deploy"))]).program("artifacts");
        assert_eq!(found, Some(concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/artifacts").into()));
        assert_eq!(environment(&[]).program("no-such-program"), None);
    }

    #[cfg(not(target_os = "macos"))]
    #[test]
    fn a_browser_needs_a_screen() {
        assert!(!environment(&[("HOME", "/home/ann")]).has_screen);
        assert!(environment(&[("WAYLAND_DISPLAY", "wayland-0")]).has_screen);
        assert!(environment(&[("SUDO_USER", "ann")]).sudo_user.is_some_and(|name| name == "ann"));
    }
}

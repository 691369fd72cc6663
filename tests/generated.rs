//! The generated output of the program: completions, manual pages, the configuration in force.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

use crate::PULSEGATE;

const SHELLS: [&str; 5] = ["bash", "elvish", "fish", "powershell", "zsh"];

fn pulsegate<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Output {
    Command::new(PULSEGATE).args(arguments).output().expect("it runs")
}

/// Returns what it prints; fails unless it succeeds.
fn printed<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> String {
    let output = pulsegate(arguments);
    assert!(output.status.success(), "{}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

/// Returns every command by its names, with the long flags that its own help lists.
fn commands() -> Vec<(Vec<String>, BTreeSet<String>)> {
    let mut all = Vec::new();
    below(&mut Vec::new(), &mut all);
    assert!(all.len() > 6, "only {all:?}");
    all
}

fn below(words: &mut Vec<String>, all: &mut Vec<(Vec<String>, BTreeSet<String>)>) {
    let help = printed(words.iter().map(String::as_str).chain(["--help"]));
    let flags = help.split([' ', ',', '\n', '[', '`']).filter_map(|word| {
        let name = word.strip_prefix("--")?;
        let end = name.find(|c: char| !(c.is_ascii_lowercase() || c == '-')).unwrap_or(name.len());
        (end > 0).then(|| format!("--{}", &name[..end]))
    });
    all.push((words.clone(), flags.collect()));
    let Some((_, list)) = help.split_once("\nCommands:\n") else { return };
    let list = list.split("\n\n").next().unwrap_or(list);
    for line in list.lines().filter(|line| line.starts_with("  ") && !line.starts_with("   ")) {
        let name = line.split_whitespace().next().expect("a name").to_owned();
        if name != "help" {
            words.push(name);
            below(words, all);
            words.pop();
        }
    }
}

#[test]
fn every_shell_completes_every_command_and_flag() {
    let commands = commands();
    for shell in SHELLS {
        let script = printed(["completions", shell]);
        for (words, flags) in &commands {
            assert!(words.iter().all(|word| script.contains(word)), "{shell} knows no {words:?}");
            for flag in flags {
                // Fish lists them without the dashes.
                let named = script.contains(flag.as_str()) || script.contains(&format!("-l {}", &flag[2..]));
                assert!(named, "{shell} knows no {flag} of {words:?}");
            }
        }
    }
    assert_eq!(pulsegate(["completions", "cmd"]).status.code(), Some(2));
}

#[test]
fn bash_can_read_its_completions() {
    let mut bash = Command::new("bash").arg("-n").stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("bash");
    let script = printed(["completions", "bash"]);
    bash.stdin.take().expect("piped").write_all(script.as_bytes()).expect("it reads");
    let output = bash.wait_with_output().expect("it ends");
    assert!(output.status.success() && output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn bash_completes_what_is_typed() {
    let dir = TempDir::with_prefix("pulsegate-bash-").expect("make a temporary directory");
    let script = dir.path().join("pulsegate");
    fs::write(&script, printed(["completions", "bash"])).expect("write it");
    let typed = |line: &str, words: &[&str]| {
        let mut bash = Command::new("bash");
        let call = r#"source "$0"; complete -p pulsegate >/dev/null; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
            _pulsegate pulsegate "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"; echo "${COMPREPLY[*]}""#;
        bash.args(["--norc", "--noprofile", "-c", call]).arg(&script).args(line.split(' '));
        let output = bash.output().expect("bash");
        assert!(output.status.success() && output.stderr.is_empty(), "{line:?}: {output:?}");
        let offered = String::from_utf8(output.stdout).expect("text");
        assert_eq!(offered.split_whitespace().collect::<Vec<_>>(), words, "of {line:?}");
    };
    typed("pulsegate dr", &["drain"]);
    typed("pulsegate conns --st", &["--state"]);
    typed("pulsegate conns --state ", &["open", "closed", "all"]);
    typed("pulsegate config sc", &["schema"]);
    typed("pulsegate config show --or", &["--origin"]);
    typed("pulsegate no", &[]);
}

#[test]
fn groff_has_nothing_to_say_against_the_manual() {
    let dir = TempDir::with_prefix("pulsegate-man-").expect("make a temporary directory");
    printed(["man", "--directory", &dir.path().to_string_lossy()]);
    fs::write(dir.path().join("whole.1"), printed(["man"])).expect("write it");
    let pages = fs::read_dir(dir.path()).expect("a folder").map(|page| page.expect("a page").path());
    let checked = Command::new("groff").args(["-man", "-ww", "-z", "-Tutf8"]).args(pages).output();
    // It is not part of a small Debian; the other tests check the pages without it.
    let Ok(output) = checked else { return eprintln!("no groff: not checked") };
    assert!(output.status.success() && output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Returns the text of a page as a reader sees it: hyphens are escaped in it.
fn read(page: &str) -> String {
    page.replace("\\-", "-").replace("\\fB", "").replace("\\fR", "").replace("\\fI", "")
}

#[test]
fn the_manual_names_every_command_and_flag() {
    let page = read(&printed(["man"]));
    assert!(page.contains(".TH pulsegate 1"), "{page}");
    for (words, flags) in commands() {
        let heading = format!(".SH \"PULSEGATE {}\"", words.join(" ").to_uppercase());
        let leaf = !words.is_empty() && words != ["config"];
        assert!(!leaf || page.contains(&heading), "no {heading}");
        assert_eq!(flags.iter().find(|flag| !page.contains(flag.as_str())), None, "of {words:?}");
    }
}

#[test]
fn there_is_a_page_for_every_command() {
    let dir = TempDir::with_prefix("pulsegate-man-").expect("make a temporary directory");
    let folder = dir.path().join("share/man1");
    assert_eq!(printed(["man", "--directory", &folder.to_string_lossy()]), "");
    for (words, flags) in commands() {
        let name = ["pulsegate".to_owned()].into_iter().chain(words).collect::<Vec<_>>().join("-");
        let page =
            fs::read_to_string(folder.join(format!("{name}.1"))).unwrap_or_else(|error| panic!("{name}: {error}"));
        let page = read(&page);
        assert_eq!(flags.iter().find(|flag| !page.contains(flag.as_str())), None, "in {name}");
    }
    let file = dir.path().join("file");
    fs::write(&file, "").expect("write it");
    let output = pulsegate(["man", "--directory", &file.to_string_lossy()]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("cannot write manual pages to"));
}

const TOML: &str =
    "[tls]\ncertificate = \"tls.crt\"\nprivate_key = \"tls.key\"\n[upstream]\nurl = \"unix:/run/app.sock\"\n";

fn show(file: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(PULSEGATE);
    command.args(["config", "show", "-c"]).arg(file).args(arguments);
    command.env("PULSEGATE__LOG__LEVEL", "warn").output().expect("it runs")
}

#[test]
fn the_configuration_in_force_is_shown_with_its_origins() {
    let dir = TempDir::with_prefix("pulsegate-show-").expect("make a temporary directory");
    let file = dir.path().join("proxy.toml");
    fs::write(&file, TOML).expect("write it");
    let text = |arguments: &[&str]| {
        let output = show(&file, arguments);
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    };
    let says = |text: &str, key: &str, origin: &str| {
        let line = text.lines().find(|line| line.starts_with(key)).unwrap_or_else(|| panic!("no {key} in {text}"));
        assert!(line.ends_with(origin), "{line}");
    };
    let origins = text(&["--origin", "--listen", "127.0.0.1:0"]);
    says(&origins, "address = \"127.0.0.1:0\"", "# --listen");
    says(&origins, "level = \"warn\"", "# environment PULSEGATE__LOG__LEVEL");
    says(&origins, "url = \"unix:/run/app.sock\"", &format!("# {}:5", file.display()));
    says(&origins, "delay = \"5s\"", "# default");
    let plain = text(&[]);
    assert!(plain.contains("level = \"warn\"\n") && !plain.contains("# default"), "{plain}");
    let json: serde_json::Value = serde_json::from_str(&text(&["--format", "json"])).expect("JSON");
    assert_eq!(
        json["log.level"],
        serde_json::json!({ "value": "warn", "origin": "environment PULSEGATE__LOG__LEVEL" })
    );

    // The printed configuration is read in its turn, from another folder.
    let again = dir.path().join("again/proxy.toml");
    fs::create_dir(again.parent().expect("a folder")).expect("make it");
    fs::write(&again, &plain).expect("write it");
    let output = show(&again, &[]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), plain);
}

#[test]
fn a_wrong_configuration_is_not_shown() {
    let dir = TempDir::with_prefix("pulsegate-show-").expect("make a temporary directory");
    let file = dir.path().join("proxy.toml");
    fs::write(&file, format!("{TOML}[drain]\ncode = 1000\n")).expect("write it");
    let output = show(&file, &[]);
    assert_eq!(output.status.code(), Some(78));
    assert!(output.stdout.is_empty());
    assert!(String::from_utf8_lossy(&output.stderr).contains("`drain.code` must be"), "{output:?}");
    assert_eq!(pulsegate(["config", "show", "-c", "/nowhere/proxy.toml"]).status.code(), Some(78));
    assert_eq!(pulsegate(["config"]).status.code(), Some(2));
}

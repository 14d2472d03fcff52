//! The documentation names what there is: settings, metrics, commands.

use crate::shared::{Corner, dev};
use std::{collections::BTreeSet, path::Path, process::Command};
use tests::{client::get, cluster::quorate, programs};

fn page(name: &str) -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name);
    std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

/// Words that begin with this.
fn words<'a>(text: &'a str, beginning: &str) -> BTreeSet<&'a str> {
    text.split(|letter: char| !(letter.is_ascii_alphanumeric() || letter == '_'))
        .filter(|word| word.starts_with(beginning) && word.len() > beginning.len())
        .collect()
}

#[test]
fn every_setting_is_documented() {
    let help = quorate(&["run", "--help"]).stdout;
    let settings = words(&help, "QUORATE_");
    assert!(settings.len() > 15, "{settings:?}");
    let page = page("settings.md");
    let missing: Vec<_> = settings.difference(&words(&page, "QUORATE_")).copied().collect();
    assert!(missing.is_empty(), "docs/settings.md does not name {missing:?}");
}

#[test]
fn every_metric_is_documented_and_none_is_made_up() {
    let corner = Corner::make("documented");
    dev().client(1).send(corner.guarded()).ok();
    dev().client(1).send(get("/guarded/x").host(&corner.host));
    let metrics: String = (1..=3).map(|id| dev().ops(id).send(get("/metrics")).ok().text()).collect();
    let names: BTreeSet<&str> = metrics
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE "))
        .filter_map(|rest| rest.split_whitespace().next())
        .collect();
    assert!(names.len() > 5, "{names:?}");
    let page = page("metrics.md");
    let documented = words(&page, "quorate_");
    let missing: Vec<_> = names.difference(&documented).collect();
    assert!(missing.is_empty(), "docs/metrics.md does not name {missing:?}");
}

#[test]
fn every_command_is_documented() {
    let page = page("quoratectl.md");
    let help = Command::new(programs::quoratectl()).arg("--help").output().unwrap();
    let help = String::from_utf8_lossy(&help.stdout).into_owned();
    let commands = help.split("Commands:").nth(1).and_then(|rest| rest.split("\n\n").next()).expect("commands");
    for line in commands.lines().filter(|line| line.starts_with("  ") && !line.starts_with("   ")) {
        let command = line.split_whitespace().next().expect("a name");
        assert!(
            command == "help" || page.contains(&format!("`{command}")),
            "docs/quoratectl.md does not name {command}"
        );
    }
}

//! `mempool config`: the settings in force and where they come from.
#![allow(missing_docs)]

mod common;

use common::{assert_has, fails, mempool, succeeds};
use mempool::config::SETTINGS;
use serde_json::{Value, json};

fn as_json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error} in:\n{text}"))
}

#[test]
fn every_setting_is_listed_with_its_default() {
    let table = succeeds(&mut mempool(["config"]));
    let all = as_json(&succeeds(&mut mempool(["config", "--json"])));
    assert_eq!(all.as_object().unwrap().len(), SETTINGS.iter().filter(|setting| !setting.hidden).count());
    for setting in SETTINGS.iter().filter(|setting| !setting.hidden) {
        let row = table.lines().find(|line| line.split_whitespace().next() == Some(setting.env));
        let row = row.unwrap_or_else(|| panic!("{} is missing", setting.env));
        assert_has(row, &[setting.process_default, "default", setting.values]);
        let wanted = json!({
            "value": setting.process_default, "from": "default", "variable": setting.env, "flag": setting.flag,
        });
        assert_eq!(all[setting.name], wanted);
    }
}

#[test]
fn flags_come_before_variables_and_those_before_defaults() {
    let mut command = mempool(["config", "--json", "--segment", "2048K", "--stats"]);
    let all = as_json(&succeeds(command.env("MEMPOOL_SEGMENT", "1G").env("MEMPOOL_NAME", "mine")));
    for (name, value, from) in [
        ("segment", "2M", "flag"),
        ("stats", "on", "flag"),
        ("name", "mine", "environment"),
        ("small", "slab", "default"),
    ] {
        assert_eq!((&all[name]["value"], &all[name]["from"]), (&json!(value), &json!(from)), "{name}");
    }
}

#[test]
fn what_run_refuses_is_refused() {
    assert_has(&fails(mempool(["config"]).env("MEMPOOL_SEGMENT", "1"), 125), &["segment is 1 byte", "256 KiB"]);
    assert_has(&fails(mempool(["config"]).env("MEMPOOL_SAGMENT", "1"), 125), &["did you mean MEMPOOL_SEGMENT?"]);
    assert_has(&fails(&mut mempool(["config", "--lock", "yes"]), 125), &["--lock=yes: accepted: off, try, required"]);
}

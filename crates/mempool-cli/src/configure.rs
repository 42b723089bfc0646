//! `mempool config`: the settings in force, and where each value comes from.

use std::io::Write;
use std::process::ExitCode;

use mempool::config::{Config, SETTINGS, Setting};
use serde_json::{Map, Value, json};

use crate::failure::Failure;
use crate::settings::{self, Given, Shown};

/// What to show.
pub struct Order {
    /// Flags that were given.
    pub given: Given,
    /// As JSON.
    pub json: bool,
}

/// Prints the table.
pub fn show(order: &Order) -> Result<ExitCode, Failure> {
    let config = settings::in_force(&order.given)?;
    let text = if order.json { as_json(order, &config) } else { as_table(order, &config) };
    let written = std::io::stdout().lock().write_all(text.as_bytes());
    written.map_err(|error| Failure::own(format_args!("standard output: {error}")))?;
    Ok(ExitCode::SUCCESS)
}

fn listed() -> impl Iterator<Item = &'static Setting> {
    SETTINGS.iter().filter(|setting| !setting.hidden)
}

fn origin(setting: &Setting, order: &Order) -> &'static str {
    if order.given.iter().any(|(given, _)| *given == setting) {
        "flag"
    } else if std::env::var_os(setting.env).is_some() {
        "environment"
    } else {
        "default"
    }
}

fn as_table(order: &Order, config: &Config) -> String {
    let mut text = format!("{:<28} {:<12} {:<12} {}\n", "variable", "value", "from", "values");
    for setting in listed() {
        let value = Shown(setting, config).to_string();
        text += &format!("{:<28} {value:<12} {:<12} {}\n", setting.env, origin(setting, order), setting.values);
    }
    text
}

fn as_json(order: &Order, config: &Config) -> String {
    let row = |setting: &'static Setting| {
        let value = Shown(setting, config).to_string();
        let about =
            json!({"value": value, "from": origin(setting, order), "variable": setting.env, "flag": setting.flag});
        (setting.name.to_owned(), about)
    };
    format!("{:#}\n", Value::Object(listed().map(row).collect::<Map<_, _>>()))
}

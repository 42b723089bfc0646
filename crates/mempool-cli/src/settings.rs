//! Settings from the environment and from flags, read by the library's own code, so that messages are the same.
//!
//! A flag overrides the variable, the variable the default; a variable that cannot be read is an error all the same.
//! Only flags that were given become variables of the program; what the environment says stays as it is.

use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use clap::{Arg, ArgMatches};
use mempool::config::{Config, ConfigError, SETTINGS, Setting};

use crate::failure::Failure;
use crate::say::say;

/// Flags as they were given: the setting and its text, in the order of the table.
pub type Given = Vec<(&'static Setting, OsString)>;

/// One argument for each row of the library's table.
pub fn flags() -> impl Iterator<Item = Arg> {
    SETTINGS.iter().map(|setting| {
        let flag = Arg::new(setting.name)
            .long(setting.flag.trim_start_matches('-'))
            .value_parser(clap::value_parser!(OsString))
            .hide(setting.hidden)
            .help_heading("Settings (each also a variable MEMPOOL_..., see `mempool config`)")
            .help(help(setting));
        if setting.switch {
            flag.num_args(0..=1).require_equals(true).default_missing_value("on").value_name("on|off")
        } else {
            flag.value_name(placeholder(setting))
        }
    })
}

fn help(setting: &Setting) -> String {
    let meaning = setting.help.trim_end_matches('.').replace('`', "");
    format!("{meaning} [default: {}]", setting.process_default)
}

/// What a value looks like, short: the words themselves, or what kind of figure it is.
fn placeholder(setting: &Setting) -> String {
    match setting.values {
        words if words.split(", ").all(|word| word.chars().all(|c| c.is_ascii_lowercase())) => words.replace(", ", "|"),
        figure if figure.starts_with("bytes") => "BYTES".into(),
        time if time.contains("ns, us") => "TIME".into(),
        "a whole number" => "N".into(),
        _ => "TEXT".into(),
    }
}

/// The flags that were given.
pub fn given(matches: &ArgMatches) -> Given {
    let value = |setting: &'static Setting| Some((setting, matches.get_one::<OsString>(setting.name)?.clone()));
    SETTINGS.iter().filter_map(value).collect()
}

/// The variables that say the same.
pub fn variables(given: &Given) -> impl Iterator<Item = (&'static str, String)> {
    given.iter().map(|(setting, value)| (setting.env, value.to_string_lossy().into_owned()))
}

/// What the environment says, on top of the process-wide pool's defaults.
pub fn from_environment() -> Result<Config, Failure> {
    let variables: Vec<_> = std::env::vars_os().map(|(name, value)| (name.into_vec(), value.into_vec())).collect();
    let pairs = variables.iter().map(|(name, value)| (name.as_slice(), value.as_slice()));
    Config::process().from_env(pairs).map_err(refuse)
}

/// What is in force: flags over environment over defaults, checked.
pub fn in_force(given: &Given) -> Result<Config, Failure> {
    let mut config = from_environment()?;
    for (setting, value) in given {
        config.apply(setting.flag.as_bytes(), value.as_bytes()).map_err(refuse)?;
    }
    config.validate().map_err(refuse)?;
    Ok(config)
}

/// Says which variables of the environment `command` sets itself, so that what they say does not count.
pub fn warn_of_own(command: &str, own: &[&str]) {
    for name in own.iter().filter(|name| std::env::var_os(name).is_some()) {
        say(format_args!("mempool: {name} does not count: `mempool {command}` sets {}\n", plain(own)));
    }
}

/// Settings that cannot be together: of the environment, if it has any, or one of them with those that `command` sets itself.
pub fn contradicts(command: &str, own: &[&str], error: ConfigError) -> Failure {
    let failure = refuse(error);
    if !SETTINGS.iter().any(|setting| std::env::var_os(setting.env).is_some()) {
        return failure;
    }
    failure.fix(format_args!("`mempool {command}` sets {}; unset the variable that does not go with it", plain(own)))
}

/// The names of settings by those of their variables.
fn plain(variables: &[&str]) -> String {
    let known = |name: &&str| SETTINGS.iter().find(|setting| setting.env == *name).map(|setting| setting.name);
    variables.iter().filter_map(known).collect::<Vec<_>>().join(", ")
}

fn refuse(error: ConfigError) -> Failure {
    let failure = Failure::own(error);
    match error {
        ConfigError::Unknown { nearest: None, .. } => failure.fix("`mempool config` lists all settings"),
        _ => failure,
    }
}

/// The value of the setting called `name` in a configuration, as text.
pub fn value(config: &Config, name: &str) -> String {
    SETTINGS
        .iter()
        .find(|setting| setting.name == name)
        .map(|setting| Shown(setting, config).to_string())
        .unwrap_or_default()
}

/// A setting's value in a configuration, as text that can be read back.
pub struct Shown<'a>(pub &'a Setting, pub &'a Config);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.show(self.1, f)
    }
}

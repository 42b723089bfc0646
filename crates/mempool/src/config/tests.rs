//! Each row of the table, each rule, and the documentation against the table.

use super::read::Duration;
use super::*;
use std::fs;
use std::path::PathBuf;
use std::string::{String, ToString};
use std::vec::Vec;

/// The value of `setting` as text.
fn shown(setting: &Setting, config: &Config) -> String {
    struct Shown<'a>(&'a Setting, &'a Config);
    impl core::fmt::Display for Shown<'_> {
        fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
            self.0.show(self.1, f)
        }
    }
    Shown(setting, config).to_string()
}

fn applied(name: &str, value: &str) -> Result<Config, ConfigError> {
    let mut config = Config::new();
    config.apply(name.as_bytes(), value.as_bytes()).map(|()| config)
}

/// Every word that a setting of words accepts; a good figure or name for the others.
fn examples(setting: &Setting) -> Vec<&'static str> {
    match setting.name {
        "segment" => Vec::from(["256K", "300M", "2GiB"]),
        "max_segment" => Vec::from(["1G", "0"]),
        "reserve" => Vec::from(["1M", "4097"]),
        "max_retries" | "max_threads" | "max_caches" => Vec::from(["0", "1", "65536"]),
        "watermark" => Vec::from(["1M", "4097"]),
        "watermark_signal" | "watermark_fd" => Vec::from(["0", "10"]),
        "critical" => Vec::from(["", "watchdog", "a,b c"]),
        "wait_time" | "wait_limit" | "verdict_interval" => Vec::from(["0", "17ns", "250us", "3ms", "2s"]),
        "heap_page_lifetime" => Vec::from(["0", "17", "1000000"]),
        "heap_max_alloc" => Vec::from(["4", "1K", "3200"]),
        "huge_page_size" => Vec::from(["2M", "1G", "0"]),
        "numa" => Vec::from(["off", "local", "INTERLEAVE", "0", "0-3,5", "63", "0-63", "1,3,5-7"]),
        "name" => Vec::from(["a", "cache of requests", "0123456789012345678901234567890"]),
        "fail_nth" | "fail_every" | "fail_seed" | "board" => Vec::from(["0", "7", "4294967295"]),
        "fail_above" => Vec::from(["0", "64K"]),
        "fail_rate" => Vec::from(["1", "50"]),
        "slot_shift" => Vec::from(["12", "16", "0"]),
        _ => setting.values.split(", ").collect(),
    }
}

#[test]
fn names_of_each_row_follow_from_its_name() {
    for (place, row) in SETTINGS.iter().enumerate() {
        assert_eq!(row.env, std::format!("MEMPOOL_{}", row.name.to_uppercase()));
        assert_eq!(row.flag, std::format!("--{}", row.name.replace('_', "-")));
        assert!(row.help.ends_with('.') && !row.values.is_empty(), "{}", row.name);
        assert!(SETTINGS.iter().skip(place + 1).all(|other| other.name != row.name));
        assert!(row.builder == row.name || ["stats", "process"].contains(&row.name));
        for name in [row.name, row.env, row.flag, &row.name.replace('_', "-")] {
            assert_eq!(Setting::find(name.as_bytes()), Some(row), "{name}");
        }
    }
    for none in ["", "--", "MEMPOOL_", "mempool_segment", "MEMPOOL_segment", "-segment", "--MEMPOOL_SEGMENT", "SEGMENT"]
    {
        assert_eq!(Setting::find(none.as_bytes()), None, "{none}");
    }
}

#[test]
fn defaults_are_those_of_the_table() {
    for row in SETTINGS {
        assert_eq!(shown(row, &Config::new()), row.default, "{}", row.name);
        assert_eq!(shown(row, &Config::process()), row.process_default, "{}", row.name);
        let mut config = Config::process();
        config.apply(row.env.as_bytes(), row.default.as_bytes()).unwrap();
        assert_eq!(shown(row, &config), row.default);
    }
    assert_eq!(Config::default(), Config::new());
    Config::new().validate().unwrap();
    Config::process().validate().unwrap();
}

#[test]
fn every_value_reads_back_and_changes_nothing_else() {
    for row in SETTINGS {
        for text in examples(row) {
            let config = applied(row.env, text).unwrap();
            let again = applied(row.flag, &shown(row, &config)).unwrap();
            assert_eq!(config, again, "{} {text}", row.name);
            for other in SETTINGS.iter().filter(|other| *other != row) {
                assert_eq!(shown(other, &config), other.default, "{} changed {}", row.name, other.name);
            }
        }
    }
}

#[test]
fn every_row_sets_what_its_builder_sets() {
    let base = Config::new();
    for (name, text, built) in [
        ("segment", "96M", base.segment(96 << 20)),
        ("max_segment", "1G", base.max_segment(1 << 30)),
        ("small", "heap", base.small(Small::Heap)),
        ("small", "SYSTEM", base.small(Small::System)),
        ("exhausted", "null", base.exhausted(Exhausted::Null)),
        ("exhausted", "grow", base.exhausted(Exhausted::Grow)),
        ("commit", "lazy", base.commit(Commit::Lazy)),
        ("lock", "required", base.lock(Lock::Required)),
        ("lock", "off", base.lock(Lock::Off)),
        ("reserve", "64K", base.reserve(65536)),
        ("max_retries", "3", base.max_retries(3)),
        ("wait_time", "2s", base.wait_time(2_000_000_000)),
        ("exhausted", "wait", base.exhausted(Exhausted::Wait)),
        ("wait_limit", "2s", base.wait_limit(2_000_000_000)),
        ("verdict_interval", "0", base.verdict_interval(0)),
        ("watermark", "1M", base.watermark(1 << 20)),
        ("watermark_signal", "10", base.watermark_signal(10)),
        ("watermark_fd", "3", base.watermark_fd(3)),
        ("critical", "watchdog,main", base.critical(ThreadNames::of("watchdog,main"))),
        ("heap_max_alloc", "1K", base.heap_max_alloc(1024)),
        ("heap_page_lifetime", "5000", base.heap_page_lifetime(5000)),
        ("max_threads", "12", base.max_threads(12)),
        ("max_caches", "13", base.max_caches(13)),
        ("guard_pages", "0", base.guard_pages(false)),
        ("huge_pages", "required", base.huge_pages(Wish::Required)),
        ("huge_page_size", "2M", base.huge_page_size(2 << 20)),
        ("numa", "interleave", base.numa(Numa::Interleave)),
        ("numa", "Local", base.numa(Numa::Local)),
        ("numa", "0-3,5", base.numa(Numa::Bind(0b10_1111))),
        ("dump", "off", base.dump(false)),
        ("process", "on", base.lock_process(true)),
        ("strict", "1", base.strict(true)),
        ("check_sizes", "off", base.check_sizes(false)),
        ("name", "orders", base.name("orders")),
        ("stats", "1", base.stats_at_exit(true)),
        ("slot_shift", "12", base.slot_shift(12)),
    ] {
        assert_eq!(applied(name, text), Ok(built), "{name}={text}");
        assert_ne!(built, base, "{name}: the example must differ from the default");
    }
}

#[test]
fn bad_values_are_refused_with_what_is_accepted_and_change_nothing() {
    for (name, value, parts) in [
        ("MEMPOOL_SEGMENT", "512MB", &["MEMPOOL_SEGMENT=512MB", "1024", "512M", "powers of 1024"][..]),
        ("MEMPOOL_SEGMENT", "", &["empty", "bytes"]),
        ("--segment", "-1", &["--segment=-1", "sign"]),
        ("MEMPOOL_SMALL", "slabs", &["MEMPOOL_SMALL=slabs", "slab, heap, system"]),
        ("MEMPOOL_SMALL", "", &["slab, heap, system"]),
        ("MEMPOOL_WAIT_TIME", "5", &["ns, us, ms or s"]),
        ("MEMPOOL_WAIT_TIME", "1min", &["ns, us, ms or s"]),
        ("MEMPOOL_MAX_RETRIES", "-1", &["whole number"]),
        ("MEMPOOL_MAX_RETRIES", "4294967296", &["whole number"]),
        ("MEMPOOL_MAX_RETRIES", "8x", &["whole number"]),
        ("MEMPOOL_NUMA", "64", &["MEMPOOL_NUMA=64", "off, local, interleave, or nodes: 0-3,5"]),
        ("MEMPOOL_NUMA", "3-1", &["nodes"]),
        ("MEMPOOL_NUMA", "1,", &["nodes"]),
        ("MEMPOOL_NUMA", "near", &["nodes"]),
        ("MEMPOOL_STATS", "yes", &["on, off, 1, 0"]),
        ("MEMPOOL_STATS", "\x1b[31m", &["MEMPOOL_STATS=\\x1b[31m"]),
    ] {
        let mut config = Config::process();
        let error = config.apply(name.as_bytes(), value.as_bytes()).unwrap_err().to_string();
        for part in parts {
            assert!(error.contains(part), "{error:?} lacks {part:?}");
        }
        assert_eq!(config, Config::process());
    }
    let long = applied("MEMPOOL_COMMIT", &"x".repeat(1000)).unwrap_err().to_string();
    assert!(long.len() < 120 && long.contains("..."), "{long}");
}

#[test]
fn unknown_settings_are_refused_with_the_nearest_in_the_same_style() {
    for (name, part) in [
        ("MEMPOOL_SEGMNT", "did you mean MEMPOOL_SEGMENT?"),
        ("MEMPOOL_SEGEMNT", "did you mean MEMPOOL_SEGMENT?"),
        ("MEMPOOL_segment", "did you mean MEMPOOL_SEGMENT?"),
        ("--max-thread", "did you mean --max-threads?"),
        ("waittime", "did you mean wait_time?"),
        ("MEMPOOL_EXAUSTED", "did you mean MEMPOOL_EXHAUSTED?"),
        ("MEMPOOL_LOK", "did you mean MEMPOOL_LOCK?"),
        ("MEMPOOL_COLOUR", "CONFIGURATION.md"),
        ("MEMPOOL_", "CONFIGURATION.md"),
        ("MEMPOOL_SLOT_SHIFTS", "CONFIGURATION.md"),
    ] {
        let error = applied(name, "1").unwrap_err().to_string();
        assert!(error.contains(name) && error.contains(part), "{error}");
    }
}

fn from_env(variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
    Config::process().from_env(variables.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())))
}

#[test]
fn the_environment_is_read_and_strangers_are_left_alone() {
    let config = from_env(&[
        ("PATH", "/bin"),
        ("MEMPOOL_SEGMENT", "32M"),
        ("XMEMPOOL_SEGMENT", "x"),
        ("MEMPOOL", "x"),
        ("MEMPOOL_LIBRARY", "/usr/lib/x.so"),
        ("MEMPOOL_STATS", "1"),
        ("MEMPOOL_SEGMENT", "64M"),
    ]);
    assert_eq!(config, Ok(Config::process().segment(32 << 20).stats_at_exit(true)));
    assert_eq!(from_env(&[]), Ok(Config::process()));
    assert!(matches!(from_env(&[("MEMPOOL_SEGMENTS", "32M")]), Err(ConfigError::Unknown { .. })));
    assert!(matches!(from_env(&[("MEMPOOL_SEGMENT", "32MB")]), Err(ConfigError::Value { .. })));
    assert_eq!(
        from_env(&[("MEMPOOL_RESERVE", "1T")]),
        Ok(Config::process().reserve(1 << 40)),
        "validation comes later"
    );
}

#[test]
fn ranges_and_rules_are_checked_at_their_edges() {
    let base = Config::new();
    let grow = base.exhausted(Exhausted::Grow);
    for good in [
        base.segment(SEGMENT_LEAST),
        base.segment(SEGMENT_MOST),
        grow.max_segment(64 << 20),
        grow.max_segment(SEGMENT_MOST),
        base.reserve((64 << 20) - 1),
        base.max_retries(1_000_000).wait_time(60_000_000_000),
        base.heap_max_alloc(4),
        base.heap_max_alloc(3200),
        base.heap_page_lifetime(u64::from(u32::MAX)),
        base.max_threads(65_536).max_caches(1 << 20),
        base.slot_shift(12),
        base.slot_shift(16),
        base.huge_pages(Wish::Required),
        base.huge_page_size(2 << 20),
        base.huge_page_size(64 << 20).huge_pages(Wish::Required),
        base.numa(Numa::Bind(1)).strict(true).lock_process(true),
        base.name("~"),
        base.name("0123456789012345678901234567890"),
    ] {
        assert_eq!(good.validate(), Ok(()), "{good}");
    }
    for (bad, parts) in [
        (
            base.segment(SEGMENT_LEAST - 1),
            &["segment is 262143 bytes", "from 256 KiB to 16 TiB", "MEMPOOL_SEGMENT", "--segment"][..],
        ),
        (base.segment(SEGMENT_MOST + 1), &["16 TiB"]),
        (grow.max_segment(1), &["max_segment is 1 byte"]),
        (grow.max_segment((64 << 20) - 1), &["max_segment must not be less", "67108863 bytes against 64 MiB"]),
        (base.max_segment(64 << 20), &["exhausted=grow"]),
        (base.reserve(64 << 20), &["reserve must be less than segment"]),
        (base.max_retries(1_000_001), &["1000001", "from 0 to 1000000"]),
        (base.wait_time(60_000_000_001), &["60000000001ns", "from 0 to 60s", "MEMPOOL_WAIT_TIME"]),
        (base.wait_limit(3_600_000_000_001), &["from 0 to 3600s", "MEMPOOL_WAIT_LIMIT"]),
        (base.verdict_interval(3_600_000_000_001), &["from 0 to 3600s", "--verdict-interval"]),
        (base.watermark(64 << 20), &["watermark must be less than segment"]),
        (base.watermark(1).watermark_signal(65), &["from 0 to 64"]),
        (base.watermark_fd(3), &["watermark alone"]),
        (base.heap_max_alloc(3), &["3 bytes", "4 bytes", "3200 bytes"]),
        (base.heap_max_alloc(3201), &["3201 bytes"]),
        (base.heap_page_lifetime(u64::from(u32::MAX) + 1), &["4294967295"]),
        (base.max_threads(65_537), &["65537"]),
        (base.max_caches((1 << 20) + 1), &["1048577"]),
        (base.slot_shift(11), &["from 12 to 16"]),
        (base.slot_shift(17), &["from 12 to 16"]),
        (base.huge_pages(Wish::Required).commit(Commit::Lazy), &["commit=eager"]),
        (base.huge_page_size(4096), &["huge_page_size is 4 KiB", "from 64 KiB to 16 GiB"]),
        (base.huge_page_size(3 << 20), &["power of two"]),
        (base.huge_page_size(2 << 20).huge_pages(Wish::Off), &["huge_pages=try or required"]),
        (base.huge_page_size(2 << 20).commit(Commit::Lazy), &["commit=eager"]),
        (grow.huge_page_size(2 << 20), &["exhausted=grow"]),
        (base.huge_page_size(1 << 30), &["segment must not be less than huge_page_size: 64 MiB against 1 GiB"]),
        (base.numa(Numa::Bind(0)), &["at least one node"]),
        (base.name(""), &["1 to 31 bytes", "MEMPOOL_NAME"]),
        (base.name("01234567890123456789012345678901"), &["31 bytes"]),
        (base.name("a[b"), &["a[b"]),
        (base.name("tab\t"), &["tab\\t"]),
    ] {
        let error = bad.validate().expect_err("must be refused").to_string();
        for part in parts {
            assert!(error.contains(part), "{error:?} lacks {part:?}");
        }
    }
}

#[test]
fn growth_is_bounded_by_what_is_set_or_four_segments() {
    let grow = Config::new().exhausted(Exhausted::Grow);
    for (config, limit) in [
        (Config::new(), 64 << 20),
        (grow, 256 << 20),
        (grow.max_segment(100 << 20), 100 << 20),
        (grow.segment(8 << 40), 16 << 40),
        (grow.segment(16 << 40), 16 << 40),
        (grow.segment(usize::MAX), usize::MAX),
    ] {
        assert_eq!(config.growth_limit(), limit);
    }
}

#[test]
fn names_keep_what_is_good_and_flag_what_is_not() {
    assert_eq!(Config::new().values().name.as_str(), "mempool");
    assert_eq!(Name::new(b"x".repeat(31).as_slice()).as_str(), "x".repeat(31));
    for bad in [&b""[..], &[b'x'; 32], &[b'x'; 300], b"a\0b", b"\xff", b"a\\b", b"a`", b"$", b"[", b"]"] {
        assert_eq!(Name::new(bad).as_str(), "", "{bad:?}");
        assert!(Config { values: Values { name: Name::new(bad), ..*Config::new().values() } }.validate().is_err());
    }
    assert_eq!(std::format!("{:?}", Name::new(b"a\nb")), "\"a\\nb\"");
}

#[test]
fn durations_read_back_to_the_same_number() {
    let mut value = 1u64;
    for step in 0..4000 {
        let ns = (value >> (step % 60)) / [1, 1_000, 1_000_000, 1_000_000_000][step % 4]
            * [1, 1_000, 1_000_000, 1_000_000_000][step % 4];
        assert_eq!(parse_duration(Duration(ns).to_string().as_bytes()), Ok(ns));
        value = value.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    }
    for bad in ["", "1", "ms", "1.5ms", "-1ms", "1 ms", "1MS", "1m", "18446744074s", "99999999999999999999ns"] {
        assert_eq!(parse_duration(bad.as_bytes()), Err(Unreadable::Duration), "{bad}");
    }
}

#[test]
fn a_whole_configuration_prints_as_text_that_sets_it() {
    let config = Config::process().small(Small::Heap).wait_time(1500).name("x").dump(false);
    let text = config.to_string();
    assert!(text.starts_with("segment=512M max_segment=0 small=heap "), "{text}");
    let mut again = Config::new();
    for (name, value) in text.split(' ').map(|pair| pair.split_once('=').unwrap()) {
        again.apply(name.as_bytes(), value.as_bytes()).unwrap();
    }
    assert_eq!(again, config);
    assert!(!text.contains("slot_shift"));
}

/// The table of the documentation, from the table in code.
fn table() -> String {
    let cell = |text: &str| text.replace('|', "\\|");
    let head = "| variable | flag | builder | default | values | meaning |\n|---|---|---|---|---|---|\n";
    SETTINGS.iter().filter(|row| !row.hidden).fold(head.to_string(), |text, row| {
        let default = match row.default == row.process_default {
            true => std::format!("`{}`", row.default),
            false => std::format!("`{}`; process-wide pool `{}`", row.default, row.process_default),
        };
        let (env, flag, builder) = (row.env, row.flag, row.builder);
        text + &std::format!(
            "| `{env}` | `{flag}` | `{builder}` | {default} | {} | {} |\n",
            cell(row.values),
            cell(row.help)
        )
    })
}

/// Compares docs/CONFIGURATION.md with the table; with BLESS in the environment, rewrites it.
#[test]
fn the_documentation_has_the_table_that_the_code_has() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/CONFIGURATION.md");
    let text = fs::read_to_string(&path).unwrap();
    let (before, rest) = text.split_once("<!-- settings -->\n").expect("the mark where the table begins");
    let (found, after) = rest.split_once("<!-- /settings -->").expect("the mark where the table ends");
    if std::env::var_os("BLESS").is_some() {
        let new = std::format!("{before}<!-- settings -->\n{}<!-- /settings -->{after}", table());
        fs::write(&path, new).unwrap();
        return;
    }
    assert_eq!(found, table(), "run the tests once with BLESS=1 in the environment");
    for (name, meaning) in INTERNAL {
        assert!(text.contains(&std::format!("| `{name}` | {meaning} |")), "{name} is not documented");
    }
}

/// The messages that the documentation shows are those that the code gives.
#[test]
fn the_documentation_shows_true_messages() {
    let text =
        fs::read_to_string(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/CONFIGURATION.md")).unwrap();
    let shown = text.split("```").nth(1).and_then(|block| block.strip_prefix("text\n")).expect("a block of messages");
    let errors = [
        applied("MEMPOOL_SEGMNT", "1").unwrap_err(),
        applied("MEMPOOL_SEGMENT", "512MB").unwrap_err(),
        Config::new().segment(100 << 10).validate().unwrap_err(),
        Config::new().exhausted(Exhausted::Grow).max_segment(32 << 20).validate().unwrap_err(),
    ];
    assert_eq!(shown, errors.map(|error| std::format!("{error}\n")).concat());
}

//! Settings as text, one `name=value` a line: never a panic; what is accepted shows as text that reads back alike, and
//! a small pool of it can be made or says why not.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mempool::Config;
use mempool::config::{Commit, Lock, Wish};

fuzz_target!(|data: &[u8]| {
    let mut config = Config::new();
    for line in data.split(|&byte| byte == b'\n') {
        let Some(at) = line.iter().position(|&byte| byte == b'=') else { continue };
        let before = config;
        if let Err(error) = config.apply(&line[..at], &line[at + 1..]) {
            assert_eq!(before, config, "a refused value changed something");
            assert!(!error.to_string().is_empty());
        }
    }
    let pairs = || {
        data.split(|&byte| byte == b'\n').filter_map(|line| {
            let at = line.iter().position(|&byte| byte == b'=')?;
            Some((&line[..at], &line[at + 1..]))
        })
    };
    let _ = Config::new().from_env(pairs());
    if let Err(error) = config.validate() {
        assert!(!error.to_string().is_empty());
        return;
    }
    let mut again = Config::new();
    // A name may have spaces and equals signs in it.
    for word in config.name("mempool").to_string().split(' ').filter(|word| word.contains('=')) {
        let at = word.find('=').unwrap_or(0);
        again.apply(word[..at].as_bytes(), word[at + 1..].as_bytes()).expect("what was shown can be read");
    }
    assert_eq!(again.to_string(), config.name("mempool").to_string());
    if config.values().segment <= 4 << 20 && config.growth_limit() <= 64 << 20 {
        let config = config.commit(Commit::Lazy).lock(Lock::Off).huge_pages(Wish::Off).stats_at_exit(false);
        match config.build() {
            Ok(pool) => pool.verify().expect("a sound pool"),
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
});

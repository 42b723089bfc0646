//! docs/STATS.md against the table that a pool prints: every line is explained, and the lines add up as it says.
#![allow(unsafe_code)]

use mempool::{Config, Pool};
use std::alloc::Layout;
use std::fs;
use std::path::Path;

fn page() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/STATS.md");
    fs::read_to_string(path).expect("docs/STATS.md")
}

/// The numbers of a line.
fn numbers(line: &str) -> Vec<u64> {
    line.split(|c: char| !c.is_ascii_digit()).filter_map(|word| word.parse().ok()).collect()
}

/// The line that begins with `label`.
fn line<'a>(table: &'a str, label: &str) -> &'a str {
    table.lines().find(|line| line.trim_start().starts_with(label)).unwrap_or_else(|| panic!("no line {label}"))
}

/// The lines of the table of holders: the last five numbers of each.
fn holders(table: &str) -> Vec<[u64; 5]> {
    let rows = table.lines().skip_while(|line| !line.trim_start().starts_with("holder")).skip(1);
    rows.map(|row| numbers(row).last_chunk().copied().expect("five columns")).collect()
}

fn adds_up(table: &str) {
    let sum = |column: usize| holders(table).iter().map(|row| row[column]).sum::<u64>();
    let (open, reserve_free) = (numbers(line(table, "open"))[0], numbers(line(table, "open"))[2]);
    let free = numbers(line(table, "free"))[0];
    let local = numbers(line(table, "local heaps"))[2];
    assert_eq!(open, free + reserve_free + local + sum(4), "{table}");
    assert_eq!(numbers(line(table, "live"))[..2], [sum(2), sum(3)], "{table}");
    let segment = numbers(line(table, "segment"));
    assert!(segment[0] - segment[1] >= open, "{table}");
    for [slabs, room, live, bytes, held] in holders(table) {
        assert!(room >= live && held >= bytes && (slabs > 0) == (held > 0), "{table}");
    }
}

fn explained(table: &str, page: &str) -> Vec<String> {
    let known: Vec<&str> = page.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
    let words = |line: &str| {
        let letters = |word: &&str| word.chars().all(|c| c.is_ascii_lowercase());
        line.split_whitespace().take_while(letters).collect::<Vec<_>>().join(" ")
    };
    let head = known.iter().any(|label| label.starts_with("mempool statistics of pool"));
    let lines = table.lines().skip(usize::from(head));
    lines.filter(|line| !known.iter().any(|label| is_labelled(&words(line), label))).map(str::to_owned).collect()
}

/// Whether a line with these words has this label: the same, or a cache whose name is words too.
fn is_labelled(words: &str, label: &str) -> bool {
    words == label
        || label == "cache" && words.starts_with("cache ")
        || label == "holder" && words == "holder slabs room live live bytes bytes held"
}

/// A pool in which every tier holds something, before, while and after which `check` sees its table.
fn lives(config: Config, check: &dyn Fn(&str)) {
    let pool: Pool = config.build().expect("a pool");
    check(&pool.table().to_string());
    {
        let cache = pool.cache::<[u8; 48]>("request").expect("a cache");
        let boxes: Vec<_> = (0..100u8).map(|i| cache.alloc([i; 48]).expect("an item")).collect();
        let slice = cache.alloc_slice(37, |_| [7; 48]).expect("an array");
        let large = cache.alloc_slice(5000, |_| [8; 48]).expect("a large array");
        let sizes = (1..200).map(|i| i * 7).chain([20_000, 100_000, 256, 512]);
        let objects: Vec<_> =
            sizes.map(|size| pool.alloc(Layout::from_size_align(size, 1).expect("a layout")).expect("room")).collect();
        check(&pool.table().to_string());
        let stats = pool.stats();
        assert_eq!(stats.live(), 100 + 37 + 5000 + objects.len());
        for object in objects {
            // SAFETY: allocated above, freed once.
            unsafe { pool.free(object) };
        }
        drop((boxes, slice, large));
    }
    check(&pool.table().to_string());
    assert_eq!(pool.stats().live(), 0);
    pool.verify().expect("whole");
}

#[test]
fn every_line_is_explained_and_the_lines_add_up() {
    let page = page();
    let check = |table: &str| {
        adds_up(table);
        assert_eq!(explained(table, &page), [""; 0], "not in docs/STATS.md");
    };
    let base = Config::new().segment(8 << 20).lock(mempool::config::Wish::Off);
    lives(base, &check);
    lives(base.small(mempool::config::Small::Heap), &check);
    lives(base.reserve(1 << 20), &check);
    lives(base.exhausted(mempool::config::Exhausted::Grow).max_segment(32 << 20), &check);
}

#[test]
fn a_reserve_in_use_adds_up_too() {
    let config = Config::new().segment(2 << 20).reserve(512 << 10).max_retries(0);
    let pool = config.exhausted(mempool::config::Exhausted::Null).build().expect("a pool");
    let layout = Layout::from_size_align(64 << 10, 1).expect("a layout");
    while pool.alloc(layout).is_ok() {}
    let last = pool.critical(|| pool.alloc(layout)).expect("the reserve");
    let table = pool.table().to_string();
    let reserve = numbers(line(&table, "open"));
    assert_eq!(reserve[1] - reserve[2], 64 << 10, "{table}");
    adds_up(&table);
    // SAFETY: allocated above, freed once.
    unsafe { pool.free(last) };
    adds_up(&pool.table().to_string());
}

#[test]
fn a_line_that_the_page_lacks_is_found() {
    let page = page();
    let bad = page.replace("| `local heaps` |", "| `threads` |");
    lives(Config::new().segment(4 << 20), &|table| {
        assert_eq!(explained(table, &bad).len(), 1, "the check finds what is missing");
        let cooked = table.replacen("free   ", "free  1", 1);
        assert!(std::panic::catch_unwind(|| adds_up(&cooked)).is_err(), "the check finds what does not add up");
    });
}

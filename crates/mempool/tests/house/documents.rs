//! The documents against the tree: files and functions that they name exist, links lead somewhere, the table of rooms
//! is the one that is checked.

use super::{root, rules};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The documents, by their path from the root.
fn documents() -> Vec<(String, String)> {
    let root = root();
    let mut paths = vec![root.join("README.md"), root.join("ARCHITECTURE.md"), root.join("CHANGELOG.md")];
    let docs = fs::read_dir(root.join("docs")).expect("docs").map(|entry| entry.expect("an entry").path());
    paths.extend(docs.filter(|path| path.extension().is_some_and(|end| end == "md")));
    let name = |path: &PathBuf| path.strip_prefix(&root).expect("below the root").display().to_string();
    paths.iter().map(|path| (name(path), fs::read_to_string(path).expect("a document"))).collect()
}

/// Words of `text` that name a source file, perhaps with functions behind it: `slab/tier.rs::carve`.
fn sources(text: &str) -> Vec<&str> {
    let part = |c: char| c.is_ascii_alphanumeric() || "_-/.:".contains(c);
    let words = text.split(|c| !part(c)).map(|word| word.trim_end_matches([':', '.']));
    let is_source = |file: &str| {
        let in_folder = file.contains('/') && [".c", ".cpp", ".h", ".sh"].iter().any(|end| file.ends_with(end));
        in_folder || file.ends_with(".rs")
    };
    words.filter(|word| word.split("::").next().is_some_and(is_source)).collect()
}

/// What is wrong with a name of a source file: looked for below `root`, its crates, and the library's source.
fn missing(name: &str, root: &Path) -> Option<String> {
    let mut parts = name.split("::");
    let file = parts.next().unwrap_or("");
    let places = ["", "crates", "crates/mempool", "crates/mempool/src", "crates/mempool-c"]
        .map(|place| root.join(place).join(file));
    let Some(path) = places.iter().find(|path| path.is_file()) else {
        return Some(format!("there is no file {file}"));
    };
    let text = fs::read_to_string(path).expect("a source file");
    let unknown =
        |function: &&str| !text.contains(&format!("fn {function}")) && !text.contains(&format!(" {function}("));
    parts.find(unknown).map(|function| format!("{file} has no function {function}"))
}

/// Targets of the links of `text` that are paths.
fn links(text: &str) -> Vec<&str> {
    let ends = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    ends.filter(|target| !target.contains("://") && !target.starts_with('#')).collect()
}

/// The table of rooms of a document, as `(room, imports)`.
fn rooms(text: &str) -> Vec<(String, Vec<String>)> {
    let table = text.split("<!-- rooms -->").nth(1).and_then(|rest| rest.split("<!-- /rooms -->").next());
    let rows = table.unwrap_or("").lines().filter(|line| line.starts_with("| `"));
    let quoted = |cell: &str| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
    rows.map(|row| {
        let cells: Vec<&str> = row.split('|').collect();
        (quoted(cells[1]).remove(0), quoted(cells[3]))
    })
    .collect()
}

#[test]
fn named_files_and_functions_exist() {
    let root = root();
    let mut found = 0;
    let mut complaints = Vec::new();
    for (document, text) in documents() {
        for name in sources(&text) {
            found += 1;
            complaints.extend(missing(name, &root).map(|what| format!("{document}: {what}")));
        }
    }
    assert!(found > 100, "only {found} names found");
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

/// The code blocks of `text` in `language`.
fn blocks<'a>(text: &'a str, language: &str) -> Vec<&'a str> {
    let open = format!("```{language}\n");
    text.split(&open).skip(1).filter_map(|rest| rest.split("\n```").next()).collect()
}

/// Whether a C compiler takes `code` without a warning.
fn compiles(code: &str) -> bool {
    let include = root().join("crates/mempool-c/include");
    let mut cc = Command::new("cc");
    cc.args(["-std=c11", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", "-x", "c", "-", "-I"]).arg(include);
    let mut child = cc.stdin(Stdio::piped()).stderr(Stdio::null()).spawn().expect("cc, from the package gcc");
    child.stdin.take().expect("piped").write_all(code.as_bytes()).expect("cc reads");
    child.wait().expect("cc ends").success()
}

#[test]
fn c_examples_compile() {
    let readme = fs::read_to_string(root().join("README.md")).expect("README.md");
    let examples = blocks(&readme, "c");
    assert!(!examples.is_empty());
    for example in examples {
        assert!(compiles(example), "does not compile:\n{example}");
        assert!(!compiles(&example.replace("mp_free(", "mp_fre(")), "the check finds a name that does not exist");
    }
}

#[test]
fn links_lead_somewhere() {
    for (document, text) in documents() {
        let folder = root().join(&document).parent().expect("a folder").to_owned();
        for target in links(&text) {
            let path = target.split('#').next().unwrap_or("");
            assert!(folder.join(path).exists(), "{document} links to {target}, which does not exist");
        }
    }
}

#[test]
fn the_table_of_rooms_is_the_one_that_is_checked() {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md");
    let checked =
        rules::ROOMS.iter().map(|room| (room.name.to_owned(), room.below.iter().map(|r| (*r).to_owned()).collect()));
    assert_eq!(rooms(&text), checked.collect::<Vec<(String, Vec<String>)>>());
}

#[test]
fn what_does_not_exist_is_found() {
    assert_eq!(
        sources("see `slab/tier.rs::carve`, (os/none.rs). Not a.txt or `x.rsx`"),
        ["slab/tier.rs::carve", "os/none.rs"]
    );
    let about = |name| missing(name, &root()).is_some();
    assert!(about("slab/nothing.rs") && about("slab/tier.rs::no_such_function"));
    assert!(!about("slab/tier.rs::carve") && !about("crates/mempool/src/slab/tier.rs"));
    assert_eq!(links("[a](b.md) [c](https://d) [e](#f) [g](h.md#i)"), ["b.md", "h.md#i"]);
    let table = "<!-- rooms -->\n| room | job | imports |\n| `a` | `x` | `b`, `c` |\n<!-- /rooms -->\n| `d` | | `e` |";
    assert_eq!(rooms(table), [("a".to_owned(), vec!["b".to_owned(), "c".to_owned()])]);
}

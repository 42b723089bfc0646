//! The rows of the report: workloads with the parameters that are compared by default.

use std::collections::BTreeMap;

use crate::job::{Job, Kind, Workload};
use crate::workloads;

/// A workload with parameters, under a name of its own.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// As `--only` knows it.
    pub name: &'static str,
    /// The workload's name.
    pub workload: &'static str,
    /// Parameters over the workload's defaults.
    pub given: &'static [(&'static str, usize)],
}

const fn row(name: &'static str, workload: &'static str, given: &'static [(&'static str, usize)]) -> Row {
    Row { name, workload, given }
}

/// In the order of the report. Numbers of pairs are such that each row takes about as long as the others.
pub const ROWS: [Row; 31] = [
    row("protocol", "protocol", &[]),
    row("replace-1e2", "replace", &[("live", 100), ("pairs", 20_000_000)]),
    row("replace-1e3", "replace", &[("live", 1_000), ("pairs", 16_000_000)]),
    row("replace-1e4", "replace", &[("live", 10_000)]),
    row("replace-1e5", "replace", &[("live", 100_000), ("pairs", 5_000_000)]),
    row("replace-1e6", "replace", &[("live", 1_000_000), ("pairs", 2_000_000)]),
    row("server", "server", &[]),
    row("pipe", "pipe", &[]),
    row("pipe-shuffled", "pipe", &[("shuffled", 1)]),
    row("pipe-many", "pipe", &[("many", 1)]),
    row("pipe-many-shuffled", "pipe", &[("many", 1), ("shuffled", 1)]),
    row("phases", "phases", &[]),
    row("trees", "trees", &[]),
    row("maps", "maps", &[]),
    row("strings", "strings", &[]),
    row("grow", "grow", &[]),
    row("grow-large", "grow", &[("vectors", 4), ("most", 64 << 20)]),
    row("lognormal", "lognormal", &[]),
    row("medium", "large", &[("least", 32 << 10), ("most", 1 << 20), ("live", 100), ("pairs", 40_000)]),
    row(
        "medium-untouched",
        "large",
        &[("least", 32 << 10), ("most", 1 << 20), ("live", 100), ("pairs", 200_000), ("touch", 0)],
    ),
    row("large", "large", &[]),
    row("large-untouched", "large", &[("pairs", 50_000), ("touch", 0)]),
    row("births", "births", &[]),
    row("calloc", "calloc", &[]),
    row("calloc-large", "calloc", &[("live", 16), ("least", 64 << 10), ("most", 4 << 20), ("pairs", 5_000)]),
    row("aligned", "aligned", &[]),
    row("caches", "caches", &[]),
    row("caches-arrays", "caches", &[("longest", 16), ("pairs", 3_000_000)]),
    row("steady", "steady", &[]),
    row("steady-small", "steady", &[("most", 1_024)]),
    row("steady-1e5", "steady", &[("live", 100_000)]),
];

/// Rows for what only a pool has: how tightly it packs, and what it costs with its size and with what is alive.
pub const POOL_ROWS: [Row; 9] = [
    row("fit-replace", "replace", &[("live", 60_000), ("pairs", 400_000)]),
    row("fit-lognormal", "lognormal", &[("objects", 1_500_000), ("most", 16 << 10)]),
    row("fit-server", "server", &[("live", 30_000), ("pairs", 60_000), ("lives", 5)]),
    row("fit-maps", "maps", &[("entries", 80_000), ("maps", 3)]),
    row("fit-trees", "trees", &[("nodes", 150_000), ("trees", 2)]),
    row("fit-phases", "phases", &[("bytes", 16 << 20), ("repeat", 3)]),
    row("fill", "fill", &[]),
    row("segments", "replace", &[("live", 1_000), ("pairs", 4_000_000)]),
    row("objects", "replace", &[("least", 8), ("most", 32), ("pairs", 2_000_000)]),
];

impl Row {
    /// The row of that name.
    #[must_use]
    pub fn find(name: &str) -> Option<&'static Self> {
        static ALL: [Row; ROWS.len()] = ROWS;
        static POOL: [Row; POOL_ROWS.len()] = POOL_ROWS;
        ALL.iter().chain(&POOL).find(|row| row.name == name)
    }

    /// What it does.
    ///
    /// # Panics
    /// The row names no workload: a slip in the table, which its test finds.
    #[must_use]
    pub fn workload(&self) -> &'static Workload {
        workloads::find(self.workload).expect("the table names workloads that exist")
    }

    /// Whether it has as many threads as asked for.
    #[must_use]
    pub fn is_threaded(&self) -> bool {
        self.workload().kind == Kind::Threaded
    }

    /// Who can serve it in this process besides malloc: named caches of the pool and of crates.
    #[must_use]
    pub fn suppliers(&self) -> &'static [&'static str] {
        match (self.workload().caches, self.given.iter().any(|(name, value)| *name == "longest" && *value > 1)) {
            (false, _) => &[],
            (true, true) => &["pool"],
            (true, false) => &["pool", "slab", "sharded-slab"],
        }
    }

    /// In this process, with `set` over the row's own parameters.
    ///
    /// # Errors
    /// `set` names what the workload does not have; the message lists what it has.
    pub fn job(&self, threads: usize, scale: f64, set: &BTreeMap<String, usize>) -> Result<Job, String> {
        let workload = self.workload();
        let mut given: BTreeMap<String, usize> =
            self.given.iter().map(|(name, value)| ((*name).into(), *value)).collect();
        for (name, value) in set {
            if !workload.parameters.iter().any(|parameter| parameter.name == name) {
                let known: Vec<&str> = workload.parameters.iter().map(|parameter| parameter.name).collect();
                return Err(format!("{} has no parameter {name}; it has {}", workload.name, known.join(", ")));
            }
            given.insert(name.clone(), *value);
        }
        Ok(Job::new(workload, threads, scale, given))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_name_workloads_and_parameters_that_exist() {
        let rows = [ROWS.as_slice(), &POOL_ROWS].concat();
        for (index, row) in rows.iter().enumerate() {
            assert!(rows[..index].iter().all(|other| other.name != row.name), "{} twice", row.name);
            let known = row.workload().parameters;
            for (name, _) in row.given {
                assert!(known.iter().any(|parameter| parameter.name == *name), "{}: {name}", row.name);
            }
        }
        let wrong = [("lives".to_owned(), 3)].into();
        let error = Row::find("maps").unwrap().job(1, 1.0, &wrong).unwrap_err();
        assert_eq!(error, "maps has no parameter lives; it has entries, value, maps");
    }
}

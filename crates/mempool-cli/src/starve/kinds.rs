//! The kinds of starvation, which of them this machine allows, and why not the others.

use std::fs;

use super::cgroup::{self, Place};

/// A way to take memory away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// As quiet, with the worker's system calls about memory counted, which costs time.
    Counted,
    /// Nobody takes anything: what the others are compared with.
    Quiet,
    /// `RLIMIT_AS`, filled by a hog in the same process.
    Addresses,
    /// A memory cgroup that a hog has filled; the kernel ends somebody when more is needed.
    Killer,
    /// A memory cgroup that a hog has filled; who needs more sleeps until there is some (version 1, `oom_control`).
    Sleep,
    /// A memory cgroup that a hog has filled to its mark; who needs more is slowed down (version 2, `memory.high`).
    Throttle,
    /// A memory cgroup full of page cache, which must go before anybody gets memory.
    Cache,
    /// A memory cgroup whose hog makes the kernel swap.
    Swap,
    /// `vm.overcommit_memory = 2`, and a hog that has been promised all there is: on the whole machine.
    Overcommit,
}

/// All kinds that are shown, in the order in which they are run.
pub const ALL: [Kind; 8] = [
    Kind::Quiet,
    Kind::Addresses,
    Kind::Killer,
    Kind::Sleep,
    Kind::Throttle,
    Kind::Cache,
    Kind::Swap,
    Kind::Overcommit,
];

impl Kind {
    /// Its name, for flags and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Counted => "counted",
            Self::Quiet => "quiet",
            Self::Addresses => "addresses",
            Self::Killer => "killer",
            Self::Sleep => "sleep",
            Self::Throttle => "throttle",
            Self::Cache => "cache",
            Self::Swap => "swap",
            Self::Overcommit => "overcommit",
        }
    }

    /// What happens, for people.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Counted => "no hog; system calls about memory are counted",
            Self::Quiet => "no hog: nothing is taken away",
            Self::Addresses => "RLIMIT_AS: a hog thread takes every address",
            Self::Killer => "memory cgroup filled by a hog; the killer is on",
            Self::Sleep => "memory cgroup filled by a hog; who needs more sleeps",
            Self::Throttle => "memory cgroup filled to memory.high; who needs more is slowed down",
            Self::Cache => "memory cgroup filled with page cache",
            Self::Swap => "memory cgroup whose hog makes the kernel swap",
            Self::Overcommit => "strict overcommit: a hog is promised all memory",
        }
    }

    /// The kind of that name.
    pub fn of(name: &str) -> Option<Self> {
        ALL.into_iter().chain([Self::Counted]).find(|kind| kind.name() == name)
    }

    /// Whether the hog is a process of its own.
    pub const fn has_hog_process(self) -> bool {
        !matches!(self, Self::Counted | Self::Quiet | Self::Addresses)
    }

    /// Whether it happens in a memory cgroup.
    pub const fn in_cgroup(self) -> bool {
        self.has_hog_process() && !matches!(self, Self::Overcommit)
    }

    /// Why this machine does not allow it; None where it does. `asked`: somebody named this kind.
    pub fn refusal(self, asked: bool) -> Option<String> {
        let place = || cgroup::place();
        match self {
            Self::Counted | Self::Quiet | Self::Addresses => None,
            Self::Killer | Self::Cache => place().err(),
            Self::Sleep => match place() {
                Ok(Place { version: 1, .. }) => None,
                Ok(_) => Some("cgroups of version 2 have no memory.oom_control; see throttle".into()),
                Err(why) => Some(why),
            },
            Self::Throttle => match place() {
                Ok(Place { version: 2, .. }) => None,
                Ok(_) => Some("cgroups of version 1 have no memory.high; see sleep".into()),
                Err(why) => Some(why),
            },
            Self::Swap => match fs::read_to_string("/proc/swaps").map(|text| text.lines().count()) {
                Ok(2..) => place().err(),
                _ => Some("this machine has no swap (/proc/swaps is empty)".into()),
            },
            Self::Overcommit => match fs::read_to_string("/proc/sys/vm/overcommit_memory") {
                Ok(mode) if mode.trim() == "2" && asked => None,
                Ok(mode) if mode.trim() == "2" => {
                    Some("it would starve every process of this machine: only with --kinds overcommit".into())
                }
                Ok(mode) => Some(format!("vm.overcommit_memory is {}, not 2", mode.trim())),
                Err(error) => Some(format!("/proc/sys/vm/overcommit_memory: {error}")),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_a_name_and_is_allowed_or_says_why_not() {
        for kind in ALL {
            assert_eq!(Kind::of(kind.name()), Some(kind));
            assert!(!kind.words().is_empty() && kind.refusal(false).is_none_or(|why| why.len() > 10));
        }
        assert_eq!((Kind::of("none"), Kind::Quiet.refusal(false)), (None, None));
        assert!(
            Kind::Sleep.refusal(false).is_some() || Kind::Throttle.refusal(false).is_some(),
            "one version at a time"
        );
    }
}

//! Where a request came from: frames, with function and line where the program was built to tell.

use std::collections::HashMap;

use object::{Object, ObjectKind};

/// Libraries whose calls are made for somebody: the site is who called them.
const PASSED: [&str; 7] = ["libc.so", "libc-", "libstdc++", "libc++", "libgcc_s", "ld-linux", "libmempool"];

/// One frame.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Frame {
    /// The function, or the nearest name, or nothing.
    pub function: String,
    /// File and line, or nothing.
    pub line: String,
    /// The module's path.
    pub module: String,
    /// Where in the module, as its own tables count.
    pub offset: u64,
}

/// Where a request came from.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Site {
    /// Innermost first, up to the one that is the site's name; none for a request that nobody saw.
    pub frames: Vec<Frame>,
    /// What the site is called without.
    pub otherwise: &'static str,
}

impl Frame {
    /// Short, for a table.
    pub fn short(&self) -> String {
        let module = self.module.rsplit('/').next().unwrap_or_default();
        let name =
            if self.function.is_empty() { format!("{module}+{:#x}", self.offset) } else { self.function.clone() };
        match (self.line.as_str(), self.function.is_empty()) {
            ("", true) => name,
            ("", false) => format!("{name} ({module}+{:#x})", self.offset),
            (line, _) => format!("{name} ({line})"),
        }
    }
}

impl Site {
    /// One that is known by its name alone.
    pub fn unseen(otherwise: &'static str) -> Self {
        Self { frames: Vec::new(), otherwise }
    }

    /// Whether both have the same name. Two calls on one line are two sites.
    pub fn is_same(&self, other: &Self) -> bool {
        (self.frames.last(), self.otherwise) == (other.frames.last(), other.otherwise)
    }

    /// Short, for a table: the site's name, and by which library calls.
    pub fn short(&self) -> String {
        let mut names = self.frames.iter().rev().map(Frame::short);
        names.next().unwrap_or_else(|| self.otherwise.into())
    }
}

/// Turns addresses into names; keeps what it has read of each module.
#[derive(Default)]
pub struct Names {
    modules: HashMap<String, Option<Module>>,
}

struct Module {
    /// Whether addresses in its tables are those of the running program.
    is_fixed: bool,
    loader: addr2line::Loader,
}

impl Names {
    /// The site that the text of a board means: a line per frame, address, module's start, module, nearest name.
    pub fn of(&mut self, text: &str) -> Site {
        let mut frames = Vec::new();
        for line in text.lines() {
            let mut parts = line.split('\t');
            let mut number = || parts.next().and_then(|part| u64::from_str_radix(part, 16).ok());
            let (Some(address), Some(start)) = (number(), number()) else { continue };
            let (module, name) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
            let is_passed = PASSED.iter().any(|part| module.rsplit('/').next().is_some_and(|m| m.starts_with(part)));
            frames.push(self.frame(address, start, module, name));
            if !is_passed {
                break;
            }
        }
        Site { frames, otherwise: "unknown" }
    }

    fn frame(&mut self, address: u64, start: u64, path: &str, nearest: &str) -> Frame {
        let module = self.modules.entry(path.to_owned()).or_insert_with(|| Module::open(path));
        let mut frame = Frame {
            function: nearest.into(),
            line: String::new(),
            module: path.into(),
            offset: address.wrapping_sub(start),
        };
        let Some(module) = module else { return frame };
        if module.is_fixed {
            frame.offset = address;
        }
        if let Ok(Some(location)) = module.loader.find_location(frame.offset)
            && let Some(file) = location.file
        {
            let file = file.rsplit('/').next().unwrap_or(file);
            frame.line = format!("{file}:{}", location.line.unwrap_or(0));
        }
        let inlined = module.loader.find_frames(frame.offset).ok().and_then(|mut frames| frames.next().ok().flatten());
        let function = inlined.and_then(|frame| frame.function);
        if let Some(name) = function.as_ref().and_then(|function| function.raw_name().ok()) {
            frame.function = readable(&name);
        } else if let Some(symbol) = module.loader.find_symbol(frame.offset) {
            frame.function = readable(symbol);
        }
        frame
    }
}

impl Module {
    /// None for a module without tables, or that is gone.
    fn open(path: &str) -> Option<Self> {
        let content = std::fs::read(path).ok()?;
        let is_fixed = object::File::parse(&*content).ok()?.kind() == ObjectKind::Executable;
        Some(Self { is_fixed, loader: addr2line::Loader::new(path).ok()? })
    }
}

/// What the source calls a function. Names as C has them stay: one letter may mean a type to a demangler.
fn readable(name: &str) -> String {
    let is_mangled = name.starts_with("_Z") || name.starts_with("_R");
    if is_mangled { addr2line::demangle_auto(name.into(), None).into_owned() } else { name.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_cxx_and_rust_are_made_readable_and_those_of_c_stay() {
        let cases = [
            ("f", "f"),
            ("i", "i"),
            ("v", "v"),
            ("Ss", "Ss"),
            ("main", "main"),
            ("_Z1fi", "f(int)"),
            ("_ZN4core3fmt5Write9write_fmt17h0123456789abcdefE", "core::fmt::Write::write_fmt"),
            ("_RNvC6_123foo3bar", "123foo::bar"),
        ];
        for (name, shown) in cases {
            assert_eq!(readable(name), shown);
        }
    }
}

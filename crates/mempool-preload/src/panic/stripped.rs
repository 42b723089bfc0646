//! The same functions in a program without a symbol table: by who calls whom.
//!
//! Every panic comes to `_Unwind_RaiseException`, which the program imports, through three functions that the standard library keeps
//! apart: `__rust_start_panic` calls it, `rust_panic` that, and `panic_with_hook` and `panic_without_hook` those. So the machine code is searched
//! for calls, straight or through a word of the global offset table, of the first, of what was found, and of what was found then. Where
//! functions begin say the tables for unwinding, which `strip` must leave.
//!
//! In older versions `rust_panic` is a part of those two, and who calls them is too many to be noted, as it should be.
//!
//! *Limits:* x86-64. A program that does not hold a sentence of the standard library's is not taken for one of Rust's.

use super::{Image, MOST};

/// The function that all panics come to.
const LAST: &[u8] = b"_Unwind_RaiseException";
/// What the standard library says when a panic goes wrong.
const SENTENCE: &[u8] = b"thread panicked while processing panic";
/// Calls on the way there.
const CALLS: usize = 3;

/// Tags of the dynamic section.
const DT_PLTRELSZ: usize = 2;
const DT_STRTAB: usize = 5;
const DT_SYMTAB: usize = 6;
const DT_RELA: usize = 7;
const DT_RELASZ: usize = 8;
const DT_JMPREL: usize = 23;
/// Bytes of a relocation, and the type of those that say an address of the program itself.
const RELOCATION: usize = 24;
const R_X86_64_RELATIVE: usize = 8;
/// Of the table of functions: relative to the table itself, in 32 bits with a sign, in order.
const SORTED: usize = 0x3b;

/// A few different addresses.
#[derive(Clone, Copy, Default)]
struct Few {
    at: [usize; MOST],
    count: usize,
}

impl Few {
    fn list(&self) -> &[usize] {
        self.at.get(..self.count).unwrap_or(&[])
    }

    /// None when there are too many.
    fn add(&mut self, address: usize) -> Option<()> {
        if !self.list().contains(&address) {
            *self.at.get_mut(self.count)? = address;
            self.count += 1;
        }
        Some(())
    }
}

/// `number` of 32 bits as one with a sign.
const fn signed(number: usize) -> usize {
    number as u32 as i32 as usize
}

impl Image<'_> {
    /// Notes the functions. None when it is no such program, or something is not as it should be.
    pub(super) fn note_callers(&self) -> Option<()> {
        if cfg!(not(target_arch = "x86_64")) {
            return None;
        }
        let bias = self.bias()?;
        let table = self.segment(|kind, _| kind == libc::PT_GNU_EH_FRAME as usize)?.offset;
        let (mut functions, mut words) = (Few::default(), Few::default());
        self.relocations(|place, kind, _, symbol| {
            let imported = kind != R_X86_64_RELATIVE && self.is_named(symbol, LAST) == Some(true);
            if imported { words.add(place) } else { Some(()) }
        })?;
        if words.count == 0 || !self.0.windows(SENTENCE.len()).any(|some| some == SENTENCE) {
            return None;
        }
        for _ in 0..CALLS {
            (functions, words) = (self.callers(table, &functions, &words)?, Few::default());
            for start in functions.list() {
                let [_, end] = self.function(table, *start)?;
                super::note(bias.wrapping_add(*start), bias.wrapping_add(end));
            }
            self.relocations(|place, kind, addend, _| {
                let says = kind == R_X86_64_RELATIVE && functions.list().contains(&addend);
                if says { words.add(place) } else { Some(()) }
            })?;
        }
        Some(())
    }

    /// The functions that call one of `functions`, or what one of `words` says. None if there are none, or too many.
    fn callers(&self, table: usize, functions: &Few, words: &Few) -> Option<Few> {
        let mut found = Few::default();
        let code = self.segment(|kind, flags| kind == libc::PT_LOAD as usize && flags & libc::PF_X as usize != 0)?;
        let bytes = self.0.get(code.offset..code.offset.checked_add(code.bytes)?)?;
        for (at, pair) in bytes.windows(2).enumerate() {
            let (length, wanted) = match pair {
                // call, jmp
                [0xe8 | 0xe9, _] => (5, functions),
                // The same through a word.
                [0xff, 0x15 | 0x25] => (6, words),
                _ => continue,
            };
            let Some(by) = self.number::<4>(code.offset + at + length - 4) else { continue };
            let target = (code.address + at + length).wrapping_add(signed(by));
            if wanted.list().contains(&target) {
                let [start, _] = self.function(table, code.address + at)?;
                if !functions.list().contains(&start) {
                    found.add(start)?;
                }
            }
        }
        (found.count > 0).then_some(found)
    }

    /// Where the function that `address` lies in begins, and where the next one does. By halves.
    fn function(&self, table: usize, address: usize) -> Option<[usize; 2]> {
        /// Version, encoding of a pointer and of a number that are 32 bits each, of the table.
        const HEAD: usize = 12;
        let count = self.number::<4>(table + 8)?;
        if self.number::<1>(table)? != 1 || self.number::<1>(table + 3)? != SORTED {
            return None;
        }
        let base = self.segment(|kind, _| kind == libc::PT_GNU_EH_FRAME as usize)?.address;
        let begin = |k: usize| Some(base.wrapping_add(signed(self.number::<4>(table + HEAD + k.checked_mul(8)?)?)));
        let (mut low, mut high) = (0, count);
        while low + 1 < high {
            let middle = low.midpoint(high);
            if begin(middle)? <= address { low = middle } else { high = middle }
        }
        Some([begin(low)?, begin(low + 1)?])
    }

    /// Calls `f` with each relocation: place, type, addend, and the offset in the file of its symbol. None as soon as `f` says so.
    fn relocations(&self, mut f: impl FnMut(usize, usize, usize, usize) -> Option<()>) -> Option<()> {
        let symbols = self.offset(self.dynamic(DT_SYMTAB)?)?;
        for (first, bytes) in [(DT_RELA, DT_RELASZ), (DT_JMPREL, DT_PLTRELSZ)] {
            let (Some(first), Some(bytes)) = (self.dynamic(first), self.dynamic(bytes)) else { continue };
            let start = self.offset(first)?;
            for at in (start..start.checked_add(bytes)?).step_by(RELOCATION) {
                let symbol = symbols.checked_add(self.number::<4>(at + 12)?.checked_mul(super::SYMBOL)?)?;
                f(self.number::<8>(at)?, self.number::<4>(at + 8)?, self.number::<8>(at + 16)?, symbol)?;
            }
        }
        Some(())
    }

    /// Whether the symbol at `symbol` has this name.
    fn is_named(&self, symbol: usize, name: &[u8]) -> Option<bool> {
        let names = self.offset(self.dynamic(DT_STRTAB)?)?;
        let rest = self.0.get(names.checked_add(self.number::<4>(symbol)?)?..)?;
        Some(rest.starts_with(name) && rest.get(name.len()) == Some(&0))
    }

    /// What the dynamic section says for `tag`.
    fn dynamic(&self, tag: usize) -> Option<usize> {
        let section = self.segment(|kind, _| kind == libc::PT_DYNAMIC as usize)?;
        let mut entries = (section.offset..section.offset.checked_add(section.bytes)?.min(self.0.len())).step_by(16);
        let at = entries.find(|&at| self.number::<8>(at) == Some(tag))?;
        self.number::<8>(at + 8)
    }

    /// Where in the file lies what the program finds at `address`.
    fn offset(&self, address: usize) -> Option<usize> {
        let holds = |s: &super::Segment| address.wrapping_sub(s.address) < s.bytes;
        let mut all = self.segments().filter(|(kind, ..)| *kind == libc::PT_LOAD as usize).map(|(_, _, s)| s);
        all.find(holds).and_then(|s| s.offset.checked_add(address - s.address))
    }
}

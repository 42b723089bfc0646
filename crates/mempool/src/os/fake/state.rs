//! The system's books: calls counted, pages looked up, what they promise checked.

use super::*;

impl State {
    /// Notes the call, and fails it if that is the plan.
    pub(super) fn enter(&mut self, call: &'static str) -> Result<(), OsError> {
        self.calls.push(call);
        let Some(plan) = self.plan.as_mut().filter(|plan| plan.only.is_empty() || plan.only == call) else {
            return Ok(());
        };
        plan.seen += 1;
        let strikes = match plan.strike {
            Strike::Once => plan.seen == plan.at,
            Strike::ForEver => plan.seen >= plan.at,
        };
        if strikes { Err(OsError { call, errno: plan.errno }) } else { Ok(()) }
    }

    /// The states of the pages of `range`, which lies in one reservation.
    pub(super) fn pages(&mut self, call: &str, range: Range) -> &mut [PageState] {
        let start = range.start.addr();
        assert!(
            start.is_multiple_of(self.page) && range.bytes.is_multiple_of(self.page),
            "{call}: {range:?} is not whole OS pages"
        );
        let (base, found) = self
            .reservations
            .range_mut(..=start)
            .next_back()
            .unwrap_or_else(|| panic!("{call}: {range:?} is not reserved"));
        let first = (start - base) / self.page;
        let pages = found.pages.get_mut(first..first + range.bytes / self.page);
        pages.unwrap_or_else(|| panic!("{call}: {range:?} reaches outside of its reservation"))
    }

    pub(super) fn committed(&mut self, call: &str, range: Range) -> &mut [PageState] {
        let pages = self.pages(call, range);
        assert!(pages.iter().all(|page| page.committed), "{call}: part of {range:?} is not committed");
        pages
    }

    pub(super) fn count(&self, which: impl Fn(&PageState) -> bool) -> usize {
        self.reservations.values().flat_map(|found| &found.pages).filter(|page| which(page)).count() * self.page
    }
}

//! Budgets: what one tenant of the pool may have. A budget is known by its number plus one; 0 is none.
#![allow(unsafe_code)]

use core::ffi::{CStr, c_char, c_int, c_uint};

use mempool::{Config, InitError, process};

use crate::error::{ARGUMENT, BUDGET, OK, fail, fail_init};

/// The number of the budget `budget` of the caller's; a code, and the last error says so, if there is none.
pub(crate) fn number(budget: c_uint) -> Result<usize, c_int> {
    if !process::is_ready() {
        return Err(fail_init(&InitError::NotInitialised));
    }
    let number = (budget as usize).checked_sub(1);
    let known = number.filter(|&number| process::budget_info(number).is_some());
    known.ok_or_else(|| fail(ARGUMENT, format_args!("there is no budget {budget}")))
}

/// See the header.
///
/// # Safety
/// `budget` is null or can be written to; `name` is null or ends in a zero.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mp_budget_make(budget: *mut c_uint, name: *const c_char, least: usize, most: usize) -> c_int {
    if budget.is_null() || name.is_null() {
        let which = if budget.is_null() { "its place" } else { "its name" };
        return fail(ARGUMENT, format_args!("cannot make a budget: {which} is NULL"));
    }
    // SAFETY: contract.
    let Ok(name) = unsafe { CStr::from_ptr(name) }.to_str() else {
        return fail(ARGUMENT, "the budget's name is not UTF-8");
    };
    if let Err(error) = process::ensure(Config::process()) {
        return fail_init(&error);
    }
    match process::budget_create(name, least, most) {
        Some(Ok(number)) => {
            // SAFETY: contract.
            unsafe { budget.write(number as c_uint + 1) };
            OK
        }
        Some(Err(error)) => fail(BUDGET, error),
        None => fail_init(&InitError::NotInitialised),
    }
}

/// See the header.
///
/// # Safety
/// `before` is null or can be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mp_budget_enter(budget: c_uint, before: *mut c_uint) -> c_int {
    if budget != 0
        && let Err(code) = number(budget)
    {
        return code;
    }
    match process::budget_enter(u8::try_from(budget).unwrap_or(0)) {
        Some(Ok(last)) => {
            // SAFETY: contract.
            if let Some(before) = unsafe { before.as_mut() } {
                *before = c_uint::from(last);
            }
            OK
        }
        Some(Err(error)) => fail(BUDGET, error),
        None => fail_init(&InitError::NotInitialised),
    }
}

/// See the header.
#[unsafe(no_mangle)]
pub extern "C" fn mp_budget_used(budget: c_uint) -> usize {
    number(budget).ok().and_then(process::budget_info).map_or(0, |info| info.used)
}

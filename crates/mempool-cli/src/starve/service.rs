//! The worker: a service that answers requests at a steady rate and keeps sessions between them.
//!
//! A request is a text; it is built, split into parameters (a `BTreeMap` of `String`s), its words counted (a
//! `HashMap`), and answered with a text of 1 to 64 KiB. Everything in it follows from the request's number, so that the
//! result is checked against a sum that needs no memory. Sessions live for thousands of requests, and are
//! checked again when they end; their number swings between [`QUIET`] and [`BUSY`], as the load of a real
//! service does. The hog starts in the first quiet time. A request is late from the moment when it was due: who is held
//! up answers the next ones late too, and that counts.
//!
//! Where the standard library lets a program survive a refused allocation (`try_reserve`), this one does: it gives
//! the request up and goes on. `BTreeMap` has no such way; there the process ends, as programs do.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use super::board::{Board, Head};
use super::kinds::Kind;
use super::records::{Record, RecordBox, Records};
use super::{RATE, WorkerOrder, hog, watch};

/// Sessions at the quietest time, and at the busiest.
const QUIET: u64 = 1000;
const BUSY: u64 = 9000;
/// Waves of load in a run.
const WAVES: u64 = 4;
/// The hog starts after this part of the first wave, one in so many: while it is still quiet.
const BEFORE_HOG: u64 = 10;
/// Sessions that one request opens or ends at most.
const STEP: u64 = 32;
/// Parameters of a request.
const PARAMETERS: u64 = 24;
/// How long before a request is due the worker is awake. Half of the time between two: a thread of real-time priority that never sleeps
/// is held up by the kernel, for the sake of others, for tens of milliseconds.
const EARLY: Duration = Duration::from_nanos(500_000_000 / RATE);
/// Bytes of an answer in which words are counted.
const COUNTED: usize = 8 << 10;

/// An allocation of so many bytes was refused.
#[derive(Debug)]
pub struct Refused(pub usize);

/// The pseudo-random sequence that all content follows from.
#[derive(Clone)]
struct Sequence(u64);

impl Sequence {
    fn of(number: u64) -> Self {
        Self(number.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// From `low` up to and without `high`.
    fn within(&mut self, low: u64, high: u64) -> u64 {
        low + self.next() % (high - low)
    }
}

/// A checksum that depends on order.
fn add(sum: u64, value: u64) -> u64 {
    (sum ^ value).wrapping_mul(0x100_0000_01B3).rotate_left(23)
}

fn sum_of(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let sum = words.iter().fold(7, |sum, word| add(sum, u64::from_le_bytes(*word)));
    rest.iter().fold(sum, |sum, byte| add(sum, u64::from(*byte)))
}

/// `bytes` letters from `sequence`, eight at a time.
fn text(sequence: &mut Sequence, bytes: u64) -> Result<String, Refused> {
    let mut text = Vec::new();
    let len = bytes as usize;
    text.try_reserve_exact(len).map_err(|_| Refused(len))?;
    while text.len() < len {
        let some = letters(sequence.next());
        text.extend_from_slice(some.get(..len - text.len()).unwrap_or(&some));
    }
    // Letters are ASCII, so nothing is lost.
    Ok(String::from_utf8(text).unwrap_or_default())
}

/// Eight letters from `a` to `h`.
fn letters(value: u64) -> [u8; 8] {
    const LOW_BITS: u64 = 0x0707_0707_0707_0707;
    const LETTER_A: u64 = 0x6161_6161_6161_6161;
    ((value & LOW_BITS) + LETTER_A).to_le_bytes()
}

/// The sum that [`sum_of`] gives for [`text`], without the text.
fn expected_sum(sequence: &mut Sequence, bytes: u64) -> u64 {
    let whole = (0..bytes / 8).fold(7, |sum, _| add(sum, u64::from_le_bytes(letters(sequence.next()))));
    let rest = bytes % 8;
    if rest == 0 {
        return whole;
    }
    letters(sequence.next()).into_iter().take(rest as usize).fold(whole, |sum, byte| add(sum, u64::from(byte)))
}

fn copied(part: &str) -> Result<String, Refused> {
    let mut text = String::new();
    text.try_reserve_exact(part.len()).map_err(|_| Refused(part.len()))?;
    text.push_str(part);
    Ok(text)
}

/// What a client sends: `/n?k0=123&k1=...`.
fn request_text(number: u64) -> Result<String, Refused> {
    let mut text = String::new();
    let most = 32 * (PARAMETERS as usize + 1);
    text.try_reserve_exact(most).map_err(|_| Refused(most))?;
    let mut sequence = Sequence::of(number);
    text.push('/');
    push_number(&mut text, number);
    for key in 0..PARAMETERS {
        text.push(if key == 0 { '?' } else { '&' });
        text.push('k');
        push_number(&mut text, key);
        text.push('=');
        push_number(&mut text, sequence.next() % 1_000_000);
    }
    Ok(text)
}

fn push_number(text: &mut String, number: u64) {
    let mut digits = [0; 20];
    let (mut first, mut rest) = (digits.len(), number);
    loop {
        first -= 1;
        if let Some(digit) = digits.get_mut(first) {
            *digit = b'0' + (rest % 10) as u8;
        }
        rest /= 10;
        if rest == 0 || first == 0 {
            break;
        }
    }
    text.extend(digits.iter().skip(first).map(|digit| char::from(*digit)));
}

/// Does request `number`; whether the result is right.
fn answer(number: u64) -> Result<bool, Refused> {
    let request = request_text(number)?;
    let (_, query) = request.split_once('?').unwrap_or_default();
    let mut parameters = BTreeMap::new();
    for pair in query.split('&') {
        let (key, value) = pair.split_once('=').unwrap_or_default();
        parameters.insert(copied(key)?, copied(value)?);
    }
    let mut sequence = Sequence::of(number);
    let wanted = (0..PARAMETERS).map(|_| sequence.next() % 1_000_000).fold(0, u64::wrapping_add);
    let found = parameters.values().filter_map(|value| value.parse::<u64>().ok()).fold(0, u64::wrapping_add);
    let bytes = sequence.within(1 << 10, 64 << 10);
    let body = text(&mut sequence.clone(), bytes)?;
    let right = sum_of(body.as_bytes()) == expected_sum(&mut sequence, bytes);
    let counted: u64 = count_words(&body)?.values().sum();
    Ok(right
        && found == wanted
        && parameters.len() as u64 == PARAMETERS
        && counted == body.len().min(COUNTED) as u64 / 5)
}

/// How often each group of five letters occurs in the first [`COUNTED`] bytes.
fn count_words(body: &str) -> Result<HashMap<&str, u64>, Refused> {
    let mut words = HashMap::new();
    for at in (0..body.len().min(COUNTED) / 5).map(|index| index * 5) {
        let word = body.get(at..at + 5).unwrap_or_default();
        words.try_reserve(1).map_err(|_| Refused(words.len() * size_of::<(&str, u64)>()))?;
        *words.entry(word).or_insert(0) += 1;
    }
    Ok(words)
}

/// What is kept between requests.
struct Session {
    record: RecordBox,
    text: String,
}

impl Session {
    fn open(records: Records, id: u64) -> Result<Self, Refused> {
        let mut sequence = Sequence::of(!id);
        let bytes = sequence.within(200, 4000);
        let sum = expected_sum(&mut sequence.clone(), bytes);
        let text = text(&mut sequence, bytes)?;
        let state = std::array::from_fn(|index| id.wrapping_add(index as u64));
        Ok(Self { record: records.make(Record { id, sum, state })?, text })
    }

    /// Whether everything is as it was at the beginning.
    fn is_right(&self, id: u64) -> bool {
        let words = |record: &Record| (record.id..).zip(record.state).all(|(wanted, found)| wanted == found);
        let whole = |record: &Record| record.id == id && record.sum == sum_of(self.text.as_bytes()) && words(record);
        self.record.get().is_some_and(whole)
    }
}

/// The sessions, oldest first, with consecutive numbers.
struct Sessions {
    records: Records,
    list: VecDeque<Session>,
    /// The number of the next session.
    next: u64,
}

impl Sessions {
    /// Comes up to [`STEP`] sessions nearer to `wanted`; whether all that ended were right.
    fn approach(&mut self, wanted: u64) -> Result<bool, Refused> {
        let mut right = true;
        for _ in 0..STEP {
            let live = self.list.len() as u64;
            if live < wanted {
                self.list.try_reserve(1).map_err(|_| Refused((live as usize + 1) * size_of::<Session>()))?;
                self.list.push_back(Session::open(self.records, self.next)?);
                self.next += 1;
            } else if live > wanted {
                let oldest = self.next - live;
                right &= self.list.pop_front().is_none_or(|session| session.is_right(oldest));
            }
        }
        Ok(right)
    }
}

/// Sessions that there should be at request `number` of `planned`: up and down, once in each wave.
fn wanted_sessions(number: u64, planned: u64) -> u64 {
    let wave = (planned / WAVES).max(2);
    let place = number % wave;
    let height = place.min(wave - place) * 2;
    QUIET + (BUSY - QUIET) * height / wave
}

/// The request with which the hog starts.
pub fn hog_request(planned: u64) -> u64 {
    planned / BEFORE_HOG / WAVES
}

/// Does all requests of the run, and notes each on `board`.
///
/// # Errors
/// The service cannot start.
pub fn serve(board: &'static Board, order: &WorkerOrder) -> Result<(), String> {
    let planned = board.planned.load(Relaxed);
    let mut sessions = Sessions { records: Records::new(order.pool)?, list: VecDeque::new(), next: 0 };
    let (mut faults, mut counted) = (0, false);
    let start = Instant::now();
    for (number, slot) in (0..).zip(board.times()) {
        if number == hog_request(planned) {
            if order.kind == Kind::Addresses {
                hog::start_thread(board).map_err(|error| format!("cannot start the hog: {error}"))?;
            }
            counted = order.kind == Kind::Counted && watch::begin();
            board.starve.store(1, Relaxed);
            faults = thread_faults();
        }
        board.begun.store(number + 1, Relaxed);
        let due = Duration::from_nanos(number * 1_000_000_000 / RATE);
        wait_until(start, due, order.processor.is_some());
        let done = sessions.approach(wanted_sessions(number, planned)).and_then(|kept| Ok(answer(number)? && kept));
        let late = start.elapsed().saturating_sub(due).as_nanos();
        tally(board, &done, slot, u64::try_from(late).unwrap_or(u64::MAX));
        board.faults.store(thread_faults().saturating_sub(faults), Relaxed);
    }
    if counted {
        board.calls.store(watch::CALLS.load(Relaxed), Relaxed);
        board.counted.store(planned - hog_request(planned) + 1, Relaxed);
    }
    let first = sessions.next - sessions.list.len() as u64;
    let wrong = (first..).zip(&sessions.list).filter(|(id, session)| !session.is_right(*id)).count();
    board.wrong.fetch_add(wrong as u64, Relaxed);
    Ok(())
}

/// Returns when `due` has passed since `start`.
///
/// On a processor of its own the worker is awake early and waits for the moment: what the kernel does there for others while it sleeps,
/// and the host of a virtual machine with a processor that sleeps, ends when it likes.
fn wait_until(start: Instant, due: Duration, alone: bool) {
    let early = if alone { EARLY } else { Duration::ZERO };
    std::thread::sleep(due.saturating_sub(start.elapsed() + early));
    while start.elapsed() < due {
        std::hint::spin_loop();
    }
}

/// Page faults of this thread so far.
fn thread_faults() -> u64 {
    super::usage(libc::RUSAGE_THREAD).map_or(0, |usage| (usage.ru_minflt + usage.ru_majflt) as u64)
}

/// Notes a request; how late it was counts only if it was done, since giving up is quick.
fn tally(board: &Board, done: &Result<bool, Refused>, slot: &AtomicU64, late: u64) {
    match done {
        Ok(true) => {
            slot.store(late.max(1), Relaxed);
            Head::count(&board.done);
        }
        Ok(false) => Head::count(&board.wrong),
        Err(Refused(bytes)) => {
            if board.failed.load(Relaxed) == 0 {
                board.refused_bytes.store(*bytes as u64, Relaxed);
            }
            Head::count(&board.failed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn right_answers_and_sessions_are_right() {
        for number in 0..200 {
            assert!(answer(number).unwrap(), "{number}");
            assert!(Session::open(Records::Plain, number).unwrap().is_right(number));
        }
    }

    #[test]
    fn a_changed_session_is_noticed() {
        let mut session = Session::open(Records::Plain, 5).unwrap();
        assert!(!session.is_right(6));
        let last = session.text.pop().unwrap();
        assert!(!session.is_right(5));
        session.text.push(last);
        assert!(session.is_right(5));
        let RecordBox::Plain(one) = &mut session.record else { panic!("not plain") };
        one[0].state[19] ^= 1;
        assert!(!session.is_right(5));
    }

    #[test]
    fn expected_sums_need_no_text() {
        for bytes in 0..100 {
            let (mut a, mut b) = (Sequence::of(bytes), Sequence::of(bytes));
            assert_eq!(sum_of(text(&mut a, bytes).unwrap().as_bytes()), expected_sum(&mut b, bytes));
        }
    }

    #[test]
    fn load_swings_between_quiet_and_busy() {
        let at: Vec<u64> = (0..8000).map(|number| wanted_sessions(number, 8000)).collect();
        assert_eq!((at.iter().min(), at.iter().max()), (Some(&QUIET), Some(&BUSY)));
        assert!(at.windows(2).all(|pair| pair[0].abs_diff(pair[1]) <= STEP));
        for planned in 1..100 {
            assert!((0..planned).all(|number| (QUIET..=BUSY).contains(&wanted_sessions(number, planned))));
        }
    }
}

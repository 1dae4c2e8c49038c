//! How much memory a hostile stream can make the decoder take.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking, too")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use devloop_agent::protocol::{Decoder, MAX_FRAME, Message, Request, Response};

/// Counts what is in use, and remembers the most that was.
struct Counting;

static USED: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: all is left to the system's allocator; only numbers are kept.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let used = USED.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(used, Ordering::Relaxed);
        // SAFETY: passed on as it came.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        USED.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: passed on as it came.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn peak_of(body: &[u8]) -> usize {
    let frame = [u32::try_from(body.len()).unwrap().to_le_bytes().as_slice(), body].concat();
    let before = USED.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    let mut decoder = Decoder::new();
    decoder.push(&frame);
    let _ = decoder.pop::<Message<Request>>();
    let mut decoder = Decoder::new();
    decoder.push(&frame);
    let _ = decoder.pop::<Message<Response>>();
    PEAK.load(Ordering::Relaxed) - before
}

/// As postcard writes a length.
fn varint(mut number: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
    bytes
}

// One test alone: other threads would be counted, too.
#[test]
fn memory_is_bounded_by_the_frame_not_by_what_it_claims() {
    // Data, Swap with arguments, PutFile with processes, that claim to be (nearly) endless.
    for claim in [1 << 20, 1 << 32, u64::MAX / 2, u64::MAX] {
        let data = [vec![1, 3], varint(claim)].concat();
        assert!(peak_of(&data) < 4 * MAX_FRAME, "{claim}: {}", peak_of(&data));
        let swap = [vec![1, 6, 7, 7, 2, b'/', b'a', 1], varint(claim)].concat();
        assert!(peak_of(&swap) < 4 * MAX_FRAME, "{claim}: {}", peak_of(&swap));
        let put = [vec![1, 2], varint(claim)].concat();
        assert!(peak_of(&put) < 4 * MAX_FRAME, "{claim}: {}", peak_of(&put));
    }
    // A frame full of empty arguments: each takes one byte there and a Vec here.
    let mut full = [vec![1, 6, 7, 7, 2, b'/', b'a', 1], varint(MAX_FRAME as u64 - 64)].concat();
    full.resize(MAX_FRAME, 0);
    let peak = peak_of(&full);
    assert!(peak < 96 * MAX_FRAME, "{peak}");
    assert!(peak > MAX_FRAME, "the frame was not taken apart: {peak}");
}

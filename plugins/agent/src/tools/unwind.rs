//! From where a thread is to where it came from: by the unwind information of each
//! file (`.eh_frame`, else `.debug_frame`), and by frame pointers where there is none.

use framehop::{CacheNative, MayAllocateDuringUnwind, Module, Unwinder, UnwinderNative};

use super::arch::Point;
use super::modules;
use super::target_memory::TargetMemory;

/// Deeper ones are cut: endless recursion is.
const MOST_FRAMES: usize = 1024;
/// So much of the memory is read at once.
const WINDOW: u64 = 4096;

/// Finds callers.
pub(super) struct Walker {
    unwinder: UnwinderNative<Vec<u8>, MayAllocateDuringUnwind>,
    cache: CacheNative<MayAllocateDuringUnwind>,
}

/// Where a thread was: see [`super::Stack`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Walked {
    pub(super) addresses: Vec<u64>,
    pub(super) is_whole: bool,
}

impl Walker {
    pub(super) fn new(modules: Vec<modules::Module>) -> Self {
        let mut unwinder = UnwinderNative::new();
        for modules::Module { file, sections } in modules {
            let name = String::from_utf8_lossy(&file.path.0).into_owned();
            unwinder.add_module(Module::new(name, file.start..file.end, file.bias, sections));
        }
        Self { unwinder, cache: CacheNative::new() }
    }

    /// `read` answers the word at an address.
    pub(super) fn walk(&mut self, point: Point, mut read: impl FnMut(u64) -> Option<u64>) -> Walked {
        let mut read = |address| read(address).ok_or(());
        let mut frames = self.unwinder.iter_frames(point.instruction, point.registers(), &mut self.cache, &mut read);
        let mut addresses = Vec::new();
        let is_whole = loop {
            match frames.next() {
                Ok(Some(frame)) if addresses.len() < MOST_FRAMES => addresses.push(frame.address_for_lookup()),
                Ok(None) => break true,
                Ok(Some(_)) | Err(_) => break false,
            }
        };
        Walked { addresses, is_whole }
    }
}

/// Words of a process's memory, a page at a time.
#[derive(Debug)]
pub(super) struct Words<'a> {
    memory: &'a TargetMemory,
    start: u64,
    window: Vec<u8>,
}

impl<'a> Words<'a> {
    pub(super) fn of(memory: &'a TargetMemory) -> Self {
        Self { memory, start: 0, window: Vec::new() }
    }

    pub(super) fn at(&mut self, address: u64) -> Option<u64> {
        if let Some(word) = word(&self.window, self.start, address) {
            return Some(word);
        }
        let start = address / WINDOW * WINDOW;
        if address - start <= WINDOW - 8 {
            self.window.resize(usize::try_from(WINDOW).ok()?, 0);
            if self.memory.read(start, &mut self.window).is_err() {
                self.window.clear();
                return None;
            }
            self.start = start;
            return word(&self.window, start, address);
        }
        let mut across = [0; 8];
        self.memory.read(address, &mut across).ok()?;
        Some(u64::from_ne_bytes(across))
    }
}

/// The word at an address, of bytes that begin at another.
pub(super) fn word(bytes: &[u8], start: u64, address: u64) -> Option<u64> {
    let place = usize::try_from(address.checked_sub(start)?).ok()?;
    let word = bytes.get(place..place.checked_add(8)?)?;
    word.try_into().ok().map(u64::from_ne_bytes)
}

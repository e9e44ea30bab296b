//! The memory of a table: zeros that the kernel gives page by page, when they are first written.

use std::sync::atomic::AtomicU64;

/// What the processor fetches at once.
const LINE_WORDS: usize = 8;

/// Two lines side by side, which it fetches together.
pub(super) type Lines = [[AtomicU64; LINE_WORDS]; 2];

#[derive(Debug)]
pub(super) struct Memory {
    words: Box<[AtomicU64]>,
    /// Words before the first whole pair of lines.
    skip: usize,
}

impl Memory {
    pub fn new(pairs: usize) -> Self {
        let words = bytemuck::allocation::zeroed_slice_box::<AtomicU64>((pairs + 1) * 2 * LINE_WORDS);
        let skip = words.as_ptr().align_offset(size_of::<Lines>());
        Self { words, skip }
    }

    pub fn pairs(&self) -> &[Lines] {
        let (lines, _) = self.words.get(self.skip..).unwrap_or_default().as_chunks();
        lines.as_chunks().0
    }
}

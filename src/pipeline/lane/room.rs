//! What a lane takes of the memory that lanes may have.

use super::{Lane, Last, lock};
use crate::media::{Canvas, Picture};
use crate::pipeline::encode::x264::X264;

/// What a lane takes beside its encoder: queues, books, the open part (measured by benches/figures.sh).
const BYTES_BESIDE: u64 = 1_500_000;

impl Lane {
    /// What a lane of this canvas takes while it is live. What waits in it is charged apart, as bytes in flight.
    pub fn bytes(canvas: Canvas) -> u64 {
        X264::bytes(canvas) + BYTES_BESIDE
    }

    /// Its canvas is fixed, so what its encoder takes is known.
    pub fn charge(&self, bytes: u64) {
        if let Some(memory) = &mut *lock(&self.memory) {
            memory.resize(bytes);
        }
    }

    /// A picture came, which is kept until the next one does: by itself, and once more as what is scaled down. Of the
    /// canvas's size it is in the lane's share. Returns whether there is room for what it is larger; else it is forgotten.
    pub fn keeps(&self, picture: &Picture, canvas: Canvas) -> bool {
        let comes = Picture::bytes(picture.width(), picture.height());
        let more = comes.saturating_sub(Picture::bytes(canvas.width, canvas.height));
        let bytes = Lane::bytes(canvas) + 2 * more as u64;
        let kept = lock(&self.memory).as_mut().is_none_or(|memory| memory.try_resize(bytes));
        if !kept {
            *lock(&self.last) = Last::default();
        }
        kept
    }

    /// Gives its memory back: its encoder is closed for good.
    pub fn close(&self) {
        *lock(&self.memory) = None;
    }
}

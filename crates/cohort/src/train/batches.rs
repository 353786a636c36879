//! Which rows make the next batch.

use hospes_protocol::canon;
use rand_chacha::ChaCha20Rng;
use rand_core::{Rng as _, SeedableRng as _};

/// Reshuffled epochs, cut into batches, without end. The last batch of an epoch may be smaller.
pub(crate) struct Batches {
    stream: ChaCha20Rng,
    order: Vec<usize>,
    next: usize,
    batch: usize,
}

impl Batches {
    /// The batches of one task at one site in one round.
    pub(crate) fn new(seed: u64, site: &[u8], task: &str, round: u32, rows: usize, batch: u32) -> Self {
        let stream = stream("batches", seed, site, task, round);
        let order: Vec<usize> = (0..rows).collect();
        Self { stream, next: order.len(), order, batch: (batch as usize).max(1) }
    }

    /// Batches of one epoch.
    pub(crate) fn per_epoch(rows: usize, batch: u32) -> u64 {
        (rows as u64).div_ceil(u64::from(batch.max(1)))
    }

    pub(crate) fn next_batch(&mut self) -> &[usize] {
        if self.next >= self.order.len() {
            self.shuffle();
            self.next = 0;
        }
        let end = (self.next + self.batch).min(self.order.len());
        let batch = &self.order[self.next..end];
        self.next = end;
        batch
    }

    /// Fisher–Yates (Durstenfeld 1964).
    fn shuffle(&mut self) {
        for i in (1..self.order.len()).rev() {
            let j = self.below(i as u64 + 1);
            self.order.swap(i, j);
        }
    }

    /// A number from 0 to `bound` − 1, without bias (Lemire 2019).
    #[allow(clippy::cast_possible_truncation)]
    fn below(&mut self, bound: u64) -> usize {
        loop {
            let product = u128::from(self.stream.next_u64()) * u128::from(bound);
            if product as u64 >= bound.wrapping_neg() % bound {
                return (product >> 64) as usize;
            }
        }
    }
}

/// The stream of one task at one site in one round for one purpose. Each purpose has its own, so that one that draws more
/// does not move the others.
pub(crate) fn stream(purpose: &str, seed: u64, site: &[u8], task: &str, round: u32) -> ChaCha20Rng {
    let mut material = Vec::with_capacity(64);
    material.extend_from_slice(&seed.to_le_bytes());
    material.extend_from_slice(&round.to_le_bytes());
    material.extend_from_slice(&(site.len() as u64).to_le_bytes());
    material.extend_from_slice(site);
    material.extend_from_slice(task.as_bytes());
    let key = canon::digest(purpose, 1, &material);
    ChaCha20Rng::from_seed(*key.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_epoch_has_every_row_once_in_another_order() {
        let mut batches = Batches::new(1, b"site", "train", 1, 10, 4);
        let mut epoch = || -> Vec<usize> {
            let sizes = [4, 4, 2];
            sizes
                .iter()
                .flat_map(|n| {
                    let b = batches.next_batch().to_vec();
                    assert_eq!(b.len(), *n);
                    b
                })
                .collect()
        };
        let (first, second) = (epoch(), epoch());
        assert_ne!(first, second);
        for mut rows in [first, second] {
            rows.sort_unstable();
            assert_eq!(rows, (0..10).collect::<Vec<_>>());
        }
    }

    #[test]
    fn the_stream_depends_on_seed_site_task_and_round() {
        let first =
            |seed, site: &[u8], task, round| Batches::new(seed, site, task, round, 50, 50).next_batch().to_vec();
        let base = first(1, b"a", "t", 1);
        assert_eq!(base, first(1, b"a", "t", 1));
        for other in [first(2, b"a", "t", 1), first(1, b"b", "t", 1), first(1, b"a", "u", 1), first(1, b"a", "t", 2)] {
            assert_ne!(base, other);
        }
    }
}

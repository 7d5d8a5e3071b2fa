//! Batches of updates of random entries, the same for all engines.

use crate::data::{Data, Rng};
use crate::measure::COMMIT_SEED;
use std::collections::BTreeMap;

/// The entries of one batch; one may come twice.
pub(super) fn batch(data: Data, batch: u64, size: usize) -> Vec<u32> {
    let mut rng = Rng::new(COMMIT_SEED.wrapping_add(batch << 32));
    (0..size).map(|_| rng.below(u64::from(data.entries)) as u32).collect()
}

/// The entries that have each version.
pub(super) fn by_version(versions: &[u64]) -> BTreeMap<u64, Vec<u32>> {
    let mut found: BTreeMap<u64, Vec<u32>> = BTreeMap::new();
    for (id, &version) in versions.iter().enumerate() {
        found.entry(version).or_default().push(id as u32);
    }
    found
}

//! A few cells in which every pair of values meets: most faults need one value, or two together.

use std::collections::BTreeSet;

use super::{Cell, matrix};

/// Two dimensions, by their places, and a value of each.
type Pair = ((usize, String), (usize, String));

/// Cells of the matrix that the peers support and in which every pair of values of two different
/// dimensions meets that meets in any of them. It picks whichever cell has the most pairs that
/// are still missing, the first of several, and so is always the same.
pub fn pairs() -> Vec<Cell> {
    let mut candidates = supported();
    let mut missing: BTreeSet<Pair> = candidates.iter().flat_map(pairs_of).collect();
    let mut picked = Vec::new();
    while !missing.is_empty() {
        let gain = |cell: &Cell| pairs_of(cell).intersection(&missing).count();
        // `max_by_key` takes the last of several, hence the order.
        let best = (0..candidates.len())
            .rev()
            .max_by_key(|&index| gain(&candidates[index]))
            .expect("a pair that is missing comes from a candidate");
        let cell = candidates.remove(best);
        for pair in pairs_of(&cell) {
            missing.remove(&pair);
        }
        picked.push(cell);
    }
    picked
}

fn supported() -> Vec<Cell> {
    let mut cells = matrix();
    cells.retain(|cell| !cell.is_refused_by_peer());
    cells
}

fn pairs_of(cell: &Cell) -> BTreeSet<Pair> {
    // The cell's name is its values in the order of the dimensions.
    let name = cell.to_string();
    let values: Vec<(usize, String)> = name.split('/').map(str::to_owned).enumerate().collect();
    let mut pairs = BTreeSet::new();
    for (place, first) in values.iter().enumerate() {
        for second in &values[place + 1..] {
            pairs.insert((first.clone(), second.clone()));
        }
    }
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pair_that_the_peers_support_meets_in_few_cells() {
        let picked = pairs();
        let met: BTreeSet<Pair> = picked.iter().flat_map(pairs_of).collect();
        for cell in supported() {
            for pair in pairs_of(&cell) {
                assert!(met.contains(&pair), "{pair:?} never meets");
            }
        }
        // 3 networks or authentications with 4 kinds make 12 pairs; one cell has one of them.
        let count = picked.len();
        assert!((12..=16).contains(&count), "{count} cells: {picked:?}");
    }

    #[test]
    fn a_cell_has_a_pair_for_each_two_dimensions() {
        let cell = supported()[0];
        assert_eq!(pairs_of(&cell).len(), 5 * 4 / 2, "{cell}");
    }
}

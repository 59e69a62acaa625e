//! Several objectives at once: which trials dominate which, how crowded a front is, and how much it dominates.
//!
//! A vector of losses *dominates* another if it is nowhere worse and somewhere better. Losses are minimised; one that is not
//! finite counts as worse than every finite one.

/// Whether `a` dominates `b`.
pub fn dominates(a: &[f64], b: &[f64]) -> bool {
    let mut is_better = false;
    for (a, b) in a.iter().zip(b) {
        let (a, b) = (ordered(*a), ordered(*b));
        if a > b {
            return false;
        }
        is_better |= a < b;
    }
    is_better
}

/// A loss as it is compared: not finite is worst.
pub fn ordered(loss: f64) -> f64 {
    if loss.is_finite() { loss } else { f64::INFINITY }
}

/// The fronts of these vectors of losses, best first, as indices in rising order: the first is not dominated at all, the
/// second only by the first, and so on. Stops once the fronts hold `enough` vectors together.
///
/// One objective and two take `O(n log n)` for each front, more take `O(n * front)` for each.
pub fn fronts<L: AsRef<[f64]>>(losses: &[L], enough: usize) -> Vec<Vec<usize>> {
    // In lexicographic order nothing is dominated by what stands after it.
    let mut rest: Vec<usize> = (0..losses.len()).collect();
    rest.sort_by(|a, b| lexicographic(losses[*a].as_ref(), losses[*b].as_ref()));
    let mut fronts = Vec::new();
    let mut held = 0;
    while !rest.is_empty() && held < enough {
        let mut front: Vec<usize> = Vec::new();
        let mut dominated = Vec::new();
        for index in rest {
            let candidate = losses[index].as_ref();
            // Of two objectives the newest member of the front has the least second loss so far.
            let compared = if candidate.len() <= 2 { &front[front.len().saturating_sub(1)..] } else { &front[..] };
            if compared.iter().any(|member| dominates(losses[*member].as_ref(), candidate)) {
                dominated.push(index);
            } else {
                front.push(index);
            }
        }
        front.sort_unstable();
        held += front.len();
        fronts.push(front);
        rest = dominated;
    }
    fronts
}

fn lexicographic(a: &[f64], b: &[f64]) -> std::cmp::Ordering {
    let mut pairs = a.iter().zip(b).map(|(a, b)| ordered(*a).total_cmp(&ordered(*b)));
    pairs.find(|order| order.is_ne()).unwrap_or(std::cmp::Ordering::Equal)
}

/// The crowding distance of each member of a front (Deb et al. 2002, section III-B): the sum over the objectives of the
/// distance between its two neighbours, relative to the extent of the front. The ends are infinitely far. An objective in
/// which all members of a front are equal says nothing.
pub fn crowding<L: AsRef<[f64]>>(front: &[L]) -> Vec<f64> {
    let mut distances = vec![0.0; front.len()];
    let objectives = front.first().map_or(0, |first| first.as_ref().len());
    for objective in 0..objectives {
        let loss = |index: usize| ordered(front[index].as_ref()[objective]);
        let mut order: Vec<usize> = (0..front.len()).collect();
        order.sort_by(|a, b| loss(*a).total_cmp(&loss(*b)));
        let (first, last) = (order[0], order[order.len() - 1]);
        if front.len() > 1 && loss(first) == loss(last) {
            continue;
        }
        let extent = loss(last) - loss(first);
        distances[first] = f64::INFINITY;
        distances[last] = f64::INFINITY;
        if extent > 0.0 && extent.is_finite() {
            for three in order.windows(3) {
                distances[three[1]] += (loss(three[2]) - loss(three[0])) / extent;
            }
        }
    }
    distances
}

/// The indices of the best `count` vectors: whole fronts first, and of the last one the least crowded.
pub fn best<L: AsRef<[f64]>>(losses: &[L], count: usize) -> Vec<usize> {
    let mut chosen = Vec::with_capacity(count);
    for front in fronts(losses, count) {
        let wanted = count - chosen.len();
        if front.len() <= wanted {
            chosen.extend(front);
            continue;
        }
        let distances = crowding(&front.iter().map(|index| losses[*index].as_ref()).collect::<Vec<_>>());
        let mut order: Vec<usize> = (0..front.len()).collect();
        order.sort_by(|a, b| distances[*b].total_cmp(&distances[*a]));
        chosen.extend(order.into_iter().take(wanted).map(|position| front[position]));
    }
    chosen
}

/// The area that these pairs of losses dominate below the `reference` point; what is not better than it in both adds nothing.
///
/// # Panics
/// If a vector has another number of losses than two.
pub fn hypervolume<L: AsRef<[f64]>>(losses: &[L], reference: [f64; 2]) -> f64 {
    let mut pairs: Vec<[f64; 2]> = Vec::new();
    for pair in losses {
        let pair: [f64; 2] = pair.as_ref().try_into().expect("the hypervolume is that of two losses");
        let pair = pair.map(ordered);
        if pair[0] < reference[0] && pair[1] < reference[1] {
            pairs.push(pair);
        }
    }
    pairs.sort_by(|a, b| lexicographic(a, b));
    let mut ceiling = reference[1];
    let mut area = 0.0;
    for [first, second] in pairs {
        if second < ceiling {
            area += (reference[0] - first) * (ceiling - second);
            ceiling = second;
        }
    }
    area
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The definition, without any shortcut.
    fn fronts_by_definition(losses: &[Vec<f64>]) -> Vec<Vec<usize>> {
        let mut rest: Vec<usize> = (0..losses.len()).collect();
        let mut fronts = Vec::new();
        while !rest.is_empty() {
            let is_free = |i: &usize| rest.iter().all(|other| !dominates(&losses[*other], &losses[*i]));
            let front: Vec<usize> = rest.iter().copied().filter(is_free).collect();
            rest.retain(|index| !front.contains(index));
            fronts.push(front);
        }
        fronts
    }

    fn vectors(objectives: usize) -> impl Strategy<Value = Vec<Vec<f64>>> {
        let loss = prop_oneof![9 => (0i32..6).prop_map(f64::from), 1 => Just(f64::NAN)];
        prop::collection::vec(prop::collection::vec(loss, objectives), 0..30)
    }

    proptest! {
        #[test]
        fn fronts_are_those_of_the_definition(losses in (1usize..4).prop_flat_map(vectors)) {
            prop_assert_eq!(fronts(&losses, usize::MAX), fronts_by_definition(&losses));
        }

        #[test]
        fn the_best_are_as_many_as_asked_for_and_each_once(losses in vectors(2), count in 0usize..40) {
            let mut chosen = best(&losses, count);
            prop_assert_eq!(chosen.len(), count.min(losses.len()));
            chosen.sort_unstable();
            chosen.dedup();
            prop_assert_eq!(chosen.len(), count.min(losses.len()));
        }

        #[test]
        fn the_hypervolume_is_the_share_of_a_grid(losses in vectors(2)) {
            // The losses are whole numbers, so the cells of the unit grid are dominated as a whole or not at all.
            let cells = (0..6).flat_map(|x| (0..6).map(move |y| [f64::from(x), f64::from(y)]));
            let is_dominated = |cell: &[f64; 2]| losses.iter().any(|l| l[0] <= cell[0] && l[1] <= cell[1]);
            prop_assert_eq!(hypervolume(&losses, [6.0, 6.0]), cells.filter(is_dominated).count() as f64);
        }
    }

    #[test]
    fn fronts_and_crowding_are_those_of_pymoo_and_optuna() {
        for case in crate::search::reference()["pareto"].as_array().unwrap() {
            let losses: Vec<Vec<f64>> = serde_json::from_value(case["losses"].clone()).unwrap();
            let expected: Vec<Vec<usize>> = serde_json::from_value(case["fronts"].clone()).unwrap();
            let found = fronts(&losses, usize::MAX);
            assert_eq!(found, expected);
            let distances: Vec<Vec<Option<f64>>> = serde_json::from_value(case["crowding"].clone()).unwrap();
            for (front, expected) in found.iter().zip(distances) {
                let members: Vec<&[f64]> = front.iter().map(|index| losses[*index].as_slice()).collect();
                for (distance, expected) in crowding(&members).into_iter().zip(expected) {
                    let expected = expected.unwrap_or(f64::INFINITY);
                    assert!(distance == expected || (distance - expected).abs() < 1e-12, "{distance} {expected}");
                }
            }
        }
        // What is the same for all says nothing of the others.
        assert_eq!(crowding(&[[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]]), [0.0; 3]);
        assert_eq!(crowding(&[[1.0, 0.0]]), [f64::INFINITY]);
    }

    #[test]
    fn the_ends_of_a_front_are_kept_and_the_crowded_go() {
        let front = [[0.0, 10.0], [1.0, 9.0], [1.1, 8.9], [5.0, 5.0], [10.0, 0.0]];
        let distances = crowding(&front);
        assert_eq!((distances[0], distances[4]), (f64::INFINITY, f64::INFINITY));
        assert!(distances[3] > distances[2] && distances[2] > distances[1], "{distances:?}");
        let mut kept = best(&front, 3);
        kept.sort_unstable();
        assert_eq!(kept, [0, 3, 4]);
    }
}

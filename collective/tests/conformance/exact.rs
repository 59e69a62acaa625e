//! Results: the same bits for any world and any division of the work, and everybody gets everything.

use collective::ring::CHUNK_BYTES;
use collective::{Collective, MAX_GATHER_BYTES};
use proptest::prelude::*;

use crate::group::{KINDS, TRANSPORTS, on_threads, ring_group_over};
use crate::work::{Exact, assert_same_bits, parts, reduce, tree_sum};

#[test]
fn the_sum_has_the_bits_of_the_tree_sum() {
    for (kind, group) in KINDS {
        for world in 1..=5u32 {
            // One group does all of them: operations follow each other without a pause.
            let chunk = CHUNK_BYTES / 4;
            let cases: Vec<(u32, usize)> = [world, world + 1, 8, 13]
                .into_iter()
                .flat_map(|leaves| [0, 1, 3, 1000].map(|elements| (leaves, elements)))
                .chain([(8, 2 * chunk * world as usize), (7, 2 * chunk * world as usize + 5)])
                .collect();
            let results = on_threads(group(world), {
                let cases = cases.clone();
                move |mut member| {
                    let sum = |(leaves, elements): &(u32, usize)| reduce(&mut *member, *leaves, *elements).unwrap();
                    cases.iter().map(sum).collect::<Vec<_>>()
                }
            });
            for (index, (leaves, elements)) in cases.into_iter().enumerate() {
                let sums: Vec<_> = results.iter().map(|sums| sums[index].clone()).collect();
                let case = format!("{kind}, {world} ranks, {leaves} leaves, {elements} elements");
                assert_same_bits(&sums, &tree_sum(leaves, elements), &case);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    /// Leaves may be dealt in any way, to ranks without any too.
    #[test]
    fn the_sum_does_not_depend_on_who_owns_what(
        leaves in 1u32..40,
        cuts in proptest::collection::vec(0u32..40, 0..5),
        elements in 0usize..300,
        kind in 0usize..5,
    ) {
        let mut cuts: Vec<u32> = cuts.into_iter().map(|cut| cut.min(leaves)).chain([0, leaves]).collect();
        cuts.sort_unstable();
        let owned: Vec<_> = cuts.windows(2).map(|cut| cut[0]..cut[1]).collect();
        let group = KINDS[kind].1(owned.len() as u32);
        let sums = on_threads(group, move |mut member| {
            let mut sum = vec![f32::NAN; elements];
            let parts = parts(leaves, owned[member.rank() as usize].clone(), elements);
            member.all_reduce_exact(leaves, parts, &mut sum).unwrap();
            sum
        });
        assert_same_bits(&sums, &tree_sum(leaves, elements), KINDS[kind].0);
    }
}

/// Such sums are written past the cache where several ranks share a host; one reduction after another, so that the second
/// one reads where the first one wrote.
#[test]
fn sums_larger_than_the_cache_have_the_bits_of_the_tree_sum() {
    let elements = (3 << 19) + 5;
    for transport in TRANSPORTS {
        for world in [3, 4] {
            let sums = on_threads(ring_group_over(transport, world), move |mut ring| {
                reduce(&mut ring, world, 70_001).unwrap();
                [reduce(&mut ring, world, elements).unwrap(), reduce(&mut ring, world + 1, elements).unwrap()]
            });
            for (index, leaves) in [world, world + 1].into_iter().enumerate() {
                let sums: Vec<_> = sums.iter().map(|sums| sums[index].clone()).collect();
                assert_same_bits(&sums, &tree_sum(leaves, elements), &format!("{transport:?}, {world} ranks"));
            }
        }
    }
}

#[test]
fn a_gather_brings_everybody_everything() {
    const INLINE: usize = 4096 - 8;
    let bytes = |rank: u32, length: usize| (0..length).map(|i| (i as u32 * 7 + rank) as u8).collect::<Vec<u8>>();
    for (kind, group) in KINDS {
        for lengths in [
            vec![5],
            vec![0, 0],
            vec![1000, 1000],
            vec![0, 1, 2, 3],
            vec![INLINE - 1, INLINE, INLINE + 1],
            vec![10, CHUNK_BYTES + INLINE, 3 * CHUNK_BYTES, 0],
            vec![MAX_GATHER_BYTES, 1],
        ] {
            let world = lengths.len() as u32;
            let all: Vec<_> = (0..).zip(&lengths).map(|(rank, length)| bytes(rank, *length)).collect();
            let gathered = on_threads(group(world), {
                let all = all.clone();
                // Twice, so that what one operation reads ahead of the next is seen to be kept.
                move |mut member| [(); 2].map(|()| member.all_gather(&all[member.rank() as usize]).unwrap())
            });
            assert!(gathered.iter().flatten().all(|gathered| *gathered == all), "{kind}: {lengths:?}");
        }
    }
}

#[test]
fn members_know_their_place() {
    for (kind, group) in KINDS {
        let places: Vec<_> = group(3).iter().map(|member| (member.rank(), member.world())).collect();
        assert_eq!(places, [(0, 3), (1, 3), (2, 3)], "{kind}");
    }
}

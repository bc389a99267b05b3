//! The kernel's own choices are compared in `tests/mh.rs`, where there is a kernel with IPVS.

use std::collections::BTreeMap;

use super::*;

fn server(number: u8, weight: u32) -> (SocketAddr, u32) {
    (SocketAddr::from(([10, 1, 0, number], 80)), weight)
}

fn shares(table: &Table) -> BTreeMap<SocketAddr, usize> {
    let mut shares = BTreeMap::new();
    for destination in table.iter().flatten() {
        *shares.entry(destination).or_default() += 1;
    }
    shares
}

#[test]
fn the_hash_is_the_one_of_the_standard_library_without_its_last_word() {
    // SipHash-1-3 of the same four bytes, kept whole: Rust's own hasher with the key 0.
    use std::hash::{BuildHasher, BuildHasherDefault, Hasher};
    #[expect(deprecated, reason = "only to compare with")]
    let mut hasher = BuildHasherDefault::<std::hash::SipHasher>::default().build_hasher();
    hasher.write(&[1, 2, 3, 4]);
    // `SipHasher` is SipHash-2-4: a check of the rounds and of the padding, not of their number.
    let mut state = [
        0x736f_6d65_7073_6575_u64,
        0x646f_7261_6e64_6f6d,
        0x6c79_6765_6e65_7261,
        0x7465_6462_7974_6573,
    ];
    let block = (4 << 56) | u64::from(u32::from_le_bytes([1, 2, 3, 4]));
    state[3] ^= block;
    sip_round(&mut state);
    sip_round(&mut state);
    state[0] ^= block;
    state[2] ^= 0xff;
    for _ in 0..4 {
        sip_round(&mut state);
    }
    assert_eq!(state.iter().fold(0, |all, one| all ^ one), hasher.finish());
}

#[test]
fn without_a_weight_the_table_is_empty() {
    for servers in [&[][..], &[server(1, 0), server(2, 0)]] {
        let table = Table::new(Family::V4, servers);
        assert_eq!(table.size(), 4093);
        assert!(table.iter().all(|slot| slot.is_none()));
        let client = "192.0.2.1:5".parse().unwrap();
        assert_eq!(
            table.select(client, ClientHash::Address, true, |_| true),
            None
        );
    }
}

#[test]
fn slots_are_shared_by_weight() {
    let equal = Table::new(Family::V4, &[server(1, 7), server(2, 7), server(3, 7)]);
    let counts: Vec<_> = shares(&equal).into_values().collect();
    assert_eq!(counts.iter().sum::<usize>(), 4093);
    assert!(counts.iter().all(|count| (1364..=1365).contains(count)));

    let double = Table::new(Family::V4, &[server(1, 200), server(2, 100), server(3, 0)]);
    let shares = shares(&double);
    assert_eq!(shares.len(), 2, "weight 0 has no slots");
    assert_eq!(shares[&server(1, 0).0], 2729);
}

#[test]
fn a_weight_is_shifted_to_the_bits_that_count() {
    // 1000 and 1 have the divisor 1, and 10 bits where 6 count: 62 and still 1 turn.
    let table = Table::new(Family::V4, &[server(1, 1000), server(2, 1)]);
    let shares = shares(&table);
    assert_eq!(shares[&server(2, 0).0], 4093 / 63);
    // 64 and more are one bit too many.
    let one = Table::new(Family::V4, &[server(1, 127), server(2, 1)]);
    let other = Table::new(Family::V4, &[server(1, 126), server(2, 1)]);
    assert_eq!(one.differing_slots(&other), 0);
}

#[test]
fn the_order_decides_and_nothing_else() {
    let servers: Vec<_> = (1..=8).map(|number| server(number, 1)).collect();
    let mut reversed = servers.clone();
    reversed.reverse();
    let table = Table::new(Family::V4, &servers);
    assert_eq!(table.differing_slots(&Table::new(Family::V4, &servers)), 0);
    let differing = table.differing_slots(&Table::new(Family::V4, &reversed));
    assert!((1..200).contains(&differing), "{differing} of 4093");
    let ten: Vec<_> = servers.iter().map(|(address, _)| (*address, 10)).collect();
    assert_eq!(table.differing_slots(&Table::new(Family::V4, &ten)), 0);
}

#[test]
fn another_destination_is_taken_only_with_fallback() {
    let servers = [server(1, 1), server(2, 1), server(3, 1)];
    let table = Table::new(Family::V4, &servers);
    let hash = ClientHash::AddressAndPort;
    for port in 1..500 {
        let client = SocketAddr::from(([192, 0, 2, 1], port));
        let first = table.destination(table.slot(client, hash)).unwrap();
        let without = |it: SocketAddr| it != first;
        assert_eq!(table.select(client, hash, false, without), None);
        let second = table.select(client, hash, true, without).unwrap();
        assert_ne!(second, first);
        assert_eq!(table.select(client, hash, true, |_| false), None);
    }
}

#[test]
fn the_index_is_one_that_a_kernel_can_have() {
    assert_eq!(TableIndex::new(7), None);
    assert_eq!(TableIndex::new(18), None);
    let sizes = (8..=17).map(|number| TableIndex::new(number).unwrap().slots());
    assert_eq!(sizes.collect::<Vec<_>>(), PRIMES);
    for number in 8..=17 {
        let index = TableIndex::new(number).unwrap();
        let table = Table::with_index(index, Family::V6, &[server(1, 1), server(2, 3)]);
        assert_eq!(table.iter().flatten().count(), table.size());
    }
}

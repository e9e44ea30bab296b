//! Consistent hashing: the ring of nginx and pingora-load-balancing (ketama), and bounded loads on it.
//!
//! All members with weight stand on the ring, in or out: a key whose endpoint is out goes to the next on the ring and comes home with it, no other
//! key moves. With a bound, an endpoint that has more than `bound` times its part of what is in flight is passed by as well (Mirrokni,
//! Thorup, Zadimoghaddam: "Consistent Hashing with Bounded Loads", 2016), so that a key that all ask for does not sink one endpoint.

use std::{collections::HashMap, net::SocketAddr};

use pingora_ketama::{Bucket, Continuum};

use super::draws::mix;

/// Most weight on a ring; a unit is 160 points of 8 bytes. More is scaled down, each to at least one unit: up to here, a change
/// moves the keys of who goes or comes only.
const UNITS_MAX: u64 = 1_000;

/// Where keys go.
pub(super) struct Ring {
    continuum: Continuum,
    /// Whose each point is.
    points: Box<[u32]>,
    nodes: Box<[(SocketAddr, u32)]>,
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ring").field("nodes", &self.nodes).field("points", &self.points.len()).finish()
    }
}

impl Ring {
    /// Of addresses, with weights above 0.
    pub fn of(nodes: Vec<(SocketAddr, u32)>) -> Self {
        let total: u64 = nodes.iter().map(|(_, weight)| u64::from(*weight)).sum();
        let units = |weight: u32| if total <= UNITS_MAX { weight } else { (u64::from(weight) * UNITS_MAX / total).max(1) as u32 };
        let buckets: Vec<_> = nodes.iter().map(|(address, weight)| Bucket::new(*address, units(*weight))).collect();
        let continuum = Continuum::new(&buckets);
        Self { points: points(&continuum, &nodes), continuum, nodes: nodes.into() }
    }

    pub fn is_of(&self, nodes: &[(SocketAddr, u32)]) -> bool {
        *self.nodes == *nodes
    }

    /// Nodes from the key's on, as they come; the same one may come again. Ends when it is unlikely that there is another.
    pub fn from(&self, key: &[u8]) -> impl Iterator<Item = usize> {
        let (before, from) = self.points.split_at_checked(self.continuum.node_idx(key)).unwrap_or((&[], &self.points));
        from.iter().chain(before).take(8 * self.nodes.len() + 32).map(|node| *node as usize)
    }

    /// Every node once, in an order of the key's own start.
    pub fn all(&self, hash: u64) -> impl Iterator<Item = usize> {
        let (count, hash) = (self.nodes.len(), mix(hash));
        (0..count).map(move |step| ((hash % count as u64) as usize + step) % count)
    }
}

/// The continuum gives addresses only, and looking one up for each request would cost more than the ring.
fn points(continuum: &Continuum, nodes: &[(SocketAddr, u32)]) -> Box<[u32]> {
    let node: HashMap<_, _> = nodes.iter().zip(0_u32..).map(|((address, _), node)| (*address, node)).collect();
    let (mut points, mut next) = (Vec::new(), 0);
    while let Some(of) = continuum.get_addr(&mut next).and_then(|address| node.get(address)) {
        points.push(*of);
        if next == 0 {
            break;
        }
    }
    points.into()
}

/// A hash that is the same on every gateway: FNV-1a, then mixed. For what the ring itself does not decide.
pub(super) fn hash(key: &[u8]) -> u64 {
    mix(key.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)))
}

/// How many requests an endpoint of this weight may have, one more than are in flight at all included, where all weigh `total`.
pub(super) fn room(bound: f32, in_flight: u32, weight: f32, total: f32) -> u32 {
    (bound * (in_flight + 1) as f32 * weight / total).ceil().max(1.0) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(count: u8) -> Vec<(SocketAddr, u32)> {
        (1..=count).map(|n| (([10, 0, 0, n], 80).into(), 1)).collect()
    }

    #[test]
    fn keys_go_where_pingora_and_nginx_send_them() {
        let nodes = nodes(10);
        let ring = Ring::of(nodes.clone());
        let buckets: Vec<_> = nodes.iter().map(|(address, weight)| Bucket::new(*address, *weight)).collect();
        let continuum = Continuum::new(&buckets);
        for key in 0..1000_u32 {
            let key = key.to_string();
            assert_eq!(ring.from(key.as_bytes()).next().map(|node| nodes[node].0), continuum.node(key.as_bytes()));
        }
    }

    #[test]
    fn a_ring_of_great_weights_is_bounded() {
        let nodes: Vec<_> = nodes(100).into_iter().map(|(address, _)| (address, 1000)).collect();
        assert!(Ring::of(nodes).points.len() <= 160 * UNITS_MAX as usize);
    }

    #[test]
    fn nobody_is_on_an_empty_ring() {
        let ring = Ring::of(Vec::new());
        assert_eq!(ring.from(b"key").count(), 0);
        assert_eq!(ring.all(7).count(), 0);
    }

    #[test]
    fn room_is_a_part_of_all_and_never_none() {
        assert_eq!(room(1.25, 0, 1.0, 100.0), 1);
        assert_eq!(room(1.25, 99, 1.0, 10.0), 13);
        assert_eq!(room(1.25, 26, 4.0, 9.0), 15, "and no rounding makes it more");
    }
}

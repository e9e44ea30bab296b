//! Weighted draws in constant time: Walker's alias method, with Vose's construction (IEEE Trans. Softw. Eng. 17(9), 1991).

/// Positions, each drawn as often as its weight says.
#[derive(Debug, Default)]
pub(super) struct Draws {
    seats: Box<[Seat]>,
    /// Mean of the weights.
    mean: f32,
}

/// Every seat is hit equally often; then its own position is taken, or that of one with more weight.
#[derive(Clone, Copy, Debug)]
struct Seat {
    position: usize,
    /// Its own position is taken where 32 bits are below this.
    keep: u64,
    /// The seat that is taken otherwise.
    other: usize,
}

/// Random numbers from one: splitmix64 (Steele, Lea, Flood 2014).
#[derive(Clone, Copy, Debug)]
pub(super) struct Random(u64);

impl Random {
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// From 0 to below 1.
    pub const fn share(&mut self) -> f32 {
        share(self.next())
    }

    /// True this often.
    pub const fn hits(&mut self, often: f32) -> bool {
        often >= 1.0 || self.share() < often
    }
}

/// A number of which every bit depends on every bit of another.
pub(super) const fn mix(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

/// From 0 to below 1, of the upper 24 bits.
pub(super) const fn share(random: u64) -> f32 {
    (random >> 40) as f32 / (1_u64 << 24) as f32
}

/// One of so many, each equally likely; the other half of the bits are left for a second question.
const fn one_of(count: usize, random: u64) -> usize {
    (((random >> 32) * count as u64) >> 32) as usize
}

impl Draws {
    /// Positions with weights above 0.
    pub fn of(weights: &[(usize, u32)]) -> Self {
        let (count, total) = (weights.len() as u64, weights.iter().map(|(_, weight)| u64::from(*weight)).sum::<u64>().max(1));
        let mut seats: Vec<_> = weights
            .iter()
            .enumerate()
            .map(|(seat, (position, _))| Seat { position: *position, keep: 1 << 32, other: seat })
            .collect();
        // How full each seat is; `total` is level.
        let mut fill: Vec<u64> = weights.iter().map(|(_, weight)| u64::from(*weight) * count).collect();
        let (mut low, mut high): (Vec<_>, Vec<_>) =
            (0..seats.len()).partition(|seat| fill.get(*seat).is_some_and(|fill| *fill < total));
        while let (Some(poor), Some(rich)) = (low.pop(), high.last().copied()) {
            let Some(has) = fill.get(poor).copied() else { break };
            if let Some(seat) = seats.get_mut(poor) {
                seat.keep = (u128::from(has) << 32).div_ceil(u128::from(total)) as u64;
                seat.other = rich;
            }
            let Some(left) = fill.get_mut(rich) else { break };
            *left -= total - has;
            if *left < total {
                high.pop();
                low.push(rich);
            }
        }
        Self { seats: seats.into(), mean: total as f32 / count.max(1) as f32 }
    }

    /// A seat, by weight.
    pub fn draw(&self, random: u64) -> Option<usize> {
        let seat = one_of(self.seats.len(), random);
        let Seat { keep, other, .. } = self.seats.get(seat)?;
        Some(if random & u64::from(u32::MAX) < *keep { seat } else { *other })
    }

    pub fn position(&self, seat: usize) -> Option<usize> {
        self.seats.get(seat).map(|seat| seat.position)
    }

    /// All seats, from one on.
    pub fn from(&self, seat: usize) -> impl Iterator<Item = usize> {
        let count = self.seats.len();
        let seat = seat.min(count);
        (seat..count).chain(0..seat)
    }

    /// Sum of the weights.
    pub const fn total(&self) -> f32 {
        self.mean * self.seats.len() as f32
    }

    /// Mean of the weights.
    pub const fn mean(&self) -> f32 {
        self.mean
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Exactly, by what each seat keeps and gives.
    fn shares(weights: &[u32]) -> Vec<f64> {
        let pairs: Vec<_> = weights.iter().copied().enumerate().collect();
        let draws = Draws::of(&pairs);
        let mut shares = vec![0.0; weights.len()];
        for seat in &draws.seats {
            let keep = seat.keep as f64 / 2_f64.powi(32) / weights.len() as f64;
            shares[seat.position] += keep;
            shares[draws.seats[seat.other].position] += 1.0 / weights.len() as f64 - keep;
        }
        shares
    }

    fn check(weights: &[u32]) {
        let total: u32 = weights.iter().sum();
        for (share, weight) in shares(weights).iter().zip(weights) {
            let due = f64::from(*weight) / f64::from(total);
            assert!((share - due).abs() < 1e-8, "{weights:?}: {share} for {due}");
        }
    }

    #[test]
    fn every_position_has_the_share_of_its_weight() {
        check(&[1]);
        check(&[1, 1, 1]);
        check(&[5, 1, 1]);
        check(&[1000, 1]);
        check(&(1..=100).collect::<Vec<_>>());
    }

    #[test]
    fn nobody_is_drawn_from_none() {
        assert_eq!(Draws::of(&[]).draw(7), None);
    }

    #[test]
    fn positions_are_drawn_that_often() {
        let draws = Draws::of(&[(4, 3), (9, 1)]);
        let mut random = Random::new(1);
        let hits = (0..10_000).filter(|_| draws.draw(random.next()).and_then(|seat| draws.position(seat)) == Some(4)).count();
        assert!((7300..7700).contains(&hits), "{hits}");
    }

    #[test]
    fn all_seats_follow_from_any() {
        let draws = Draws::of(&[(0, 1), (1, 1), (2, 1)]);
        assert_eq!(draws.from(1).collect::<Vec<_>>(), [1, 2, 0]);
        assert_eq!(draws.from(7).collect::<Vec<_>>(), [0, 1, 2]);
    }
}

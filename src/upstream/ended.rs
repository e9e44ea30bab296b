//! How a try on an endpoint ended, and sets of such ends: what is retried, what ejects, what breaks.

use crate::{config::upstream::Condition, exchange::UpstreamFault};

/// How a try ended, as far as the service is concerned. A client that went away is none of these: nothing is learnt from it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ended {
    /// The response head came, with this status.
    Answered(u16),
    /// No connection: refused, unreachable, not in time, TLS failed. Nothing was sent.
    NoConnection,
    /// The service took the connection, and said that it did nothing with the request (`REFUSED_STREAM`, `GOAWAY`).
    Refused,
    /// Closed or reset before the answer was whole, or the answer was no HTTP.
    Reset,
    /// No answer in time.
    Late,
}

impl Ended {
    /// Whether the request was certainly not acted upon, so that it may be repeated whatever its method (RFC 9113 §8.7).
    pub const fn is_untouched(self) -> bool {
        matches!(self, Self::NoConnection | Self::Refused)
    }

    /// `None`: there was no try.
    pub const fn of(fault: UpstreamFault) -> Option<Self> {
        match fault {
            UpstreamFault::NoEndpoint | UpstreamFault::Broken(_) | UpstreamFault::Full => None,
            UpstreamFault::Connect | UpstreamFault::ConnectTimeout | UpstreamFault::Tls => Some(Self::NoConnection),
            UpstreamFault::ResponseTimeout | UpstreamFault::IdleTimeout => Some(Self::Late),
            UpstreamFault::Reset | UpstreamFault::Protocol => Some(Self::Reset),
        }
    }

    const fn kind(self) -> u8 {
        match self {
            Self::Answered(_) => 0,
            Self::NoConnection => 1,
            Self::Refused => 2,
            Self::Reset => 4,
            Self::Late => 8,
        }
    }
}

/// A set of ends, asked once a try.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Conditions {
    kinds: u8,
    /// One bit a status below 640.
    statuses: [u64; 10],
}

impl Conditions {
    pub fn of(conditions: &[Condition]) -> Self {
        let mut set = Self::default();
        for condition in conditions {
            set.include(*condition);
        }
        set
    }

    pub fn covers(&self, ended: Ended) -> bool {
        match ended {
            Ended::Answered(status) => {
                let (word, bit) = (usize::from(status / 64), status % 64);
                self.statuses.get(word).is_some_and(|word| word >> bit & 1 == 1)
            }
            other => self.kinds & other.kind() != 0,
        }
    }

    fn include(&mut self, condition: Condition) {
        match condition {
            Condition::Connect => self.kinds |= Ended::NoConnection.kind(),
            Condition::RefusedStream => self.kinds |= Ended::Refused.kind(),
            Condition::Reset => self.kinds |= Ended::Reset.kind(),
            Condition::Timeout => self.kinds |= Ended::Late.kind(),
            Condition::Status(status) => self.include_status(status),
            Condition::ServerError => (500..600).for_each(|status| self.include_status(status)),
        }
    }

    fn include_status(&mut self, status: u16) {
        if let Some(word) = self.statuses.get_mut(usize::from(status / 64)) {
            *word |= 1 << (status % 64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_covers_what_was_listed_and_nothing_else() {
        let set = Conditions::of(&[Condition::Connect, Condition::Timeout, Condition::Status(429), Condition::Status(503)]);
        for (ended, covered) in [
            (Ended::NoConnection, true),
            (Ended::Late, true),
            (Ended::Reset, false),
            (Ended::Refused, false),
            (Ended::Answered(429), true),
            (Ended::Answered(503), true),
            (Ended::Answered(502), false),
            (Ended::Answered(200), false),
            (Ended::Answered(999), false),
        ] {
            assert_eq!(set.covers(ended), covered, "{ended:?}");
        }
    }

    #[test]
    fn server_errors_are_all_of_them() {
        let set = Conditions::of(&[Condition::ServerError]);
        assert!((500..600).all(|status| set.covers(Ended::Answered(status))));
        assert!(!set.covers(Ended::Answered(499)) && !set.covers(Ended::Answered(600)));
    }
}

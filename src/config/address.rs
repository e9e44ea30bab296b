//! Addresses as the configuration writes them.

use std::{
    fmt, fs,
    net::{IpAddr, SocketAddr},
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    str::FromStr,
};

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

use crate::units::from_text;

/// A network in CIDR notation, or one address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Network(pub IpNet);

/// Where a listener listens.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ListenAddress {
    /// Never port 0, which no client could find.
    Tcp(SocketAddr),
    /// A Unix socket, by its file; 107 bytes at most.
    Unix(PathBuf),
}

/// Who may open a file: three octal digits in text, with or without a zero before them: `"0660"`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FileMode(u32);

/// What is due where a service has its address.
pub(super) const ADDRESS: &str = "an IP address and port such as `127.0.0.1:8080` or `[::1]:8080`";

/// What is due where a listener has its address.
const LISTEN: &str =
    "an IP address and port such as `127.0.0.1:8080` or `[::]:8080`, or a Unix socket: `unix:/run/banyan/web.sock`";

/// Longest path of a Unix socket, in bytes: what `sockaddr_un` holds before the final NUL.
const UNIX_PATH_MAX: usize = 107;

/// How the address of a Unix socket begins.
pub(super) const UNIX: &str = "unix:";

/// Reads an address with its port. Names are not resolved here.
pub(super) fn socket<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    from_text(deserializer, ADDRESS, |text| text.parse().ok())
}

impl ListenAddress {
    /// Whether a socket at one leaves no room for one at the other; each with whether it is `ipv6_only`.
    pub fn meets(&self, ipv6_only: bool, other: &Self, other_ipv6_only: bool) -> bool {
        match (self, other) {
            (Self::Unix(one), Self::Unix(other)) => one == other,
            (Self::Tcp(one), Self::Tcp(other)) => {
                one.port() == other.port() && (covers(one, ipv6_only, other) || covers(other, other_ipv6_only, one))
            }
            _ => false,
        }
    }

    /// What Pingora knows the socket by: the address alone, in one spelling.
    pub fn key(&self) -> String {
        match self {
            Self::Tcp(address) => address.to_string(),
            Self::Unix(path) => path.display().to_string(),
        }
    }

    pub fn tcp(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(address) => Some(*address),
            Self::Unix(_) => None,
        }
    }

    /// The file of a Unix socket.
    pub fn path(&self) -> Option<&std::path::Path> {
        match self {
            Self::Tcp(_) => None,
            Self::Unix(path) => Some(path),
        }
    }

    /// `[::]`, on which IPv4 is served too unless `ipv6_only` says otherwise.
    pub fn is_ipv6_wildcard(&self) -> bool {
        matches!(self, Self::Tcp(SocketAddr::V6(v6)) if v6.ip().is_unspecified())
    }
}

/// Whether a socket at the one address takes what comes to the other.
fn covers(one: &SocketAddr, ipv6_only: bool, other: &SocketAddr) -> bool {
    match (one.ip().to_canonical(), other.ip().to_canonical()) {
        (IpAddr::V6(v6), IpAddr::V4(_)) => v6.is_unspecified() && !ipv6_only,
        (IpAddr::V4(v4), IpAddr::V4(other)) => v4.is_unspecified() || v4 == other,
        (IpAddr::V6(v6), IpAddr::V6(other)) => v6.is_unspecified() || v6 == other,
        (IpAddr::V4(_), IpAddr::V6(_)) => false,
    }
}

impl FromStr for ListenAddress {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text.strip_prefix(UNIX) {
            Some(path) if path.is_empty() || path.ends_with('/') => Err(()),
            Some(path) => Ok(Self::Unix(path.into())),
            None => text.parse().ok().filter(|address: &SocketAddr| address.port() != 0).map(Self::Tcp).ok_or(()),
        }
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "{UNIX}{}", path.display()),
        }
    }
}

impl<'de> Deserialize<'de> for ListenAddress {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let address = from_text(deserializer, LISTEN, |text| text.parse().ok())?;
        match &address {
            Self::Unix(path) if path.as_os_str().len() > UNIX_PATH_MAX => {
                let (path, long) = (path.display(), path.as_os_str().len());
                Err(D::Error::custom(format!(
                    "the path `{path}` is {long} bytes long; the system allows {UNIX_PATH_MAX} for a Unix socket"
                )))
            }
            _ => Ok(address),
        }
    }
}

impl Serialize for ListenAddress {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl FileMode {
    /// The owner and its group read and write.
    pub const SHARED: Self = Self(0o660);

    pub fn permissions(self) -> fs::Permissions {
        fs::Permissions::from_mode(self.0)
    }

    fn parse(text: &str) -> Option<Self> {
        let octal = (3..=4).contains(&text.len()) && text.bytes().all(|digit| matches!(digit, b'0'..=b'7'));
        u32::from_str_radix(text, 8).ok().filter(|mode| octal && *mode <= 0o777).map(Self)
    }
}

impl<'de> Deserialize<'de> for FileMode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        from_text(deserializer, "permissions in octal digits and quotes such as `\"0660\"`", Self::parse)
    }
}

impl Serialize for FileMode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{:04o}", self.0))
    }
}

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        from_text(deserializer, "a network such as `10.0.0.0/8` or `fd00::/8`, or an address", |text| {
            let net = text.parse::<IpNet>().or_else(|_| text.parse::<std::net::IpAddr>().map(IpNet::from));
            net.ok().map(Self)
        })
    }
}

impl Serialize for Network {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(one: &str, other: &str, expected: bool) {
        let [(one, v6), (other, other_v6)] = [one, other].map(|text| {
            let (address, only) = text.strip_suffix(" only").map_or((text, false), |address| (address, true));
            (address.parse::<ListenAddress>().unwrap(), only)
        });
        assert_eq!(one.meets(v6, &other, other_v6), expected, "{one} and {other}");
        assert_eq!(other.meets(other_v6, &one, v6), expected, "{other} and {one}");
    }

    #[test]
    fn addresses_meet_where_one_takes_what_comes_to_the_other() {
        check("127.0.0.1:80", "127.0.0.1:80", true);
        check("127.0.0.1:80", "127.0.0.1:81", false);
        check("127.0.0.1:80", "127.0.0.2:80", false);
        check("0.0.0.0:80", "127.0.0.1:80", true);
        check("0.0.0.0:80", "[::1]:80", false);
        check("[::]:80", "[::1]:80", true);
        check("[::]:80 only", "[::1]:80", true);
        check("[::]:80", "127.0.0.1:80", true);
        check("[::]:80 only", "127.0.0.1:80", false);
        check("[::]:80", "0.0.0.0:80", true);
        check("[::]:80 only", "0.0.0.0:80", false);
        check("[::ffff:127.0.0.1]:80", "127.0.0.1:80", true);
        check("[::1]:80", "127.0.0.1:80", false);
        check("unix:/a/b", "unix:/a/./b", true);
        check("unix:/a/b", "unix:/a/c", false);
        check("unix:/a/b", "127.0.0.1:80", false);
    }

    #[test]
    fn a_mode_is_octal_text() {
        let mode = |text: &str| FileMode::parse(text).map(|mode| mode.0);
        assert_eq!([mode("0660"), mode("600")], [Some(0o660), Some(0o600)]);
        for wrong in ["", "66", "0o660", "+660", "0668", "1777", "00660", "rw"] {
            assert_eq!(mode(wrong), None, "{wrong}");
        }
    }
}

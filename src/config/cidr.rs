//! Networks: an address and how many of its leading bits count.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// A network such as `10.0.0.0/8` or `2001:db8::/32` (RFC 4632 §3.1, RFC 4291 §2.3), or a single address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cidr {
    /// Its first address; all bits beyond the prefix are zero.
    network: IpAddr,
    /// How many bits count.
    prefix: u8,
}

/// Why a text is no network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CidrError {
    /// It has another form.
    #[error("must be a network such as \"10.0.0.0/8\" or \"2001:db8::/32\"")]
    Form,
    /// More bits are to count than there are.
    #[error("must have a prefix of 0 to {0} bits")]
    Prefix(u8),
    /// It is an address in this network.
    #[error("is not the network itself: an address in {0}")]
    Within(Cidr),
}

impl Cidr {
    /// The network that `address` is in, of which the leading `prefix` bits count; more than there are count as all.
    pub fn around(address: IpAddr, prefix: u8) -> Self {
        match address {
            IpAddr::V4(address) => {
                let prefix = prefix.min(32);
                let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
                Self { network: Ipv4Addr::from_bits(address.to_bits() & mask).into(), prefix }
            }
            IpAddr::V6(address) => {
                let prefix = prefix.min(128);
                let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
                Self { network: Ipv6Addr::from_bits(address.to_bits() & mask).into(), prefix }
            }
        }
    }

    /// Whether `address` belongs to it. An IPv4 address that a socket of both families shows as `::ffff:a.b.c.d` is
    /// taken for what it is.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.network.is_ipv4() && Self::around(address, self.prefix).network == self.network
    }
}

impl FromStr for Cidr {
    type Err = CidrError;

    /// Reads `address/prefix`, or an address alone.
    fn from_str(text: &str) -> Result<Self, CidrError> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| CidrError::Form)?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            None => most,
            Some(digits) if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                return Err(CidrError::Form);
            }
            Some(digits) => digits.parse().ok().filter(|prefix| *prefix <= most).ok_or(CidrError::Prefix(most))?,
        };
        let network = Self::around(address, prefix);
        if network.network != address {
            return Err(CidrError::Within(network));
        }
        // ::ffff:10.0.0.0/104 is 10.0.0.0/8, which is what addresses are compared with.
        Ok(match (network.network.to_canonical(), prefix.checked_sub(96)) {
            (IpAddr::V4(address), Some(prefix)) if network.network.is_ipv6() => Self::around(address.into(), prefix),
            _ => network,
        })
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(network: &str, address: &str) -> bool {
        network.parse::<Cidr>().expect(network).contains(address.parse().expect(address))
    }

    #[test]
    fn a_network_holds_its_addresses_and_no_other() {
        for (network, inside, outside) in [
            ("10.0.0.0/8", "10.255.255.255", "11.0.0.0"),
            ("192.168.128.0/17", "192.168.128.0", "192.168.127.255"),
            ("192.0.2.7/32", "192.0.2.7", "192.0.2.6"),
            ("192.0.2.7", "192.0.2.7", "192.0.2.8"),
            ("0.0.0.0/0", "255.255.255.255", "::1"),
            ("::/0", "2001:db8::1", "192.0.2.1"),
            ("2001:db8::/33", "2001:db8:7fff:ffff::", "2001:db8:8000::"),
            ("::1", "::1", "::2"),
        ] {
            assert!(holds(network, inside), "{inside} in {network}");
            assert!(!holds(network, outside), "{outside} in {network}");
        }
    }

    #[test]
    fn an_ipv4_address_in_the_clothes_of_ipv6_is_one_all_the_same() {
        assert!(holds("10.0.0.0/8", "::ffff:10.1.2.3"));
        assert!(!holds("::/0", "::ffff:10.1.2.3"));
        assert!(holds("::ffff:10.0.0.0/104", "10.1.2.3"));
        assert_eq!("::ffff:10.0.0.0/104".parse::<Cidr>().expect("a network").to_string(), "10.0.0.0/8");
        // Shorter than the mapped range: a network of IPv6 addresses.
        assert_eq!("::/64".parse::<Cidr>().expect("a network").to_string(), "::/64");
    }

    #[test]
    fn what_is_no_network_is_told_why() {
        let error = |text: &str| text.parse::<Cidr>().expect_err(text);
        for text in
            ["", "/8", "10.0.0.0/", "10.0.0/8", "10.0.0.0/+8", "10.0.0.0/8/8", "localhost", "[::1]", "10.0.0.1:80"]
        {
            assert_eq!(error(text), CidrError::Form, "{text}");
        }
        assert_eq!(error("10.0.0.0/33"), CidrError::Prefix(32));
        assert_eq!(error("::/129"), CidrError::Prefix(128));
        assert_eq!(error("::/1000"), CidrError::Prefix(128));
        assert_eq!(error("10.1.2.3/8"), CidrError::Within("10.0.0.0/8".parse().expect("a network")));
        assert_eq!(error("2001:db8::1/32"), CidrError::Within("2001:db8::/32".parse().expect("a network")));
    }
}

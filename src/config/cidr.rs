//! Networks: an address and the number of its leading bits that count.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;

/// A network such as `10.0.0.0/8` or `2001:db8::/32` (RFC 4632 §3.1, RFC 4291 §2.3), or a single address. All bits of its
/// address beyond the prefix are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cidr(IpNet);

/// The reasons for which a text is no network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CidrError {
    /// The text is neither an address nor `address/prefix`.
    #[error("must be a network such as \"10.0.0.0/8\" or \"2001:db8::/32\"")]
    Form,
    /// The prefix is longer than the address, which has this many bits.
    #[error("must have a prefix of 0 to {0} bits")]
    Prefix(u8),
    /// The text names an address inside this network.
    #[error("is not the network itself: an address in {0}")]
    Within(Cidr),
}

impl Cidr {
    /// Returns the network of `address` with the leading `prefix` bits; a longer prefix than the address stands for all of
    /// its bits.
    pub fn containing(address: IpAddr, prefix: u8) -> Self {
        let (prefix, most) = (prefix.min(bits(address)), IpNet::from(address));
        Self(IpNet::new(address, prefix).unwrap_or(most).trunc())
    }

    /// Returns whether `address` belongs to the network. An IPv4 address that a socket of both families shows as
    /// `::ffff:a.b.c.d` counts as IPv4.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&address.to_canonical())
    }
}

/// Returns the number of bits of an address.
fn bits(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
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
        let most = bits(address);
        let prefix = match prefix {
            None => most,
            Some(digits) if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                return Err(CidrError::Form);
            }
            Some(digits) => digits.parse().map_err(|_| CidrError::Prefix(most))?,
        };
        let given = IpNet::new(address, prefix).map_err(|_| CidrError::Prefix(most))?;
        if given.trunc() != given {
            return Err(CidrError::Within(Self(given.trunc())));
        }
        // ::ffff:10.0.0.0/104 is 10.0.0.0/8, which is what addresses are compared with.
        Ok(match (address.to_canonical(), prefix.checked_sub(96)) {
            (IpAddr::V4(_), Some(prefix)) if address.is_ipv6() => Self::containing(address.to_canonical(), prefix),
            _ => Self(given),
        })
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
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
    fn an_ipv4_mapped_address_counts_as_ipv4() {
        assert!(holds("10.0.0.0/8", "::ffff:10.1.2.3"));
        assert!(!holds("::/0", "::ffff:10.1.2.3"));
        assert!(holds("::ffff:10.0.0.0/104", "10.1.2.3"));
        assert_eq!("::ffff:10.0.0.0/104".parse::<Cidr>().expect("a network").to_string(), "10.0.0.0/8");
        // Shorter than the mapped range: a network of IPv6 addresses.
        assert_eq!("::/64".parse::<Cidr>().expect("a network").to_string(), "::/64");
    }

    #[test]
    fn a_text_that_is_no_network_is_refused_with_its_reason() {
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

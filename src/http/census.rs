//! How many connections there are of each address, and how many there may be.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

/// Counts connections.
#[derive(Debug)]
pub struct Census {
    address_max: usize,
    of: Mutex<HashMap<IpAddr, usize>>,
}

/// A counted connection, until it is dropped.
#[derive(Debug)]
pub struct Counted {
    census: Arc<Census>,
    address: IpAddr,
}

impl Census {
    /// So many may there be of one address.
    pub fn new(address_max: usize) -> Arc<Census> {
        Arc::new(Census { address_max, of: Mutex::default() })
    }

    /// Counts a connection of `address`; `None` where that has as many as it may.
    pub fn enter(self: &Arc<Self>, address: IpAddr) -> Option<Counted> {
        let address = holder(address);
        let mut of = self.of.lock().unwrap_or_else(PoisonError::into_inner);
        let of_address = of.entry(address).or_default();
        if *of_address >= self.address_max {
            return None;
        }
        *of_address += 1;
        Some(Counted { census: Arc::clone(self), address })
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut of = self.census.of.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(of_address) = of.get_mut(&self.address) {
            *of_address -= 1;
            if *of_address == 0 {
                of.remove(&self.address);
            }
        }
    }
}

/// What one holder of addresses has: an IPv4 address, a /64 of IPv6.
fn holder(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_address_has_its_share_and_who_left_is_forgotten() {
        let census = Census::new(2);
        let enter = |address: &str| census.enter(address.parse().unwrap());
        let (first, second) = (enter("10.0.0.1").unwrap(), enter("::ffff:10.0.0.1").unwrap());
        assert!(enter("10.0.0.1").is_none());
        let (third, fourth) = (enter("2001:db8::1").unwrap(), enter("2001:db8::2").unwrap());
        assert!(enter("2001:db8::3").is_none(), "one /64 is one holder");
        let fifth = enter("2001:db8:0:1::1").unwrap();
        drop(first);
        let first = enter("10.0.0.1").unwrap();
        drop((first, second, third, fourth, fifth));
        assert!(census.of.lock().unwrap().is_empty());
    }
}

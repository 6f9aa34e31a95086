//! The address of a client: that of the peer or, if the peer is a trusted proxy, the one that it
//! reports. Knows no sockets.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

/// Returns true if the address belongs to a trusted proxy, which may report the client's address.
pub(super) fn is_trusted_proxy(address: IpAddr, proxies: &[IpNet]) -> bool {
    let address = address.to_canonical();
    proxies.iter().any(|proxies| proxies.contains(&address))
}

/// Returns the client's address according to `X-Forwarded-For`, to which each proxy appends the
/// address that it connects for. The list is read from its end for as long as a trusted proxy has
/// added the entry; an entry that is not an address ends the walk at the proxy that added it.
/// `values` are the values of all headers of this name, in order.
pub(super) fn forwarded_address<'a>(
    peer: IpAddr,
    values: impl DoubleEndedIterator<Item = &'a [u8]>,
    proxies: &[IpNet],
) -> IpAddr {
    let mut address = peer.to_canonical();
    let hops = values
        .rev()
        .flat_map(|value| value.rsplit(|byte| *byte == b','));
    for hop in hops {
        if !is_trusted_proxy(address, proxies) {
            break;
        }
        match parse_address(hop) {
            Some(before) => address = before,
            None => break,
        }
    }
    address
}

/// Parses an address. Some proxies also write the port, or brackets.
fn parse_address(hop: &[u8]) -> Option<IpAddr> {
    let text = str::from_utf8(hop).ok()?.trim_matches([' ', '\t']);
    let bare = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(text);
    let address = bare
        .parse::<IpAddr>()
        .or_else(|_| text.parse::<SocketAddr>().map(|address| address.ip()));
    address.ok().map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT: &str = "203.0.113.9";

    fn by(peer: &str, headers: &[&str]) -> String {
        let proxies: Vec<IpNet> = ["10.0.0.0/8", "2001:db8::/32", "192.0.2.1/32"]
            .map(|it| it.parse().unwrap())
            .into();
        let values = headers.iter().map(|value| value.as_bytes());
        forwarded_address(peer.parse().unwrap(), values, &proxies).to_string()
    }

    #[test]
    fn an_untrusted_peer_is_the_client_whatever_its_headers_say() {
        assert_eq!(by(CLIENT, &["198.51.100.1"]), CLIENT);
        assert_eq!(by(CLIENT, &["10.0.0.1"]), CLIENT);
        assert_eq!(by("192.0.2.2", &[CLIENT]), "192.0.2.2");
    }

    #[test]
    fn trusted_hops_are_skipped_from_the_end_to_the_first_untrusted_one() {
        for headers in [
            &[CLIENT][..],
            &["203.0.113.9, 10.1.1.1"],
            &["203.0.113.9", "10.1.1.1,192.0.2.1"],
            // Entries that the client sent itself come before its address.
            &["198.51.100.1, 10.9.9.9, 203.0.113.9 ,\t10.1.1.1"],
            &["10.9.9.9", "203.0.113.9", "10.1.1.1"],
            &["203.0.113.9:4711"],
        ] {
            assert_eq!(by("10.0.0.1", headers), CLIENT, "{headers:?}");
        }
        assert_eq!(by("2001:db8::1", &["[2001:db9::7]:443"]), "2001:db9::7");
        assert_eq!(by("2001:db8::1", &["[2001:db9::7]"]), "2001:db9::7");
    }

    #[test]
    fn the_first_hop_is_the_client_if_all_are_trusted() {
        assert_eq!(by("10.0.0.1", &[]), "10.0.0.1");
        assert_eq!(by("10.0.0.1", &["10.0.0.3, 10.0.0.2"]), "10.0.0.3");
    }

    #[test]
    fn an_invalid_entry_ends_the_walk_at_the_hop_that_sent_it() {
        for garbage in ["unknown", "", "203.0.113.9 x", "_hidden", "1.2.3", "\u{fc}"] {
            let header = format!("{CLIENT}, {garbage}, 10.0.0.2");
            assert_eq!(by("10.0.0.1", &[&header]), "10.0.0.2", "{garbage}");
            assert_eq!(by("10.0.0.1", &[garbage]), "10.0.0.1", "{garbage}");
        }
    }

    #[test]
    fn an_ipv4_mapped_ipv6_address_equals_the_ipv4_address() {
        assert_eq!(by("::ffff:10.0.0.1", &["::ffff:203.0.113.9"]), CLIENT);
        assert_eq!(by("::ffff:203.0.113.9", &[]), CLIENT);
    }
}

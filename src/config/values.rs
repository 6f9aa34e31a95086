//! Deserializes values as people write them: durations, sizes, counts and addresses. Does
//! not know which key uses which.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    num::NonZeroU32,
    str::FromStr,
    time::Duration,
};

use bytesize::ByteSize;
use ipnet::IpNet;
use serde::{
    Deserialize,
    de::{self, Deserializer, Error as _, Unexpected, Visitor},
};

use sidewire_protocol::TenantName;

/// 1 KiB in bytes.
pub(super) const KIB: usize = 1 << 10;
/// 1 MiB in bytes.
pub(super) const MIB: usize = 1 << 20;
/// 1 GiB in bytes.
pub(super) const GIB: usize = 1 << 30;

/// Deserializes a duration such as `"30s"`, `"5min"` or `"1h 30m"`.
pub(super) fn duration<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    from.deserialize_str(TextVisitor {
        expected: "a duration with its unit, such as \"30s\" or \"5min\"",
        parse: |text| humantime::parse_duration(text).ok(),
    })
}

/// Deserializes a size in bytes, such as `"64KiB"`.
pub(super) fn size<'de, D: Deserializer<'de>>(from: D) -> Result<usize, D::Error> {
    from.deserialize_str(TextVisitor {
        expected: "a size with its unit, such as \"64KiB\" or \"1MiB\"",
        parse: parse_size,
    })
}

/// Deserializes an address to listen on.
pub(super) fn listen<'de, D: Deserializer<'de>>(from: D) -> Result<SocketAddr, D::Error> {
    from.deserialize_str(TextVisitor {
        expected: "an IP address and a port, such as \"127.0.0.1:3000\" or \"[::1]:3000\"",
        parse: |text| text.parse().ok(),
    })
}

/// Deserializes a whole number, 0 or more.
pub(super) fn count<'de, D: Deserializer<'de>>(from: D) -> Result<usize, D::Error> {
    from.deserialize_i64(CountVisitor)
}

/// Deserializes a whole number, 1 or more.
pub(super) fn some<'de, D: Deserializer<'de>>(from: D) -> Result<NonZeroU32, D::Error> {
    from.deserialize_i64(PositiveCountVisitor)
}

/// Deserializes an optional whole number, 1 or more; a key that is left out sets no bound.
pub(super) fn bound<'de, D: Deserializer<'de>>(from: D) -> Result<Option<NonZeroU32>, D::Error> {
    some(from).map(Some)
}

/// Deserializes a duration of a key that may be left out.
pub(super) fn duration_if_given<'de, D: Deserializer<'de>>(
    from: D,
) -> Result<Option<Duration>, D::Error> {
    duration(from).map(Some)
}

/// Deserializes IP addresses, and networks such as `10.0.0.0/8`.
pub(super) fn networks<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<IpNet>, D::Error> {
    // An IPv4-mapped network (`::ffff:10.0.0.0/104`) would never match: addresses are
    // compared in canonical form.
    let is_mapped = |network: &IpNet| match network {
        IpNet::V6(network) => network.addr().to_ipv4_mapped().is_some(),
        IpNet::V4(_) => false,
    };
    let network = |text: &String| {
        let address = text.parse::<IpAddr>().map(|it| it.to_canonical().into());
        let network = address.or_else(|_| text.parse::<IpNet>()).ok();
        network.filter(|it| !is_mapped(it)).ok_or_else(|| {
            D::Error::invalid_value(
                Unexpected::Str(text),
                &"an IP address or a network, such as \"10.0.0.7\" or \"10.0.0.0/8\"",
            )
        })
    };
    Vec::<String>::deserialize(from)?
        .iter()
        .map(network)
        .collect()
}

/// Deserializes tenant names.
pub(super) fn tenants<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<TenantName>, D::Error> {
    let name = |text: &String| {
        TenantName::parse(text)
            .map_err(|error| D::Error::custom(format_args!("the tenant name {text:?} {error}")))
    };
    Vec::<String>::deserialize(from)?.iter().map(name).collect()
}

/// Deserializes tenant names of a key that may be left out.
pub(super) fn tenants_if_given<'de, D: Deserializer<'de>>(
    from: D,
) -> Result<Option<Vec<TenantName>>, D::Error> {
    tenants(from).map(Some)
}

fn parse_size(text: &str) -> Option<usize> {
    // bytesize would accept a bare number as bytes; here a unit is required.
    if !text.ends_with(|last: char| last.is_ascii_alphabetic()) {
        return None;
    }
    usize::try_from(ByteSize::from_str(text).ok()?.as_u64()).ok()
}

/// A serde visitor that reads a string with `parse`.
struct TextVisitor<T> {
    expected: &'static str,
    parse: fn(&str) -> Option<T>,
}

impl<T> Visitor<'_> for TextVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expected)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        (self.parse)(text).ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
    }
}

struct CountVisitor;

impl Visitor<'_> for CountVisitor {
    type Value = usize;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a whole number, 0 or more")
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<usize, E> {
        usize::try_from(number).map_err(|_| E::invalid_value(Unexpected::Signed(number), &self))
    }
}

struct PositiveCountVisitor;

impl Visitor<'_> for PositiveCountVisitor {
    type Value = NonZeroU32;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a whole number from 1 to {}", u32::MAX)
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<NonZeroU32, E> {
        u32::try_from(number)
            .ok()
            .and_then(NonZeroU32::new)
            .ok_or_else(|| E::invalid_value(Unexpected::Signed(number), &self))
    }
}

#[cfg(test)]
mod tests {
    use serde::de::{IntoDeserializer, value::Error};

    use super::*;

    fn size_of(text: &str) -> Result<usize, Error> {
        size(text.into_deserializer())
    }

    fn duration_of(text: &str) -> Result<Duration, Error> {
        duration(text.into_deserializer())
    }

    #[test]
    fn sizes_are_parsed_with_their_units() {
        for (text, bytes) in [
            ("64KiB", 65_536),
            ("64 KiB", 65_536),
            ("1MiB", 1_048_576),
            ("1MB", 1_000_000),
            ("1.5KiB", 1536),
            ("0B", 0),
            ("100b", 100),
        ] {
            assert_eq!(size_of(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn an_invalid_size_is_refused() {
        for text in ["", "64", "KiB", "-1KiB", "64XiB", "1KiB 2B", "１KiB", "."] {
            let refusal = size_of(text).unwrap_err().to_string();
            assert!(
                refusal.contains("a size with its unit"),
                "{text}: {refusal}"
            );
        }
    }

    #[test]
    fn durations_are_parsed_with_their_units() {
        for (text, millis) in [
            ("30s", 30_000),
            ("5min", 300_000),
            ("1h 30m", 5_400_000),
            ("250ms", 250),
            ("0s", 0),
        ] {
            assert_eq!(
                duration_of(text),
                Ok(Duration::from_millis(millis)),
                "{text}"
            );
        }
    }

    #[test]
    fn an_invalid_duration_is_refused() {
        for text in ["", "30", "s", "-1s", "5 minits", "99999999999999999999s"] {
            let refusal = duration_of(text).unwrap_err().to_string();
            assert!(
                refusal.contains("a duration with its unit"),
                "{text}: {refusal}"
            );
        }
    }
}

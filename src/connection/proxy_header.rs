//! The header of the PROXY protocol, with which a proxy begins a connection to report the
//! client's address: version 1, a line of text, and version 2, binary. Reads no byte beyond it,
//! since TLS or HTTP follows. Knows no sockets, and not which proxies are trusted.
//!
//! <https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use tokio::io::{AsyncRead, AsyncReadExt};

/// The first bytes of a header of version 2.
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// The first bytes of a header of version 1.
const WORD: &[u8] = b"PROXY ";

/// Minimum size of a header of either version: this many bytes can be read at once.
const BYTES_MIN: usize = 15;

/// Maximum size of a header of version 1, including the line end.
const LINE_BYTES_MAX: usize = 107;

/// Size of the fixed part of a header of version 2, which holds the length of the rest.
const FIXED_BYTES: usize = 16;

/// Maximum size of the rest of a header of version 2, more than a proxy needs. The protocol
/// allows 64 KiB.
const REST_BYTES_MAX: usize = 4096;

/// The result of parsing the bytes received so far.
#[derive(Debug, PartialEq, Eq)]
enum ParsedHeader {
    /// At least this many more bytes belong to the header.
    Needs(usize),
    /// The client's address; `None` if the proxy connects on its own behalf or does not know it.
    Whole(Option<IpAddr>),
}

/// The bytes are not a valid header.
#[derive(Debug, PartialEq, Eq)]
struct MalformedHeader;

/// Reads a header and returns the client's address; `None` if the proxy connects on its own
/// behalf or does not know it.
///
/// # Errors
///
/// Fails if the connection ends, and with `InvalidData` if it does not begin with a valid header.
pub(super) async fn read_header(
    stream: &mut (impl AsyncRead + Unpin),
) -> io::Result<Option<IpAddr>> {
    let mut header = Vec::new();
    loop {
        match parse_header(&header) {
            Ok(ParsedHeader::Whole(client)) => return Ok(client),
            Ok(ParsedHeader::Needs(more)) => {
                let have = header.len();
                header.resize(have + more, 0);
                let place = header.get_mut(have..).unwrap_or_default();
                stream.read_exact(place).await?;
            }
            Err(MalformedHeader) => return Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

fn parse_header(bytes: &[u8]) -> Result<ParsedHeader, MalformedHeader> {
    if bytes.len() < BYTES_MIN {
        Ok(ParsedHeader::Needs(BYTES_MIN - bytes.len()))
    } else if let Some(rest) = bytes.strip_prefix(SIGNATURE) {
        parse_version_2(rest)
    } else if bytes.starts_with(WORD) {
        parse_version_1(bytes)
    } else {
        Err(MalformedHeader)
    }
}

/// Parses version 1. Its length is not known in advance, so it is read byte by byte.
fn parse_version_1(bytes: &[u8]) -> Result<ParsedHeader, MalformedHeader> {
    let Some(line) = bytes.strip_suffix(b"\r\n") else {
        return if bytes.len() < LINE_BYTES_MAX {
            Ok(ParsedHeader::Needs(1))
        } else {
            Err(MalformedHeader)
        };
    };
    let line = str::from_utf8(line).map_err(|_| MalformedHeader)?;
    let mut words = line.split(' ').skip(1);
    let client = match words.next() {
        // The rest has to be ignored.
        Some("UNKNOWN") => return Ok(ParsedHeader::Whole(None)),
        Some("TCP4") => parse_source_address::<Ipv4Addr>(&mut words)?.into(),
        Some("TCP6") => parse_source_address::<Ipv6Addr>(&mut words)?.into(),
        _ => return Err(MalformedHeader),
    };
    for _ in 0..2 {
        let port = words.next().ok_or(MalformedHeader)?;
        let is_number = port.bytes().all(|byte| byte.is_ascii_digit());
        if !is_number || port.parse::<u16>().is_err() {
            return Err(MalformedHeader);
        }
    }
    match words.next() {
        None => Ok(ParsedHeader::Whole(Some(client))),
        Some(_) => Err(MalformedHeader),
    }
}

/// Returns the source, which is the first of the two addresses.
fn parse_source_address<'a, A: std::str::FromStr>(
    words: &mut impl Iterator<Item = &'a str>,
) -> Result<A, MalformedHeader> {
    let mut address = || words.next().and_then(|word| word.parse().ok());
    let (source, _destination): (A, A) = address().zip(address()).ok_or(MalformedHeader)?;
    Ok(source)
}

/// Parses version 2, without the signature.
fn parse_version_2(bytes: &[u8]) -> Result<ParsedHeader, MalformedHeader> {
    const VERSION_2: u8 = 0x20;
    const LOCAL: u8 = VERSION_2;
    const PROXY: u8 = VERSION_2 | 1;
    const TCP_OVER_IPV4: u8 = 0x11;
    const TCP_OVER_IPV6: u8 = 0x21;
    let Some(([command, family, length @ ..], rest)) = bytes.split_first_chunk::<4>() else {
        return Ok(ParsedHeader::Needs(
            FIXED_BYTES - SIGNATURE.len() - bytes.len(),
        ));
    };
    if !matches!(*command, LOCAL | PROXY) {
        return Err(MalformedHeader);
    }
    let length = usize::from(u16::from_be_bytes(*length));
    if length > REST_BYTES_MAX {
        return Err(MalformedHeader);
    }
    if rest.len() < length {
        return Ok(ParsedHeader::Needs(length - rest.len()));
    }
    let client = match (*command, *family) {
        (PROXY, TCP_OVER_IPV4) => {
            let (source, _) = rest.split_first_chunk::<4>().ok_or(MalformedHeader)?;
            check_length(rest, 12)?;
            Some(IpAddr::from(*source))
        }
        (PROXY, TCP_OVER_IPV6) => {
            let (source, _) = rest.split_first_chunk::<16>().ok_or(MalformedHeader)?;
            check_length(rest, 36)?;
            Some(IpAddr::from(*source))
        }
        // Health checks, and address families that have no IP address.
        _ => None,
    };
    Ok(ParsedHeader::Whole(client))
}

/// Checks that two addresses and two ports are there.
fn check_length(rest: &[u8], bytes: usize) -> Result<(), MalformedHeader> {
    if rest.len() < bytes {
        Err(MalformedHeader)
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Reads this header with more bytes behind it, and checks that those are left.
    async fn said(header: &[u8]) -> Result<Option<String>, io::ErrorKind> {
        let behind = b"GET /ws HTTP/1.1\r\n";
        let bytes = [header, behind].concat();
        let mut stream = &bytes[..];
        let said = read_header(&mut stream)
            .await
            .map_err(|error| error.kind())?;
        assert_eq!(stream, behind, "{header:02x?}");
        Ok(said.map(|client| client.to_string()))
    }

    /// The signature, version 2 with this command, a family, and the length of
    /// `rest` before it.
    fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [SIGNATURE, &[command, family], &length, rest].concat()
    }

    /// 203.0.113.9:4711 to 192.0.2.1:443.
    const IPV4: [u8; 12] = [203, 0, 113, 9, 192, 0, 2, 1, 0x12, 0x67, 0x01, 0xbb];

    #[tokio::test]
    async fn a_version_1_line_gives_the_client_address() {
        for (line, client) in [
            (
                "PROXY TCP4 203.0.113.9 192.0.2.1 4711 443\r\n",
                Some("203.0.113.9"),
            ),
            ("PROXY TCP4 1.1.1.1 2.2.2.2 0 65535\r\n", Some("1.1.1.1")),
            (
                "PROXY TCP6 2001:db8::9 ::1 4711 443\r\n",
                Some("2001:db8::9"),
            ),
            ("PROXY UNKNOWN\r\n", None),
            ("PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", None),
        ] {
            let said = said(line.as_bytes()).await;
            assert_eq!(said, Ok(client.map(str::to_owned)), "{line}");
        }
    }

    #[tokio::test]
    async fn a_version_2_header_gives_the_client_address() {
        let golden = b"\x0d\x0a\x0d\x0a\x00\x0d\x0a\x51\x55\x49\x54\x0a\x21\x11\x00\x0c\
            \xcb\x00\x71\x09\xc0\x00\x02\x01\x12\x67\x01\xbb";
        assert_eq!(v2(0x21, 0x11, &IPV4), golden);
        let mut ipv6 = [0; 36];
        ipv6[..4].copy_from_slice(&[0x20, 0x01, 0x0d, 0xb8]);
        ipv6[15] = 9;
        let more = [&IPV4[..], b"\x03\x00\x04abcd"].concat();
        for (header, client) in [
            (golden.to_vec(), Some("203.0.113.9")),
            (v2(0x21, 0x11, &more), Some("203.0.113.9")),
            (v2(0x21, 0x21, &ipv6), Some("2001:db8::9")),
            // LOCAL: the proxy itself, whatever the addresses say.
            (v2(0x20, 0x00, b""), None),
            (v2(0x20, 0x11, &IPV4), None),
            (v2(0x21, 0x00, b"anything"), None),
            // A Unix socket, and datagrams.
            (v2(0x21, 0x31, &[0; 216]), None),
            (v2(0x21, 0x12, &IPV4), None),
        ] {
            let said = said(&header).await;
            assert_eq!(said, Ok(client.map(str::to_owned)), "{header:02x?}");
        }
    }

    #[tokio::test]
    async fn an_invalid_header_is_refused() {
        let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(100));
        for header in [
            &b"GET /ws HTTP/1.1\r\n"[..],
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\0\0\0\0",
            b"PROXY TCP5 1.1.1.1 2.2.2.2 1 2\r\n",
            b"PROXY TCP4 1.1.1.1 2.2.2.2 1 65536\r\n",
            b"PROXY TCP4 1.1.1.1 2.2.2.2 1 +2\r\n",
            b"PROXY TCP4 1.1.1.1 2.2.2.2 1 \r\n",
            b"PROXY TCP4 1.1.1.1 2.2.2.2 1\r\n",
            b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2 3\r\n",
            b"PROXY TCP4 1.1.1.1  2.2.2.2 1 2\r\n",
            b"PROXY TCP4 ::1 ::1 1 2\r\n",
            b"PROXY TCP6 1.1.1.1 2.2.2.2 1 2\r\n",
            b"PROXY \xff\xff\xff\xff\xff\xff\xff\xff\xff\r\n",
            long.as_bytes(),
            &v2(0x11, 0x11, &IPV4),
            &v2(0x22, 0x11, &IPV4),
            &v2(0x21, 0x11, &IPV4[..11]),
            &v2(0x21, 0x21, &[0; 35]),
            &v2(0x21, 0x11, &[0; REST_BYTES_MAX + 1]),
        ] {
            let refused = said(header).await;
            assert_eq!(refused, Err(io::ErrorKind::InvalidData), "{header:02x?}");
        }
    }

    #[tokio::test]
    async fn a_header_that_is_cut_short_is_an_error() {
        let line = b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2\r\n".to_vec();
        for header in [line, v2(0x21, 0x11, &IPV4)] {
            for len in 0..header.len() {
                let read = read_header(&mut &header[..len])
                    .await
                    .map_err(|error| error.kind());
                assert_eq!(read, Err(io::ErrorKind::UnexpectedEof), "{len}");
            }
        }
    }

    proptest! {
        #[test]
        fn the_parser_never_asks_for_more_than_the_maximum(
            start in prop::sample::select(vec![SIGNATURE, WORD, b"PROXY TCP4 ", b""]),
            bytes in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let bytes = [start, &bytes[..]].concat();
            if let Ok(ParsedHeader::Needs(more)) = parse_header(&bytes) {
                prop_assert!(more > 0 && more <= REST_BYTES_MAX);
            }
        }
    }
}

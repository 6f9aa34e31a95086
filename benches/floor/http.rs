//! As much of HTTP/1.1 as the floor has to understand: where a head ends, the number
//! in its path, one header, and requests with a Content-Length.

use crate::publishers::Published;

/// What each publish is answered with.
pub(crate) const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";

/// The first request, if it is there whole: `POST /<topic number>`, and an envelope
/// as the body.
pub(crate) fn published(bytes: &[u8]) -> Option<Published<'_>> {
    let head = head(bytes)?;
    let body_len = header(head, b"content-length").map_or(0, number);
    let end = head.len() + body_len;
    Some(Published {
        topic: number_in_path(head, b"POST /"),
        envelope: bytes.get(head.len()..end)?,
        len: end,
    })
}

/// A request's head with the empty line that ends it, if it is there whole.
pub(crate) fn head(bytes: &[u8]) -> Option<&[u8]> {
    let end = bytes.windows(4).position(|it| it == b"\r\n\r\n")?;
    bytes.get(..end + 4)
}

/// The value of the header, of which `name` is the name in lower case.
pub(crate) fn header<'a>(head: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    head.split(|&byte| byte == b'\n').find_map(|line| {
        let (found, rest) = line.split_at_checked(name.len())?;
        let value = rest.strip_prefix(b":")?;
        found.eq_ignore_ascii_case(name).then(|| value.trim_ascii())
    })
}

/// The number behind `before`, with which the head must begin.
pub(crate) fn number_in_path(head: &[u8], before: &[u8]) -> usize {
    let rest = head.strip_prefix(before).unwrap_or_else(|| {
        panic!(
            "not a request of the floor: {}",
            String::from_utf8_lossy(head)
        );
    });
    number(rest)
}

/// The digits at the beginning.
fn number(bytes: &[u8]) -> usize {
    let digits = bytes.iter().take_while(|byte| byte.is_ascii_digit());
    digits.fold(0, |number, digit| number * 10 + usize::from(digit - b'0'))
}

//! The subset of HTTP/1.1 that the floor needs: the end of a head, the number in its path,
//! one header, and requests with a Content-Length.

use crate::publishers::Published;

/// Answer to each publish.
pub(crate) const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";

/// Returns the first request if it has arrived completely: `POST /<topic number>`, with an
/// envelope as the body.
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

/// Returns a request's head with the empty line that ends it, if it has arrived completely.
pub(crate) fn head(bytes: &[u8]) -> Option<&[u8]> {
    let end = bytes.windows(4).position(|it| it == b"\r\n\r\n")?;
    bytes.get(..end + 4)
}

/// Returns the value of the header `name`, given in lower case.
pub(crate) fn header<'a>(head: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    head.split(|&byte| byte == b'\n').find_map(|line| {
        let (found, rest) = line.split_at_checked(name.len())?;
        let value = rest.strip_prefix(b":")?;
        found.eq_ignore_ascii_case(name).then(|| value.trim_ascii())
    })
}

/// Returns the number after `before`, with which the head must begin.
pub(crate) fn number_in_path(head: &[u8], before: &[u8]) -> usize {
    let rest = head.strip_prefix(before).unwrap_or_else(|| {
        panic!(
            "not a request of the floor: {}",
            String::from_utf8_lossy(head)
        );
    });
    number(rest)
}

/// Returns the number at the beginning.
fn number(bytes: &[u8]) -> usize {
    let digits = bytes.iter().take_while(|byte| byte.is_ascii_digit());
    digits.fold(0, |number, digit| number * 10 + usize::from(digit - b'0'))
}

//! Invalid HTTP, and requests that are too large.

use sidewire_testing::protobuf;

use super::{Call, call, chunked, good, is, last, posted};
use crate::{campaign::Mutator, forge::Forge, http::Expected};

pub(super) fn lengths() -> Vec<Mutator<Call>> {
    let promising = |name: &str, call: &'static str, least: usize, most: usize| {
        last(name, is(&[413]), move |_, forge| {
            let length = forge.between(least, most).to_string();
            let more = forge.below(2000);
            posted(call, forge)
                .and("Content-Length", length)
                .followed_by(forge.bytes(more))
        })
    };
    const MIB: usize = 1024 * 1024;
    vec![
        promising("a body that is too long", "events", MIB + 1, 100 * MIB),
        promising(
            "a batch that is too long",
            "events:batch",
            8 * MIB + 1,
            1 << 40,
        ),
        promising("a body of 2^63", "events", (1 << 63) - 1, 1 << 63),
        last("chunks that are too long", is(&[413]), |good, forge| {
            let len = forge.between(MIB + 1, MIB + 100_000);
            chunked(good, &vec![0; len], 4, forge)
        }),
        Mutator::new("a body that never comes whole", |forge| {
            let request = good(forge).set("Content-Length", "5000");
            Call {
                ends: true,
                ..Call::new(request.bytes(), is(&[400]).or_silence())
            }
        }),
        Mutator::new("chunks that never end", |forge| {
            let request = good(forge)
                .without("Content-Length")
                .and("Transfer-Encoding", "chunked");
            let request = request.followed_by("5\r\nhel");
            Call {
                ends: true,
                ..Call::new(request.bytes(), is(&[400]).or_silence())
            }
        }),
        call("the largest body", is(&[200]), |_, forge| {
            let event = forge.event();
            let padding = protobuf::bytes(100, &vec![0; MIB - event.len() - 5]);
            posted("events", forge).with_body([event, padding].concat())
        }),
    ]
}

pub(super) fn syntax() -> Vec<Mutator<Call>> {
    let mut mutators = Vec::new();
    for (name, line) in [
        ("a length that is none", "Content-Length: five"),
        ("a negative length", "Content-Length: -1"),
        ("a length with a sign", "Content-Length: +5"),
        ("a length of 2^64", "Content-Length: 18446744073709551616"),
        ("two lengths", "Content-Length: 1\r\nContent-Length: 2"),
        ("an odd transfer coding", "Transfer-Encoding: gzip"),
        (
            "chunked and then not",
            "Transfer-Encoding: chunked, identity",
        ),
        ("a blank before a colon", "X-Odd : 1"),
        ("a folded line", "X-Odd: 1\r\n 2"),
        ("a header without a colon", "X-Odd"),
        ("NUL in a value", "X-Odd: a\0b"),
        ("CR in a value", "X-Odd: a\rb"),
    ] {
        mutators.push(Mutator::new(name, move |forge: &mut Forge| {
            let head = posted("events", forge).bytes();
            let text = String::from_utf8(head).unwrap();
            let bytes = text.replacen("Host: localhost", &format!("Host: localhost\r\n{line}"), 1);
            Call {
                closes: true,
                ..Call::new(bytes.into(), Expected::bare(&[400]))
            }
        }));
    }
    for (name, chunks) in [
        ("a chunk without a length", "\r\nhello\r\n0\r\n\r\n"),
        ("a chunk of an odd length", "xyz\r\nhello\r\n0\r\n\r\n"),
        ("a chunk of 2^64", "10000000000000000\r\nhello\r\n0\r\n\r\n"),
        ("a chunk of a negative length", "-5\r\nhello\r\n0\r\n\r\n"),
        ("a chunk longer than it says", "2\r\nhello\r\n0\r\n\r\n"),
    ] {
        mutators.push(last(name, Expected::bare(&[400]), move |good, _| {
            good.without("Content-Length")
                .and("Transfer-Encoding", "chunked")
                .followed_by(chunks)
        }));
    }
    let whatever = || {
        Expected::bare(&[200, 400, 401, 403, 404, 405, 409, 413, 414, 415, 431, 505]).or_silence()
    };
    mutators.push(chance("rubbish in place of HTTP", whatever(), |forge| {
        let len = forge.between(1, 500);
        forge.bytes(len)
    }));
    mutators.push(chance("a call with faults", whatever(), |forge| {
        let call = good(forge).bytes();
        forge.mutated(&call)
    }));
    mutators.push(last(
        "a head that is too long",
        Expected::bare(&[400, 431]),
        |good, forge| {
            let len = forge.between(65_536, 300_000);
            good.and("X-Long", forge.word(len))
        },
    ));
    mutators.push(last(
        "too many headers",
        Expected::bare(&[400, 431]),
        |mut good, forge| {
            for _ in 0..forge.between(101, 1500) {
                good = good.and("x", "1");
            }
            good
        },
    ));
    mutators
}

/// Makes a request that may be incomplete, so the caller closes its sending side.
fn chance(
    name: &str,
    expected: Expected,
    bytes: impl Fn(&mut Forge) -> Vec<u8> + Send + Sync + 'static,
) -> Mutator<Call> {
    Mutator::new(name, move |forge| Call {
        ends: true,
        ..Call::new(bytes(forge), expected.clone())
    })
}

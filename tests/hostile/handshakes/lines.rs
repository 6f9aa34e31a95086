//! The request line, and unusual forms of it that are valid.

use sidewire_testing::{
    protobuf,
    websocket::{BINARY, CLOSE, FIN, binary, frame},
};

use super::{Handshake, good, is, request};
use crate::{
    campaign::Mutator,
    forge::{Forge, ORIGIN},
    http::Expected,
};

/// Unusual request lines that are valid.
pub(super) fn taken() -> Vec<Mutator<Handshake>> {
    let pieces = |name: &str, of: fn(&mut Forge, usize) -> Vec<usize>| {
        Mutator::new(name, move |forge: &mut Forge| {
            let bytes = good(forge).bytes();
            let cuts = of(forge, bytes.len());
            Handshake {
                cuts,
                ..Handshake::new(bytes, is(&[101]))
            }
        })
    };
    vec![
        request("a good one", is(&[101]), |good, _| good),
        pieces("in pieces", |forge, len| forge.cuts(len, 8)),
        pieces("byte by byte", |_, len| (1..len).collect()),
        request("odd cases", is(&[101]), |good, _| {
            good.set("Connection", "uPGRADE")
                .set("Upgrade", "WebSocket")
        }),
        request("lists in Connection and Upgrade", is(&[101]), |good, _| {
            good.set("Connection", "keep-alive, Upgrade")
                .set("Upgrade", "h2c, websocket")
        }),
        request(
            "lines that end in LF",
            Expected::bare(&[101, 400]),
            |mut good, _| {
                good.line_end = "\n";
                good
            },
        ),
        request("an absolute target", is(&[101]), |good, _| {
            good.to("http://relay/ws")
        }),
        request(
            "headers that mean nothing",
            is(&[101]),
            |mut good, forge| {
                for _ in 0..forge.between(1, 80) {
                    good = good.and(&format!("x-{}", forge.word(5)), forge.word(9));
                }
                good
            },
        ),
        request("a value that is not UTF-8", is(&[101]), |good, _| {
            good.and("X-Odd", b"\xff\xfe")
        }),
        request("a proxy's Authorization besides", is(&[101]), |good, _| {
            good.and("Authorization", "Basic dTpw")
        }),
        request("the page that may", is(&[101]), |good, _| {
            good.and("Origin", ORIGIN)
        }),
        behind(
            "a ping behind the head",
            |_| frame(FIN | 9, b"p"),
            vec![0xa],
        ),
        behind(
            "an envelope behind the head",
            |_| binary(&protobuf::bytes(14, &protobuf::number(1, 5))),
            vec![BINARY],
        ),
        behind("rubbish behind the head", |_| vec![0xff; 30], vec![CLOSE]),
        behind(
            "another handshake behind it",
            |forge| good(forge).bytes(),
            vec![CLOSE],
        ),
    ]
}

/// Makes a valid handshake with bytes after it in the same write.
fn behind(
    name: &str,
    rest: impl Fn(&mut Forge) -> Vec<u8> + Send + Sync + 'static,
    frames: Vec<u8>,
) -> Mutator<Handshake> {
    Mutator::new(name, move |forge| {
        let bytes = good(forge).followed_by(rest(forge)).bytes();
        Handshake {
            frames: frames.clone(),
            ..Handshake::new(bytes, is(&[101]))
        }
    })
}

pub(super) fn request_lines() -> Vec<Mutator<Handshake>> {
    let mut mutators = Vec::new();
    for method in [
        "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "get", "GETS", "BREW",
    ] {
        mutators.push(request(
            format!("method {method}"),
            is(&[405]),
            move |good, _| good.by(method),
        ));
    }
    mutators.push(Mutator::new("method HEAD", |forge| Handshake {
        has_body: false,
        ..Handshake::new(good(forge).by("HEAD").bytes(), is(&[405]))
    }));
    for method in ["", "G@T", "GE\u{e4}T", "\"GET\""] {
        let expected = Expected::bare(&[400]);
        mutators.push(request(
            format!("method {method:?}"),
            expected,
            move |good, _| good.by(method),
        ));
    }
    for target in [
        "/",
        "/ws/",
        "//ws",
        "/WS",
        "/%77s",
        "/ws;x=1",
        "/./ws",
        "/ws/../ws",
        "/ws%00",
        "/v1/ws",
        "*",
        "http://relay/",
        "/metrics",
    ] {
        mutators.push(request(
            format!("target {target}"),
            is(&[404]),
            move |good, _| good.to(target),
        ));
    }
    mutators.push(request("a target by chance", is(&[404]), |good, forge| {
        let len = forge.between(1, 200);
        good.to(format!("/{}", forge.word(len)))
    }));
    for target in ["", "ws ws", "/w\0s", "/w s", "\\ws", "/ws\t"] {
        let expected = Expected::bare(&[400, 404]);
        mutators.push(request(
            format!("target {target:?}"),
            expected,
            move |good, _| good.to(target),
        ));
    }
    mutators.push(request(
        "a fragment",
        Expected::bare(&[101, 400, 404]),
        |good, _| good.to("/ws#here"),
    ));
    mutators.push(request("HTTP/1.0", is(&[426]), |good, _| {
        good.in_version("HTTP/1.0")
    }));
    for version in [
        "", "HTTP/0.9", "HTTP/1.2", "HTTP/2.0", "HTTP/3", "HTTQ/1.1", "http/1.1",
    ] {
        let expected = Expected::bare(&[400, 505]).or_silence();
        mutators.push(request(
            format!("version {version:?}"),
            expected,
            move |good, _| good.in_version(version),
        ));
    }
    mutators
}

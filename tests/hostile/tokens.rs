//! Tokens that must be refused: the kinds of the token matrix, and valid tokens with
//! faults. Each is tried in a handshake of its own.

mod claims;
mod forms;
mod headers;

use std::sync::Arc;

use sidewire_testing::{
    socket::Socket,
    websocket::{CLOSE, close},
};

use crate::{
    campaign::{Attacker, Mutator, connect},
    forge::{Forge, Site, good_claims},
    handshakes::{PROTOBUF, tokenless},
    http::Expected,
};

const HEADER: &str = r#"{"alg":"HS256"}"#;

pub(crate) struct Token {
    pub(crate) text: Vec<u8>,
    /// True if the token is offered as a subprotocol, where that is possible.
    as_subprotocol: bool,
}

pub(crate) struct TokenAttacker(Arc<Site>);

impl Attacker for TokenAttacker {
    const FAMILY: &'static str = "tokens";
    type Case = Token;

    fn mutators() -> Vec<Mutator<Token>> {
        kinds()
    }

    fn new(site: &Arc<Site>) -> Self {
        Self(Arc::clone(site))
    }

    async fn attempt(&mut self, case: &Token) -> Result<(), String> {
        let (request, expected) = case.shown();
        let mut socket = connect(self.0.client).await?;
        socket.send(&request).await;
        let answer = socket.answer(true).await?.ok_or("no answer")?;
        expected.check(&answer, true)?;
        let told = [&answer.body[..], format!("{answer:?}").as_bytes()].concat();
        if case.text.len() > 20 && contains(&told, &case.text) {
            return Err("the token is repeated".to_owned());
        }
        if answer.status == 101 {
            close_refused(&mut socket).await?;
        }
        socket.ended().await
    }
}

/// Reads the Close frame of a handshake that is refused after the upgrade, and answers it.
async fn close_refused(socket: &mut Socket) -> Result<(), String> {
    match socket.frame().await? {
        Some(frame)
            if frame.opcode == CLOSE
                && (frame.close_code(), frame.close_reason())
                    == (4401, "AUTHENTICATION_FAILED") => {}
        other => return Err(format!("{other:?}, not a Close with 4401")),
    }
    socket.send(&close(4401)).await;
    Ok(())
}

/// Returns a mutator for each kind of token that must be refused.
pub(crate) fn kinds() -> Vec<Mutator<Token>> {
    let groups = [
        forms::faults(),
        headers::headers(),
        headers::algorithms(),
        headers::keys(),
        claims::claims(),
        forms::shapes(),
        forms::signatures(),
    ];
    groups.into_iter().flatten().collect()
}

pub(crate) fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

impl Token {
    fn in_header(text: impl Into<Vec<u8>>) -> Self {
        Self {
            text: text.into(),
            as_subprotocol: false,
        }
    }

    /// Returns the handshake that carries the token, and the expected answer.
    fn shown(&self) -> (Vec<u8>, Expected) {
        let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
        if self.as_subprotocol && self.text.iter().all(is_name) {
            let offer = [PROTOBUF.as_bytes(), b", bearer.", &self.text].concat();
            let request = tokenless().and("Sec-WebSocket-Protocol", offer);
            // It may come from a browser, which could not read the status.
            return (request.bytes(), Expected::status(&[101]));
        }
        let request = tokenless().and("Authorization", [b"Bearer ", &self.text[..]].concat());
        // Bytes that a header cannot contain are refused by the HTTP parser.
        let is_value = |byte: &u8| matches!(byte, b'\t' | b' '..=b'~' | 0x80..);
        let expected = match self.text.iter().all(is_value) && self.text.len() < 15_000 {
            true => Expected::status(&[401]),
            false => Expected::bare(&[400, 401, 431]),
        };
        (request.bytes(), expected)
    }
}

/// Makes a mutator of a kind of token, in either position.
fn kind(
    name: impl Into<String>,
    text: impl Fn(&mut Forge) -> String + Send + Sync + 'static,
) -> Mutator<Token> {
    Mutator::new(name, move |forge| {
        let text = text(forge);
        Token {
            as_subprotocol: forge.flag(),
            text: text.into(),
        }
    })
}

fn parts(token: &str) -> [String; 3] {
    let parts: Vec<_> = token.split('.').map(str::to_owned).collect();
    parts.try_into().unwrap()
}

fn claims_of(user: &str) -> String {
    good_claims(user).to_string()
}

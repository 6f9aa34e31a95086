//! Secrets do not appear in any output: every credential contains a canary, and all output
//! is searched for it.

use std::process::Command;

use sidewire_client::RelayConnection;
use sidewire_testing::{
    http::{bearer, handshake, handshake_to, http},
    process::{Process, Signal, sidewire},
    relay::{Files, INGEST_KEY, Relay, SECRET, TOPIC, event, subscribe, token},
    socket::Socket,
};

/// Part of the relay's secret and ingest key, and of each bad credential.
const CANARY: &str = "CANARY";

/// An invalid credential.
const BAD: &str = "CANARYheader.CANARYclaims.CANARYsignature";

/// Returns handshakes with the token, good or bad, in each possible position.
fn handshakes(token: &str) -> Vec<String> {
    vec![
        handshake_to(&format!("/ws?access_token={token}"), ""),
        handshake(&bearer(token)),
        handshake(&format!(
            "Sec-WebSocket-Protocol: sidewire.v1.protobuf, bearer.{token}\r\n"
        )),
    ]
}

/// Returns requests that are refused for reasons other than their token.
fn odd_requests(token: &str) -> Vec<String> {
    [
        format!("GET /ws?access_token={token} HTTP/1.1\r\nHost: localhost\r\n\r\n"),
        format!("GET /{token} HTTP/1.1\r\nHost: localhost\r\n\r\n"),
        handshake_to(&format!("/ws?access_token={token}%zz"), ""),
        handshake(&format!("Authorization: Basic {token}\r\n")),
        handshake(&bearer(token).repeat(2)),
        handshake(&format!("Sec-WebSocket-Protocol: bearer.{token}\r\n")),
        handshake(&format!("Authorization Bearer {token}\r\n")),
    ]
    .into()
}

fn call(key: &str) -> String {
    let body = event("x").to_string();
    let length = body.len();
    format!(
        "POST /v1/tenants/acme/events HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
         Content-Type: application/json\r\nAuthorization: Bearer {key}\r\n\
         Content-Length: {length}\r\n\r\n{body}"
    )
}

/// Returns the commands that take a credential, each with one that is not accepted.
fn commands(relay: &Relay) -> Vec<Command> {
    let bad = relay.files.write("bad", BAD);
    let newline = relay.files.write("newline", &format!("{BAD}\n{BAD}"));
    let pem = format!("-----BEGIN {CANARY}-----\n{CANARY}\n-----END {CANARY}-----\n");
    let pem = relay.files.write("pem", &pem);
    let (client, ingest) = (relay.client_url(), relay.ingest_url());
    let in_url = format!("{client}?access_token={BAD}");
    let no_url = format!("{client}?access_token={BAD} {BAD}");
    let mut commands = vec![
        sidewire(&["tail", "--url", &client, "--token-file", &bad]),
        sidewire(&["tail", "--url", &client, "--token-file", &newline]),
        sidewire(&["tail", "--url", &in_url]),
        sidewire(&["tail", "--url", &no_url]),
        sidewire(&["token", "--tenant=a", "--user=b", "--secret-file", &pem]),
    ];
    for key in [&bad, &newline] {
        let publish = ["publish", "--tenant=acme", "--url", &ingest, "{}"];
        commands.push(sidewire(&[&publish[..], &["--key-file", key]].concat()));
    }
    for (variable, command) in [
        ("SIDEWIRE_TOKEN", &["tail", "--url", &client][..]),
        (
            "SIDEWIRE_INGEST_KEY",
            &["publish", "--tenant=acme", "--url", &ingest, "{}"],
        ),
    ] {
        let mut command = sidewire(command);
        command.env(variable, BAD);
        commands.push(command);
    }
    for (key, name) in [
        ("secret_file", &pem),
        ("public_key_file", &pem),
        ("public_key_file", &bad),
        ("jwks_file", &bad),
    ] {
        let algorithm = match key {
            "secret_file" => "algorithm = \"HS256\"",
            "public_key_file" => "algorithm = \"ES256\"",
            _ => "",
        };
        let text = format!("[[auth.keys]]\n{key} = \"{name}\"\n{algorithm}\n");
        let config = format!("bad-{}.toml", commands.len());
        let config = relay.files.write(&config, &text);
        commands.push(sidewire(&["check", "--config", &config]));
    }
    commands
}

#[tokio::test]
async fn no_secret_or_token_is_in_any_output_at_the_level_trace() {
    assert!(SECRET.contains(CANARY) && INGEST_KEY.contains(CANARY));
    let relay = Relay::serve(Files::with("query_token = true", "level = \"trace\""));
    let good = token("acme", "ann");
    let mut outputs = Vec::new();

    for handshake in handshakes(&good) {
        let answer = http(relay.client, &handshake);
        assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
        outputs.push(answer);
    }
    for handshake in handshakes(BAD) {
        let mut socket = Socket::connect(relay.client).await.unwrap();
        socket.send(handshake.as_bytes()).await;
        let answer = socket.answer(true).await.unwrap().unwrap();
        outputs.push(format!("{answer:?} {}", answer.text()));
        if handshake.contains("bearer.") {
            // Refused after the upgrade.
            let close = socket.frame().await.unwrap().unwrap();
            assert_eq!(close.close_code(), 4401);
            outputs.push(close.close_reason().to_owned());
        } else {
            assert_eq!(answer.status, 401, "{answer:?}");
        }
    }
    for token in [&good, BAD] {
        for request in odd_requests(token) {
            let answer = http(relay.client, &request);
            assert!(answer.starts_with("HTTP/1.1 4"), "{answer}");
            outputs.push(answer);
        }
    }
    // Nor is the query of an event stream, whose answers may quote it.
    for query in [
        format!("access_token={BAD}"),
        format!("access_token={good}&topic=user:{CANARY}"),
        format!("access_token={good}&topic={CANARY}"),
        format!("access_token={good}&since={CANARY}"),
        format!("access_token={good}&{CANARY}=1"),
    ] {
        let request = format!("GET /sse?{query} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let answer = http(relay.client, &request);
        assert!(answer.starts_with("HTTP/1.1 4"), "{answer}");
    }
    let query = format!("topic=x:{CANARY}&access_token={good}");
    let request = format!("GET /sse?{query} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let mut admitted = Socket::connect(relay.client).await.unwrap();
    admitted.send(request.as_bytes()).await;
    assert_eq!(admitted.answer(false).await.unwrap().unwrap().status, 200);
    drop(admitted);
    for (key, status) in [(INGEST_KEY, 200), (BAD, 401), (&good, 401)] {
        let answer = http(relay.ingest, &call(key));
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{answer}"
        );
        outputs.push(answer);
    }
    outputs.push(http(
        relay.ops,
        &format!(
            "GET /metrics?access_token={BAD} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        ),
    ));

    // The messages of clients are not secret, but must not be logged either.
    let mut client = RelayConnection::open(&relay.options(&good)).await.unwrap();
    subscribe(&mut client, &format!("project:{CANARY}")).await;
    client.close(1000).await;

    let tail = Process::start(relay.tail(&[TOPIC]));
    tail.stderr_has(|log| log.contains("following").then_some(()));
    let published = Process::run(relay.publish(&[&event("x").to_string()]));
    assert!(published.status.success(), "{published:?}");
    tail.signal(Signal::INT);
    let mut ended = vec![published, tail.end()];
    for command in commands(&relay) {
        let failed = Process::run(command);
        assert!(!failed.status.success(), "{failed:?}");
        ended.push(failed);
    }
    relay.process.signal(Signal::TERM);
    ended.push(relay.process.end());
    for ended in ended {
        outputs.extend([ended.stdout, ended.stderr]);
    }

    let signature = good.rsplit('.').next().unwrap();
    let in_hex: String = CANARY.bytes().map(|byte| format!("{byte:02x}")).collect();
    assert!(outputs.len() > 40);
    for output in outputs {
        for secret in [CANARY, &in_hex, signature] {
            assert!(!output.contains(secret), "{secret} is in {output}");
        }
    }
}

//! Inherited sockets, Unix sockets, and the client address that the relay assumes.

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::{
        fd::OwnedFd,
        unix::{fs::PermissionsExt, net::UnixListener},
    },
    process::{Command, Stdio},
};

use serde_json::Value;
use sidewire_testing::{
    http::{bearer, handshake, http},
    process::{Ended, PATIENCE, Process, Signal, is_on_path, sidewire},
    relay::{Files, INGEST_KEY, Relay, TOPIC, event, log_line, token},
};

/// Starts `sidewire serve` with the socket as descriptor 3, announced as systemd would.
fn serve_on(files: &Files, socket: impl Into<OwnedFd>, names: &str) -> Process {
    let mut serve = Command::new("sh");
    serve.args([
        "-c",
        "LISTEN_PID=$$ LISTEN_FDS=1 exec \"$0\" serve --config \"$1\" 3<&0 </dev/null",
        env!("CARGO_BIN_EXE_sidewire"),
        &files.config(),
    ]);
    serve.env("LISTEN_FDNAMES", names);
    Process::start_with(serve, socket.into(), Stdio::piped(), Stdio::piped())
}

fn started(process: &Process) -> Value {
    process.stderr_has(|log| log_line(log, "the relay is ready"))
}

fn with_token(headers: &str) -> String {
    handshake(&(bearer(&token("acme", "ann")) + headers))
}

/// Connects a client that sends a handshake and waits.
fn asking(address: SocketAddr) -> TcpStream {
    let mut client = TcpStream::connect(address).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.write_all(with_token("").as_bytes()).unwrap();
    client
}

fn is_let_in(client: &mut TcpStream) {
    let mut answer = [0; 12];
    client.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 101");
}

#[test]
fn a_client_that_connects_between_two_relays_is_served_by_the_next() {
    let files = Files::with("drain_timeout = \"4s\"", "");
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let held = || socket.try_clone().unwrap();

    let first = serve_on(&files, held(), "client");
    let line = started(&first);
    assert_eq!(line["client"], address.to_string());
    is_let_in(&mut asking(address));
    // The relay has to wait for this call, and drains until then.
    let ingest: SocketAddr = line["ingest"].as_str().unwrap().parse().unwrap();
    let mut call = TcpStream::connect(ingest).unwrap();
    let head = format!(
        "POST /v1/tenants/acme/events HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         Authorization: Bearer {INGEST_KEY}\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n"
    );
    call.write_all(head.as_bytes()).unwrap();
    call.read_exact(&mut [0; 12]).unwrap();

    first.signal(Signal::TERM);
    first.stderr_has(|log| log_line(log, "shutting down: writing what is queued first"));
    // In the same iteration of its loop the relay has stopped accepting.
    first.stderr_has(|log| log_line(log, "no longer accepting on inherited sockets"));
    let mut during = asking(address);
    assert_eq!(first.end().status.code(), Some(0));
    let mut between = asking(address);

    let second = serve_on(&files, held(), "sidewire.socket");
    started(&second);
    is_let_in(&mut during);
    is_let_in(&mut between);
    second.signal(Signal::TERM);
    assert_eq!(second.end().status.code(), Some(0));
}

#[test]
fn sockets_from_systemd_are_identified_by_their_names() {
    if !is_on_path("systemd-socket-activate") {
        return;
    }
    let files = Files::new();
    let free: Vec<_> = (0..3)
        .map(|_| TcpListener::bind("127.0.0.1:0").unwrap())
        .collect();
    let addresses: Vec<_> = free.iter().map(|it| it.local_addr().unwrap()).collect();
    drop(free);
    let mut activate = Command::new("systemd-socket-activate");
    for address in &addresses {
        activate.args(["-l", &address.to_string()]);
    }
    activate.arg("--fdname=ops:client:ingest");
    activate.args([
        env!("CARGO_BIN_EXE_sidewire"),
        "serve",
        "--config",
        &files.config(),
    ]);
    let process = Process::start(activate);
    process.stderr_has(|log| log.contains("Listening on").then_some(()));
    // It starts the relay for the first client, which is not lost.
    let mut client = asking(addresses[1]);
    is_let_in(&mut client);
    let line = started(&process);
    for (name, address) in ["ops", "client", "ingest"].into_iter().zip(&addresses) {
        assert_eq!(line[name], address.to_string());
    }
    let request = "GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    assert!(http(addresses[0], request).starts_with("HTTP/1.1 200 "));
    drop(client);
    process.signal(Signal::TERM);
    assert_eq!(process.end().status.code(), Some(0));
}

fn refused(ended: &Ended, reason: &str) {
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    assert!(ended.stderr.contains(reason), "{reason}: {ended:?}");
}

#[test]
fn a_socket_with_an_unknown_name_or_of_the_wrong_kind_is_an_error() {
    let files = Files::new();
    let tcp = || TcpListener::bind("127.0.0.1:0").unwrap();
    refused(&serve_on(&files, tcp(), "http").end(), "is called \"http\"");
    let unix = UnixListener::bind(files.path("client.sock")).unwrap();
    refused(
        &serve_on(&files, unix, "client").end(),
        "cannot use the inherited socket for the client listener",
    );
    let connected = TcpStream::connect(tcp().local_addr().unwrap()).unwrap();
    refused(
        &serve_on(&files, connected, "ingest").end(),
        "cannot use the inherited socket for the ingest listener: it is not listening",
    );
}

#[test]
fn an_inherited_socket_must_follow_the_rules_of_the_config() {
    let files = Files::new();
    let config = fs::read_to_string(files.config()).unwrap();
    let keys = "[[ingest.keys]]\nname = \"tests\"\nkey_file = \"ingest.key\"\n";
    assert!(config.contains(keys));
    files.write("sidewire.toml", &config.replace(keys, ""));
    let wide = TcpListener::bind("0.0.0.0:0").unwrap();
    refused(
        &serve_on(&files, wide, "ingest").end(),
        "anyone who can connect could inject events",
    );
    let inspector = "[ops]\ninspector = true\ninspector_key_file = \"ingest.key\"\n";
    files.write("sidewire.toml", &config.replace("[ops]\n", inspector));
    let wide = TcpListener::bind("0.0.0.0:0").unwrap();
    refused(
        &serve_on(&files, wide, "ops").end(),
        "ops.inspector: shows events to people, but ops.listen is 0.0.0.0:",
    );
    files.write("sidewire.toml", &config);
    // Sockets for another process are ignored.
    let mut serve = files.serve();
    serve.env("LISTEN_PID", "1").env("LISTEN_FDS", "1");
    serve.env("LISTEN_FDNAMES", "http");
    let process = Process::start(serve);
    started(&process);
}

#[test]
fn a_unix_socket_has_the_configured_mode_and_group_and_accepts_events() {
    let files = Files::new();
    let config = fs::read_to_string(files.config()).unwrap();
    let group = rustix::process::getgid().as_raw();
    let listen = "[ingest]\nlisten = \"127.0.0.1:0\"\n";
    assert!(config.contains(listen));
    let unix = format!(
        "[ingest]\nlisten = \"unix:ingest.sock\"\nsocket_mode = \"0606\"\nsocket_group = \"{group}\"\n"
    );
    files.write("sidewire.toml", &config.replace(listen, &unix));
    let process = Process::start(files.serve());
    let socket = files.path("ingest.sock");
    let url = format!("unix:{}", socket.display());
    assert_eq!(started(&process)["ingest"], url);
    let mode = fs::metadata(&socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o606);

    let key = files.path("ingest.key");
    let mut publish = sidewire(&["publish", "--tenant", "acme", "--url", &url]);
    publish
        .arg("--key-file")
        .arg(key)
        .arg(event("x").to_string());
    let published = Process::run(publish);
    assert!(published.status.success(), "{published:?}");
    assert!(
        published.stdout.contains("\"offset\":\"1\""),
        "{published:?}"
    );

    refused(&Process::run(files.serve()), "(ingest.listen): ");
    process.signal(Signal::TERM);
    assert_eq!(process.end().status.code(), Some(0));
    assert!(!socket.exists());
}

/// Returns the address that the relay assumes for a client that begins with these bytes.
fn address_of(client: &str, begun: &str, headers: &str) -> Value {
    let files = Files::with(client, "level = \"debug\"");
    let process = Process::start(files.serve());
    let line = started(&process);
    let address = line["client"].as_str().unwrap().parse().unwrap();
    let answer = http(address, &format!("{begun}{}", with_token(headers)));
    assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
    let line = process.stderr_has(|log| log_line(log, "client connected"));
    line["address"].clone()
}

#[test]
fn the_log_has_the_client_address_given_by_a_trusted_proxy_only() {
    let forwarded = "X-Forwarded-For: 198.51.100.1, 203.0.113.9\r\nX-Forwarded-For: 127.0.0.7\r\n";
    assert_eq!(address_of("", "", forwarded), "127.0.0.1");
    let trusted = "trusted_proxies = [\"127.0.0.0/8\"]";
    assert_eq!(address_of(trusted, "", forwarded), "203.0.113.9");
    let proxy = format!("{trusted}\nproxy_protocol = true");
    let line = "PROXY TCP6 2001:db8::9 ::1 4711 3000\r\n";
    assert_eq!(address_of(&proxy, line, forwarded), "2001:db8::9");
    let unknown = "PROXY UNKNOWN\r\n";
    assert_eq!(address_of(&proxy, unknown, forwarded), "127.0.0.1");
}

#[test]
fn a_tail_works_over_tls_if_it_trusts_the_certificate_or_says_why_not() {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let files = Files::with(
        "tls = { cert_file = \"tls.crt\", key_file = \"tls.key\" }",
        "",
    );
    let ca_file = files.write("tls.crt", &made.cert.pem());
    files.write("tls.key", &made.signing_key.serialize_pem());
    let relay = Relay::serve(files);
    let url = format!("wss://localhost:{}/ws", relay.client.port());
    let token = relay.files.write("token.jwt", &token("acme", "ann"));
    let tail = |ca_file: &[&str]| {
        let mut tail = sidewire(&["tail", "--url", &url, "--token-file", &token]);
        tail.args(ca_file).arg(TOPIC);
        tail
    };
    let by_flag = Process::start(tail(&["--ca-file", &ca_file]));
    let mut by_variable = tail(&[]);
    by_variable.env("SSL_CERT_FILE", &ca_file);
    let by_variable = Process::start(by_variable);
    for tail in [&by_flag, &by_variable] {
        tail.stderr_has(|log| log.contains("following").then_some(()));
    }
    assert!(
        Process::run(relay.publish(&[&event("encrypted").to_string()]))
            .status
            .success()
    );
    for tail in [&by_flag, &by_variable] {
        tail.stdout_has(|events| events.contains("encrypted").then_some(()));
    }
    let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let other = relay.files.write("other.crt", &other.cert.pem());
    let stranger = Process::start(tail(&["--ca-file", &other]));
    stranger.stderr_has(|log| log.contains("invalid peer certificate").then_some(()));
}

#[test]
fn tail_and_publish_find_the_listeners_in_the_config() {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let files = Files::with(
        "tls = { cert_file = \"tls.crt\", key_file = \"tls.key\" }",
        "",
    );
    let ca_file = files.write("tls.crt", &made.cert.pem());
    files.write("tls.key", &made.signing_key.serialize_pem());
    // The relay inherits the socket, so that no other process can take the port.
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = socket.local_addr().unwrap().port();
    let config = fs::read_to_string(files.config()).unwrap();
    let config = config.replacen("127.0.0.1:0", &format!("0.0.0.0:{port}"), 1);
    let config = config.replacen("127.0.0.1:0", "unix:ingest.sock", 1);
    let config = files.write("sidewire.toml", &config);
    let process = serve_on(&files, socket, "client");
    started(&process);

    let token = files.write("token.jwt", &token("acme", "ann"));
    let mut tail = sidewire(&["tail", "--config", &config, "--token-file", &token]);
    tail.args(["--ca-file", &ca_file, "--count=1", TOPIC]);
    let tail = Process::start(tail);
    tail.stderr_has(|log| log.contains("following").then_some(()));
    let mut publish = sidewire(&["publish", "--config", &config, "--tenant=acme"]);
    publish.arg("--key-file").arg(files.path("ingest.key"));
    publish.arg(event("found").to_string());
    let published = Process::run(publish);
    assert!(published.status.success(), "{published:?}");
    let ended = tail.end();
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    assert!(ended.stdout.contains("\"found\""), "{ended:?}");
}

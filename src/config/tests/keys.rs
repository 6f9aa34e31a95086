//! Tests of the keys of clients and backends, and of configurations without keys.

use super::*;

#[test]
fn tokens_cannot_be_verified_without_a_key() {
    let refusal = refusal("\n[auth]\nmode = \"jwt\"\n");
    assert!(
        refusal.starts_with("line 2: auth.keys: there is none"),
        "{refusal}"
    );
    let refusal = parse("").unwrap_err().to_string();
    assert!(refusal.starts_with("auth.keys: there is none"), "{refusal}");
}

#[test]
fn disabled_authentication_beyond_loopback_is_refused() {
    for listen in ["0.0.0.0:3000", "192.0.2.1:3000", "[::]:3000"] {
        let refusal = refusal(&format!(
            "[auth]\nmode = \"none\"\n[client]\nlisten = \"{listen}\"\n"
        ));
        let expected = "line 2: auth.mode: \"none\" lets anyone connect";
        assert!(refusal.starts_with(expected), "{refusal}");
    }
    for listen in [
        "127.0.0.1:3000",
        "[::1]:3000",
        "127.9.9.9:0",
        "[::ffff:127.0.0.1]:1",
    ] {
        parse(&format!(
            "[auth]\nmode = \"none\"\n[client]\nlisten = \"{listen}\"\n"
        ))
        .unwrap();
    }
}

#[test]
fn token_settings_are_refused_if_authentication_is_disabled() {
    let loopback = "[client]\nlisten = \"127.0.0.1:3000\"\n";
    for (auth, message) in [
        (
            "mode = \"none\"\n[[auth.keys]]\njwks_file = \"a\"\n",
            "line 5: auth.keys: has no effect",
        ),
        (
            "mode = \"none\"\nissuer = \"a\"\n",
            "line 5: auth.issuer: has no effect",
        ),
        (
            "mode = \"none\"\naudience = \"a\"\n",
            "line 5: auth.audience: has no effect",
        ),
        (
            "mode = \"none\"\n[auth.subscribe]\nurl = \"https://app.example.com/\"\n",
            "line 6: auth.subscribe.url: has no effect",
        ),
    ] {
        let refusal = refusal(&format!("{loopback}[auth]\n{auth}"));
        assert!(refusal.starts_with(message), "{refusal}");
    }
}

#[test]
fn a_token_key_is_of_exactly_one_kind() {
    for (key, message) in [
        ("algorithm = \"HS256\"", "needs exactly one of"),
        (
            "secret_file = \"a\"\njwks_file = \"b\"\nalgorithm = \"HS256\"",
            "needs exactly one of",
        ),
        (
            "secret_file = \"a\"",
            "needs an `algorithm`, such as \"HS256\"",
        ),
        (
            "public_key_file = \"a\"",
            "needs an `algorithm`, such as \"ES256\"",
        ),
        (
            "secret_file = \"a\"\nalgorithm = \"ES256\"",
            "has a secret_file",
        ),
        (
            "public_key_file = \"a\"\nalgorithm = \"HS256\"",
            "has a public_key_file",
        ),
        ("jwks_file = \"a\"\nalgorithm = \"HS256\"", "has a key set"),
        ("jwks_file = \"a\"\nkid = \"1\"", "has a key set"),
        (
            "secret_file = \"a\"\nalgorithm = \"HS256\"\nkid = \"\"",
            "has an empty `kid`",
        ),
    ] {
        let text = format!("[[auth.keys]]\n{key}\n");
        assert_refused(&text, 1, &format!("auth.keys[1]: {message}"));
    }
    assert_refused(
        "[[auth.keys]]\nsecret_file = \"a\"\nalgorithm = \"none\"\n",
        3,
        "auth.keys[1].algorithm: unknown value `none`\n  hint: expected one of HS256, HS384, HS512, \
         RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, EdDSA",
    );
}

#[test]
fn an_ingest_listener_beyond_loopback_needs_a_key() {
    let listen = "[ingest]\nlisten = \"0.0.0.0:3001\"\n";
    assert_refused_once(
        listen,
        2,
        "ingest.listen: is 0.0.0.0:3001, which is not loopback",
    );
    let key = "[[ingest.keys]]\nname = \"a\"\nkey_file = \"a\"\n";
    parse(&format!("{KEY}{listen}{key}")).unwrap();
}

#[test]
fn an_ingest_key_has_a_unique_name() {
    let key = |name: &str| format!("[[ingest.keys]]\nname = \"{name}\"\nkey_file = \"a\"\n");
    parse(&format!("{KEY}{}{}", key("a"), key("b"))).unwrap();
    assert_refused_once(
        &format!("{}{}{}", key("a"), key("b"), key("a")),
        8,
        "ingest.keys[2].name: \"a\" is also the name of ingest.keys[0]",
    );
    for name in [String::new(), "x".repeat(129), "a\\nb".to_owned()] {
        assert_refused_once(&key(&name), 2, "ingest.keys[0].name: is not a valid name");
    }
}

#[test]
fn an_ingest_key_must_be_complete() {
    assert_refused(
        "[[ingest.keys]]\nname = \"a\"\n",
        1,
        "ingest.keys[0]: the key `key_file` is missing",
    );
}

#[test]
fn a_key_has_at_least_one_tenant_and_only_valid_ones() {
    let key = "[[ingest.keys]]\nname = \"a\"\nkey_file = \"a\"\n";
    let config = parse(&format!("{KEY}{key}tenants = [\"acme\", \"Größe 1\"]\n")).unwrap();
    let tenants = config.ingest.keys[0].tenants.as_ref().unwrap();
    let names: Vec<_> = tenants.iter().map(|tenant| tenant.as_str()).collect();
    assert_eq!(names, ["acme", "Größe 1"]);
    assert_eq!(
        parse(&format!("{KEY}{key}")).unwrap().ingest.keys[0].tenants,
        None
    );
    assert_refused(
        &format!("{key}tenants = [\"acme\", \"\"]\n"),
        4,
        "ingest.keys[0].tenants: the tenant name \"\" is empty",
    );
    assert_refused_once(
        &format!("{key}tenants = []\n"),
        4,
        "ingest.keys[0].tenants: is empty",
    );
}

#[test]
fn an_empty_claim_name_issuer_or_audience_is_refused() {
    for key in [
        "tenant_claim",
        "user_claim",
        "topics_claim",
        "subscribe_claim",
        "issuer",
        "audience",
    ] {
        let text = format!("[auth]\n{key} = \"\"\n{KEY}");
        let refusal = refusal(&text);
        let expected = format!("line 2: auth.{key}: is empty");
        assert!(refusal.starts_with(&expected), "{refusal}");
    }
}

#[test]
fn a_key_set_url_is_unique_and_its_timeout_is_below_that_of_a_handshake() {
    let set = "[[auth.keys]]\njwks_url = \"https://login.example.com/jwks\"\n";
    assert_refused_once(
        &format!("{set}{set}"),
        4,
        "auth.keys[2].jwks_url: is https://login.example.com/jwks, which another key has already",
    );
    let refusal = refusal(&format!("{set}[client]\nhandshake_timeout = \"5s\"\n"));
    assert!(
        refusal.contains("auth.jwks_timeout: is not less than"),
        "{refusal}"
    );
}

#[test]
fn the_backend_for_subscriptions_has_a_url_and_bounded_values() {
    let with = |lines: &str| {
        let keys = "[[auth.keys]]\njwks_file = \"a\"\n[auth.subscribe]\n";
        parse(&format!("{keys}{lines}\n"))
    };
    let url = "url = \"unix:app.sock:/ask\"\nkey_file = \"ask.key\"";
    let subscribe = with(url).unwrap().auth.subscribe;
    let resolved = BackendUrl::parse("unix:/etc/sidewire/app.sock:/ask");
    assert_eq!(subscribe.url, resolved.ok());
    assert_eq!(subscribe.key_file, Some("/etc/sidewire/ask.key".into()));
    for (lines, message) in [
        ("key_file = \"ask.key\"", "key_file: has no effect"),
        ("timeout = \"0s\"", "timeout: is 0"),
        ("timeout = \"21s\"", "timeout: is 21s"),
        ("ttl = \"2h\"", "ttl: is 2h"),
        ("negative_ttl = \"2h\"", "negative_ttl: is 2h"),
        ("entries = 0", "entries: is 0"),
        ("entries = 1000001", "entries: is 1000001"),
        ("concurrency = 0", "concurrency: is 0"),
        ("concurrency = 1001", "concurrency: is 1001"),
    ] {
        let refusal = with(lines).unwrap_err().to_string();
        let expected = format!("line 4: auth.subscribe.{message}");
        assert!(refusal.starts_with(&expected), "{refusal}");
    }
    let refusal = with("url = \"http://app.example.com/\"")
        .unwrap_err()
        .to_string();
    assert!(refusal.contains("is neither https"), "{refusal}");
    with("ttl = \"0s\"\nnegative_ttl = \"0s\"").unwrap();
}

#[test]
fn the_inspector_is_off_unless_it_is_on_this_machine_with_a_key() {
    let with = |lines: &str| parse(&format!("{KEY}[ops]\n{lines}"));
    let off = with("").unwrap().ops;
    assert_eq!((off.inspector, off.inspector_key_file), (false, None));
    let key = "inspector = true\ninspector_key_file = \"inspector.key\"\n";
    for listen in ["127.0.0.1:3002", "[::1]:3002", "unix:ops.sock"] {
        let ops = with(&format!("{key}listen = \"{listen}\"\n")).unwrap().ops;
        let file = ops.inspector_key_file.unwrap();
        assert_eq!(file, Path::new("/etc/sidewire/inspector.key"));
    }
    for listen in ["0.0.0.0:3002", "192.0.2.1:3002", "[::]:3002"] {
        let text = format!("[ops]\nlisten = \"{listen}\"\n{key}");
        assert_refused_once(&text, 3, "ops.inspector: shows events to people, but");
        // Metrics may be served there.
        with(&format!("listen = \"{listen}\"\n")).unwrap();
    }
    let no_key = "ops.inspector_key_file: is missing";
    assert_refused_once("[ops]\ninspector = true\n", 1, no_key);
}

#[test]
fn switching_the_inspector_needs_a_restart_and_another_key_does_not() {
    let with = |lines: &str| parse(&format!("{KEY}[ops]\n{lines}\n")).unwrap();
    let on = |key: &str| with(&format!("inspector = true\ninspector_key_file = \"{key}\""));
    let mut new = on("new.key");
    assert_eq!(new.keep_fixed(&with("")), ["ops.inspector"]);
    assert!(!new.ops.inspector);
    new.check().unwrap();
    let mut new = on("new.key");
    assert_eq!(new.keep_fixed(&on("old.key")), [""; 0]);
    assert!(new.ops.inspector_key_file.unwrap().ends_with("new.key"));
}

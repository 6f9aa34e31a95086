//! Tests of the bounds of single values.

use super::*;

#[test]
fn zero_is_refused_where_it_would_allow_nothing() {
    let mut refused = 0;
    for (section, keys, zero) in [
        (
            "client",
            "handshake_timeout write_timeout drain_timeout",
            "\"0s\"",
        ),
        (
            "client",
            "head_max message_max send_buffer receive_buffer",
            "\"0B\"",
        ),
        (
            "limits",
            "topics_per_event topics_per_subscribe topics_per_connection outbox_frames tenants",
            "0",
        ),
        ("limits", "outbox_bytes json_max", "\"0B\""),
        ("replay", "events", "0"),
        ("replay", "bytes process_bytes", "\"0B\""),
        ("replay", "age", "\"0s\""),
        ("ingest", "batch_events_max", "0"),
        ("ingest", "body_max batch_body_max", "\"0B\""),
        ("ingest", "ack_timeout inbox_timeout", "\"0s\""),
    ] {
        for key in keys.split(' ') {
            let text = format!("[{section}]\n{key} = {zero}\n");
            assert_refused(&text, 2, &format!("{section}.{key}: is 0 and must be "));
            refused += 1;
        }
    }
    assert_eq!(refused, 23);
}

#[test]
fn zero_is_accepted_where_it_has_a_meaning() {
    let text = "[client]\ndrain_spread = \"0s\"\n[auth]\nleeway = \"0s\"\n[limits]\nshards = 0\n";
    let key = "[[auth.keys]]\njwks_file = \"a\"\n";
    let config = parse(&format!("{text}{key}")).unwrap();
    assert_eq!(
        (config.client.drain_spread, config.auth.leeway),
        (Duration::ZERO, Duration::ZERO)
    );
}

#[test]
fn a_value_out_of_its_bounds_is_refused() {
    for (text, message) in [
        (
            "[client]\nhead_max = \"8191B\"",
            "client.head_max: is 8.0 KiB",
        ),
        (
            "[client]\nhead_max = \"2MiB\"",
            "client.head_max: is 2.0 MiB",
        ),
        (
            "[client]\nmessage_max = \"2GiB\"",
            "client.message_max: is 2.0 GiB",
        ),
        (
            "[client]\nsend_buffer = \"2GiB\"",
            "client.send_buffer: is 2.0 GiB",
        ),
        ("[limits]\nshards = 1025", "limits.shards: is 1025"),
        (
            "[limits]\nrefusals_per_minute = 10001",
            "limits.refusals_per_minute: is 10001",
        ),
        (
            "[limits]\noutbox_bytes = \"2GiB\"",
            "limits.outbox_bytes: is 2.0 GiB",
        ),
        (
            "[limits]\njson_max = \"1023B\"",
            "limits.json_max: is 1023 B",
        ),
        ("[ops]\ntenant_labels = 1001", "ops.tenant_labels: is 1001"),
        ("[replay]\nbytes = \"2TiB\"", "replay.bytes: is 2.0 TiB"),
        (
            "[limits]\nmemory_max = \"447MiB\"",
            "limits.memory_max: is 447.0 MiB and must be at least 448.0 MiB: the maximum of the logs and the message ids",
        ),
        (
            "[limits]\nmemory_max = \"200MiB\"\n[replay]\nprocess_bytes = \"9MiB\"",
            "limits.memory_max: is 200.0 MiB",
        ),
        (
            "[replay]\nage = \"31days\"",
            "replay.age: is 1month 13h 26m",
        ),
        (
            "[client]\nwrite_timeout = \"31days\"",
            "client.write_timeout: is 1month",
        ),
        (
            "[ingest]\nbody_max = \"2GiB\"",
            "ingest.body_max: is 2.0 GiB",
        ),
    ] {
        assert_refused_once(text, 2, message);
    }
    parse(&format!(
        "{KEY}[client]\nhead_max = \"8KiB\"\n[replay]\nage = \"30days\"\n"
    ))
    .unwrap();
}

#[test]
fn an_invalid_log_level_is_refused() {
    for level in [
        "inof",
        "",
        "info,sidewire",
        "sidewire=inof",
        "info,[",
        "info,,debug",
        // Found by the fuzzer: the filter's parser panicked.
        "\u{85}\u{85}iA-[lo",
    ] {
        let text = format!("[log]\nlevel = \"{level}\"\n");
        assert_refused_once(&text, 2, "log.level: ");
    }
    for level in [
        "off",
        "DEBUG",
        "info,sidewire::ingest=debug",
        "warn,[span{a=1}]=trace",
    ] {
        parse(&format!("{KEY}[log]\nlevel = \"{level}\"\n")).unwrap();
    }
}

#[test]
fn a_network_that_can_contain_no_address_is_refused() {
    assert!(
        parse(&format!(
            "{KEY}[client]\ntrusted_proxies = [\"10.0.0.0/8\", \"::1\", \"::ffff:10.0.0.1\"]"
        ))
        .is_ok()
    );
    let text = "[client]\ntrusted_proxies = [\"::ffff:10.0.0.0/104\"]\n";
    assert_refused(text, 2, "client.trusted_proxies");
}

#[test]
fn a_body_limit_that_memory_could_never_admit_is_refused() {
    let with = |size: &str| {
        format!("{KEY}[limits]\nmemory_max = \"448MiB\"\n[ingest]\nbatch_body_max = \"{size}\"\n")
    };
    for size in ["13MiB", "12MiB"] {
        let told = refusal(&with(size));
        assert!(
            told.contains("limits.memory_max has room only for bodies of up to 12.0 MiB"),
            "{told}"
        );
    }
    parse(&with("11MiB")).unwrap();
}

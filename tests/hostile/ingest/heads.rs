//! The head of a call: credentials, target, and description of the body.

use sidewire_testing::{protobuf, relay::INGEST_KEY};

use super::{Call, JSON, PROTOBUF, as_json, call, good, is, json_event, posted, target};
use crate::{
    campaign::Mutator,
    forge::{INGEST_TENANT, LIMITED_KEY},
    http::Expected,
};

pub(super) fn callers() -> Vec<Mutator<Call>> {
    let mut mutators = vec![call("no key", is(&[401]), |good, _| {
        good.without("Authorization")
    })];
    for value in [
        "",
        "Bearer",
        "Bearer   ",
        "Basic dTpw",
        "Bearer wrong",
        "Bearer a b",
        "bearer\t",
    ] {
        mutators.push(call(
            format!("Authorization: {value:?}"),
            is(&[401]),
            move |good, _| good.set("Authorization", value),
        ));
    }
    mutators.extend([
        call("the key and a byte more", is(&[401]), |good, forge| {
            good.set(
                "Authorization",
                format!("Bearer {INGEST_KEY}{}", forge.word(1)),
            )
        }),
        call("the key and a byte less", is(&[401]), |good, _| {
            let key = &INGEST_KEY[1..];
            good.set("Authorization", format!("Bearer {key}"))
        }),
        call("the key in another case", is(&[401]), |good, _| {
            good.set(
                "Authorization",
                format!("Bearer {}", INGEST_KEY.to_lowercase()),
            )
        }),
        call("a key by chance", is(&[401]), |good, forge| {
            let len = forge.between(1, 20_000);
            good.set("Authorization", format!("Bearer {}", forge.word(len)))
        }),
        call("a key that is not UTF-8", is(&[401]), |good, _| {
            good.set("Authorization", b"Bearer \xff\xfe")
        }),
        call("the key twice", is(&[401]), |good, _| {
            good.and("Authorization", format!("Bearer {INGEST_KEY}"))
        }),
        call("a client's token", is(&[401]), |good, forge| {
            good.set("Authorization", format!("Bearer {}", forge.site.token))
        }),
        call("the key of another tenant", is(&[403]), |good, forge| {
            let tenants = ["acme", "hostile2", "Hostile", "hostile%20", "%68ostile2"];
            good.set("Authorization", format!("Bearer {LIMITED_KEY}"))
                .to(target(
                    forge.pick(&tenants),
                    forge.pick(&["events", "nothing"]),
                ))
        }),
    ]);
    mutators
}

pub(super) fn paths() -> Vec<Mutator<Call>> {
    let mut mutators = Vec::new();
    for path in [
        "/",
        "/v1",
        "/v1/tenants",
        "/v2/tenants/hostile/events",
        "//v1/tenants/hostile/events",
        "/V1/tenants/hostile/events",
        "/v1/tenants/hostile/events/",
        "/v1/tenants/hostile/event",
        "/v1/tenants/hostile/events:batch2",
        "/v1/tenants/hostile/events%3Abatch",
        "*",
        "/v1/tenants/hostile/events/1",
        "/v1/tenants/hostile//events",
        "/metrics",
        "/ws",
        "/v1/tenants/hostile/%65vents",
    ] {
        mutators.push(call(format!("path {path}"), is(&[404]), move |good, _| {
            good.to(path)
        }));
    }
    for tenant in [
        "",
        "%",
        "%4",
        "%zz",
        "a%",
        "%00",
        "a%0Ab",
        "%7f",
        "%c2%85",
        "%ff",
        "%c3",
        "%ed%a0%80",
    ] {
        mutators.push(call(
            format!("tenant {tenant:?}"),
            is(&[400]),
            move |good, _| good.to(target(tenant, "events")),
        ));
    }
    mutators.push(call(
        "a tenant that is too long",
        is(&[400]),
        |good, forge| {
            let len = forge.between(129, 9000);
            good.to(target(&forge.word(len), "events"))
        },
    ));
    mutators.push(call(
        "a tenant by chance",
        Expected::bare(&[200, 400, 403, 404]),
        |good, forge| {
            let len = forge.between(1, 20);
            let bytes = forge.bytes(len);
            let escaped: String = bytes.iter().map(|byte| format!("%{byte:02X}")).collect();
            good.to(target(&escaped, "events"))
        },
    ));
    mutators.push(call("a path by chance", is(&[404]), |good, forge| {
        let len = forge.between(1, 5000);
        good.to(format!("/{}", forge.word(len)))
    }));
    mutators
}

pub(super) fn methods() -> Vec<Mutator<Call>> {
    let mut mutators = Vec::new();
    for method in [
        "GET", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "post", "POSTS", "PURGE",
    ] {
        mutators.push(call(
            format!("method {method}"),
            is(&[405]),
            move |good, _| good.by(method),
        ));
    }
    mutators.push(Mutator::new("method HEAD", |forge| Call {
        has_body: false,
        ..Call::new(good(forge).by("HEAD").bytes(), is(&[405]))
    }));
    mutators
}

pub(super) fn types() -> Vec<Mutator<Call>> {
    let mut mutators = vec![call("no type", is(&[415]), |good, _| {
        good.without("Content-Type")
    })];
    for value in [
        "",
        "text/plain",
        "application/protobuf",
        "application/jsonp",
        "application/json2",
        "application/json; charset=latin1",
        "application/json;charset=utf-16",
        "*/*",
        "json",
        "application/x-protobuf2",
        "multipart/form-data; boundary=x",
        "application/xml",
        "application/x-www-form-urlencoded",
    ] {
        mutators.push(call(
            format!("type {value:?}"),
            is(&[415]),
            move |good, _| good.set("Content-Type", value),
        ));
    }
    for coding in [
        "gzip",
        "deflate",
        "br",
        "zstd",
        "identity",
        "",
        "gzip, gzip",
    ] {
        mutators.push(call(
            format!("coding {coding:?}"),
            is(&[415]),
            move |good, _| good.and("Content-Encoding", coding),
        ));
    }
    mutators.push(call("two types", is(&[400]), |good, _| {
        good.and("Content-Type", PROTOBUF)
    }));
    mutators.push(call("a type that is not ASCII", is(&[415]), |good, _| {
        good.set("Content-Type", b"application/\xff")
    }));
    mutators.push(call("JSON said to be protobuf", is(&[400]), |_, forge| {
        as_json(forge, &json_event(1)).set("Content-Type", PROTOBUF)
    }));
    mutators.push(call("protobuf said to be JSON", is(&[400]), |good, _| {
        good.set("Content-Type", JSON)
    }));
    mutators
}

pub(super) fn queries() -> Vec<Mutator<Call>> {
    let mut mutators = Vec::new();
    for query in [
        "topic=",
        "topic",
        "topic=project",
        "topic=:1",
        "topic=project:",
        "topic=Project:1",
        "topic=pro-ject:1",
        "topic=*:*",
        "topic=project:*",
        "topic=tenant:acme",
        "topic=tenant:",
        "topic=user:*",
        "topic=project:%00",
        "topic=project:%c2%85",
        "topic=project:%ff",
        "topic=%zz",
        "topic=%",
        "%=1",
        "topics=project:1",
        "Topic=project:1",
        "access_token=x",
        "if_last=",
        "if_last=project:1",
        "if_last=project:1@",
        "if_last=project:1@x:y",
        "if_last=@0",
        "if_last=project:1@1",
        "if_last=project:*@0",
        "if_last=nothing@0",
        "if_last=project:1@epoch:18446744073709551616",
        "if_last=project:1@:-1",
        "a=b",
        "x",
    ] {
        mutators.push(call(
            format!("query {query}"),
            is(&[400]),
            move |good, _| good.to(format!("{}?{query}", target(INGEST_TENANT, "events"))),
        ));
    }
    mutators.extend([
        call(
            "an id that is too long in the query",
            is(&[400]),
            |good, forge| {
                let len = forge.between(257, 5000);
                let id = forge.word(len);
                good.to(format!(
                    "{}?topic=project:{id}",
                    target(INGEST_TENANT, "events")
                ))
            },
        ),
        call("too many topics in the query", is(&[400]), |good, forge| {
            let topics: Vec<_> = (0..forge.between(101, 1000))
                .map(|id| format!("topic=a:{id}"))
                .collect();
            good.to(format!(
                "{}?{}",
                target(INGEST_TENANT, "events"),
                topics.join("&")
            ))
        }),
        call("an empty query", is(&[200]), |good, forge| {
            let query = forge.pick(&["?", "?&", "?&&&"]);
            good.to(format!("{}{query}", target(INGEST_TENANT, "events")))
        }),
        call("a precondition on a batch", is(&[400]), |_, forge| {
            let batch = protobuf::bytes(1, &forge.event());
            posted("events:batch", forge)
                .to(format!(
                    "{}?if_last=project:1@0",
                    target(INGEST_TENANT, "events:batch")
                ))
                .with_body(batch)
        }),
    ]);
    mutators
}

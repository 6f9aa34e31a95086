//! Calls with one event, as JSON.

use super::{Call, JSON, as_json, call, is, json_event, posted};
use crate::campaign::Mutator;

pub(super) fn json() -> Vec<Mutator<Call>> {
    let mut mutators = Vec::new();
    for text in [
        "",
        "null",
        "[]",
        "1",
        "\"x\"",
        "{",
        "}",
        "{}",
        "{}{}",
        "{\"messageId\":",
        "{'a':1}",
        "\u{feff}{}",
        r#"{"workItemCreated":null}"#,
        r#"{"workItemCreated":[]}"#,
        r#"{"workItemCreated":5}"#,
        r#"{"nothing":{}}"#,
        r#"{"workItemCreated":{"nothing":1}}"#,
        r#"{"messageId":5,"workItemDeleted":{"workItemId":"i"}}"#,
        r#"{"timestamp":"x","workItemDeleted":{"workItemId":"i"}}"#,
        r#"{"timestamp":1e99,"workItemDeleted":{"workItemId":"i"}}"#,
        r#"{"timestamp":1.5,"workItemDeleted":{"workItemId":"i"}}"#,
        r#"{"workItemDeleted":{"workItemId":"i"},"workItemDeleted":{"workItemId":"i"}}"#,
        r#"{"workItemDeleted":{"workItemId":"i"},"work_item_deleted":{"workItemId":"i"}}"#,
        r#"{"workItemDeleted":{"workItemId":"i"},"sprintDeleted":{"sprintId":"s"}}"#,
        r#"{"workItemDeleted":{"workItemId":"\ud800"}}"#,
        r#"{"workItemDeleted":{"workItemId":"i"},}"#,
        r#"{"workItemDeleted":{"workItemId":"i"}} x"#,
        r#"{"workItemDeleted":{"workItemId":["i"]}}"#,
        r#"{"workItemDeleted":{"workItemId":"*"}}"#,
        r#"{"workItemDeleted":{"workItemId":"a\u0000"}}"#,
        r#"{"workItemDeleted":{}}"#,
        r#"{"workItemDeleted":{"workItemId":"i"},"topics":["x"]}"#,
        r#"{"workItemDeleted":{"workItemId":"i"},"topics":"project:1"}"#,
        r#"{"workItemDeleted":{"workItemId":"i"},"position":{}}"#,
        r#"{"workItemDeleted":{"workItemId":"i"},"position":{"offset":"1"}}"#,
        r#"{"ping":{}}"#,
        r#"{"subscribe":{}}"#,
        r#"{"batch":{}}"#,
        r#"{"workItemCreated":{"workItem":{"projectId":"p","itemType":"NONE_SUCH"}}}"#,
    ] {
        mutators.push(call(
            format!("JSON {text:?}"),
            is(&[400]),
            move |_, forge| as_json(forge, text),
        ));
    }
    mutators.extend([
        call("JSON that is deep", is(&[400]), |_, forge| {
            let levels = forge.between(200, 19_000);
            as_json(forge, &"{\"batch\":{\"messages\":[".repeat(levels))
        }),
        call("lists that are deep", is(&[400]), |_, forge| {
            let levels = forge.between(200, 100_000);
            as_json(forge, &"[".repeat(levels))
        }),
        call("JSON of too many values", is(&[413]), |_, forge| {
            let values = forge.between(100_002, 400_000);
            as_json(forge, &format!("[{}", "0,".repeat(values)))
        }),
        call("an unknown field that is deep", is(&[400]), |_, forge| {
            let levels = forge.between(200, 50_000);
            let deep = [vec!["["; levels].concat(), vec!["]"; levels].concat()].concat();
            as_json(forge, &format!(r#"{{"x":{deep}}}"#))
        }),
        call("a number of many digits", is(&[400]), |_, forge| {
            let digits = "9".repeat(forge.between(20, 100_000));
            as_json(forge, &format!(r#"{{"timestamp":{digits}}}"#))
        }),
        call("JSON that is not UTF-8", is(&[400]), |_, forge| {
            let body = b"{\"workItemDeleted\":{\"workItemId\":\"\xff\"}}";
            posted("events", forge)
                .set("Content-Type", JSON)
                .with_body(&body[..])
        }),
        call("JSON with faults", is(&[200, 400, 409]), |_, forge| {
            let body = forge.mutated(json_event(7).as_bytes());
            posted("events", forge)
                .set("Content-Type", JSON)
                .with_body(body)
        }),
    ]);
    mutators
}

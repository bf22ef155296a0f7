//! JSON bodies: taken when serde_json, another parser, takes them as an object that is not nested too deep.
#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use snip::fuzzing::Object;
use snip::limits::JSON_DEPTH_MAX;

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(fields) => 1 + fields.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

fuzz_target!(|data: &[u8]| {
    let parsed = Object::parse(data);
    match serde_json::from_slice::<Value>(data) {
        Ok(value @ Value::Object(_)) if depth(&value) <= JSON_DEPTH_MAX => {
            let object = parsed.expect("an object");
            for (name, expected) in value.as_object().into_iter().flatten() {
                let field = object.get(name).expect("a field");
                assert_eq!(field.text(), expected.as_str());
            }
        }
        // Numbers beyond what a double holds are none to serde_json.
        Err(error) if error.to_string().contains("number out of range") => {}
        other => assert!(parsed.is_none(), "{parsed:?}, expected {other:?}"),
    }
});

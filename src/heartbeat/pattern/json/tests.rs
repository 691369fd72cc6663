//! Tests of JSON patterns against random spellings.

use fastrand::Rng;
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use serde_json::json;

use super::*;

fn pattern(text: &str) -> Json {
    Json::new(serde_json::from_str(text).unwrap()).unwrap()
}

#[test]
fn s65_numbers_are_compared_by_value() {
    let ack = pattern(r#"{"op":11}"#);
    for same in ["11", "11.0", "1.1e1", "1.1E+1", "110e-1", "0.11e2", "11.000000000000000000"] {
        assert!(ack.matches(format!(r#"{{"op":{same}}}"#).as_bytes()), "{same}");
    }
    for other in ["1", "1.1", "-11", "11.5", "11.0000000000001", "11e1", "\"11\"", "[11]", "true", "null", "11a"] {
        assert!(!ack.matches(format!(r#"{{"op":{other}}}"#).as_bytes()), "{other}");
    }
    assert!(pattern(r#"{"op":11.0}"#).matches(br#"{"op":11}"#));
    assert!(pattern(r#"{"op":0}"#).matches(br#"{"op":-0.0}"#));
}

#[test]
fn s65_large_integers_are_compared_exactly() {
    let large = pattern(r#"{"n":9007199254740993}"#);
    assert!(large.matches(br#"{"n": 9007199254740993}"#));
    assert!(!large.matches(br#"{"n":9007199254740992}"#), "as doubles they are equal");
    assert!(pattern(r#"{"n":18446744073709551615}"#).matches(br#"{"n":18446744073709551615}"#));
    assert!(!pattern(r#"{"n":-1}"#).matches(br#"{"n":18446744073709551615}"#));
}

#[test]
fn s65_values_are_compared_at_any_depth() {
    let nested = pattern(r#"{"d":{"list":[1,{"t":"a/b"}],"flag":true}}"#);
    let spelling = "{ \"more\" : 0,\t\"d\":{\"flag\":true ,\r\n \"list\":[1.0 , {\"\\u0074\":\"a\\/b\",\"x\":[]}]}}";
    assert!(nested.matches(spelling.as_bytes()));
    assert!(!nested.matches(br#"{"d":{"list":[1,{"t":"a/b"},2],"flag":true}}"#), "one element more");
    assert!(!nested.matches(br#"{"d":{"list":[1,{"t":"a/b"}],"flag":false}}"#));
    assert!(!nested.matches(br#"{"d":{"list":[1,{"t":"a/b"}],"flag":true}} {}"#), "a second value behind it");
}

/// Generates JSON values without null, which matches any value in a pattern.
fn value() -> impl Strategy<Value = Value> {
    let number = prop_oneof![
        any::<i32>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        // At most as many digits as a double holds, so that every spelling is the same double.
        (-999_999_999_999_i64..999_999_999_999, 0..9).prop_map(|(digits, scale)| {
            let text = format!("{digits}e-{scale}");
            text.parse().map(Value::Number).unwrap()
        }),
    ];
    let leaf = prop_oneof![any::<bool>().prop_map(Value::from), number, ".{0,12}".prop_map(Value::from)];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::Array),
            btree_map(".{0,8}", inner, 0..4).prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

/// Generates messages that are valid patterns: with at least one text.
fn message() -> impl Strategy<Value = Value> {
    (value(), value(), "[a-z\"\\\\/é]{1,8}")
        .prop_map(|(one, other, kind)| json!({ "type": kind, "a": one, "b": [other] }))
}

/// Writes `value` in a random spelling.
fn spell(value: &Value, random: &mut Rng) -> String {
    let mut text = String::new();
    write(value, random, &mut text);
    text
}

fn write(value: &Value, random: &mut Rng, text: &mut String) {
    space(random, text);
    match value {
        Value::Null | Value::Bool(_) => *text += &value.to_string(),
        Value::Number(number) => *text += &spell_number(number, random),
        Value::String(string) => write_string(string, random, text),
        Value::Array(elements) => {
            text.push('[');
            for (at, element) in elements.iter().enumerate() {
                *text += if at == 0 { "" } else { "," };
                write(element, random, text);
            }
            text.push(']');
        }
        Value::Object(members) => {
            let mut members: Vec<_> = members.iter().collect();
            random.shuffle(&mut members);
            text.push('{');
            for (at, (key, member)) in members.into_iter().enumerate() {
                *text += if at == 0 { "" } else { "," };
                space(random, text);
                write_string(key, random, text);
                space(random, text);
                text.push(':');
                write(member, random, text);
            }
            text.push('}');
        }
    }
    space(random, text);
}

fn space(random: &mut Rng, text: &mut String) {
    for _ in 0..random.usize(0..3) {
        text.push([' ', '\t', '\r', '\n'][random.usize(0..4)]);
    }
}

fn spell_number(number: &Number, random: &mut Rng) -> String {
    let plain = number.to_string();
    // Integers beyond 2^53 have one spelling: any other would be a double, and a different number.
    let exact = number.as_f64().is_some_and(|double| double.abs() < 1e15);
    if !exact || plain.contains(['e', 'E']) {
        return plain;
    }
    let (whole, fraction) = plain.split_once('.').unwrap_or((&plain, ""));
    match random.u8(0..4) {
        0 => plain,
        1 => format!("{whole}.{fraction}0"),
        2 => format!("{whole}{fraction}e-{}", fraction.len()),
        _ => format!("{whole}.{fraction}0E+00"),
    }
    .replace("-0e", "-0.0e")
}

fn write_string(string: &str, random: &mut Rng, text: &mut String) {
    text.push('"');
    for character in string.chars() {
        match character {
            '"' | '\\' => text.extend(['\\', character]),
            '/' if random.bool() => *text += "\\/",
            '\u{0}'..'\u{20}' => *text += &escape(character),
            _ if random.u8(0..4) == 0 => *text += &escape(character),
            _ => text.push(character),
        }
    }
    text.push('"');
}

fn escape(character: char) -> String {
    let mut units = [0; 2];
    let units = character.encode_utf16(&mut units).iter().map(|unit| format!("\\u{unit:04X}"));
    units.collect::<Vec<_>>().concat()
}

/// Changes one value somewhere in `value`, or the number of its elements.
fn change(value: &mut Value, random: &mut Rng) {
    match value {
        Value::Null => *value = json!(false),
        Value::Bool(flag) => *flag = !*flag,
        Value::String(text) => text.push('x'),
        Value::Number(number) => {
            let changed = number.as_f64().is_some_and(|double| double.abs() < 1e12);
            *value = if changed { json!(number.as_f64().unwrap() + 1.0) } else { json!(1) };
        }
        Value::Array(elements) if elements.is_empty() || random.u8(0..4) == 0 => elements.push(json!(0)),
        Value::Array(elements) => {
            let at = random.usize(0..elements.len());
            change(&mut elements[at], random);
        }
        Value::Object(members) if members.is_empty() => *value = json!([]),
        Value::Object(members) => {
            let key = members.keys().nth(random.usize(0..members.len())).unwrap().clone();
            if random.u8(0..4) == 0 {
                members.remove(&key);
            } else {
                change(&mut members[&key], random);
            }
        }
    }
}

proptest! {
    #[test]
    fn s65_every_spelling_of_a_value_matches(value in message(), seed in any::<u64>()) {
        let random = &mut Rng::with_seed(seed);
        let (pattern, message) = (spell(&value, random), spell(&value, random));
        prop_assert!(self::pattern(&pattern).matches(message.as_bytes()), "{pattern}\n{message}");
    }

    #[test]
    fn s65_members_that_are_not_named_are_free(value in message(), more in value(), seed in any::<u64>()) {
        let random = &mut Rng::with_seed(seed);
        let pattern = spell(&value, random);
        let mut message = value;
        message["not named"] = more;
        prop_assert!(self::pattern(&pattern).matches(spell(&message, random).as_bytes()));
    }

    #[test]
    fn s65_no_spelling_of_another_value_matches(value in message(), seed in any::<u64>()) {
        let random = &mut Rng::with_seed(seed);
        let pattern = spell(&value, random);
        let mut other = value;
        change(&mut other, random);
        let message = spell(&other, random);
        prop_assert!(!self::pattern(&pattern).matches(message.as_bytes()), "{pattern}\n{message}");
    }
}

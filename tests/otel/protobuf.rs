//! Protocol Buffers in their wire format (<https://protobuf.dev/programming-guides/encoding/>), without a schema.

/// The fields of one message, in order.
#[derive(Debug)]
pub(crate) struct Message(Vec<(u64, Field)>);

/// A field's value, by its wire type.
#[derive(Debug)]
enum Field {
    Number(u64),
    Bytes(Vec<u8>),
}

impl Message {
    /// Reads all of `bytes`.
    pub(crate) fn read(mut bytes: &[u8]) -> Self {
        let mut fields = Vec::new();
        while !bytes.is_empty() {
            let key = varint(&mut bytes);
            let field = match key & 7 {
                0 => Field::Number(varint(&mut bytes)),
                1 => Field::Number(little_endian(take(&mut bytes, 8))),
                2 => {
                    let length = varint(&mut bytes).try_into().expect("a length");
                    Field::Bytes(take(&mut bytes, length).to_vec())
                }
                5 => Field::Number(little_endian(take(&mut bytes, 4))),
                other => panic!("wire type {other}"),
            };
            fields.push((key >> 3, field));
        }
        Self(fields)
    }

    /// Returns the messages in all fields with this number.
    pub(crate) fn messages(&self, number: u64) -> Vec<Self> {
        self.all(number).map(|field| Self::read(field.bytes())).collect()
    }

    /// Returns the bytes of the field with this number; none if it is not there.
    pub(crate) fn bytes(&self, number: u64) -> &[u8] {
        self.all(number).last().map_or(&[], Field::bytes)
    }

    /// Returns the field with this number as text.
    pub(crate) fn text(&self, number: u64) -> String {
        String::from_utf8(self.bytes(number).to_vec()).expect("UTF-8")
    }

    /// Returns the number in the field with this number; `None` if it is not there.
    pub(crate) fn number(&self, number: u64) -> Option<u64> {
        self.all(number).last().map(|field| match field {
            Field::Number(value) => *value,
            Field::Bytes(_) => panic!("field {number} is no number in {self:?}"),
        })
    }

    fn all(&self, number: u64) -> impl Iterator<Item = &Field> {
        self.0.iter().filter(move |(found, _)| *found == number).map(|(_, field)| field)
    }
}

impl Field {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Number(number) => panic!("{number} where bytes should be"),
        }
    }
}

fn varint(bytes: &mut &[u8]) -> u64 {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = take(bytes, 1)[0];
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return value;
        }
    }
    panic!("a number without an end")
}

fn take<'a>(bytes: &mut &'a [u8], length: usize) -> &'a [u8] {
    let (taken, rest) = bytes.split_at_checked(length).expect("the message is whole");
    *bytes = rest;
    taken
}

fn little_endian(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

#[test]
fn the_examples_of_the_encoding_are_read() {
    // From the page above: 150 in field 1; "testing" in field 2; a message with the former in field 3.
    assert_eq!(Message::read(&[0x08, 0x96, 0x01]).number(1), Some(150));
    assert_eq!(Message::read(b"\x12\x07testing").text(2), "testing");
    assert_eq!(Message::read(&[0x1a, 0x03, 0x08, 0x96, 0x01]).messages(3)[0].number(1), Some(150));
    assert_eq!(Message::read(&[0x39, 1, 0, 0, 0, 0, 0, 0, 0x80]).number(7), Some(1 | 1 << 63));
}

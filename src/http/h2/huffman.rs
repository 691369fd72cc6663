//! Strings in Huffman coding (RFC 7541 §5.2 and appendix B).

/// A header block that cannot be decoded, a `COMPRESSION_ERROR` (RFC 9113 §4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Undecodable;

/// The codes: those of each length follow one another, and those of the next length follow them. By length: the first 32
/// bits behind the last code.
const CODES: [(u32, u64); 21] = [
    (5, 0x5000_0000),
    (6, 0xb800_0000),
    (7, 0xf800_0000),
    (8, 0xfe00_0000),
    (10, 0xff40_0000),
    (11, 0xffa0_0000),
    (12, 0xffc0_0000),
    (13, 0xfff0_0000),
    (14, 0xfff8_0000),
    (15, 0xfffe_0000),
    (19, 0xfffe_6000),
    (20, 0xfffe_e000),
    (21, 0xffff_4800),
    (22, 0xffff_b000),
    (23, 0xffff_ea00),
    (24, 0xffff_f600),
    (25, 0xffff_f800),
    (26, 0xffff_fbc0),
    (27, 0xffff_fe20),
    (28, 0xffff_fff0),
    (30, 0x1_0000_0000),
];
/// The first 32 bits of the symbol that ends a string, which none may contain (RFC 7541 §5.2).
const END_OF_STRING: u64 = 0xffff_fffc;

/// For each length the first 32 bits of its first code, and the index of that code's symbol.
const FIRST: [(u64, u64); CODES.len()] = {
    let mut first = [(0, 0); CODES.len()];
    let (mut class, mut start, mut index) = (0, 0, 0);
    while class < CODES.len() {
        let (len, end) = CODES[class];
        first[class] = (start, index);
        index += (end - start) >> (32 - len);
        start = end;
        class += 1;
    }
    first
};

/// The index of the length of a code by its first eight bits: no code of up to eight bits shares them with a longer one,
/// and for longer ones this is the least that it may be.
const BY_OCTET: [u8; 256] = {
    let mut lengths = [0; 256];
    let (mut octet, mut class) = (0, 0_u8);
    while octet < lengths.len() {
        while (octet as u64) << 24 >= CODES[class as usize].1 {
            class += 1;
        }
        lengths[octet] = class;
        octet += 1;
    }
    lengths
};

/// The symbols in the order of their codes.
const SYMBOLS: [u8; 256] = [
    48, 49, 50, 97, 99, 101, 105, 111, 115, 116, 32, 37, 45, 46, 47, 51, 52, 53, 54, 55, 56, 57, 61, 65, 95, 98, 100,
    102, 103, 104, 108, 109, 110, 112, 114, 117, 58, 66, 67, 68, 69, 70, 71, 72, 73, 74, 75, 76, 77, 78, 79, 80, 81,
    82, 83, 84, 85, 86, 87, 89, 106, 107, 113, 118, 119, 120, 121, 122, 38, 42, 44, 59, 88, 90, 33, 34, 40, 41, 63, 39,
    43, 124, 35, 62, 0, 36, 64, 91, 93, 126, 94, 125, 60, 96, 123, 92, 195, 208, 128, 130, 131, 162, 184, 194, 224,
    226, 153, 161, 167, 172, 176, 177, 179, 209, 216, 217, 227, 229, 230, 129, 132, 133, 134, 136, 146, 154, 156, 160,
    163, 164, 169, 170, 173, 178, 181, 185, 186, 187, 189, 190, 196, 198, 228, 232, 233, 1, 135, 137, 138, 139, 140,
    141, 143, 147, 149, 150, 151, 152, 155, 157, 158, 165, 166, 168, 174, 175, 180, 182, 183, 188, 191, 197, 231, 239,
    9, 142, 144, 145, 148, 159, 171, 206, 215, 225, 236, 237, 199, 207, 234, 235, 192, 193, 200, 201, 202, 205, 210,
    213, 218, 219, 238, 240, 242, 243, 255, 203, 204, 211, 212, 214, 221, 222, 223, 241, 244, 245, 246, 247, 248, 250,
    251, 252, 253, 254, 2, 3, 4, 5, 6, 7, 8, 11, 12, 14, 15, 16, 17, 18, 19, 20, 21, 23, 24, 25, 26, 27, 28, 29, 30,
    31, 127, 220, 249, 10, 13, 22,
];

/// The last two bits of the codes of bytes that the library refuses in a target, and of their stand-ins, which have codes of
/// the same length: `!` for `"`, `{` for `<` and a backtick. For `>` there is `#` alone, behind which the library drops the
/// rest; what was sent is known all the same.
const STAND_INS: [(u8, u8); 4] = [(b'"', 0b00), (b'<', 0b10), (b'`', 0b10), (b'>', 0b10)];

/// One symbol of a string.
#[derive(Clone, Copy, Debug)]
struct Code {
    /// The index of its length among [`CODES`].
    class: usize,
    /// The 32 bits that begin with it.
    ahead: u64,
    /// The bit behind it, from the beginning of the string.
    end: usize,
}

impl Code {
    fn symbol(self) -> u8 {
        let (start, first) = FIRST[self.class];
        let index = first + ((self.ahead - start) >> (32 - CODES[self.class].0));
        usize::try_from(index).ok().and_then(|index| SYMBOLS.get(index)).copied().unwrap_or_default()
    }
}

/// Returns the number of symbols that `bytes` stand for.
pub(super) fn symbols(bytes: &[u8]) -> Result<usize, Undecodable> {
    let mut count = 0;
    walk(bytes, |_| count += 1)?;
    Ok(count)
}

/// Gives `symbol` each of the symbols that `bytes` stand for.
pub(super) fn each(bytes: &[u8], mut symbol: impl FnMut(u8)) -> Result<(), Undecodable> {
    walk(bytes, |code| symbol(code.symbol()))
}

/// Returns what `bytes` stand for.
pub(super) fn decode(bytes: &[u8]) -> Result<Vec<u8>, Undecodable> {
    let mut text = Vec::with_capacity(bytes.len() * 8 / 5);
    walk(bytes, |code| text.push(code.symbol()))?;
    Ok(text)
}

/// Puts stand-ins in the place of bytes that the library refuses in a target.
pub(super) fn mask(bytes: &mut [u8]) {
    let mut found = Vec::new();
    let walked = walk(bytes, |code| {
        let stand_in = STAND_INS.iter().find(|(symbol, _)| *symbol == code.symbol());
        found.extend(stand_in.map(|(_, bits)| (code.end, *bits)));
    });
    if walked.is_ok() {
        for (end, bits) in found {
            for (bit, value) in [(end - 2, bits >> 1), (end - 1, bits & 1)] {
                let place = 7 - bit % 8;
                bytes[bit / 8] = bytes[bit / 8] & !(1 << place) | value << place;
            }
        }
    }
}

fn walk(bytes: &[u8], mut each: impl FnMut(Code)) -> Result<(), Undecodable> {
    let mut rest = bytes;
    // The next bits, the first of them highest.
    let (mut bits, mut held) = (0_u64, 0_u32);
    let mut end = 0;
    loop {
        while held <= 56
            && let Some((next, more)) = rest.split_first()
        {
            bits |= u64::from(*next) << (56 - held);
            (held, rest) = (held + 8, more);
        }
        // Beyond the end are ones, as in the padding.
        let padded = if held < 32 { bits | u64::MAX.checked_shr(held).unwrap_or(0) } else { bits };
        let ahead = padded >> 32;
        if held < 8 && ahead == u64::from(u32::MAX) {
            return Ok(());
        }
        let least = usize::from(BY_OCTET[usize::from((ahead >> 24) as u8)]);
        let beyond = CODES[least..].iter().position(|(_, end)| ahead < *end).ok_or(Undecodable)?;
        let class = least + beyond;
        let len = CODES[class].0;
        if len > held || ahead >= END_OF_STRING {
            return Err(Undecodable);
        }
        (bits, held) = (bits << len, held - len);
        end += usize::try_from(len).unwrap_or_default();
        each(Code { class, ahead, end });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `text`, coded.
    fn coded(text: &[u8]) -> Vec<u8> {
        let mut bits: Vec<bool> = Vec::new();
        for symbol in text {
            let mut index = SYMBOLS.iter().position(|found| found == symbol).expect("each is there") as u64;
            let mut start = 0;
            for (len, end) in CODES {
                let codes = (end - start) >> (32 - len);
                if index < codes {
                    let code = (start >> (32 - len)) + index;
                    bits.extend((0..len).rev().map(|bit| code >> bit & 1 == 1));
                    break;
                }
                (index, start) = (index - codes, end);
            }
        }
        bits.resize(bits.len().next_multiple_of(8), true);
        bits.chunks(8).map(|bits| bits.iter().fold(0, |byte, bit| byte << 1 | u8::from(*bit))).collect()
    }

    #[test]
    fn each_symbol_has_one_code() {
        let all: Vec<u8> = (0..=u8::MAX).collect();
        assert_eq!(decode(&coded(&all)).as_ref(), Ok(&all));
        assert_eq!(symbols(&coded(&all)), Ok(256));
        // RFC 7541, C.4.1 and C.6.1.
        let domain = b"\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff";
        assert_eq!(decode(domain).as_deref(), Ok(&b"www.example.com"[..]));
        let date = b"\xd0\x7a\xbe\x94\x10\x54\xd4\x44\xa8\x20\x05\x95\x04\x0b\x81\x66\xe0\x82\xa6\x2d\x1b\xff";
        assert_eq!(decode(date).as_deref(), Ok(&b"Mon, 21 Oct 2013 20:13:21 GMT"[..]));
    }

    #[test]
    fn a_stand_in_has_the_length_of_what_it_stands_for() {
        for before in 0..16 {
            let text = |odd: &str| format!("/{}{odd}/", "a0_Z&".repeat(before));
            let mut bytes = coded(text("\"<`>\"#<!{`>").as_bytes());
            mask(&mut bytes);
            assert_eq!(decode(&bytes).as_deref(), Ok(text("!{{#!#{!{{#").as_bytes()));
        }
    }
}

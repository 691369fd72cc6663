//! The structure of header blocks (HPACK, RFC 7541), without the values: whether a block can be decoded at all, and
//! whether it has pseudo-header fields.
//!
//! The library decodes blocks for their fields. It answers a block that cannot be decoded with the error of another kind,
//! and passes trailers on without their pseudo-header fields, so that what is wrong with them cannot be seen afterwards.
//! To know what an index stands for, the dynamic table is kept here as well: lengths only.

use std::collections::VecDeque;

/// `SETTINGS_HEADER_TABLE_SIZE` by default, which the proxy leaves as it is.
const TABLE: usize = 4096;
/// The size of an entry beyond its name and value (RFC 7541 §4.1).
const OVERHEAD: usize = 32;
/// Octets of one integer at most, as in the library.
const INTEGER: usize = 5;

/// Lengths of the names in the static table (RFC 7541, appendix A).
const STATIC: [u8; 61] = [
    10, 7, 7, 5, 5, 7, 7, 7, 7, 7, 7, 7, 7, 7, 14, 15, 15, 13, 6, 27, 3, 5, 13, 13, 19, 16, 16, 14, 16, 13, 12, 6, 4,
    4, 6, 7, 4, 4, 8, 17, 13, 8, 19, 13, 4, 8, 12, 18, 19, 5, 7, 7, 11, 6, 10, 25, 17, 10, 4, 3, 16,
];
/// The first entries of the static table are pseudo-header fields.
const STATIC_PSEUDO: usize = 14;

/// The codes of Huffman coding (RFC 7541, appendix B): those of each length follow one another, and those of the next
/// length follow them. By length: the first 32 bits behind the last code.
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
/// The code of a colon, and its length.
const COLON: u8 = 0b101_1100;

/// The dynamic table of one connection.
#[derive(Debug)]
pub(super) struct Blocks {
    /// The newest first.
    table: VecDeque<Entry>,
    size: usize,
    most: usize,
}

/// An entry of the table, by its lengths. A connection may have a hundred of them for as long as it lives.
#[derive(Clone, Copy, Debug)]
struct Entry {
    name: u16,
    value: u16,
    is_pseudo: bool,
}

#[derive(Clone, Copy, Debug)]
struct Name {
    len: usize,
    is_pseudo: bool,
}

/// A block that cannot be decoded, a `COMPRESSION_ERROR` (RFC 9113 §4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Undecodable;

impl Default for Blocks {
    fn default() -> Self {
        Self { table: VecDeque::new(), size: 0, most: TABLE }
    }
}

impl Blocks {
    /// Reads a whole block. Returns whether it has pseudo-header fields.
    pub(super) fn read(&mut self, block: &[u8]) -> Result<bool, Undecodable> {
        let mut rest = Rest(block);
        let (mut has_pseudo, mut may_resize) = (false, true);
        while let Some(first) = rest.0.first().copied() {
            let is_size_update = first & 0xe0 == 0x20;
            if is_size_update {
                let size = rest.integer(5)?;
                if !may_resize || size > TABLE {
                    return Err(Undecodable);
                }
                self.most = size;
                self.evict(0);
                continue;
            }
            may_resize = false;
            let name = if first & 0x80 != 0 {
                let index = rest.integer(7)?;
                self.name(index)?
            } else {
                self.literal(&mut rest, first & 0x40 != 0)?
            };
            has_pseudo |= name.is_pseudo;
        }
        Ok(has_pseudo)
    }

    /// Reads a literal field, and returns its name.
    fn literal(&mut self, rest: &mut Rest<'_>, is_indexed: bool) -> Result<Name, Undecodable> {
        let name = match rest.integer(if is_indexed { 6 } else { 4 })? {
            0 => {
                let text = rest.string()?;
                Name { len: text.len()?, is_pseudo: text.begins_with_colon() }
            }
            index => self.name(index)?,
        };
        let value = rest.string()?.len()?;
        if is_indexed {
            self.insert(name, value);
        }
        Ok(name)
    }

    fn name(&self, index: usize) -> Result<Name, Undecodable> {
        let at = index.checked_sub(1).ok_or(Undecodable)?;
        match STATIC.get(at) {
            Some(len) => Ok(Name { len: usize::from(*len), is_pseudo: at < STATIC_PSEUDO }),
            None => self.table.get(at - STATIC.len()).copied().map(Entry::name).ok_or(Undecodable),
        }
    }

    fn insert(&mut self, name: Name, value: usize) {
        let size = name.len + value + OVERHEAD;
        self.evict(size);
        // What is larger than the table leaves it empty.
        if size <= self.most
            && let (Ok(name_len), Ok(value)) = (u16::try_from(name.len), u16::try_from(value))
        {
            self.size += size;
            self.table.push_front(Entry { name: name_len, value, is_pseudo: name.is_pseudo });
        }
    }

    /// Makes room for `more` bytes (RFC 7541 §4.3, §4.4).
    fn evict(&mut self, more: usize) {
        while self.size + more > self.most
            && let Some(oldest) = self.table.pop_back()
        {
            self.size -= oldest.size();
        }
    }
}

impl Entry {
    fn size(self) -> usize {
        usize::from(self.name) + usize::from(self.value) + OVERHEAD
    }

    fn name(self) -> Name {
        Name { len: self.name.into(), is_pseudo: self.is_pseudo }
    }
}

/// What is left of a block.
struct Rest<'a>(&'a [u8]);

/// A string as it is written.
struct Text<'a> {
    bytes: &'a [u8],
    is_coded: bool,
}

impl<'a> Rest<'a> {
    fn next(&mut self) -> Result<u8, Undecodable> {
        let (first, rest) = self.0.split_first().ok_or(Undecodable)?;
        self.0 = rest;
        Ok(*first)
    }

    /// An integer with a prefix of so many bits (RFC 7541 §5.1).
    fn integer(&mut self, prefix: u32) -> Result<usize, Undecodable> {
        let mask = (1_usize << prefix) - 1;
        let first = usize::from(self.next()?) & mask;
        if first < mask {
            return Ok(first);
        }
        let mut number = mask;
        for octet in 1..INTEGER {
            let next = self.next()?;
            number += usize::from(next & 0x7f) << (7 * (octet - 1));
            if next & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(Undecodable)
    }

    /// A string literal (RFC 7541 §5.2).
    fn string(&mut self) -> Result<Text<'a>, Undecodable> {
        let is_coded = self.0.first().ok_or(Undecodable)? & 0x80 != 0;
        let len = self.integer(7)?;
        let (bytes, rest) = self.0.split_at_checked(len).ok_or(Undecodable)?;
        self.0 = rest;
        Ok(Text { bytes, is_coded })
    }
}

impl Text<'_> {
    fn len(&self) -> Result<usize, Undecodable> {
        if self.is_coded { symbols(self.bytes) } else { Ok(self.bytes.len()) }
    }

    fn begins_with_colon(&self) -> bool {
        let first = self.bytes.first();
        if self.is_coded { first.is_some_and(|first| first >> 1 == COLON) } else { first == Some(&b':') }
    }
}

/// The number of symbols that `bytes` stand for.
fn symbols(bytes: &[u8]) -> Result<usize, Undecodable> {
    let mut rest = bytes;
    // The next bits, the first of them highest.
    let (mut bits, mut held) = (0_u64, 0_u32);
    let mut count = 0;
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
            return Ok(count);
        }
        let (len, _) = CODES.into_iter().find(|(_, end)| ahead < *end).ok_or(Undecodable)?;
        if len > held || ahead >= END_OF_STRING {
            return Err(Undecodable);
        }
        (bits, held) = (bits << len, held - len);
        count += 1;
    }
}

#[cfg(test)]
#[path = "hpack_tests.rs"]
mod tests;

//! The structure of header blocks (HPACK, RFC 7541), without the values but for odd paths: whether a block can be decoded at
//! all, whether it has pseudo-header fields, and a path that the library refuses.
//!
//! The library decodes blocks for their fields. It answers a block that cannot be decoded with the error of another kind,
//! and passes trailers on without their pseudo-header fields, so that what is wrong with them cannot be seen afterwards.
//! To know what an index stands for, the dynamic table is kept here as well: lengths only, and odd paths. These are as long
//! as their stand-ins ([`crate::upstream::mask`]), so that the library's table has the same size as the client's.

use std::collections::VecDeque;
use std::ops::Range;

use super::huffman::{self, Undecodable};
use crate::upstream;

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

/// The code of a colon, and its length.
const COLON: u8 = 0b101_1100;

/// The dynamic table of one connection.
#[derive(Debug)]
pub(super) struct Blocks {
    /// The newest first.
    table: VecDeque<Entry>,
    size: usize,
    most: usize,
    /// Entries that have been inserted in all.
    inserted: u64,
    /// Odd paths in the table, by the number of their entries.
    odd: Vec<(u64, Box<[u8]>)>,
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

/// Findings in a header block.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct BlockContents {
    pub(super) has_pseudo: bool,
    /// A path that the library does not return as it was sent.
    pub(super) path: Option<Box<[u8]>>,
}

/// The values of one block that need stand-ins, and whether they are coded.
type Odd = Vec<(Range<usize>, bool)>;

impl Default for Blocks {
    fn default() -> Self {
        Self { table: VecDeque::new(), size: 0, most: TABLE, inserted: 0, odd: Vec::new() }
    }
}

impl Blocks {
    /// Reads a whole block, and puts stand-ins into its path where the library refuses it.
    pub(super) fn read(&mut self, block: &mut [u8]) -> Result<BlockContents, Undecodable> {
        let mut odd = Odd::new();
        let found = self.find(block, &mut odd)?;
        for (value, is_coded) in odd {
            if is_coded {
                huffman::mask(&mut block[value]);
            } else {
                upstream::mask(&mut block[value]);
            }
        }
        Ok(found)
    }

    fn find(&mut self, block: &[u8], odd: &mut Odd) -> Result<BlockContents, Undecodable> {
        let mut rest = Rest(block);
        let (mut found, mut may_resize) = (BlockContents::default(), true);
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
            if first & 0x80 != 0 {
                let index = rest.integer(7)?;
                found.has_pseudo |= self.name(index)?.is_pseudo;
                if let Some(path) = self.odd_path(index) {
                    found.path = Some(path.into());
                }
                continue;
            }
            let is_indexed = first & 0x40 != 0;
            let name = self.literal_name(&mut rest, is_indexed)?;
            found.has_pseudo |= name.is_pseudo;
            let value = rest.string()?;
            let (len, is_odd) = if name.is_path() { value.look()? } else { (value.len()?, false) };
            let path = if is_odd { Some(value.text()?) } else { None };
            if is_indexed {
                self.insert(name, len, path.as_deref());
            }
            if let Some(path) = path {
                let end = block.len() - rest.0.len();
                odd.push((end - value.bytes.len()..end, value.is_coded));
                found.path = Some(path);
            }
        }
        Ok(found)
    }

    fn literal_name(&self, rest: &mut Rest<'_>, is_indexed: bool) -> Result<Name, Undecodable> {
        match rest.integer(if is_indexed { 6 } else { 4 })? {
            0 => {
                let text = rest.string()?;
                Ok(Name { len: text.len()?, is_pseudo: text.begins_with_colon() })
            }
            index => self.name(index),
        }
    }

    /// The odd path that an index stands for.
    fn odd_path(&self, index: usize) -> Option<&[u8]> {
        let age = u64::try_from(index.checked_sub(STATIC.len() + 1)?).ok()?;
        let number = self.inserted.checked_sub(age + 1)?;
        self.odd.iter().find(|(odd, _)| *odd == number).map(|(_, path)| &**path)
    }

    fn name(&self, index: usize) -> Result<Name, Undecodable> {
        let at = index.checked_sub(1).ok_or(Undecodable)?;
        match STATIC.get(at) {
            Some(len) => Ok(Name { len: usize::from(*len), is_pseudo: at < STATIC_PSEUDO }),
            None => self.table.get(at - STATIC.len()).copied().map(Entry::name).ok_or(Undecodable),
        }
    }

    fn insert(&mut self, name: Name, value: usize, path: Option<&[u8]>) {
        let size = name.len + value + OVERHEAD;
        self.evict(size);
        // An entry that is larger than the table leaves it empty.
        if size <= self.most
            && let (Ok(name_len), Ok(value)) = (u16::try_from(name.len), u16::try_from(value))
        {
            self.odd.extend(path.map(|path| (self.inserted, path.into())));
            self.inserted += 1;
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
        if !self.odd.is_empty() {
            let oldest = self.inserted - self.table.len() as u64;
            self.odd.retain(|(number, _)| *number >= oldest);
        }
    }
}

impl Name {
    /// There is no other pseudo-header field of this length.
    fn is_path(self) -> bool {
        self.is_pseudo && self.len == ":path".len()
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

/// The bytes left of a block.
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
        if self.is_coded { huffman::symbols(self.bytes) } else { Ok(self.bytes.len()) }
    }

    /// The length of a path, and whether the library does not tell it as it was sent.
    fn look(&self) -> Result<(usize, bool), Undecodable> {
        let is_odd = |byte: u8| upstream::is_refused(byte) || byte == b'#';
        if self.is_coded {
            let (mut len, mut found) = (0, false);
            huffman::each(self.bytes, |byte| {
                len += 1;
                found |= is_odd(byte);
            })?;
            return Ok((len, found));
        }
        Ok((self.bytes.len(), self.bytes.iter().copied().any(is_odd)))
    }

    fn text(&self) -> Result<Box<[u8]>, Undecodable> {
        if self.is_coded { Ok(huffman::decode(self.bytes)?.into()) } else { Ok(self.bytes.into()) }
    }

    fn begins_with_colon(&self) -> bool {
        let first = self.bytes.first();
        if self.is_coded { first.is_some_and(|first| first >> 1 == COLON) } else { first == Some(&b':') }
    }
}

#[cfg(test)]
mod tests;

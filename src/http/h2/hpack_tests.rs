use super::*;

fn read(blocks: &mut Blocks, block: &[u8]) -> Result<bool, Undecodable> {
    blocks.read(block)
}

#[test]
fn the_examples_of_the_rfc_are_read() {
    // RFC 7541, C.3 and C.4: the same three requests, plain and coded.
    let plain: [&[u8]; 3] = [
        b"\x82\x86\x84\x41\x0fwww.example.com",
        b"\x82\x86\x84\xbe\x58\x08no-cache",
        b"\x82\x87\x85\xbf\x40\x0acustom-key\x0ccustom-value",
    ];
    let coded: [&[u8]; 3] = [
        b"\x82\x86\x84\x41\x8c\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff",
        b"\x82\x86\x84\xbe\x58\x86\xa8\xeb\x10\x64\x9c\xbf",
        b"\x82\x87\x85\xbf\x40\x88\x25\xa8\x49\xe9\x5b\xa9\x7d\x7f\x89\x25\xa8\x49\xe9\x5b\xb8\xe8\xb4\xbf",
    ];
    for requests in [plain, coded] {
        let mut blocks = Blocks::default();
        let sizes = requests.map(|request| {
            assert_eq!(read(&mut blocks, request), Ok(true));
            (blocks.table.len(), blocks.size)
        });
        assert_eq!(sizes, [(1, 57), (2, 110), (3, 164)], "the sizes that the RFC states");
    }
}

#[test]
fn entries_leave_as_the_table_shrinks() {
    let mut blocks = Blocks::default();
    for value in [b"\x40\x01a\x01b", b"\x40\x01c\x01d"] {
        assert_eq!(read(&mut blocks, value), Ok(false));
    }
    assert_eq!(read(&mut blocks, b"\xbf"), Ok(false), "the older one");
    assert_eq!(read(&mut blocks, b"\x3f\x09\xbe"), Ok(false), "40 bytes are left, for one of them");
    assert_eq!(blocks.table.len(), 1);
    assert_eq!(read(&mut blocks, b"\xbf"), Err(Undecodable));
    let huge = [&b"\x40\x01a\x7f\x09"[..], &[b'x'; 136]].concat();
    assert_eq!(read(&mut blocks, &huge), Ok(false), "larger than the table, which it empties");
    assert_eq!((blocks.table.len(), blocks.size), (0, 0));
}

#[test]
fn pseudo_fields_are_found_however_they_are_written() {
    for block in [
        &b"\x82"[..],
        b"\x04\x02/x",
        b"\x00\x05:path\x02/x",
        b"\x10\x05:path\x02/x",
        b"\x00\x07:status\x03200",
        b"\x00\x84\xb9\x58\xd3\x3f\x02/x", // `:path`, coded
        b"\x00\x01a\x01b\x82",
    ] {
        assert_eq!(read(&mut Blocks::default(), block), Ok(true), "{block:x?}");
    }
    let mut blocks = Blocks::default();
    assert_eq!(read(&mut blocks, b"\x40\x05:path\x02/x\x40\x05x-sum\x017"), Ok(true));
    assert_eq!(read(&mut blocks, b"\xbe"), Ok(false), "x-sum");
    assert_eq!(read(&mut blocks, b"\xbf"), Ok(true), "the path");
    assert_eq!(read(&mut blocks, b"\x0f\x30\x02/y"), Ok(true), "its name");
    assert_eq!(read(&mut blocks, b"\x00\x05x:sum\x017"), Ok(false));
}

#[test]
fn blocks_that_cannot_be_decoded_are_known() {
    for block in [
        &b"\x80"[..],                // index 0
        b"\xbe",                     // an entry that is not there
        b"\x7f\x80\x80\x80\x80\x01", // an integer without an end
        b"\x40\x05x-su",             // cut off
        b"\x40",
        b"\x82\x3f\xe1\x1f",              // a size update behind a field
        b"\x3f\xe2\x1f",                  // a table larger than was allowed
        b"\x00\x01a\x84\xff\xff\xff\xff", // the end of a string within it
        b"\x00\x01a\x82\xff\xff",         // padding of more than seven bits
        b"\x00\x01a\x81\x00",             // padding that is not ones
    ] {
        assert_eq!(read(&mut Blocks::default(), block), Err(Undecodable), "{block:x?}");
    }
    assert_eq!(read(&mut Blocks::default(), b"\x3f\xe1\x1f"), Ok(false), "the largest table");
    assert_eq!(read(&mut Blocks::default(), b""), Ok(false));
}

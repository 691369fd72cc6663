use super::*;

/// Returns whether `block` has pseudo-header fields; there is no odd path among them.
fn read(blocks: &mut Blocks, block: &[u8]) -> Result<bool, Undecodable> {
    let mut read = block.to_vec();
    let found = blocks.read(&mut read)?;
    assert_eq!((found.path, &*read), (None, block));
    Ok(found.has_pseudo)
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

#[test]
fn odd_paths_are_found_however_they_are_written() {
    // `/"<>`, plain and coded, and their stand-ins.
    let plain = (&b"\x04/\"<>"[..], &b"\x04/___"[..]);
    let coded = (&b"\x86\x63\xf9\xff\xf9\xff\x7f"[..], &b"\x86\x63\xf8\xff\xfd\xff\x5f"[..]);
    let names: [&[u8]; 6] = [b"\x04", b"\x05", b"\x44", b"\x14", b"\x40\x05:path", b"\x00\x84\xb9\x58\xd3\x3f"];
    for name in names {
        for (value, stand_in) in [plain, coded] {
            let written = |value: &[u8]| [&b"\x82"[..], name, value, b"\x86"].concat();
            let mut block = written(value);
            let found = Blocks::default().read(&mut block).expect("it can be decoded");
            let path = Some(b"/\"<>"[..].into());
            assert_eq!((found, &block), (BlockContents { has_pseudo: true, path }, &written(stand_in)), "{name:x?}");
        }
    }
    for (block, path) in [(&b"\x04\x03/#a"[..], Some(&b"/#a"[..])), (b"\x04\x02/a", None), (b"\x00\x01a\x01\"", None)] {
        let found = Blocks::default().read(&mut block.to_vec()).expect("it can be decoded");
        assert_eq!(found.path.as_deref(), path);
    }
}

#[test]
fn an_odd_path_in_the_table_stays_odd() {
    let mut blocks = Blocks::default();
    let mut path_of = |block: &[u8]| {
        let mut read = block.to_vec();
        let path = blocks.read(&mut read).expect("it can be decoded").path;
        path.map(|path| String::from_utf8(path.into()).expect("text"))
    };
    assert_eq!(path_of(b"\x44\x03/\"1").as_deref(), Some("/\"1"));
    assert_eq!(path_of(b"\xbe").as_deref(), Some("/\"1"));
    assert_eq!(path_of(b"\x40\x01a\x01b\x44\x03/\"2"), Some("/\"2".to_owned()));
    assert_eq!(
        (path_of(b"\xbe").as_deref(), path_of(b"\xbf"), path_of(b"\xc0").as_deref()),
        (Some("/\"2"), None, Some("/\"1"))
    );
    // 80 bytes are left, for one path and the field before it; then for nothing.
    assert_eq!(path_of(b"\x3f\x31\xbe").as_deref(), Some("/\"2"));
    assert_eq!(path_of(b"\x20\x82"), None);
    assert!(blocks.odd.is_empty());
}

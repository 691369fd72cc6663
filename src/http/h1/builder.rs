//! hyper's HTTP/1.1 server, as this proxy sets it up.

use hyper::server::conn::http1;

use crate::config::EdgeLimits;

/// Read and write buffer of one client connection at most; bodies stream through it in chunks.
const BUFFER: usize = 64 * 1024;

/// Returns a server of HTTP/1.1 within these limits, without a limit of time.
pub(crate) fn http1_builder(limits: &EdgeLimits) -> http1::Builder {
    let mut server = http1::Builder::new();
    server
        .header_read_timeout(None)
        .max_headers(limits.headers)
        .max_header_size(limits.header_bytes)
        .max_buf_size(BUFFER.max(limits.header_bytes))
        // Old clients look for `Sec-WebSocket-Accept` as it is written here.
        .preserve_header_case(true)
        .keep_alive(true);
    server
}

//! Closing a connection so that the last answer arrives.

use std::pin::pin;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::relay::Leg;
use crate::suspension::timeout;

/// Time in which the client must close its half.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Ends the writing half, then reads and discards until the client has closed its own, for two seconds at most.
///
/// A socket that is closed with bytes unread answers with a reset, and a reset throws away what the client has not
/// read yet: the 431 to a client that is still sending its headers, or the 502 to one that is still uploading.
pub(super) async fn close<C: Leg>(stream: &mut C) {
    close_with(stream, &[]).await;
}

/// As [`close`], after `words`; the two seconds are for both.
pub(super) async fn close_with<C: Leg>(stream: &mut C, words: &[u8]) {
    let closing = async {
        stream.write_all(words).await?;
        stream.shutdown().await?;
        let mut discarded = vec![0; 4096];
        while stream.read(&mut discarded).await? > 0 {}
        Ok::<_, std::io::Error>(())
    };
    // Neither a client that is gone already nor one that does not care can be helped.
    let _ = timeout(CLOSE_TIMEOUT, pin!(closing)).await;
}

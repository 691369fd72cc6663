//! The response to the client: the app's own, or a short one of the proxy's.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};

use super::access::Access;
use super::h1::io::Turn;
use super::headers;
use crate::telemetry::metrics::media_range;
use crate::upgrade::PreparedSession;
use crate::upstream::Lease;

/// The answer to a request.
#[derive(Debug)]
pub(super) enum Handled {
    /// The response to a plain request, or to an upgrade that is refused.
    Response(Response<ProxyResponse>),
    /// The head that accepts an upgrade, and the session that begins once it is written.
    Session(Response<()>, Box<PreparedSession>),
}

impl Handled {
    /// The headers of either.
    pub(super) fn headers_mut(&mut self) -> &mut HeaderMap {
        match self {
            Self::Response(response) => response.headers_mut(),
            Self::Session(accepted, _) => accepted.headers_mut(),
        }
    }
}

/// The body of a response.
#[derive(Debug)]
pub(super) struct ProxyResponse {
    source: Source,
    access: Option<Box<Access>>,
    /// The turn of the request, in HTTP/1.1.
    turn: Option<Turn>,
}

#[derive(Debug)]
enum Source {
    /// All there is, until it is sent.
    Short(Bytes),
    /// From the app, as it comes.
    Relayed {
        body: Incoming,
        /// Fields that the head of the response nominates as those of one connection.
        nominated: Vec<HeaderName>,
        lease: Option<Lease>,
    },
    /// All sent.
    Spent,
}

impl ProxyResponse {
    /// Nothing.
    pub(super) fn empty() -> Self {
        Self { source: Source::Spent, access: None, turn: None }
    }

    /// The app's own body; its connection goes back to the pool when it is through.
    /// `nominated` are fields that the response's `Connection` names.
    pub(super) fn relayed(
        body: Incoming,
        nominated: Vec<HeaderName>,
        lease: Option<Lease>,
        access: Option<Box<Access>>,
    ) -> Self {
        Self { source: Source::Relayed { body, nominated, lease }, access, turn: None }
    }

    fn short(text: String, access: Option<Box<Access>>) -> Self {
        Self { source: Source::Short(text.into()), access, turn: None }
    }

    /// Reports its end to the connection.
    pub(super) fn in_turn(mut self, turn: Turn) -> Self {
        self.turn = Some(turn);
        self
    }

    fn finish(&mut self) {
        if let Source::Relayed { lease: Some(lease), .. } = std::mem::replace(&mut self.source, Source::Spent) {
            lease.give_back();
        }
        if let Some(access) = &mut self.access {
            access.completed();
        }
    }
}

impl Body for ProxyResponse {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let this = self.get_mut();
        let frame = match &mut this.source {
            Source::Short(bytes) => Some(Ok(Frame::data(std::mem::take(bytes)))),
            Source::Relayed { body, nominated, .. } => {
                let mut frame = ready!(Pin::new(body).poll_frame(cx));
                if let Some(trailers) = frame.as_mut().and_then(|frame| frame.as_mut().ok()?.trailers_mut()) {
                    headers::clean_trailers(trailers, nominated);
                }
                frame
            }
            Source::Spent => None,
        };
        if let Some(access) = &mut this.access {
            match &frame {
                Some(Ok(frame)) => access.passed(frame.data_ref().map_or(0, Bytes::len)),
                Some(Err(error)) => access.failed(error),
                None => {}
            }
        }
        // Nothing comes behind trailers, and the body is not polled again.
        if frame.as_ref().is_none_or(|frame| frame.as_ref().is_ok_and(Frame::is_trailers)) {
            this.finish();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Short(bytes) => bytes.is_empty(),
            Source::Relayed { body, .. } => body.is_end_stream(),
            Source::Spent => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Short(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Source::Relayed { body, .. } => body.size_hint(),
            Source::Spent => SizeHint::with_exact(0),
        }
    }
}

impl Drop for ProxyResponse {
    fn drop(&mut self) {
        // A body of known length is dropped as soon as its last byte is taken, before its end is asked for.
        if self.is_end_stream() {
            self.finish();
        }
    }
}

/// Returns an answer of the proxy's own: plain text, or HTML where the client prefers it. It has the status and one word
/// for the reason, and nothing about what lies behind the proxy.
pub(super) fn explain(
    status: StatusCode,
    reason: &'static str,
    accept: Option<&HeaderValue>,
    mut access: Option<Box<Access>>,
) -> Response<ProxyResponse> {
    if let Some(access) = &mut access {
        access.explained(status, reason);
    }
    let (content_type, text) = if accept.is_some_and(prefers_html) {
        let page = format!("<!doctype html>\n<title>{status}</title>\n<h1>{status}</h1>\n<p>{reason}</p>\n");
        ("text/html; charset=utf-8", page)
    } else {
        ("text/plain; charset=utf-8", format!("{status}: {reason}\n"))
    };
    let mut response = Response::new(ProxyResponse::short(text, access));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Returns whether `Accept` weighs HTML above plain text (RFC 9110 §12.5.1); `*/*` prefers neither.
fn prefers_html(accept: &HeaderValue) -> bool {
    let ranges: Vec<(&str, f32)> = accept.to_str().unwrap_or_default().split(',').map(media_range).collect();
    let weight = |subtype: &str| {
        let weigh = |wanted: &str| ranges.iter().find(|(range, _)| range.eq_ignore_ascii_case(wanted)).map(|(_, q)| *q);
        weigh(subtype).or_else(|| weigh("text/*")).or_else(|| weigh("*/*")).unwrap_or(0.0)
    };
    weight("text/html") > weight("text/plain")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn html_is_for_those_who_ask_for_it() {
        let prefers = |accept| prefers_html(&HeaderValue::from_static(accept));
        assert!(prefers("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"));
        assert!(prefers("text/plain;q=0.5, text/html;level=1; q=0.7"));
        assert!(!prefers("*/*"));
        assert!(!prefers("application/json"));
        assert!(!prefers("text/html;q=0.2, text/*"));
        assert!(!prefers("text/html;q=0, text/plain;q=0"));
        assert!(!prefers(""));
    }
}

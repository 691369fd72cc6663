//! Interim answers of the app (RFC 9110 §15.2), early hints above all, on their way to a client of HTTP/2.

use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Waker};

use hyper::{Request, Response, StatusCode};

use super::headers;

/// Interim answers of one request that wait to be sent; further ones of an app that sends more at once are dropped.
const WAITING_MAX: usize = 16;

/// Interim answers of one request that the app has sent and the client has not got.
#[derive(Debug, Default)]
pub(super) struct Interim(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    answers: Vec<Response<()>>,
    sender: Option<Waker>,
}

impl Interim {
    /// Collects the interim answers to `request`, except a 100: that is between the client and the proxy.
    pub(super) fn of<B>(request: &mut Request<B>) -> Arc<Self> {
        let interim = Arc::new(Self::default());
        let received = Arc::clone(&interim);
        hyper::ext::on_informational(request, move |answer| {
            if answer.status() != StatusCode::CONTINUE {
                let mut headers = answer.headers().clone();
                headers::strip_hop_by_hop(&mut headers);
                let mut own = Response::new(());
                (*own.status_mut(), *own.headers_mut()) = (answer.status(), headers);
                received.add(own);
            }
        });
        interim
    }

    fn add(&self, answer: Response<()>) {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.answers.len() < WAITING_MAX {
            waiting.answers.push(answer);
        }
        if let Some(sender) = waiting.sender.take() {
            sender.wake();
        }
    }

    /// Takes the answers that wait, in the order in which they came; the task is woken when there are more.
    pub(super) fn take(&self, cx: &Context<'_>) -> Vec<Response<()>> {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !waiting.sender.as_ref().is_some_and(|sender| sender.will_wake(cx.waker())) {
            waiting.sender = Some(cx.waker().clone());
        }
        std::mem::take(&mut waiting.answers)
    }
}

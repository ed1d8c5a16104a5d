//! Bodies that are passed on for a token. Invariant: none outlives its token.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use hyper::body::{Frame, SizeHint};

/// A body that ends when its token is deleted, wherever it is then.
struct Lent {
    body: Body,
    deleted: Pin<Box<dyn Future<Output = ()> + Send>>,
    over: bool,
}

/// The body, until the token for which it is passed on is `deleted`.
pub(crate) fn until(deleted: impl Future<Output = ()> + Send + 'static, body: Body) -> Body {
    Body::new(Lent {
        body,
        deleted: Box::pin(deleted),
        over: false,
    })
}

impl hyper::body::Body for Lent {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if !self.over {
            self.over = self.deleted.as_mut().poll(context).is_ready();
        }
        if self.over {
            return Poll::Ready(None);
        }
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.over || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

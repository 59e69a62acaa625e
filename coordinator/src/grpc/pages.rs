//! Replies that are given out message by message.

use std::pin::Pin;

use futures::{Stream, stream};
use tonic::Status;

/// A reply of many messages.
pub(super) type Messages<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Something that is given out message by message.
pub(super) trait Pages: Send + 'static {
    /// A message.
    type Page: Send + 'static;

    /// The next message; `None` at the end.
    fn next(&mut self) -> impl Future<Output = Result<Option<Self::Page>, Status>> + Send;
}

/// All messages of `pages`. An error is the last one.
pub(super) fn messages<P: Pages>(pages: P) -> Messages<P::Page> {
    Box::pin(stream::unfold(Some(pages), |pages| async move {
        let mut pages = pages?;
        match pages.next().await {
            Ok(Some(page)) => Some((Ok(page), Some(pages))),
            Ok(None) => None,
            Err(status) => Some((Err(status), None)),
        }
    }))
}

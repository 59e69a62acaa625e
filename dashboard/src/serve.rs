use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::debug;

/// Connections at a time: some six for each open page, and room for tools. A connection costs some 20 KB.
const CONNECTIONS_MAX: usize = 2_048;
/// A browser sends its headers in milliseconds; who takes longer only holds a connection.
const HEADER_LIMIT: Duration = Duration::from_secs(10);
/// Bytes of the head of a request. Longer ones are refused with 431.
const HEADER_BYTES_MAX: usize = 32 << 10;
/// After a failure to accept (too many open files), others may have closed theirs by then.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long requests in progress may go on after the end was asked for.
const END_LIMIT: Duration = Duration::from_secs(2);

/// Serves `router` on `listener` until `shutdown`, then until requests in progress are answered.
pub(crate) async fn connections(listener: TcpListener, router: Router, shutdown: CancellationToken) {
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(HEADER_LIMIT).max_buf_size(HEADER_BYTES_MAX);
    let open = GracefulShutdown::new();
    let mut tasks = JoinSet::new();
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let permit = room.clone().acquire_owned();
        let accepted = tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            accepted = async { (permit.await, listener.accept().await) } => accepted,
        };
        let (permit, stream) = match accepted {
            (permit, Ok((stream, _))) => (permit, stream),
            (_, Err(cause)) => {
                debug!(%cause, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // Small answers are not to wait for the acknowledgement of the ones before.
        if let Err(cause) = stream.set_nodelay(true) {
            debug!(%cause, "a connection ended at once");
        }
        let service = TowerToHyperService::new(router.clone());
        let connection = open.watch(server.serve_connection(TokioIo::new(stream), service));
        while tasks.try_join_next().is_some() {}
        tasks.spawn(async move {
            let _permit = permit;
            if let Err(cause) = connection.await {
                debug!(%cause, "a connection ended");
            }
        });
    }
    if tokio::time::timeout(END_LIMIT, open.shutdown()).await.is_err() {
        debug!("requests in progress were cut off");
    }
    // What they hold of the coordinator is given free.
    tasks.shutdown().await;
}

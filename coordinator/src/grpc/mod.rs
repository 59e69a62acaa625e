//! The services, and the limits they are served with.

pub(crate) mod control;
mod inspections;
mod pages;
mod sweep_results;
pub(crate) mod sweeps;
pub(crate) mod worker_link;

use std::time::Duration;

use proto::v1::control_server::ControlServer;
use proto::v1::sweeps_server::SweepsServer;
use proto::v1::worker_link_server::WorkerLinkServer;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

use self::control::ControlService;
use self::sweeps::SweepsService;
use self::worker_link::WorkerLinkService;
use crate::spans;

/// Streams of one connection. A worker needs one, a tool a few.
const STREAMS_MAX: u32 = 128;
/// A peer that does not answer a ping within [`PING_LIMIT`] is gone: a machine that lost power closes nothing.
const PING_INTERVAL: Duration = Duration::from_secs(5);
/// See [`PING_INTERVAL`].
const PING_LIMIT: Duration = Duration::from_secs(5);
/// Bytes of all headers of a request. Ours have a few hundred.
const HEADER_BYTES_MAX: u32 = 16 << 10;
/// Streams that a peer opened and reset before they were looked at; more of them are an attack (CVE-2023-44487).
const PENDING_RESETS_MAX: usize = 20;

/// The services do not stand up. Only a mistake of this program leads here.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServeError {
    #[error("the description of the services cannot be served")]
    Reflection(#[source] tonic_reflection::server::Error),
    #[error("the gRPC server ended")]
    Transport(#[source] tonic::transport::Error),
}

/// Serves on `listener` until `shutdown`, then until every connection has ended.
pub(crate) async fn serve(
    listener: TcpListener,
    control: ControlService,
    sweeps: SweepsService,
    worker_link: WorkerLinkService,
    shutdown: CancellationToken,
) -> Result<(), ServeError> {
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_serving::<ControlServer<ControlService>>().await;
    health.set_serving::<SweepsServer<SweepsService>>().await;
    health.set_serving::<WorkerLinkServer<WorkerLinkService>>().await;
    let described = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(proto::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    // Not every tool speaks the newer version of reflection.
    let reflection = described().build_v1().map_err(ServeError::Reflection)?;
    let reflection_v1alpha = described().build_v1alpha().map_err(ServeError::Reflection)?;
    let control = ControlServer::new(control)
        .max_decoding_message_size(proto::MESSAGE_BYTES_MAX)
        .max_encoding_message_size(proto::MESSAGE_BYTES_MAX);
    let sweeps = SweepsServer::new(sweeps)
        .max_decoding_message_size(proto::MESSAGE_BYTES_MAX)
        .max_encoding_message_size(proto::MESSAGE_BYTES_MAX);
    let worker_link = WorkerLinkServer::new(worker_link)
        .max_decoding_message_size(proto::MESSAGE_BYTES_MAX)
        .max_encoding_message_size(proto::MESSAGE_BYTES_MAX);
    Server::builder()
        .trace_fn(spans::of_call)
        .max_concurrent_streams(STREAMS_MAX)
        .http2_keepalive_interval(Some(PING_INTERVAL))
        .http2_keepalive_timeout(Some(PING_LIMIT))
        .http2_max_header_list_size(HEADER_BYTES_MAX)
        .http2_max_pending_accept_reset_streams(Some(PENDING_RESETS_MAX))
        .add_service(health_service)
        .add_service(reflection)
        .add_service(reflection_v1alpha)
        .add_service(control)
        .add_service(sweeps)
        .add_service(worker_link)
        .serve_with_incoming_shutdown(TcpIncoming::from(listener).with_nodelay(Some(true)), async move {
            shutdown.cancelled().await;
            health.set_not_serving::<ControlServer<ControlService>>().await;
            health.set_not_serving::<SweepsServer<SweepsService>>().await;
            health.set_not_serving::<WorkerLinkServer<WorkerLinkService>>().await;
        })
        .await
        .map_err(ServeError::Transport)
}

//! A collector that keeps what it is told: the services of OTLP, served by tonic.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use opentelemetry_proto::tonic::collector::logs::v1::logs_service_server::{LogsService, LogsServiceServer};
use opentelemetry_proto::tonic::collector::logs::v1::{ExportLogsServiceRequest, ExportLogsServiceResponse};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::Span;
use tokio::runtime::Runtime;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

/// A collector on a free port, until it is dropped.
pub(crate) struct Collector {
    address: SocketAddr,
    told: Told,
    _runtime: Runtime,
}

/// Shared by the two services, which only add, and the test, which looks.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<Everything>>);

#[derive(Default)]
struct Everything {
    spans: Vec<(Resource, Span)>,
    logs: Vec<Log>,
}

/// A log record, and whose it is.
#[derive(Clone, Debug)]
pub(crate) struct Log {
    pub(crate) resource: Resource,
    /// Where in the program it comes from.
    pub(crate) target: String,
    pub(crate) record: LogRecord,
}

impl Collector {
    pub(crate) fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a thread");
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).expect("a port");
        let address = listener.local_addr().expect("bound");
        let told = Told::default();
        let server = Server::builder()
            .add_service(TraceServiceServer::new(told.clone()))
            .add_service(LogsServiceServer::new(told.clone()));
        runtime.spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
        Self { address, told, _runtime: runtime }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// All spans so far.
    pub(crate) fn spans(&self) -> Vec<(Resource, Span)> {
        self.told.0.lock().expect("nobody panics with it").spans.clone()
    }

    /// All log records so far, as they were made: a message has them by their scopes.
    pub(crate) fn logs(&self) -> Vec<Log> {
        let mut logs = self.told.0.lock().expect("nobody panics with it").logs.clone();
        logs.sort_by_key(|log| log.record.observed_time_unix_nano);
        logs
    }
}

#[tonic::async_trait]
impl TraceService for Told {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        for of_resource in request.into_inner().resource_spans {
            let resource = of_resource.resource.unwrap_or_default();
            let spans = of_resource.scope_spans.into_iter().flat_map(|of_scope| of_scope.spans);
            let spans = spans.map(|span| (resource.clone(), span));
            self.0.lock().expect("nobody panics with it").spans.extend(spans);
        }
        Ok(Response::new(Default::default()))
    }
}

#[tonic::async_trait]
impl LogsService for Told {
    async fn export(
        &self,
        request: Request<ExportLogsServiceRequest>,
    ) -> Result<Response<ExportLogsServiceResponse>, Status> {
        for of_resource in request.into_inner().resource_logs {
            let resource = of_resource.resource.unwrap_or_default();
            for of_scope in of_resource.scope_logs {
                let target = of_scope.scope.unwrap_or_default().name;
                let logs = of_scope.log_records.into_iter().map(|record| Log {
                    resource: resource.clone(),
                    target: target.clone(),
                    record,
                });
                self.0.lock().expect("nobody panics with it").logs.extend(logs);
            }
        }
        Ok(Response::new(Default::default()))
    }
}

/// The attribute `key`, as text.
pub(crate) fn attribute(attributes: &[KeyValue], key: &str) -> Option<String> {
    text(attributes.iter().find(|pair| pair.key == key)?.value.as_ref())
}

/// A value, as text.
pub(crate) fn text(value: Option<&AnyValue>) -> Option<String> {
    match value?.value.as_ref()? {
        Value::StringValue(text) => Some(text.clone()),
        Value::IntValue(number) => Some(number.to_string()),
        Value::BoolValue(is) => Some(is.to_string()),
        Value::DoubleValue(number) => Some(number.to_string()),
        _ => None,
    }
}

//! Talking to a coordinator.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::Context;
use domain::ids::{RunName, WorkerId};
use domain::search::study::Fact;
use domain::spec::JobSpec;
use domain::spec::sweep::SweepSpec;
use proto::convert;
use proto::v1;
use proto::v1::control_client::ControlClient;
use proto::v1::sweeps_client::SweepsClient;
use tonic::Streaming;
use tonic::transport::{Channel, Endpoint};

use crate::exit::Failure;

/// How long connecting may take. A coordinator that lives answers in milliseconds; a silent network drops packets.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// A connection to a coordinator's Control service.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    control: ControlClient<Channel>,
    sweeps: SweepsClient<Channel>,
    url: String,
}

/// A checkpoint's file and what it is.
#[derive(Debug)]
pub(crate) struct CheckpointFile {
    pub(crate) step: u64,
    pub(crate) weights_sha256: String,
    pub(crate) spec: JobSpec,
    /// A safetensors file.
    pub(crate) bytes: Vec<u8>,
}

/// A sweep with what came of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct SweepResults {
    pub(crate) sweep: v1::Sweep,
    /// What the steps of each trial took, by number.
    pub(crate) efforts: BTreeMap<u32, v1::TrialEffort>,
    /// The trials that no other one beats.
    pub(crate) front: BTreeSet<u32>,
    /// Which parameters mattered; absent where nobody asked.
    pub(crate) importance: Option<v1::SweepImportance>,
    /// What ending trials early saved.
    pub(crate) saved: Option<v1::SweepSaved>,
}

impl SweepResults {
    /// The sweep alone.
    pub(crate) fn of(sweep: v1::Sweep) -> Self {
        Self { sweep, ..Self::default() }
    }
}

/// What a name stands for: runs and sweeps share their names.
#[derive(Clone, Debug)]
pub(crate) enum Named {
    /// A run.
    Run(Box<v1::Run>),
    /// A sweep.
    Sweep(Box<v1::Sweep>),
}

/// Whether a checkpoint is wanted with all that training needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// The model's parameters under their own names.
    Weights,
    /// The optimizer's state too.
    Whole,
}

impl Client {
    /// Connects to `url`; `http://` may be left out.
    pub(crate) async fn connect(url: &str) -> Result<Self, Failure> {
        let url = with_scheme(url);
        let endpoint = Endpoint::from_shared(url.clone())
            .with_context(|| format!("{url:?} is not a coordinator URL such as http://127.0.0.1:7070"))
            .map_err(Failure::config)?
            .connect_timeout(CONNECT_LIMIT)
            .tcp_nodelay(true);
        let channel = endpoint
            .connect()
            .await
            .with_context(|| format!("cannot reach the coordinator at {url}"))
            .map_err(Failure::unreachable)?;
        let sweeps = SweepsClient::new(channel.clone())
            .max_decoding_message_size(proto::MESSAGE_BYTES_MAX)
            .max_encoding_message_size(proto::MESSAGE_BYTES_MAX);
        let control = ControlClient::new(channel)
            .max_decoding_message_size(proto::MESSAGE_BYTES_MAX)
            .max_encoding_message_size(proto::MESSAGE_BYTES_MAX);
        Ok(Self { control, sweeps, url })
    }

    /// Where it is connected to.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    pub(crate) async fn submit(&mut self, spec: &JobSpec) -> Result<v1::Run, tonic::Status> {
        let request = v1::SubmitRequest { spec_json: convert::spec_to_json(spec) };
        given(self.control.submit(request).await?.into_inner().run, "SubmitResponse.run")
    }

    pub(crate) async fn run(&mut self, name: &RunName) -> Result<v1::Run, tonic::Status> {
        let request = v1::GetRunRequest { name: name.to_string() };
        given(self.control.get_run(request).await?.into_inner().run, "GetRunResponse.run")
    }

    /// The run or sweep of that name.
    pub(crate) async fn named(&mut self, name: &RunName) -> Result<Named, tonic::Status> {
        match self.run(name).await {
            Ok(run) => Ok(Named::Run(Box::new(run))),
            // That there is no such run says more than that there is no such sweep.
            Err(status) if status.code() == tonic::Code::NotFound => match self.sweep(name).await {
                Ok(sweep) => Ok(Named::Sweep(Box::new(sweep))),
                Err(_) => Err(status),
            },
            Err(status) => Err(status),
        }
    }

    pub(crate) async fn submit_sweep(&mut self, spec: &SweepSpec) -> Result<v1::Sweep, tonic::Status> {
        let request = v1::SubmitSweepRequest { spec_json: convert::sweep_spec_to_json(spec) };
        given(self.sweeps.submit_sweep(request).await?.into_inner().sweep, "SubmitSweepResponse.sweep")
    }

    pub(crate) async fn sweep(&mut self, name: &RunName) -> Result<v1::Sweep, tonic::Status> {
        let request = v1::GetSweepRequest { name: name.to_string() };
        given(self.sweeps.get_sweep(request).await?.into_inner().sweep, "GetSweepResponse.sweep")
    }

    /// A sweep with what came of it so far.
    pub(crate) async fn sweep_results(&mut self, name: &RunName) -> Result<SweepResults, tonic::Status> {
        let request = v1::GetSweepResultsRequest { name: name.to_string() };
        let v1::GetSweepResultsResponse { sweep, efforts, front, importance, saved } =
            self.sweeps.get_sweep_results(request).await?.into_inner();
        Ok(SweepResults {
            sweep: given(sweep, "GetSweepResultsResponse.sweep")?,
            efforts: efforts.into_iter().map(|effort| (effort.number, effort)).collect(),
            front: front.into_iter().collect(),
            importance,
            saved,
        })
    }

    /// The evaluations of all trials of a sweep, by trial.
    pub(crate) async fn sweep_evals(
        &mut self,
        name: &RunName,
    ) -> Result<Streaming<v1::ReadSweepEvalsResponse>, tonic::Status> {
        let request = v1::ReadSweepEvalsRequest { name: name.to_string() };
        Ok(self.sweeps.read_sweep_evals(request).await?.into_inner())
    }

    pub(crate) async fn all_sweeps(&mut self) -> Result<Vec<v1::Sweep>, tonic::Status> {
        Ok(self.sweeps.list_sweeps(v1::ListSweepsRequest {}).await?.into_inner().sweeps)
    }

    pub(crate) async fn watch_sweep(
        &mut self,
        name: &RunName,
    ) -> Result<Streaming<v1::WatchSweepResponse>, tonic::Status> {
        let request = v1::WatchSweepRequest { name: name.to_string() };
        Ok(self.sweeps.watch_sweep(request).await?.into_inner())
    }

    /// All that happened in a sweep, in order.
    pub(crate) async fn sweep_facts(&mut self, name: &RunName) -> Result<Vec<Fact>, Failure> {
        let request = v1::ReadSweepFactsRequest { name: name.to_string() };
        let mut pages = self.sweeps.read_sweep_facts(request).await?.into_inner();
        let mut facts = Vec::new();
        while let Some(v1::ReadSweepFactsResponse { facts_json }) = pages.message().await? {
            for json in facts_json {
                let fact = convert::fact_from_json(&json);
                facts.push(fact.context("the coordinator sent a fact that this program does not know")?);
            }
        }
        Ok(facts)
    }

    pub(crate) async fn cluster(&mut self) -> Result<v1::GetClusterResponse, tonic::Status> {
        Ok(self.control.get_cluster(v1::GetClusterRequest {}).await?.into_inner())
    }

    pub(crate) async fn watch(&mut self, name: &RunName) -> Result<Streaming<v1::WatchRunResponse>, tonic::Status> {
        let request = v1::WatchRunRequest { name: name.to_string() };
        Ok(self.control.watch_run(request).await?.into_inner())
    }

    pub(crate) async fn stop(&mut self, name: &RunName) -> Result<(), tonic::Status> {
        self.control.stop_run(v1::StopRunRequest { name: name.to_string() }).await?;
        Ok(())
    }

    pub(crate) async fn resume(&mut self, name: &RunName) -> Result<(), tonic::Status> {
        self.control.resume_run(v1::ResumeRunRequest { name: name.to_string() }).await?;
        Ok(())
    }

    /// Gives a run or sweep another priority.
    pub(crate) async fn set_priority(&mut self, name: &RunName, priority: i32) -> Result<(), tonic::Status> {
        self.control.set_priority(v1::SetPriorityRequest { name: name.to_string(), priority }).await?;
        Ok(())
    }

    /// Gives a worker no more work.
    pub(crate) async fn drain(&mut self, worker: WorkerId) -> Result<(), tonic::Status> {
        self.control.drain_worker(v1::DrainWorkerRequest { worker: worker.0, undo: false }).await?;
        Ok(())
    }

    /// Gives a drained worker work again.
    pub(crate) async fn undrain(&mut self, worker: WorkerId) -> Result<(), tonic::Status> {
        self.control.drain_worker(v1::DrainWorkerRequest { worker: worker.0, undo: true }).await?;
        Ok(())
    }

    /// Keeps a checkpoint, whatever the job says.
    pub(crate) async fn pin(&mut self, name: &RunName, step: u64) -> Result<(), tonic::Status> {
        self.control.pin_checkpoint(v1::PinCheckpointRequest { name: name.to_string(), step, unpin: false }).await?;
        Ok(())
    }

    /// Lets a checkpoint stay or go as the job says.
    pub(crate) async fn unpin(&mut self, name: &RunName, step: u64) -> Result<(), tonic::Status> {
        self.control.pin_checkpoint(v1::PinCheckpointRequest { name: name.to_string(), step, unpin: true }).await?;
        Ok(())
    }

    /// The steps and evaluations after `after_step`, oldest first.
    pub(crate) async fn records(
        &mut self,
        name: &RunName,
        after_step: u64,
    ) -> Result<Streaming<v1::ReadRecordsResponse>, tonic::Status> {
        let request = v1::ReadRecordsRequest { name: name.to_string(), after_step };
        Ok(self.control.read_records(request).await?.into_inner())
    }

    /// All evaluations after `after_step`, oldest first.
    pub(crate) async fn evals(&mut self, name: &RunName, after_step: u64) -> Result<Vec<v1::EvalPoint>, tonic::Status> {
        let mut pages = self.records(name, after_step).await?;
        let mut found = Vec::new();
        while let Some(v1::ReadRecordsResponse { steps: _, evals }) = pages.message().await? {
            found.extend(evals);
        }
        Ok(found)
    }

    /// Everything that is stored of a run, rolled back or not.
    pub(crate) async fn history(
        &mut self,
        name: &RunName,
    ) -> Result<Streaming<v1::ReadHistoryResponse>, tonic::Status> {
        let request = v1::ReadHistoryRequest { name: name.to_string() };
        Ok(self.control.read_history(request).await?.into_inner())
    }

    /// What is kept of the inside of a run's model, rolled back or not.
    pub(crate) async fn inspections(
        &mut self,
        name: &RunName,
    ) -> Result<Streaming<v1::ReadInspectionsResponse>, tonic::Status> {
        let request = v1::ReadInspectionsRequest { name: name.to_string() };
        Ok(self.control.read_inspections(request).await?.into_inner())
    }

    pub(crate) async fn ledger(&mut self, name: &RunName) -> Result<Streaming<v1::ReadLedgerResponse>, tonic::Status> {
        let request = v1::ReadLedgerRequest { name: name.to_string() };
        Ok(self.control.read_ledger(request).await?.into_inner())
    }

    pub(crate) async fn log(
        &mut self,
        name: &RunName,
        follow: bool,
    ) -> Result<Streaming<v1::ReadLogResponse>, tonic::Status> {
        let request = v1::ReadLogRequest { name: name.to_string(), after_sequence: 0, follow };
        Ok(self.control.read_log(request).await?.into_inner())
    }

    /// The checkpoint of `step`; without one, the run's result or the newest.
    pub(crate) async fn checkpoint(
        &mut self,
        name: &RunName,
        step: Option<u64>,
        content: Content,
    ) -> Result<CheckpointFile, Failure> {
        let whole_state = content == Content::Whole;
        let request = v1::ReadCheckpointRequest { name: name.to_string(), step, whole_state };
        let mut pieces = self.control.read_checkpoint(request).await?.into_inner();
        let mut header = None;
        let mut bytes = Vec::new();
        while let Some(v1::ReadCheckpointResponse { data, header: h }) = pieces.message().await? {
            header = header.or(h);
            bytes.extend_from_slice(&data);
        }
        let v1::CheckpointHeader { step, weights_sha256, spec_json } = given(header, "ReadCheckpointResponse.header")?;
        Ok(CheckpointFile { step, weights_sha256, spec: spec_from_json(&spec_json)?, bytes })
    }
}

/// The specification of a run that a coordinator told of.
pub(crate) fn spec_of(run: &v1::Run) -> Result<JobSpec, Failure> {
    spec_from_json(&run.spec_json)
}

fn spec_from_json(json: &str) -> Result<JobSpec, Failure> {
    let spec = convert::spec_from_json(json).context("the coordinator sent a job that this program does not know");
    spec.map_err(|e| Failure::failed(e).hint("coordinator and command line may be of different versions"))
}

fn given<T>(field: Option<T>, name: &str) -> Result<T, tonic::Status> {
    field.ok_or_else(|| tonic::Status::internal(format!("the coordinator's reply lacks {name}")))
}

/// `url` with `http://` before it if that was left out.
pub(crate) fn with_scheme(url: &str) -> String {
    if url.contains("://") { url.to_owned() } else { format!("http://{url}") }
}

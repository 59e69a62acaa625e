//! What a worker holds of a trial in memory.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use data::{DataError, Dataset, Library, Origin, Split};
use domain::batch::BatchPlan;
use domain::engine::{Assignment, Running};
use domain::ids::{Generation, Step, TrialId};
use domain::record::Position;
use domain::spec::{JobSpec, Precision};
use domain::stop::{Stopper, Verdict};
use models::{ModelError, Network, Optimizer, Snapshot};

use crate::records::Records;
use crate::sidecar::{self, Identity, Progress, SidecarError};

/// A trial as this worker holds it from one generation to the next, so that forming a group anew costs milliseconds.
pub(crate) struct Trial {
    pub(crate) job: Job,
    /// The newest generation it was assigned to; older ones are refused.
    pub(crate) generation: Generation,
    /// Set once a group has formed.
    pub(crate) state: Option<State>,
    pub(crate) records: Records,
}

/// What a trial trains on and how; never changes.
pub(crate) struct Job {
    pub(crate) trial: TrialId,
    pub(crate) spec: JobSpec,
    pub(crate) train: Arc<Split>,
    pub(crate) holdout: Split,
    pub(crate) plan: BatchPlan,
    pub(crate) identity: Identity,
}

impl Trial {
    /// Opens the data of an assignment.
    pub(crate) fn open(assignment: &Assignment, library: &mut Library) -> Result<(Self, Origin), DataError> {
        let spec = assignment.spec.clone();
        let (dataset, origin) = library.open(&spec.data, spec.seed)?;
        dataset.check(&spec.model)?;
        let Dataset { train, holdout, .. } = dataset;
        let plan = spec.batch_plan(train.len());
        let identity = Identity::new(&spec, train.len(), holdout.len());
        let job = Job { trial: assignment.trial.clone(), spec, train: Arc::new(train), holdout, plan, identity };
        Ok((Self { job, generation: assignment.generation, state: None, records: Records::default() }, origin))
    }

    /// How far the state in memory has come.
    pub(crate) fn position(&self) -> Option<Position> {
        self.state.as_ref().map(|state| state.progress.position)
    }

    /// What the coordinator is told when the worker connects anew.
    pub(crate) fn running(&self) -> Option<Running> {
        let position = self.position()?;
        Some(Running { trial: self.job.trial.clone(), generation: self.generation, position })
    }
}

/// The whole state of a training.
pub(crate) struct State {
    pub(crate) network: Network,
    pub(crate) optimizer: Optimizer,
    pub(crate) progress: Progress,
}

/// Why a saved state cannot be gone on from.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RestoreError {
    #[error(transparent)]
    Model(#[from] ModelError),
    #[error(transparent)]
    Sidecar(#[from] SidecarError),
    #[error("the saved state is at step {found}, it should be at step {expected}")]
    Step { found: Step, expected: Step },
}

impl State {
    /// The state that the seed gives, before the first step.
    pub(crate) fn initial(spec: &JobSpec) -> Result<Self, ModelError> {
        Ok(Self::of(Network::new(&spec.model, spec.seed)?, spec))
    }

    /// A training that begins with the weights of `network`.
    fn of(network: Network, spec: &JobSpec) -> Self {
        let precision = match spec.train.precision {
            Precision::F32 => models::nn::Precision::F32,
            Precision::Bf16 => models::nn::Precision::Bf16,
        };
        let network = network.with_precision(precision);
        let optimizer = Optimizer::new(&spec.optimizer, network.layout());
        let progress = Progress {
            position: Position::default(),
            stopper: Stopper::new(&spec.early_stopping),
            verdict: Verdict::Continue,
        };
        Self { network, optimizer, progress }
    }

    /// The state at `step` in `parts`: safetensors files with their sidecars.
    pub(crate) fn restore(job: &Job, step: Step, parts: &[Bytes]) -> Result<Self, RestoreError> {
        Self::read(job, step, parts, |metadata| sidecar::read(metadata, &job.identity))
    }

    /// The state at `step` of another trial, from which this one goes on under its own job and with its own early stopping.
    pub(crate) fn copy(job: &Job, step: Step, parts: &[Bytes]) -> Result<Self, RestoreError> {
        let fresh = Progress {
            position: Position::default(),
            stopper: Stopper::new(&job.spec.early_stopping),
            verdict: Verdict::Continue,
        };
        Self::read(job, step, parts, |metadata| {
            let position = sidecar::read_position(metadata)?;
            Ok(Progress { position, ..fresh })
        })
    }

    fn read(
        job: &Job,
        step: Step,
        parts: &[Bytes],
        progress: impl FnOnce(&BTreeMap<String, String>) -> Result<Progress, SidecarError>,
    ) -> Result<Self, RestoreError> {
        let mut state = Self::of(Network::uninitialised(&job.spec.model)?, &job.spec);
        let parts: Vec<&[u8]> = parts.iter().map(|part| &part[..]).collect();
        let (snapshot, metadata) = Snapshot::from_safetensors(state.network.layout(), &job.spec.optimizer, &parts)?;
        state.progress = progress(&metadata)?;
        let found = state.progress.position.step;
        if found != step {
            return Err(RestoreError::Step { found, expected: step });
        }
        snapshot.restore(state.network.parameters(), &mut state.optimizer)?;
        Ok(state)
    }

    /// A copy that can be written while training goes on.
    pub(crate) fn snapshot(&self) -> Snapshot {
        Snapshot::take(self.network.parameters(), &self.optimizer)
    }

    /// Everything as one safetensors file.
    pub(crate) fn to_bytes(&self, identity: &Identity) -> Bytes {
        self.snapshot().to_safetensors(0, 1, &sidecar::write(&self.progress, identity)).into()
    }
}

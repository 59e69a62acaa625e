use std::collections::BTreeMap;
use std::sync::Arc;

use domain::batch::BatchPlan;
use domain::ids::RunName;
use domain::record::StepRecord;
use domain::spec::JobSpec;
use domain::spec::sweep::SweepSpec;
use domain::view::{RunView, SweepView, View};
use proto::convert::{self, DataFacts};
use proto::v1;

/// What the edges may know: published by the driver after each change and after new log
/// lines, never changed afterwards.
#[derive(Clone, Debug, Default)]
pub(crate) struct Picture {
    pub(crate) view: View,
    pub(crate) specs: BTreeMap<RunName, Arc<JobSpec>>,
    pub(crate) sweep_specs: BTreeMap<RunName, Arc<SweepSpec>>,
    /// The newest durable step of each run's live lineage.
    pub(crate) newest: BTreeMap<RunName, StepRecord>,
    pub(crate) data: BTreeMap<RunName, DataFacts>,
}

impl Picture {
    /// A run as it stands.
    pub(crate) fn run(&self, name: &RunName) -> Option<&RunView> {
        let place = self.view.runs.binary_search_by(|run| run.name.cmp(name)).ok()?;
        self.view.runs.get(place)
    }

    /// A sweep as it stands.
    pub(crate) fn sweep(&self, name: &RunName) -> Option<&SweepView> {
        let place = self.view.sweeps.binary_search_by(|sweep| sweep.name.cmp(name)).ok()?;
        self.view.sweeps.get(place)
    }

    /// The samples of a run by step, if a worker has told how many there are.
    pub(crate) fn plan(&self, run: &RunName) -> Option<BatchPlan> {
        let data = self.data.get(run).filter(|data| data.train_samples > 0)?;
        Some(self.specs.get(run)?.batch_plan(data.train_samples))
    }

    /// A run for the wire.
    pub(crate) fn run_to_wire(&self, run: &RunView) -> Option<v1::Run> {
        let spec = self.specs.get(&run.name)?;
        let data = self.data.get(&run.name).copied().unwrap_or_default();
        Some(convert::run_to_wire(run, spec, data))
    }
}

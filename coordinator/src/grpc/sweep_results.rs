//! What came of a sweep: from the picture, its facts and the records of its trials.

use std::collections::VecDeque;

use domain::batch::BatchPlan;
use domain::ids::{RunName, Step};
use domain::results::{self, Course};
use domain::search::study::Fact;
use domain::view::{SweepTrialView, TrialState};
use proto::convert;
use proto::v1;
use store::Store;
use tonic::Status;

use super::pages::Pages;
use super::sweeps::whole;
use crate::picture::Picture;
use crate::status;

/// Evaluations in one message: some 40 KB.
const EVALS_MAX: usize = 1_000;

/// What came of the sweep `name` so far.
pub(super) async fn results(
    picture: &Picture,
    store: &Store,
    name: &RunName,
    facts: &[Fact],
) -> Result<v1::GetSweepResultsResponse, Status> {
    let known = picture.sweep(name).zip(picture.sweep_specs.get(name));
    let (view, spec) = known.ok_or_else(|| status::no_sweep(name))?;
    let mut efforts = Vec::with_capacity(view.trials.len());
    let mut courses = Vec::new();
    // The length of a trial that nobody ends early. A specification that is in the journal was checked.
    let full = spec.study_spec().ok().map(|(study, unit)| unit.length(study.scheduler.max()));
    for trial in &view.trials {
        let effort = store.effort(&trial.run).await.map_err(|e| status::of_store(&e))?;
        efforts.push(convert::effort_to_wire(trial.number, effort));
        if let Some(length) = full
            && has_ended(trial)
            && let Some(plan) = picture.plan(&trial.run)
        {
            let full_steps = BatchPlan { length, ..plan }.total_steps();
            courses.push(Course { step: trial.step.0, full_steps, effort });
        }
    }
    let values = view.trials.iter().map(|t| (t.number, t.values.iter().map(|value| f64::from(*value)).collect()));
    let front = results::front(&spec.objectives, &values.collect::<Vec<_>>());
    let configurations = view.trials.iter().map(|trial| (trial.number, trial.configuration.clone())).collect();
    let importances = results::importances(spec, &configurations, facts);
    Ok(v1::GetSweepResultsResponse {
        sweep: Some(whole(picture, name)?),
        efforts,
        front,
        importance: Some(convert::importances_to_wire(&importances, spec)),
        saved: results::saved(spec, courses.into_iter()).map(convert::saved_to_wire),
    })
}

/// Whether early stopping has had its say: a trial that failed, or may go on, neither saved nor cost anything by it.
fn has_ended(trial: &SweepTrialView) -> bool {
    match trial.state {
        TrialState::Completed | TrialState::Pruned => true,
        TrialState::Training | TrialState::Paused | TrialState::Failed => false,
    }
}

/// The evaluations of trials that are left to be given out.
pub(super) struct EvalsReading {
    store: Store,
    trials: VecDeque<(u32, RunName)>,
    /// Of the first of them, those after this step.
    after: Step,
}

impl EvalsReading {
    pub(super) fn new(store: Store, trials: VecDeque<(u32, RunName)>) -> Self {
        Self { store, trials, after: Step(0) }
    }
}

impl Pages for EvalsReading {
    type Page = v1::ReadSweepEvalsResponse;

    async fn next(&mut self) -> Result<Option<v1::ReadSweepEvalsResponse>, Status> {
        let mut page = v1::ReadSweepEvalsResponse::default();
        let mut room = EVALS_MAX;
        while let Some((number, run)) = self.trials.front().filter(|_| room > 0) {
            let evals = self.store.read_evals(run, self.after, room).await.map_err(|e| status::of_store(&e))?;
            let is_all = evals.len() < room;
            room -= evals.len();
            if let Some(last) = evals.last() {
                self.after = last.step;
                let evals = evals.iter().map(convert::eval_point_to_wire).collect();
                page.trials.push(v1::TrialEvals { number: *number, evals });
            }
            if is_all {
                self.trials.pop_front();
                self.after = Step(0);
            }
        }
        Ok((!page.trials.is_empty()).then_some(page))
    }
}

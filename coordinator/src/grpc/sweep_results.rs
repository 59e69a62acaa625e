//! What came of a sweep: from the picture, its facts and the records of its trials.

use std::collections::VecDeque;

use domain::ids::{RunName, Step};
use domain::picture::{Picture, TrialPicture};
use domain::results::{self, Results};
use domain::search::study::Fact;
use proto::convert;
use proto::v1;
use store::Store;
use tonic::Status;

use super::pages::Pages;
use super::sweeps::whole;
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
    let sweep = picture.sweep(name).ok_or_else(|| status::no_sweep(name))?;
    let efforts = store.efforts(name).await.map_err(|e| status::of_store(&e))?;
    let Results { front, rungs: _, importances, saved } = results::of_sweep(picture, sweep, facts, &efforts);
    let effort = |trial: &TrialPicture| efforts.get(&trial.view.run).copied().unwrap_or_default();
    Ok(v1::GetSweepResultsResponse {
        sweep: Some(whole(picture, name)?),
        efforts: sweep.trials().map(|trial| convert::effort_to_wire(trial.view.number, effort(trial))).collect(),
        front,
        importance: Some(convert::importances_to_wire(&importances, &sweep.spec)),
        saved: saved.map(convert::saved_to_wire),
    })
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

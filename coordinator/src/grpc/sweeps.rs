//! Sweeps for people and tools.

use std::collections::BTreeMap;
use std::sync::Arc;

use domain::engine::Event;
use domain::ids::RunName;
use domain::spec::sweep::check;
use domain::view::{SweepTrialView, SweepView};
use proto::convert;
use proto::v1;
use proto::v1::sweeps_server::Sweeps;
use store::Store;
use tokio::sync::watch;
use tonic::{Request, Response, Status};

use super::control::read_name;
use super::pages::{Messages, Pages, messages};
use super::sweep_results::{EvalsReading, results};
use crate::driver::Handle;
use crate::picture::Picture;
use crate::status;

/// Facts in one message; each has some hundred bytes.
const FACTS_MAX: usize = 2_000;

/// Answers people and tools about sweeps.
#[derive(Debug)]
pub(crate) struct SweepsService {
    driver: Handle,
    store: Store,
}

impl SweepsService {
    pub(crate) fn new(driver: Handle, store: Store) -> Self {
        Self { driver, store }
    }

    fn picture(&self) -> Arc<Picture> {
        self.driver.picture().borrow().clone()
    }

    fn known(&self, name: &str) -> Result<RunName, Status> {
        let name = read_name(name)?;
        match self.picture().sweep(&name) {
            Some(_) => Ok(name),
            None => Err(status::no_sweep(&name)),
        }
    }
}

/// A sweep with all its trials.
pub(super) fn whole(picture: &Picture, name: &RunName) -> Result<v1::Sweep, Status> {
    let view = picture.sweep(name).ok_or_else(|| status::no_sweep(name))?;
    let trials = view.trials.iter().map(convert::sweep_trial_to_wire).collect();
    Ok(v1::Sweep { trials, ..bare(picture, view)? })
}

fn bare(picture: &Picture, view: &SweepView) -> Result<v1::Sweep, Status> {
    let spec = picture.sweep_specs.get(&view.name).ok_or_else(|| status::no_sweep(&view.name))?;
    Ok(convert::sweep_to_wire(view, spec))
}

#[tonic::async_trait]
impl Sweeps for SweepsService {
    async fn submit_sweep(
        &self,
        request: Request<v1::SubmitSweepRequest>,
    ) -> Result<Response<v1::SubmitSweepResponse>, Status> {
        let v1::SubmitSweepRequest { spec_json } = request.into_inner();
        let spec = convert::sweep_spec_from_json(&spec_json).map_err(|e| status::of_message(&e))?;
        check::check(&spec).map_err(|e| status::of_spec(&e))?;
        let name = spec.name.clone();
        let submitted = Event::SweepSubmitted { spec: Box::new(spec) };
        self.driver.request(submitted).await.map_err(|e| status::of_request(&e))?;
        Ok(Response::new(v1::SubmitSweepResponse { sweep: Some(whole(&self.picture(), &name)?) }))
    }

    async fn get_sweep(&self, request: Request<v1::GetSweepRequest>) -> Result<Response<v1::GetSweepResponse>, Status> {
        let name = read_name(&request.into_inner().name)?;
        Ok(Response::new(v1::GetSweepResponse { sweep: Some(whole(&self.picture(), &name)?) }))
    }

    async fn list_sweeps(
        &self,
        _request: Request<v1::ListSweepsRequest>,
    ) -> Result<Response<v1::ListSweepsResponse>, Status> {
        let picture = self.picture();
        let sweeps = picture.view.sweeps.iter().map(|view| bare(&picture, view)).collect::<Result<_, _>>()?;
        Ok(Response::new(v1::ListSweepsResponse { sweeps }))
    }

    type WatchSweepStream = Messages<v1::WatchSweepResponse>;

    async fn watch_sweep(
        &self,
        request: Request<v1::WatchSweepRequest>,
    ) -> Result<Response<Self::WatchSweepStream>, Status> {
        let name = self.known(&request.into_inner().name)?;
        let pictures = self.driver.picture();
        Ok(Response::new(messages(Watching { name, pictures, shown: BTreeMap::new(), last: None, is_over: false })))
    }

    async fn get_sweep_results(
        &self,
        request: Request<v1::GetSweepResultsRequest>,
    ) -> Result<Response<v1::GetSweepResultsResponse>, Status> {
        let name = self.known(&request.into_inner().name)?;
        let facts = self.driver.sweep_facts(name.clone()).await.map_err(|e| status::of_request(&e))?;
        Ok(Response::new(results(&self.picture(), &self.store, &name, &facts).await?))
    }

    type ReadSweepEvalsStream = Messages<v1::ReadSweepEvalsResponse>;

    async fn read_sweep_evals(
        &self,
        request: Request<v1::ReadSweepEvalsRequest>,
    ) -> Result<Response<Self::ReadSweepEvalsStream>, Status> {
        let name = self.known(&request.into_inner().name)?;
        let picture = self.picture();
        let sweep = picture.sweep(&name).ok_or_else(|| status::no_sweep(&name))?;
        let trials = sweep.trials.iter().map(|trial| (trial.number, trial.run.clone())).collect();
        Ok(Response::new(messages(EvalsReading::new(self.store.clone(), trials))))
    }

    type ReadSweepFactsStream = Messages<v1::ReadSweepFactsResponse>;

    async fn read_sweep_facts(
        &self,
        request: Request<v1::ReadSweepFactsRequest>,
    ) -> Result<Response<Self::ReadSweepFactsStream>, Status> {
        let name = self.known(&request.into_inner().name)?;
        let facts = self.driver.sweep_facts(name).await.map_err(|e| status::of_request(&e))?;
        let facts = facts.iter().map(convert::fact_to_json).collect();
        Ok(Response::new(messages(Facts(facts))))
    }
}

/// A sweep as it is shown to one watcher.
struct Watching {
    name: RunName,
    pictures: watch::Receiver<Arc<Picture>>,
    /// The trials as they were shown last.
    shown: BTreeMap<u32, SweepTrialView>,
    last: Option<v1::Sweep>,
    is_over: bool,
}

impl Pages for Watching {
    type Page = v1::WatchSweepResponse;

    async fn next(&mut self) -> Result<Option<v1::WatchSweepResponse>, Status> {
        loop {
            if self.is_over {
                return Ok(None);
            }
            let picture = self.pictures.borrow_and_update().clone();
            let view = picture.sweep(&self.name).ok_or_else(|| status::no_sweep(&self.name))?;
            self.is_over = view.state.is_ended();
            let changed: Vec<SweepTrialView> =
                view.trials.iter().filter(|trial| self.shown.get(&trial.number) != Some(trial)).cloned().collect();
            let bare = bare(&picture, view)?;
            if !changed.is_empty() || self.last.as_ref() != Some(&bare) {
                self.last = Some(bare.clone());
                let trials = changed.iter().map(convert::sweep_trial_to_wire).collect();
                self.shown.extend(changed.into_iter().map(|trial| (trial.number, trial)));
                return Ok(Some(v1::WatchSweepResponse { sweep: Some(v1::Sweep { trials, ..bare }) }));
            }
            self.pictures.changed().await.map_err(|_| status::ending())?;
        }
    }
}

/// What is left to be given out.
struct Facts(Vec<String>);

impl Pages for Facts {
    type Page = v1::ReadSweepFactsResponse;

    async fn next(&mut self) -> Result<Option<v1::ReadSweepFactsResponse>, Status> {
        let rest = self.0.split_off(self.0.len().min(FACTS_MAX));
        let facts_json = std::mem::replace(&mut self.0, rest);
        Ok((!facts_json.is_empty()).then_some(v1::ReadSweepFactsResponse { facts_json }))
    }
}

//! Priorities that users change.

use super::elastic::{Cluster, trial_of};
use super::*;

fn priority(name: &str, priority: i32) -> Event {
    Event::PriorityRequested { run: name.parse().unwrap(), priority }
}

impl Cluster {
    /// Asks for another priority, and checks that replaying the same facts would be as good as asking.
    fn prefer(&mut self, name: &str, number: i32) {
        let event = priority(name, number);
        assert_eq!(self.engine.check(&event), Ok(()));
        self.tell(event.clone());
        let once = self.engine.clone();
        assert_eq!(self.tell(event), [], "asked again, it changes nothing");
        self.engine = once;
    }
}

#[test]
fn another_priority_changes_who_is_next_and_takes_no_worker() {
    let mut cluster = Cluster::new("searcher: {type: random}\ntrials: 3\nmax_concurrent: 1\n", 1);
    cluster.form();
    let (first, second) = (cluster.submit("first", 1), cluster.submit("second", 1));
    assert_eq!(cluster.view(&second).reason, "waiting behind run first");
    cluster.prefer("second", 5);
    assert_eq!(cluster.view(&first).reason, "waiting behind run second");
    assert_eq!(cluster.view(&second).priority, 5);
    cluster.check(&[("s.0", 1)]);
    cluster.complete(&trial_of(0));
    cluster.check(&[("second", 1)]);
    // One that runs is left alone, whatever becomes of its number, and the number waits with it.
    cluster.prefer("second", -5);
    cluster.form();
    cluster.prefer("first", 1000);
    cluster.check(&[("second", 1)]);
    cluster.tell(Event::Lost { worker: WorkerId(1), cause: LossCause::ConnectionClosed });
    assert_eq!(cluster.view(&second).state, RunState::Waiting);
    cluster.tell(joined(2));
    cluster.check(&[("first", 1)]);
}

#[test]
fn the_priority_of_a_sweep_is_that_of_all_its_trials() {
    let asha = "scheduler: {type: asha, min: {steps: 3}, eta: 3, mode: pause}\n\
                searcher: {type: random}\ntrials: 9\nmax_concurrent: 2\n";
    let mut cluster = Cluster::new(asha, 1);
    cluster.form();
    cluster.rest(&trial_of(0), 3, 0.1);
    cluster.form();
    cluster.check(&[("s.1", 1)]);
    let job = cluster.submit("job", 1);
    cluster.prefer("s", 7);
    let view = cluster.engine.view();
    assert_eq!(view.sweeps[0].priority, 7);
    assert_eq!(cluster.view(&trial_of(0)).priority, 7, "one that rests may be taken up again");
    assert_eq!((cluster.view(&trial_of(1)).priority, cluster.view(&job).priority), (7, 0));
    // The next trial comes before the job that waits, and has the sweep's number, though not in its job.
    cluster.rest(&trial_of(1), 3, 0.2);
    cluster.check(&[("s.2", 1)]);
    assert_eq!(cluster.view(&trial_of(2)).priority, 7);
    assert_eq!(
        cluster.engine.spec(&trial_of(2)).unwrap().priority,
        0,
        "a worker that holds its state sees no other job"
    );
    cluster.form();
    cluster.prefer("s", -7);
    cluster.rest(&trial_of(2), 3, 0.3);
    cluster.check(&[("job", 1)]);
}

#[test]
fn what_cannot_have_another_priority_says_why() {
    let mut cluster = Cluster::new("searcher: {type: random}\ntrials: 1\n", 1);
    cluster.form();
    let refused = |cluster: &Cluster, event: Event| cluster.engine.check(&event).unwrap_err().to_string();
    assert_eq!(refused(&cluster, priority("s", 1001)), "priority (1001) must be -1000 to 1000");
    assert_eq!(refused(&cluster, priority("s", i32::MIN)), "priority (-2147483648) must be -1000 to 1000");
    assert_eq!(refused(&cluster, priority("s.0", 1)), "run s.0 is a trial of sweep s\nhint: ask it of s");
    assert_eq!(refused(&cluster, priority("r", 1)), "there is no run r\nhint: `phalanx list` shows all runs");
    cluster.complete(&trial_of(0));
    assert_eq!(refused(&cluster, priority("s", 1)), "sweep s is completed already");
    let job = cluster.submit("job", 1);
    cluster.form();
    cluster.complete(&job);
    assert_eq!(refused(&cluster, priority("job", 1)), "run job is completed already");
    // In a journal all the same, it does no harm.
    cluster.tell(priority("nobody", 1));
    cluster.tell(priority("job", 1));
    assert_eq!(cluster.view(&job).state, RunState::Completed);
}

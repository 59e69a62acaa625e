use super::*;

type Simulate = fn(u64, Option<&mut dyn FnMut(&str)>) -> Summary;

fn play(simulate: Simulate, kind: &str, seeds: std::ops::Range<u64>) -> Summary {
    let mut total = Summary::default();
    for seed in seeds {
        let outcome = std::panic::catch_unwind(|| simulate(seed, None));
        let Ok(one) = outcome else { panic!("seed {seed} failed: replay it with `just sim {kind}{seed}`") };
        total.events += one.events;
        total.completed += one.completed;
        total.trials += one.trials;
        total.groups += one.groups;
        total.restarts += one.restarts;
    }
    total
}

/// Split in two so that both cores have something to do.
#[test]
fn invariants_hold_for_even_hundreds() {
    let total = play(simulate, "", 0..600);
    assert!(total.completed > 600 && total.restarts > 300 && total.groups > 2000, "too tame: {total:?}");
}

#[test]
fn invariants_hold_for_odd_hundreds() {
    let total = play(simulate, "", 600..1200);
    assert!(total.completed > 600 && total.restarts > 300 && total.groups > 2000, "too tame: {total:?}");
}

/// Invariants that find nothing prove nothing: each planted fault is found within a few seeds.
#[test]
fn every_sabotage_is_found() {
    for sabotage in Sabotage::ALL {
        let is_found = |seed| std::panic::catch_unwind(|| simulate_with(seed, sabotage, None)).is_err();
        assert!((0..300).any(is_found), "{sabotage:?} goes unnoticed");
    }
}

#[test]
fn a_seed_replays_alike() {
    let play = |seed| {
        let mut lines = Vec::new();
        let summary = simulate(seed, Some(&mut |line: &str| lines.push(line.to_owned())));
        (summary, lines)
    };
    assert_eq!(play(7), play(7));
    assert_ne!(play(7).1, play(8).1);
}

#[test]
fn invariants_hold_for_sweeps() {
    let total = play(simulate_sweep, "--sweep ", 0..60);
    assert!(total.trials > 300 && total.restarts > 30 && total.groups > 600, "too tame: {total:?}");
}

#[test]
fn every_sabotage_of_a_sweep_is_found() {
    for sabotage in Sabotage::OF_SWEEPS {
        let is_found = |seed| std::panic::catch_unwind(|| simulate_sweep_with(seed, sabotage, None)).is_err();
        assert!((0..60).any(is_found), "{sabotage:?} goes unnoticed");
    }
}

/// A sweep in lock step decides the same on any number of workers, and however often its coordinator is killed.
#[test]
fn decisions_in_lock_step_depend_on_nothing_but_losses() {
    let mut restarts = 0;
    for seed in 0..7 {
        let mut random = Stream::new(seed, Purpose::Simulation, &[SWEEP]);
        let spec = sweep::draw_in_lock_step(&mut random, seed as usize);
        let alone = undisturbed_sweep(&spec, spec.workers_per_trial.into());
        for workers in [2, 4] {
            assert_eq!(undisturbed_sweep(&spec, workers), alone, "{workers} workers, seed {seed}");
        }
        let mut world = World::new(seed, Sabotage::None, None);
        world.agenda.clear();
        world.crash_one_in = 20;
        world.sweep = Some(spec);
        world.born();
        world.born();
        world.at(Time(1), Action::User);
        world.play_while_live(Time(10 * CALM_MS));
        // The user may have stopped it, and does not any more.
        world.calm_down();
        world.resume_all();
        world.play_while_live(Time(20 * CALM_MS));
        world.check_end();
        restarts += world.summary.restarts;
        assert_eq!(sweep::outcome(world.engine()), alone, "killed and restarted, seed {seed}");
    }
    assert!(restarts >= 50, "{restarts} restarts");
}

/// Where nothing else goes wrong, workers that come and go by draining cost no run a step, and none counts as failed.
#[test]
fn draining_loses_no_step() {
    let (mut groups, mut waited) = (0, 0);
    for seed in 0..60 {
        let mut world = World::new(seed, Sabotage::None, None);
        world.agenda.clear();
        world.faults = false;
        for _ in 0..2 + seed % 3 {
            world.born();
        }
        for name in ["a", "b"] {
            let plan = Plan::draw(name.parse().unwrap(), &mut world.random).without_bad_steps();
            let spec = Box::new(plan.spec.clone());
            world.undisturbed.insert(plan.spec.name.clone(), plan.undisturbed());
            world.plans.insert(plan.spec.name.clone(), plan);
            world.ask(Event::Submitted { spec });
        }
        for at in 1..12 {
            world.at(Time(at * 250), Action::Drain);
        }
        world.play_until(Time(3_000));
        waited += world.engine().view().runs.iter().filter(|run| run.reason.contains("drained")).count();
        world.undrain();
        while world.workers.len() < 3 {
            world.born();
        }
        world.play_while_live(Time(CALM_MS));
        world.check_end();
        assert_eq!(world.summary.steps_lost, 0, "seed {seed}");
        assert!(world.engine().view().runs.iter().all(|run| run.failures == 0), "seed {seed}");
        groups += world.summary.groups;
    }
    assert!(groups > 200 && waited > 5, "too tame: {groups} groups, {waited} runs waited for a drained worker");
}

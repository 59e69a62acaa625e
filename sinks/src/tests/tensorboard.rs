use std::fs;
use std::path::{Path, PathBuf};

use super::world::{World, eval, name, step};
use crate::tensorboard::read::{Seen, read};
use crate::{Secrets, Sink};

/// A run that makes 60 steps, is rolled back to 40 and completes.
async fn run_through(world: &mut World, run: &str, mut pause: impl AsyncFnMut(&World)) {
    world.submit(run).await;
    world.join(1).await;
    let first = world.form(run, 0).await;
    for from in [1, 21, 41] {
        world.train(run, first, from..=from + 19).await;
        pause(world).await;
    }
    world.lose(1).await;
    world.join(2).await;
    let second = world.form(run, 40).await;
    assert!(second > first);
    pause(world).await;
    for from in [41, 61, 81] {
        world.train(run, second, from..=from + 19).await;
        pause(world).await;
    }
    world.complete(run, second).await;
}

fn sink(folder: &Path) -> Sink {
    Sink::TensorBoard { folder: folder.to_owned() }
}

/// The one file of a run.
fn file(folder: &Path, run: &str) -> PathBuf {
    let mut files: Vec<PathBuf> = fs::read_dir(folder.join(run)).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(files.len(), 1, "{files:?}");
    files.remove(0)
}

/// The steps at which `loss` stands in a file, and where the file goes back.
fn losses(file: &Path) -> (Vec<u64>, Vec<u64>) {
    let seen = read(&fs::read(file).unwrap());
    let steps = |wanted: &dyn Fn(&Seen) -> Option<u64>| seen.iter().filter_map(wanted).collect();
    (
        steps(&|seen| match seen {
            Seen::Scalars { step, values, .. } => values.iter().any(|(tag, _)| tag == "loss").then_some(*step),
            _ => None,
        }),
        steps(&|seen| match seen {
            Seen::GoesBack { step } => Some(*step),
            _ => None,
        }),
    )
}

/// One file is written by one that looks all the time. The other's writer is killed after every second look, before its
/// position was durable, and the end of what it wrote is torn.
#[tokio::test]
async fn a_file_has_the_same_bytes_however_often_its_writer_is_killed() {
    let whole = |folder: &Path| fs::read(file(folder, "a")).unwrap();
    let mut at_once = World::new();
    let folder = at_once.folder.path().join("runs");
    let mut followed = Some(at_once.follow(&[sink(&folder)], Secrets::default()));
    let sinks = [sink(&folder)];
    run_through(&mut at_once, "a", async |world| {
        assert_eq!(followed.take().unwrap().end().await, []);
        followed = Some(world.follow(&sinks, Secrets::default()));
    })
    .await;
    assert_eq!(followed.take().unwrap().end().await, []);
    let expected = whole(&folder);
    let (steps, back) = losses(&file(&folder, "a"));
    assert_eq!(steps, (1..=60).chain(41..=100).collect::<Vec<_>>());
    assert_eq!(back, [41]);

    let mut killed = World::new();
    let folder = killed.folder.path().join("runs");
    let sinks = [sink(&folder)];
    let mut turn = 0;
    run_through(&mut killed, "a", async |world| {
        turn += 1;
        let before = world.store.sink(&sinks[0].key()).await.unwrap();
        assert_eq!(world.follow(&sinks, Secrets::default()).end().await, []);
        // As if it had been killed after writing, before its position was durable.
        if let (0, Some((position, notes))) = (turn % 2, before) {
            let noted = notes[&name("a")].clone();
            world.store.move_sink(&sinks[0].key(), position, notes.into_iter().collect()).await.unwrap();
            let file = file(&folder, "a");
            let mut bytes = fs::read(&file).unwrap();
            let note: serde_json::Value = serde_json::from_str(&noted).unwrap();
            // A file is on the disk before its length is noted, so it is never shorter.
            bytes.truncate((bytes.len() - turn).max(note["length"].as_u64().unwrap() as usize));
            fs::write(file, bytes).unwrap();
        }
    })
    .await;
    assert_eq!(killed.follow(&sinks, Secrets::default()).end().await, []);
    assert!(whole(&folder) == expected, "killed all the time, it is another file");

    // What was rolled back by then is not written at all.
    let folder = killed.folder.path().join("late");
    assert_eq!(killed.follow(&[sink(&folder)], Secrets::default()).end().await, []);
    assert_eq!(losses(&file(&folder, "a")), ((1..=100).collect(), Vec::new()));
}

#[tokio::test]
async fn a_file_that_was_taken_away_is_written_again() {
    let mut world = World::new();
    let folder = world.folder.path().join("runs");
    let sinks = [sink(&folder)];
    world.submit("a").await;
    world.join(1).await;
    let generation = world.form("a", 0).await;
    world.train("a", generation, 1..=3).await;
    assert_eq!(world.follow(&sinks, Secrets::default()).end().await, []);
    for take_away in [true, false] {
        let path = file(&folder, "a");
        match take_away {
            true => fs::remove_dir_all(&folder).unwrap(),
            false => fs::write(&path, "cut").unwrap(),
        }
        let next = 4 + 3 * u64::from(!take_away);
        world.train("a", generation, next..=next + 2).await;
        assert_eq!(world.follow(&sinks, Secrets::default()).end().await, []);
        assert_eq!(losses(&path), ((1..=next + 2).collect(), Vec::new()));
    }
}

#[tokio::test]
async fn a_group_that_goes_on_by_evaluating_takes_nothing_back() {
    let mut world = World::new();
    let folder = world.folder.path().join("runs");
    world.submit("a").await;
    world.store("a", vec![step(1, 1, 0.1), step(2, 1, 0.2)]).await;
    world.store("a", vec![eval(2, 2), step(3, 2, 0.3)]).await;
    let followed = world.follow(&[sink(&folder)], Secrets::default());
    assert_eq!(followed.end().await, []);
    let seen = read(&fs::read(file(&folder, "a")).unwrap());
    let shown: Vec<String> = seen.iter().map(ToString::to_string).collect();
    let expected = ["brain.Event:2", "1 loss=0.1", "2 loss=0.2", "2 eval_loss=0.5", "3 loss=0.3"];
    assert_eq!(shown, expected);
    let Seen::Scalars { values, .. } = &seen[1] else { panic!("{seen:?}") };
    let tags: Vec<&str> = values.iter().map(|(tag, _)| tag.as_str()).collect();
    // How many samples a step reads is not known yet, so `samples_per_second` is not there.
    assert_eq!(tags, ["loss", "lr", "grad_norm", "step_seconds", "outside_seconds"]);
}

#[tokio::test]
async fn the_inside_of_a_model_goes_with_its_steps() {
    let mut world = World::new();
    let folder = world.folder.path().join("runs");
    let sinks = [sink(&folder)];
    let shown = || -> Vec<String> {
        let seen = read(&fs::read(file(&folder, "a")).unwrap());
        let inside = |seen: &&Seen| matches!(seen, Seen::Inside { .. } | Seen::GoesBack { .. });
        seen.iter().filter(inside).map(ToString::to_string).collect()
    };
    let tags = "weights/w, gradients/w, input/sample 0, attention/sample 0/layer";
    world.submit("a").await;
    world.join(1).await;
    let first = world.form("a", 0).await;
    for step in [10, 20] {
        world.see("a", step, first).await;
    }
    world.train("a", first, 1..=20).await;
    // The step after which this was seen is not durable yet.
    world.see("a", 30, first).await;
    assert_eq!(world.follow(&sinks, Secrets::default()).end().await, []);
    assert_eq!(shown(), [format!("10 {tags}"), format!("20 {tags}")]);
    world.lose(1).await;
    world.join(2).await;
    let second = world.form("a", 15).await;
    world.see("a", 20, second).await;
    world.train("a", second, 16..=40).await;
    assert_eq!(world.follow(&sinks, Secrets::default()).end().await, []);
    let expected = [format!("10 {tags}"), format!("20 {tags}"), "back to 16".to_owned(), format!("20 {tags}")];
    assert_eq!(shown(), expected, "what was rolled back is not written after the run went back");
    // From its beginning, a file has what counts.
    fs::remove_dir_all(&folder).unwrap();
    world.train("a", second, 41..=50).await;
    assert_eq!(world.follow(&sinks, Secrets::default()).end().await, []);
    assert_eq!(shown(), [format!("10 {tags}"), format!("20 {tags}")]);
}

#[tokio::test]
async fn a_trial_tells_what_it_tries_and_how_it_ended() {
    let mut world = World::new();
    let folder = world.folder.path().join("runs");
    let sinks = [sink(&folder)];
    world.submit_sweep("s").await;
    world.join(1).await;
    let generation = world.form("s.0", 0).await;
    world.train("s.0", generation, 1..=100).await;
    assert_eq!(world.follow(&sinks, Secrets::default()).end().await, []);
    world.fail("s.0", generation, "no disk").await;
    for _ in 0..2 {
        assert_eq!(world.follow(&sinks, Secrets::default()).end().await, []);
    }
    let seen = read(&fs::read(file(&folder, "s.0")).unwrap());
    let trial = &world.picture().sweep(&name("s")).unwrap().trial(0).unwrap().view;
    let begins = format!(
        "begins {{\"model.dropout\": {}, \"optimizer.type\": \"sgd\", \"schedule.lr\": {}, \"sweep\": \"s\"}}",
        trial.configuration["model.dropout"].to_string().replace(".0", ""),
        trial.configuration["schedule.lr"]
    );
    assert_eq!(seen[1].to_string(), begins);
    assert_eq!(seen.iter().filter(|seen| seen.to_string() == "ends with 2").count(), 1);
}

#[tokio::test]
async fn a_folder_that_cannot_be_written_holds_nothing_up_and_is_told() {
    let mut world = World::new();
    let taken = world.folder.path().join("taken");
    fs::write(&taken, "a file").unwrap();
    let good = world.folder.path().join("runs");
    world.submit("a").await;
    world.store("a", vec![step(1, 1, 0.1)]).await;
    let behind = world.follow(&[sink(&taken), sink(&good)], Secrets::default()).end().await;
    assert_eq!(behind.len(), 1);
    assert!(behind[0].sink.ends_with("taken") && behind[0].cause.contains("cannot be written"), "{behind:?}");
    assert_eq!(losses(&file(&good, "a")).0, [1]);
    fs::remove_file(&taken).unwrap();
    assert_eq!(world.follow(&[sink(&taken)], Secrets::default()).end().await, []);
    assert_eq!(losses(&file(&taken, "a")).0, [1]);
}

//! Log lines and data facts.

use domain::view::DataFacts;
use store::{LOG_LINES_MAX, LOG_TEXT_BYTES_MAX, LogLine, NewLogLine, PAGE_MAX, Store};

use crate::fixtures::run;

fn line(text: impl Into<String>) -> NewLogLine {
    NewLogLine { at_ms: 5, source: "17".to_owned(), level: "warn".to_owned(), text: text.into() }
}

#[tokio::test]
async fn lines_are_numbered_by_run_and_the_oldest_are_dropped() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(folder.path()).unwrap();
    let (a, b) = (run("a"), run("b"));
    store.append_log(&a, vec![line("first"), line("\u{1b}[31m\0\n")]).await.unwrap();
    store.append_log(&b, vec![line("other run")]).await.unwrap();
    let second =
        LogLine { sequence: 2, at_ms: 5, source: "17".into(), level: "warn".into(), text: "\u{1b}[31m\0\n".into() };
    assert_eq!(store.read_log(&a, 1, 10).await.unwrap(), vec![second]);
    assert_eq!(store.read_log(&a, u64::MAX, 10).await.unwrap(), vec![]);

    store.append_log(&a, (0..LOG_LINES_MAX).map(|i| line(i.to_string())).collect()).await.unwrap();
    let kept = store.read_log(&a, 0, usize::MAX).await.unwrap();
    assert_eq!(kept.len(), PAGE_MAX.min(LOG_LINES_MAX as usize));
    assert_eq!((kept[0].sequence, kept[0].text.as_str()), (3, "0"));
    assert_eq!(store.read_log(&b, 0, 10).await.unwrap().len(), 1);

    store.append_log(&a, vec![line("ü".repeat(LOG_TEXT_BYTES_MAX))]).await.unwrap();
    let newest = store.read_log(&a, LOG_LINES_MAX + 2, 10).await.unwrap();
    assert_eq!((newest[0].sequence, newest[0].text.len()), (LOG_LINES_MAX + 3, LOG_TEXT_BYTES_MAX));
}

#[tokio::test]
async fn the_last_facts_count_and_outlive_the_process() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(folder.path()).unwrap();
    store.set_data_facts(&run("a"), DataFacts { train_samples: 1, total_steps: 2 }).await.unwrap();
    let facts = DataFacts { train_samples: 1437, total_steps: 690 };
    store.set_data_facts(&run("a"), facts).await.unwrap();
    drop(store);
    let (store, _) = Store::open(folder.path()).unwrap();
    assert_eq!(store.data_facts(&run("a")).await.unwrap(), Some(facts));
    assert_eq!(store.data_facts(&run("b")).await.unwrap(), None);
}

//! Log lines and data facts.

use domain::view::DataFacts;
use store::{LOG_LINES_MAX, LOG_TEXT_BYTES_MAX, LogFilter, LogLine, LogPage, NewLogLine, PAGE_MAX, Store};

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

#[tokio::test]
async fn lines_are_found_by_text_and_source_from_either_end() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(folder.path()).unwrap();
    let line = |i: u64| NewLogLine {
        at_ms: i,
        source: if i.is_multiple_of(2) { "coordinator" } else { "0000002a" }.to_owned(),
        level: "info".to_owned(),
        text: format!("Line {i} of 100%_"),
    };
    store.append_log(&run("a"), (1..=20).map(line).collect()).await.unwrap();
    let filter = |text: Option<&str>, source: Option<&str>| LogFilter {
        text: text.map(str::to_owned),
        source: source.map(str::to_owned),
    };
    let all = filter(None, None);
    for (at, limit, filter, expected) in [
        (LogPage::After(0), 3, all.clone(), vec![1, 2, 3]),
        (LogPage::After(19), 3, all.clone(), vec![20]),
        (LogPage::Newest, 3, all.clone(), vec![18, 19, 20]),
        (LogPage::Before(18), 2, all.clone(), vec![16, 17]),
        (LogPage::Before(1), 2, all.clone(), vec![]),
        (LogPage::After(u64::MAX), 2, all, vec![]),
        (LogPage::After(0), 99, filter(Some("LINE 1"), None), vec![1, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19]),
        (LogPage::Newest, 2, filter(Some("line 1"), Some("coordinator")), vec![16, 18]),
        (LogPage::After(0), 99, filter(Some("7 of 100%_"), None), vec![7, 17]),
        (LogPage::After(0), 99, filter(Some("%"), Some("nobody")), vec![]),
    ] {
        let lines = store.search_log(&run("a"), at, limit, filter.clone()).await.unwrap();
        assert_eq!(lines.iter().map(|l| l.sequence).collect::<Vec<_>>(), expected, "{at:?} {filter:?}");
    }
}

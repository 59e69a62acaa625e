//! How far sinks have come.

use std::collections::BTreeMap;

use store::{SinkPosition, Store};

use crate::fixtures::run;

#[tokio::test]
async fn a_sink_goes_on_where_it_was_and_remembers_what_it_noted() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(folder.path()).unwrap();
    let position = |records, journal| SinkPosition { records, journal };
    let note = |name: &str, note: &str| (run(name), note.to_owned());
    assert_eq!(store.sink("one").await.unwrap(), None);
    store.move_sink("one", position(3, 4), vec![note("a", "{}"), note("b", "x")]).await.unwrap();
    store.move_sink("two", position(1, 0), Vec::new()).await.unwrap();
    store.move_sink("one", position(5, 4), vec![note("b", "\0\u{202e}")]).await.unwrap();
    let too_far = store.move_sink("one", position(u64::MAX, 4), vec![note("a", "lost")]).await.unwrap_err();
    assert_eq!(too_far.to_string(), format!("number of a record {} must be <= {}", u64::MAX, i64::MAX));
    drop(store);

    let (store, _) = Store::open(folder.path()).unwrap();
    let notes = BTreeMap::from([note("a", "{}"), note("b", "\0\u{202e}")]);
    assert_eq!(store.sink("one").await.unwrap(), Some((position(5, 4), notes)));
    assert_eq!(store.sink("two").await.unwrap(), Some((position(1, 0), BTreeMap::new())));
}

//! Large files, and people who do not want to wait for them.

use std::fmt::Write as _;

use super::*;
use crate::error::PartyError;
use crate::view::FileReading;

const ROWS: u64 = 2_000_000;

#[tokio::test(flavor = "multi_thread")]
async fn two_million_rows_are_read_for_as_long_as_somebody_waits() {
    let world = World::new().await;
    let path = world.folder.join("large.csv");
    let mut text = "subject_id,age\n".to_owned();
    for row in 0..ROWS {
        writeln!(text, "P-{row},{}", row % 90).unwrap();
    }
    std::fs::write(&path, text).unwrap();
    let sam = world.who("sam");
    assert_eq!(world.handle.reading(sam).await.unwrap(), None);

    let (handle, session) = (world.handle.clone(), sam.clone());
    let reading = tokio::spawn(async move { handle.survey(&session, path, FileReading::default()).await });
    let mut rows = 0;
    for _ in 0..6_000 {
        rows = world.handle.reading(sam).await.unwrap().map_or(0, |far| far.rows);
        if rows > 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(rows > 0 && rows < ROWS, "{rows}");
    world.handle.stop_reading(sam).await.unwrap();
    let stopped = reading.await.unwrap();
    assert!(matches!(stopped, Err(PartyError::ReadingStopped)), "{stopped:?}");
    assert_eq!(world.handle.reading(sam).await.unwrap(), None);
    // Whoever registers no data has nothing to follow.
    assert!(matches!(world.handle.reading(world.who("ana")).await, Err(PartyError::Denied { .. })));
    assert!(matches!(world.handle.stop_reading(world.who("ana")).await, Err(PartyError::Denied { .. })));
}

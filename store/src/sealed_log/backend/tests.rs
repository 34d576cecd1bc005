//! What a log refuses while it is not to be believed, or not whole.

use super::*;
use crate::record::Record;
use crate::sealed_log::entry::Content;
use crate::sealed_log::fixture::{self, Home};
use crate::sealed_log::options::Access;

/// Takes nothing down.
struct Nowhere;

impl ExportSink for Nowhere {
    fn begin(&mut self, _: &Position, _: &crate::store::Census) -> Result<(), StoreError> {
        Ok(())
    }

    fn record(&mut self, _: &crate::record::RecordId, _: &[u8]) -> Result<(), StoreError> {
        Ok(())
    }
}

#[tokio::test]
async fn a_condemned_log_gives_no_copy_no_position_and_no_proof() {
    let home = Home::new().await;
    let log = home.open(Access::Serve).unwrap();
    log.export_all(&mut Nowhere).unwrap();
    log.current_position().unwrap();
    log.verify_all().unwrap();
    log.shared.condemn(Verdict::Tampered { sequence: Sequence(1), what: "something".into() });
    let refused = [
        log.export_all(&mut Nowhere).unwrap_err(),
        log.current_position().unwrap_err(),
        log.verify_all().unwrap_err(),
    ];
    assert!(refused.iter().all(|error| matches!(error, StoreError::Tampered { .. })), "{refused:?}");
}

#[tokio::test]
async fn a_doubt_stops_a_copy_and_a_proof_too() {
    let home = Home::new().await;
    drop(home.open(Access::Serve).unwrap());
    // Nobody looks at the stream here, and takes the doubt back.
    let log = home.open(Access::Visit).unwrap();
    log.shared.doubt(Some("something".into()));
    let refused = [log.export_all(&mut Nowhere).unwrap_err(), log.verify_all().unwrap_err()];
    assert!(refused.iter().all(|error| matches!(error, StoreError::Unavailable { .. })), "{refused:?}");
}

#[tokio::test]
async fn half_an_import_is_not_copied() {
    let home = Home::new().await;
    let log = home.open(Access::Serve).unwrap();
    log.submit(Work::Control(Content::Import { open: true })).await.unwrap();
    let error = log.export_all(&mut Nowhere).unwrap_err();
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error:?}");
    assert_eq!(log.current_posture().state, PostureState::Degraded);
}

#[tokio::test]
async fn a_log_that_held_a_record_takes_no_import_whether_the_servers_are_there_or_not() {
    let home = Home::new().await;
    let log = home.open(Access::Serve).unwrap();
    let records = || [Ok(Record::User(fixture::user(1)).encode())].into_iter();
    log.import_all(&mut records(), None).unwrap();
    let again = |log: &SealedLog| log.import_all(&mut records(), None).unwrap_err();
    let error = again(&log);
    assert!(matches!(error, StoreError::NotEmpty { records: 1 }), "{error:?}");
    let Home { server, folder: _folder, .. } = home;
    drop(server);
    let error = again(&log);
    assert!(matches!(error, StoreError::NotEmpty { records: 1 }), "{error:?}");
}

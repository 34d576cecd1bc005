//! Brings what others write into the view.

use std::sync::Arc;
use std::time::Duration;

use super::shared::Shared;
use super::wire::Wire;

/// Shortest and longest time between two attempts to follow the stream.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// Follows the stream from where the view stands, for as long as nothing speaks against the log.
pub(super) async fn follow(shared: Arc<Shared>, wire: Wire) {
    let mut pause = PAUSES.0;
    while shared.verdict().is_none() {
        let tail = wire.tail(shared.sequence().saturating_add(1)).await;
        let Ok(mut tail) = tail else {
            tokio::time::sleep(pause).await;
            pause = pause.saturating_mul(2).min(PAUSES.1);
            continue;
        };
        // Until the server says that this way of following is over; then another one begins where the view stands.
        while let Ok(raws) = tail.next().await {
            pause = PAUSES.0;
            if let Err(error) = shared.take(&raws) {
                shared.condemn_for(&error);
                return;
            }
        }
        tokio::time::sleep(pause).await;
    }
}

//! Brings what others write into the view.

use std::sync::Arc;
use std::time::Duration;

use super::shared::Shared;
use super::wire::{Tail, Wire};

/// Shortest and longest time between two attempts to follow the stream.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// Follows the stream from where the view stands, for as long as nothing speaks against the log. While this node alone
/// writes it rests: to be sent its own writes once more costs the server as much as to store them.
pub(super) async fn follow(shared: Arc<Shared>, wire: Wire) {
    let mut alone = shared.alone.subscribe();
    let mut generation = shared.generation.subscribe();
    let mut pause = PAUSES.0;
    while shared.verdict().is_none() {
        // The sender lives as long as `shared`.
        drop(alone.wait_for(|alone| !alone).await);
        generation.mark_unchanged();
        let tail = wire.tail(shared.sequence().saturating_add(1)).await;
        let Ok(tail) = tail else {
            tokio::time::sleep(pause).await;
            pause = pause.saturating_mul(2).min(PAUSES.1);
            continue;
        };
        pause = PAUSES.0;
        let is_over = tokio::select! {
            _ = alone.wait_for(|alone| *alone) => continue,
            _ = generation.changed() => continue,
            is_over = take_all(&shared, tail) => is_over,
        };
        if is_over {
            return;
        }
        tokio::time::sleep(pause).await;
    }
}

/// Until the server says that this way of following is over; then another one begins where the view stands. True if the
/// log is condemned.
async fn take_all(shared: &Shared, mut tail: Tail) -> bool {
    while let Ok(raws) = tail.next().await {
        if let Err(error) = shared.take(&raws) {
            shared.condemn_for(&error);
            return true;
        }
    }
    false
}

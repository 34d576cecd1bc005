//! A server that is ended, wiped, and started again with nothing.

use std::cell::Cell;
use std::sync::{Arc, PoisonError, mpsc};
use std::time::Instant;

use super::{Run, State, Supervisor};
use crate::config::{Cipher, ServerKey};
use crate::error::NatsError;
use crate::folder::{Folder, Places, Wiped};

/// Tells how a wipe went.
type Tell = mpsc::Sender<Result<(), Arc<NatsError>>>;
/// Who waits for a server that was wiped.
pub(super) type Waits = Cell<Option<Tell>>;

/// A wipe that was asked for.
#[derive(Debug)]
pub(super) struct Order {
    wiped: Wiped,
    server_key: Option<(Cipher, ServerKey)>,
    places: Places,
    at: Instant,
    tell: Tell,
}

impl Supervisor {
    /// Ends nats-server, removes everything that it keeps, and starts it again with `server_key`, to get back all of it
    /// from the other servers; waits until clients can connect again. Whoever calls this has made sure that the others
    /// have everything.
    ///
    /// # Errors
    /// Why it was not wiped, or not started again. A wipe that began goes on, also after a crash.
    pub fn wipe(
        &self,
        wiped: &Wiped,
        server_key: Option<(Cipher, ServerKey)>,
        places: Places,
    ) -> Result<(), Arc<NatsError>> {
        let gone = || Arc::new(NatsError::Guard { why: "the supervisor has ended".into() });
        let (tell, told) = mpsc::channel();
        {
            let mut inner = self.shared.lock();
            if inner.stop || !matches!(inner.status.state, State::Ready) || inner.order.is_some() {
                let problem = "nats-server is not ready".into();
                return Err(Arc::new(NatsError::Setting { setting: "the wipe", problem }));
            }
            inner.order = Some(Order { wiped: wiped.clone(), server_key, places, at: Instant::now(), tell });
            if let Some(interrupt) = &inner.interrupt {
                interrupt.now();
            }
        }
        told.recv().unwrap_or_else(|_| Err(gone()))
    }

    /// Its folder; none once it was stopped.
    #[must_use]
    pub fn folder(&self) -> Option<Arc<Folder>> {
        self.folder.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Run {
    /// Wipes the folder of a server that has ended. Gives who waits until it is ready again.
    pub(super) fn wipe(&mut self, order: Order) -> Option<Tell> {
        self.shared.set(|status| {
            status.state = State::Wiping;
            status.pid = None;
        });
        let ended = order.at.elapsed();
        match self.folder.wipe(&order.wiped, order.server_key.as_ref(), order.places) {
            Ok(()) => {
                let (ended_ms, wiped_ms) = (ended.as_millis(), order.at.elapsed().as_millis());
                tracing::warn!(operation = %order.wiped.operation, ended_ms, wiped_ms, "wiped the folder of nats-server; it starts with nothing");
                self.options.launch.config.jetstream_cipher = order.server_key;
                self.shared.set(|status| status.state = State::Starting);
                Some(order.tell)
            }
            Err(error) => {
                tracing::error!(%error, code = error.code(), "cannot wipe the folder of nats-server");
                let _nobody_waits = order.tell.send(Err(Arc::new(error)));
                None
            }
        }
    }
}

//! The pod is told to go: SIGTERM, once, for everybody who waits for something.

use std::io;

use firn_crd::exit::Reason;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::failure::Failure;

/// Whether we were told to go. Cloned freely; knows no runtime.
#[derive(Debug, Clone)]
pub struct Stop(watch::Receiver<bool>);

impl Stop {
    /// Listens for SIGTERM from now on; the program no longer ends by itself. Needs a runtime.
    pub fn on_sigterm() -> io::Result<Self> {
        let mut terminate = signal(SignalKind::terminate())?;
        let (sender, receiver) = watch::channel(false);
        tokio::spawn(async move {
            if terminate.recv().await.is_some() {
                tracing::warn!("told to stop (SIGTERM)");
                // Nobody listens any more: we end anyway.
                let _ = sender.send(true);
            }
            // Keeps the channel open: closing it would look like a signal.
            sender.closed().await;
        });
        Ok(Self(receiver))
    }

    /// Never told to go; for tests.
    pub fn never() -> (watch::Sender<bool>, Self) {
        let (sender, receiver) = watch::channel(false);
        (sender, Self(receiver))
    }

    /// Returns when we are told to go.
    pub async fn requested(&self) {
        let mut receiver = self.0.clone();
        if receiver.wait_for(|stop| *stop).await.is_err() {
            // Nobody is left who could tell.
            std::future::pending::<()>().await;
        }
    }

    /// Whether we were told to go.
    pub fn is_requested(&self) -> bool {
        *self.0.borrow()
    }

    /// `PodKilled`, if we were told to go.
    pub fn check(&self) -> crate::failure::Result<()> {
        if self.is_requested() {
            Err(Self::failure())
        } else {
            Ok(())
        }
    }

    /// What a container says that was told to go.
    pub fn failure() -> Failure {
        Failure::new(
            Reason::PodKilled,
            "the pod was told to stop before it was done",
        )
    }
}

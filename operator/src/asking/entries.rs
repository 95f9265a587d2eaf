//! What is known of each image, between the tasks that ask and the reconciles that want to know.
//!
//! Memory is one entry and one task per image. A task ends when its image is forgotten or asks
//! something else by now: it holds the ticket of the entry that it was started for.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::Stream;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::source::ImageKey;

/// What is known of one image.
pub(crate) trait Entry {
    /// When it is asked next.
    fn due(&self) -> Instant;
}

/// All entries.
#[derive(Debug)]
pub(crate) struct Entries<E> {
    state: Mutex<State<E>>,
    /// One permit at most: "something changed since you looked".
    changed: Notify,
}

/// Which entry a task works for.
#[derive(Debug)]
pub(crate) struct Ticket {
    /// The image.
    pub(crate) key: ImageKey,
    generation: u64,
    wake: Arc<Notify>,
}

#[derive(Debug)]
struct State<E> {
    slots: HashMap<ImageKey, Slot<E>>,
    generation: u64,
    /// Not told yet; a set, so that who is slow to listen misses nothing and costs nothing.
    changes: BTreeSet<ImageKey>,
}

#[derive(Debug)]
struct Slot<E> {
    entry: E,
    generation: u64,
    wake: Arc<Notify>,
}

impl<E: Entry> Entries<E> {
    /// Nothing is known.
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                slots: HashMap::new(),
                generation: 0,
                changes: BTreeSet::new(),
            }),
            changed: Notify::new(),
        })
    }

    /// A new entry, in place of the one that may be there: the task of that one ends. Whoever gets
    /// the ticket starts the next.
    pub(crate) fn insert(&self, key: &ImageKey, entry: E) -> Ticket {
        let mut state = self.lock();
        state.generation += 1;
        let generation = state.generation;
        let wake = Arc::new(Notify::new());
        let slot = Slot {
            entry,
            generation,
            wake: Arc::clone(&wake),
        };
        if let Some(old) = state.slots.insert(key.clone(), slot) {
            old.wake.notify_one();
        }
        Ticket {
            key: key.clone(),
            generation,
            wake,
        }
    }

    /// Reads or changes the entry of an image. Its task looks again at when it is due.
    pub(crate) fn with<T>(&self, key: &ImageKey, use_it: impl FnOnce(&mut E) -> T) -> Option<T> {
        let mut state = self.lock();
        let slot = state.slots.get_mut(key)?;
        let result = use_it(&mut slot.entry);
        slot.wake.notify_one();
        Some(result)
    }

    /// The same for the task itself. `None`: its entry is gone, or another one, and it ends.
    pub(crate) fn of<T>(&self, ticket: &Ticket, use_it: impl FnOnce(&mut E) -> T) -> Option<T> {
        let mut state = self.lock();
        let slot = state.slots.get_mut(&ticket.key);
        let slot = slot.filter(|slot| slot.generation == ticket.generation)?;
        Some(use_it(&mut slot.entry))
    }

    /// Makes something of all entries.
    pub(crate) fn all<T>(&self, use_them: impl FnOnce(&mut dyn Iterator<Item = &E>) -> T) -> T {
        use_them(&mut self.lock().slots.values().map(|slot| &slot.entry))
    }

    /// Nobody wants to know any more: the task ends.
    pub(crate) fn forget(&self, key: &ImageKey) {
        let mut state = self.lock();
        state.changes.remove(key);
        if let Some(old) = state.slots.remove(key) {
            old.wake.notify_one();
        }
    }

    /// Waits until the entry is due. `None`: as in [`Entries::of`].
    pub(crate) async fn due(&self, ticket: &Ticket) -> Option<()> {
        loop {
            let due = self.of(ticket, |entry| entry.due())?;
            if due <= Instant::now() {
                return Some(());
            }
            tokio::select! {
                () = tokio::time::sleep_until(due) => {}
                () = ticket.wake.notified() => {}
            }
        }
    }

    /// Something else is known about an image than before.
    pub(crate) fn tell(&self, key: &ImageKey) {
        self.lock().changes.insert(key.clone());
        self.changed.notify_one();
    }

    /// Images about which something else is known. One consumer.
    pub(crate) fn changes(self: &Arc<Self>) -> impl Stream<Item = ImageKey> + Send + 'static
    where
        E: Send + 'static,
    {
        futures::stream::unfold(Arc::clone(self), |entries| async move {
            loop {
                let next = entries.lock().changes.pop_first();
                if let Some(key) = next {
                    return Some((key, entries));
                }
                entries.changed.notified().await;
            }
        })
    }

    fn lock(&self) -> MutexGuard<'_, State<E>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

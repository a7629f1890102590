//! LISTEN and NOTIFY: what one session tells those that listen to a channel.
//!
//! Invariant: a session that does not read its notifications loses the newest, never holds up the one that
//! tells. Source: PostgreSQL, "NOTIFY".

use std::collections::{BTreeMap, BTreeSet};

use parking_lot::Mutex;
use tokio::sync::mpsc;

/// Notifications that may wait for a session.
pub(crate) const WAITING: usize = 1_000;

/// What a session is told.
#[derive(Debug, Clone)]
pub(crate) struct Notification {
    /// Who told it.
    pub(crate) pid: i32,
    pub(crate) channel: String,
    pub(crate) payload: String,
}

/// Who listens to what.
#[derive(Default)]
pub struct Channels(Mutex<BTreeMap<i32, Listener>>);

struct Listener {
    channels: BTreeSet<String>,
    to: mpsc::Sender<Notification>,
}

impl Channels {
    /// A session that listens to nothing yet.
    pub(crate) fn add(&self, pid: i32, to: mpsc::Sender<Notification>) {
        self.0.lock().insert(pid, Listener { channels: BTreeSet::new(), to });
    }

    pub(crate) fn remove(&self, pid: i32) {
        self.0.lock().remove(&pid);
    }

    pub(crate) fn listen(&self, pid: i32, channel: &str) {
        if let Some(listener) = self.0.lock().get_mut(&pid) {
            listener.channels.insert(channel.to_owned());
        }
    }

    /// None: no channel any more.
    pub(crate) fn unlisten(&self, pid: i32, channel: Option<&str>) {
        if let Some(listener) = self.0.lock().get_mut(&pid) {
            match channel {
                Some(channel) => drop(listener.channels.remove(channel)),
                None => listener.channels.clear(),
            }
        }
    }

    pub(crate) fn tell(&self, notification: &Notification) {
        for listener in self.0.lock().values().filter(|l| l.channels.contains(&notification.channel)) {
            if listener.to.try_send(notification.clone()).is_err() {
                tracing::warn!(channel = %notification.channel, "a listener does not read its notifications");
            }
        }
    }
}

//! The disk of a node: LDK's file store, with a node in front of it that may have died.

use lightning::io::{Error, ErrorKind};
use lightning::util::persist::{KVStore, KVStoreSync};
use lightning_persister::fs_store::v1::FilesystemStore;
use std::future::{Future, pending};
use std::path::Path;
use std::sync::Arc;

use crate::faults::{Faults, Life, Write};

/// LDK's `FilesystemStore`. Each write counts as a step at which a fault may stand, and a node that
/// has crashed writes nothing.
pub struct Disk {
    files: FilesystemStore,
    life: Arc<Life>,
}

impl Disk {
    pub(crate) fn new(data_dir: &Path, life: Arc<Life>) -> Self {
        Self { files: FilesystemStore::new(data_dir.join("store")), life }
    }

    /// One that nobody crashes: what a node has left there can be read with it.
    pub fn plain(data_dir: &Path) -> Self {
        Self::new(data_dir, Life::new(Faults::default()))
    }

    /// A node that dies at a write never learns what became of it.
    fn change(
        &self,
        write: Write,
        work: impl Future<Output = Result<(), Error>> + Send + 'static,
    ) -> impl Future<Output = Result<(), Error>> + Send + 'static {
        let life = self.life.clone();
        async move {
            let Some(turn) = life.begin(&write) else { return pending().await };
            // In a task of its own: if this future is dropped, the write still goes on, and counts.
            let done = tokio::spawn(async move {
                let done = work.await;
                drop(turn);
                done
            });
            let done = done.await.unwrap_or_else(|e| Err(Error::new(ErrorKind::Other, e)));
            if life.done(write) { done } else { pending().await }
        }
    }

    /// The caller goes on as if it were written: whatever comes of it does not leave the node.
    fn change_now(
        &self,
        write: Write,
        work: impl FnOnce() -> Result<(), Error>,
    ) -> Result<(), Error> {
        let Some(turn) = self.life.begin(&write) else { return Ok(()) };
        let done = work();
        drop(turn);
        self.life.done(write);
        done
    }
}

fn named(primary: &str, secondary: &str, key: &str) -> String {
    let parts = [primary, secondary, key];
    let parts: Vec<_> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    parts.join("/")
}

impl KVStore for Disk {
    fn read(
        &self,
        primary: &str,
        secondary: &str,
        key: &str,
    ) -> impl Future<Output = Result<Vec<u8>, Error>> + Send + 'static {
        KVStore::read(&self.files, primary, secondary, key)
    }

    fn write(
        &self,
        primary: &str,
        secondary: &str,
        key: &str,
        buf: Vec<u8>,
    ) -> impl Future<Output = Result<(), Error>> + Send + 'static {
        let write = Write { key: named(primary, secondary, key), bytes: Some(buf.len()) };
        // The call, not the await, fixes the order of writes to one key.
        self.change(write, KVStore::write(&self.files, primary, secondary, key, buf))
    }

    fn remove(
        &self,
        primary: &str,
        secondary: &str,
        key: &str,
        lazy: bool,
    ) -> impl Future<Output = Result<(), Error>> + Send + 'static {
        let write = Write { key: named(primary, secondary, key), bytes: None };
        self.change(write, KVStore::remove(&self.files, primary, secondary, key, lazy))
    }

    fn list(
        &self,
        primary: &str,
        secondary: &str,
    ) -> impl Future<Output = Result<Vec<String>, Error>> + Send + 'static {
        KVStore::list(&self.files, primary, secondary)
    }
}

impl KVStoreSync for Disk {
    fn read(&self, primary: &str, secondary: &str, key: &str) -> Result<Vec<u8>, Error> {
        KVStoreSync::read(&self.files, primary, secondary, key)
    }

    fn write(&self, primary: &str, secondary: &str, key: &str, buf: Vec<u8>) -> Result<(), Error> {
        let write = Write { key: named(primary, secondary, key), bytes: Some(buf.len()) };
        self.change_now(write, || KVStoreSync::write(&self.files, primary, secondary, key, buf))
    }

    fn remove(&self, primary: &str, secondary: &str, key: &str, lazy: bool) -> Result<(), Error> {
        let write = Write { key: named(primary, secondary, key), bytes: None };
        self.change_now(write, || KVStoreSync::remove(&self.files, primary, secondary, key, lazy))
    }

    fn list(&self, primary: &str, secondary: &str) -> Result<Vec<String>, Error> {
        KVStoreSync::list(&self.files, primary, secondary)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::faults::Fault;
    use std::time::Duration;

    #[tokio::test]
    async fn what_a_dead_node_writes_does_not_reach_the_disk() {
        let folder = tempfile::tempdir().unwrap();
        let life = Life::new(Faults::default());
        let disk = Disk::new(folder.path(), life.clone());
        life.faults().arm(Fault::after_key("a/b", 1));
        KVStore::write(&disk, "", "", "manager", vec![1]).await.unwrap();
        let write = KVStore::write(&disk, "a", "", "b", vec![2]);
        let told = tokio::time::timeout(Duration::from_millis(20), write).await;
        assert!(told.is_err(), "it died before it was told");

        assert!(
            KVStoreSync::write(&disk, "", "", "manager", vec![3]).is_ok(),
            "LDK does not panic"
        );
        KVStoreSync::remove(&disk, "a", "", "b", false).unwrap();
        life.settled().await;
        let after = Disk::plain(folder.path());
        assert_eq!(KVStoreSync::read(&after, "", "", "manager").unwrap(), [1]);
        assert_eq!(KVStoreSync::read(&after, "a", "", "b").unwrap(), [2]);
    }
}

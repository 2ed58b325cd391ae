//! A store in memory whose next calls can be made to fail.

use lightning::io;
use lightning::util::persist::KVStore;
use std::collections::BTreeMap;
use std::future::{Ready, ready};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

type Key = (String, String, String);

/// A clone is the same store.
#[derive(Clone, Default)]
pub(crate) struct Disk(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    entries: BTreeMap<Key, Vec<u8>>,
    /// How many calls succeed from now on; `None` for all of them.
    good_for: Option<u8>,
}

impl Disk {
    /// Puts an entry there as somebody else would.
    pub(crate) fn put(&self, primary: &str, secondary: &str, key: &str, bytes: &[u8]) {
        self.lock().entries.insert(name(primary, secondary, key), bytes.to_vec());
    }

    /// From the call after this many on, every call fails.
    pub(crate) fn fails_after(&self, calls: u8) {
        self.lock().good_for = Some(calls);
    }

    pub(crate) fn is_repaired(&self) {
        self.lock().good_for = None;
    }

    /// Every entry of a namespace.
    pub(crate) fn entries(&self, primary: &str) -> BTreeMap<Key, Vec<u8>> {
        let mut entries = self.lock().entries.clone();
        entries.retain(|(one, _, _), _| one == primary);
        entries
    }

    /// Every key of a namespace.
    pub(crate) fn keys(&self, primary: &str) -> Vec<String> {
        let state = self.lock();
        let keys = state.entries.keys().filter(|(one, _, _)| one == primary);
        keys.map(|(_, _, key)| key.clone()).collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run<R>(
        &self,
        action: impl FnOnce(&mut BTreeMap<Key, Vec<u8>>) -> Result<R, io::Error>,
    ) -> Ready<Result<R, io::Error>> {
        let mut state = self.lock();
        if let Some(left) = &mut state.good_for {
            match left.checked_sub(1) {
                Some(less) => *left = less,
                None => return ready(Err(io::Error::new(io::ErrorKind::Other, "broken"))),
            }
        }
        ready(action(&mut state.entries))
    }
}

fn name(primary: &str, secondary: &str, key: &str) -> Key {
    (primary.to_owned(), secondary.to_owned(), key.to_owned())
}

impl KVStore for Disk {
    fn read(
        &self,
        primary: &str,
        secondary: &str,
        key: &str,
    ) -> impl Future<Output = Result<Vec<u8>, io::Error>> + Send + 'static {
        let name = name(primary, secondary, key);
        let missing = || io::Error::new(io::ErrorKind::NotFound, "missing");
        self.run(|entries| entries.get(&name).cloned().ok_or_else(missing))
    }

    fn write(
        &self,
        primary: &str,
        secondary: &str,
        key: &str,
        bytes: Vec<u8>,
    ) -> impl Future<Output = Result<(), io::Error>> + Send + 'static {
        let name = name(primary, secondary, key);
        self.run(|entries| {
            entries.insert(name, bytes);
            Ok(())
        })
    }

    fn remove(
        &self,
        primary: &str,
        secondary: &str,
        key: &str,
        _lazy: bool,
    ) -> impl Future<Output = Result<(), io::Error>> + Send + 'static {
        let name = name(primary, secondary, key);
        self.run(|entries| {
            entries.remove(&name);
            Ok(())
        })
    }

    fn list(
        &self,
        primary: &str,
        secondary: &str,
    ) -> impl Future<Output = Result<Vec<String>, io::Error>> + Send + 'static {
        self.run(|entries| {
            let keys = entries.keys().filter(|(one, two, _)| one == primary && two == secondary);
            Ok(keys.map(|(_, _, key)| key.clone()).collect())
        })
    }
}

//! What the services must remember between two calls: small values.
//!
//! A node keeps which commit an inline volume was resolved to, a controller what a volume was created from.
//! Tokens never come here.

use crate::store::{Index, Store, StoreError};
use async_trait::async_trait;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

/// A record that could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    #[error("record `{name}`: {source}")]
    Store {
        name: String,
        #[source]
        source: Box<StoreError>,
    },
    #[error("record `{name}`: not readable: {cause}")]
    Content { name: String, cause: String },
}

/// A table of named records. Each call is atomic; what was put survives as long as the table does.
#[async_trait]
pub trait Records: Send + Sync + 'static {
    async fn get(&self, name: &str) -> Result<Option<Vec<u8>>, RecordError>;

    /// Keeps `value` only if nothing is there; returns what is there afterwards.
    async fn put_once(&self, name: &str, value: Vec<u8>) -> Result<Vec<u8>, RecordError>;

    /// Replaces what is there.
    async fn put(&self, name: &str, value: Vec<u8>) -> Result<(), RecordError>;

    /// Every record by name.
    async fn all(&self) -> Result<Vec<(String, Vec<u8>)>, RecordError>;

    /// `Ok` when there is nothing to remove.
    async fn remove(&self, name: &str) -> Result<(), RecordError>;
}

/// Records of the piece store: they survive the process.
pub struct IndexRecords {
    store: Store,
    table: &'static str,
}

impl IndexRecords {
    pub fn new(store: Store, table: &'static str) -> IndexRecords {
        IndexRecords { store, table }
    }

    /// The index may wait for the disk, so it is asked on a thread that may.
    async fn ask<T: Send + 'static>(
        &self,
        name: &str,
        ask: impl FnOnce(&Index, &str, &str) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, RecordError> {
        let (store, table, owned) = (self.store.clone(), self.table, name.to_owned());
        let answer = tokio::task::spawn_blocking(move || ask(store.index(), table, &owned)).await;
        match answer {
            Ok(answer) => answer.map_err(|source| RecordError::Store {
                name: name.to_owned(),
                source: Box::new(source),
            }),
            Err(cause) => Err(RecordError::Content {
                name: name.to_owned(),
                cause: cause.to_string(),
            }),
        }
    }
}

#[async_trait]
impl Records for IndexRecords {
    async fn get(&self, name: &str) -> Result<Option<Vec<u8>>, RecordError> {
        self.ask(name, |index, table, name| index.record(table, name))
            .await
    }

    async fn put_once(&self, name: &str, value: Vec<u8>) -> Result<Vec<u8>, RecordError> {
        self.ask(name, move |index, table, name| {
            index.put_record_once(table, name, &value)
        })
        .await
    }

    async fn put(&self, name: &str, value: Vec<u8>) -> Result<(), RecordError> {
        self.ask(name, move |index, table, name| {
            index.put_record(table, name, &value)
        })
        .await
    }

    async fn all(&self) -> Result<Vec<(String, Vec<u8>)>, RecordError> {
        self.ask("*", |index, table, _| index.records(table)).await
    }

    async fn remove(&self, name: &str) -> Result<(), RecordError> {
        self.ask(name, |index, table, name| index.remove_record(table, name))
            .await
    }
}

/// Records in memory, for a controller without a disk and for tests. Over the limit the oldest is forgotten.
pub struct MemoryRecords {
    state: Mutex<Memory>,
    limit: usize,
}

#[derive(Default)]
struct Memory {
    values: HashMap<String, Vec<u8>>,
    /// Names in the order of their arrival; exactly the keys of `values`.
    order: VecDeque<String>,
}

impl MemoryRecords {
    /// `limit`: how many records at most; a controller's record has about 1 KiB.
    pub fn new(limit: usize) -> Arc<MemoryRecords> {
        Arc::new(MemoryRecords {
            state: Mutex::default(),
            limit: limit.max(1),
        })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Memory> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Records for MemoryRecords {
    async fn get(&self, name: &str) -> Result<Option<Vec<u8>>, RecordError> {
        Ok(self.lock().values.get(name).cloned())
    }

    async fn put_once(&self, name: &str, value: Vec<u8>) -> Result<Vec<u8>, RecordError> {
        let mut state = self.lock();
        if let Some(there) = state.values.get(name) {
            return Ok(there.clone());
        }
        if state.order.len() == self.limit
            && let Some(oldest) = state.order.pop_front()
        {
            state.values.remove(&oldest);
        }
        state.order.push_back(name.to_owned());
        state.values.insert(name.to_owned(), value.clone());
        Ok(value)
    }

    async fn put(&self, name: &str, value: Vec<u8>) -> Result<(), RecordError> {
        self.remove(name).await?;
        self.put_once(name, value).await.map(|_| ())
    }

    async fn all(&self) -> Result<Vec<(String, Vec<u8>)>, RecordError> {
        let state = self.lock();
        let pair = |(name, value): (&String, &Vec<u8>)| (name.clone(), value.clone());
        Ok(state.values.iter().map(pair).collect())
    }

    async fn remove(&self, name: &str) -> Result<(), RecordError> {
        let mut state = self.lock();
        if state.values.remove(name).is_some() {
            state.order.retain(|known| known != name);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_value_stays_and_the_oldest_record_goes() {
        let records = MemoryRecords::new(2);
        for (name, value, kept) in [("a", 1, 1), ("a", 2, 1), ("b", 3, 3), ("c", 4, 4)] {
            let there = records.put_once(name, vec![value]).await.expect("memory");
            assert_eq!(there, [kept], "{name}");
        }
        assert_eq!(records.get("a").await.expect("memory"), None);
        records.remove("b").await.expect("memory");
        records.remove("b").await.expect("memory");
        records.put_once("d", vec![5]).await.expect("memory");
        assert!(records.get("c").await.expect("memory").is_some());
    }
}

use super::StoreError;
use crate::model::{Listing, Pin};

pub struct Index {}

impl Index {
    pub fn put_listing(&self, _listing: &Listing) -> Result<(), StoreError> {
        todo!()
    }
    pub fn listing(&self, _pin: &Pin) -> Result<Option<Listing>, StoreError> {
        todo!()
    }
    /// Small named records: volume pins, volume records, last known commits. `table` is a fixed word.
    pub fn put_record(&self, _table: &str, _name: &str, _value: &[u8]) -> Result<(), StoreError> {
        todo!()
    }
    /// Keeps `value` only if nothing is there; returns what is there afterwards.
    pub fn put_record_once(
        &self,
        _table: &str,
        _name: &str,
        _value: &[u8],
    ) -> Result<Vec<u8>, StoreError> {
        todo!()
    }
    pub fn record(&self, _table: &str, _name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        todo!()
    }
    pub fn remove_record(&self, _table: &str, _name: &str) -> Result<(), StoreError> {
        todo!()
    }
    pub fn records(&self, _table: &str) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        todo!()
    }
}

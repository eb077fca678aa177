//! Where each address of a lane stands. Never here: the addresses, which their slots have.

use std::hash::{BuildHasher as _, RandomState};

use hashbrown::HashTable;

/// Folded address → number of its slot.
#[derive(Debug, Default)]
pub(super) struct Places {
    hasher: RandomState,
    table: HashTable<Place>,
}

#[derive(Debug)]
struct Place {
    hash: u64,
    number: u64,
}

impl Places {
    /// The number of this address; `stands` tells whether the slot of a number has it.
    pub(super) fn find(&self, folded: &str, stands: impl Fn(u64) -> bool) -> Option<u64> {
        let hash = self.hasher.hash_one(folded);
        self.table.find(hash, |place| place.hash == hash && stands(place.number)).map(|place| place.number)
    }

    /// An address that is not there yet.
    pub(super) fn insert(&mut self, folded: &str, number: u64) {
        let hash = self.hasher.hash_one(folded);
        self.table.insert_unique(hash, Place { hash, number }, |place| place.hash);
    }

    /// The address of this number goes.
    pub(super) fn remove(&mut self, folded: &str, number: u64) {
        let hash = self.hasher.hash_one(folded);
        if let Ok(place) = self.table.find_entry(hash, |place| place.number == number) {
            let _ = place.remove();
        }
    }
}

//! Which faults met which effects in which state of the manifest, over all seeds.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Mutex;

/// World, effect, fault, state.
type Place = (&'static str, String, String, String);

static HITS: Mutex<BTreeMap<Place, u64>> = Mutex::new(BTreeMap::new());

thread_local! {
    /// Which kind of world lives on this thread.
    static WORLD: Cell<&'static str> = const { Cell::new("-") };
}

/// This thread's hits are in this kind of world from now on.
pub fn of(world: &'static str) {
    WORLD.set(world);
}

/// A fault met an effect.
pub fn hit(effect: &str, fault: &str, state: &str) {
    *HITS.lock().unwrap().entry((WORLD.get(), effect.into(), fault.into(), state.into())).or_default() += 1;
}

/// Prints the table of this kind of world and returns the cells that ought to have hits and have none.
pub fn report(world: &'static str, expected: &[(&str, &[&str], &[&str])]) -> Vec<String> {
    let hits = HITS.lock().unwrap();
    let mut empty = Vec::new();
    println!("{:<10} {:<16} {:<12} {:>10}", "effect", "fault", "state", "hits");
    for (effect, faults, states) in expected {
        for fault in *faults {
            for state in *states {
                let count =
                    hits.get(&(world, (*effect).into(), (*fault).into(), (*state).into())).copied().unwrap_or(0);
                println!("{effect:<10} {fault:<16} {state:<12} {count:>10}");
                if count == 0 {
                    empty.push(format!("{effect} × {fault} × {state}"));
                }
            }
        }
    }
    empty
}

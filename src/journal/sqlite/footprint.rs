//! How much room the journal takes, and how much there is.

use std::path::Path;

use super::file::beside;

/// What the journal takes of its disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Footprint {
    /// The database and its write-ahead log, in bytes; `None` where they cannot be looked at.
    pub size_bytes: Option<u64>,
    /// What this process may still write on their disk, in bytes; `None` where it cannot be asked.
    pub disk_free_bytes: Option<u64>,
}

impl Footprint {
    /// Looks at the files of the journal at `path`. Waits for the disk.
    #[must_use]
    pub fn of(path: &Path) -> Self {
        let size = |path: &Path| path.metadata().map(|file| file.len()).ok();
        let log = size(&beside(path, "-wal")).unwrap_or(0);
        let disk = rustix::fs::statvfs(path).ok();
        Self {
            size_bytes: size(path).map(|database| database + log),
            disk_free_bytes: disk.map(|disk| disk.f_bavail.saturating_mul(disk.f_frsize)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_counts_the_database_and_its_log_and_what_the_disk_has_left() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal.db");
        assert_eq!(Footprint::of(&path).size_bytes, None);
        std::fs::write(&path, [0; 1000]).unwrap();
        std::fs::write(folder.path().join("journal.db-wal"), [0; 234]).unwrap();
        let footprint = Footprint::of(&path);
        assert_eq!(footprint.size_bytes, Some(1234));
        assert!(footprint.disk_free_bytes.is_some_and(|free| free > 0));
    }
}

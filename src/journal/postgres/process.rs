//! Which process a worker is, so that another on the same machine can tell that it is dead, and need not wait for its lease
//! to run out.
//!
//! Never here: a guess. A process that this one might not see is not called dead.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};

/// A process, as others that can see it can name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Process {
    /// What is the same for all that see each other: the machine since it was booted, the namespaces of PIDs and of users,
    /// and the user. The number of a namespace is used again once all in it are dead.
    pub home: String,
    /// Its number and when it began: numbers are used again.
    pub name: String,
}

impl Process {
    /// This one; `None` where `/proc` does not tell.
    pub(super) fn own() -> Option<Self> {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        let pids = fs::read_link("/proc/self/ns/pid").ok()?;
        let users = fs::read_link("/proc/self/ns/user").ok()?;
        let user = fs::metadata("/proc/self").ok()?.uid();
        let id = std::process::id();
        let home = format!("{} {} {} {user}", boot.trim(), pids.display(), users.display());
        Some(Self { home, name: format!("{id} {}", stat(id)?.began) })
    }

    /// Whether another process at the same home is surely dead.
    pub(super) fn is_dead(name: &str) -> bool {
        let Some((id, then)) = name.split_once(' ') else { return false };
        let Ok(id) = id.parse::<u32>() else { return false };
        let Some(pid) = i32::try_from(id).ok().and_then(Pid::from_raw) else { return false };
        // The kernel's own word, which no mount of /proc hides.
        if test_kill_process(pid) == Err(Errno::SRCH) {
            return true;
        }
        stat(id).is_some_and(|stat| stat.is_over || stat.began != then)
    }
}

/// What `/proc` tells of a process.
struct Stat {
    /// Whether it has ended, and nobody has waited for it yet.
    is_over: bool,
    /// When it began, in ticks since the boot.
    began: String,
}

/// `None` where it does not tell, whatever that may mean.
fn stat(id: u32) -> Option<Stat> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    // The name in brackets may hold anything. See proc_pid_stat(5): state is the third field, starttime the 22nd.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let is_over = matches!(fields.next()?, "Z" | "X");
    Some(Stat { is_over, began: fields.nth(18)?.to_owned() })
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn who_lives_is_not_dead_and_who_was_killed_is_waited_for_or_not() {
        let own = Process::own().unwrap();
        assert!(!Process::is_dead(&own.name));
        let mut child = Command::new("sleep").arg("600").spawn().unwrap();
        let name = format!("{} {}", child.id(), stat(child.id()).unwrap().began);
        assert!(!Process::is_dead(&name));
        child.kill().unwrap();
        // Seen as soon as the kernel has ended it, and nobody has waited for it yet.
        while !Process::is_dead(&name) {
            std::thread::yield_now();
        }
        child.wait().unwrap();
        assert!(Process::is_dead(&name));
    }

    #[test]
    fn a_number_that_is_used_again_is_another_process() {
        assert!(Process::is_dead(&format!("{} 1", std::process::id())));
    }

    #[test]
    fn what_is_no_name_is_nobody_s_death() {
        assert!(!Process::is_dead("") && !Process::is_dead("x y") && !Process::is_dead("-1 5"));
    }
}

//! What Linux knows of the process, under the names that every Prometheus client gives it. Read at the scrape.

use prometheus_client::registry::Registry;

/// Adds them; nothing where the system is another.
#[cfg(target_os = "linux")]
pub(super) fn register(registry: &mut Registry) {
    registry.register_collector(Box::new(linux::Process));
}

/// Adds nothing: the system is another.
#[cfg(not(target_os = "linux"))]
pub(super) fn register(_: &mut Registry) {}

#[cfg(target_os = "linux")]
mod linux {
    use procfs::process::{LimitValue, Process as OfProcess};
    use prometheus_client::collector::Collector;
    use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
    use prometheus_client::metrics::counter::ConstCounter;
    use prometheus_client::metrics::gauge::ConstGauge;
    use prometheus_client::registry::Unit;

    /// What is read of it.
    #[derive(Debug)]
    pub(super) struct Process;

    struct Reading {
        cpu_seconds: f64,
        resident_bytes: u64,
        threads: i64,
        start_seconds: f64,
        open_files: u64,
        max_files: u64,
    }

    fn read() -> procfs::ProcResult<Reading> {
        let process = OfProcess::myself()?;
        let stat = process.stat()?;
        let ticks = |ticks: u64| std::time::Duration::from_millis(ticks * 1000 / procfs::ticks_per_second());
        let max_files = match process.limits()?.max_open_files.soft_limit {
            LimitValue::Value(files) => files,
            LimitValue::Unlimited => u64::MAX,
        };
        let booted = std::time::Duration::from_secs(procfs::boot_time_secs()?);
        Ok(Reading {
            cpu_seconds: ticks(stat.utime + stat.stime).as_secs_f64(),
            resident_bytes: stat.rss * procfs::page_size(),
            threads: stat.num_threads,
            start_seconds: (booted + ticks(stat.starttime)).as_secs_f64(),
            open_files: process.fd_count()? as u64,
            max_files,
        })
    }

    impl Collector for Process {
        fn encode(&self, mut to: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
            // Without /proc there is nothing to tell.
            let Ok(now) = read() else { return Ok(()) };
            let cpu = ConstCounter::new(now.cpu_seconds);
            let help = "Processor time, of user and system.";
            cpu.encode(to.encode_descriptor("process_cpu", help, Some(&Unit::Seconds), cpu.metric_type())?)?;
            #[allow(clippy::cast_precision_loss, reason = "a gauge is a float")]
            let gauges = [
                ("process_resident_memory", Some(Unit::Bytes), "Memory in use.", now.resident_bytes as f64),
                ("process_open_fds", None, "Open files and sockets.", now.open_files as f64),
                ("process_max_fds", None, "The most of them that the system allows.", now.max_files as f64),
                ("process_threads", None, "Threads.", now.threads as f64),
                ("process_start_time", Some(Unit::Seconds), "When it started, since 1970.", now.start_seconds),
            ];
            for (name, unit, help, value) in gauges {
                let gauge = ConstGauge::new(value);
                gauge.encode(to.encode_descriptor(name, help, unit.as_ref(), gauge.metric_type())?)?;
            }
            Ok(())
        }
    }
}

//! What this machine has for training.

use std::fs;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::path::Path;

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::process::Resource;

use super::{Finding, bytes};

/// Everything that can be seen without a coordinator.
pub(crate) fn of_machine(state_dir: &Path) -> Vec<Finding> {
    let mut findings = vec![of_state_dir(state_dir)];
    findings.extend(of_space(state_dir));
    findings.push(of_vector_unit(worker::vector_unit()));
    findings.push(of_threads());
    findings.extend(of_memory());
    findings.push(of_shared_memory(share_memory()));
    findings.push(of_open_files());
    findings.push(of_gpu(Path::new("/proc/driver/nvidia").exists()));
    findings
}

const STATE_DIR: &str = "state directory";

/// Whether something can be written there, or it can be made.
fn of_state_dir(state_dir: &Path) -> Finding {
    let shown = state_dir.display();
    let other = "--state-dir DIR takes another one";
    match fs::metadata(state_dir) {
        Ok(metadata) if !metadata.is_dir() => Finding::fail(STATE_DIR, format!("{shown} is no folder"), other),
        Ok(_) => match can_write(state_dir) {
            Ok(()) => Finding::ok(STATE_DIR, format!("{shown} can be written")),
            Err(error) => {
                let text = format!("{shown} cannot be written: {error}");
                Finding::fail(STATE_DIR, text, format!("give your user the folder, or {other}"))
            }
        },
        Err(_) => match nearest(state_dir).ok_or_else(|| std::io::Error::other("what is above it is no folder")) {
            Ok(parent) => match can_write(parent) {
                Ok(()) => Finding::ok(STATE_DIR, format!("{shown} does not exist yet and can be made")),
                Err(error) => {
                    let text = format!("{shown} cannot be made in {}: {error}", parent.display());
                    Finding::fail(STATE_DIR, text, other)
                }
            },
            Err(error) => Finding::fail(STATE_DIR, format!("{shown} cannot be made: {error}"), other),
        },
    }
}

/// Makes a file and removes it again.
fn can_write(folder: &Path) -> std::io::Result<()> {
    let mut file = tempfile::Builder::new().prefix(".phalanx-doctor-").tempfile_in(folder)?;
    file.write_all(&[0; 4096])?;
    file.as_file().sync_all()
}

/// The folder itself, or the nearest one above it that exists.
fn nearest(folder: &Path) -> Option<&Path> {
    let mut above = folder.ancestors().map(|path| if path.as_os_str().is_empty() { Path::new(".") } else { path });
    above.find(|path| path.exists()).filter(|path| path.is_dir())
}

/// Less free space than this is used up by a few checkpoints of a small model.
const SPACE_LOW: u64 = 2 << 30;
/// Less than this may not hold the next checkpoint.
const SPACE_LEAST: u64 = 128 << 20;

fn of_space(state_dir: &Path) -> Option<Finding> {
    let found = rustix::fs::statvfs(nearest(state_dir)?).ok()?;
    Some(judge_space(found.f_bavail.saturating_mul(found.f_frsize)))
}

fn judge_space(free: u64) -> Finding {
    let text = format!("{} are free for checkpoints, records and logs", bytes(free));
    let remedy = "make room, or --state-dir DIR takes another disk; checkpoint.keep_last limits what a run keeps";
    match free {
        0..SPACE_LEAST => Finding::fail("disk space", text, remedy),
        SPACE_LEAST..SPACE_LOW => Finding::warn("disk space", text, remedy),
        _ => Finding::ok("disk space", text),
    }
}

fn of_vector_unit(name: &str) -> Finding {
    if name == "scalar" {
        let text = "none is used: training takes several times as long, with the same result";
        return Finding::warn("vector unit", text, "unset PHALANX_SIMD, or take a processor with AVX2 or NEON");
    }
    Finding::ok("vector unit", name)
}

fn of_threads() -> Finding {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let load = fs::read_to_string("/proc/loadavg").ok();
    let load = load.and_then(|text| text.split_whitespace().next()?.parse::<f64>().ok());
    judge_threads(cores, load)
}

fn judge_threads(cores: usize, load: Option<f64>) -> Finding {
    let text = match cores {
        1 => "1 core may be used".to_owned(),
        cores => format!("{cores} cores may be used"),
    };
    match load {
        // Tasks beside ours, of which one may be this command.
        Some(load) if load > cores as f64 + 1.0 => {
            let text = format!("{text}, and {load:.1} tasks wanted them in the last minute");
            Finding::warn("threads", text, "training shares them with what else runs here: see `uptime` and `top`")
        }
        Some(_) | None => Finding::ok("threads", text),
    }
}

/// Less free memory than this ends workers with larger models.
const MEMORY_LOW: u64 = 1 << 30;
/// Less than this is too little for a worker.
const MEMORY_LEAST: u64 = 256 << 20;

fn of_memory() -> Option<Finding> {
    let free = available_memory(&fs::read_to_string("/proc/meminfo").ok()?)?;
    let read = |name: &str| fs::read_to_string(format!("/sys/fs/cgroup/{name}")).ok()?.trim().parse::<u64>().ok();
    // A container may have less than its machine.
    let left = read("memory.max").map(|most| most.saturating_sub(read("memory.current").unwrap_or(0)));
    Some(judge_memory(left.map_or(free, |left| left.min(free))))
}

/// Bytes that can be had without swapping.
fn available_memory(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? << 10)
}

fn judge_memory(free: u64) -> Finding {
    let text = format!("{} are free", bytes(free));
    let remedy = "end what else uses memory, or train a smaller model with a smaller global_batch";
    match free {
        0..MEMORY_LEAST => Finding::fail("memory", text, remedy),
        MEMORY_LEAST..MEMORY_LOW => Finding::warn("memory", text, remedy),
        _ => Finding::ok("memory", text),
    }
}

/// Does what ranks of one machine do to share memory.
fn share_memory() -> std::io::Result<()> {
    let memory = rustix::fs::memfd_create("phalanx-doctor", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let mut file = fs::File::from(memory);
    file.write_all(b"shared")?;
    rustix::fs::fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW)?;
    let mut seen = String::new();
    let path = format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
    fs::File::open(path)?.read_to_string(&mut seen)?;
    if seen == "shared" { Ok(()) } else { Err(std::io::Error::other("another process reads something else")) }
}

fn of_shared_memory(shared: std::io::Result<()>) -> Finding {
    match shared {
        Ok(()) => Finding::ok("shared memory", "workers of this machine can exchange gradients in memory"),
        Err(error) => {
            let text = format!("it cannot be used ({error}): workers of this machine take TCP, which is slower");
            Finding::warn("shared memory", text, "allow memfd_create and /proc/PID/fd, for example in the container")
        }
    }
}

/// Files and connections of a coordinator with some workers, or of a worker with peers.
const FILES_LOW: u64 = 1024;

fn of_open_files() -> Finding {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    judge_open_files(limit.current.unwrap_or(u64::MAX), limit.maximum.unwrap_or(u64::MAX))
}

fn judge_open_files(current: u64, most: u64) -> Finding {
    if current >= FILES_LOW {
        let text =
            if current == u64::MAX { "any number may be open".to_owned() } else { format!("{current} may be open") };
        return Finding::ok("open files", text);
    }
    let text =
        format!("only {current} may be open; a worker needs two for each peer, a coordinator one for each worker");
    Finding::warn("open files", text, format!("ulimit -n {}", most.min(65_536)))
}

fn of_gpu(has_nvidia: bool) -> Finding {
    if has_nvidia {
        let remedy = "nothing to do, it trains on the processor";
        return Finding::warn("GPU", "there is an NVIDIA GPU, and this program has no CUDA built in", remedy);
    }
    Finding::ok("GPU", "none is used: this program has no CUDA built in and trains on the processor")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict::{Fail, Ok as Fine, Warn};

    #[test]
    fn limits_divide_what_works_from_what_does_not() {
        for (finding, verdict) in [
            (judge_space(SPACE_LEAST - 1), Fail),
            (judge_space(SPACE_LEAST), Warn),
            (judge_space(SPACE_LOW), Fine),
            (judge_memory(0), Fail),
            (judge_memory(MEMORY_LOW - 1), Warn),
            (judge_memory(MEMORY_LOW), Fine),
            (judge_threads(2, Some(14.5)), Warn),
            (judge_threads(2, Some(2.5)), Fine),
            (judge_threads(1, None), Fine),
            (judge_open_files(256, 1 << 20), Warn),
            (judge_open_files(FILES_LOW, FILES_LOW), Fine),
            (of_vector_unit("scalar"), Warn),
            (of_vector_unit("AVX2"), Fine),
            (of_shared_memory(Err(std::io::Error::other("no"))), Warn),
            (of_gpu(true), Warn),
        ] {
            assert_eq!(finding.verdict, verdict, "{finding:?}");
            assert_eq!(finding.remedy.is_some(), verdict != Fine, "{finding:?}");
        }
    }

    #[test]
    fn this_machine_can_be_looked_at() {
        let dir = tempfile::tempdir().unwrap();
        let findings = of_machine(&dir.path().join("a/b"));
        assert_eq!(findings.len(), 8, "{findings:?}");
        assert!(!findings.iter().any(|finding| finding.text.is_empty()), "{findings:?}");
        assert!(findings[0].text.ends_with("does not exist yet and can be made"), "{findings:?}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "something was left behind");
        share_memory().unwrap();
    }

    #[test]
    fn a_state_directory_that_is_a_file_is_found() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(of_state_dir(file.path()).verdict, Fail);
        assert_eq!(of_state_dir(&file.path().join("below")).verdict, Fail);
    }

    #[test]
    fn memory_is_read_as_linux_writes_it() {
        assert_eq!(available_memory("MemTotal: 9 kB\nMemAvailable:    2048 kB\n"), Some(2 << 20));
        assert_eq!(available_memory("MemTotal: 9 kB\n"), None);
    }
}

//! `supervise`: a container's first process. It keeps one worker running and does nothing else.
//!
//! The worker is this program again. One that dies is replaced at once, where kubelet would wait for
//! minutes; one that ends by itself (code 0) or was called wrongly (code 2) ends the supervisor with its
//! code. Only a worker that falls again and again is given a pause. Signals that ask for an end are passed
//! on, and orphans that come to a first process are reaped. One thread, no runtime: nothing here can hang.

use crate::model::{Failure, FailureKind};
use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, alarm};
use std::collections::VecDeque;
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

/// So many falls within [`FALLS_WITHIN`] are no accident any more.
const FALLS_MAX: usize = 5;
const FALLS_WITHIN: Duration = Duration::from_secs(10);
const PAUSE_SECONDS_MAX: u32 = 30;

/// Runs this program with `args` until it is done; its exit code.
pub fn supervise(args: &[OsString]) -> Result<ExitCode, Failure> {
    let signals = listen().map_err(|errno| failed(errno.into()))?;
    let mut worker = Some(start(args).map_err(failed)?);
    let (mut falls, mut is_ending) = (Falls::default(), false);
    loop {
        match signals.wait().map_err(|errno| failed(errno.into()))? {
            Signal::SIGCHLD => {
                let Some(code) = reap(worker) else { continue };
                worker = None;
                if is_ending || matches!(code, 0 | 2) {
                    return Ok(ExitCode::from(code));
                }
                let pause = falls.pause_seconds(Instant::now());
                tracing::error!(code, pause, "worker died, starting it again");
                match pause {
                    0 => worker = restart(args),
                    pause => drop(alarm::set(pause)),
                }
            }
            Signal::SIGALRM => worker = worker.or_else(|| restart(args)),
            signal => {
                is_ending |= signal != Signal::SIGHUP;
                match worker {
                    Some(pid) => drop(kill(pid, signal)),
                    None if is_ending => return Ok(ExitCode::from(128 + signal as u8)),
                    None => {}
                }
            }
        }
    }
}

fn failed(error: std::io::Error) -> Failure {
    let message = format!("cannot start the worker: {error}");
    Failure::new(FailureKind::Internal, message)
}

/// Blocks the signals that the loop waits for.
fn listen() -> nix::Result<SigSet> {
    let heard = [
        Signal::SIGCHLD,
        Signal::SIGALRM,
        Signal::SIGTERM,
        Signal::SIGINT,
        Signal::SIGHUP,
    ];
    let signals = SigSet::from_iter(heard);
    signals.thread_block()?;
    Ok(signals)
}

fn start(args: &[OsString]) -> std::io::Result<Pid> {
    // Not the path it was started by: another release may lie there by now.
    let mut command = Command::new("/proc/self/exe");
    command.arg0("model-p2p").args(args);
    // SAFETY: prctl and sigprocmask are async-signal-safe and touch no memory of this process.
    #[allow(unsafe_code)]
    unsafe {
        command.pre_exec(|| {
            // A blocked signal stays blocked over exec: the worker would never hear that it shall end.
            SigSet::empty().thread_set_mask()?;
            // A worker without its supervisor would hold the cache and the socket against the next one.
            match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            }
        });
    }
    Ok(Pid::from_raw(command.spawn()?.id() as i32))
}

/// A start that fails is tried again after a pause: memory or process numbers may come back.
fn restart(args: &[OsString]) -> Option<Pid> {
    start(args)
        .inspect_err(|error| {
            tracing::error!(%error, "worker not started");
            alarm::set(PAUSE_SECONDS_MAX);
        })
        .ok()
}

/// Takes in every child that has ended; the worker's code if it is among them.
fn reap(worker: Option<Pid>) -> Option<u8> {
    let mut code = None;
    loop {
        let (pid, ended) = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) => (pid, code as u8),
            Ok(WaitStatus::Signaled(pid, signal, _)) => (pid, 128 + signal as u8),
            Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return code,
            Ok(_) | Err(_) => continue,
        };
        if Some(pid) == worker {
            code = Some(ended);
        }
    }
}

/// When the worker fell, and how long it was made to wait last.
#[derive(Default)]
struct Falls {
    times: VecDeque<Instant>,
    pause: u32,
}

impl Falls {
    /// Notes a fall. 0, or after too many of them 1, 2, 4 ... 30 seconds.
    fn pause_seconds(&mut self, now: Instant) -> u32 {
        // Pauses stretch the time that so many falls take.
        let within = FALLS_WITHIN + Duration::from_secs(self.pause.into()) * FALLS_MAX as u32;
        self.times.push_back(now);
        self.times
            .retain(|time| now.duration_since(*time) <= within);
        self.pause = match self.times.len() {
            0..FALLS_MAX => 0,
            _ => (self.pause * 2).clamp(1, PAUSE_SECONDS_MAX),
        };
        while self.times.len() > FALLS_MAX {
            self.times.pop_front();
        }
        self.pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_worker_that_falls_again_and_again_waits() {
        let (mut falls, mut now) = (Falls::default(), Instant::now());
        let mut fall = |after: u64| {
            now += Duration::from_secs(after);
            falls.pause_seconds(now)
        };
        assert_eq!([1; 4].map(&mut fall), [0; 4]);
        assert_eq!([1; 8].map(&mut fall), [1, 2, 4, 8, 16, 30, 30, 30]);
        assert_eq!(fall(3600), 0, "an hour of peace is forgiving");
        assert_eq!([2; 5].map(&mut fall), [0, 0, 0, 1, 2]);
    }
}

// SPDX-License-Identifier: BSD-3-Clause
//! Plays Cloud Hypervisor and QEMU, message for message, against the real daemon.
//!
//!   rust-vmm-interop PATH-OF-DPDK-VIOMMU [SCENARIO...]
//!
//! A line for each scenario; exit status 0 when all are ok.

mod cloud_hypervisor;
mod daemon;
mod guest;
mod qemu;
mod scenarios;

use std::path::PathBuf;
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use daemon::Daemon;

pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

pub fn fail<T>(why: String) -> Result<T> {
    Err(why.into())
}

/// Where a scenario finds the daemon.
pub struct Setting {
    pub socket: String,
    pub log: PathBuf,
}

const TIME: Duration = Duration::from_secs(40);

fn main() {
    let mut arguments = std::env::args().skip(1);
    let Some(program) = arguments.next() else {
        eprintln!("usage: rust-vmm-interop PATH-OF-DPDK-VIOMMU [SCENARIO...]");
        std::process::exit(2);
    };
    let only: Vec<String> = arguments.collect();
    let chosen: Vec<_> = scenarios::ALL
        .iter()
        .filter(|(name, _)| only.is_empty() || only.iter().any(|o| o == name))
        .collect();
    let names: Vec<_> = chosen.iter().map(|(name, _)| *name).collect();
    let mut failures = 0;
    let mut note = |name: &str, started: Instant, result: Result<String>| {
        let ms = started.elapsed().as_millis();
        match result {
            Ok(detail) => println!("ok   {name} ({detail}{}{ms} ms)", if detail.is_empty() { "" } else { ", " }),
            Err(why) => {
                failures += 1;
                println!("FAIL {name} ({why})");
            }
        }
    };
    let started = Instant::now();
    let mut daemon = match Daemon::start(&program, &names) {
        Ok(daemon) => daemon,
        Err(why) => {
            note("daemon_starts", started, Err(why));
            std::process::exit(1);
        }
    };
    for (name, scenario) in chosen {
        let started = Instant::now();
        let setting = Setting { socket: daemon.socket(name), log: daemon.log_path() };
        let (done, result) = channel();
        // A scenario that hangs is left behind: its thread ends with the process.
        thread::spawn(move || {
            let _ = done.send(scenario(&setting));
        });
        let result = result
            .recv_timeout(TIME)
            .unwrap_or_else(|_| fail(format!("no end after {} s, or a panic", TIME.as_secs())));
        let result = match result {
            Ok(_) if !daemon.lets_go_of_memory() => {
                fail("guest memory stays mapped when its VMM has gone".into())
            }
            other => other,
        };
        note(name, started, result);
        if !daemon.runs() {
            note("daemon_lives", started, fail(format!("it died; it said:\n{}", daemon.log())));
            drop(daemon);
            std::process::exit(1);
        }
    }
    let started = Instant::now();
    note("daemon_ends_well", started, daemon.stop().map(|()| String::new()));
    drop(daemon);
    std::process::exit(i32::from(failures != 0));
}

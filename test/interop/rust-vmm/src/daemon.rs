// SPDX-License-Identifier: BSD-3-Clause
//! The daemon in a process of its own, with a guest for each scenario.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::{fail, Result};

pub const ENDPOINT: u32 = 0x20; // 0000:00:04.0

pub struct Daemon {
    directory: PathBuf,
    child: Child,
}

impl Daemon {
    /// `guests`: their names; the socket of each is named after it.
    pub fn start(program: &str, guests: &[&str]) -> Result<Daemon> {
        let directory = std::env::temp_dir().join(format!("viommu-interop.{}", std::process::id()));
        fs::create_dir_all(&directory)?;
        let mut config = String::from("poll = \"adaptive\"\n");
        for name in guests {
            config += &format!(
                "[[guest]]\nname = \"{name}\"\nsocket = \"{}/{name}.sock\"\nlcore = 1\n\
                 bypass = false\ndirty_log = true\n  [[guest.endpoint]]\n  id = \"0000:00:04.0\"\n",
                directory.display()
            );
        }
        let file = directory.join("config.toml");
        fs::write(&file, config)?;
        let log = fs::File::create(directory.join("log"))?;
        let child = Command::new(program)
            .arg("--config")
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        let mut daemon = Daemon { directory, child };
        let end = Instant::now() + Duration::from_secs(60);
        while !daemon.log().contains("dpdk-viommu: ready\n") {
            if !daemon.runs() || Instant::now() > end {
                return fail(format!("the daemon did not start; it said:\n{}", daemon.log()));
            }
            sleep(Duration::from_millis(20));
        }
        Ok(daemon)
    }

    pub fn runs(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Whether it lets go of all guests' memory within two seconds.
    pub fn lets_go_of_memory(&self) -> bool {
        let maps = format!("/proc/{}/maps", self.child.id());
        (0..100).any(|_| {
            sleep(Duration::from_millis(20));
            !fs::read_to_string(&maps).unwrap_or_default().contains("memfd:guest")
        })
    }

    pub fn log_path(&self) -> PathBuf {
        self.directory.join("log")
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    pub fn socket(&self, name: &str) -> String {
        self.directory.join(format!("{name}.sock")).display().to_string()
    }

    /// SIGTERM; an error unless it ends in time with status 0.
    pub fn stop(&mut self) -> Result<()> {
        if !self.runs() {
            return fail(format!("the daemon has died; it said:\n{}", self.log()));
        }
        // SAFETY: it is our child and has not been waited for.
        unsafe { libc::kill(self.child.id() as i32, libc::SIGTERM) };
        let end = Instant::now() + Duration::from_secs(30);
        loop {
            match self.child.try_wait()? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => return fail(format!("{status}; it said:\n{}", self.log())),
                None if Instant::now() > end => return fail("it does not end".into()),
                None => sleep(Duration::from_millis(10)),
            }
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.directory);
    }
}

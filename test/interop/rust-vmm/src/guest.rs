// SPDX-License-Identifier: BSD-3-Clause
//! The guest's side: memory, split rings, virtio-iommu requests written by hand.

use std::fs::File;
use std::os::fd::FromRawFd;
use std::sync::atomic::{fence, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use vhost::{VhostUserMemoryRegionInfo, VringConfigData};
use vm_memory::{
    Bytes, FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion,
    MmapRegion, GuestRegionMmap,
};
use vmm_sys_util::eventfd::EventFd;

use crate::{fail, Result};

pub type Memory = GuestMemoryMmap<()>;
pub const MIB: u64 = 1 << 20;

pub fn memfd(bytes: u64) -> Result<File> {
    // SAFETY: the name is a C string.
    let fd = unsafe { libc::memfd_create(c"guest".as_ptr(), libc::MFD_CLOEXEC) };
    if fd < 0 {
        return Err(std::io::Error::last_os_error().into());
    }
    // SAFETY: nobody else has it.
    let file = unsafe { File::from_raw_fd(fd) };
    file.set_len(bytes)?;
    Ok(file)
}

pub fn region(gpa: u64, bytes: u64) -> Result<GuestRegionMmap<()>> {
    let mapped = MmapRegion::from_file(FileOffset::new(memfd(bytes)?, 0), bytes as usize)?;
    GuestRegionMmap::new(mapped, GuestAddress(gpa)).ok_or_else(|| "a region that wraps".into())
}

/// RAM from 0 on, and `more` regions of 1 MiB from 4 GiB on.
pub fn memory(more: u64) -> Result<Memory> {
    let mut regions = vec![region(0, 8 * MIB)?];
    for i in 0..more {
        regions.push(region((4 << 30) + 2 * i * MIB, MIB)?);
    }
    Ok(Memory::from_regions(regions)?)
}

pub fn region_info(r: &GuestRegionMmap<()>) -> Result<VhostUserMemoryRegionInfo> {
    Ok(VhostUserMemoryRegionInfo::from_guest_region(r)?)
}

/// `gpa` as the VMM sees it.
pub fn uva(memory: &Memory, gpa: u64) -> Result<u64> {
    Ok(memory.get_host_address(GuestAddress(gpa))? as u64)
}

/// The driver of a split ring, in `memory` at a place of its own.
pub struct Queue {
    pub index: usize,
    pub size: u16,
    pub kick: EventFd,
    pub call: EventFd,
    pub avail_idx: u16,
    used_idx: u16,
}

impl Queue {
    pub fn new(index: usize, size: u16) -> Result<Queue> {
        let (kick, call) = (EventFd::new(libc::EFD_NONBLOCK)?, EventFd::new(libc::EFD_NONBLOCK)?);
        Ok(Queue { index, size, kick, call, avail_idx: 0, used_idx: 0 })
    }
    pub fn desc(&self) -> u64 {
        MIB + 0x10000 * self.index as u64
    }
    pub fn avail(&self) -> u64 {
        self.desc() + 0x4000
    }
    pub fn used(&self) -> u64 {
        self.desc() + 0x8000
    }

    /// As a driver does after a device reset: zeroes.
    pub fn clear(&mut self, memory: &Memory) -> Result<()> {
        memory.write_slice(&vec![0; 0x10000], GuestAddress(self.desc()))?;
        (self.avail_idx, self.used_idx) = (0, 0);
        Ok(())
    }

    pub fn config(&self, memory: &Memory, logged: bool) -> Result<VringConfigData> {
        Ok(VringConfigData {
            queue_max_size: 256,
            queue_size: self.size,
            flags: logged.into(),
            desc_table_addr: uva(memory, self.desc())?,
            used_ring_addr: uva(memory, self.used())?,
            avail_ring_addr: uva(memory, self.avail())?,
            log_addr: logged.then_some(self.used()),
        })
    }

    /// Make a chain of a readable and a writable buffer available, at `buffers`.
    pub fn add(&mut self, memory: &Memory, request: &[u8], reply: u32, buffers: u64) -> Result<()> {
        memory.write_slice(request, GuestAddress(buffers))?;
        memory.write_slice(&vec![0xee; reply as usize], GuestAddress(buffers + 0x800))?;
        let descriptors =
            [(buffers, request.len() as u32, 1u16, 1u16), (buffers + 0x800, reply, 2, 0)];
        for (i, (addr, len, flags, next)) in descriptors.into_iter().enumerate() {
            let mut bytes = addr.to_le_bytes().to_vec();
            bytes.extend(len.to_le_bytes());
            bytes.extend(flags.to_le_bytes());
            bytes.extend(next.to_le_bytes());
            memory.write_slice(&bytes, GuestAddress(self.desc() + 16 * i as u64))?;
        }
        let slot = u64::from(self.avail_idx % self.size);
        memory.write_obj(0u16, GuestAddress(self.avail() + 4 + 2 * slot))?;
        self.avail_idx = self.avail_idx.wrapping_add(1);
        memory.store(self.avail_idx, GuestAddress(self.avail() + 2), Ordering::Release)?;
        fence(Ordering::SeqCst);
        Ok(self.kick.write(1)?)
    }

    pub fn is_answered(&self, memory: &Memory) -> Result<bool> {
        let idx: u16 = memory.load(GuestAddress(self.used() + 2), Ordering::Acquire)?;
        Ok(idx != self.used_idx)
    }

    /// Wait for the answer: the bytes written, and where they are as add() was told.
    pub fn wait(&mut self, memory: &Memory, reply: u32, buffers: u64) -> Result<Vec<u8>> {
        let end = Instant::now() + Duration::from_secs(8);
        while !self.is_answered(memory)? {
            if Instant::now() > end {
                return fail("a request was not answered".into());
            }
            sleep(Duration::from_micros(50));
        }
        let slot = u64::from(self.used_idx % self.size);
        let written: u32 = memory.read_obj(GuestAddress(self.used() + 4 + 8 * slot + 4))?;
        self.used_idx = self.used_idx.wrapping_add(1);
        if written > reply {
            return fail(format!("{written} bytes written into a buffer of {reply}"));
        }
        let mut bytes = vec![0; written as usize];
        memory.read_slice(&mut bytes, GuestAddress(buffers + 0x800))?;
        Ok(bytes)
    }
}

// --- requests (virtio 1.3, 5.13.6) ---------------------------------------------------------------

pub const OK: u8 = 0;
pub const INVAL: u8 = 4;
pub const NOENT: u8 = 6;
pub const BUFFERS: u64 = 2 * MIB;

fn head(kind: u8, words: &[u32]) -> Vec<u8> {
    let mut bytes = vec![kind, 0, 0, 0];
    for word in words {
        bytes.extend(word.to_le_bytes());
    }
    bytes
}
pub fn attach(domain: u32, endpoint: u32) -> Vec<u8> {
    head(1, &[domain, endpoint, 0, 0])
}
pub fn detach(domain: u32, endpoint: u32) -> Vec<u8> {
    head(2, &[domain, endpoint, 0, 0])
}
pub fn map(domain: u32, page: u64) -> Vec<u8> {
    let mut bytes = head(3, &[domain]);
    for word in [page << 12, (page << 12) + 0xfff, 3 * MIB] {
        bytes.extend(word.to_le_bytes());
    }
    bytes.extend(3u32.to_le_bytes()); // READ | WRITE
    bytes
}
pub fn unmap(domain: u32, first: u64, pages: u64) -> Vec<u8> {
    let mut bytes = head(4, &[domain]);
    for word in [first << 12, ((first + pages) << 12) - 1] {
        bytes.extend(word.to_le_bytes());
    }
    bytes.extend([0; 4]);
    bytes
}
pub fn probe(endpoint: u32) -> Vec<u8> {
    let mut bytes = head(5, &[endpoint]);
    bytes.extend([0; 64]);
    bytes
}

/// A guest with its two queues; whoever is its VMM connects them.
pub struct Guest {
    pub memory: Memory,
    pub queues: Vec<Queue>,
}

impl Guest {
    pub fn new() -> Result<Guest> {
        Guest::with_memory(memory(0)?)
    }
    pub fn with_memory(memory: Memory) -> Result<Guest> {
        Ok(Guest { memory, queues: vec![Queue::new(0, 256)?, Queue::new(1, 64)?] })
    }
    /// The driver begins anew.
    pub fn clear_rings(&mut self) -> Result<()> {
        self.queues.iter_mut().try_for_each(|q| q.clear(&self.memory))
    }
    /// The status of a request, its buffers at `buffers`.
    pub fn status_at(&mut self, request: &[u8], buffers: u64) -> Result<u8> {
        self.queues[0].add(&self.memory, request, 4, buffers)?;
        let reply = self.queues[0].wait(&self.memory, 4, buffers)?;
        match reply[..] {
            [status, 0, 0, 0] => Ok(status),
            _ => fail(format!("a reply of {} bytes: {reply:?}", reply.len())),
        }
    }
    pub fn status(&mut self, request: &[u8]) -> Result<u8> {
        self.status_at(request, BUFFERS)
    }
    pub fn expect(&mut self, what: &str, request: &[u8], status: u8) -> Result<()> {
        match self.status(request)? {
            s if s == status => Ok(()),
            s => fail(format!("{what}: status {s} instead of {status}")),
        }
    }

    // What every scenario asks before and after.
    pub fn attach_and_map(&mut self) -> Result<()> {
        self.expect("ATTACH", &attach(1, crate::daemon::ENDPOINT), OK)?;
        self.expect("MAP", &map(1, 0x1000), OK)
    }
    pub fn expect_kept(&mut self) -> Result<()> {
        self.expect("MAP of what is mapped", &map(1, 0x1000), INVAL)
    }
    pub fn expect_dropped(&mut self) -> Result<()> {
        self.expect("MAP in a domain that must be gone", &map(1, 0x1000), NOENT)
    }
}

/// A VMM's dirty bitmap, as Cloud Hypervisor makes it.
pub struct DirtyLog {
    pub file: File,
    pub bytes: u64,
}

impl DirtyLog {
    pub fn new(memory: &Memory) -> Result<DirtyLog> {
        let last = memory.iter().map(|r| r.start_addr().0 + r.len() - 1).max().unwrap_or(0);
        let bytes = last / (4096 * 8) + 1;
        Ok(DirtyLog { file: memfd(bytes)?, bytes })
    }
    pub fn pages(&self) -> Result<Vec<u64>> {
        use std::os::unix::fs::FileExt;
        let mut bits = vec![0; self.bytes as usize];
        self.file.read_exact_at(&mut bits, 0)?;
        Ok((0..8 * self.bytes).filter(|p| bits[*p as usize / 8] & (1 << (p % 8)) != 0).collect())
    }
}

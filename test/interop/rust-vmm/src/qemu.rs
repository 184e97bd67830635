// SPDX-License-Identifier: BSD-3-Clause
//! QEMU's messages in its order (hw/virtio/vhost-user.c, vhost.c), by an encoder of our own: the
//! crate's frontend has Cloud Hypervisor's order in mind, and checks what it sends.

use std::io::Read;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use vm_memory::{GuestMemoryBackend, GuestRegionMmap};
use vmm_sys_util::sock_ctrl_msg::ScmSocket;

use crate::guest::{region_info, DirtyLog, Guest};
use crate::{fail, Result};

pub const GET_FEATURES: u32 = 1;
pub const SET_FEATURES: u32 = 2;
pub const SET_OWNER: u32 = 3;
pub const SET_LOG_BASE: u32 = 6;
pub const SET_VRING_NUM: u32 = 8;
pub const SET_VRING_ADDR: u32 = 9;
pub const SET_VRING_BASE: u32 = 10;
pub const GET_VRING_BASE: u32 = 11;
pub const SET_VRING_KICK: u32 = 12;
pub const SET_VRING_CALL: u32 = 13;
pub const SET_VRING_ERR: u32 = 14;
pub const GET_PROTOCOL_FEATURES: u32 = 15;
pub const SET_PROTOCOL_FEATURES: u32 = 16;
pub const GET_QUEUE_NUM: u32 = 17;
pub const SET_VRING_ENABLE: u32 = 18;
pub const GET_CONFIG: u32 = 24;
pub const GET_MAX_MEM_SLOTS: u32 = 36;
pub const ADD_MEM_REG: u32 = 37;
pub const REM_MEM_REG: u32 = 38;

const VERSION: u32 = 1;
const REPLY: u32 = 4;
const NEED_REPLY: u32 = 8;
const NO_FD: u64 = 1 << 8;

pub fn words(values: &[u32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}
pub fn longs(values: &[u64]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

pub struct Qemu {
    stream: UnixStream,
    pub features: u64,
}

impl Qemu {
    /// Connect, and what is sent before there is a driver.
    pub fn create(socket: &str, guest: &Guest) -> Result<Qemu> {
        let stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(Duration::from_secs(8)))?;
        let mut qemu = Qemu { stream, features: 0 };
        qemu.realize(guest)?;
        Ok(qemu)
    }

    /// Also of a device that was unplugged and is plugged in again, on the same connection.
    pub fn realize(&mut self, guest: &Guest) -> Result<()> {
        self.query(GET_FEATURES)?;
        let offered = self.query(GET_PROTOCOL_FEATURES)?;
        // MQ, LOG_SHMFD, REPLY_ACK, BACKEND_REQ, CONFIG, CONFIGURE_MEM_SLOTS
        let wanted = 1 | 2 | 8 | 1 << 5 | 1 << 9 | 1 << 15;
        if offered & wanted != wanted {
            return fail(format!("protocol features {offered:#x}"));
        }
        self.send(SET_PROTOCOL_FEATURES, &longs(&[offered & wanted]), &[], false)?;
        if self.query(GET_QUEUE_NUM)? != 2 || self.query(GET_MAX_MEM_SLOTS)? < 32 {
            return fail("too few queues or memory slots".into());
        }
        self.send(SET_OWNER, &[], &[], false)?;
        self.features = self.query(GET_FEATURES)?;
        // Before there are rings, and more than once: notifiers change hands.
        for on in [0, 1, 0] {
            for q in &guest.queues {
                self.send_fd(SET_VRING_CALL, q.index, Some(q.call.as_raw_fd()))?;
                self.send_fd(SET_VRING_ERR, q.index, Some(q.call.as_raw_fd()))?;
                self.ack(SET_VRING_ENABLE, &words(&[q.index as u32, on]), &[])?;
            }
        }
        Ok(())
    }

    // --- messages --------------------------------------------------------------------------------

    pub fn send(&mut self, request: u32, body: &[u8], fds: &[RawFd], need_reply: bool) -> Result<()> {
        let flags = VERSION | if need_reply { NEED_REPLY } else { 0 };
        let mut message = words(&[request, flags, body.len() as u32]);
        message.extend(body);
        let sent = self.stream.send_with_fds(&[&message[..]], fds)?;
        if sent == message.len() { Ok(()) } else { fail("a message in pieces".into()) }
    }

    pub fn receive(&mut self, request: u32) -> Result<Vec<u8>> {
        let mut header = [0; 12];
        self.stream.read_exact(&mut header)?;
        let word = |i: usize| u32::from_le_bytes(header[4 * i..4 * i + 4].try_into().unwrap());
        if word(0) != request || word(1) != VERSION | REPLY {
            return fail(format!("reply {} with flags {:#x} to {request}", word(0), word(1)));
        }
        let mut body = vec![0; word(2) as usize];
        self.stream.read_exact(&mut body)?;
        Ok(body)
    }

    fn receive_u64(&mut self, request: u32) -> Result<u64> {
        match self.receive(request)?.try_into() {
            Ok(bytes) => Ok(u64::from_le_bytes(bytes)),
            Err(bytes) => fail(format!("reply of {} bytes to {request}", bytes.len())),
        }
    }

    pub fn query(&mut self, request: u32) -> Result<u64> {
        self.send(request, &[], &[], false)?;
        self.receive_u64(request)
    }

    pub fn ack(&mut self, request: u32, body: &[u8], fds: &[RawFd]) -> Result<()> {
        self.send(request, body, fds, true)?;
        match self.receive_u64(request)? {
            0 => Ok(()),
            n => fail(format!("request {request} was refused ({n})")),
        }
    }

    fn send_fd(&mut self, request: u32, queue: usize, fd: Option<RawFd>) -> Result<()> {
        match fd {
            Some(fd) => self.send(request, &longs(&[queue as u64]), &[fd], false),
            None => self.send(request, &longs(&[queue as u64 | NO_FD]), &[], false),
        }
    }

    /// The whole configuration space at once.
    pub fn config(&mut self, size: u32) -> Result<Vec<u8>> {
        let mut body = words(&[0, size, 0]);
        body.resize(12 + size as usize, 0);
        self.send(GET_CONFIG, &body, &[], false)?;
        let reply = self.receive(GET_CONFIG)?;
        if reply.len() != body.len() || reply[..12] != body[..12] {
            return fail(format!("reply of {} bytes", reply.len()));
        }
        Ok(reply[12..].to_vec())
    }

    // --- memory ----------------------------------------------------------------------------------

    fn region_message(region: &GuestRegionMmap<()>) -> Result<(Vec<u8>, RawFd)> {
        let r = region_info(region)?;
        let body =
            longs(&[0, r.guest_phys_addr, r.memory_size, r.userspace_addr, r.mmap_offset]);
        Ok((body, r.mmap_handle))
    }
    pub fn add_region(&mut self, region: &GuestRegionMmap<()>) -> Result<()> {
        let (body, fd) = Qemu::region_message(region)?;
        self.ack(ADD_MEM_REG, &body, &[fd])
    }
    pub fn remove_region(&mut self, region: &GuestRegionMmap<()>) -> Result<()> {
        let (body, _) = Qemu::region_message(region)?;
        self.ack(REM_MEM_REG, &body, &[])
    }

    // --- start and stop --------------------------------------------------------------------------

    fn set_addresses(&mut self, guest: &Guest, logged: bool) -> Result<()> {
        for q in &guest.queues {
            let c = q.config(&guest.memory, logged)?;
            let mut body = words(&[q.index as u32, c.flags]);
            body.extend(longs(&[
                c.desc_table_addr,
                c.used_ring_addr,
                c.avail_ring_addr,
                c.get_log_addr(),
            ]));
            self.send(SET_VRING_ADDR, &body, &[], false)?;
        }
        Ok(())
    }

    fn driver_features(&self) -> u64 {
        (crate::cloud_hypervisor::ACCEPTED | 1 << 30) & self.features
    }

    /// vhost_dev_start: the device is new (or reset), or goes on at `bases`.
    pub fn start(&mut self, guest: &Guest, bases: [u32; 2], with_memory: bool) -> Result<()> {
        self.send(SET_FEATURES, &longs(&[self.driver_features()]), &[], false)?;
        if with_memory {
            guest.memory.iter().try_for_each(|r| self.add_region(r))?;
        }
        for q in &guest.queues {
            let index = q.index as u32;
            self.send(SET_VRING_NUM, &words(&[index, q.size.into()]), &[], false)?;
            self.send(SET_VRING_BASE, &words(&[index, bases[q.index]]), &[], false)?;
        }
        self.set_addresses(guest, false)?;
        for q in &guest.queues {
            self.send_fd(SET_VRING_KICK, q.index, Some(q.kick.as_raw_fd()))?;
            self.send_fd(SET_VRING_CALL, q.index, None)?; // masked
        }
        for q in &guest.queues {
            self.ack(SET_VRING_ENABLE, &words(&[q.index as u32, 1]), &[])?;
        }
        for q in &guest.queues {
            self.send_fd(SET_VRING_CALL, q.index, Some(q.call.as_raw_fd()))?;
        }
        Ok(())
    }

    /// vhost_dev_stop. Returns the bases.
    pub fn stop(&mut self, guest: &Guest) -> Result<[u32; 2]> {
        for q in &guest.queues {
            self.ack(SET_VRING_ENABLE, &words(&[q.index as u32, 0]), &[])?;
        }
        let mut bases = [0; 2];
        for q in &guest.queues {
            self.send(GET_VRING_BASE, &words(&[q.index as u32, 0]), &[], false)?;
            let reply = self.receive(GET_VRING_BASE)?;
            if reply.len() != 8 || reply[..4] != (q.index as u32).to_le_bytes() {
                return fail(format!("GET_VRING_BASE: {reply:?}"));
            }
            bases[q.index] = u32::from_le_bytes(reply[4..].try_into().unwrap());
        }
        Ok(bases)
    }

    // --- migration -------------------------------------------------------------------------------

    /// QEMU waits for a reply to SET_LOG_BASE and does not look into it.
    pub fn set_log_base(&mut self, log: &DirtyLog) -> Result<()> {
        self.send(SET_LOG_BASE, &longs(&[log.bytes, 0]), &[log.file.as_raw_fd()], false)?;
        self.receive(SET_LOG_BASE).map(|_| ())
    }
    pub fn start_dirty_log(&mut self, guest: &Guest, log: &DirtyLog) -> Result<()> {
        self.set_log_base(log)?;
        let features = self.driver_features() | crate::cloud_hypervisor::LOG_ALL;
        self.ack(SET_FEATURES, &longs(&[features]), &[])?;
        self.set_addresses(guest, true)
    }
}

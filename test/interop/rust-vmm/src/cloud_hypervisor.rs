// SPDX-License-Identifier: BSD-3-Clause
//! Cloud Hypervisor's messages in its order, through its own crate
//! (virtio-devices/src/vhost_user/{generic_vhost_user,vu_common_ctrl}.rs, commit ae44c2971).

use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;

use vhost::vhost_user::message::{
    VhostUserConfigFlags, VhostUserHeaderFlag, VhostUserProtocolFeatures as Protocol,
};
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost::{VhostBackend, VhostUserDirtyLogRegion};
use vm_memory::{GuestMemoryBackend, GuestRegionMmap};

use crate::guest::{region_info, DirtyLog, Guest};
use crate::{fail, Result};

pub const PROTOCOL_FEATURES: u64 = 1 << 30;
pub const LOG_ALL: u64 = 1 << 26;
/// What the generic vhost-user device lets through (bits 0 to 23 with the patch that an IOMMU
/// needs), and what a Linux driver of virtio-iommu accepts of it.
pub const AVAILABLE: u64 =
    0xff_ffff | LOG_ALL | 1 << 28 | 1 << 29 | PROTOCOL_FEATURES | 1 << 32 | 1 << 35 | 1 << 36;
pub const ACCEPTED: u64 = 0x7f | 1 << 28 | 1 << 32;

fn available_protocol() -> Protocol {
    Protocol::CONFIG
        | Protocol::MQ
        | Protocol::CONFIGURE_MEM_SLOTS
        | Protocol::REPLY_ACK
        | Protocol::INFLIGHT_SHMFD
        | Protocol::LOG_SHMFD
        | Protocol::DEVICE_STATE
        | Protocol::BACKEND_REQ
}

pub struct CloudHypervisor {
    pub vu: Frontend,
    pub offered: u64,
    pub protocol: Protocol,
    acked: u64,
    backend_requests: Option<(UnixStream, OwnedFd)>,
}

impl CloudHypervisor {
    /// VM creation, or hotplug of the device.
    pub fn create(socket: &str) -> Result<CloudHypervisor> {
        let mut ch = CloudHypervisor::connect(socket)?;
        let offered = ch.vu.get_protocol_features()?;
        ch.negotiate(available_protocol() & offered)?;
        if ch.protocol.contains(Protocol::MQ) {
            let queues = ch.vu.get_queue_num()?;
            if queues < 2 {
                return fail(format!("{queues} queues"));
            }
        }
        if ch.protocol.contains(Protocol::INFLIGHT_SHMFD) {
            return fail("INFLIGHT_SHMFD is offered, which costs two messages a start".into());
        }
        Ok(ch)
    }

    fn connect(socket: &str) -> Result<CloudHypervisor> {
        let vu = Frontend::connect(socket, 2)?;
        vu.set_owner()?;
        let offered = vu.get_features()?;
        if offered & PROTOCOL_FEATURES == 0 {
            return fail("no VHOST_USER_F_PROTOCOL_FEATURES".into());
        }
        let protocol = Protocol::empty();
        Ok(CloudHypervisor { vu, offered, protocol, acked: 0, backend_requests: None })
    }

    fn negotiate(&mut self, protocol: Protocol) -> Result<()> {
        self.vu.set_protocol_features(protocol)?;
        self.protocol = protocol;
        if protocol.contains(Protocol::REPLY_ACK) {
            self.vu.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
        }
        Ok(())
    }

    pub fn config(&mut self, offset: u32, size: u32) -> Result<Vec<u8>> {
        let room = vec![0; size as usize];
        Ok(self.vu.get_config(offset, size, VhostUserConfigFlags::empty(), &room)?.1)
    }

    /// DRIVER_OK. `bits`: more features that the driver has accepted; what was accepted once stays.
    pub fn activate_with(&mut self, guest: &Guest, bits: u64) -> Result<()> {
        self.acked |= (ACCEPTED | bits | PROTOCOL_FEATURES) & AVAILABLE & self.offered;
        self.vu.set_features(self.acked)?;
        self.set_memory(guest)?;
        for q in &guest.queues {
            self.vu.set_vring_num(q.index, q.size)?;
        }
        for q in &guest.queues {
            self.vu.set_vring_addr(q.index, &q.config(&guest.memory, false)?)?;
            self.vu.set_vring_base(q.index, q.avail_idx)?;
            self.vu.set_vring_call(q.index, &q.call)?;
            self.vu.set_vring_kick(q.index, &q.kick)?;
        }
        self.enable(guest, true)?;
        if self.protocol.contains(Protocol::BACKEND_REQ) {
            let (ours, theirs) = UnixStream::pair()?;
            let theirs: OwnedFd = theirs.into();
            self.vu.set_backend_request_fd(&theirs.as_raw_fd())?;
            self.backend_requests = Some((ours, theirs));
        }
        Ok(())
    }
    pub fn activate(&mut self, guest: &Guest) -> Result<()> {
        self.activate_with(guest, 0)
    }

    pub fn set_memory(&self, guest: &Guest) -> Result<()> {
        let regions = guest.memory.iter().map(region_info).collect::<Result<Vec<_>>>()?;
        Ok(self.vu.set_mem_table(&regions)?)
    }
    pub fn add_memory(&mut self, region: &GuestRegionMmap<()>) -> Result<()> {
        Ok(self.vu.add_mem_region(&region_info(region)?)?)
    }

    fn enable(&mut self, guest: &Guest, on: bool) -> Result<()> {
        guest.queues.iter().try_for_each(|q| Ok(self.vu.set_vring_enable(q.index, on)?))
    }
    pub fn pause(&mut self, guest: &Guest) -> Result<()> {
        self.enable(guest, false)
    }
    pub fn resume(&mut self, guest: &Guest) -> Result<()> {
        self.enable(guest, true)
    }

    /// The driver resets the device.
    pub fn reset(&mut self, guest: &Guest) -> Result<()> {
        for q in &guest.queues {
            self.vu.set_vring_enable(q.index, false)?;
            self.vu.get_vring_base(q.index)?;
        }
        Ok(())
    }

    /// The daemon's socket goes away.
    pub fn hang_up(&self) {
        // SAFETY: the socket is open as long as self.vu.
        unsafe { libc::shutdown(self.vu.as_raw_fd(), libc::SHUT_RDWR) };
    }

    /// The socket was lost: connect again, with the features and protocol features of before.
    pub fn reconnect(&mut self, socket: &str, guest: &Guest) -> Result<()> {
        let (acked, protocol) = (self.acked, self.protocol);
        self.hang_up();
        *self = CloudHypervisor::connect(socket)?;
        self.acked = acked;
        self.negotiate(protocol)?;
        self.activate(guest)
    }

    // --- migration -------------------------------------------------------------------------------

    pub fn set_log_base(&self, log: &DirtyLog) -> Result<()> {
        let region = VhostUserDirtyLogRegion {
            mmap_size: log.bytes,
            mmap_offset: 0,
            mmap_handle: log.file.as_raw_fd(),
        };
        Ok(self.vu.set_log_base(0, Some(region))?)
    }
    fn set_vring_logging(&self, guest: &Guest, on: bool) -> Result<()> {
        for q in &guest.queues {
            self.vu.set_vring_addr(q.index, &q.config(&guest.memory, on)?)?;
        }
        Ok(())
    }
    pub fn start_dirty_log(&self, guest: &Guest, log: &DirtyLog) -> Result<()> {
        if !self.protocol.contains(Protocol::LOG_SHMFD) || self.offered & LOG_ALL == 0 {
            return fail("LOG_SHMFD and LOG_ALL are not offered: no live migration".into());
        }
        self.set_log_base(log)?;
        self.vu.set_features(self.acked | LOG_ALL)?;
        self.set_vring_logging(guest, true)
    }
    pub fn stop_dirty_log(&self, guest: &Guest) -> Result<()> {
        self.set_vring_logging(guest, false)?;
        Ok(self.vu.set_features(self.acked)?)
    }
}

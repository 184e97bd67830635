// SPDX-License-Identifier: BSD-3-Clause
//! What a VMM does to its device, and what must be true of the guest's mappings after it.

use std::thread::sleep;
use std::time::Duration;

use vhost::vhost_user::message::VhostUserConfigFlags;
use vhost::vhost_user::VhostUserFrontend;
use vm_memory::GuestMemoryBackend;

use crate::cloud_hypervisor::CloudHypervisor;
use crate::daemon::ENDPOINT;
use crate::guest::*;
use crate::qemu::Qemu;
use crate::{fail, Result, Setting};

type Scenario = fn(&Setting) -> Result<String>;

pub const ALL: &[(&str, Scenario)] = &[
    ("ch_config_reads", ch_config_reads),
    ("ch_boot_and_requests", ch_boot_and_requests),
    ("ch_guest_reset", ch_guest_reset),
    ("ch_vm_reboot", ch_vm_reboot),
    ("ch_pause_resume", ch_pause_resume),
    ("ch_memory_hotplug", ch_memory_hotplug),
    ("ch_hotplug_before_driver", ch_hotplug_before_driver),
    ("ch_all_memory_slots", ch_all_memory_slots),
    ("ch_eight_regions", ch_eight_regions),
    ("ch_too_many_regions", ch_too_many_regions),
    ("ch_reconnect", ch_reconnect),
    ("ch_reconnect_often", ch_reconnect_often),
    ("ch_features_never_cleared", ch_features_never_cleared),
    ("ch_second_frontend", ch_second_frontend),
    ("ch_dirty_log", ch_dirty_log),
    ("qemu_boot_and_requests", qemu_boot_and_requests),
    ("qemu_config_read", qemu_config_read),
    ("qemu_stop_cont", qemu_stop_cont),
    ("qemu_guest_reset", qemu_guest_reset),
    ("qemu_reboot_new_process", qemu_reboot_new_process),
    ("qemu_memory_hotplug", qemu_memory_hotplug),
    ("qemu_ram_taken_and_given_back", qemu_ram_taken_and_given_back),
    ("qemu_unplug_plug", qemu_unplug_plug),
    ("qemu_dirty_log", qemu_dirty_log),
];

const DONE: Result<String> = Ok(String::new());

fn check(what: &str, ok: bool) -> Result<()> {
    if ok { Ok(()) } else { fail(what.into()) }
}

/// Cloud Hypervisor with a guest whose driver has attached and mapped.
fn ch_running(setting: &Setting) -> Result<(CloudHypervisor, Guest)> {
    let mut guest = Guest::new()?;
    let mut ch = CloudHypervisor::create(&setting.socket)?;
    ch.activate(&guest)?;
    guest.attach_and_map()?;
    Ok((ch, guest))
}

fn qemu_running(setting: &Setting) -> Result<(Qemu, Guest)> {
    let mut guest = Guest::new()?;
    let mut qemu = Qemu::create(&setting.socket, &guest)?;
    qemu.start(&guest, [0, 0], true)?;
    guest.attach_and_map()?;
    Ok((qemu, guest))
}

fn requests(guest: &mut Guest) -> Result<()> {
    const PROPERTIES: u32 = 512;
    let q = &mut guest.queues[0];
    q.add(&guest.memory, &probe(ENDPOINT), PROPERTIES + 4, BUFFERS)?;
    let reply = q.wait(&guest.memory, PROPERTIES + 4, BUFFERS)?;
    check("PROBE has no MSI region", reply.len() > 24 && reply[..4] == [1, 0, 20, 0])?;
    check("PROBE's region is not of type MSI", reply[4] == 1)?;
    guest.attach_and_map()?;
    guest.expect("MAP of what is mapped", &map(1, 0x1000), INVAL)?;
    guest.expect("MAP in no domain", &map(7, 0x1000), NOENT)?;
    guest.expect("ATTACH of no endpoint", &attach(1, 0x99), NOENT)?;
    guest.expect("UNMAP", &unmap(1, 0x1000, 1), OK)?;
    guest.expect("MAP again", &map(1, 0x1000), OK)?;
    for page in 0x2000..0x2100 {
        guest.expect("MAP of another", &map(1, page), OK)?;
    }
    guest.expect("UNMAP of many", &unmap(1, 0x2000, 0x100), OK)?;
    guest.expect("DETACH", &detach(1, ENDPOINT), OK)?;
    guest.expect("MAP after DETACH", &map(1, 0x1000), NOENT)?;
    check("no call", guest.queues[0].call.read().is_ok())
}

// --- Cloud Hypervisor ----------------------------------------------------------------------------

/// Every vCPU access is a message; an answer of another size hangs the VMM, an error ends it.
fn ch_config_reads(setting: &Setting) -> Result<String> {
    let mut ch = CloudHypervisor::create(&setting.socket)?;
    let mut space = Vec::new();
    for offset in 0..0x1000 {
        space.extend(ch.config(offset, 1)?);
    }
    check("no page_size_mask", space[..8].iter().any(|b| *b != 0))?;
    check("bytes after the structure", space[40..].iter().all(|b| *b == 0))?;
    let mut reads = 0x1000;
    for size in [2u32, 4, 8] {
        for offset in 0..=0x1000 - size {
            let bytes = ch.config(offset, size)?;
            let expected = &space[offset as usize..(offset + size) as usize];
            check(&format!("{size} bytes at {offset:#x}: {bytes:?}"), bytes == expected)?;
            reads += 1;
        }
    }
    for bypass in [1u8, 0] {
        ch.vu.set_config(36, VhostUserConfigFlags::WRITABLE, &[bypass])?;
        check("bypass is not what was written", ch.config(36, 1)? == [bypass])?;
    }
    for size in [1usize, 2, 4, 8] {
        ch.vu.set_config(0x1000 - size as u32, VhostUserConfigFlags::WRITABLE, &vec![1; size])?;
    }
    Ok(format!("{reads} reads"))
}

fn ch_boot_and_requests(setting: &Setting) -> Result<String> {
    let mut guest = Guest::new()?;
    let mut ch = CloudHypervisor::create(&setting.socket)?;
    check("MAP_UNMAP is not offered", ch.offered >> 2 & 1 == 1)?;
    ch.config(0, 8)?;
    ch.activate(&guest)?;
    requests(&mut guest)?;
    Ok(format!("features {:#x}, {:?}", ch.offered, ch.protocol))
}

fn ch_guest_reset(setting: &Setting) -> Result<String> {
    let (mut ch, mut guest) = ch_running(setting)?;
    for _ in 0..3 {
        ch.reset(&guest)?;
        guest.clear_rings()?;
        ch.activate(&guest)?;
        guest.expect_dropped()?;
        guest.attach_and_map()?;
    }
    DONE
}

fn ch_vm_reboot(setting: &Setting) -> Result<String> {
    for boot in 0..3 {
        let (ch, mut guest) = ch_running(setting)?;
        guest.expect_kept()?;
        drop(ch); // the VM is dropped and made again, in other memory
        let mut guest = Guest::new()?;
        let mut ch = CloudHypervisor::create(&setting.socket)?;
        ch.activate(&guest)?;
        guest.expect_dropped().map_err(|e| format!("boot {boot}: {e}"))?;
    }
    DONE
}

fn ch_pause_resume(setting: &Setting) -> Result<String> {
    let (mut ch, mut guest) = ch_running(setting)?;
    for _ in 0..3 {
        ch.pause(&guest)?;
        // A vCPU may have had a request in the ring when it stopped.
        guest.queues[0].add(&guest.memory, &map(1, 0x1000), 4, BUFFERS)?;
        sleep(Duration::from_millis(60));
        check("a request was taken in a pause", !guest.queues[0].is_answered(&guest.memory)?)?;
        ch.resume(&guest)?;
        let reply = guest.queues[0].wait(&guest.memory, 4, BUFFERS)?;
        check("mappings are gone after a pause", reply == [INVAL, 0, 0, 0])?;
    }
    guest.expect("UNMAP", &unmap(1, 0x1000, 1), OK)?;
    DONE
}

/// Request buffers in memory that was added while the device ran.
fn ch_memory_hotplug(setting: &Setting) -> Result<String> {
    let (mut ch, mut guest) = ch_running(setting)?;
    guest.memory = {
        let added = std::sync::Arc::new(region(4 << 30, MIB)?);
        ch.add_memory(&added)?;
        guest.memory.insert_region(added)?
    };
    let status = guest.status_at(&map(1, 0x1000), (4 << 30) + 0x3000)?;
    check("mappings are gone after a hotplug", status == INVAL)?;
    // The next activation sends the whole table.
    ch.reset(&guest)?;
    guest.clear_rings()?;
    ch.activate(&guest)?;
    let status = guest.status_at(&attach(1, ENDPOINT), (4 << 30) + 0x3000)?;
    check("added memory is not reached after a reset", status == OK)?;
    DONE
}

fn ch_hotplug_before_driver(setting: &Setting) -> Result<String> {
    let mut guest = Guest::with_memory(memory(1)?)?;
    let mut ch = CloudHypervisor::create(&setting.socket)?;
    let added = guest.memory.iter().nth(1).ok_or("a region")?;
    ch.add_memory(added)?;
    ch.activate(&guest)?;
    guest.attach_and_map()?;
    check("added memory", guest.status_at(&map(1, 0x1000), (4 << 30) + 0x3000)? == INVAL)?;
    DONE
}

fn ch_all_memory_slots(setting: &Setting) -> Result<String> {
    let (mut ch, mut guest) = ch_running(setting)?;
    let slots = ch.vu.get_max_mem_slots()?;
    for i in 0..slots {
        let at = (4 << 30) + 2 * i * MIB;
        let added = std::sync::Arc::new(region(at, MIB)?);
        let result = ch.add_memory(&added);
        if i == slots - 1 {
            // With the guest's RAM there are as many as there may be.
            check("one more than there are slots was taken", result.is_err())?;
            break;
        }
        result?;
        guest.memory = guest.memory.insert_region(added)?;
        let status = guest.status_at(&map(1, 0x1000), at + 0x1000)?;
        check(&format!("region {i} is not reached"), status == INVAL)?;
    }
    Ok(format!("{slots} slots"))
}

fn ch_eight_regions(setting: &Setting) -> Result<String> {
    let mut guest = Guest::with_memory(memory(7)?)?;
    let mut ch = CloudHypervisor::create(&setting.socket)?;
    ch.activate(&guest)?;
    guest.attach_and_map()?;
    for i in 0..7 {
        let at = (4 << 30) + 2 * i * MIB;
        check("a region is not reached", guest.status_at(&map(1, 0x1000), at)? == INVAL)?;
    }
    DONE
}

/// An error, soon, and a reason in the log.
fn ch_too_many_regions(setting: &Setting) -> Result<String> {
    for more in [8, 31] {
        let guest = Guest::with_memory(memory(more)?)?;
        let mut ch = CloudHypervisor::create(&setting.socket)?;
        check("too many regions were taken", ch.activate(&guest).is_err())?;
        drop(ch);
        sleep(Duration::from_millis(50));
        let log = std::fs::read_to_string(&setting.log)?;
        let told = [
            format!("it has {} memory regions", more + 1),
            format!("at a memory table of {} regions", more + 1), // too long for the library
        ];
        check("the log does not say why", told.iter().any(|t| log.contains(t)))?;
    }
    let (_ch, mut guest) = ch_running(setting)?;
    guest.expect_kept()?;
    DONE
}

/// The VMM sends the available index as base, though a request waits: the device knows better.
fn ch_reconnect(setting: &Setting) -> Result<String> {
    let (mut ch, mut guest) = ch_running(setting)?;
    for _ in 0..3 {
        ch.hang_up();
        guest.queues[0].add(&guest.memory, &map(1, 0x1000), 4, BUFFERS)?;
        ch.reconnect(&setting.socket, &guest)?;
        let reply = guest.queues[0].wait(&guest.memory, 4, BUFFERS)?;
        check("mappings are gone after a reconnect", reply == [INVAL, 0, 0, 0])?;
    }
    guest.expect("UNMAP", &unmap(1, 0x1000, 1), OK)?;
    DONE
}

fn ch_reconnect_often(setting: &Setting) -> Result<String> {
    let (mut ch, mut guest) = ch_running(setting)?;
    for _ in 0..30 {
        ch.reconnect(&setting.socket, &guest)?;
        guest.expect_kept()?;
    }
    DONE
}

/// A VMM ORs together what successive drivers (firmware, kernel) have accepted.
fn ch_features_never_cleared(setting: &Setting) -> Result<String> {
    let (mut ch, mut guest) = ch_running(setting)?;
    let more = ch.offered & crate::cloud_hypervisor::AVAILABLE & !(1 << 26);
    ch.reset(&guest)?;
    guest.clear_rings()?;
    ch.activate_with(&guest, more & !(1 << 29))?; // our driver does not know EVENT_IDX
    guest.expect_dropped()?;
    guest.attach_and_map()?;
    ch.reset(&guest)?;
    guest.clear_rings()?;
    ch.activate(&guest)?;
    guest.expect_dropped()?;
    Ok(format!("{more:#x}"))
}

fn ch_second_frontend(setting: &Setting) -> Result<String> {
    let (_ch, mut guest) = ch_running(setting)?;
    check("a second frontend was served", CloudHypervisor::create(&setting.socket).is_err())?;
    guest.expect_kept()?;
    DONE
}

/// Pages that the answers to requests are in, and nothing that we did not touch.
fn expect_marks(log: &DirtyLog, guest: &Guest, when: &str) -> Result<()> {
    let pages = log.pages()?;
    let used = guest.queues[0].used() >> 12;
    let reply = (BUFFERS + 0x800) >> 12;
    check(&format!("{when}: no mark at the used ring: {pages:?}"), pages.contains(&used))?;
    check(&format!("{when}: no mark at the reply: {pages:?}"), pages.contains(&reply))?;
    let event_queue = guest.queues[1].used() >> 12;
    let ours = [used, used + 1, reply, event_queue, event_queue + 1];
    check(&format!("{when}: marks elsewhere: {pages:?}"), pages.iter().all(|p| ours.contains(p)))
}

fn ch_dirty_log(setting: &Setting) -> Result<String> {
    let (ch, mut guest) = ch_running(setting)?;
    let first = DirtyLog::new(&guest.memory)?;
    ch.start_dirty_log(&guest, &first)?;
    guest.expect_kept()?;
    let second = DirtyLog::new(&guest.memory)?;
    ch.set_log_base(&second)?; // a pass: the first is not written any more
    expect_marks(&first, &guest, "first pass")?;
    let before = first.pages()?;
    guest.expect_kept()?;
    let third = DirtyLog::new(&guest.memory)?;
    ch.set_log_base(&third)?;
    expect_marks(&second, &guest, "second pass")?;
    check("the first log was written after the second came", first.pages()? == before)?;
    ch.stop_dirty_log(&guest)?;
    let before = third.pages()?;
    guest.expect_kept()?;
    check("the log is written after its end", third.pages()? == before)?;
    DONE
}

// --- QEMU ----------------------------------------------------------------------------------------

fn qemu_boot_and_requests(setting: &Setting) -> Result<String> {
    let mut guest = Guest::new()?;
    let mut qemu = Qemu::create(&setting.socket, &guest)?;
    qemu.start(&guest, [0, 0], true)?;
    requests(&mut guest)?;
    DONE
}

fn qemu_config_read(setting: &Setting) -> Result<String> {
    let guest = Guest::new()?;
    let mut qemu = Qemu::create(&setting.socket, &guest)?;
    let mut all = Vec::new();
    for size in [40, 44, 256] {
        let bytes = qemu.config(size)?;
        check("another configuration", bytes.starts_with(&all))?;
        all = bytes;
    }
    DONE
}

fn qemu_stop_cont(setting: &Setting) -> Result<String> {
    let (mut qemu, mut guest) = qemu_running(setting)?;
    for _ in 0..3 {
        let bases = qemu.stop(&guest)?;
        let expected = u32::from(guest.queues[0].avail_idx);
        check(&format!("base {} instead of {expected}", bases[0]), bases[0] == expected)?;
        guest.queues[0].add(&guest.memory, &map(1, 0x1000), 4, BUFFERS)?;
        qemu.start(&guest, bases, false)?;
        let reply = guest.queues[0].wait(&guest.memory, 4, BUFFERS)?;
        check("mappings are gone after stop and cont", reply == [INVAL, 0, 0, 0])?;
    }
    DONE
}

fn qemu_guest_reset(setting: &Setting) -> Result<String> {
    let (mut qemu, mut guest) = qemu_running(setting)?;
    for _ in 0..3 {
        qemu.stop(&guest)?;
        guest.clear_rings()?;
        qemu.start(&guest, [0, 0], false)?;
        guest.expect_dropped()?;
        guest.attach_and_map()?;
    }
    DONE
}

fn qemu_reboot_new_process(setting: &Setting) -> Result<String> {
    let (qemu, mut guest) = qemu_running(setting)?;
    guest.expect_kept()?;
    drop(qemu);
    let mut guest = Guest::new()?;
    let mut qemu = Qemu::create(&setting.socket, &guest)?;
    qemu.start(&guest, [0, 0], true)?;
    guest.expect_dropped()?;
    DONE
}

fn qemu_memory_hotplug(setting: &Setting) -> Result<String> {
    let (mut qemu, mut guest) = qemu_running(setting)?;
    let added = std::sync::Arc::new(region(4 << 30, MIB)?);
    qemu.add_region(&added)?;
    guest.memory = guest.memory.insert_region(added.clone())?;
    let status = guest.status_at(&map(1, 0x1000), (4 << 30) + 0x3000)?;
    check("mappings are gone after a hotplug", status == INVAL)?;
    qemu.remove_region(&added)?;
    check("removed twice", qemu.remove_region(&added).is_err())?;
    guest.expect_kept()?;
    // A request into memory that is gone comes back unwritten, and the queue goes on.
    guest.queues[0].add(&guest.memory, &map(1, 0x1000), 4, (4 << 30) + 0x3000)?;
    let reply = guest.queues[0].wait(&guest.memory, 4, (4 << 30) + 0x3000)?;
    check("an answer in memory that is gone", reply.is_empty())?;
    guest.expect_kept()?;
    DONE
}

/// When its memory map changes QEMU removes regions first, those with running rings too.
fn qemu_ram_taken_and_given_back(setting: &Setting) -> Result<String> {
    let (mut qemu, mut guest) = qemu_running(setting)?;
    for _ in 0..3 {
        let ram = guest.memory.iter().next().ok_or("a region")?;
        qemu.remove_region(ram)?;
        qemu.add_region(ram)?;
        guest.expect_kept()?;
    }
    let bases = qemu.stop(&guest)?;
    check("base", bases[0] == u32::from(guest.queues[0].avail_idx))?;
    DONE
}

/// device_del and device_add: a new session on the old connection, all regions added again.
fn qemu_unplug_plug(setting: &Setting) -> Result<String> {
    let (mut qemu, mut guest) = qemu_running(setting)?;
    qemu.stop(&guest)?;
    qemu.realize(&guest)?;
    guest.clear_rings()?;
    qemu.start(&guest, [0, 0], true)?;
    guest.expect_dropped()?;
    guest.attach_and_map()?;
    DONE
}

fn qemu_dirty_log(setting: &Setting) -> Result<String> {
    let (mut qemu, mut guest) = qemu_running(setting)?;
    let first = DirtyLog::new(&guest.memory)?;
    qemu.start_dirty_log(&guest, &first)?;
    guest.expect_kept()?;
    let second = DirtyLog::new(&guest.memory)?;
    qemu.set_log_base(&second)?;
    expect_marks(&first, &guest, "first log")?;
    guest.expect_kept()?;
    qemu.stop(&guest)?;
    expect_marks(&second, &guest, "second log")?;
    DONE
}

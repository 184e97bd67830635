/* SPDX-License-Identifier: BSD-3-Clause */
/**
 * libviommu: translate a guest's I/O addresses in a process of your own.
 *
 * dpdk-viommu serves a virtio-iommu to a guest. A backend of that guest's devices (a vhost-user
 * program, for instance) connects to the daemon's `readers` socket and has the guest's mappings in
 * shared memory, which it can read and not write. It asks nobody when it translates: no system
 * call, no lock, no allocation.
 *
 *     viommu_client *v = viommu_open("/run/dpdk-viommu/vm0/readers.sock", 1000);
 *     viommu_reader *r = viommu_reader_create(v, 0x0020);          one per thread and endpoint
 *
 *     viommu_enter(r);                                             per burst
 *     struct viommu_run run = viommu_translate(r, iova, bytes, VIOMMU_READ);
 *     if (viommu_run_bytes(run) == 0)
 *         viommu_report(r, iova, VIOMMU_READ, viommu_run_fault(run));
 *     else
 *         ... touch guest memory at run.gpa ...
 *     viommu_leave(r);
 *
 * Theorem: the guest's UNMAP, DETACH or re-ATTACH is answered only after every section (from
 * viommu_enter() to viommu_leave()) that could have seen what it removed has been left. So inside a
 * section a translation may be used to touch guest memory. Nothing that was translated may be used
 * after viommu_leave(), unless viommu_generation() says so.
 *
 * What the caller owes: one section per burst of packets; never block or sleep in one. A process
 * that stays in a section for longer than the daemon allows (reader_stall_ms, 1000 by default) is
 * killed, or is protected no longer: the guest's memory comes first.
 *
 * The theorem holds as long as viommu_connected(). When the daemon dies, readers go on with the
 * last table, in which nothing changes any more; that is right until another daemon serves the
 * guest. Look at viommu_connected() between bursts, and when it is 0, stop, close all and open
 * again.
 *
 * fork(): a child must call nothing but viommu_reader_destroy() and viommu_close().
 *
 * Threads: viommu_open(), viommu_close(), viommu_reader_create(), viommu_reader_destroy() by any
 * thread, one at a time; viommu_connected() and viommu_lost_faults() by any at any time. All calls
 * with a reader by the one thread that owns it.
 *
 * Units: addresses and lengths in bytes. Numbers are in the machine's byte order.
 *
 * Errors: functions that return a pointer return NULL, and viommu_error() then has a text for the
 * operator, which names the thing and the remedy. No function throws or ends the process.
 *
 * ABI: symbols have the version VIOMMU_0. Structures have the size and layout that stands here and
 * never change; a later version adds functions.
 */
#ifndef VIOMMU_H
#define VIOMMU_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/** This process's connection to one guest's table. */
typedef struct viommu_client viommu_client;
/** One thread's view of one endpoint of it. */
typedef struct viommu_reader viommu_reader;

/** What an access does, and what a mapping allows: VIRTIO_IOMMU_MAP_F_* of the specification. */
enum {
    VIOMMU_READ = 1,  /**< the device reads guest memory */
    VIOMMU_WRITE = 2, /**< the device writes it */
    VIOMMU_MMIO = 4   /**< of a mapping: device registers, e.g. an MSI doorbell, not memory */
};

/** Why there is no translation: VIRTIO_IOMMU_FAULT_R_* of the specification. */
enum {
    VIOMMU_FAULT_UNKNOWN = 0,
    VIOMMU_FAULT_DOMAIN = 1, /**< the endpoint is attached to no domain and does not bypass */
    VIOMMU_FAULT_MAPPING = 2 /**< not mapped, or the mapping does not allow the access */
};

/** A question of a burst. 16 bytes. */
struct viommu_lookup {
    uint64_t iova;
    uint64_t bytes;
};

/** An answer. 16 bytes. Read it by viommu_run_*(). */
struct viommu_run {
    uint64_t gpa;    /**< guest-physical address; of a fault: its reason */
    uint64_t length; /**< bits 0-60: bytes, 0 for a fault; bits 61-63: rights */
};

/** Bytes that are contiguous in guest-physical memory from run.gpa on; 0: a fault. */
static inline uint64_t viommu_run_bytes(struct viommu_run run)
{
    return run.length & (((uint64_t)1 << 61) - 1);
}

/** What all of the run allows, asked for or not: VIOMMU_READ | VIOMMU_WRITE | VIOMMU_MMIO. */
static inline unsigned viommu_run_rights(struct viommu_run run)
{
    return (unsigned)(run.length >> 61);
}

/** Whether the guest mapped device registers there. A run is all such or all memory. */
static inline int viommu_run_is_mmio(struct viommu_run run)
{
    return (viommu_run_rights(run) & VIOMMU_MMIO) != 0;
}

/** VIOMMU_FAULT_*. Only when viommu_run_bytes() is 0. */
static inline unsigned viommu_run_fault(struct viommu_run run)
{
    return (unsigned)run.gpa;
}

/**
 * Connect to the daemon of one guest.
 *
 * `path`: the guest's `readers` socket. `timeout_ms`: how long to wait for it to be there and to
 * answer.
 * Errors: NULL: nobody serves the socket; this user may not; too many processes; a daemon of
 * another version.
 */
viommu_client *viommu_open(const char *path, unsigned timeout_ms);

/**
 * Disconnect. The memory goes with the last reader. NULL is allowed.
 */
void viommu_close(viommu_client *v);

/** Why the calling thread's last viommu_open() or viommu_reader_create() failed. Never NULL; valid
 * until the next of them. */
const char *viommu_error(void);

/** The guest's name, as the daemon was told. Valid until viommu_close(). */
const char *viommu_guest(const viommu_client *v);

/**
 * 1 as long as the daemon waits for this process's sections; then 0 for ever.
 * Cost: one system call. Between bursts, and not in each.
 */
int viommu_connected(const viommu_client *v);

/** Faults that could not be reported: more than the daemon takes from one process. */
uint64_t viommu_lost_faults(const viommu_client *v);

/**
 * A reader of `endpoint`: PCI segment << 16 | bus << 8 | device << 3 | function.
 *
 * Errors: NULL: the endpoint is not behind that guest's IOMMU; the process has 64 readers.
 */
viommu_reader *viommu_reader_create(viommu_client *v, uint32_t endpoint);

/** Outside of a section. NULL is allowed. */
void viommu_reader_destroy(viommu_reader *r);

/** Begin a section. Sections of one reader do not nest. Cost: a store and a full fence. */
void viommu_enter(viommu_reader *r);

/** End it. Cost: a store. */
void viommu_leave(viommu_reader *r);

/**
 * A number that says whether what was translated in an earlier section is still right: it is if
 * both sections, each after its viommu_enter(), had the same.
 */
uint64_t viommu_generation(const viommu_reader *r);

/**
 * The longest run, of at most `bytes`, that begins at `iova`, is contiguous in guest-physical
 * memory and allows `access` (VIOMMU_READ | VIOMMU_WRITE) throughout. It crosses mappings that
 * continue one another; ask again where it ends.
 *
 * Inside a section. Errors: a run of 0 bytes.
 */
struct viommu_run viommu_translate(viommu_reader *r, uint64_t iova, uint64_t bytes,
                                   unsigned access);

/**
 * viommu_translate() of each of in[0..n), into out[0..n), with the same answers; their memory
 * accesses overlap. Best with 8 to 64 at a time.
 *
 * Inside a section. Returns how many of them are faults.
 */
unsigned viommu_translate_burst(viommu_reader *r, const struct viommu_lookup *in,
                                struct viommu_run *out, unsigned n, unsigned access);

/**
 * Tell the guest of a fault, by its event queue. Never blocks; what is too much for the daemon is
 * counted, see viommu_lost_faults().
 *
 * Cost: a system call, as long as the daemon takes them (1000 a second by default).
 */
void viommu_report(viommu_reader *r, uint64_t iova, unsigned access, unsigned fault);

#ifdef __cplusplus
}
#endif

#endif /* VIOMMU_H */

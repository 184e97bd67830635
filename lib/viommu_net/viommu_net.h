/* SPDX-License-Identifier: BSD-3-Clause */
/**
 * libviommu_net: a guest's network port in a DPDK program of your own.
 *
 * dpdk-viommu serves a virtio-iommu to a guest. A virtio-net device behind it need not be served by
 * the daemon: any DPDK program can be its backend. The guest's VMM connects to the program's
 * vhost-user socket, and the program gets and gives packets as mbufs. What addresses mean it looks
 * up in the guest's table, which the daemon shares by its `readers` socket: no system call, no
 * lock, no message per packet.
 *
 *     struct viommu_net_options o = VIOMMU_NET_OPTIONS_INIT;
 *     o.readers  = "/run/dpdk-viommu/vm0/readers.sock";
 *     o.endpoint = 0x0020;                                  0000:00:04.0
 *     o.socket   = "/run/switch/vm0-net0.sock";             where the VMM connects
 *     o.pool     = pool;
 *     viommu_net *p = viommu_net_open(&o);
 *
 *     for (;;) {                                            per pair, by one thread
 *         n = viommu_net_rx_burst(p, 0, packets, 32);       what the guest sends
 *         ...
 *         sent = viommu_net_tx_burst(p, 0, packets, n);     what it receives
 *         ... free those from `sent` on ...
 *     }
 *
 * Theorem: no packet touches guest memory that the guest has unmapped. Every burst is a section
 * (viommu.h): the guest's UNMAP is answered when the bursts that could have seen the mapping are
 * over. A packet whose buffer does not translate is dropped and counted; the guest is told of the
 * fault by its IOMMU's event queue, and the queue goes on.
 *
 * What the caller owes: nothing but to come back from its own calls. A thread that is stopped
 * inside a burst while the guest waits for it costs the process its life after the daemon's
 * reader_stall_ms.
 *
 * The daemon may go away and come back: see viommu_net_state(). While it is away nothing
 * translates, as if the endpoint were detached: rx_burst gives nothing, tx_burst takes nothing, no
 * memory of the guest is touched. The port finds the next daemon by itself, and goes on when the
 * guest has attached the endpoint and mapped its rings there. The frontend, too, may go away and
 * come back at any time.
 *
 * Threads:
 *   open, close                  a control thread; not while another thread is in a call with the
 *                                port. EAL has been initialised
 *   rx_burst, poll_control, arm, disarm, sleep_limit   of one pair: one thread at a time
 *   tx_burst                     of one pair: one thread at a time; may be another than rx_burst's
 *   everything else              any, at any time
 * They need not be EAL threads; mbufs are cheaper for those. Threads of different pairs, and of
 * both directions of one, share nothing that they write.
 * A port has a thread of its own, which sleeps until the daemon goes, and blocks all signals.
 * The frontend's messages are handled by librte_vhost's thread; while one changes something, bursts
 * find nothing to do and return 0. They never wait for it.
 *
 * Cost beyond packets: two full fences and a few loads and stores per burst and direction.
 *
 * fork(): a child must call nothing here.
 *
 * Errors: viommu_net_open() returns NULL, and viommu_net_error() then has a text for the operator,
 * which names the thing and the remedy. No function throws or ends the process.
 *
 * ABI: symbols have the version VIOMMU_NET_0. struct viommu_net_options grows at its end only, and
 * begins with its size; a later version adds functions. DPDK's own ABI is that of mbufs and pools:
 * program and library have to use one DPDK.
 */
#ifndef VIOMMU_NET_H
#define VIOMMU_NET_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct rte_mbuf;
struct rte_mempool;

/** A port. */
typedef struct viommu_net viommu_net;

/** viommu_net_options.flags */
enum {
    /** All queues of the device come to this socket, as with a generic vhost-user device of type
     * net: offer the control queue, and with it the guest's own choice of pairs. A VMM that keeps
     * the control queue to itself (QEMU's and Cloud Hypervisor's own vhost-user-net) would take the
     * guest's I/O addresses for guest-physical ones: leave it out there. */
    VIOMMU_NET_CONTROL_QUEUE = 1u << 0,
    VIOMMU_NET_NO_OFFLOADS = 1u << 1, /**< offer neither checksum nor segmentation offloads */
    /** Let the VMM migrate the guest: keep its log of written pages. */
    VIOMMU_NET_DIRTY_LOG = 1u << 2,
    /** What the VMM says about where rings are. Neither: it knows of the IOMMU exactly if it
     * acknowledges VIRTIO_F_ACCESS_PLATFORM. */
    VIOMMU_NET_RINGS_IOVA = 1u << 3, /**< it knows, and sends I/O addresses */
    VIOMMU_NET_RINGS_UVA = 1u << 4,  /**< it does not, and takes them for guest-physical ones */
    /** What rx_burst gives is to be finished: do not let the guest leave out checksums, and so
     * neither the cutting. */
    VIOMMU_NET_NO_RX_CHECKSUM = 1u << 5,
    /** It is to be no larger than the MTU: do not let the guest leave the cutting to others. */
    VIOMMU_NET_NO_RX_LARGE = 1u << 6
};

/** viommu_net_state() */
enum {
    VIOMMU_NET_DAEMON = 1u << 0,   /**< the daemon waits for our bursts: addresses translate */
    VIOMMU_NET_FRONTEND = 1u << 1, /**< a VMM is connected */
    VIOMMU_NET_RUNNING = 1u << 2,  /**< both queues of pair 0 run: the guest's driver is there */
    /** All of them: packets can flow. */
    VIOMMU_NET_UP = VIOMMU_NET_DAEMON | VIOMMU_NET_FRONTEND | VIOMMU_NET_RUNNING
};

/** What a port is. Begin with VIOMMU_NET_OPTIONS_INIT: 0 and NULL are the defaults. */
struct viommu_net_options {
    size_t size;         /**< of this structure, as the program was compiled */
    const char *readers; /**< the `readers` socket of the guest's daemon */
    const char *socket;  /**< vhost-user socket to listen on; made with mode 0600 */
    uint32_t endpoint;   /**< PCI segment << 16 | bus << 8 | device << 3 | function */
    uint32_t flags;      /**< VIOMMU_NET_* */
    struct rte_mempool *pool; /**< for packets from the guest; lives as long as the port */
    uint8_t mac[6];           /**< offered to the guest; all 0: made up, locally administered */
    uint16_t mtu;             /**< offered and enforced; 0: none */
    uint16_t queue_pairs;     /**< 1 to 64; 0: 1 */
    uint16_t reserved;
    uint32_t speed_mbps; /**< offered; 0: none */
    uint32_t timeout_ms; /**< how long open waits for the daemon; 0: 1000 */
    /** Called with viommu_net_state() when it has changed, one call at a time, by librte_vhost's
     * thread or the port's. It must not wait, and may call nothing of the port but
     * viommu_net_state(). NULL: nobody wants to know. */
    void (*event)(void *arg, unsigned state);
    void *event_arg;
};
#define VIOMMU_NET_OPTIONS_INIT \
    {sizeof(struct viommu_net_options), NULL, NULL, 0, 0, NULL, {0, 0, 0, 0, 0, 0}, 0, 0, 0, 0, 0, \
     NULL, NULL}

/**
 * Connect to the daemon, make the port, and begin to listen.
 *
 * Errors: NULL: nobody serves `readers`, or refuses; `endpoint` is not behind that guest's IOMMU;
 * `socket` cannot be made or is in use; options that are out of range, or of a later version.
 */
viommu_net *viommu_net_open(const struct viommu_net_options *options);

/** Disconnect the frontend, which gets its rings back whole, and remove the socket. NULL is
 * allowed. */
void viommu_net_close(viommu_net *p);

/** Why the calling thread's last viommu_net_open() failed. Never NULL; valid until the next. */
const char *viommu_net_error(void);

/* --- packets ---------------------------------------------------------------------------------- */

/*
 * With offloads a packet may be unfinished. It then says so by transmit flags, wherever it comes
 * from: RTE_MBUF_F_TX_TCP_CKSUM or _UDP_CKSUM with the pseudo header's sum in the packet,
 * _TCP_SEG or _UDP_SEG with tso_segsz, and l2_len, l3_len, l4_len. tx_burst takes such packets,
 * and leaves to the guest what that takes; it also takes received ones that say
 * RTE_MBUF_F_RX_L4_CKSUM_NONE, _GOOD or RTE_MBUF_F_RX_LRO. It may write into a packet's headers.
 */

/**
 * Take up to `n` packets that the guest sent by `pair`; they are the caller's. 0 also when the
 * queue does not run.
 */
uint16_t viommu_net_rx_burst(viommu_net *p, uint16_t pair, struct rte_mbuf **packets, uint16_t n);

/**
 * Give packets[0..n) to the guest by `pair`. Returns how many were taken from the front (delivered,
 * or dropped and counted; freed either way); the rest stay the caller's.
 */
uint16_t viommu_net_tx_burst(viommu_net *p, uint16_t pair, struct rte_mbuf **packets, uint16_t n);

/** As the options said. */
uint16_t viommu_net_pairs(const viommu_net *p);
/** Those that the guest uses: as it said by the control queue, else those that run; at least 1. */
uint16_t viommu_net_active_pairs(const viommu_net *p);

/**
 * The pair by which the guest wants `packet`: its hash, if the guest has set up RSS; otherwise
 * `from`, which is the queue it came by, modulo the active pairs.
 */
uint16_t viommu_net_pair_for(const viommu_net *p, const struct rte_mbuf *packet, uint16_t from);

/** Serve the control queue: now and then, by the thread of pair 0. Cost when there is nothing: that
 * of an empty burst. */
void viommu_net_poll_control(viommu_net *p);

/* --- sleeping --------------------------------------------------------------------------------- */

/*
 *     if (nothing has come for a while) {
 *         if (viommu_net_arm(p, 0)) {
 *             struct pollfd fd = {viommu_net_wait_fd(p, 0), POLLIN, 0};
 *             poll(&fd, 1, viommu_net_sleep_limit_us(p, 0) / 1000 ...);
 *         }
 *         viommu_net_disarm(p, 0);
 *     }
 */

/** Ask the guest to tell when it sends by `pair`. 0: do not sleep, there is something already. Of
 * pair 0, the control queue is meant, too. Only what the guest sends wakes: the program knows
 * itself when it has something for the guest. */
int viommu_net_arm(viommu_net *p, uint16_t pair);
/** After arm, whatever it said, and after the sleep. Waits for a change that is under way. */
void viommu_net_disarm(viommu_net *p, uint16_t pair);
/** For poll() or epoll: readable when an armed pair has to be polled again. The same as long as the
 * port lives. Not to be read or closed. */
int viommu_net_wait_fd(const viommu_net *p, uint16_t pair);
/** The longest sleep that the pair bears, in microseconds; UINT32_MAX: any. Asked before each
 * sleep: a queue whose ring is not mapped has nothing to wake by. */
uint32_t viommu_net_sleep_limit_us(viommu_net *p, uint16_t pair);

/* --- state ------------------------------------------------------------------------------------ */

/** VIOMMU_NET_DAEMON, VIOMMU_NET_FRONTEND, VIOMMU_NET_RUNNING. Cost: a load. */
unsigned viommu_net_state(const viommu_net *p);

/** What the guest is told of its carrier, by VIRTIO_NET_F_STATUS; it is on at first. A VMM that
 * does not take news of it tells the guest when it next asks. */
void viommu_net_set_link(viommu_net *p, int up);

/* --- counters --------------------------------------------------------------------------------- */

/** Whose counter. */
enum {
    VIOMMU_NET_FROM_GUEST = 0, /**< of a pair: what rx_burst gives */
    VIOMMU_NET_TO_GUEST = 1,   /**< of a pair: what tx_burst takes */
    VIOMMU_NET_PORT = 2,       /**< of the port; `pair` means nothing */
    VIOMMU_NET_CONTROL = 3     /**< of the control queue, whose packets are commands; the same */
};

/** How many there are, numbered from 0. */
unsigned viommu_net_counters(unsigned whose);
/** A word in snake_case, which stays the same in later versions: "packets", "bytes", "drop_fault"
 * ...; NULL: there is no such. Those that begin with "drop_" count packets, each once. */
const char *viommu_net_counter_name(unsigned whose, unsigned number);
/** Since the port was opened. 0 when there is no such. */
uint64_t viommu_net_counter(const viommu_net *p, uint16_t pair, unsigned whose, unsigned number);

#ifdef __cplusplus
}
#endif

#endif /* VIOMMU_NET_H */

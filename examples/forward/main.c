/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Forward packets between two guests' network ports, in a process that is not dpdk-viommu, which
 * serves these guests' IOMMUs.
 *
 *   forward [EAL OPTION...] -- [OPTION...] READERS,ENDPOINT,SOCKET READERS,ENDPOINT,SOCKET
 *
 *   READERS    the `readers` socket of the guest, made by its daemon
 *   ENDPOINT   the port's endpoint ID, e.g. 0x20 for 0000:00:04.0
 *   SOCKET     vhost-user socket to make, to which the guest's VMM connects
 *   -q PAIRS   queue pairs of each port
 *   -c         all queues come to us: offer the control queue
 *   -b         poll without ever sleeping
 *
 * Prints counters at SIGUSR1, and when SIGINT or SIGTERM ends it.
 *
 *   cc main.c $(pkg-config --cflags --libs libviommu_net)
 */
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_lcore.h>
#include <rte_mbuf.h>
#include <rte_pause.h>
#include <viommu_net.h>

enum { kPorts = 2, kBurst = 32, kMaxPairs = 64, kMbufs = 16384, kCache = 256 };
enum { kIdleRounds = 2000, kLongestSleepMs = 1000 };

static volatile sig_atomic_t stop, report;

static viommu_net *ports[kPorts];
static uint16_t pairs = 1;
static uint64_t not_taken[kPorts]; /* by the port with this number */

static void on_signal(int number)
{
    if (number == SIGUSR1)
        report = 1;
    else
        stop = 1;
}

static int usage(void)
{
    fputs("usage: forward [EAL OPTION...] -- [-b] [-c] [-q PAIRS] PORT PORT\n"
          "       PORT: READERS,ENDPOINT,SOCKET\n",
          stderr);
    return 2;
}

/* "READERS,ENDPOINT,SOCKET", which is taken to pieces. */
static int parse_port(char *text, struct viommu_net_options *o)
{
    char *endpoint = strchr(text, ','), *path, *end;
    if (endpoint == NULL) return 0;
    *endpoint++ = 0;
    path = strchr(endpoint, ',');
    if (path == NULL) return 0;
    *path++ = 0;
    o->readers = text;
    o->socket = path;
    o->endpoint = (uint32_t)strtoul(endpoint, &end, 0);
    return end != endpoint && *end == 0;
}

/* What the other port sent by one pair. Returns how many packets that were. */
static unsigned forward(unsigned from, unsigned to, uint16_t pair)
{
    struct rte_mbuf *packets[kBurst];
    const uint16_t n = viommu_net_rx_burst(ports[from], pair, packets, kBurst);
    uint16_t done = 0;
    while (done < n) {
        /* As many as go to the same pair: all of them, unless the guest has set up RSS. */
        const uint16_t target = viommu_net_pair_for(ports[to], packets[done], pair);
        uint16_t run = 1, sent;
        while (done + run < n &&
               viommu_net_pair_for(ports[to], packets[done + run], pair) == target)
            run++;
        sent = viommu_net_tx_burst(ports[to], target, packets + done, run);
        if (sent < run) /* once more: a guest may just be posting buffers */
            sent = (uint16_t)(sent + viommu_net_tx_burst(ports[to], target, packets + done + sent,
                                                         (uint16_t)(run - sent)));
        if (sent < run) { /* a guest that takes nothing must not hold up the other */
            rte_pktmbuf_free_bulk(packets + done + sent, run - sent);
            not_taken[to] += run - sent;
        }
        done = (uint16_t)(done + run);
    }
    return n;
}

/* Until a guest sends, or a signal comes. */
static void sleep_until_kicked(void)
{
    struct pollfd fds[kPorts * kMaxPairs];
    int may_sleep = 1;
    uint32_t limit_us = kLongestSleepMs * 1000u;
    unsigned n = 0, port;
    uint16_t pair;
    for (port = 0; port < kPorts; port++) {
        for (pair = 0; pair < pairs; pair++) {
            const uint32_t limit = viommu_net_sleep_limit_us(ports[port], pair);
            may_sleep &= viommu_net_arm(ports[port], pair);
            if (limit < limit_us) limit_us = limit;
            fds[n].fd = viommu_net_wait_fd(ports[port], pair);
            fds[n].events = POLLIN;
            n++;
        }
    }
    if (may_sleep && !stop && !report) poll(fds, n, (int)((limit_us + 999) / 1000));
    for (port = 0; port < kPorts; port++)
        for (pair = 0; pair < pairs; pair++) viommu_net_disarm(ports[port], pair);
}

static void print_counter(unsigned port, const char *who, const char *name, uint64_t value)
{
    if (value != 0) printf("forward.port%u%s.%s %" PRIu64 "\n", port, who, name, value);
}

static void print_counters(void)
{
    static const unsigned kinds[] = {VIOMMU_NET_FROM_GUEST, VIOMMU_NET_TO_GUEST, VIOMMU_NET_PORT};
    static const char *const words[] = {".from_guest", ".to_guest", ""};
    unsigned port, kind, i;
    uint16_t pair;
    for (port = 0; port < kPorts; port++) {
        for (kind = 0; kind < 3; kind++) {
            for (i = 0; i < viommu_net_counters(kinds[kind]); i++) {
                uint64_t sum = 0;
                for (pair = 0; pair < (kinds[kind] == VIOMMU_NET_PORT ? 1 : pairs); pair++)
                    sum += viommu_net_counter(ports[port], pair, kinds[kind], i);
                print_counter(port, words[kind], viommu_net_counter_name(kinds[kind], i), sum);
            }
        }
        print_counter(port, "", "not_taken", not_taken[port]);
    }
    puts("forward: end of counters");
    fflush(stdout);
}

/* Says when packets can flow, and when no longer. */
static void on_event(void *arg, unsigned state)
{
    fprintf(stderr, "forward: port %u: daemon %s, VMM %s, driver %s\n",
            (unsigned)(uintptr_t)arg, state & VIOMMU_NET_DAEMON ? "there" : "away",
            state & VIOMMU_NET_FRONTEND ? "there" : "away",
            state & VIOMMU_NET_RUNNING ? "running" : "stopped");
}

static void run(int busy)
{
    unsigned idle = 0;
    while (!stop) {
        unsigned moved = 0;
        uint16_t pair;
        for (pair = 0; pair < pairs; pair++) {
            moved += forward(0, 1, pair);
            moved += forward(1, 0, pair);
        }
        viommu_net_poll_control(ports[0]);
        viommu_net_poll_control(ports[1]);
        if (report) {
            report = 0;
            print_counters();
        }
        if (moved != 0 || busy)
            idle = 0;
        else if (idle++ < kIdleRounds)
            rte_pause();
        else
            sleep_until_kicked();
    }
}

int main(int argc, char **argv)
{
    struct viommu_net_options o[kPorts] = {VIOMMU_NET_OPTIONS_INIT, VIOMMU_NET_OPTIONS_INIT};
    struct rte_mempool *pool;
    struct sigaction action;
    unsigned port, flags = 0;
    int option, busy = 0, status = 1;
    const int eal = rte_eal_init(argc, argv);
    if (eal < 0) {
        fprintf(stderr, "forward: EAL does not start: %s\n", rte_strerror(rte_errno));
        return 1;
    }
    argc -= eal;
    argv += eal;
    while ((option = getopt(argc, argv, "bcq:")) != -1) {
        if (option == 'b')
            busy = 1;
        else if (option == 'c')
            flags |= VIOMMU_NET_CONTROL_QUEUE;
        else if (option == 'q')
            pairs = (uint16_t)atoi(optarg);
        else
            return usage();
    }
    if (argc - optind != kPorts || pairs == 0 || pairs > kMaxPairs) return usage();

    memset(&action, 0, sizeof action);
    action.sa_handler = on_signal;
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGUSR1, &action, NULL);

    pool = rte_pktmbuf_pool_create("forward", kMbufs, kCache, 0, RTE_MBUF_DEFAULT_BUF_SIZE,
                                   SOCKET_ID_ANY);
    if (pool == NULL) {
        fprintf(stderr, "forward: no memory for %d packets: %s; give EAL more (-m)\n", kMbufs,
                rte_strerror(rte_errno));
        return 1;
    }
    for (port = 0; port < kPorts; port++) {
        if (!parse_port(argv[optind + (int)port], &o[port])) return usage();
        o[port].pool = pool;
        o[port].queue_pairs = pairs;
        o[port].flags = flags;
        o[port].timeout_ms = 10000;
        o[port].event = on_event;
        o[port].event_arg = (void *)(uintptr_t)port;
        ports[port] = viommu_net_open(&o[port]);
        if (ports[port] == NULL) {
            fprintf(stderr, "forward: %s\n", viommu_net_error());
            break;
        }
    }
    if (port == kPorts) {
        puts("forward: ready");
        fflush(stdout);
        run(busy);
        print_counters();
        status = 0;
    }
    for (port = 0; port < kPorts; port++) viommu_net_close(ports[port]);
    rte_mempool_free(pool);
    rte_eal_cleanup();
    return status;
}

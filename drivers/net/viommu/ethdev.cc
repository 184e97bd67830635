// SPDX-License-Identifier: BSD-3-Clause
/// net_viommu: a guest's network port behind a virtio-iommu of dpdk-viommu, as an Ethernet device.
///
/// The application's queue i is the guest's pair i. The vhost-user socket exists from the first
/// start to close; it offers as many pairs as the application has configured queues, so that there
/// is none that nobody polls. Between stop and start the guest's carrier is off.
///
/// What a guest may leave undone is what the application has said that it can deal with: checksums
/// with RX_OFFLOAD_TCP_CKSUM and _UDP_CKSUM, cutting with these and RX_OFFLOAD_TCP_LRO. Such
/// packets say so by receive flags, and keep their transmit flags, by which they go on to another
/// port as they are.
#include "sdk.hh"
// DPDK's come first: they must be C++ clean by themselves.
#include <rte_ether.h>
#include <rte_malloc.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <memory>
#include <vector>

#include "arguments.hh"
#include "eal_log.hh"

namespace viommu::pmd {
namespace {

const EalLog log("pmd.net.viommu");

struct Closer {
    void operator()(viommu_net* net) const { viommu_net_close(net); }
};

/// What a burst needs.
struct Queue {
    viommu_net* net;
    uint16_t pair;
    uint16_t port;
    bool control;  ///< serves the control queue, too
};

/// A counter of the library as an xstat.
struct Source {
    uint16_t pair;
    uint8_t whose;
    uint8_t number;
    uint64_t at_reset;
};

struct Device {
    Device(rte_eth_dev* the_eth, Arguments the_arguments)
        : eth(the_eth), arguments(std::move(the_arguments)) {}

    rte_eth_dev* const eth;
    const Arguments arguments;
    rte_ether_addr mac{};
    std::unique_ptr<viommu_net, Closer> net;
    viommu_net_options opened{};  ///< what `net` was opened with
    uint16_t wanted_mtu = 0;      ///< 0: none is offered
    rte_mempool* pool = nullptr;  ///< of all receive queues
    std::vector<Source> sources;
    std::atomic<unsigned> state{0};  ///< the library's, as it last told
    std::atomic<bool> started{false};
};

/// rte_eth_dev_data.dev_private: the C++ object is not in DPDK's memory, which is zeroed and freed
/// without a destructor.
struct Private {
    Device* device;
};

Device& device_of(rte_eth_dev* eth) {
    return *static_cast<Private*>(eth->data->dev_private)->device;
}

// --- link ----------------------------------------------------------------------------------------

bool update_link(Device& d) {
    rte_eth_link link{};
    const bool up = d.started.load(std::memory_order_acquire) &&
                    d.state.load(std::memory_order_acquire) == VIOMMU_NET_UP;
    link.link_speed = d.arguments.options.speed_mbps != 0 ? d.arguments.options.speed_mbps
                                                          : uint32_t(RTE_ETH_SPEED_NUM_10G);
    link.link_duplex = RTE_ETH_LINK_FULL_DUPLEX;
    link.link_autoneg = RTE_ETH_LINK_FIXED;
    link.link_status = up ? RTE_ETH_LINK_UP : RTE_ETH_LINK_DOWN;
    return rte_eth_linkstatus_set(d.eth, &link) == 0;
}

/// By the library's threads.
void on_state(void* arg, unsigned state) {
    auto& d = *static_cast<Device*>(arg);
    d.state.store(state, std::memory_order_release);
    if (update_link(d) && d.eth->data->dev_conf.intr_conf.lsc != 0)
        rte_eth_dev_callback_process(d.eth, RTE_ETH_EVENT_INTR_LSC, nullptr);
}

int link_update(rte_eth_dev* eth, int) {
    return update_link(device_of(eth)) ? 0 : -1;  // -1: it is what it was
}

// --- packets -------------------------------------------------------------------------------------

/// Of a packet from the guest, which has transmit flags when it is unfinished.
uint64_t receive_flags(uint64_t transmit_flags) {
    uint64_t flags = 0;
    if ((transmit_flags & RTE_MBUF_F_TX_L4_MASK) != 0) flags |= RTE_MBUF_F_RX_L4_CKSUM_NONE;
    if ((transmit_flags & (RTE_MBUF_F_TX_TCP_SEG | RTE_MBUF_F_TX_UDP_SEG)) != 0)
        flags |= RTE_MBUF_F_RX_LRO;
    return flags;
}

uint16_t receive(void* queue, rte_mbuf** packets, uint16_t n) {
    const auto& q = *static_cast<const Queue*>(queue);
    if (q.control) viommu_net_poll_control(q.net);
    const uint16_t got = viommu_net_rx_burst(q.net, q.pair, packets, n);
    for (uint16_t i = 0; i < got; ++i) {
        packets[i]->port = q.port;
        packets[i]->ol_flags |= receive_flags(packets[i]->ol_flags);
    }
    return got;
}

uint16_t send(void* queue, rte_mbuf** packets, uint16_t n) {
    const auto& q = *static_cast<const Queue*>(queue);
    return viommu_net_tx_burst(q.net, q.pair, packets, n);
}

// --- configuration -------------------------------------------------------------------------------

constexpr uint64_t kRxChecksum = RTE_ETH_RX_OFFLOAD_TCP_CKSUM | RTE_ETH_RX_OFFLOAD_UDP_CKSUM;

int infos_get(rte_eth_dev* eth, rte_eth_dev_info* info) {
    const Device& d = device_of(eth);
    info->max_mac_addrs = 1;
    info->max_rx_queues = info->max_tx_queues = d.arguments.queues;
    info->min_rx_bufsize = 0;
    info->min_mtu = RTE_ETHER_MIN_MTU;
    info->max_mtu = 65535;
    // lib/net's largest: a whole IPv6 packet behind two VLAN tags.
    info->max_rx_pktlen = info->max_lro_pkt_size =
        RTE_ETHER_HDR_LEN + 2 * RTE_VLAN_HLEN + 40 + 65535;
    // What the guest does not take unfinished is finished here.
    info->tx_offload_capa = RTE_ETH_TX_OFFLOAD_MULTI_SEGS | RTE_ETH_TX_OFFLOAD_IPV4_CKSUM |
                            RTE_ETH_TX_OFFLOAD_UDP_CKSUM | RTE_ETH_TX_OFFLOAD_TCP_CKSUM |
                            RTE_ETH_TX_OFFLOAD_TCP_TSO;
    info->rx_offload_capa = RTE_ETH_RX_OFFLOAD_SCATTER;
    if ((d.arguments.options.flags & VIOMMU_NET_NO_OFFLOADS) == 0)
        info->rx_offload_capa |= kRxChecksum | RTE_ETH_RX_OFFLOAD_TCP_LRO;
    return 0;
}

int configure(rte_eth_dev*) { return 0; }

int rx_queue_setup(rte_eth_dev* eth, uint16_t id, uint16_t, unsigned, const rte_eth_rxconf*,
                   rte_mempool* pool) {
    Device& d = device_of(eth);
    if (pool == nullptr || (d.pool != nullptr && d.pool != pool && id != 0)) {
        log(RTE_LOG_ERR, "port {}: receive queue {}: all queues have to use one packet pool",
            eth->data->port_id, id);
        return -EINVAL;
    }
    d.pool = pool;
    auto* queue = new (std::nothrow) Queue{};
    eth->data->rx_queues[id] = queue;
    return queue == nullptr ? -ENOMEM : 0;
}

int tx_queue_setup(rte_eth_dev* eth, uint16_t id, uint16_t, unsigned, const rte_eth_txconf*) {
    auto* queue = new (std::nothrow) Queue{};
    eth->data->tx_queues[id] = queue;
    return queue == nullptr ? -ENOMEM : 0;
}

void release(void*& queue) {
    delete static_cast<Queue*>(queue);
    queue = nullptr;
}
void rx_queue_release(rte_eth_dev* eth, uint16_t id) { release(eth->data->rx_queues[id]); }
void tx_queue_release(rte_eth_dev* eth, uint16_t id) { release(eth->data->tx_queues[id]); }

/// What the guest accepted holds until its device is made anew, so it is at the next start.
int mtu_set(rte_eth_dev* eth, uint16_t mtu) {
    Device& d = device_of(eth);
    if (mtu == d.wanted_mtu) return 0;
    if (eth->data->dev_started != 0) return -EBUSY;
    d.wanted_mtu = mtu;
    return 0;
}

int mac_addr_set(rte_eth_dev* eth, rte_ether_addr* mac) {
    Device& d = device_of(eth);
    if (rte_is_same_ether_addr(mac, &d.mac)) return 0;
    if (eth->data->dev_started != 0) return -EBUSY;
    d.mac = *mac;
    return 0;
}

// Whatever the guest sends comes, whoever it is for.
int nothing_to_do(rte_eth_dev*) { return 0; }

// --- start, stop, close --------------------------------------------------------------------------

void list_sources(Device& d) {
    d.sources.clear();
    const auto add = [&](uint16_t pair, uint8_t whose) {
        for (uint8_t i = 0; i < viommu_net_counters(whose); ++i)
            d.sources.push_back({pair, whose, i, 0});
    };
    for (uint16_t pair = 0; pair < d.opened.queue_pairs; ++pair) {
        add(pair, VIOMMU_NET_FROM_GUEST);
        add(pair, VIOMMU_NET_TO_GUEST);
    }
    add(0, VIOMMU_NET_PORT);
    if ((d.opened.flags & VIOMMU_NET_CONTROL_QUEUE) != 0) add(0, VIOMMU_NET_CONTROL);
}

viommu_net_options wanted(Device& d) {
    viommu_net_options o = d.arguments.options;
    o.readers = d.arguments.arena.c_str();
    o.socket = d.arguments.iface.c_str();
    o.pool = d.pool;
    o.queue_pairs = std::max(d.eth->data->nb_rx_queues, d.eth->data->nb_tx_queues);
    o.mtu = d.wanted_mtu;
    const uint64_t offloads = d.eth->data->dev_conf.rxmode.offloads;
    if ((offloads & kRxChecksum) != kRxChecksum) o.flags |= VIOMMU_NET_NO_RX_CHECKSUM;
    if ((offloads & RTE_ETH_RX_OFFLOAD_TCP_LRO) == 0) o.flags |= VIOMMU_NET_NO_RX_LARGE;
    std::memcpy(o.mac, d.mac.addr_bytes, sizeof o.mac);
    o.event = on_state;
    o.event_arg = &d;
    return o;
}

bool differs(const viommu_net_options& a, const viommu_net_options& b) {
    return a.pool != b.pool || a.queue_pairs != b.queue_pairs || a.mtu != b.mtu ||
           a.flags != b.flags ||
           std::memcmp(a.mac, b.mac, sizeof a.mac) != 0;
}

int open(Device& d) {
    const viommu_net_options o = wanted(d);
    if (d.net && !differs(o, d.opened)) return 0;
    d.net.reset();
    d.state.store(0, std::memory_order_release);
    d.net.reset(viommu_net_open(&o));
    if (!d.net) {
        log(RTE_LOG_ERR, "port {}: {}", d.eth->data->port_id, viommu_net_error());
        return -EIO;
    }
    d.opened = o;
    d.state.store(viommu_net_state(d.net.get()), std::memory_order_release);
    list_sources(d);
    return 0;
}

void set_queue_states(rte_eth_dev* eth, uint8_t state) {
    for (uint16_t i = 0; i < eth->data->nb_rx_queues; ++i) eth->data->rx_queue_state[i] = state;
    for (uint16_t i = 0; i < eth->data->nb_tx_queues; ++i) eth->data->tx_queue_state[i] = state;
}

int start(rte_eth_dev* eth) {
    Device& d = device_of(eth);
    if (const int error = open(d); error != 0) return error;
    const bool control = (d.arguments.options.flags & VIOMMU_NET_CONTROL_QUEUE) != 0;
    for (uint16_t i = 0; i < eth->data->nb_rx_queues; ++i)
        *static_cast<Queue*>(eth->data->rx_queues[i]) = {d.net.get(), i, eth->data->port_id,
                                                         control && i == 0};
    for (uint16_t i = 0; i < eth->data->nb_tx_queues; ++i)
        *static_cast<Queue*>(eth->data->tx_queues[i]) = {d.net.get(), i, eth->data->port_id, false};
    set_queue_states(eth, RTE_ETH_QUEUE_STATE_STARTED);
    viommu_net_set_link(d.net.get(), 1);
    d.started.store(true, std::memory_order_release);
    update_link(d);
    return 0;
}

int stop(rte_eth_dev* eth) {
    Device& d = device_of(eth);
    eth->data->dev_started = 0;
    d.started.store(false, std::memory_order_release);
    if (d.net) viommu_net_set_link(d.net.get(), 0);
    set_queue_states(eth, RTE_ETH_QUEUE_STATE_STOPPED);
    update_link(d);
    return 0;
}

int close(rte_eth_dev* eth) {
    if (rte_eal_process_type() != RTE_PROC_PRIMARY) return 0;
    stop(eth);
    for (uint16_t i = 0; i < eth->data->nb_rx_queues; ++i) rx_queue_release(eth, i);
    for (uint16_t i = 0; i < eth->data->nb_tx_queues; ++i) tx_queue_release(eth, i);
    delete static_cast<Private*>(eth->data->dev_private)->device;
    static_cast<Private*>(eth->data->dev_private)->device = nullptr;
    eth->data->mac_addrs = nullptr;  // was the Device's
    return 0;
}

// --- counters ------------------------------------------------------------------------------------

uint64_t value_of(const Device& d, const Source& s) {
    return viommu_net_counter(d.net.get(), s.pair, s.whose, s.number);
}

int stats_get(rte_eth_dev* eth, rte_eth_stats* stats VIOMMU_QUEUE_STATS_PARAMETER) {
    const Device& d = device_of(eth);
    for (const Source& s : d.sources) {
        const std::string_view name = viommu_net_counter_name(s.whose, s.number);
        const uint64_t value = value_of(d, s) - s.at_reset;
        const bool rx = s.whose == VIOMMU_NET_FROM_GUEST;
        if (s.whose != VIOMMU_NET_FROM_GUEST && s.whose != VIOMMU_NET_TO_GUEST) continue;
        if (name == "packets")
            (rx ? stats->ipackets : stats->opackets) += value;
        else if (name == "bytes")
            (rx ? stats->ibytes : stats->obytes) += value;
        else if (name.starts_with("drop_"))
            (rx ? stats->ierrors : stats->oerrors) += value;
        else if (name == "no_mbuf" && rx)
            stats->rx_nombuf += value;
    }
    return 0;
}

int stats_reset(rte_eth_dev* eth) {
    Device& d = device_of(eth);
    for (Source& s : d.sources) s.at_reset = value_of(d, s);
    return 0;
}

int xstats_get_names(rte_eth_dev* eth, rte_eth_xstat_name* names, unsigned n) {
    const Device& d = device_of(eth);
    const auto count = unsigned(d.sources.size());
    if (names == nullptr || n < count) return int(count);
    for (unsigned i = 0; i < count; ++i) {
        const Source& s = d.sources[i];
        const char* name = viommu_net_counter_name(s.whose, s.number);
        if (s.whose == VIOMMU_NET_PORT)
            snprintf(names[i].name, sizeof names[i].name, "%s", name);
        else if (s.whose == VIOMMU_NET_CONTROL)
            snprintf(names[i].name, sizeof names[i].name, "control_%s", name);
        else
            snprintf(names[i].name, sizeof names[i].name, "%s_q%u_%s",
                     s.whose == VIOMMU_NET_FROM_GUEST ? "rx" : "tx", s.pair, name);
    }
    return int(count);
}

int xstats_get(rte_eth_dev* eth, rte_eth_xstat* out, unsigned n) {
    const Device& d = device_of(eth);
    const auto count = unsigned(d.sources.size());
    if (out == nullptr || n < count) return int(count);
    for (unsigned i = 0; i < count; ++i)
        out[i] = {.id = i, .value = value_of(d, d.sources[i]) - d.sources[i].at_reset};
    return int(count);
}

constexpr eth_dev_ops kOps = [] {
    eth_dev_ops ops{};
    ops.dev_configure = configure;
    ops.dev_start = start;
    ops.dev_stop = stop;
    ops.dev_close = close;
    ops.dev_infos_get = infos_get;
    ops.link_update = link_update;
    ops.rx_queue_setup = rx_queue_setup;
    ops.tx_queue_setup = tx_queue_setup;
    ops.rx_queue_release = rx_queue_release;
    ops.tx_queue_release = tx_queue_release;
    ops.mtu_set = mtu_set;
    ops.mac_addr_set = mac_addr_set;
    ops.promiscuous_enable = ops.promiscuous_disable = nothing_to_do;
    ops.allmulticast_enable = ops.allmulticast_disable = nothing_to_do;
    ops.stats_get = stats_get;
    ops.stats_reset = ops.xstats_reset = stats_reset;
    ops.xstats_get = xstats_get;
    ops.xstats_get_names = xstats_get_names;
    return ops;
}();

// --- the bus -------------------------------------------------------------------------------------

int probe_with(rte_vdev_device* vdev, const Arguments& arguments) {
    rte_eth_dev* eth = rte_eth_vdev_allocate(vdev, sizeof(Private));
    if (eth == nullptr) return -ENOMEM;
    auto device = std::make_unique<Device>(eth, arguments);
    device->wanted_mtu = arguments.mtu;
    std::memcpy(device->mac.addr_bytes, arguments.options.mac, sizeof device->mac);
    if (rte_is_zero_ether_addr(&device->mac)) rte_eth_random_addr(device->mac.addr_bytes);
    rte_eth_dev_data* data = eth->data;
    data->nb_rx_queues = data->nb_tx_queues = arguments.queues;
    data->mac_addrs = &device->mac;
    data->dev_flags = RTE_ETH_DEV_INTR_LSC;
    data->promiscuous = data->all_multicast = 1;
    eth->dev_ops = &kOps;
    eth->rx_pkt_burst = receive;
    eth->tx_pkt_burst = send;
    update_link(*device);
    static_cast<Private*>(data->dev_private)->device = device.release();
    rte_eth_dev_probing_finish(eth);
    return 0;
}

int probe(rte_vdev_device* vdev) noexcept {
    const char* name = rte_vdev_device_name(vdev);
    if (rte_eal_process_type() != RTE_PROC_PRIMARY) {
        log(RTE_LOG_ERR, "{}: not in secondary processes: let each have a port of its own", name);
        return -ENOTSUP;
    }
    try {
        const auto arguments = parse(rte_vdev_device_args(vdev));
        if (arguments) return probe_with(vdev, *arguments);
        log(RTE_LOG_ERR, "{}: {}", name, arguments.error().message);
        return -EINVAL;
    } catch (const std::exception& e) {
        log(RTE_LOG_ERR, "{}: {}", name, e.what());
        return -ENOMEM;
    }
}

int remove(rte_vdev_device* vdev) noexcept {
    rte_eth_dev* eth = rte_eth_dev_allocated(rte_vdev_device_name(vdev));
    if (eth == nullptr) return 0;
    close(eth);
    return rte_eth_dev_release_port(eth);
}

// Before any code runs: RTE_PMD_REGISTER_VDEV's, too, which writes into it.
constinit rte_vdev_driver driver = [] {
    rte_vdev_driver d{};
    d.probe = probe;
    d.remove = remove;
    return d;
}();

}  // namespace
}  // namespace viommu::pmd

using viommu::pmd::driver;
RTE_PMD_REGISTER_VDEV(net_viommu, driver);
RTE_PMD_REGISTER_PARAM_STRING(net_viommu, VIOMMU_PMD_KEYS);

// SPDX-License-Identifier: BSD-3-Clause
/// `dpdk-viommu-perf net`: packets between a guest in user space and its virtio-net device on
/// another core, whoever the device is.
///
///   net_traffic.hh  the device's end of the packets, the same for all
///   net_guest.hh    the guest's end, and the thread of devices
///   net_ours.cc     our port and our virtio-iommu
///   net_vhost.cc    librte_vhost; net_vmm.hh the VMM that keeps its IOTLB
///   net_report.hh   tables, charts, targets
#include <fmt/format.h>

#include <cstdlib>
#include <filesystem>

#include "net_report.hh"
#include "ping_pong.hh"

namespace viommu::perf {
namespace {

/// Sockets are in it.
class Folder {
  public:
    static Result<Folder> make() {
        std::string path = "/tmp/dpdk-viommu-perf-XXXXXX";
        if (mkdtemp(path.data()) == nullptr) return fail("{}: cannot be made", path);
        return Folder(path);
    }
    ~Folder() {
        std::error_code ignored;
        if (!path_.empty()) std::filesystem::remove_all(path_, ignored);
    }
    Folder(Folder&& other) noexcept : path_(std::exchange(other.path_, {})) {}
    Folder& operator=(Folder&&) = delete;

    /// One inside.
    Result<std::string> sub(const std::string& name) const {
        std::error_code error;
        const std::string path = path_ + "/" + name;
        std::filesystem::create_directory(path, error);
        if (error) return fail("{}: {}", path, error.message());
        return path;
    }

  private:
    explicit Folder(std::string path) : path_(std::move(path)) {}
    std::string path_;
};

Result<std::unique_ptr<NetSubject>> enter(const NetEntrant& entrant, const PacketCase& c,
                                          PacketPools& pools, const std::string& folder) {
    return entrant.ours ? make_ours(c, entrant.maps, pools, folder)
                        : make_vhost(c, entrant.maps, entrant.iotlb, pools, folder);
}

std::vector<PacketCase> cases(const Options& options) {
    std::vector<PacketCase> all;
    for (const uint32_t bytes : {64u, 512u, 1500u, 9000u})
        for (const Way way : {Way::kFromGuest, Way::kToGuest, Way::kBoth})
            for (const bool packed : {false, true}) {
                const bool judged = bytes == 64 || bytes == 1500;
                const bool wanted = options.pace.quick ? judged && way == Way::kBoth
                                                       : judged || way == Way::kBoth;
                if (options.all || wanted) all.push_back({bytes, way, packed});
            }
    return all;
}

/// librte_vhost 22.11 takes a packet out of a packed ring without delivering it when its address
/// misses the IOTLB (fill_vec_buf_packed() counts the descriptor before it translates, and
/// virtio_dev_tx_single_packed() then skips it). Whether this one does; empty: no.
Result<std::string> packed_misses_lose(PacketPools& pools, const Folder& folder) {
    const auto path = folder.sub("packed");
    if (!path) return tl::unexpected(path.error());
    auto vhost =
        make_vhost({64, Way::kFromGuest, true}, Maps::kStrict, Iotlb::kEach, pools, *path);
    if (!vhost) return tl::unexpected(vhost.error());
    if (auto ok = (*vhost)->connect(); !ok) return tl::unexpected(ok.error());
    (*vhost)->set_patience(1e9);
    const auto ok = (*vhost)->verify(64);
    return ok ? std::string() : ok.error().message;
}

/// A virtual machine's cores may move while this runs; cases before and after are then not alike.
std::string distance(const std::vector<double>& ping_pong) {
    std::string each;
    for (const double ns : ping_pong) each += (each.empty() ? "" : ", ") + number_text(ns);
    return "a cache line to the other core and back, ns, before each case in turn: " + each;
}

/// Everyone who can, one case, interleaved.
class Heat {
  public:
    Heat(const Options& options, const PacketCase& c) : pace_(options.pace), case_(c) {}

    Result<void> enter_all(PacketPools& pools, const Folder& folder, bool packed_loses) {
        for (const NetEntrant& e : kNetEntrants) {
            const bool misses = e.iotlb != Iotlb::kNone && e.maps != Maps::k1G;
            if (packed_loses && misses && case_.packed && case_.from_guest()) continue;
            const auto path = folder.sub(fmt::format("{}", serial_++));
            if (!path) return tl::unexpected(path.error());
            auto subject = enter(e, case_, pools, *path);
            if (!subject) return fail("{}: {}", e.name, subject.error().message);
            entrants_.push_back({&e, std::move(*subject)});
        }
        for (auto& e : entrants_) {
            auto ok = e.subject->connect();
            if (ok) ok = e.subject->verify(quick() ? 300 : 1000);
            if (!ok) return fail("{}: {}", e.what->name, ok.error().message);
        }
        return {};
    }

    Result<NetMeasured> run() {
        std::vector<Subject> subjects;
        for (auto& entrant : entrants_) {
            NetSubject& s = *entrant.subject;
            const std::string name = entrant.what->name;
            // A few hundred packets even where each takes 30 us.
            const double window_ns = (entrant.what->is_dynamic() ? 20e6 : 8e6) / (quick() ? 4 : 1);
            subjects.push_back({name, [this, &s, name, window_ns] {
                                    return sample(name, s.rate(window_ns));
                                }});
            if (entrant.what->is_dynamic()) continue;
            const double turns_ns = quick() ? 0.5e6 : 2e6;
            subjects.push_back({device(name), [this, &s, name, turns_ns] {
                                    auto ns = s.device_time(turns_ns);
                                    if (ns) *ns = 1e3 / *ns;
                                    return sample(name, ns);
                                }});
        }
        const auto measured = measure(subjects, pace_);
        if (!trouble_.empty()) return fail("{}", trouble_);
        NetMeasured m{case_, {}, {}};
        for (const auto& entrant : entrants_) {
            const std::string name = entrant.what->name;
            m.both_ends.push_back(find(measured, name));
            if (entrant.what->is_dynamic()) continue;
            m.device.push_back(find(measured, device(name)));
            m.device.back().name = name;
        }
        return m;
    }

  private:
    struct Entered {
        const NetEntrant* what;
        std::unique_ptr<NetSubject> subject;
    };
    static std::string device(const std::string& name) { return name + ", device"; }
    bool quick() const { return pace_.quick; }

    /// The first trouble ends it.
    Sample sample(const std::string& name, const Result<double>& value) {
        if (value) return {*value};
        if (trouble_.empty()) trouble_ = name + ": " + value.error().message;
        return {};
    }

    const Pace pace_;
    const PacketCase case_;
    std::vector<Entered> entrants_;
    std::string trouble_;
    static inline unsigned serial_ = 0;
};

}  // namespace

Result<void> run_net(const Options& options, Results& results) {
    if (auto ok = DeviceThread::start_eal(options.cpu(0), options.cpu(1)); !ok) return ok;
    auto pools = PacketPools::create();
    if (!pools) return tl::unexpected(pools.error());
    const auto folder = Folder::make();
    if (!folder) return tl::unexpected(folder.error());
    const auto loss = packed_misses_lose(**pools, *folder);
    if (!loss) return tl::unexpected(loss.error());

    std::vector<std::string> notes;
    if (!loss->empty())
        notes.push_back(
            fmt::format("librte_vhost with an IOTLB that can miss is not measured where packets "
                        "come from packed rings: it loses each packet that misses ({})",
                        *loss));
    if (options.cpus.size() < 2)
        notes.push_back("guest and device share a CPU: time-sliced, of no use as figures");
    std::vector<NetMeasured> all;
    std::vector<double> ping_pong;
    for (const PacketCase& c : cases(options)) {
        ping_pong.push_back(PingPong(options.cpu(1)).measure(2000));
        Heat heat(options, c);
        if (auto ok = heat.enter_all(**pools, *folder, !loss->empty()); !ok) return ok;
        auto measured = heat.run();
        if (!measured) return tl::unexpected(measured.error());
        all.push_back(std::move(*measured));
    }
    if (auto ok = (*pools)->check_complete(); !ok) return ok;
    notes.push_back(distance(ping_pong));
    report_net(all, notes, results);
    return {};
}

}  // namespace viommu::perf

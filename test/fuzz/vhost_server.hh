// SPDX-License-Identifier: BSD-3-Clause
/// The whole daemon in this process, and what is asked of it after a hostile frontend has left.
#pragma once

#include <dirent.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <filesystem>
#include <set>
#include <string>
#include <thread>

#include "app/viommu/daemon.hh"
#include "app/viommu/eal.hh"
#include "input.hh"
#include "viommu_guest.hh"

namespace viommu::fuzz {

/// Open file descriptors of this process.
inline std::set<int> open_fds() {
    std::set<int> fds;
    DIR* dir = opendir("/proc/self/fd");
    require(dir != nullptr, "no /proc/self/fd");
    while (const dirent* entry = readdir(dir)) {
        const std::string_view name(entry->d_name);
        int fd = -1;
        if (std::from_chars(name.data(), name.data() + name.size(), fd).ec == std::errc{} &&
            fd != dirfd(dir))
            fds.insert(fd);
    }
    closedir(dir);
    return fds;
}

/// One guest with an IOMMU and two NICs that are patched to one another, served on one lcore by a
/// real librte_vhost. Made once; never destroyed.
class Server {
  public:
    static constexpr EndpointId kEndpoints[] = {0x20, 0x28};

    static Server& get() {
        static Server& server = *new Server;
        return server;
    }

    /// 0: the IOMMU; 1, 2: NICs.
    const std::string& socket(unsigned i) const { return sockets_[i]; }

    /// The frontends of `input` are gone: their file descriptors must be, and a guest that behaves
    /// is served. `leaks`: how many descriptors librte_vhost may have kept (it is known to).
    ///
    /// A good guest takes longer than most inputs, so it comes after every eighth; what it finds
    /// wrong, one of these has done, and they are written to files. VIOMMU_FUZZ_EACH: after each.
    void check(std::span<const uint8_t> input, unsigned leaks) {
        static const bool each = std::getenv("VIOMMU_FUZZ_EACH") != nullptr;
        recent_.emplace_back(input.begin(), input.end());
        on_finding = [] { get().keep_recent(); };
        check_fds(leaks);
        if (recent_.size() < 8 && !each) return;
        serve_good_guest();
        check_fds(0);
        recent_.clear();
    }

  private:
    Server() {
        const std::string text = fmt::format(
            "[[guest]]\nname='vm0'\nsocket='{}'\nlcore=1\narena='4M'\nmax_domains=16\n"
            "[[guest.net]]\nname='net0'\nsocket='{}'\nendpoint='0:04.0'\npeer='guest:vm0/net1'\n"
            "[[guest.net]]\nname='net1'\nsocket='{}'\nendpoint='0:05.0'\n",
            sockets_[0], sockets_[1], sockets_[2]);
        auto config = app::parse_config(text, "fuzz.toml");
        require(config.has_value(), "{}", config ? "" : config.error().front());
        config_ = std::move(*config);
        auto machine = app::this_machine();
        machine.hugepages = false;
        auto arguments = app::default_eal_arguments(app::lcores_of(config_), machine);
        arguments.push_back("--log-level=*:1");
        const auto started = app::start_eal(arguments);
        require(started.has_value(), "{}", started ? "" : started.error().message);
        app::Devices devices;
        devices.push_back(std::move(*device::Device::create(config_.guests[0].device)));
        auto daemon = app::Daemon::create(config_, std::move(devices));
        require(daemon.has_value(), "{}", daemon ? "" : daemon.error().message);
        daemon_ = std::move(*daemon);
        serve_good_guest();  // what is allocated once is allocated now
        fds_ = open_fds();
        std::atexit([] {
            get().daemon_->stop();  // before what its threads use is destroyed
            std::filesystem::remove_all(get().directory_);
        });
    }

    /// Wait, for librte_vhost closes in its own time, however long that is on a busy machine; then
    /// close what it has forgotten, so that later inputs find the same process. Not before it has
    /// done with every connection: what it still uses is not forgotten.
    void check_fds(unsigned leaks) {
        std::set<int> now;
        for (int waited = 0, calm = 0; waited < 30'000 && calm < 50; ++waited) {
            now = open_fds();
            if (now.size() <= fds_.size()) return;
            calm = now.size() <= fds_.size() + leaks && !serves_somebody(now) ? calm + 1 : 0;
            std::this_thread::sleep_for(std::chrono::milliseconds(1));
        }
        require(!serves_somebody(now), "a connection is not ended after its other end was closed");
        require(now.size() <= fds_.size() + leaks, "{} file descriptors leaked, {} may",
                now.size() - fds_.size(), leaks);
        for (const int fd : now)
            if (!fds_.contains(fd)) close(fd);
    }
    /// The server's end of a connection has the address of the socket that it listens at.
    bool serves_somebody(const std::set<int>& fds) const {
        return std::ranges::any_of(fds, [&](int fd) {
            sockaddr_un address{};
            socklen_t bytes = sizeof address;
            return !fds_.contains(fd) &&
                   getsockname(fd, reinterpret_cast<sockaddr*>(&address), &bytes) == 0 &&
                   address.sun_family == AF_UNIX &&
                   std::ranges::find(sockets_, std::string_view(address.sun_path)) !=
                       std::end(sockets_);
        });
    }

    /// Every answer is checked by the guest's drivers; a packet crosses both NICs, translated.
    void serve_good_guest() {
        guest::GuestOptions options;
        options.banks = {{Gpa{0}, uint64_t{2} << 20}};
        options.iommu_socket = sockets_[0];
        options.iommu.request_queue_size = 32;
        options.iommu.event_queue_size = options.iommu.event_buffers = 4;
        for (unsigned i = 0; i < 2; ++i) {
            guest::PortOptions port{.socket = sockets_[i + 1], .endpoint = kEndpoints[i]};
            port.net.rx_queue_size = port.net.tx_queue_size = 4;
            options.ports.push_back(port);
        }
        auto guest = guest::Guest::create(options);
        require(guest.has_value(), "a good guest is not served: {}",
                guest ? "" : guest.error().message);
        std::vector<std::byte> packet(64);
        for (size_t i = 0; i < packet.size(); ++i) packet[i] = std::byte(i * 7);
        const auto sent = (*guest)->port(0).transmit(packet);
        require(sent && *sent, "a good guest cannot send: {}", sent ? "" : sent.error().message);
        const auto received = (*guest)->port(1).receive(std::chrono::milliseconds(5000));
        require(received && *received, "a good guest receives nothing: {}",
                received ? "" : received.error().message);
        require(**received == packet, "a good guest receives something else");
        const auto down = (*guest)->shut_down();
        require(down.has_value(), "a good guest cannot shut down: {}",
                down ? "" : down.error().message);
    }

    void keep_recent() {
        for (size_t i = 0; i < recent_.size(); ++i) {
            const std::string path = fmt::format("{}/input-{}", directory_, i);
            const std::unique_ptr<FILE, int (*)(FILE*)> file(fopen(path.c_str(), "wb"), fclose);
            if (file) fwrite(recent_[i].data(), 1, recent_[i].size(), file.get());
            fmt::print(stderr, "fuzz: one of these has done it: {}\n", path);
        }
    }

    static std::string make_directory() {
        char name[] = "/tmp/viommu-fuzz-vhost-XXXXXX";
        require(mkdtemp(name) != nullptr, "no directory for sockets");
        return name;
    }

    const std::string directory_ = make_directory();
    const std::string sockets_[3] = {directory_ + "/iommu", directory_ + "/net0",
                                     directory_ + "/net1"};
    app::Config config_;
    std::unique_ptr<app::Daemon> daemon_;
    std::set<int> fds_;                         ///< when nobody is connected
    std::vector<std::vector<uint8_t>> recent_;  ///< inputs since the last good guest
};

}  // namespace viommu::fuzz

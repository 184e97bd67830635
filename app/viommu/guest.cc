// SPDX-License-Identifier: BSD-3-Clause
#include "guest.hh"

#include <sys/stat.h>

#include <filesystem>

#include "join.hh"
#include "units.hh"

namespace viommu::app {

Result<void> make_directories(const std::string& socket) {
    const mode_t before = umask(0077);
    std::error_code error;
    const auto directory = std::filesystem::path(socket).parent_path();
    std::filesystem::create_directories(directory, error);
    umask(before);
    if (error)
        return fail("{}: its directory {} cannot be made: {}", socket, directory.string(),
                    error.message());
    return {};
}

GuestIommu::GuestIommu(const Guest& guest, std::unique_ptr<device::Device> device, Lcores& lcores)
    : guest_(guest),
      device_(std::move(device)),
      lcores_(lcores),
      port_(*device_, lcores.at(guest.lcore.id), guest.dirty_log) {}

Result<void> GuestIommu::listen() {
    if (auto made = make_directories(guest_.socket); !made) return made;
    auto socket = vhost::Socket::listen(guest_.socket, port_);
    if (!socket) return tl::unexpected(socket.error());
    socket_ = std::move(*socket);
    return {};
}

void GuestIommu::close() {
    if (!socket_) return;
    refused_connections_ = socket_->refused_connections();
    socket_.reset();
}

void GuestIommu::add_counters(Counters& out, uint64_t faults_lost) {
    table::Table::Usage usage;
    lcores_.run_on(guest_.lcore.id, [&] { usage = device_->table().usage(); });
    add_device(out, guest_.name, device_->stats(), faults_lost, usage);
    const std::string prefix = fmt::format("guest.{}.queue", guest_.name);
    const auto& stats = port_.stats();
    out.add(prefix, "passes", stats.passes.was());
    out.add(prefix, "grace_periods", stats.grace_periods.was());
    out.add(prefix, "malformed", stats.malformed.was());
    out.add(prefix, "unreachable", stats.unreachable.was());
    out.add(prefix, "unusable", stats.unusable_queues.was());
    out.add(fmt::format("guest.{}", guest_.name), "refused_connections",
            socket_ ? socket_->refused_connections() : refused_connections_);
}

std::optional<std::string> GuestIommu::quota_warning() {
    const device::Config& config = guest_.device;
    const std::string keys[] = {fmt::format("max_domains ({})", config.max_domains),
                                fmt::format("max_mappings ({})", config.max_mappings),
                                fmt::format("arena ({})", format_size(config.arena_bytes))};
    uint64_t refusals = 0;
    std::vector<std::string> reached;
    for (size_t q = 0; q < told_.size(); q++) {
        const uint64_t now = device_->stats().exhausted[q].was();
        const uint64_t fresh = now - std::exchange(told_[q], now);
        if (fresh == 0) continue;
        refusals += fresh;
        reached.push_back(fmt::format("{}, reached {} times", keys[q], fresh));
    }
    if (reached.empty()) return std::nullopt;
    return fmt::format(
        "guest {}: {} requests were answered NOMEM; raise {}: a guest's driver may ignore that "
        "answer and lose packets",
        guest_.name, refusals, join(reached, "; "));
}

}  // namespace viommu::app

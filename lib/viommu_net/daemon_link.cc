// SPDX-License-Identifier: BSD-3-Clause
#include "daemon_link.hh"

#include <poll.h>

#include <algorithm>

namespace viommu::program {

Result<DaemonLink> DaemonLink::connect(const std::string& path, std::chrono::milliseconds timeout) {
    DaemonLink link(path, timeout);
    if (auto ok = link.connect_one_more(); !ok) return tl::unexpected(ok.error());
    return link;
}

Result<void> DaemonLink::connect_one_more() {
    auto client = share::Client::connect(path_, timeout_);
    if (!client) return tl::unexpected(client.error());
    clients_.push_back(std::move(*client));
    left_ = table::ReaderPage::kSlots;
    return {};
}

Result<xlate::Reader> DaemonLink::reader(EndpointId endpoint) {
    if (left_ == 0)
        if (auto ok = connect_one_more(); !ok) return tl::unexpected(ok.error());
    auto reader = clients_.back().reader(endpoint);
    if (!reader) return fail("guest {}: {}", guest(), reader.error().message);
    --left_;
    return reader;
}

bool DaemonLink::wait_for_loss(int wake) const {
    std::vector<pollfd> fds;
    for (const auto& client : clients_) fds.push_back({client.fd(), POLLRDHUP, 0});
    fds.push_back({wake, POLLIN, 0});
    for (;;) {
        const bool lost = std::ranges::any_of(clients_, [](auto& c) { return !c.connected(); });
        if (lost) return true;
        if (::poll(fds.data(), fds.size(), -1) > 0 && fds.back().revents != 0) return false;
    }
}

}  // namespace viommu::program

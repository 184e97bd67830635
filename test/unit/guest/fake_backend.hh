// SPDX-License-Identifier: BSD-3-Clause
/// The other end of Frontend: a vhost-user backend in a thread, which writes down what it was told
/// and runs devices that are given to it as functions.
#pragma once

#include <functional>
#include <map>
#include <mutex>
#include <thread>

#include "fake_queue.hh"

namespace viommu::guest::test {

struct Message {
    uint32_t request = 0;
    uint32_t flags = 0;
    std::vector<std::byte> payload;
    size_t fds = 0;

    bool operator==(const Message&) const = default;
};

/// How to answer, when not as one should.
struct Reply {
    uint32_t request, flags;
    std::vector<std::byte> payload;
    bool hang_up = false;  ///< close the connection after the payload
    bool silent = false;   ///< send nothing
};

template <class T>
std::vector<std::byte> payload_of(const T& value) {
    const auto bytes = std::as_bytes(std::span(&value, 1));
    return {bytes.begin(), bytes.end()};
}

struct BackendOptions {
    uint64_t features = bit(wire::VIRTIO_F_VERSION_1) | bit(wire::VHOST_USER_F_PROTOCOL_FEATURES);
    uint64_t protocol_features = bit(wire::VHOST_USER_PROTOCOL_F_MQ) |
                                 bit(wire::VHOST_USER_PROTOCOL_F_REPLY_ACK) |
                                 bit(wire::VHOST_USER_PROTOCOL_F_CONFIG);
    uint64_t queue_num = 8;
    std::vector<std::byte> config = std::vector<std::byte>(64);
    /// Asked first, in the backend's thread; nothing: answer properly.
    std::function<std::optional<Reply>(const Message&)> answer{};
    /// A bus address to a GPA, for devices behind an IOMMU; absent: they are the same.
    std::function<std::optional<Gpa>(uint64_t bus)> translate{};
    /// What to do with a queue while it is enabled; returns whether something was done.
    std::map<uint32_t, std::function<bool(FakeQueue&)>> devices{};
    uint32_t log_reply_bytes = sizeof(wire::vhost_user_log);
};

class FakeBackend {
  public:
    explicit FakeBackend(BackendOptions options);
    ~FakeBackend();

    FrontendOptions frontend() const {
        FrontendOptions options;
        options.socket = path_;
        options.timeout = Milliseconds(2000);
        return options;
    }
    std::vector<Message> seen() const {
        const std::lock_guard lock(mutex_);
        return seen_;
    }
    std::vector<uint32_t> seen_requests() const {
        std::vector<uint32_t> requests;
        for (const auto& m : seen()) requests.push_back(m.request);
        return requests;
    }
    void forget() {
        const std::lock_guard lock(mutex_);
        seen_.clear();
    }
    /// What was written to configuration space.
    std::vector<std::byte> config() const {
        const std::lock_guard lock(mutex_);
        return options_.config;
    }

    /// Log a write to the page of `gpa` as a backend does; false: there is no log.
    bool log_write(Gpa gpa) {
        const std::lock_guard lock(mutex_);
        const uint64_t page = gpa.value / wire::kVhostLogPageBytes;
        if (page / 8 >= log_.bytes) return false;
        std::atomic_ref(reinterpret_cast<uint8_t&>(log_.data[page / 8]))
            .fetch_or(uint8_t(1u << page % 8), std::memory_order_release);
        return true;
    }

  private:
    struct Ring {
        uint16_t size = 0;
        uint32_t base = 0;
        bool enabled = false;
        wire::vhost_user_vring_addr addr{};
        std::optional<FakeQueue> queue{};
    };
    struct Log {
        std::byte* data = nullptr;
        uint64_t bytes = 0;
    };
    struct Region {
        uint64_t gpa, bytes, uva;
        std::byte* data;
    };
    void serve();
    bool receive_message();
    void handle(const Message& message, std::vector<Fd>& fds);
    std::vector<std::byte> act(const Message& message, std::vector<Fd>& fds);
    void map_memory(const Message& message, std::vector<Fd>& fds);
    void add_region(const wire::vhost_user_mem_region& region, const Fd& fd);
    void map_log(const Message& message, const Fd& fd);
    void start(uint32_t index);
    bool run_devices();
    void drop_connection();
    std::byte* at_bus(uint64_t bus) const;
    uint64_t bus_of(uint64_t ring_address) const;

    BackendOptions options_;
    std::string directory_, path_;
    Fd listener_;
    Channel channel_;
    mutable std::mutex mutex_;
    std::vector<Message> seen_;
    std::vector<Region> regions_;
    std::map<uint32_t, Ring> rings_;
    Log log_;
    uint64_t acked_ = 0;
    std::atomic<bool> stop_{false};
    std::thread thread_;
};

}  // namespace viommu::guest::test

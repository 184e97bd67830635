// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>

#include <array>
#include <chrono>
#include <filesystem>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>

#include "frontend.hh"
#include "viommu_vhost.hh"

namespace viommu::vhost::test {

using namespace std::chrono_literals;
using std::string;

inline bool eventually(const std::function<bool()>& condition) {
    const auto deadline = std::chrono::steady_clock::now() + 10s;
    while (!condition()) {
        if (std::chrono::steady_clock::now() > deadline) return false;
        std::this_thread::sleep_for(100us);
    }
    return true;
}

constexpr uint64_t kVersion1 = uint64_t(1) << 32;
constexpr uint64_t kAccessPlatform = uint64_t(1) << 33;
constexpr uint64_t kProtocolFeaturesBit = uint64_t(1) << VHOST_USER_F_PROTOCOL_FEATURES;

/// A device that writes down what it is told and checks what it can: that calls come in a sensible
/// order, that a queue's fds are open and guest memory is mapped whenever a queue starts or stops.
/// It signals the call fd when a queue starts.
class Recorder : public Handler {
  public:
    explicit Recorder(uint64_t more_features = 0) : more_features_(more_features) {}
    uint64_t features() const override {
        return kVersion1 | kAccessPlatform | 0xff | more_features_;
    }
    uint16_t num_queues() const override { return kQueues; }

    void connected() override {
        connected_ = true;
        note("connected");
    }
    void disconnected() override {
        if (any_running()) ADD_FAILURE() << "disconnected() before the queues were stopped";
        memory_.reset();
        note("disconnected");
        connected_ = false;
    }
    void features_acked(uint64_t features) override {
        if (any_running()) ADD_FAILURE() << "features_acked() while a queue runs";
        note(fmt::format("features {:#x}", features));
    }
    void config_read(uint32_t offset, std::span<std::byte> out) override {
        for (size_t i = 0; i < out.size(); ++i) out[i] = config_byte(offset + i);
    }
    static std::byte config_byte(size_t at) {
        return at < kConfigBytes ? std::byte(0x40 + at) : std::byte{0};
    }
    void config_write(uint32_t offset, std::span<const std::byte> in) override {
        string text = fmt::format("config {}:", offset);
        for (const std::byte b : in) text += fmt::format(" {:02x}", uint8_t(b));
        note(text);
    }
    void memory_changed(std::shared_ptr<const virtq::MemoryMap> memory) override {
        if (any_running()) ADD_FAILURE() << "memory_changed() while a queue runs";
        string text = "memory";
        for (const auto& r : memory->regions())
            text += fmt::format(" {}+{:#x}@{}", r.gpa, r.bytes, r.uva);
        {
            const std::lock_guard lock(mutex_);
            memory_ = std::move(memory);
        }
        touch_memory();
        note(text);
    }
    void log_changed(std::shared_ptr<const virtq::DirtyLog> log) override {
        if (any_running()) ADD_FAILURE() << "log_changed() while a queue runs";
        note(log ? "log on" : "log off");
        const std::lock_guard lock(mutex_);
        log_ = std::move(log);
    }
    void queue_started(const virtq::Vring& v) override {
        if (running_.at(v.index)) ADD_FAILURE() << "queue " << v.index << " started twice";
        running_[v.index] = true;
        vrings_[v.index] = v;
        check_fds(v);
        touch_memory();
        if (v.call_fd >= 0) eventfd_write(v.call_fd, 1);
        note(fmt::format("start {} size {} at {:#x} {:#x} {:#x} base {}{}{}", v.index, v.size,
                         v.desc, v.avail, v.used, v.base, v.kick_fd < 0 ? " no kick" : "",
                         v.call_fd < 0 ? " no call" : ""));
    }
    uint32_t queue_stopped(uint16_t index, Stop why) override {
        if (!running_.at(index)) ADD_FAILURE() << "queue " << index << " stopped without running";
        running_[index] = false;
        check_fds(vrings_[index]);
        touch_memory();
        eventfd_t count = 0;
        if (vrings_[index].kick_fd >= 0) eventfd_read(vrings_[index].kick_fd, &count);
        kicks = count;
        constexpr const char* kWhy[] = {"disabled", "get_base", "reconfigured", "disconnected"};
        note(fmt::format("stop {} {}", index, kWhy[int(why)]));
        return vrings_[index].base + advance;
    }

    /// What happened since the last call.
    std::vector<string> take() {
        const std::lock_guard lock(mutex_);
        return std::exchange(events_, {});
    }
    bool happened(const string& event) {
        const std::lock_guard lock(mutex_);
        return std::ranges::find(events_, event) != events_.end();
    }
    bool is_connected() const { return connected_; }
    /// What the device has now; while no message is on its way.
    std::shared_ptr<const virtq::MemoryMap> memory() {
        const std::lock_guard lock(mutex_);
        return memory_;
    }
    std::shared_ptr<const virtq::DirtyLog> dirty_log() {
        const std::lock_guard lock(mutex_);
        return log_;
    }
    /// What the last queue that stopped found in its kick fd.
    std::atomic<uint64_t> kicks{0};

    static constexpr uint16_t kQueues = 2;
    static constexpr size_t kConfigBytes = 40;
    /// How far a queue gets while it runs.
    std::atomic<uint16_t> advance{0};

  private:
    void note(string event) {
        const std::lock_guard lock(mutex_);
        events_.push_back(std::move(event));
    }
    bool any_running() const { return running_[0] || running_[1]; }
    static void check_fds(const virtq::Vring& v) {
        for (const int fd : {v.kick_fd, v.call_fd})
            if (fd >= 0 && fcntl(fd, F_GETFD) < 0) ADD_FAILURE() << "a queue's fd is closed";
    }
    /// Crashes if it is not mapped.
    void touch_memory() {
        if (!memory_) return ADD_FAILURE() << "a queue runs without memory";
        for (const auto& r : memory_->regions()) {
            sum_ = sum_ + uint8_t(r.vva[0]) + uint8_t(r.vva[r.bytes - 1]);
        }
    }

    const uint64_t more_features_;
    std::shared_ptr<const virtq::DirtyLog> log_;
    std::mutex mutex_;
    std::vector<string> events_;
    std::atomic<bool> connected_{false};
    std::array<bool, kQueues> running_{};
    std::array<virtq::Vring, kQueues> vrings_{};
    std::shared_ptr<const virtq::MemoryMap> memory_;
    volatile unsigned sum_ = 0;
};

/// A directory for sockets, removed at the end.
class TemporaryDirectory {
  public:
    TemporaryDirectory() {
        char name[] = "/tmp/viommu-test-vhost-XXXXXX";
        path_ = mkdtemp(name);
    }
    ~TemporaryDirectory() { std::filesystem::remove_all(path_); }
    string operator/(const string& name) const { return path_ + "/" + name; }

  private:
    string path_;
};

/// A Recorder on a socket.
struct Device {
    explicit Device(uint64_t more_features = 0) : recorder(more_features) { listen(); }
    void listen() {
        auto s = Socket::listen(path, recorder);
        if (!s) throw std::runtime_error(s.error().message);
        socket = std::move(*s);
    }
    TemporaryDirectory directory;
    string path = directory / "socket";
    Recorder recorder;
    std::unique_ptr<Socket> socket;
};

/// Frontends against one device, which all tests share: it takes librte_vhost up to a second to
/// notice a new socket.
class SocketTest : public testing::Test {
  protected:
    struct Shared : Device {
        int fds = count_fds();  ///< when nobody is connected
    };
    static Shared& shared() {
        static Shared device;
        return device;
    }
    void SetUp() override {
        recorder.take();
        recorder.advance = 0;
    }
    /// The frontends of the test are gone; so must be everything that they had caused.
    void TearDown() override {
        EXPECT_TRUE(eventually([&] { return !recorder.is_connected(); }));
        EXPECT_TRUE(eventually([&] { return count_fds() <= shared().fds; }))
            << count_fds() - shared().fds << " fds leaked";
    }
    using Events = std::vector<string>;

    /// Queue `q` with everything but features, memory and enable.
    static void set_up(Frontend& f, uint32_t q, uint32_t base = 0) {
        const Fd kick = make_eventfd(), call = make_eventfd();
        ASSERT_TRUE(f.set_num(q, 256));
        ASSERT_TRUE(f.set_addr(q, kUva, kUva + 0x1000, kUva + 0x2000));
        ASSERT_TRUE(f.set_base(q, base));
        ASSERT_TRUE(f.set_kick(q, kick));
        ASSERT_TRUE(f.set_call(q, call));
    }
    /// Both queues run; what led there is forgotten.
    void start(Frontend& f) { start(f, recorder); }
    static void start(Frontend& f, Recorder& recorder) {
        ASSERT_TRUE(f.set_features(kVersion1 | kProtocolFeaturesBit));
        ASSERT_TRUE(f.set_mem_table(kMemory));
        for (uint32_t q = 0; q < Recorder::kQueues; ++q) {
            set_up(f, q);
            ASSERT_TRUE(f.set_enable(q, true));
        }
        ASSERT_TRUE(recorder.happened(started(0)));
        ASSERT_TRUE(recorder.happened(started(1)));
        recorder.take();
    }
    static string started(int q, uint16_t base = 0) {
        return fmt::format("start {} size 256 at {:#x} {:#x} {:#x} base {}", q, kUva, kUva + 0x1000,
                           kUva + 0x2000, base);
    }

    static constexpr uint64_t kUva = 0x7f00'0000'0000;
    static inline const Region kMemory[] = {{.gpa = 0, .bytes = 0x10'0000, .uva = kUva},
                                            {.gpa = 0x1'0000'0000, .bytes = 0x4000, .uva = 0x5000}};
    static constexpr const char* kMemoryEvent =
        "memory 0x0+0x100000@0x7f0000000000 0x100000000+0x4000@0x5000";

    Recorder& recorder = shared().recorder;
    Socket& socket = *shared().socket;
    const string path = shared().path;
};

/// Frontends against a device of the suite's own that offers `kMoreFeatures` besides.
template <uint64_t kMoreFeatures>
class FeatureTest : public testing::Test {
  public:
    static void SetUpTestSuite() { device = std::make_unique<Device>(kMoreFeatures); }
    static void TearDownTestSuite() { device.reset(); }

  protected:
    using Events = std::vector<string>;
    void SetUp() override { recorder.take(); }
    void TearDown() override {
        EXPECT_TRUE(eventually([&] { return !recorder.is_connected(); }));
    }

    static inline std::unique_ptr<Device> device;
    Recorder& recorder = device->recorder;
    const string path = device->path;
};

}  // namespace viommu::vhost::test

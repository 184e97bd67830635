// SPDX-License-Identifier: BSD-3-Clause
#include <gtest/gtest.h>

#include "fake_backend.hh"

namespace viommu::guest {
namespace {

using namespace wire;
using test::BackendOptions;
using test::FakeBackend;
using test::payload_of;

class DirtyLogTest : public testing::TestWithParam<Vmm> {
  protected:
    static BackendOptions logging() {
        BackendOptions options;
        options.features |= bit(VHOST_F_LOG_ALL);
        options.protocol_features |= bit(VHOST_USER_PROTOCOL_F_LOG_SHMFD);
        return options;
    }
    static std::unique_ptr<Memory> two_banks() {
        const RegionLayout banks[] = {{Gpa{0}, 1 << 20}, {Gpa{0x4000'0000}, 1 << 20}};
        return std::move(*Memory::create(banks));
    }
    Result<Frontend> connect(const FakeBackend& backend) {
        auto options = backend.frontend();
        options.vmm = GetParam();
        options.queues = 1;
        auto frontend = Frontend::connect(options);
        if (!frontend) return frontend;
        const QueueSetup queue{0, 16, BusAddress{0x10000}, BusAddress{0x11000}, BusAddress{0x12000},
                               kick.get()};
        if (auto ok = frontend->activate(bit(VIRTIO_F_VERSION_1), *memory, {&queue, 1}); !ok)
            return tl::unexpected(ok.error());
        return frontend;
    }

    std::unique_ptr<Memory> memory = two_banks();
    Fd kick = std::move(*make_eventfd());
};

TEST_P(DirtyLogTest, covers_all_memory_one_bit_per_page) {
    const auto log = DirtyLog::create(*memory);
    ASSERT_TRUE(log) << log.error().message;
    EXPECT_GE(log->pages(), 0x4010'0000u / 4096);
    EXPECT_LT(log->pages(), 0x4010'0000u / 4096 + 64);
    EXPECT_GT(DirtyLog::create(*memory, 1 << 20)->pages(), log->pages());
}

TEST_P(DirtyLogTest, what_the_backend_marks_is_taken_once) {
    FakeBackend backend(logging());
    auto frontend = connect(backend);
    ASSERT_TRUE(frontend) << frontend.error().message;
    auto log = DirtyLog::create(*memory);
    ASSERT_TRUE(log);
    EXPECT_FALSE(backend.log_write(Gpa{0x5000})) << "no log yet";
    const auto ok = frontend->start_logging(*log);
    ASSERT_TRUE(ok) << ok.error().message;
    for (const uint64_t gpa : {0x0u, 0x5fffu, 0x3f000u, 0x40000u, 0x4000'0123u, 0x400f'f000u})
        ASSERT_TRUE(backend.log_write(Gpa{gpa}));
    EXPECT_TRUE(log->is_dirty(Gpa{0x5000}));
    EXPECT_FALSE(log->is_dirty(Gpa{0x6000}));
    EXPECT_EQ(log->take(), (std::vector<Gpa>{{0x0}, {0x5000}, {0x3f000}, {0x40000}, {0x4000'0000},
                                             {0x400f'f000}}));
    EXPECT_EQ(log->take(), std::vector<Gpa>{});
    ASSERT_TRUE(backend.log_write(Gpa{0x5000}));
    EXPECT_EQ(log->take(), std::vector<Gpa>{{0x5000}}) << "dirty again";
    EXPECT_FALSE(log->is_dirty(Gpa{uint64_t{1} << 40})) << "beyond the log";
}

TEST_P(DirtyLogTest, messages_begin_and_end_logging) {
    FakeBackend backend(logging());
    auto frontend = connect(backend);
    ASSERT_TRUE(frontend);
    auto log = DirtyLog::create(*memory);
    ASSERT_TRUE(log);
    backend.forget();
    ASSERT_TRUE(frontend->start_logging(*log));
    ASSERT_TRUE(frontend->stop_logging());
    const auto seen = backend.seen();
    ASSERT_EQ(seen.size(), 5u);
    EXPECT_EQ(seen[0].request, VHOST_USER_SET_LOG_BASE);
    EXPECT_EQ(seen[0].payload, payload_of(vhost_user_log{log->bytes(), 0u}));
    EXPECT_EQ(seen[0].fds, 1u);
    const uint64_t plain = bit(VIRTIO_F_VERSION_1) | bit(VHOST_USER_F_PROTOCOL_FEATURES);
    EXPECT_EQ(seen[1].request, VHOST_USER_SET_FEATURES);
    EXPECT_EQ(seen[1].payload, payload_of(le64{plain | bit(VHOST_F_LOG_ALL)}));
    const uint64_t uva = memory->uva(Gpa{0})->value;
    const auto address = [&](uint32_t flags, uint64_t log_address) {
        return payload_of(vhost_user_vring_addr{0u, flags, uva + 0x10000, uva + 0x12000,
                                                uva + 0x11000, log_address});
    };
    EXPECT_EQ(seen[2].request, VHOST_USER_SET_VRING_ADDR);
    EXPECT_EQ(seen[2].payload, address(1, 0x12000));
    const bool qemu = GetParam() == Vmm::kQemu;
    const auto &features = seen[qemu ? 3 : 4], &ring = seen[qemu ? 4 : 3];
    EXPECT_EQ(features.request, VHOST_USER_SET_FEATURES);
    EXPECT_EQ(features.payload, payload_of(le64{plain}));
    EXPECT_EQ(ring.request, VHOST_USER_SET_VRING_ADDR);
    EXPECT_EQ(ring.payload, address(0, 0));
}

TEST_P(DirtyLogTest, another_log_takes_over) {
    FakeBackend backend(logging());
    auto frontend = connect(backend);
    ASSERT_TRUE(frontend);
    auto first = DirtyLog::create(*memory), second = DirtyLog::create(*memory);
    ASSERT_TRUE(first && second);
    ASSERT_TRUE(frontend->start_logging(*first));
    ASSERT_TRUE(backend.log_write(Gpa{0x1000}));
    ASSERT_TRUE(frontend->set_log_base(*second));
    ASSERT_TRUE(backend.log_write(Gpa{0x2000}));
    EXPECT_EQ(first->take(), std::vector<Gpa>{{0x1000}});
    EXPECT_EQ(second->take(), std::vector<Gpa>{{0x2000}});
}

TEST_P(DirtyLogTest, answer_of_librte_vhost_is_enough_for_qemu_only) {
    auto options = logging();
    options.log_reply_bytes = 0;
    // No payload is "no typed reply" to the fake backend: answer by hand.
    options.answer = [](const test::Message& m) -> std::optional<test::Reply> {
        if (m.request != VHOST_USER_SET_LOG_BASE) return std::nullopt;
        return test::Reply{m.request, kVhostUserVersion | kVhostUserReply, {}};
    };
    FakeBackend backend(options);
    auto frontend = connect(backend);
    ASSERT_TRUE(frontend);
    auto log = DirtyLog::create(*memory);
    ASSERT_TRUE(log);
    EXPECT_EQ(frontend->start_logging(*log).has_value(), GetParam() == Vmm::kQemu);
}

TEST_P(DirtyLogTest, backend_without_log_is_an_error) {
    FakeBackend backend({});
    auto frontend = connect(backend);
    ASSERT_TRUE(frontend);
    auto log = DirtyLog::create(*memory);
    ASSERT_TRUE(log);
    EXPECT_FALSE(frontend->start_logging(*log));
}

INSTANTIATE_TEST_SUITE_P(Vmm, DirtyLogTest, testing::Values(Vmm::kCloudHypervisor, Vmm::kQemu),
                         [](const auto& info) {
                             return info.param == Vmm::kQemu ? "qemu" : "cloud_hypervisor";
                         });

}  // namespace
}  // namespace viommu::guest

// SPDX-License-Identifier: BSD-3-Clause
#include <gtest/gtest.h>

#include "fake_backend.hh"

namespace viommu::guest {
namespace {

using namespace wire;
using test::BackendOptions;
using test::FakeBackend;
using test::Message;
using test::payload_of;
using test::Reply;

constexpr uint32_t kPlain = 1, kNeedReply = 1 | 8;

struct GuestSide {
    GuestSide() {
        const RegionLayout banks[] = {{Gpa{0}, 1 << 20}, {Gpa{0x4000'0000}, 1 << 20}};
        memory = std::move(*Memory::create(banks));
        kick = std::move(*make_eventfd());
        call = std::move(*make_eventfd());
    }
    QueueSetup queue(uint16_t index, uint64_t bus) const {
        return {index,
                16,
                BusAddress{bus},
                BusAddress{bus + 0x1000},
                BusAddress{bus + 0x2000},
                kick.get(),
                call.get()};
    }
    uint64_t uva(uint64_t gpa) const { return memory->uva(Gpa{gpa})->value; }
    std::unique_ptr<Memory> memory;
    Fd kick, call;
};

Message message(uint32_t request, uint32_t flags, std::vector<std::byte> payload = {},
                size_t fds = 0) {
    return {request, flags, std::move(payload), fds};
}
Message state(uint32_t request, uint32_t index, uint32_t num) {
    return message(request, kNeedReply, payload_of(vhost_user_vring_state{index, num}));
}

TEST(Frontend, connection_negotiates_as_cloud_hypervisor_does) {
    FakeBackend backend({});
    const auto frontend = Frontend::connect(backend.frontend());
    ASSERT_TRUE(frontend) << frontend.error().message;
    const uint64_t protocol = bit(VHOST_USER_PROTOCOL_F_MQ) | bit(VHOST_USER_PROTOCOL_F_REPLY_ACK) |
                              bit(VHOST_USER_PROTOCOL_F_CONFIG);
    EXPECT_EQ(frontend->protocol_features(), protocol);
    EXPECT_EQ(frontend->queue_num(), 8u);
    EXPECT_EQ(backend.seen(),
              (std::vector<Message>{
                  message(VHOST_USER_SET_OWNER, kPlain),
                  message(VHOST_USER_GET_FEATURES, kPlain),
                  message(VHOST_USER_GET_PROTOCOL_FEATURES, kPlain),
                  message(VHOST_USER_SET_PROTOCOL_FEATURES, kPlain, payload_of(le64{protocol})),
                  message(VHOST_USER_GET_QUEUE_NUM, kNeedReply),
              }));
}

TEST(Frontend, activation_and_reset_are_byte_for_byte_cloud_hypervisors) {
    FakeBackend backend({});
    GuestSide guest;
    auto frontend = Frontend::connect(backend.frontend());
    ASSERT_TRUE(frontend);
    backend.forget();
    // avail.idx, which Cloud Hypervisor reads for SET_VRING_BASE.
    guest.memory->at(Gpa{0x4000'1002})[0] = std::byte{5};
    const QueueSetup queues[] = {guest.queue(0, 0x10000), guest.queue(1, 0x4000'0000)};
    const uint64_t acked = bit(VIRTIO_F_VERSION_1) | bit(VIRTIO_F_ACCESS_PLATFORM);
    auto ok = frontend->activate(acked, *guest.memory, queues);
    ASSERT_TRUE(ok) << ok.error().message;
    const auto bases = frontend->reset();
    ASSERT_TRUE(bases) << bases.error().message;

    auto table = payload_of(vhost_user_mem_header{2u, 0u});
    for (const auto& r : guest.memory->regions()) {
        const auto entry =
            payload_of(vhost_user_mem_region{r.first.value, r.bytes, r.uva().value, r.file_offset});
        table.insert(table.end(), entry.begin(), entry.end());
    }
    const auto address = [&](uint32_t index, uint64_t gpa) {
        return message(
            VHOST_USER_SET_VRING_ADDR, kNeedReply,
            payload_of(vhost_user_vring_addr{index, 0u, guest.uva(gpa), guest.uva(gpa + 0x2000),
                                             guest.uva(gpa + 0x1000), 0u}));
    };
    const auto fd = [](uint32_t request, uint64_t index) {
        return message(request, kNeedReply, payload_of(le64{index}), 1);
    };
    const uint64_t sent = bit(VIRTIO_F_VERSION_1) | bit(VHOST_USER_F_PROTOCOL_FEATURES);
    EXPECT_EQ(backend.seen(),
              (std::vector<Message>{
                  message(VHOST_USER_SET_FEATURES, kNeedReply, payload_of(le64{sent})),
                  message(VHOST_USER_SET_MEM_TABLE, kNeedReply, table, 2),
                  state(VHOST_USER_SET_VRING_NUM, 0, 16),
                  state(VHOST_USER_SET_VRING_NUM, 1, 16),
                  address(0, 0x10000),
                  state(VHOST_USER_SET_VRING_BASE, 0, 0),
                  fd(VHOST_USER_SET_VRING_CALL, 0),
                  fd(VHOST_USER_SET_VRING_KICK, 0),
                  address(1, 0x4000'0000),
                  state(VHOST_USER_SET_VRING_BASE, 1, 5),
                  fd(VHOST_USER_SET_VRING_CALL, 1),
                  fd(VHOST_USER_SET_VRING_KICK, 1),
                  state(VHOST_USER_SET_VRING_ENABLE, 0, 1),
                  state(VHOST_USER_SET_VRING_ENABLE, 1, 1),
                  state(VHOST_USER_SET_VRING_ENABLE, 0, 0),
                  state(VHOST_USER_GET_VRING_BASE, 0, 0),
                  state(VHOST_USER_SET_VRING_ENABLE, 1, 0),
                  state(VHOST_USER_GET_VRING_BASE, 1, 0),
              }));
}

TEST(Frontend, vmm_that_knows_sends_raw_iovas_and_access_platform) {
    BackendOptions options;
    options.features |= bit(VIRTIO_F_ACCESS_PLATFORM);
    options.translate = [](uint64_t bus) { return std::optional(Gpa{bus & 0xfffff}); };
    FakeBackend backend(options);
    GuestSide guest;
    auto fo = backend.frontend();
    fo.ring_addresses = RingAddresses::kIova;
    auto frontend = Frontend::connect(fo);
    ASSERT_TRUE(frontend);
    const QueueSetup queue = guest.queue(0, 0xffff'ffff'0000'0000);
    const auto ok =
        frontend->activate(bit(VIRTIO_F_VERSION_1), *guest.memory, std::span(&queue, 1));
    ASSERT_TRUE(ok) << ok.error().message;
    for (const auto& m : backend.seen()) {
        if (m.request == VHOST_USER_SET_FEATURES) {
            EXPECT_EQ(m.payload,
                      payload_of(le64{bit(VIRTIO_F_VERSION_1) | bit(VIRTIO_F_ACCESS_PLATFORM) |
                                      bit(VHOST_USER_F_PROTOCOL_FEATURES)}));
        }
        if (m.request == VHOST_USER_SET_VRING_ADDR) {
            EXPECT_EQ(m.payload, payload_of(vhost_user_vring_addr{0u, 0u, 0xffff'ffff'0000'0000u,
                                                                  0xffff'ffff'0000'2000u,
                                                                  0xffff'ffff'0000'1000u, 0u}));
        }
    }
}

TEST(Frontend, vmm_that_does_not_know_cannot_take_a_ring_outside_ram) {
    FakeBackend backend({});
    GuestSide guest;
    auto frontend = Frontend::connect(backend.frontend());
    ASSERT_TRUE(frontend);
    const QueueSetup queue = guest.queue(0, 0xff000);  // the used ring is past the end of the bank
    const auto ok =
        frontend->activate(bit(VIRTIO_F_VERSION_1), *guest.memory, std::span(&queue, 1));
    ASSERT_FALSE(ok);
    EXPECT_NE(ok.error().message.find("not inside RAM"), std::string::npos) << ok.error().message;
}

TEST(Frontend, qemu_order_is_qemus) {
    FakeBackend backend({});
    GuestSide guest;
    auto fo = backend.frontend();
    fo.vmm = Vmm::kQemu;
    fo.queues = 1;
    auto frontend = Frontend::connect(fo);
    ASSERT_TRUE(frontend) << frontend.error().message;
    const QueueSetup queue = guest.queue(0, 0x10000);
    ASSERT_TRUE(frontend->activate(bit(VIRTIO_F_VERSION_1), *guest.memory, std::span(&queue, 1)));
    EXPECT_EQ(backend.seen_requests(),
              (std::vector<uint32_t>{
                  VHOST_USER_GET_FEATURES, VHOST_USER_GET_PROTOCOL_FEATURES,
                  VHOST_USER_SET_PROTOCOL_FEATURES, VHOST_USER_GET_QUEUE_NUM, VHOST_USER_SET_OWNER,
                  VHOST_USER_GET_FEATURES, VHOST_USER_SET_VRING_CALL, VHOST_USER_SET_VRING_ENABLE,
                  VHOST_USER_SET_FEATURES, VHOST_USER_SET_MEM_TABLE, VHOST_USER_SET_VRING_NUM,
                  VHOST_USER_SET_VRING_BASE, VHOST_USER_SET_VRING_ADDR, VHOST_USER_SET_VRING_KICK,
                  VHOST_USER_SET_VRING_CALL, VHOST_USER_SET_VRING_ENABLE}));
}

/// The requests that `act` sends once queue 0 is active.
template <class Act>
std::vector<uint32_t> requests_of(Vmm vmm, BackendOptions options, Act act) {
    FakeBackend backend(options);
    GuestSide guest;
    auto fo = backend.frontend();
    fo.vmm = vmm;
    fo.queues = 1;
    auto frontend = Frontend::connect(fo);
    EXPECT_TRUE(frontend) << frontend.error().message;
    const QueueSetup queue = guest.queue(0, 0x10000);
    EXPECT_TRUE(frontend->activate(bit(VIRTIO_F_VERSION_1), *guest.memory, {&queue, 1}));
    backend.forget();
    act(*frontend, guest);
    return backend.seen_requests();
}

TEST(Frontend, pause_and_resume_are_each_vmms) {
    const auto act = [](Frontend& frontend, GuestSide&) {
        ASSERT_TRUE(frontend.pause());
        const auto ok = frontend.resume();
        ASSERT_TRUE(ok) << ok.error().message;
    };
    EXPECT_EQ(requests_of(Vmm::kCloudHypervisor, {}, act),
              (std::vector<uint32_t>{VHOST_USER_SET_VRING_ENABLE, VHOST_USER_SET_VRING_ENABLE}));
    EXPECT_EQ(requests_of(Vmm::kQemu, {}, act),
              (std::vector<uint32_t>{VHOST_USER_SET_VRING_ENABLE, VHOST_USER_GET_VRING_BASE,
                                     VHOST_USER_SET_FEATURES, VHOST_USER_SET_MEM_TABLE,
                                     VHOST_USER_SET_VRING_NUM, VHOST_USER_SET_VRING_BASE,
                                     VHOST_USER_SET_VRING_ADDR, VHOST_USER_SET_VRING_KICK,
                                     VHOST_USER_SET_VRING_CALL, VHOST_USER_SET_VRING_ENABLE}));
}

TEST(Frontend, memory_is_plugged_by_slot_where_the_backend_can) {
    const auto act = [](Frontend& frontend, GuestSide& guest) {
        const auto bank = guest.memory->add({Gpa{0x8000'0000}, 1 << 20});
        ASSERT_TRUE(bank);
        ASSERT_TRUE(frontend.add_memory(*bank, guest.memory->fd()));
        ASSERT_FALSE(guest.memory->add({Gpa{0x8000'0000}, 4096})) << "overlaps";
    };
    BackendOptions slots;
    slots.protocol_features |= bit(VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS);
    for (const Vmm vmm : {Vmm::kCloudHypervisor, Vmm::kQemu}) {
        EXPECT_EQ(requests_of(vmm, {}, act), std::vector<uint32_t>{VHOST_USER_SET_MEM_TABLE});
        EXPECT_EQ(requests_of(vmm, slots, act), std::vector<uint32_t>{VHOST_USER_ADD_MEM_REG});
    }
}

TEST(Frontend, qemu_tells_differences_of_memory_where_the_backend_has_slots) {
    BackendOptions slots;
    slots.protocol_features |= bit(VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS);
    const auto act = [](Frontend& frontend, GuestSide& guest) {
        const auto regions = guest.memory->regions();
        ASSERT_TRUE(frontend.set_mem_table(regions, guest.memory->fd()));
        ASSERT_TRUE(frontend.set_mem_table(regions.first(1), guest.memory->fd()));
        ASSERT_TRUE(frontend.set_mem_table(regions, guest.memory->fd()));
    };
    EXPECT_EQ(requests_of(Vmm::kQemu, slots, act),
              (std::vector<uint32_t>{VHOST_USER_REM_MEM_REG, VHOST_USER_ADD_MEM_REG}));
}

TEST(Frontend, single_queue_is_stopped_and_begun_anew) {
    const auto act = [](Frontend& frontend, GuestSide& guest) {
        ASSERT_TRUE(frontend.stop_queue(0));
        ASSERT_TRUE(frontend.start_queue(guest.queue(0, 0x20000)));
    };
    EXPECT_EQ(requests_of(Vmm::kCloudHypervisor, {}, act),
              (std::vector<uint32_t>{VHOST_USER_GET_VRING_BASE, VHOST_USER_SET_VRING_NUM,
                                     VHOST_USER_SET_VRING_ADDR, VHOST_USER_SET_VRING_BASE,
                                     VHOST_USER_SET_VRING_CALL, VHOST_USER_SET_VRING_KICK,
                                     VHOST_USER_SET_VRING_ENABLE}));
}

/// The bases that a VMM sends at activation, after a pause, and after the connection was lost.
std::vector<uint32_t> bases_of(Vmm vmm, uint64_t acked) {
    BackendOptions options;
    options.features |= kRingFeatures;
    options.answer = [](const Message& m) -> std::optional<Reply> {
        if (m.request != VHOST_USER_GET_VRING_BASE) return std::nullopt;
        return Reply{m.request, kVhostUserVersion | kVhostUserReply,
                     payload_of(vhost_user_vring_state{0u, 0x0003'8003u})};
    };
    FakeBackend backend(options);
    GuestSide guest;
    auto fo = backend.frontend();
    fo.vmm = vmm;
    fo.queues = 1;
    auto frontend = Frontend::connect(fo);
    EXPECT_TRUE(frontend);
    const QueueSetup queue = guest.queue(0, 0x10000);
    guest.memory->at(Gpa{0x1'1002})[0] = std::byte{9};  // avail.idx
    guest.memory->at(Gpa{0x1'2002})[0] = std::byte{7};  // used.idx
    acked |= bit(VIRTIO_F_VERSION_1);
    EXPECT_TRUE(frontend->activate(acked, *guest.memory, {&queue, 1}));
    EXPECT_TRUE(frontend->pause());
    EXPECT_TRUE(frontend->resume());
    EXPECT_TRUE(frontend->reconnect());
    EXPECT_TRUE(frontend->activate(acked, *guest.memory, {&queue, 1}));
    std::vector<uint32_t> bases;
    for (const auto& m : backend.seen())
        if (m.request == VHOST_USER_SET_VRING_BASE) {
            vhost_user_vring_state state;
            std::memcpy(&state, m.payload.data(), sizeof state);
            bases.push_back(state.num);
        }
    return bases;
}

TEST(Frontend, bases_are_what_each_vmm_knows) {
    const uint64_t packed = bit(VIRTIO_F_RING_PACKED), in_order = bit(VIRTIO_F_IN_ORDER);
    using Bases = std::vector<uint32_t>;
    EXPECT_EQ(bases_of(Vmm::kQemu, 0), (Bases{0, 0x0003'8003, 7}));
    EXPECT_EQ(bases_of(Vmm::kQemu, packed), (Bases{0x8000'8000, 0x0003'8003, 0x0003'8003}));
    EXPECT_EQ(bases_of(Vmm::kCloudHypervisor, 0), (Bases{9, 9}));
    EXPECT_EQ(bases_of(Vmm::kCloudHypervisor, in_order), (Bases{9, 7}));
    EXPECT_EQ(bases_of(Vmm::kCloudHypervisor, packed), (Bases{0x8000, 0x8000}));
}

TEST(Frontend, reconnection_remembers_protocol_features) {
    FakeBackend backend({});
    auto frontend = Frontend::connect(backend.frontend());
    ASSERT_TRUE(frontend);
    backend.forget();
    const auto ok = frontend->reconnect();
    ASSERT_TRUE(ok) << ok.error().message;
    ASSERT_TRUE(frontend->set_features(0)) << "answered, so what came before has been read";
    EXPECT_EQ(backend.seen_requests(),
              (std::vector<uint32_t>{VHOST_USER_SET_OWNER, VHOST_USER_GET_FEATURES,
                                     VHOST_USER_SET_PROTOCOL_FEATURES, VHOST_USER_SET_FEATURES}));
}

TEST(Frontend, backend_channel_is_given_after_the_queues) {
    BackendOptions options;
    options.protocol_features |= bit(VHOST_USER_PROTOCOL_F_BACKEND_REQ);
    FakeBackend backend(options);
    GuestSide guest;
    auto frontend = Frontend::connect(backend.frontend());
    ASSERT_TRUE(frontend);
    const QueueSetup queue = guest.queue(0, 0x10000);
    ASSERT_TRUE(frontend->activate(bit(VIRTIO_F_VERSION_1), *guest.memory, std::span(&queue, 1)));
    EXPECT_EQ(backend.seen().back(), message(VHOST_USER_SET_BACKEND_REQ_FD, kNeedReply, {}, 1));
    EXPECT_TRUE(frontend->backend_requests().is_open());
}

TEST(Frontend, config_is_read_and_written_at_any_offset) {
    BackendOptions options;
    for (size_t i = 0; i < options.config.size(); ++i) options.config[i] = std::byte(i);
    FakeBackend backend(options);
    auto frontend = Frontend::connect(backend.frontend());
    ASSERT_TRUE(frontend);
    std::byte three[3], beyond[4];
    ASSERT_TRUE(frontend->read_config(9, three));
    EXPECT_EQ(three[2], std::byte{11});
    ASSERT_TRUE(frontend->read_config(62, beyond));
    EXPECT_EQ(beyond[1], std::byte{63});
    EXPECT_EQ(beyond[2], std::byte{0});
    const std::byte value{0x77};
    ASSERT_TRUE(frontend->write_config(36, std::span(&value, 1)));
    EXPECT_EQ(backend.config()[36], value);
}

/// A backend that answers `request` with `reply`; returns the error that set_features met.
std::string error_when_answered(Reply reply) {
    BackendOptions options;
    options.answer = [=](const Message& m) {
        return m.request == VHOST_USER_SET_FEATURES ? std::optional(reply) : std::nullopt;
    };
    FakeBackend backend(options);
    auto fo = backend.frontend();
    fo.timeout = Milliseconds(200);
    auto frontend = Frontend::connect(fo);
    if (!frontend) return "not even connected: " + frontend.error().message;
    const auto ok = frontend->set_features(0);
    return ok ? "" : ok.error().message;
}

constexpr uint32_t kReplyFlags = kVhostUserVersion | kVhostUserReply;

TEST(Frontend, answers_that_would_hang_cloud_hypervisor_are_errors) {
    const uint32_t id = VHOST_USER_SET_FEATURES;
    const auto zero = payload_of(le64{0});
    EXPECT_EQ(error_when_answered({id, kReplyFlags, zero}), "");
    const auto expect = [](const Reply& reply, const char* what) {
        const auto error = error_when_answered(reply);
        EXPECT_NE(error.find("SET_FEATURES"), std::string::npos) << error;
        EXPECT_NE(error.find(what), std::string::npos) << error;
    };
    expect({id, kReplyFlags, {}}, "0 bytes instead of 8");
    expect({id, kReplyFlags, std::vector<std::byte>(9)}, "9 bytes instead of 8");
    expect({id, kReplyFlags, payload_of(le64{1})}, "refused");
    expect({id, kReplyFlags | kVhostUserNeedReply, zero}, "flags");
    expect({id, kVhostUserVersion, zero}, "flags");
    expect({VHOST_USER_SET_OWNER, kReplyFlags, zero}, "message 3");
    expect({id, kReplyFlags, {}, false, true}, "0 of 12 bytes in 200 ms");
    expect({id, kReplyFlags, {}, true, true}, "closed the connection");
}

TEST(Frontend, backend_without_protocol_features_is_refused) {
    BackendOptions options;
    options.features = bit(VIRTIO_F_VERSION_1);
    FakeBackend backend(options);
    const auto frontend = Frontend::connect(backend.frontend());
    ASSERT_FALSE(frontend);
    EXPECT_NE(frontend.error().message.find("PROTOCOL_FEATURES"), std::string::npos);
}

TEST(Frontend, backend_with_too_few_queues_is_refused) {
    BackendOptions options;
    options.queue_num = 1;
    FakeBackend backend(options);
    const auto frontend = Frontend::connect(backend.frontend());
    ASSERT_FALSE(frontend);
    EXPECT_NE(frontend.error().message.find("1 queues"), std::string::npos);
}

TEST(Frontend, listener_that_never_comes_is_an_error_in_time) {
    FrontendOptions options;
    options.socket = "/tmp/viommu-guest-test-nobody-listens-here";
    options.timeout = Milliseconds(50);
    const auto frontend = Frontend::connect(options);
    ASSERT_FALSE(frontend);
    EXPECT_NE(frontend.error().message.find(options.socket), std::string::npos);
}

TEST(Frontend, raw_bytes_reach_the_backend_as_they_are) {
    FakeBackend backend({});
    auto frontend = Frontend::connect(backend.frontend());
    ASSERT_TRUE(frontend);
    backend.forget();
    const auto whole = payload_of(vhost_user_header{77u, 1u, 4u});
    ASSERT_TRUE(frontend->raw().send(std::span(whole).first(5)));
    ASSERT_TRUE(frontend->raw().send(std::span(whole).subspan(5)));
    const std::byte body[4] = {std::byte{1}, std::byte{2}, std::byte{3}, std::byte{4}};
    ASSERT_TRUE(frontend->raw().send(body));
    // A proper message after it shows that the odd one has been read.
    ASSERT_TRUE(frontend->set_features(0));
    EXPECT_EQ(backend.seen()[0], message(77, 1, {body, body + 4}));
}

}  // namespace
}  // namespace viommu::guest

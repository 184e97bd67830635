// SPDX-License-Identifier: BSD-3-Clause
/// A NIC behind the IOMMU: the log is by GPA, whatever its descriptors hold.
#include "bitmap.hh"
#include "net_rig.hh"

namespace viommu::net::test {
namespace {

using virtq::test::Bitmap;
using virtq::test::Pages;

uint64_t page_number(size_t page) { return NetRig::gpa(page).value / kPage; }

TEST(NetLog, every_page_that_a_packet_changes_is_marked_by_its_gpa) {
    std::mt19937 random(3);
    Pool pool;
    NetRig::Options options;
    options.ring_skew = true;
    options.run = false;
    NetRig rig(pool, options);
    Bitmap bitmap((NetRig::kHighGpa / kPage + NetRig::kPages) / 8 + 1);
    const auto log = bitmap.log(rig.memory());
    rig.port->log_changed(log);
    rig.start();
    Pages written;
    for (unsigned step = 0; step < 200; ++step) {
        rig.post(uint32_t(200 + random() % 3000));
        if (random() % 2) rig.send(frame(100 + random() % 1000));
        bitmap.take();
        const auto before = rig.space.snapshot();
        rig.deliver(pool.packet(frame(60 + random() % 4000, step), 500));
        for (const auto& f : rig.receive()) ASSERT_FALSE(f.empty());
        if (random() % 4 == 0) rig.port->arm(0);
        const auto after = rig.space.snapshot();
        const Pages marked = bitmap.take();
        size_t changed = 0;
        for (size_t p = 0; p < NetRig::kPages; ++p) {
            if (std::memcmp(&before[p * kPage], &after[p * kPage], kPage) == 0) continue;
            ++changed;
            ASSERT_TRUE(marked.contains(page_number(p))) << "page " << p << " in step " << step;
        }
        ASSERT_LE(marked.size(), changed + 6);  // written with what was there already
        written.insert(marked.begin(), marked.end());
        while (rig.rx->pop()) {
        }
        while (rig.tx->pop()) {
        }
    }
    EXPECT_GT(written.size(), 20u);
    EXPECT_EQ(0u, log->missed());
    EXPECT_GT(rig.to().packets.was(), 50u);

    rig.port->queue_stopped(0);
    rig.port->queue_stopped(1);
    bitmap.take();
    rig.port->log_changed(nullptr);
    rig.start();
    rig.post(2000);
    ASSERT_TRUE(rig.deliver(pool.packet(frame(1000))));
    EXPECT_EQ(Pages{}, bitmap.take());
}

}  // namespace
}  // namespace viommu::net::test

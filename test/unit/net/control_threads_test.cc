// SPDX-License-Identifier: BSD-3-Clause
/// Commands while another lcore sends: after an ack no packet goes by what was set before. Also for
/// TSan.
#include <thread>

#include "control_rig.hh"

namespace viommu::net::test {
namespace {

using namespace wire;

/// A thread that offers packets of somebody else's to the guest all the time.
class Sender {
  public:
    Sender(ControlRig& rig, const Pool& pool)
        : thread_([this, &rig, &pool] {
              Bytes b = kOther + frame(60);
              put16(b, 12, 0x0800);
              while (!stop_.load(std::memory_order_relaxed)) {
                  rte_mbuf* in[4];
                  for (auto& m : in) m = pool.packet(b);
                  const unsigned n = rig.port->to_guest(0, in);
                  for (unsigned i = n; i < 4; ++i) rte_pktmbuf_free(in[i]);
                  bursts_.fetch_add(1, std::memory_order_relaxed);
                  if (n == 0) std::this_thread::yield();
              }
          }) {}
    ~Sender() {
        stop_.store(true, std::memory_order_relaxed);
        thread_.join();
    }
    /// Returns when a burst that began after this call has ended.
    void one_more() const {
        const uint64_t then = bursts_.load(std::memory_order_relaxed);
        while (bursts_.load(std::memory_order_relaxed) < then + 2) std::this_thread::yield();
    }

  private:
    std::atomic<bool> stop_{false};
    std::atomic<uint64_t> bursts_{0};
    std::thread thread_;
};

TEST(ControlThreads, no_packet_goes_by_the_old_filter_after_the_ack) {
    Pool pool(63);
    for (const uint64_t format : {uint64_t{0}, kPacked}) {
        ControlRig rig(pool, kAllOffered | format);
        rig.provide(32, 200);
        uint64_t refused = 0, given = 0;
        {
            const Sender sender(rig, pool);
            for (unsigned round = 0; round < 400; ++round) {
                const bool open = round % 2 != 0;
                rig.received(true);  // there are buffers
                rig.issue(promiscuous(open));
                unsigned ack = kNoAck;
                for (rig.port->poll_control(); (ack = rig.answer()) == kNoAck;) {
                    std::this_thread::yield();
                    rig.port->poll_control();
                }
                ASSERT_EQ(ack, VIRTIO_NET_OK);
                const Counter& old = open ? rig.to().drop_filtered : rig.to().packets;
                const uint64_t then = old.was();
                if (!open) rig.received(true);
                if (round % 8 < 2) sender.one_more();
                ASSERT_EQ(old.was(), then) << "round " << round;
                if (!open) {
                    ASSERT_TRUE(rig.received(true).empty());
                }
                (open ? refused : given) = then;
            }
        }
        // It would say nothing if nothing had happened.
        EXPECT_GT(refused, 0u);
        EXPECT_GT(given, 0u);
    }
}

}  // namespace
}  // namespace viommu::net::test

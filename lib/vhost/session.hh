// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "handler.hh"
#include "message.hh"

namespace viommu::vhost {

/// One connection of one frontend: what its messages have told so far, and which queues run.
///
/// librte_vhost receives, answers, maps memory and keeps file descriptors. It is not told where
/// rings are (SET_VRING_ADDR is consumed here), so it never looks at or translates ring memory and
/// never considers a queue ready. Readiness is decided here, per queue, for every kind of device:
/// a queue runs when it has a size, addresses and a kick (a file descriptor or the promise to
/// poll), is enabled, and features and a memory table are there. A call fd is not needed.
///
/// before() sees each message first and stops what the message will change; after() takes over
/// what changed and starts what is ready. When the library refuses a message in between, after()
/// is not called, and stopped queues start again after the next good message.
///
/// Threads: one at a time.
class Session {
  public:
    /// What librte_vhost shall do; values are RTE_VHOST_MSG_RESULT_*.
    enum class Verdict : int {
        kError = -1,    ///< nack if a reply was asked for, else close the connection
        kDone = 0,      ///< ack if a reply was asked for
        kReply = 1,     ///< the message has been turned into its reply
        kContinue = 2,  ///< the library's own handler
    };

    /// `offered`: the feature bits of the GET_FEATURES answer.
    Session(int vid, std::string name, Handler& handler, uint64_t offered);
    Session(const Session&) = delete;
    Session& operator=(const Session&) = delete;

    Verdict before(Message message);
    Verdict after();

    /// Stop all queues (Stop::kDisconnected) and say disconnected(). Later messages are errors.
    /// Guest memory must still be mapped. Closing again does nothing.
    void close();
    bool closed() const { return closed_; }

  private:
    struct Addresses {
        uint64_t desc, avail, used;
    };
    struct Queue {
        uint32_t size = 0;
        std::optional<Addresses> addresses;
        bool kick = false;
        /// As SET_VRING_ENABLE said. Not said: enabled unless VHOST_USER_F_PROTOCOL_FEATURES.
        std::optional<bool> enabled;
        uint32_t base = 0;
        bool running = false;
    };

    Verdict refuse(const Message& message, const char* why);
    Verdict check(const Message& message);
    Verdict act(Message& message);
    Verdict get_config(Message& message);
    Verdict set_config(const Message& message);
    void get_vring_base();
    bool load_memory();

    void stop(uint16_t index, Handler::Stop why);
    void stop_all(Handler::Stop why);
    bool ready(const Queue& queue) const;
    void start_ready_queues();

    const int vid_;
    const std::string name_;
    Handler& handler_;
    const uint64_t offered_;
    bool closed_ = false;

    std::vector<Queue> queues_;
    std::optional<uint64_t> features_;
    std::shared_ptr<const virtq::MemoryMap> memory_;

    /// The message between before() and after(). The library overwrites its own copy with replies.
    uint32_t request_ = 0;
    uint16_t index_ = 0;  ///< of the queue it names
    uint64_t value_ = 0;  ///< feature bits, or the `num` of a vring state
    Addresses addresses_{};
};

}  // namespace viommu::vhost

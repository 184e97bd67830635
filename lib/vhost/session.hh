// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "handler.hh"
#include "memory_table.hh"
#include "message.hh"

namespace viommu::vhost {

/// One connection of one frontend: what its messages have told so far, and which queues run.
///
/// librte_vhost receives and answers. It keeps nothing of the device: neither features, nor rings,
/// nor memory, nor file descriptors, so it never looks at ring memory and never considers a queue
/// ready. Readiness is decided here, per queue, for every kind of device: a queue runs when it has
/// a size, addresses and a kick (a file descriptor or the promise to poll), is enabled, and
/// features and memory are there. A call fd is not needed.
///
/// A message is checked first, file descriptors included; one that is refused changes nothing, and
/// stops nothing. Otherwise what it changes is stopped, changed, and started if it is ready.
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
    Session(std::string name, Handler& handler, uint64_t offered);
    Session(const Session&) = delete;
    Session& operator=(const Session&) = delete;

    Verdict handle(Message message);
    /// The last message was refused without a reply, which ends the connection; why stands in the
    /// log.
    bool refused() const { return refused_; }

    /// The frontend has given us a channel and can read the configuration space.
    bool hears_changes() const;
    /// Tell the frontend that the configuration space has changed. Never waits: a frontend that
    /// does not read what it was told has still to hear of an earlier change, and will then see
    /// this one too. False: it cannot be told.
    bool config_changed();

    /// Stop all queues (Stop::kDisconnected) and say disconnected(). Later messages are errors.
    /// Closing again does nothing.
    void close();
    bool closed() const { return closed_; }

  private:
    struct Addresses {
        uint64_t desc, avail, used;
    };
    struct Queue {
        uint32_t size = 0;
        std::optional<Addresses> addresses;
        bool kick = false;  ///< SET_VRING_KICK came, with a file descriptor or without
        Fd kick_fd;
        Fd call_fd;
        /// As SET_VRING_ENABLE said. Not said: enabled unless VHOST_USER_F_PROTOCOL_FEATURES.
        std::optional<bool> enabled;
        uint32_t base = 0;
        bool running = false;
    };
    /// What check() found in the message.
    struct Request {
        uint32_t id = 0;
        uint16_t index = 0;  ///< of the queue it names
        uint64_t value = 0;  ///< its u64, or the `num` of a vring state
        std::vector<Fd> fds;
    };

    Verdict refuse(const Message& message, std::string_view why);
    bool check(const Message& message, Request& request);
    bool check_values(const Message& message, const Request& request);
    bool check_fds(const Message& message, const Request& request);
    Verdict act(Message& message, Request& request);
    Verdict act_on_queue(Message& message, Request& request);
    Verdict change_memory(const Message& message, Request& request);
    Verdict set_log_base(Message& message, Request& request);
    Verdict get_vring_base(Message& message, uint16_t index);
    Verdict get_config(Message& message);
    Verdict set_config(const Message& message);
    bool acked(unsigned feature) const;
    void tell_log();

    void stop(uint16_t index, Handler::Stop why);
    void stop_all(Handler::Stop why);
    bool ready(const Queue& queue) const;
    void start_ready_queues();

    const std::string name_;
    Handler& handler_;
    const uint64_t offered_;
    bool closed_ = false;
    bool refused_ = false;

    /// To the frontend. Not the library's business, which would wait for it without end.
    Fd backend_channel_;
    uint64_t protocol_features_ = 0;

    std::vector<Queue> queues_;
    std::optional<uint64_t> features_;
    MemoryTable memory_;

    std::shared_ptr<std::byte> log_bits_;
    uint64_t log_bytes_ = 0;
    std::shared_ptr<const virtq::DirtyLog> log_;  ///< what the Handler has
};

}  // namespace viommu::vhost

// SPDX-License-Identifier: BSD-3-Clause
/// lib/vhost (L4): glue to librte_vhost, and the only place that includes rte_vhost.h, but for
/// app/perf, which measures what others serve with it.
///
/// A Socket is one vhost-user server socket that accepts one frontend at a time. It turns the
/// protocol into calls of a Handler: a virtio device that sees features, configuration space,
/// memory and queues, and never a message.
///
/// All calls of all Handlers come from librte_vhost's one event thread, or from a Socket's
/// destructor, one at a time in the whole process. They must not wait for another frontend's
/// message, and neither create nor destroy Sockets.
///
///   socket.cc    registration, connections: who may come in, callbacks to sessions
///   session.hh   one connection: messages, and which queues run
///   message.hh   the part of the library's message that is safe to look at
///   rules.hh     what each message must look like, and whose it is
///   memory_table.hh  the connection's memory regions, which we map ourselves
///   peer.hh      the connection's socket, which the library does not show
#pragma once

#include <memory>
#include <string>

#include "handler.hh"

namespace viommu::vhost {

class Socket {
  public:
    /// Create the socket file (mode 0600; a stale one is replaced) and start to listen.
    /// `handler` must outlive the Socket. EAL must have been initialised.
    /// Errors: says which path and why.
    static Result<std::unique_ptr<Socket>> listen(const std::string& path, Handler& handler);
    /// Closes the connection, if there is one (queues are stopped first), and removes the file.
    /// Waits for a message that is being received, at most a second.
    ///
    /// Threads: not from a Handler's function.
    ~Socket();
    Socket(const Socket&) = delete;
    Socket& operator=(const Socket&) = delete;

    const std::string& path() const;
    /// Connections refused because one was there already. Threads: any.
    uint64_t refused_connections() const;

    /// The frontend, if there is one, will be told when configuration space changes. Many cannot
    /// be: it takes the protocol features CONFIG and BACKEND_REQ.
    /// Threads: not from a Handler's function.
    bool hears_changes() const;
    /// The Handler's configuration space has changed: tell the frontend, without waiting for it.
    /// Waits for a Handler's call that is under way. False: there is nobody who can be told.
    /// Threads: not from a Handler's function.
    bool config_changed();

  private:
    struct Impl;
    explicit Socket(std::unique_ptr<Impl>);
    std::unique_ptr<Impl> impl_;
};

}  // namespace viommu::vhost

// SPDX-License-Identifier: BSD-3-Clause
/// Numbered packets of mixed sizes whose every byte is accounted for.
#pragma once

#include <xxhash.h>

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace viommu::e2e {

/// What goes into one queue and must come out of another: unchanged, in order, each once. Packets
/// may be missing; how many is known.
///
///     Ethernet header | sequence number, le64 | stream, le32 | random bytes
class Stream {
  public:
    static constexpr uint32_t kMinBytes = 60;
    static constexpr uint32_t kGiantBytes = 65000;  ///< one packet in 16
    static constexpr uint32_t kMostBytes = 9000;    ///< of the others

    /// `id`: which one it is, where several meet.
    explicit Stream(uint32_t id);

    uint32_t bytes_of(uint64_t sequence) const;
    /// The next packet. Returns its length, bytes_of(sent()).
    uint32_t write(std::span<std::byte> room);
    /// A packet has come. False: it is not one of the stream, or has come before, or after one that
    /// was sent later; why() tells.
    bool read(std::span<const std::byte> packet);
    const std::string& why() const { return why_; }

    uint64_t sent() const { return digests_.size(); }
    uint64_t received() const { return received_; }
    uint64_t sent_bytes() const { return sent_bytes_; }
    /// The lowest number that may still come.
    uint64_t expected() const { return expected_; }
    /// Of all bytes that went in, and of all that came out: 128 bits, hexadecimal.
    std::string hash_in() const { return digest(*in_); }
    std::string hash_out() const { return digest(*out_); }

  private:
    struct Free {
        void operator()(XXH3_state_t* s) const { XXH3_freeState(s); }
    };
    using Hash = std::unique_ptr<XXH3_state_t, Free>;
    static Hash start();
    static std::string digest(const XXH3_state_t& state);
    bool refuse(std::string why);

    const uint32_t id_;
    Hash in_ = start(), out_ = start();
    std::vector<uint64_t> digests_;  ///< of each packet that was sent
    uint64_t sent_bytes_ = 0;
    uint64_t received_ = 0;
    uint64_t expected_ = 0;
    std::string why_;
};

}  // namespace viommu::e2e

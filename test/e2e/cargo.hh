// SPDX-License-Identifier: BSD-3-Clause
/// The bytes of a connection in frames that may be large, finished or not, and what must come of
/// them at a guest that takes some kinds of unfinished frames and not others.
#pragma once

#include <gtest/gtest.h>

#include <deque>
#include <random>

#include "packets.hh"
#include "viommu_guest.hh"

namespace viommu::e2e {

/// A frame to be sent.
struct Load {
    std::vector<std::byte> frame{};
    wire::virtio_net_hdr header{};
    uint32_t pieces = 1;  ///< that it is cut into for who does not take it whole
    bool is_large() const { return pieces > 1; }
};

/// One direction of one connection. Payload is a stream, so nothing may be lost.
class Cargo {
  public:
    /// `takes`: feature bits GUEST_*, of the receiver. `finished`: a device comes between, which
    /// gets finished frames.
    Cargo(const guest::Flow& flow, uint64_t takes, bool finished)
        : flow_(flow), takes_(takes), finished_(finished) {}

    const guest::Flow& flow() const { return flow_; }
    /// Frames that have not come yet, or not all of them.
    size_t due() const { return sent_.size(); }

    /// `gso_bytes`: 0: an ordinary frame, `unfinished` or not.
    Load send(uint32_t payload_bytes, uint16_t gso_bytes, bool unfinished) {
        std::vector<std::byte> payload(payload_bytes);
        for (uint32_t i = 0; i < payload_bytes; ++i) payload[i] = byte_at(sent_bytes_ + i);
        Load load;
        const auto sequence = uint32_t(sent_bytes_);
        if (gso_bytes != 0)
            load.frame = make_giant_frame(flow_, sequence, payload, gso_bytes, load.header);
        else if (unfinished)
            load.frame = make_unfinished_frame(flow_, sequence, payload, load.header);
        else
            load.frame = make_frame(flow_, sequence, payload);
        if (gso_bytes != 0) load.pieces = (payload_bytes + gso_bytes - 1) / gso_bytes;
        sent_.push_back({payload_bytes, gso_bytes, load.header, load.is_large()});
        sent_bytes_ += payload_bytes;
        return load;
    }
    /// A frame of this flow has come. What is wrong with it, or nothing.
    std::string receive(const wire::virtio_net_hdr& header, std::span<const std::byte> bytes) {
        if (sent_.empty()) return "more came than was sent";
        const Sent& sent = sent_.front();
        const bool cut = sent.large && !takes_whole();
        const auto left = uint32_t(sent.payload_bytes - done_);
        const uint32_t due = cut ? std::min<uint32_t>(sent.gso_bytes, left) : left;
        const bool last = due == left;
        auto trouble = trouble_of_header(header, sent, cut);
        if (trouble.empty()) trouble = trouble_of_frame(header, bytes, due, last);
        done_ += due;
        received_bytes_ += due;
        ++piece_;
        if (last) sent_.pop_front(), done_ = 0, piece_ = 0;
        return trouble;
    }

  private:
    struct Sent {
        uint32_t payload_bytes;
        uint16_t gso_bytes;
        wire::virtio_net_hdr header;
        bool large;
    };
    static constexpr uint8_t kFin = 0x01, kPsh = 0x08, kCwr = 0x80;

    std::byte byte_at(uint64_t at) const {
        static const auto noise = [] {
            std::vector<std::byte> bytes(65521);  // a prime: pieces begin anywhere in it
            std::mt19937 rng(1);
            for (auto& b : bytes) b = std::byte(rng());
            return bytes;
        }();
        return noise[(at + flow_.source_port) % noise.size()];
    }
    bool takes(unsigned feature) const { return (takes_ & guest::bit(feature)) != 0; }
    bool takes_whole() const {
        if (finished_) return false;
        if (flow_.udp)
            return takes(flow_.ipv6 ? wire::VIRTIO_NET_F_GUEST_USO6
                                    : wire::VIRTIO_NET_F_GUEST_USO4);
        const bool ecn = (flow_.tcp_flags & kCwr) != 0;
        return takes(flow_.ipv6 ? wire::VIRTIO_NET_F_GUEST_TSO6 : wire::VIRTIO_NET_F_GUEST_TSO4) &&
               (!ecn || takes(wire::VIRTIO_NET_F_GUEST_ECN));
    }
    /// 5.1.6.4: as it was sent, without what has been done.
    std::string trouble_of_header(const wire::virtio_net_hdr& is, const Sent& sent,
                                  bool cut) const {
        wire::virtio_net_hdr want{};
        if (!finished_ && takes(wire::VIRTIO_NET_F_GUEST_CSUM)) want = sent.header;
        if (cut || !sent.large) want.gso_type = 0, want.gso_size = 0, want.hdr_len = 0;
        if (is.flags == want.flags && is.gso_type == want.gso_type &&
            is.gso_size == want.gso_size && is.hdr_len == want.hdr_len &&
            is.csum_start == want.csum_start && is.csum_offset == want.csum_offset)
            return {};
        return fmt::format("header: flags {}, GSO {} {}, {} bytes, sum {} {}; not {}, {} {}, {}, "
                           "{} {}",
                           is.flags, is.gso_type, uint16_t(is.gso_size), uint16_t(is.hdr_len),
                           uint16_t(is.csum_start), uint16_t(is.csum_offset), want.flags,
                           want.gso_type, uint16_t(want.gso_size), uint16_t(want.hdr_len),
                           uint16_t(want.csum_start), uint16_t(want.csum_offset));
    }
    std::string trouble_of_frame(const wire::virtio_net_hdr& header,
                                 std::span<const std::byte> bytes, uint32_t due,
                                 bool last) const {
        std::vector<std::byte> frame(bytes.begin(), bytes.end());
        const bool begun = header.flags == wire::VIRTIO_NET_HDR_F_NEEDS_CSUM;
        if (begun && !read_frame(flow_, frame).checksum_begun) return "no sum of a pseudo header";
        if (begun) guest::finish_frame(header, frame);
        const auto read = read_frame(flow_, frame);
        if (!read.trouble.empty()) return read.trouble;
        if (!read.checksum_good) return "the checksum is wrong";
        if (!flow_.ipv6 && read.ipv4_id != piece_)
            return fmt::format("IPv4 identification {} of piece {}", read.ipv4_id, piece_);
        if (!flow_.udp && read.tcp_sequence != uint32_t(received_bytes_))
            return fmt::format("sequence {}, not {}", read.tcp_sequence, received_bytes_);
        uint8_t flags = flow_.tcp_flags;
        if (!last) flags &= uint8_t(~(kFin | kPsh));
        if (piece_ != 0) flags &= uint8_t(~kCwr);
        if (!flow_.udp && read.tcp_flags != flags)
            return fmt::format("TCP flags {:#x}, not {:#x}, in piece {}", read.tcp_flags, flags,
                               piece_);
        if (read.payload.size() != due)
            return fmt::format("{} bytes of payload, not {}", read.payload.size(), due);
        for (uint32_t i = 0; i < due; ++i)
            if (read.payload[i] != byte_at(received_bytes_ + i))
                return fmt::format("byte {} of the payload is another", i);
        return {};
    }

    const guest::Flow flow_;
    const uint64_t takes_;
    const bool finished_;
    std::deque<Sent> sent_{};
    uint64_t sent_bytes_ = 0, received_bytes_ = 0;
    uint32_t done_ = 0, piece_ = 0;  ///< of the first in sent_
};

}  // namespace viommu::e2e

// SPDX-License-Identifier: BSD-3-Clause
#include "address.hh"

namespace viommu::detail {

fmt::appender write_hex(fmt::appender out, uint64_t value) {
    return fmt::format_to(out, "{:#x}", value);
}

fmt::appender write_hex_range(fmt::appender out, uint64_t first, uint64_t last) {
    return fmt::format_to(out, "[{:#x}, {:#x}]", first, last);
}

}  // namespace viommu::detail

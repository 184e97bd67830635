// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <string>
#include <string_view>

namespace viommu::app {

/// text_of(each item), with `separator` between them.
/// Not fmt::join: GCC 12 warns about what fmt 9 inlines for it.
template <class Items, class TextOf>
std::string join(const Items& items, std::string_view separator, TextOf text_of) {
    std::string out;
    for (const auto& item : items) {
        if (!out.empty()) out.append(separator);
        out.append(text_of(item));
    }
    return out;
}

/// Of strings.
template <class Items>
std::string join(const Items& items, std::string_view separator) {
    return join(items, separator, [](const auto& text) { return std::string_view(text); });
}

}  // namespace viommu::app

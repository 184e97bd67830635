// SPDX-License-Identifier: BSD-3-Clause
#include "toml_section.hh"

#include <algorithm>
#include <cctype>
#include <numeric>
#include <sstream>

#include "join.hh"
#include "units.hh"

namespace viommu::app {
namespace {

/// Insertions, deletions and replacements that lead from one word to the other.
size_t edit_distance(std::string_view a, std::string_view b) {
    std::vector<size_t> row(b.size() + 1);
    std::iota(row.begin(), row.end(), size_t{0});
    for (size_t i = 0; i < a.size(); i++) {
        size_t diagonal = row[0];
        row[0] = i + 1;
        for (size_t j = 0; j < b.size(); j++) {
            const size_t replaced = diagonal + (a[i] != b[j]);
            diagonal = row[j + 1];
            row[j + 1] = std::min({replaced, row[j] + 1, diagonal + 1});
        }
    }
    return row.back();
}

std::string spell(const toml::node& node) {
    std::ostringstream out;
    node.visit([&](const auto& value) { out << value; });
    std::string text = out.str();
    std::replace(text.begin(), text.end(), '\n', ' ');
    constexpr size_t kMost = 60;
    if (text.size() > kMost) text = text.substr(0, kMost - 3) + "...";
    return text;
}

/// As it can stand in the file: one that is empty, or has other than letters, digits, _ and -, is
/// quoted.
std::string spell_key(std::string_view key) {
    const bool bare = !key.empty() && std::ranges::all_of(key, [](unsigned char c) {
        return std::isalnum(c) != 0 || c == '_' || c == '-';
    });
    return bare ? std::string(key) : spell(toml::value<std::string>(std::string(key)));
}

std::string_view type_of(const toml::node& node) {
    switch (node.type()) {
        case toml::node_type::table:
            return "a table";
        case toml::node_type::array:
            return "an array";
        case toml::node_type::string:
            return "a string";
        case toml::node_type::integer:
            return "an integer";
        case toml::node_type::floating_point:
            return "a floating-point number";
        case toml::node_type::boolean:
            return "a boolean";
        default:
            return "a date or time";
    }
}

/// The number that an integer or a string stands for.
template <class Parse>
std::optional<uint64_t> number_of(const toml::node& node, Parse parse) {
    if (const auto* integer = node.as_integer())
        return integer->get() < 0 ? std::nullopt : std::optional<uint64_t>(integer->get());
    if (const auto* string = node.as_string()) return parse(string->get());
    return std::nullopt;
}

}  // namespace

std::string to_string(const Place& place) {
    return place.key.empty() ? fmt::format("{}:{}", place.file, place.line)
                             : fmt::format("{}:{}: {}", place.file, place.line, place.key);
}

void ProblemList::add(const Place& place, std::string_view value, std::string_view what) {
    problems_.push_back({place.line, fmt::format("{}{}{}: {}", to_string(place),
                                                 value.empty() ? "" : " = ", value, what)});
}

Problems ProblemList::sorted() const {
    auto in_order = problems_;
    std::stable_sort(in_order.begin(), in_order.end(),
                     [](const Problem& a, const Problem& b) { return a.line < b.line; });
    Problems out;
    for (auto& p : in_order) out.push_back(std::move(p.message));
    return out;
}

Section::Section(const toml::table& table, std::string file, std::string path,
                 ProblemList& problems)
    : table_(table), file_(std::move(file)), path_(std::move(path)), problems_(&problems) {}

std::string Section::path_of(std::string_view key) const {
    if (key.empty()) return path_;
    return path_.empty() ? std::string(key) : fmt::format("{}.{}", path_, key);
}

void Section::check_keys(std::initializer_list<std::string_view> known) const {
    for (const auto& [key, value] : table_) {
        if (std::find(known.begin(), known.end(), key.str()) != known.end()) continue;
        const auto nearest =
            std::min_element(known.begin(), known.end(), [text = key.str()](auto a, auto b) {
                return edit_distance(a, text) < edit_distance(b, text);
            });
        const bool near = edit_distance(*nearest, key.str()) <= 1 + nearest->size() / 4;
        const auto advice = near ? fmt::format("did you mean '{}'?", *nearest)
                                 : fmt::format("known keys here: {}", join(known, ", "));
        problems_->add({file_, unsigned(key.source().begin.line), path_of(spell_key(key.str()))},
                       spell(value),
                       fmt::format("there is no such key; {}", advice));
    }
}

Place Section::place(std::string_view key) const {
    const auto at = key.empty() ? table_.end() : table_.find(key);
    if (at == table_.end()) return {file_, unsigned(table_.source().begin.line), path_of(key)};
    return {file_, unsigned(at->first.source().begin.line), path_of(key)};
}

std::string Section::spelled(std::string_view key) const {
    const toml::node* node = key.empty() ? nullptr : table_.get(key);
    return node ? spell(*node) : std::string();
}

void Section::problem(std::string_view key, std::string_view what) const {
    problems_->add(place(key), spelled(key), what);
}

void Section::missing(std::string_view key, std::string_view example) const {
    problems_->add(place(key), "",
                   fmt::format("is required and not there; write e.g. {} = {}", key, example));
}

std::optional<std::string> Section::string(std::string_view key, std::string_view example) const {
    const toml::node* node = table_.get(key);
    if (!node) return std::nullopt;
    if (const auto* value = node->as_string()) return value->get();
    problem(key, fmt::format("is {}; write a string, e.g. {} = {}", type_of(*node), key, example));
    return std::nullopt;
}

std::optional<std::string> Section::required_string(std::string_view key,
                                                    std::string_view example) const {
    if (!has(key)) {
        missing(key, example);
        return std::nullopt;
    }
    auto value = string(key, example);
    if (value && value->empty()) {
        problem(key, fmt::format("is empty; write e.g. {} = {}", key, example));
        return std::nullopt;
    }
    return value;
}

std::optional<bool> Section::boolean(std::string_view key) const {
    const toml::node* node = table_.get(key);
    if (!node) return std::nullopt;
    if (const auto* value = node->as_boolean()) return value->get();
    problem(key, fmt::format("is {}; write {} = true or {} = false", type_of(*node), key, key));
    return std::nullopt;
}

std::optional<uint64_t> Section::number(std::string_view key, uint64_t least, uint64_t most,
                                        std::string_view example) const {
    const toml::node* node = table_.get(key);
    if (!node) return std::nullopt;
    const auto value = number_of(*node, parse_number);
    if (value && *value >= least && *value <= most) return value;
    if (value || node->is_integer())
        problem(key, fmt::format("is not from {:#x} to {:#x} ({} to {}); write e.g. {} = {}", least,
                                 most, least, most, key, example));
    else
        problem(key,
                fmt::format("is {}; write an integer or, above 2^63-1, one in quotes, "
                            "e.g. {} = {}",
                            node->is_string() ? "not a number" : type_of(*node), key, example));
    return std::nullopt;
}

std::vector<uint64_t> Section::numbers(std::string_view key, uint64_t least, uint64_t most,
                                       std::string_view example, std::string_view list) const {
    const toml::node* node = table_.get(key);
    if (!node) return {};
    const auto* array = node->as_array();
    if (!array) {
        const auto one = number(key, least, most, example);
        return one ? std::vector{*one} : std::vector<uint64_t>();
    }
    std::vector<uint64_t> out;
    for (const auto& element : *array)
        if (const auto value = number_of(element, parse_number);
            value && *value >= least && *value <= most)
            out.push_back(*value);
    if (!out.empty() && out.size() == array->size()) return out;
    problem(key, fmt::format("{} from {} to {}; write e.g. {} = {} or {} = {}",
                             array->empty() ? "is empty, and has to have numbers"
                                            : "has something that is no number",
                             least, most, key, example, key, list));
    return {};
}

std::optional<uint64_t> Section::size(std::string_view key, std::string_view example) const {
    const toml::node* node = table_.get(key);
    if (!node) return std::nullopt;
    const auto value = number_of(*node, parse_size);
    if (value) return value;
    problem(key, fmt::format("is not a size; write bytes, or a string with a unit K, M, G or T, "
                             "e.g. {} = {}",
                             key, example));
    return std::nullopt;
}

std::optional<std::vector<std::string>> Section::strings(std::string_view key,
                                                         std::string_view example) const {
    const toml::node* node = table_.get(key);
    if (!node) return std::nullopt;
    const auto* array = node->as_array();
    std::vector<std::string> out;
    if (array)
        for (const auto& element : *array)
            if (const auto* value = element.as_string()) out.push_back(value->get());
    if (array && out.size() == array->size()) return out;
    problem(key, fmt::format("is not an array of strings; write e.g. {} = {}", key, example));
    return std::nullopt;
}

std::optional<Section> Section::table(std::string_view key, std::string_view example) const {
    const toml::node* node = table_.get(key);
    if (!node) return std::nullopt;
    if (const auto* value = node->as_table())
        return Section(*value, file_, path_of(key), *problems_);
    problem(key, fmt::format("is {}; write a table, e.g. {} = {}", type_of(*node), key, example));
    return std::nullopt;
}

std::vector<Section> Section::tables(std::string_view key, std::string_view example) const {
    std::vector<Section> out;
    const toml::node* node = table_.get(key);
    if (!node) return out;
    const auto* array = node->as_array();
    if (array)
        for (const auto& element : *array)
            if (const auto* value = element.as_table()) {
                const auto* name = value->get_as<std::string>("name");
                out.emplace_back(*value, file_,
                                 name ? fmt::format("{}.{}", path_of(key), name->get())
                                      : fmt::format("{}[{}]", path_of(key), out.size()),
                                 *problems_);
            }
    if (!array || out.size() != array->size())
        problem(key, fmt::format("is not an array of tables; write e.g. {}", example));
    return out;
}

}  // namespace viommu::app

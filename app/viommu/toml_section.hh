// SPDX-License-Identifier: BSD-3-Clause
/// Typed access to a TOML table that collects what is wrong instead of stopping at it.
#pragma once

#include <toml++/toml.h>

#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "config.hh"

namespace viommu::app {

/// What is wrong so far.
class ProblemList {
  public:
    /// `value`: as the file spells it, or empty when the point is that it is not there.
    /// `what`: what is wrong, and after a semicolon what would be right.
    void add(const Place& place, std::string_view value, std::string_view what);
    bool empty() const { return problems_.empty(); }
    /// In the order of the lines.
    Problems sorted() const;

  private:
    struct Problem {
        unsigned line;
        std::string message;
    };
    std::vector<Problem> problems_;
};

/// One table. Getters return nothing when the key is absent, and also when its value is unusable,
/// in which case that has been said.
class Section {
  public:
    /// `path`: what messages call the table, e.g. "guest.vm0"; empty for the root.
    Section(const toml::table& table, std::string file, std::string path, ProblemList& problems);

    /// Say which keys are not among `known`, and which known one was probably meant.
    void check_keys(std::initializer_list<std::string_view> known) const;

    bool has(std::string_view key) const { return table_.contains(key); }
    /// Of the key's value, or of the table when the key is absent.
    Place place(std::string_view key) const;
    /// As the file spells it, shortened.
    std::string spelled(std::string_view key) const;
    void problem(std::string_view key, std::string_view what) const;
    void missing(std::string_view key, std::string_view example) const;

    /// `example`: a right value, for messages.
    std::optional<std::string> string(std::string_view key, std::string_view example) const;
    std::optional<std::string> required_string(std::string_view key,
                                               std::string_view example) const;
    std::optional<bool> boolean(std::string_view key) const;
    /// An integer, or a string with one (TOML's integers end at 2^63-1), from `least` to `most`.
    std::optional<uint64_t> number(std::string_view key, uint64_t least, uint64_t most,
                                   std::string_view example) const;
    /// A number, or a list of them that is not empty; empty when the key is absent.
    std::vector<uint64_t> numbers(std::string_view key, uint64_t least, uint64_t most,
                                  std::string_view example, std::string_view list) const;
    /// An integer of bytes, or a string with a unit.
    std::optional<uint64_t> size(std::string_view key, std::string_view example) const;
    std::optional<std::vector<std::string>> strings(std::string_view key,
                                                    std::string_view example) const;
    /// A table, or the tables of an array; `path` of each is "<path>.<key>[.<name or number>]".
    std::optional<Section> table(std::string_view key, std::string_view example) const;
    std::vector<Section> tables(std::string_view key, std::string_view example) const;

  private:
    std::string path_of(std::string_view key) const;

    const toml::table& table_;
    std::string file_;
    std::string path_;
    ProblemList* problems_;
};

}  // namespace viommu::app

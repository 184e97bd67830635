// SPDX-License-Identifier: BSD-3-Clause
/// What the scenarios of readers_model_test.cc play with: a guest's table and memory, and processes
/// that read.
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <cstdlib>
#include <map>
#include <memory>
#include <vector>

#include "sched.hh"
#include "viommu_xlate.hh"

namespace viommu::model {

using xlate::Reader;

constexpr uint64_t kPage = 4096;
constexpr EndpointId kEndpoint = 8, kOther = 9;
/// Pages at the same place of different lowest nodes, so that a node that goes
/// to another IOVA leads a reader that is still in it astray.
constexpr uint64_t kA = 0x200000, kB = 0x400000, kC = 0x600000;

struct NoFaults final : xlate::FaultSink {
    bool push(const xlate::Fault&) noexcept override { return true; }
};

/// A reader process: its page, and what it maps.
class Process final : table::SlotOwner {
  public:
    /// Threads: control. `pages`: where the writer has the pages of all processes.
    Process(World& world, table::Table& table, const std::byte* pages, unsigned readers)
        : table_(table), place_(std::move(*table.readers().pages().add())) {
        page_ = static_cast<table::ReaderPage*>(
            mmap(nullptr, kPage, PROT_READ | PROT_WRITE, MAP_SHARED, place_.page.get(), 0));
        if (page_ == MAP_FAILED) std::abort();
        world.readers_words(pages + place_.process * kPage, page_, kPage);
        page_->taken().store((uint64_t{1} << readers) - 1, std::memory_order_release);
        for (unsigned i = 0; i < readers; ++i) {
            const table::View view = table.arena().view();
            readers_.push_back(std::move(
                *Reader::create(view, table::Section(view.header->reader_token, *page_, i, *this),
                                faults_, kEndpoint)));
        }
    }
    ~Process() {
        readers_.clear();
        munmap(page_, kPage);
    }
    /// It has come to its end, or its socket has. Threads: control.
    void gone() { table_.readers().pages().remove(place_.process); }
    Reader& reader(unsigned i) { return readers_[i]; }

  private:
    void give_back(unsigned) noexcept override {}

    table::Table& table_;
    table::ReaderPages::Place place_;
    table::ReaderPage* page_;
    NoFaults faults_;
    std::vector<Reader> readers_;
};

/// A table, its guest's memory, and a process with readers.
class Guest {
  public:
    Guest(World& world, unsigned readers, unsigned input_bits = 30)
        : world_(world),
          broken_(world.broken()),
          table_(std::move(*table::Table::create({.input = {{0}, {(uint64_t{1} << input_bits) - 1}},
                                                  .max_endpoints = 2,
                                                  .max_regions = 1,
                                                  .max_domains = 4,
                                                  .arena_bytes = 40 * kPage,
                                                  .max_readers = 1}))) {
        for (const EndpointId e : {kEndpoint, kOther})
            if (!table_->add_endpoint(e)) std::abort();
        attach(kEndpoint, 1);
        // What the writer loads to count the slots of process 0.
        const auto& pages = table_->readers().pages();
        pages.slots_taken(0);
        pages_ = static_cast<const std::byte*>(model::last_load) -
                 offsetof(table::ReaderPage, slots[0].taken);
        if (readers != 0) join(readers);
        const auto* base = table_->arena().view().base;
        const table::ArenaHeader& header = table_->arena().header();
        world.name(pages_, table::ReaderPages::kMaxProcesses * kPage, "page");
        world.name(&header.generation, 8, "generation");
        world.name(&header.reader_token, 8, "token");
        world.name(base + header.endpoints_offset, 128, "endpoint");
        world.name(base + header.nodes_offset, 40 * kPage, "node");
    }
    /// Processes will come and go while the writer runs.
    void processes_change() {
        table_->readers().pages().live();
        world_.readers_words(model::last_load, model::last_load, 8);
        world_.name(model::last_load, 8, "live");
    }
    /// Its memory stays until the execution ends: stores may still be on their way to it.
    Process& join(unsigned readers) {
        processes_.push_back(std::make_unique<Process>(world_, *table_, pages_, readers));
        return *processes_.back();
    }

    // The writer.
    void attach(EndpointId endpoint, DomainId domain) {
        ok(table_->attach(endpoint, domain, false));
        if (endpoint == kEndpoint) take_away();
        if (endpoint == kEndpoint) attached_ = domain;
    }
    void detach() {
        ok(table_->detach(kEndpoint, attached_));
        take_away();
        attached_ = 0;
    }
    /// Never the same page twice.
    void map(DomainId domain, uint64_t iova, uint64_t pages = 1) {
        const uint64_t gpa = next_gpa_;
        for (uint64_t i = 0; i < pages; ++i) owners_[gpa + i * kPage] = {iova + i * kPage, domain};
        next_gpa_ += 16 * kPage;
        ok(table_->map(domain, {{iova}, {iova + pages * kPage - 1}}, {gpa}, Access::kReadWrite));
    }
    void unmap(DomainId domain, uint64_t iova, uint64_t pages = 1) {
        ok(table_->unmap(domain, {{iova}, {iova + pages * kPage - 1}}));
        for (auto& [gpa, owner] : owners_)
            if (owner.domain == domain && owner.iova - iova < pages * kPage)
                leaving_.push_back(gpa);
    }
    /// Wait for readers, then answer: now the guest uses the pages for something
    /// else.
    void answer() {
        const auto token = table_->start_grace();
        if (broken_ != Broken::kNoWait)
            model::wait_until([&] { return table_->grace_over(token); });
        model::step();
        if (poisoning)
            for (const uint64_t gpa : leaving_) owners_[gpa].poisoned = true;
        leaving_.clear();
    }
    /// Before anything runs: nobody is inside a section.
    void answer_at_once() {
        if (!table_->grace_over(table_->start_grace())) std::abort();
        for (const uint64_t gpa : leaving_) owners_[gpa].poisoned = true;
        leaving_.clear();
    }

    // Readers.
    Reader& reader(unsigned i) { return processes_.front()->reader(i); }
    xlate::Translation translate(unsigned i, uint64_t iova, uint64_t bytes = 64) {
        return reader(i).translate({iova}, bytes, Access::kRead);
    }
    /// Read the page that `gpa` is in, which was found for `iova`.
    void touch(uint64_t iova, Gpa gpa) {
        model::step();
        const auto owner = owners_.find(gpa.value & ~(kPage - 1));
        check(owner != owners_.end() && owner->second.iova == (iova & ~(kPage - 1)),
              fmt::format("{:#x} was translated to {}, which is another's", iova, gpa));
        check(owner == owners_.end() || !owner->second.poisoned,
              fmt::format("{:#x} was translated to {}, which is no longer mapped", iova, gpa));
    }
    void use_burst(unsigned i, std::initializer_list<uint64_t> iovas) {
        std::vector<xlate::Lookup> in;
        for (const uint64_t iova : iovas) in.push_back({{iova}, 64});
        std::vector<xlate::Translation> out(
            in.size(), xlate::Translation::faulted(xlate::FaultReason::kUnknown));
        reader(i).translate_burst(in, out, Access::kRead);
        for (size_t n = 0; n < in.size(); ++n)
            if (out[n]) touch(in[n].iova.value, out[n].gpa());
    }
    /// True when there is a translation.
    bool use(unsigned i, uint64_t iova) {
        const auto t = translate(i, iova);
        if (t) touch(iova, t.gpa());
        return bool(t);
    }

    table::Table& table() { return *table_; }
    bool poisoning = true;
    model::Atom<uint64_t> answered{0};  ///< the used ring's index: the writer's

  private:
    struct Owner {
        uint64_t iova = 0;
        DomainId domain = 0;
        bool poisoned = false;
    };
    static void ok(Status status) { check_setup(status == Status::kOk); }
    static void check_setup(bool good) {
        if (!good) std::abort();
    }
    /// The endpoint can reach what the domain maps no longer.
    void take_away() {
        for (auto& [gpa, owner] : owners_)
            if (owner.domain == attached_) leaving_.push_back(gpa);
    }

    World& world_;  // as long as the execution
    Broken broken_;
    std::unique_ptr<table::Table> table_;
    const std::byte* pages_ = nullptr;
    std::vector<std::unique_ptr<Process>> processes_;
    std::map<uint64_t, Owner> owners_;  // of guest pages
    std::vector<uint64_t> leaving_;
    uint64_t next_gpa_ = 0x100000;
    DomainId attached_ = 0;
};

}  // namespace viommu::model

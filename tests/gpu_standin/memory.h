// The card's memory: ordinary memory, counted and limited as torch's CUDA allocator does it, and pinned memory.
// Reserved memory is the high-water mark of what was allocated: nothing is lost to fragmentation.
#pragma once
#include "machine.h"
#include <c10/core/Allocator.h>
#include <c10/util/Exception.h>
#include <algorithm>
#include <atomic>
#include <map>
#include <mutex>
#include <string>
#include <vector>

constexpr auto CUDA = c10::DeviceType::CUDA;
constexpr auto CPU = c10::DeviceType::CPU;
constexpr int64_t GRAIN = 512;            // CUDACachingAllocator: kMinBlockSize
constexpr int64_t SEGMENT = 2 * 1 << 20;  // what it asks the driver for comes in multiples of this

// The cards that CUDA_VISIBLE_DEVICES leaves visible, as indices of the machine's.
inline const std::vector<int64_t>& visible_cards() {
  static const std::vector<int64_t> cards = [] {
    std::vector<int64_t> found;
    const char* named = getenv("CUDA_VISIBLE_DEVICES");
    for (int64_t i = 0; !named && i < the_machine()->cards; i++) found.push_back(i);
    std::string rest = named ? named : "";
    while (!rest.empty()) {
      size_t comma = rest.find(',');
      std::string one = rest.substr(0, comma);
      rest = comma == std::string::npos ? "" : rest.substr(comma + 1);
      size_t digits = one.rfind("GPU-", 0) == 0 || one.rfind("MIG-", 0) == 0 ? 4 : 0;
      if (one.size() == digits || !isxdigit(one[digits])) break;  // CUDA stops at the first name that it does not know
      int64_t index = std::stoll(one.substr(digits), nullptr, digits ? 16 : 10);
      if (index >= the_machine()->cards) break;
      found.push_back(index);
    }
    return found;
  }();
  return cards;
}

// Tensors lie on the first visible card only: Nibble shows a process no more than one.
inline int64_t my_card() { return visible_cards().empty() ? 0 : visible_cards()[0]; }

inline int64_t card_bytes() {
  const Card& card = the_machine()->card[my_card()];
  return card.slice_bytes ? card.slice_bytes : card.bytes;
}

struct Count {
  std::mutex lock;
  int64_t allocated = 0, peak = 0, reserved = 0, peak_reserved = 0, out_of_memory = 0, allocations = 0, owner = 0;
  int64_t pinned = 0, peak_pinned = 0;
  double fraction = 1.0;
};
inline Count& count() { static Count one; return one; }

// This process' line of the machine's table.
inline Process& my_line() {
  static Process* line = [] {
    Machine* machine = the_machine();
    int64_t me = getpid();
    for (Process& each : machine->process) {
      int64_t was = each.pid;
      if ((was == 0 || was == me || !is_alive(was)) && __sync_bool_compare_and_swap(&each.pid, was, me)) {
        each.card = my_card(), each.bytes = 0, each.managed = 0;
        return &each;
      }
    }
    TORCH_CHECK(false, "the stand-in machine has no room for another process");
  }();
  return *line;
}

inline int64_t rounded_up(int64_t bytes, int64_t to) { return (bytes + to - 1) / to * to; }
inline int64_t counted_bytes(int64_t bytes) { return rounded_up(std::max<int64_t>(bytes, 1), GRAIN); }

inline std::string in_words(int64_t bytes) {
  char text[32];
  bool large = bytes >= 1 << 30;
  snprintf(text, sizeof text, large ? "%.2f GiB" : "%.2f MiB", (double)bytes / (large ? 1 << 30 : 1 << 20));
  return text;
}

// Bytes that are left for this process, its own included.
inline int64_t room() {
  int64_t driver = the_machine()->card[my_card()].driver_bytes, context = the_machine()->context_bytes;
  return card_bytes() - driver - context - used_by_others(my_card(), getpid()) - my_line().managed;
}

inline void take(int64_t bytes) {
  Count& now = count();
  std::lock_guard<std::mutex> guard(now.lock);
  if (!now.owner) now.owner = getpid();
  TORCH_CHECK(now.owner == getpid(), "Cannot re-initialize CUDA in forked subprocess. To use CUDA with multiprocessing, "
              "you must use the 'spawn' start method");
  int64_t allocated = now.allocated + counted_bytes(bytes), reserved = rounded_up(allocated, SEGMENT);
  int64_t allowed = (int64_t)(now.fraction * (double)card_bytes());
  if (reserved > now.reserved) {
    if (reserved > allowed || reserved > room()) {
      now.out_of_memory++;
      TORCH_CHECK_WITH(OutOfMemoryError, false, "CUDA out of memory. Tried to allocate ", in_words(bytes),
          ". GPU 0 has a total capacity of ", in_words(card_bytes()), " of which ",
          in_words(std::max<int64_t>(0, room() - now.reserved)), " is free. ", in_words(allowed),
          " allowed; Of the allocated memory ", in_words(now.allocated), " is allocated by PyTorch.");
    }
    now.reserved = reserved;
    now.peak_reserved = std::max(now.peak_reserved, reserved);
  }
  now.allocated = allocated;
  now.peak = std::max(now.peak, allocated);
  now.allocations++;
  my_line().bytes = the_machine()->context_bytes + now.reserved;
}

inline void give_back(int64_t bytes) {
  std::lock_guard<std::mutex> guard(count().lock);
  count().allocated -= counted_bytes(bytes);
}

inline void empty_cache() {
  Count& now = count();
  std::lock_guard<std::mutex> guard(now.lock);
  now.reserved = rounded_up(now.allocated, SEGMENT);
  if (now.owner) my_line().bytes = the_machine()->context_bytes + now.reserved;
}

// streams.h has these
extern thread_local int64_t current_stream;
void forget_uses(const void* address, int64_t stream);

struct CardAllocator final : c10::Allocator {
  struct Block { void* address; int64_t bytes, stream; };
  c10::DataPtr allocate(size_t bytes) override {
    c10::Device here(CUDA, 0);
    if (bytes == 0) return {nullptr, nullptr, [](void*) {}, here};
    take((int64_t)bytes);
    void* address = nullptr;
    if (posix_memalign(&address, GRAIN, (size_t)counted_bytes((int64_t)bytes))) {
      give_back((int64_t)bytes);
      TORCH_CHECK(false, "the machine under the stand-in has no memory left");
    }
    if (the_machine()->poisons) memset(address, 0xff, bytes);  // NaN in every floating dtype
    return {address, new Block{address, (int64_t)bytes, current_stream}, &release, here};
  }
  static void release(void* context) {
    auto* block = (Block*)context;
    forget_uses(block->address, block->stream);
    give_back(block->bytes);
    free(block->address);
    delete block;
  }
  void copy_data(void* to, const void* from, std::size_t bytes) const override { default_copy_data(to, from, bytes); }
};
inline CardAllocator& card_allocator() { static CardAllocator one; return one; }

// Pinned memory, which torch's host allocator rounds up to powers of two (2.13, CachingHostAllocator.h).
struct PinnedAllocator final : c10::Allocator {
  static std::map<uintptr_t, int64_t>& blocks() { static std::map<uintptr_t, int64_t> all; return all; }
  static std::mutex& lock() { static std::mutex one; return one; }
  static int64_t power_of_two(int64_t bytes) {
    int64_t size = 1;
    while (size < bytes) size *= 2;
    return size;
  }
  c10::DataPtr allocate(size_t bytes) override {
    std::lock_guard<std::mutex> guard(lock());
    int64_t size = power_of_two((int64_t)bytes), limit = the_machine()->pin_limit;
    TORCH_CHECK(limit < 0 || count().pinned + size <= limit, "CUDA error: out of memory\nCUDA kernel errors might be "
                "asynchronously reported at some other API call, so the stacktrace below might be incorrect.");
    void* address = nullptr;
    TORCH_CHECK(!posix_memalign(&address, 4096, std::max<size_t>(bytes, 1)), "no memory left");
    blocks()[(uintptr_t)address] = size;
    count().pinned += size;
    count().peak_pinned = std::max(count().peak_pinned, count().pinned);
    return {address, address, &release, c10::Device(CPU)};
  }
  static void release(void* address) {
    std::lock_guard<std::mutex> guard(lock());
    auto block = blocks().find((uintptr_t)address);
    count().pinned -= block->second;
    blocks().erase(block);
    free(address);
  }
  static bool holds(const void* address) {
    std::lock_guard<std::mutex> guard(lock());
    auto after = blocks().upper_bound((uintptr_t)address);
    if (after == blocks().begin()) return false;
    auto block = std::prev(after);
    return (int64_t)((uintptr_t)address - block->first) < block->second;
  }
  void copy_data(void* to, const void* from, std::size_t bytes) const override { default_copy_data(to, from, bytes); }
};
inline PinnedAllocator& pinned_allocator() { static PinnedAllocator one; return one; }

inline std::map<uintptr_t, size_t>& managed_blocks() { static std::map<uintptr_t, size_t> all; return all; }

inline bool is_managed(const void* address) {
  auto after = managed_blocks().upper_bound((uintptr_t)address);
  return after != managed_blocks().begin() && (uintptr_t)address - std::prev(after)->first < std::prev(after)->second;
}

// What cudaMallocManaged gives; nullptr where the machine has no managed memory.
inline void* managed_memory(size_t bytes) {
  if (!the_machine()->managed_memory) return nullptr;
  void* address = nullptr;
  if (posix_memalign(&address, 4096, std::max<size_t>(bytes, 1))) return nullptr;
  memset(address, 0xff, bytes);
  my_line().managed += (int64_t)bytes;
  managed_blocks()[(uintptr_t)address] = bytes;
  return address;
}
